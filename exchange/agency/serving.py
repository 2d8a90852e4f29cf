"""A receiver that runs: takes webhooks, and shows what came on a plain page.

* The page is for whoever has the address that is printed at the start: it holds a random word, which becomes a cookie.
* Pages run no script and load nothing; a browser keeps no copy of them.
"""

import asyncio
import hmac
import json
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from exchange.agency.acknowledging import say
from exchange.agency.asked import Question
from exchange.agency.asking import Node
from exchange.agency.event import MOST_BYTES, OverdueEvent
from exchange.agency.receiving import Agency, Inbox, Kept, Withdrawn, receive
from exchange.agency.speaking import VERBS, forms, word_of
from exchange.errors import ExchangeError
from exchange.schema.page import Html, fill, join, page, page_headers

_COOKIE: Final = "exchange-inbox"
_MOST_SHOWN: Final = 500
_BODY_WITHIN_S: Final = 60.0
_NOT_ALLOWED: Final = Html("<p>Open the address that was printed when the receiver was started.</p>")


class Receiver:
    """The handlers of a receiver."""

    def __init__(
        self, agency: Agency, inbox: Inbox, now_s: Callable[[], float] = time.time, node: Node | None = None
    ) -> None:
        self._agency = agency
        self._inbox = inbox
        #: Where it is told what becomes of a section; without it the page only shows them.
        self._node = node
        #: In every form: another site cannot have a person's browser say something here.
        self._form_word = secrets.token_urlsafe(32)
        self._now_s = now_s
        self.word = secrets.token_urlsafe(32)

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=MOST_BYTES)
        application.add_routes(
            [
                web.post("/webhook", self._webhook),
                web.get("/enter", self._enter),
                web.get("/", self._list),
                web.get("/sections/{id:evt_[0-9a-f]{32}}", self._section),
                web.post("/sections/{id:evt_[0-9a-f]{32}}/{verb}", self._say),
            ]
        )
        return application

    async def _webhook(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            answer = await asyncio.to_thread(receive, self._agency, self._inbox, headers, body, self._now_s())
        except OSError:
            return web.Response(status=503, headers={"retry-after": "60"})
        if not answer.body:
            return web.Response(status=answer.status)
        # The node records the code of a problem document, and nothing else of a refusal.
        content_type = "application/json" if answer.status < 400 else "application/problem+json"
        return web.Response(status=answer.status, body=answer.body, content_type=content_type)

    async def _enter(self, request: web.Request) -> web.Response:
        if not self._is_word(request.query.get("word", "")):
            return _page("Not allowed", _NOT_ALLOWED, 403)
        answer = web.Response(status=303, headers={"location": "/", "cache-control": "no-store"})
        answer.set_cookie(_COOKIE, self.word, httponly=True, samesite="Strict", secure=request.secure, path="/")
        return answer

    def _is_word(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="surrogateescape"), self.word.encode())

    def _may_look(self, request: web.Request) -> bool:
        return self._is_word(request.cookies.get(_COOKIE, ""))

    async def _list(self, request: web.Request) -> web.Response:
        if not self._may_look(request):
            return _page("Not allowed", _NOT_ALLOWED, 403)
        kept = await asyncio.to_thread(lambda: list(self._inbox.sections(self._agency, _MOST_SHOWN)))
        columns = ("Came", "Section", "From", "Urgent", "Who could read it")
        head = join(fill("<th scope='col'>{}</th>", name) for name in columns)
        rows = join(_row(one) for one in kept)
        table = fill("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, rows)
        if not kept:
            table = Html("<p>Nothing yet.</p>")
        asked = await asyncio.to_thread(lambda: list(self._inbox.questions(self._agency, _MOST_SHOWN)))
        late = await asyncio.to_thread(lambda: list(self._inbox.overdue(self._agency, _MOST_SHOWN)))
        gone = await asyncio.to_thread(self._inbox.withdrawn, _MOST_SHOWN)
        shown = [_overdue(late), table, _questions(asked), _withdrawn(gone)]
        return _page(f"Sections for {self._agency.kind}", join(shown))

    async def _section(self, request: web.Request) -> web.Response:
        if not self._may_look(request):
            return _page("Not allowed", _NOT_ALLOWED, 403)
        try:
            kept = await asyncio.to_thread(self._inbox.read, self._agency, request.match_info["id"])
        except OSError:
            return _page("Not found", Html("<p>There is no such section.</p>"), 404)
        except ExchangeError as error:
            return _page("It does not open", fill("<p>{}</p><p>{}</p>", error, error.hint), 422)
        facts = join(fill("<tr><th scope='row'>{}</th><td>{}</td></tr>", *fact) for fact in _facts(kept))
        content = json.dumps(kept.content, indent=2, ensure_ascii=False)
        saying = forms(kept.event.id, self._form_word) if self._node is not None else Html("")
        body = fill("<p><a href='/'>All sections</a></p><table>{}</table>{}<pre>{}</pre>", facts, saying, content)
        return _page(f"Section {kept.event.data.section}", body)

    async def _say(self, request: web.Request) -> web.Response:
        fields = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        is_ours = hmac.compare_digest(fields.get("word", "").encode(errors="surrogatepass"), self._form_word.encode())
        if not self._may_look(request) or not is_ours or self._node is None:
            return _page("Not allowed", _NOT_ALLOWED, 403)
        verb, node = request.match_info["verb"], self._node
        if verb not in VERBS:
            return _page("Not found", Html("<p>That cannot be said of a section.</p>"), 404)
        try:
            word = word_of(verb, fields)
            kept = await asyncio.to_thread(self._inbox.read, self._agency, request.match_info["id"])
            agency = self._agency
            await asyncio.to_thread(say, node, kept.event, word, agency.keys, agency.senders, agency.kind)
        except OSError:
            return _page("Not found", Html("<p>There is no such section.</p>"), 404)
        except ExchangeError as error:
            text = "<p>{}</p><p>{}</p><p><a href='/sections/{}'>Back</a></p>"
            return _page("It was not said", fill(text, error, error.hint, request.match_info["id"]), 422)
        told = "<p>The sending borough is told: {}.</p><p><a href='/'>All sections</a></p>"
        return _page("Said", fill(told, word.rung.value))


def who_could_read(kept: Kept) -> str:
    """Who could read a section, in plain English."""
    if kept.opened is None:
        return "You, and the borough's node, which opened it"
    if kept.opened.alone:
        return "You alone: sealed to your key"
    return f"You, and {', '.join(kept.opened.others)}; the borough's node for each of them without a key of its own"


def _overdue(late: list[OverdueEvent]) -> Html:
    if not late:
        return Html("")
    head = join(fill("<th scope='col'>{}</th>", name) for name in ("Told", "Message", "Late"))
    rows = [
        fill(
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            event.at,
            event.data.message_id,
            "; ".join(
                f"{step.step} by {step.agency or 'all together'}, due {step.due_at:%Y-%m-%d %H:%M} UTC"
                for step in event.data.overdue
            ),
        )
        for event in late
    ]
    return fill(
        "<h2>Overdue</h2><p>When your node told you. What was done since is not struck out here: your borough's admin "
        "can see how it stands.</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table><h2>Sections</h2>",
        head,
        join(rows),
    )


def _questions(asked: list[Question]) -> Html:
    if not asked:
        return Html("")
    head = join(fill("<th scope='col'>{}</th>", name) for name in ("Asked", "Section", "By", "Question"))
    rows = []
    for one in asked:
        who = f"{one.kind}, {one.signer or one.borough or 'as your node says'}"
        cells = (one.at, f"{one.section} of {one.message_id}", who, one.text)
        rows.append(fill("<tr>{}</tr>", join(fill("<td>{}</td>", cell) for cell in cells)))
    return fill(
        "<h2>Questions</h2><p>About sections that your borough sent. Reply by telephone: the exchange carries no "
        "replies yet.</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        head,
        join(rows),
    )


def _withdrawn(gone: list[Withdrawn]) -> Html:
    if not gone:
        return Html("")
    head = join(fill("<th scope='col'>{}</th>", name) for name in ("Ordered", "Section", "By", "What", "Why"))
    rows = []
    for one in gone:
        what = "recalled" if one.kind == "recall" else "erased"
        cells = (one.at, f"{one.section} of {one.message_id}", one.sender, what, one.reason)
        rows.append(fill("<tr>{}</tr>", join(fill("<td>{}</td>", cell) for cell in cells)))
    return fill(
        "<h2>Recalled and erased</h2><p>Do not use what you have read in these, and destroy what you copied from them."
        "</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        head,
        join(rows),
    )


def _row(kept: Kept) -> Html:
    data = kept.event.data
    link = fill("<a href='/sections/{}'>{}</a>", kept.event.id, data.section)
    cells = (kept.event.at, link, _sender(kept), "yes" if data.urgent else "no", who_could_read(kept))
    return fill("<tr>{}</tr>", join(fill("<td>{}</td>", cell) for cell in cells))


def _sender(kept: Kept) -> str:
    if kept.opened is None:
        return f"area {kept.event.data.sender_area}, as the borough's node says"
    return f"{kept.opened.sender}, {'known here' if kept.opened.known else 'not known here by a card'}"


def _facts(kept: Kept) -> list[tuple[str, str]]:
    facts = [
        ("Message", kept.event.data.message_id),
        ("Came", kept.event.at),
        ("From", _sender(kept)),
        ("Who could read it", who_could_read(kept)),
    ]
    if kept.opened is not None:
        facts += [("Signed", kept.opened.created_at), ("Sender's fingerprint", kept.opened.fingerprint)]
    return facts


def _page(heading: str, body: Html, status: int = 200) -> web.Response:
    return web.Response(
        text=page(heading, body), status=status, content_type="text/html", headers=page_headers(forms=True)
    )


async def serve(
    receiver: Receiver,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    started: Callable[[int], Any],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop`; `started` is told the port.

    Raises:
        OSError: the address is in use or not allowed.
    """
    runner = web.AppRunner(receiver.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        started(int(runner.addresses[0][1]))
        await stop.wait()
    finally:
        await runner.cleanup()
