"""The local API: who may ask, what is refused with which path, and that every answer is a document."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from exchange.node.local_bounds import bounded
from tests.node.handmade import CONTENT, Borough
from tests.node.pair import Clock, Node, card_file, form
from tests.node.test_bodies import raw

DAY_MS = round(timedelta(days=1).total_seconds() * 1000)


@pytest.fixture
async def tcp(enfield: Node) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the local API on TCP."""
    async with aiohttp.ClientSession(f"http://{enfield.services.configuration.tables.local.address}") as session:
        yield session


async def new_token(node: Node, **more: Any) -> str:
    status, document = await node.local("POST", "/v1/tokens", {"name": "case system"} | more)
    assert status == 201
    return str(document["token"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_what_is_no_request_is_refused_by_a_document_that_does_not_repeat_it(enfield: Node) -> None:
    token = await new_token(enfield)
    sent = f"GET /v1/health HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {token}\r\nexpect : \0\r\n\r\n".encode()
    url = f"http://{enfield.services.configuration.tables.local.address}"
    status, body = await raw(url, sent, close=False)
    reader, writer = await asyncio.open_unix_connection(str(enfield.services.configuration.socket_path))
    writer.write(sent)
    over_socket = await reader.read()
    writer.close()
    assert " 400 " in status
    assert json.loads(body)["code"] == "bad-request"
    assert b"bad-request" in over_socket
    for answered in (body, over_socket):
        assert token.encode() not in answered


# How much at once.


@asynccontextmanager
async def bounded_site(most: int, body_timeout_s: float, release: asyncio.Event) -> AsyncIterator[str]:
    """A site behind the bounds of the local API, whose requests wait until they are released."""

    async def handle(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response(body=await request.read())

    application = web.Application(middlewares=[bounded(most, body_timeout_s)])
    application.add_routes([web.post("/", handle)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_no_more_requests_are_under_way_than_may_be_and_the_next_is_taken_after_them() -> None:
    release = asyncio.Event()
    async with bounded_site(2, 30, release) as url, aiohttp.ClientSession() as session:

        async def ask() -> int:
            async with session.post(url, data=b"x") as answer:
                return answer.status

        asked = [asyncio.ensure_future(ask()) for _ in range(3)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [503]
        release.set()
        assert sorted([task.result() if task in done else await task for task in asked]) == [200, 200, 503]
        assert await ask() == 200


@pytest.mark.slow
async def test_a_body_that_does_not_come_is_given_up() -> None:
    release = asyncio.Event()
    async with bounded_site(1, 0.1, release) as url:
        status, body = await raw(url, b"POST / HTTP/1.1\r\nhost: node\r\ncontent-length: 9\r\n\r\nabc", close=False)
        assert " 408 " in status
        assert json.loads(body)["code"] == "too-slow"


# Who may ask.


NO_TOKEN = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer exch_wrong",
    "Basic dXNlcjp3b3Jk",
    "Token {token}",
    "Bearer {token}x",
    "Bearer  {token}",
    "bearer,{token}",
    "Bearer \udcff\udcfe",
    "Bearer " + "x" * 7000,
]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/health"), ("POST", "/v1/tokens"), ("GET", "/v1/nowhere"), ("GET", "/")]
)
async def test_on_tcp_nothing_is_said_without_a_token(enfield: Node, method: str, path: str) -> None:
    token = await new_token(enfield)
    before = enfield.kept()
    for header in NO_TOKEN:
        lines = [] if header is None else [f"authorization: {header.format(token=token)}"]
        status, document = await ask(enfield, f"{method} {path} HTTP/1.1", *lines)
        assert (status, document["code"]) == (401, "token-needed"), header
    assert enfield.kept() == before


async def ask(node: Node, *lines: str) -> tuple[int, Any]:
    """Ask by hand, since a client would refuse to send some of the headers."""
    host, _, port = node.services.configuration.tables.local.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    more = ["host: local", "connection: close", "content-length: 2", "", "{}"]
    writer.write("\r\n".join([*lines, *more]).encode(errors="surrogateescape"))
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split(b" ", 2)[1]), json.loads(body)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_on_tcp_a_token_opens_the_api(enfield: Node, tcp: aiohttp.ClientSession, scheme: str) -> None:
    token = await new_token(enfield)
    async with tcp.get("/v1/health", headers={"authorization": f"{scheme} {token}"}) as answer:
        assert answer.status == 200
        assert (await answer.json())["origin"] == enfield.origin


async def test_a_token_ends_with_its_time(enfield: Node, tcp: aiohttp.ClientSession, clock: Clock) -> None:
    token = await new_token(enfield, expires_in_days=1)
    clock.now_ms += DAY_MS - 1
    async with tcp.get("/v1/health", headers=bearer(token)) as answer:
        assert answer.status == 200
    clock.now_ms += 1
    async with tcp.get("/v1/health", headers=bearer(token)) as answer:
        assert answer.status == 401


async def test_a_token_without_a_time_lasts(enfield: Node, tcp: aiohttp.ClientSession, clock: Clock) -> None:
    token = await new_token(enfield)
    clock.now_ms += 3650 * DAY_MS
    async with tcp.get("/v1/health", headers=bearer(token)) as answer:
        assert answer.status == 200


@pytest.mark.sqlite
async def test_only_the_hash_of_a_token_is_kept(enfield: Node, lines: io.StringIO) -> None:
    token = await new_token(enfield)
    path = enfield.services.configuration.store_file
    stored = path.read_bytes() + path.with_name("exchange.db-wal").read_bytes()
    assert token.encode() not in stored
    assert token.removeprefix("exch_").encode() not in stored
    assert hashlib.sha256(token.encode()).digest() in stored
    assert token not in lines.getvalue()
    assert token not in str(await enfield.local("GET", "/v1/health"))


async def test_the_socket_is_its_owners_alone(enfield: Node) -> None:
    assert enfield.services.configuration.socket_path.parent.exists()
    status, document = await enfield.local("GET", "/v1/health")
    assert (status, document["status"]) == (200, "ok")


# What does not fit is refused with the place where it does not.


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/peers", b"", "truncated"),
        ("/v1/peers", b"{", "truncated"),
        ("/v1/peers", b"[]", "object"),
        ("/v1/peers", b"null", "object"),
        ("/v1/peers", b"{}", "`card`"),
        ("/v1/peers", b'{"card":{}}', "$.card"),
        ("/v1/peers", b'{"card":{"statement":"x","proof":1}}', "$.card"),
        ("/v1/peers", b'{"card":{"statement":"AAAA","proof":"x","more":1}}', "$.card"),
        ("/v1/peers", b'{"card":{"statement":"AAAA","proof":"x"},"more":1}', "`more`"),
        ("/v1/peers", b'{"card":' + b"[" * 100_000, ""),
        ("/v1/agencies", b'{"kind":"Housing","url":"https://a.example"}', "$.kind"),
        ("/v1/agencies", b'{"kind":"housing"}', "`url`"),
        ("/v1/agencies", b'{"kind":"housing","url":""}', "$.url"),
        ("/v1/agencies", b'{"kind":"housing","url":7}', "$.url"),
        ("/v1/agencies", b'{"kind":"housing","url":"https://a.example","networks":"x"}', "$.networks"),
        ("/v1/agencies", b'{"kind":"housing","url":"https://a.example","networks":[1]}', "$.networks[0]"),
        ("/v1/agencies", b'{"kind":"housing","url":"https://a.example","secret":"x"}', "`secret`"),
        ("/v1/tokens", b"{}", "`name`"),
        ("/v1/tokens", b'{"name":""}', "$.name"),
        ("/v1/tokens", b'{"name":"a","expires_in_days":0}', "$.expires_in_days"),
        ("/v1/tokens", b'{"name":"a","expires_in_days":3651}', "$.expires_in_days"),
        ("/v1/tokens", b'{"name":"\xff"}', ""),
        ("/v1/tokens", b'{"name":"\\ud800"}', ""),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_with_its_place(
    enfield: Node, path: str, body: bytes, place: str
) -> None:
    before = enfield.kept()
    status, document = await enfield.local("POST", path, data=body)
    assert (status, document["code"]) == (400, "request-invalid")
    assert place in document["message"]
    assert enfield.kept() == before


async def test_what_was_sent_is_not_quoted(enfield: Node, lines: io.StringIO) -> None:
    for path in ("/v1/peers", "/v1/agencies", "/v1/tokens", "/v1/forms/check", "/v1/messages/to/E09000010"):
        for body in ({"a": CONTENT}, [CONTENT], CONTENT, {"kind": CONTENT, "url": CONTENT, "name": [CONTENT]}):
            _, document = await enfield.local("POST", path, body)
            assert CONTENT not in json.dumps(document)
    assert CONTENT not in lines.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "press"}, "the catalogue has"),
        ({"url": "ftp://agency.example"}, "http:// or https://"),
        ({"url": "agency.example/hook"}, "http:// or https://"),
        ({"url": "https:///hook"}, "with a host"),
        ({"url": "https://user:word@agency.example"}, "without a user"),
        ({"url": "https://:word@agency.example"}, "without a user"),
        ({"url": "https://agency.example/#part"}, "fragment"),
        ({"url": "https://["}, "cannot be read"),
        ({"url": "https://agency.example:99999"}, "cannot be read"),
        ({"url": "https://agency.example:port"}, "cannot be read"),
        ({"url": "http://agency.example"}, "only for networks that you name"),
        ({"url": "http://127.0.0.1:80", "networks": []}, "only for networks that you name"),
        ({"networks": ["hackney"]}, "--allow-network"),
        ({"networks": ["10.0.0.1/8"]}, "--allow-network"),
        ({"ca_file": "/nowhere/ca.pem"}, "CA file does not exist"),
        ({"ca_file": __file__}, "CA file holds no certificates"),
    ],
)
async def test_an_agency_that_cannot_be_is_refused(enfield: Node, changes: dict[str, Any], message: str) -> None:
    before = enfield.kept()
    body = {"kind": "housing", "url": "https://agency.example/hook"} | changes
    status, document = await enfield.local("POST", "/v1/agencies", body)
    assert (status, document["code"]) == (400, "request-invalid")
    assert message in document["message"]
    assert enfield.kept() == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/health", 404),
        ("GET", "/v1/envelopes", 404),
        ("GET", "/v1/messages", 404),
        ("PUT", "/v1/peers", 405),
        ("DELETE", "/v1/health", 405),
        ("GET", "/v1/messages/0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10", 404),
        ("GET", "/v1/messages/x/timeline", 404),
        ("GET", "/v1/messages/x/receipts", 404),
        ("GET", "/v1/peers/exchange.nowhere.example", 404),
        ("DELETE", "/v1/peers/exchange.nowhere.example", 404),
        ("POST", "/v1/peers/suspend/exchange.nowhere.example", 404),
        ("DELETE", "/v1/agencies/agency-none", 404),
        ("POST", "/v1/agencies/agency-none/test", 404),
        ("POST", "/v1/held/1/release", 404),
        ("POST", "/v1/held/x/release", 400),
        ("POST", "/v1/held/-1/release", 400),
        ("POST", "/v1/held/99999999999999999999/release", 400),
        ("GET", "/v1/messages/x?wait=understood", 400),
        ("GET", "/v1/messages/x?wait=owned&timeout_s=x", 400),
        ("GET", "/v1/messages/%00%FF", 404),
        ("GET", "/v1/messages/'%20OR%201=1--", 404),
    ],
)
async def test_what_is_not_there_is_a_problem_document_too(enfield: Node, method: str, path: str, status: int) -> None:
    async with enfield.local_http.request(method, f"http://local{path}") as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
        document = await answer.json()
        assert document["status"] == status
        assert set(document) >= {"title", "code", "message", "hint"}


