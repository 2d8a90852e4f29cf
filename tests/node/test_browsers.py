"""What a browser may ask of the local API: pages, and from no other site; and how it says who asks."""

import base64
from collections.abc import AsyncIterator

import aiohttp
import pytest

from exchange.node.browsers import basic_password, why_refused
from tests.node.pair import Node
from tests.node.test_local_api import new_token

HERE = {"host": "localhost:8480"}
TYPED = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
OWN = {"sec-fetch-site": "same-origin", "origin": "http://localhost:8480"}
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FRAME = LINK | {"sec-fetch-dest": "iframe"}
IMAGE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
OTHER_PORT = {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"}
PAGE, API = "/selftest/housing", "/v1/tokens"

ASKED: list[tuple[str, str, dict[str, str], bool]] = [
    # A program
    ("POST", API, HERE, True),
    ("POST", API, {"host": "node"}, True),
    ("GET", API, {"host": "127.0.0.1:7480"}, True),
    ("GET", API, {"host": "[::1]:7480"}, True),
    ("GET", API, {}, True),
    # A person at a page
    ("GET", PAGE, HERE | TYPED, True),
    ("GET", PAGE, HERE | OWN, True),
    ("GET", PAGE, HERE | LINK, True),
    ("POST", PAGE, HERE | OWN, True),
    ("POST", PAGE, HERE | {"origin": "http://localhost:8480"}, True),
    # Another site
    ("GET", PAGE, HERE | FRAME, False),
    ("GET", PAGE, HERE | IMAGE, False),
    ("POST", PAGE, HERE | LINK, False),
    ("POST", PAGE, HERE | TYPED, False),
    ("POST", PAGE, HERE | OTHER_PORT, False),
    ("POST", PAGE, HERE | {"origin": "http://evil.example"}, False),
    ("POST", PAGE, HERE | {"origin": "null"}, False),
    ("POST", PAGE, HERE | {"origin": "http://localhost:3000"}, False),
    # A browser at the API
    ("GET", API, HERE | TYPED, False),
    ("POST", API, HERE | OWN, False),
    ("POST", API, HERE | LINK, False),
    ("POST", API, HERE | {"origin": "http://evil.example"}, False),
    ("POST", "/selftestify", HERE | OWN, False),
    # A name that was made to lead here
    ("GET", PAGE, {"host": "evil.example:8480"}, False),
    ("GET", API, {"host": "evil.example"}, False),
    ("GET", API, {"host": "127.0.0.1.evil.example"}, False),
    ("GET", API, {"host": "localhost.evil.example"}, False),
    ("GET", API, {"host": "192.0.2.1"}, False),
    ("GET", API, {"host": "[::1"}, False),
]


@pytest.mark.parametrize(("method", "path", "headers", "allowed"), ASKED)
def test_what_is_answered(method: str, path: str, headers: dict[str, str], allowed: bool) -> None:
    assert (why_refused(method, path, headers, any_host=False) is None) == allowed


def test_with_a_token_a_proxy_may_have_any_name() -> None:
    assert why_refused("GET", API, {"host": "exchange.enfield.example"}, any_host=True) is None
    assert why_refused("GET", API, {"host": "exchange.enfield.example"} | LINK, any_host=True) is not None


def test_the_token_is_the_password_whoever_the_user_is() -> None:
    assert basic_password("Basic " + base64.b64encode(b"anybody:exch_a:b").decode()) == "exch_a:b"
    assert basic_password("basic " + base64.b64encode(b":exch_a").decode()) == "exch_a"
    assert [basic_password(header) for header in ("", "Basic", "Basic !", "Basic /w==", "Bearer exch_a")] == [
        None,
        "",
        None,
        None,
        None,
    ]


@pytest.fixture
async def tcp(enfield: Node) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{enfield.services.configuration.tables.local.address}") as session:
        yield session


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


async def test_over_tcp_a_page_asks_for_the_token_and_nothing_else_takes_it_so(
    enfield: Node, tcp: aiohttp.ClientSession
) -> None:
    token = await new_token(enfield)
    async with tcp.get("/selftest") as answer:
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    async with tcp.get("/v1/inbox") as answer:
        assert "www-authenticate" not in answer.headers
    for password, status in ((token, 200), (f"{token}x", 401), ("", 401)):
        async with tcp.get("/selftest", headers=basic(password)) as answer:
            assert answer.status == status
    async with tcp.get("/v1/inbox", headers=basic(token)) as answer:
        assert answer.status == 401


async def test_a_site_in_a_tunnelled_browser_changes_nothing(enfield: Node) -> None:
    before = enfield.kept()
    for headers in ({"origin": "http://evil.example"}, LINK, {"host": "evil.example"}):
        asked = enfield.local_http.post("http://localhost/v1/tokens", data=b'{"name": "mine"}', headers=headers)
        async with asked as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (403, "not-for-browsers")
    assert enfield.kept() == before
