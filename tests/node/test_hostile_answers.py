"""What a hostile peer answers when it is asked for something: no answer stops the node, or passes for one."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from exchange.node.card_refresh import CardRefresh
from exchange.node.continuity import Continuity
from exchange.node.errors import NotNow, RequestInvalid
from exchange.node.inbound import Inbound
from exchange.node.peer_client import PeerClient, Place
from exchange.store.peers import peer
from tests.node.handmade import Borough
from tests.node.pair import Node

DEEP = b'{"x":' + b"[" * 100_000


def response(status: str, *headers: bytes, body: bytes = b"") -> bytes:
    head = [b"HTTP/1.1 " + status.encode(), b"content-length: %d" % len(body), b"connection: close", *headers]
    return b"\r\n".join([*head, b"", body])


ANSWERS = {
    "nothing": b"",
    "no HTTP": b"\x16\x03\x01\x02\x00",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "half a body": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    "a status that is none": response("999999 OK"),
    "an early answer without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    "many headers": response("200 OK", *[b"x: y"] * 10_000),
    "a long header": response("200 OK", b"x: " + b"y" * 100_000),
    "bytes in a header": response("200 OK", b"content-type: \xff\xfe;\x80=\x81"),
    "a content type that is none": response("500 No", b'content-type: ;;;/="', body=DEEP),
    "a parameter with an odd number": response("500 No", b"content-type: application/problem+json; a*\xc2\xb2*=1"),
    "a parameter with a long number": response("500 No", b"content-type: a/b; a*" + b"9" * 5000 + b"*=1"),
    "bad chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "compressed": response("200 OK", b"content-encoding: gzip", body=b"\x1f\x8b\x00"),
    "a redirect": response("302 Found", b"location: http://127.0.0.1:1/"),
    "an endless wait": response("503 Not now", b"retry-after: " + b"9" * 5000),
    "a deep card": response("200 OK", b"content-type: application/json", body=DEEP),
    "a deep problem": response("500 No", b"content-type: application/problem+json", body=DEEP),
    "a problem that is a list": response("500 No", b"content-type: application/problem+json", body=b"[1]"),
    "a problem without UTF-8": response("500 No", b"content-type: application/problem+json", body=b'{"code":"\xff"}'),
    "a deep proof": response("200 OK", b"content-type: application/json", body=b'{"first":0,"x":' + b"[" * 100_000),
    "another card": response("200 OK", body=b'{"statement":"","proof":""}'),
}


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[str]:
    """A server that says `data` to whatever comes; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.write_eof()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("name", ANSWERS)
async def test_no_answer_is_more_than_a_card_or_a_proof_that_is_not_there(
    enfield: Node, camden: Borough, lines: io.StringIO, name: str
) -> None:
    client = PeerClient(enfield.services)
    async with answering(ANSWERS[name]) as camden.url:
        await enfield.know(camden)
        row = await enfield.services.store.read(lambda tx: peer(tx, camden.origin))
        with pytest.raises((NotNow, RequestInvalid)):
            await client.fetch_card(Place(camden.url, None))
        with pytest.raises(NotNow):
            await client.fetch_consistency(row, 1, 2)
        # Looks for cards as the node does in the background, where whatever is raised would end the node.
        continuity = Continuity(enfield.services.store, enfield.services.now_ms)
        inbound = Inbound(enfield.services, continuity, client.fetch_consistency)
        refresh = CardRefresh(enfield.services, continuity, inbound, client, [].append)
        await refresh.refresh(camden.origin)
    await client.close()
    assert (await enfield.local("GET", "/v1/health"))[0] == 200
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert "card not fetched" in {line["event"] for line in told}
    assert not [line for line in told if "internal" in str(line.get("reason"))]
