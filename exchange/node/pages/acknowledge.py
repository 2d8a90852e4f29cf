"""The page behind a one-time link: what is to be taken on, one button, and what came of it.

* It is on the agencies' listener, and asks for nothing but the link: whoever has the link may use it, once.
* GET and HEAD change nothing. A POST without a name, role and contact, as a scanner may send one, does not either.
* It says nothing of the section but its kind, a reference, and from which borough; nor who used the link.
* The link is in the path, since there is no script: so it is sent to no other site, and kept by no browser's cache.
"""

import importlib.resources
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from exchange.errors import ExchangeError
from exchange.handover.linking import Standing
from exchange.node.errors import LinkUseless
from exchange.node.links import Links, Shown
from exchange.node.problems import status_of
from exchange.node.section_words import OwnSection
from exchange.node.services import moment
from exchange.schema.areas import area_name
from exchange.schema.page import Html, fill, join, page, page_headers
from exchange.schema.vocabulary import Line, Text

_PATH: Final = "/acknowledge/{token}"
_HEADING: Final = "Take on a section"
FORM_TYPE: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 20
_LABELS: Final = {"name": "your name", "role": "your role", "contact": "how to reach you", "note": "a note"}
_TELEPHONE: Final = "Ask your borough's coordinator for a new link, if you need one."
#: What is said of a link that cannot be used, and with which status.
_USELESS: Final[Mapping[Standing, tuple[str, str]]] = {
    Standing.USED: (
        "This link has been used",
        "The section was taken on with it. If it was you, there is nothing more to do.",
    ),
    Standing.TAKEN: ("This section has been taken on", "Somebody at your agency has taken it on in another way."),
    Standing.WITHDRAWN: ("This link was withdrawn", f"It cannot be used any more. {_TELEPHONE}"),
    Standing.EXPIRED: ("This link has expired", f"Nothing was recorded with it. {_TELEPHONE}"),
    Standing.ELSEWHERE: (
        "This section is not with your agency",
        "It was given to another agency, or has not arrived. Ask your borough's coordinator.",
    ),
}


class AcknowledgePages:
    """The handlers; `guessed` is told of a request whose link is none, and refuses those who try many."""

    def __init__(self, links: Links, guessed: Callable[[web.Request], None]) -> None:
        self._links = links
        self._guessed = guessed

    def open_routes(self) -> list[web.RouteDef]:
        """For everybody who has a link."""
        return [web.get(_PATH, self._show), web.post(_PATH, self._use)]

    async def _show(self, request: web.Request) -> web.Response:
        shown = await self._links.show(request.match_info["token"])
        if shown is None:
            return self._unknown(request)
        return _useless(shown.standing) or _respond(_HEADING, _form(shown, {}, {}))

    async def _use(self, request: web.Request) -> web.Response:
        token = request.match_info["token"]
        shown = await self._links.show(token)
        if shown is None:
            return self._unknown(request)
        if (useless := _useless(shown.standing)) is not None:
            return useless
        given = given_fields(request.content_type, await request.read())
        wanted, wrong = read_fields(given)
        if wanted is None:
            title, body = f"Error: {_HEADING}", join([_summary(wrong), _form(shown, given, wrong)])
            return _respond(_HEADING, body, 422, title)
        try:
            await self._links.use(token, wanted.word())
        except LinkUseless as error:
            return _useless(Standing(error.standing)) or self._unknown(request)
        except ExchangeError as error:
            body = fill("<p>{}.</p><p>Nothing was recorded, and the link can still be used. {}</p>", error, error.hint)
            return _respond("There is a problem", body, status_of(error))
        return _respond("You have taken this section on", _done(shown))

    def _unknown(self, request: web.Request) -> web.Response:
        self._guessed(request)
        body = fill("<p>Check that you have the whole address. What was erased is not known.</p><p>{}</p>", _TELEPHONE)
        return _respond("This link is not known", body, 404)


def _useless(standing: Standing) -> web.Response | None:
    if standing is Standing.GOOD:
        return None
    heading, text = _USELESS[standing]
    return _respond(heading, fill("<p>{}</p>", text), 410)


def given_fields(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of the form, where it is one."""
    if content_type != FORM_TYPE:
        return {}
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        return {}
    return {name: value.replace("\r\n", "\n").strip() for name, value in pairs if name in _LABELS}


def read_fields(given: Mapping[str, str]) -> tuple[OwnSection | None, dict[str, str]]:
    """What is said, or what is wrong with each field."""
    wrong = {}
    for name, label in _LABELS.items():
        value = given.get(name, "")
        if not value and name != "note":
            wrong[name] = f"Enter {label}"
        elif value:
            try:
                msgspec.convert(value, Text if name == "note" else Line)
            except msgspec.ValidationError:
                most = 8000 if name == "note" else 200
                wrong[name] = f"Write {label} in {most} characters or fewer, without hidden ones"
    if wrong:
        return None, wrong
    return msgspec.convert({name: value for name, value in given.items() if value}, OwnSection), {}


@cache
def _template() -> str:
    place = importlib.resources.files("exchange.node.pages").joinpath("acknowledge-form.html")
    return place.read_text(encoding="utf-8")


def _form(shown: Shown, given: Mapping[str, str], wrong: Mapping[str, str]) -> Html:
    borough, kind = _borough(shown), shown.agency.name
    values: list[object] = [_reference(shown), shown.row.section, borough, kind, kind, borough, borough]
    for name in _LABELS:
        error = fill("<p class='error' id='{}-error'>Error: {}</p>", name, wrong[name]) if name in wrong else Html("")
        described = [] if name == "name" else [f"{name}-hint"]
        described += [f"{name}-error"] if name in wrong else []
        attributes = fill(" aria-describedby='{}'", " ".join(described)) if described else Html("")
        value = given.get(name, "")
        # The text of a note stands in the element, behind its attributes.
        values += [error, attributes, value] if name == "note" else [error, value, attributes]
    return fill(_template(), *values, f"{moment(shown.row.expires_at_ms):%d %B %Y, %H:%M} UTC")


def _summary(wrong: Mapping[str, str]) -> Html:
    items = join(fill("<li><a href='#{}'>{}</a></li>", name, text) for name, text in wrong.items())
    return fill("<div class='panel bad' role='alert'><h2>There is a problem</h2><ul>{}</ul></div>", items)


def _done(shown: Shown) -> Html:
    return fill(
        "<div class='panel good' role='status'><p>Reference {}</p></div>"
        "<p>{} is told that {} holds it, with what you gave.</p>"
        "<p>There is nothing more to do here, and the link does not work again.</p>",
        _reference(shown),
        _borough(shown),
        shown.agency.name,
    )


def _reference(shown: Shown) -> str:
    return shown.section.message.message_id if shown.section is not None else ""


def _borough(shown: Shown) -> str:
    return area_name(shown.section.manifest.from_area) if shown.section is not None else ""


def _respond(heading: str, body: Html, status: int = 200, title: str | None = None) -> web.Response:
    headers = page_headers(forms=True) | {"x-robots-tag": "noindex, nofollow"}
    return web.Response(text=page(heading, body, title=title), status=status, content_type="text/html", headers=headers)