async def test_a_body_that_is_too_large_is_refused(enfield: Node) -> None:
    body = io.BytesIO(b'"' + b"x" * 20 * 1024 * 1024 + b'"')
    async with enfield.local_http.post("http://local/v1/forms/check", data=body) as answer:
        assert answer.status == 413
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"referral":NaN}',
        b"[" * 200_000,
        b'{"referral":{},"referral":{}}',
        b'{"more":{}}',
    ],
)
async def test_a_form_that_is_none_is_refused_whole(enfield: Node, data: bytes, lines: io.StringIO) -> None:
    before = enfield.kept()
    status, document = await enfield.local("POST", "/v1/messages/to/E09000012", data=data)
    assert (status, document["code"]) == (422, "form-invalid")
    assert all(set(finding) == {"severity", "path", "message"} for finding in document["findings"])
    assert document["findings"]
    status, document = await enfield.local("POST", "/v1/forms/check", data=data)
    assert status == 200
    assert document["ok"] is False
    assert enfield.kept() == before


@pytest.mark.parametrize("area", ["E09000012", "E09000099", "x", "E09000012%0A"])
async def test_a_form_for_another_area_than_it_names_is_refused(enfield: Node, area: str) -> None:
    data = form("E09000007", "E09000010")
    status, document = await enfield.local("POST", f"/v1/messages/to/{area}", data=data)
    assert status == 422
    assert [finding["path"] for finding in document["findings"]] == ["referral.to_area"]


