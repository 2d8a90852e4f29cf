"""Receivers that are slow, die, shout, redirect, flap or fail for an hour: nothing is lost, nothing is sent twice after
its 2xx was recorded, and others are not slowed. Real sockets; the hour is simulated."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.node.agency import LOOPBACK, Agency
from tests.node.handmade import Borough, Desk, read_reply
from tests.node.pair import Clock, Node, until
from tests.node.test_agencies import send

MINUTE_MS = 60_000
HUNDRED_MB = 100 * 1024 * 1024
Write = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]

GOOD = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Raw:
    """A receiver that says byte for byte what it likes; `bad` is done instead of a good answer, while it is there."""

    bad: Write | None = None
    url: str = ""
    #: The ids of events that were answered with 2xx, and of all.
    accepted: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                if head.startswith("OPTIONS"):
                    writer.write(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
                    continue
                length = int(re.search(r"(?i)content-length: ([0-9]+)", head)[1])  # type: ignore[index]
                event = json.loads(await reader.readexactly(length))["id"]
                self.heard.append(event)
                if self.bad is not None:
                    if await self.bad(reader, writer):
                        self.accepted.append(event)
                    break
                writer.write(GOOD)
                await writer.drain()
                self.accepted.append(event)
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Raw"]:
        """Listen on loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        try:
            yield self
        finally:
            server.close()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await reader.read()  # until the node gives up
    return False


async def dies_unheard(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return False


async def dies_in_its_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
    return False


async def dies_in_its_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf of")
    await writer.drain()
    return True


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.2)
    return True


