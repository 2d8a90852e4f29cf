"""What strangers can take of the public listener: connections, time and memory, each bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from exchange.node.continuity import Continuity
from exchange.node.inbound import Inbound
from exchange.node.listener import Bodies, Connections, PublicSite
from exchange.node.peer_api import PeerApi
from exchange.node.peer_client import PeerClient
from tests.node.handmade import Borough, read_reply
from tests.node.pair import DEADLINE_S, Node, until
from tests.node.test_bodies import envelope, head, raw

HEALTH = b"GET /v1/health HTTP/1.1\r\nhost: node\r\n\r\n"


class Caller:
    """A connection of a stranger."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self) -> str:
        """Ask for the node's health; the status line."""
        self.writer.write(HEALTH)
        return (await self.answer())[0]

    async def answer(self) -> tuple[str, bytes]:
        """The status line and the body of an answer."""
        async with asyncio.timeout(DEADLINE_S):
            answered = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(answered.partition("content-length: ")[2].split()[0])
            return answered.partition("\r\n")[0], await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        """Wait until the other side closes, and read nothing before that."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


class Listener:
    """A public listener of a running node, at a place and with bounds of its own."""

    def __init__(self, node: Node) -> None:
        services = node.services
        inbound = Inbound(services, Continuity(services.store, services.now_ms), PeerClient(services).fetch_consistency)
        self._api = PeerApi(services, inbound, lambda origin, lanes: None)
        self._stack = AsyncExitStack()
        self.url = ""

    async def start(self, connections: Connections) -> "Listener":
        self._api.connections = connections
        runner = web.AppRunner(self._api.application(), access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await PublicSite(runner, "127.0.0.1", 0, connections, None).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    async def call(self) -> Caller:
        """Connect, and wait until the node has seen that."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        self._stack.callback(writer.close)
        caller = Caller(reader, writer)
        assert "200" in await caller.ask()
        return caller

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def listener(enfield: Node) -> AsyncIterator[Listener]:
    made = Listener(enfield)
    yield made
    await made.close()


async def test_the_connection_that_is_idle_for_longest_makes_room(listener: Listener) -> None:
    await listener.start(Connections(most=2))
    first, second = await listener.call(), await listener.call()
    assert "200" in await first.ask()
    third = await listener.call()
    assert await second.is_closed()
    for caller in (first, third):
        assert "200" in await caller.ask()


async def test_a_request_that_is_under_way_does_not_make_room(
    enfield: Node, camden: Borough, listener: Listener
) -> None:
    await enfield.know(camden)
    await listener.start(Connections(most=2))
    data = envelope(camden, await enfield.card())
    sender = await listener.call()
    sender.writer.write(head(f"content-length: {len(data)}") + data[:100])
    before = [await listener.call() for _ in range(4)]
    assert all([await caller.is_closed() for caller in before[:-1]])
    sender.writer.write(data[100:])
    status, body = await sender.answer()
    assert " 200 " in status
    assert read_reply(body).results[0].receipt is not None


@pytest.mark.parametrize("said", [b"", b"POST /v1/env", b"GET /v1/card HTTP/1.1\r\nhost: node\r\nx-slow: "])
async def test_who_does_not_come_to_the_end_of_a_head_is_closed(listener: Listener, said: bytes) -> None:
    await listener.start(Connections(idle_s=0.2))
    caller = await listener.call()
    caller.writer.write(said)
    assert await caller.is_closed()


@pytest.mark.slow
async def test_when_too_many_bodies_are_on_their_way_the_one_that_is_so_for_longest_is_given_up() -> None:
    bodies, seen = Bodies(most=2, patience_s=DEADLINE_S), []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.headers["x-name"])
        try:
            return web.Response(body=await bodies.read(request))
        except TimeoutError:
            return web.Response(status=408)

    application = web.Application()
    application.add_routes([web.post("/", take)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    callers = []
    for name in "abc":
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(f"POST / HTTP/1.1\r\nhost: node\r\nx-name: {name}\r\ncontent-length: 4\r\n\r\nab".encode())
        callers.append(Caller(reader, writer))

        async def came(wanted: str = name) -> bool:
            return wanted in seen

        await until(f"the body {name} is on its way", came)
    assert " 408 " in (await callers[0].answer())[0]
    for caller in callers[1:]:
        caller.writer.write(b"cd")
        assert (await caller.answer()) == ("http/1.1 200 ok", b"abcd")
    callers[0].writer.write(b"cd")
    for caller in callers:
        caller.writer.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    "sent",
    [
        HEALTH,
        b"GET /v1/nothing HTTP/1.1\r\nhost: node\r\n\r\n",
        b"DELETE /v1/card HTTP/1.1\r\nhost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00 fictitious\r\n\r\n",
        b"GET / HTTP/1.1\r\nfictitious\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: node\r\nfictitious: " + b"x" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: node\r\n" + b"fictitious: x\r\n" * 1000 + b"\r\n",
    ],
)
async def test_no_answer_names_the_software_or_repeats_what_was_sent(enfield: Node, sent: bytes) -> None:
    host, _, port = enfield.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    answer += await reader.readexactly(int(answer.partition(b"content-length: ")[2].split()[0]))
    writer.close()
    assert b"server: exchange\r\n" in answer
    for word in (b"aiohttp", b"python", b"fictitious"):
        assert word not in answer


async def test_what_is_refused_does_not_stop_the_listener(enfield: Node) -> None:
    for _ in range(3):
        await raw(enfield.url, b"\x00" * 100)
    async with enfield.http.get(f"{enfield.url}/v1/health") as answer:
        assert answer.status == 200
