"""What a browser may ask of the local API: its pages alone, and those from no other site.

A browser that can reach the API, as through `ssh -L`, brings along every site that is open in it. Against these:

* A request that a browser makes for a site is refused, save for a person's own on a page (`Sec-Fetch-Site`, or `Origin`
  where a browser does not send that).
* On the Unix socket, which asks for no token, `Host` names this machine. A name that an attacker's DNS server made lead
  here (DNS rebinding) has a dot.
* Over TCP a page takes the token as the password of HTTP Basic. Nothing else does: what a browser sends by itself opens
  nothing but pages. Cookies would go to every port of this machine, and a token in an address into its history.
"""

import base64
import binascii
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from exchange.node.problems import problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGES: Final = "/selftest"


def is_page(path: str) -> bool:
    """Whether a path is one of a page."""
    return path == PAGES or path.startswith(f"{PAGES}/")


def why_refused(method: str, path: str, headers: Mapping[str, str], *, any_host: bool) -> str | None:
    """Why a request is not answered, if so; `headers` takes any case. `any_host` where a token is needed."""
    host = headers.get("host", "")
    if not (any_host or _is_here(host)):
        return "the request names another host: reach the node as localhost"
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return None  # no browser, or a page that somebody opened in one that is old
    if not is_page(path):
        return "a browser may ask for pages alone"
    if method in ("GET", "HEAD"):
        own = site in (None, "none", "same-origin")
        is_visit = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return None if own or is_visit else "another site asks for it"
    own = site == "same-origin" if site is not None else origin is not None and urlsplit(origin).netloc == host
    return None if own else "another site sends the form"


def _is_here(host: str) -> bool:
    """Whether a name is this machine's: an address of loopback, or a name without a dot."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return "." not in name


def basic_password(header: str) -> str | None:
    """The password of an Authorization header of the kind Basic; the user's name does not matter."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def guarded(*, any_host: bool) -> Any:
    """A middleware that refuses what a browser may not ask."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = why_refused(request.method, request.path, request.headers, any_host=any_host)
        if why is not None:
            return problem(
                403, "not-for-browsers", why, "Programs ask without Origin and Sec-Fetch-Site. See docs/api.md."
            )
        return await handler(request)

    return guard