async def test_a_form_of_another_borough_is_refused(enfield: Node) -> None:
    data = form("E09000007", "E09000012")
    status, document = await enfield.local("POST", "/v1/messages/to/E09000007", data=data)
    assert status == 422
    assert [finding["path"] for finding in document["findings"]] == ["referral.from_area"]


async def test_a_form_for_an_area_without_a_peer_is_refused(enfield: Node) -> None:
    before = enfield.kept()
    status, document = await enfield.local("POST", "/v1/messages/to/E09000007", data=form("E09000007", "E09000010"))
    assert (status, document["code"]) == (404, "peer-unknown")
    assert "exchange peer add" in document["hint"]
    assert enfield.kept() == before


async def test_nothing_is_sent_to_a_peer_that_is_not_verified(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden, verified=False)
    before = enfield.kept()
    status, document = await enfield.local("POST", "/v1/messages/to/E09000007", data=form("E09000007", "E09000010"))
    assert (status, document["code"]) == (403, "peer-untrusted")
    assert enfield.kept() == before


async def test_nothing_is_sent_where_two_peers_say_that_they_serve_the_area(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    other = Borough("aaa.example", camden.area, clock)
    await enfield.know(camden)
    await enfield.know(other)
    before = enfield.kept()
    status, document = await enfield.local("POST", "/v1/messages/to/E09000007", data=form("E09000007", "E09000010"))
    assert (status, document["code"]) == (403, "peer-untrusted")
    assert "aaa.example and exchange.camden.example" in document["message"]
    assert enfield.kept() == before
    await enfield.local("POST", f"/v1/peers/suspend/{other.origin}")
    status, document = await enfield.local("POST", "/v1/messages/to/E09000007", data=form("E09000007", "E09000010"))
    assert (status, document["peer"]) == (201, camden.origin)


async def test_a_peer_whose_keys_have_all_ended_is_sent_nothing(enfield: Node, camden: Borough, clock: Clock) -> None:
    await enfield.know(camden)
    clock.now_ms += 31 * DAY_MS
    status, document = await enfield.local("POST", "/v1/messages/to/E09000007", data=form("E09000007", "E09000010"))
    assert status == 422 or document["held"].startswith("no current key"), document


# Peers.


async def test_a_card_with_another_fingerprint_is_not_kept(enfield: Node, camden: Borough) -> None:
    before = enfield.kept()
    body = {"card": card_file(camden.card()), "fingerprint": "0" * 64}
    status, document = await enfield.local("POST", "/v1/peers", body)
    assert (status, document["code"]) == (403, "fingerprint-mismatch")
    assert enfield.kept() == before


async def test_a_card_whose_proof_does_not_hold_is_not_kept(enfield: Node, camden: Borough) -> None:
    card, other = camden.card(), camden.card()
    before = enfield.kept()
    bent = [
        card_file(card) | {"proof": other.proof},
        card_file(card) | {"statement": card_file(other)["statement"]},
        card_file(card) | {"proof": ""},
        card_file(card) | {"statement": ""},
    ]
    for file in bent:
        status, document = await enfield.local("POST", "/v1/peers", {"card": file})
        assert (status, document["code"]) == (400, "request-invalid")
    assert enfield.kept() == before


async def test_a_node_is_not_its_own_peer(enfield: Node) -> None:
    status, document = await enfield.local("POST", "/v1/peers", {"card": card_file(await enfield.proven_card())})
    assert (status, document["message"]) == (400, "that is this node's own card")


async def test_what_the_node_counts_and_how_lanes_do_is_told(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    _, document = await enfield.local("GET", "/v1/health")
    assert [lane["lane"] for lane in document["lanes"]] == [f"peer:{camden.origin}"]
    assert isinstance(document["counters"], dict)
