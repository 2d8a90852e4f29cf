"""Pages of HTML for people, of one look, safe by construction: text is escaped where it is filled in.

* No script and nothing from elsewhere: the policy allows the one style sheet by its digest, and forms to the page's own
  address where there are any. Browsers keep no copy, and no other site may frame a page.
* They follow WCAG 2.2 AA: every field has a label, focus is seen, long lines wrap, one heading for each part.
"""

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Iterable
from typing import Final

_STYLE: Final = importlib.resources.files("exchange.schema").joinpath("data/page.css").read_text(encoding="utf-8")
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_PAGE: Final = (
    "<!doctype html>\n<html lang='en-GB'><head><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width, initial-scale=1'><title>{}</title><style>{}</style></head>"
    "<body><a class='skip' href='#main'>Skip to main content</a><header>{}</header>"
    "<main id='main'><h1>{}</h1>{}</main></body></html>\n"
)


class Html(str):
    """A piece of HTML. Any other text is escaped where it is filled into one."""

    __slots__ = ()


def fill(template: str, *values: object) -> Html:
    """Fill values into a template at each `{}`: text is escaped, HTML is not."""
    return Html(template.format(*(value if isinstance(value, Html) else html.escape(str(value)) for value in values)))


def join(pieces: Iterable[Html]) -> Html:
    """One piece after the other."""
    return Html("".join(pieces))


def page(heading: str, body: Html, *, title: str | None = None, service: str = "Borough exchange") -> str:
    """A whole page; `title` where the browser is to show another one than the heading."""
    whole = fill("{}", f"{title or heading} - {service}")
    return fill(_PAGE, whole, Html(_STYLE), service, heading, body)


def page_headers(*, forms: bool = False, referrer: str = "no-referrer") -> dict[str, str]:
    """The headers that go with a page."""
    policy = (
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'; "
        f"form-action '{'self' if forms else 'none'}'"
    )
    return {
        "cache-control": "no-store",
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": referrer,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
