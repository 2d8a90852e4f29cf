"""Request bodies that come slowly, squeezed, cut off or not at all: each is refused, and the node goes on."""

import asyncio
import gzip
import io
import json
import re
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from exchange.node.continuity import Continuity
from exchange.node.inbound import Inbound
from exchange.node.peer_api import PeerApi
from exchange.node.peer_client import ENVELOPE_TYPE, PeerClient
from tests.node.handmade import Borough, read_reply
from tests.node.pair import Node

TIMEOUT_S = 0.2


def envelope(camden: Borough, node_card: object) -> bytes:
    made = camden.message(node_card)  # type: ignore[arg-type]
    return camden.envelope(node_card, [camden.sign_manifest(made)], made.ciphertexts)  # type: ignore[arg-type]


async def raw(url: str, *parts: bytes, close: bool = True) -> tuple[str, bytes]:
    """Send bytes over a connection of one's own; return the status line and what follows the head."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part)
    if close:
        writer.write_eof()
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        head = b""
    length = re.search(rb"content-length: ([0-9]+)", head.lower())
    body = await reader.readexactly(int(length[1])) if length else b""
    writer.close()
    return head.partition(b"\r\n")[0].decode(), body


def head(*lines: str) -> bytes:
    start = ["POST /v1/envelopes HTTP/1.1", "host: node", f"content-type: {ENVELOPE_TYPE}", "connection: close"]
    return ("\r\n".join([*start, *lines]) + "\r\n\r\n").encode()


async def still_works(node: Node, camden: Borough) -> None:
    status, body = await node.post(envelope(camden, await node.card()))
    assert status == 200
    assert read_reply(body).results[0].receipt is not None


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "x"])
async def test_a_compressed_body_is_not_unpacked(enfield: Node, camden: Borough, encoding: str) -> None:
    await enfield.know(camden)
    before = enfield.kept()
    data = gzip.compress(bytes(1024 * 1024))
    status, body = await raw(
        enfield.url, head(f"content-encoding: {encoding}", f"content-length: {len(data)}"), data, close=False
    )
    assert " 415 " in status or " 400 " in status
    assert len(body) < 1000
    assert enfield.kept() == before
    await still_works(enfield, camden)


@pytest.mark.parametrize("announced", [1, 100, 50_000])
async def test_a_body_that_is_cut_off_is_not_taken(
    enfield: Node, camden: Borough, announced: int, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    before = enfield.kept()
    data = envelope(camden, await enfield.card())
    await raw(enfield.url, head(f"content-length: {len(data) + announced}"), data)
    assert enfield.kept() == before
    camden.shown = 1
    await still_works(enfield, camden)
    assert "request failed" not in lines.getvalue()


@pytest.mark.parametrize("body", [b"", b"zz\r\n", b"5\r\nabc", b"-1\r\n", b"ffffffffffffffff\r\n", b"0\r\n"])
async def test_chunks_that_are_none_are_not_taken(
    enfield: Node, camden: Borough, body: bytes, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    before = enfield.kept()
    status, _ = await raw(enfield.url, head("transfer-encoding: chunked"), body)
    assert " 200 " not in status
    assert enfield.kept() == before
    await still_works(enfield, camden)
    assert "request failed" not in lines.getvalue()


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\r\n" * 100, b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_answered_and_forgotten(enfield: Node, camden: Borough, data: bytes) -> None:
    await enfield.know(camden)
    status, _ = await raw(enfield.url, data)
    assert status == "" or " 400 " in status
    await still_works(enfield, camden)


@pytest.fixture
async def impatient(enfield: Node) -> AsyncIterator[str]:
    """The peer API of the node, at a place of its own, with little patience."""
    services = enfield.services
    continuity = Continuity(services.store, services.now_ms)
    inbound = Inbound(services, continuity, PeerClient(services).fetch_consistency)
    api = PeerApi(services, inbound, lambda origin, lanes: None, body_timeout_s=TIMEOUT_S)
    runner = web.AppRunner(api.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("sent", [0, 1, 20, 3000])
async def test_a_body_that_does_not_come_to_its_end_is_given_up(
    enfield: Node, impatient: str, camden: Borough, sent: int
) -> None:
    await enfield.know(camden)
    before = enfield.kept()
    data = envelope(camden, await enfield.card())
    status, body = await raw(impatient, head(f"content-length: {len(data)}"), data[:sent], close=False)
    assert " 408 " in status
    assert json.loads(body)["code"] == "too-slow"
    assert enfield.kept() == before


async def test_what_the_store_cannot_keep_now_is_to_be_sent_again(
    enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    data = envelope(camden, await enfield.card())
    await enfield.services.store.close()
    status, body = await enfield.post(data)
    assert (status, json.loads(body)["code"]) == (503, "try-later")
    assert (await enfield.local("GET", "/v1/inbox"))[0] == 503
