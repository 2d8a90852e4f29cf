"""The self-test page of an agency: a sample, a form for what came, what was found, and code that verifies.

What is entered is answered and forgotten. Of it the page shows the headers again, never the body or the secret.
"""

import base64
import binascii
import importlib.resources
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Final

from aiohttp import web

from exchange.errors import ExchangeError
from exchange.node.browsers import PAGES
from exchange.node.errors import RequestInvalid
from exchange.node.form_data import parse_form
from exchange.node.problems import status_of
from exchange.node.selftest import SelfTest, SignedSample, hex_dump
from exchange.node.services import Services
from exchange.schema.page import Html, fill, join, page, page_headers
from exchange.schema.selftest.bodies import MOST_BYTES
from exchange.schema.selftest.diagnosis import Diagnosis
from exchange.store.agencies import all_agencies

#: The languages of the snippets, and their files.
SNIPPETS: Final = (
    ("Python", "verify.py"),
    ("JavaScript", "verify.mjs"),
    ("C#", "Verify.cs"),
    ("Java", "Verify.java"),
)
_KINDS: Final = {"right": "Right", "wrong": "Wrong", "likely": "Likely", "note": "Note"}
_MOST_TEXT: Final = 32_768


@cache
def _read(file: str) -> str:
    return importlib.resources.files("exchange.node.pages").joinpath(file).read_text(encoding="utf-8")


def snippet(file: str, sample: SignedSample) -> str:
    """A program that verifies a sample; a JSON text is a literal of all four languages."""
    values = {
        "@ID@": sample.event_id,
        "@TIMESTAMP@": str(sample.timestamp_s),
        "@SIGNATURE@": sample.headers["webhook-signature"],
        "@BODY@": json.dumps(sample.body.decode()),
    }
    text = _read(f"snippets/{file}.txt")
    for name, value in values.items():
        text = text.replace(name, value)
    return text