async def redirects(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 308 Permanent Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()
    return False


async def talks_nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()
    return False


async def has_endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(100_000):
            writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
            await writer.drain()
    return False


@pytest.fixture
async def raw(enfield: Node, desk: Desk, clock: Clock) -> AsyncIterator[Raw]:
    """A raw receiver for housing, registered; it is given half a second to answer."""
    clock.run()
    async with Raw().listening() as receiver:
        await enfield.know(desk.borough)
        body = {"kind": "housing", "url": receiver.url, "networks": LOOPBACK, "timeout_s": 0.5}
        status, document = await enfield.local("POST", "/v1/agencies", body)
        assert status == 201, document
        yield receiver


async def all_accepted(node: Node, *messages: str) -> None:
    """Wait until all that is for housing was delivered."""

    async def done() -> bool:
        rungs = [
            part["rung"]
            for message in messages
            for part in (await node.status(message))["sections"]
            if part["agency"] == "housing"
        ]
        return set(rungs) == {"delivered"}

    await until(f"{len(messages)} messages are delivered", done)


@pytest.mark.parametrize(
    "bad", [hangs, dies_unheard, dies_in_its_headers, redirects, talks_nonsense, has_endless_headers]
)
async def test_what_a_bad_receiver_did_not_take_reaches_it_once_when_it_is_good(
    enfield: Node, desk: Desk, raw: Raw, bad: Write
) -> None:
    raw.bad = bad
    messages = [await send(enfield, desk.borough) for _ in range(3)]

    async def tried_again() -> bool:
        return len(raw.heard) > len(set(raw.heard))

    await until("something was tried again", tried_again)
    raw.bad = None
    await all_accepted(enfield, *messages)
    assert len(raw.accepted) == len(set(raw.accepted)) == 3 * 2


@pytest.mark.parametrize("bad", [dies_in_its_body, drips])
async def test_a_status_counts_whatever_becomes_of_the_body(enfield: Node, desk: Desk, raw: Raw, bad: Write) -> None:
    raw.bad = bad
    began_s = time.monotonic()
    await all_accepted(enfield, await send(enfield, desk.borough))
    assert len(raw.heard) == len(set(raw.heard)) == 2
    assert time.monotonic() - began_s < 15


async def test_of_a_hundred_megabytes_sent_back_next_to_nothing_is_read(enfield: Node, desk: Desk, raw: Raw) -> None:
    written = 0

    async def shouts(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % HUNDRED_MB)
        with contextlib.suppress(ConnectionError):
            while written < HUNDRED_MB:
                writer.write(b"x" * 65_536)
                await writer.drain()
                written += 65_536
        return True

    raw.bad = shouts
    sent = await send(enfield, desk.borough)
    await all_accepted(enfield, sent)
    items = (await enfield.local("GET", f"/v1/messages/{sent}/attempts"))[1]["items"]
    assert {item["size_bytes"] for item in items if item["accepted"]} == {HUNDRED_MB}
    assert len(raw.heard) == 2
    # What the kernels of both ends buffer of two answers; the node itself reads 4 kB of each.
    assert written < HUNDRED_MB / 4


async def test_a_receiver_that_flaps_gets_everything_once(enfield: Node, desk: Desk, raw: Raw) -> None:
    turn = 0

    async def flaps(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonlocal turn
        turn += 1
        well = turn % 3 == 0
        writer.write(GOOD if well else b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        return well

    raw.bad = flaps
    messages = [await send(enfield, desk.borough) for _ in range(5)]
    await all_accepted(enfield, *messages)
    assert len(raw.accepted) == len(set(raw.accepted)) == 5 * 2


async def test_an_hour_of_errors_loses_nothing_and_all_goes_once_the_first_gets_through(
    enfield: Node, desk: Desk, raw: Raw, clock: Clock
) -> None:
    async def fails(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        return False

    agency_id = (await enfield.local("GET", "/v1/agencies"))[1]["items"][0]["id"]
    settings = {"retry_s": [5, 300, 1800, 7200]}
    assert (await enfield.local("POST", f"/v1/agencies/{agency_id}/settings", settings))[0] == 200
    raw.bad = fails
    clock.stop()
    messages: list[str] = []
    for _ in range(12):
        heard = len(raw.heard)
        failures = (await enfield.local("GET", f"/v1/agencies/{agency_id}"))[1]["failures"]
        messages.append(await send(enfield, desk.borough))

        async def was_tried(heard: int = heard) -> bool:
            return len(raw.heard) > heard

        await until("the receiver was tried", was_tried)

        async def was_recorded(failures: int = failures) -> bool:
            return bool((await enfield.local("GET", f"/v1/agencies/{agency_id}"))[1]["failures"] > failures)

        await until("that is recorded", was_recorded)
        clock.now_ms += 5 * MINUTE_MS
    shown = (await enfield.local("GET", f"/v1/agencies/{agency_id}"))[1]
    assert (shown["state"], shown["breaker"]) == ("active", "open")
    assert shown["last_error"] == "agency housing answered 500"
    # The breaker lets few through: in an hour not one request for each message and each time it was woken.
    assert len(raw.heard) < 12 * 12 * 2
    raw.bad = None
    clock.run()
    messages.append(await send(enfield, desk.borough))
    await all_accepted(enfield, *messages)
    assert len(raw.accepted) == len(set(raw.accepted)) == 13 * 2
    assert raw.accepted.count(raw.accepted[0]) == 1


async def test_who_accepts_nothing_for_as_long_as_the_table_says_is_disabled_and_nothing_is_lost(
    enfield: Node, desk: Desk, raw: Raw, clock: Clock
) -> None:
    agency_id = (await enfield.local("GET", "/v1/agencies"))[1]["items"][0]["id"]
    await enfield.local("POST", f"/v1/agencies/{agency_id}/settings", {"retry_s": [0.05] * 4})
    raw.bad = dies_unheard
    messages = [await send(enfield, desk.borough) for _ in range(3)]

    async def disabled() -> bool:
        shown = (await enfield.local("GET", f"/v1/agencies/{agency_id}"))[1]
        return bool(shown["state"] == "disabled")

    await until("the agency is disabled", disabled)
    kinds = [alarm["kind"] for alarm in await enfield.alarms(enfield.origin)]
    assert kinds == ["agency-disabled"]
    heard = len(raw.heard)
    raw.bad = None
    later = await send(enfield, desk.borough)

    async def is_held() -> bool:
        parts = (await enfield.status(later))["sections"]
        return any("is disabled" in (part["held"] or "") for part in parts if part["agency"] == "housing")

    await until("what comes later is held", is_held)
    assert len(raw.heard) == heard
    status, document = await enfield.local("POST", f"/v1/agencies/{agency_id}/enable")
    assert (status, document["released"]) == (200, 4)
    await all_accepted(enfield, *messages, later)
    assert len(raw.accepted) == len(set(raw.accepted)) == 4 * 2


async def test_one_delivery_that_is_always_refused_is_held_and_holds_up_no_other(
    enfield: Node, desk: Desk, raw: Raw, clock: Clock
) -> None:
    agency_id = (await enfield.local("GET", "/v1/agencies"))[1]["items"][0]["id"]
    await enfield.local("POST", f"/v1/agencies/{agency_id}/settings", {"retry_s": [0.05, 0.05, 0.3]})
    poison: set[str] = set()

    async def picky(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        well = raw.heard[-1] not in poison
        writer.write(GOOD if well else b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        return well

    async def refuse_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        poison.add(raw.heard[-1])
        return await picky(reader, writer)

    raw.bad = refuse_the_first
    bad = await send(enfield, desk.borough)

    async def refused() -> bool:
        return len(poison) == 2

    await until("both sections were refused", refused)
    raw.bad = picky
    good: list[str] = []

    async def is_held() -> bool:
        good.append(await send(enfield, desk.borough))
        await all_accepted(enfield, good[-1])
        held = (await enfield.local("GET", "/v1/held"))[1]["items"]
        return any(item["id"] == bad and "did not accept it" in item["reason"] for item in held)

    await until("what is refused is held", is_held)
    shown = (await enfield.local("GET", f"/v1/agencies/{agency_id}"))[1]
    assert shown["state"] == "active"
    kinds = [alarm["kind"] for alarm in await enfield.alarms(enfield.origin)]
    assert kinds == ["agency-refuses"]


# Others are not slowed.

TEN = (
    "police",
    "probation",
    "youth-justice",
    "childrens-social-care",
    "housing",
    "dwp",
    "victim-support",
    "health",
    "voluntary-sector",
    "coordinator",
)


async def latencies(node: Node, camden: Borough, quick: dict[str, Agency], count: int) -> list[float]:
    """Send messages for all; how long each of the quick ones waited for each."""
    card, found = await node.card(), []
    for _ in range(count):
        made = camden.message(card, (("subject", TEN),))
        sent_s = time.monotonic()
        status, body = await node.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
        assert status == 200
        assert read_reply(body).results[0].receipt is not None
        left = set(quick)
        while left:
            for kind in tuple(left):
                if any(event["data"]["message_id"] == made.manifest.message_id for event in quick[kind].accepted[-3:]):
                    found.append(time.monotonic() - sent_s)
                    left.discard(kind)
            await asyncio.sleep(0.001)
            assert time.monotonic() - sent_s < 30, f"{left} did not get it"
    return found


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@pytest.mark.slow
async def test_one_agency_of_ten_that_hangs_slows_no_other(enfield: Node, desk: Desk, clock: Clock) -> None:
    clock.run()
    await enfield.know(desk.borough)
    async with AsyncExitStack() as stack:
        agencies: dict[str, Any] = {}
        for kind in TEN:
            agencies[kind] = await stack.enter_async_context(Agency(kind).listening())
            await agencies[kind].register(enfield)
        hanging, quick = agencies["health"], {kind: agencies[kind] for kind in TEN if kind != "health"}
        original = hanging._answer
        release = asyncio.Event()

        async def hang(request: Any) -> Any:
            await release.wait()
            return await original(request)

        await latencies(enfield, desk.borough, quick, 10)  # to warm up
        ratios = []
        for _ in range(3):
            baseline = await latencies(enfield, desk.borough, quick, 30)
            release.clear()
            async with stack_of_one(hanging, hang, enfield):
                slowed = await latencies(enfield, desk.borough, quick, 30)
                release.set()
            ratios.append(p99(slowed) / p99(baseline))
            if ratios[-1] <= 1.5:
                break
        assert min(ratios) <= 1.5, f"p99 of the other nine rose by {ratios}"


@asynccontextmanager
async def stack_of_one(agency: Agency, answer: Any, node: Node) -> AsyncIterator[None]:
    """The agency answers otherwise, at another URL."""
    await node.local("DELETE", f"/v1/agencies/{agency.id}")
    before = agency._answer
    agency._answer = answer  # type: ignore[method-assign]
    try:
        async with agency.listening():
            await agency.register(node)
            yield
    finally:
        agency._answer = before  # type: ignore[method-assign]
        await node.local("DELETE", f"/v1/agencies/{agency.id}")