class SelfTestPages:
    """The handlers."""

    def __init__(self, services: Services, selftest: SelfTest) -> None:
        self._services = services
        self._selftest = selftest

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get(PAGES, self._list),
            web.get(f"{PAGES}/{{id}}", self._show),
            web.post(f"{PAGES}/{{id}}", self._diagnose),
        ]

    async def _list(self, _: web.Request) -> web.Response:
        rows = await self._services.store.read(all_agencies)
        links = join(fill("<li><a href='{}/{}'>{}</a></li>", PAGES, row.id, row.name) for row in rows)
        none = Html("<p>No agency is registered. Register one with <code>exchange agency add</code>.</p>")
        body = fill("<p>Choose whose webhooks to check.</p><ul>{}</ul>", links) if rows else none
        return _respond("Check how agencies verify webhooks", body)

    async def _show(self, request: web.Request) -> web.Response:
        try:
            sample = await self._selftest.sample(request.match_info["id"])
        except ExchangeError as error:
            return _failed(error)
        return _respond(_heading(sample), _body(sample, None, {}))

    async def _diagnose(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        try:
            sample = await self._selftest.sample(name)
        except ExchangeError as error:
            return _failed(error)
        shown: dict[str, str] = {}
        try:
            fields = parse_form(request.headers.get("content-type", ""), await request.read())
            shown = {key: _text(fields, key) for key in ("headers", "computed", "clock")}
            diagnosis = await self._selftest.diagnose(
                name, shown["headers"], _given_body(fields), _text(fields, "secret"), shown["computed"], shown["clock"]
            )
        except ExchangeError as error:
            body = join([_error(error), _body(sample, None, shown)])
            return _respond(_heading(sample), body, f"Error: {_heading(sample)}", status_of(error))
        verdict = "Right" if diagnosis.ok else "What was found"
        return _respond(_heading(sample), _body(sample, diagnosis, shown), f"{verdict}: {_heading(sample)}")


def _text(fields: Mapping[str, bytes], key: str) -> str:
    value = fields.get(key, b"")
    if len(value) > _MOST_TEXT:
        raise RequestInvalid("a field is too long")
    # A password is taken as it is: a space at its end may be what is wrong.
    text = value.decode(errors="replace")
    return text if key == "secret" else text.strip()


def _given_body(fields: Mapping[str, bytes]) -> bytes:
    """The body from the file, or from the text: browsers send line ends as CR LF, whatever they were."""
    given = fields.get("file") or b""
    if not given:
        given = fields.get("body", b"").replace(b"\r\n", b"\n")
        written = fields.get("written", b"text")
        try:
            if written == b"base64":
                given = base64.b64decode(b"".join(given.split()), validate=True)
            elif written == b"hex":
                given = bytes.fromhex(given.decode())
        except (binascii.Error, ValueError):
            hint = "Choose how the body is written, or send the file."
            raise RequestInvalid(f"the body cannot be read as {written.decode()}", hint=hint) from None
    if len(given) > MOST_BYTES:
        raise RequestInvalid("the body is larger than 1 MiB", hint="Check with the sample of this page.")
    return given


def _respond(heading: str, body: Html, title: str | None = None, status: int = 200) -> web.Response:
    # Without a referrer at all, old browsers would not say of a form from which site it comes.
    headers = page_headers(forms=True, referrer="same-origin")
    return web.Response(text=page(heading, body, title=title), status=status, content_type="text/html", headers=headers)


def _failed(error: ExchangeError) -> web.Response:
    body = fill("<p>{}.</p><p>{}</p><p><a href='{}'>All agencies</a></p>", error, error.hint, PAGES)
    return _respond("There is a problem", body, status=status_of(error))


def _heading(sample: SignedSample) -> str:
    return f"Check how {sample.name} verifies webhooks"


def _error(error: ExchangeError) -> Html:
    template = "<div class='panel bad' role='alert'><h2>There is a problem</h2><p>{}.</p><p>{}</p></div>"
    return fill(template, _sentence(str(error)), error.hint)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _body(sample: SignedSample, diagnosis: Diagnosis | None, shown: Mapping[str, str]) -> Html:
    return join(
        [
            _found(diagnosis) if diagnosis is not None else Html(""),
            Html(
                "<p>The node has signed a synthetic event. It is about nobody. Send it to your receiver, and if that "
                "refuses it, enter below what came. Nothing that you enter is kept.</p>"
            ),
            _sample(sample),
            _form(shown),
            _snippets(sample),
        ]
    )


def _found(diagnosis: Diagnosis) -> Html:
    items = join(
        fill("<li><p><strong class='tag'>{}</strong> {}</p><p>{}</p></li>", _KINDS[one.kind], one.message, one.hint)
        for one in diagnosis.findings
    )
    look = Html("good" if diagnosis.ok else "bad")
    return fill("<div class='panel {}' role='alert'><h2>What was found</h2><ul>{}</ul></div>", look, items)


def _sample(sample: SignedSample) -> Html:
    until = f"{datetime.fromtimestamp(sample.expires_s, UTC):%H:%M:%S} UTC"
    rows = join(
        fill("<dt>{}</dt><dd><code>{}</code></dd>", name, value)
        for name, value in (*sample.headers.items(), ("body", sample.body.decode()))
    )
    signed = sample.signed
    shown = (rows, len(signed), signed.decode(), hex_dump(signed), sample.curl)
    return fill(_read("selftest-sample.html"), until, PAGES, sample.agency_id, *shown)


def _form(shown: Mapping[str, str]) -> Html:
    return fill(_read("selftest-form.html"), *(shown.get(key, "") for key in ("headers", "computed", "clock")))


def _snippets(sample: SignedSample) -> Html:
    pieces = [
        Html(
            "<h2 id='code'>3. Code that verifies</h2><p>Each verifies the sample above while it is fresh. "
            "Put the secret into the environment variable <code>WEBHOOK_SECRET</code>.</p>"
        )
    ]
    for language, file in SNIPPETS:
        label = f"{language}, {file}"
        template = "<h3>{}</h3><pre class='wide' tabindex='0' role='region' aria-label='{}'>{}</pre>"
        pieces.append(fill(template, language, label, snippet(file, sample)))
    return join(pieces)
