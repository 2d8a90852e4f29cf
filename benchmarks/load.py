"""The program that sends, in a process of its own so that its CPU is nobody else's.

It writes prepared requests to the local sockets and reads answers, and little more: what it takes of the machine is not
there for the nodes.

* `closed`: so many requests at a time, each after the answer to the one before. For how many a second.
* `one_by_one`: a form, then the wait until it has come so far. For how long one takes on an idle node.
* `open_loop`: requests at times that were drawn beforehand, whatever became of those before. How long one took counts
  from the time at which it was due, not from when somebody came round to it: what waits in front of a slow node counts.
"""

import asyncio
import json
import multiprocessing
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import uvloop

from benchmarks.watching import Watch

_CREATED = b"HTTP/1.1 201 "
_OK = b"HTTP/1.1 200 "
_TIMEOUT_S = 60


def post_form(area: str, form: bytes) -> bytes:
    """The request that sends a form to an area."""
    head = (
        f"POST /v1/messages/to/{area} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    return head.encode() + form


def _wait_for(message_id: str, rung: str) -> bytes:
    path = f"/v1/messages/{message_id}?wait={rung}&timeout_s={_TIMEOUT_S}"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@dataclass(frozen=True)
class Sent:
    """What `closed` did."""

    count: int
    took_s: float
    #: Of the program that sends.
    cpu_s: float


@dataclass(frozen=True)
class Arrivals:
    """What `open_loop` saw: latencies in milliseconds, sorted, of each kind of request."""

    #: Until the node had stored the form and signed for it.
    accepted_ms: list[list[float]]
    #: Until what was waited for was in the sender's store.
    reached_ms: list[list[float]]
    #: When each message was due, on the clock of `time.perf_counter`.
    due_s: dict[str, float]
    took_s: float
    cpu_s: float


class _Connection(asyncio.Protocol):
    """A connection that is kept: one request at a time, `answered` is called with status line and body."""

    def __init__(self) -> None:
        self.answered: Callable[[bytes, bytes], None] = _nobody_asked
        self._data = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # that of uvloop does not say that it is one

    def ask(self, request: bytes, answered: Callable[[bytes, bytes], None]) -> None:
        assert self._transport is not None
        self.answered = answered
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n", 1)[0]):
            return
        self._data = b""
        self.answered(head.split(b"\r\n", 1)[0] + b" ", body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.answered(b"the connection was lost ", str(exc).encode())


def _nobody_asked(status: bytes, body: bytes) -> None:
    """The end of a connection that has nothing to do any more."""


def _checked(expected: bytes, status: bytes, body: bytes) -> None:
    if not status.startswith(expected):
        raise RuntimeError(f"a node answered {status.decode().strip()}: {body[:500].decode(errors='replace')}")


async def _connect(path: str) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_unix_connection(_Connection, path)
    return connection


async def _closed(sockets: Sequence[str], requests: Sequence[bytes], count: int, at_once: int) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    begun = ended = 0

    def go_on(connection: _Connection) -> None:
        nonlocal begun
        if begun < count:
            request = requests[begun % len(requests)]
            begun += 1
            connection.ask(request, lambda status, body: answered(connection, status, body))
        else:
            connection.answered = _nobody_asked

    def answered(connection: _Connection, status: bytes, body: bytes) -> None:
        nonlocal ended
        ended += 1
        try:
            _checked(_CREATED, status, body)
        except RuntimeError as error:
            if not done.done():
                done.set_exception(error)
            return
        go_on(connection)
        if ended == count and not done.done():
            done.set_result(None)

    connections = [await _connect(sockets[number % len(sockets)]) for number in range(min(at_once, count))]
    for connection in connections:
        go_on(connection)
    await done


async def _ask(connection: _Connection, request: bytes) -> tuple[bytes, bytes]:
    future: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
    connection.ask(request, lambda status, body: future.set_result((status, body)))
    try:
        return await future
    finally:
        connection.answered = _nobody_asked


async def _reach(connection: _Connection, request: bytes, rung: str) -> None:
    status, body = await _ask(connection, request)
    _checked(_CREATED, status, body)
    await _wait(connection, json.loads(body)["id"], rung)


async def _wait(connection: _Connection, message_id: str, rung: str) -> None:
    status, body = await _ask(connection, _wait_for(message_id, rung))
    _checked(_OK, status, body)
    if not json.loads(body)["reached"]:
        raise RuntimeError(f"message {message_id} was not {rung} within {_TIMEOUT_S} seconds")


async def _one_by_one(socket: str, request: bytes, count: int, rung: str) -> list[float]:
    connection = await _connect(socket)
    latencies_ms = []
    for _ in range(count):
        started_s = time.perf_counter()
        await _reach(connection, request, rung)
        latencies_ms.append((time.perf_counter() - started_s) * 1000)
    return sorted(latencies_ms)


@dataclass(frozen=True)
class Flow:
    """Requests of one kind, and how many of them come in a second."""

    request: bytes
    per_s: float


@dataclass(frozen=True)
class Goal:
    """What a message is to have in the timeline of the node that sends it, and how many times."""

    store: str
    event: str = "received"
    count: int = 1


@dataclass
class _Pool:
    """Connections to the sockets in turn; another one where none is free, since nobody waits for one."""

    sockets: Sequence[str]
    free: deque[_Connection] = field(default_factory=deque)
    made: int = 0

    @contextmanager
    def _given(self, connection: _Connection) -> Iterator[_Connection]:
        yield connection
        self.free.append(connection)

    async def connection(self) -> Any:
        if self.free:
            return self._given(self.free.popleft())
        self.made += 1
        return self._given(await _connect(self.sockets[self.made % len(self.sockets)]))


def _draw(flows: Sequence[Flow], seconds: float, seed: int) -> list[tuple[float, int]]:
    """When a request of which flow is due: as they come where many people send, each for themselves (Poisson)."""
    chance = random.Random(seed)
    due: list[tuple[float, int]] = []
    for kind, flow in enumerate(flows):
        at_s = chance.expovariate(flow.per_s)
        while at_s < seconds:
            due.append((at_s, kind))
            at_s += chance.expovariate(flow.per_s)
    return sorted(due)


async def _open_loop(sockets: Sequence[str], flows: Sequence[Flow], seconds: float, goal: Goal, seed: int) -> Arrivals:
    pool, watch, ready = _Pool(sockets), Watch(goal.store, goal.event, goal.count), asyncio.Event()
    accepted_ms: list[list[float]] = [[] for _ in flows]
    due_of: dict[str, tuple[float, int]] = {}

    async def send(due_s: float, kind: int) -> None:
        with await pool.connection() as connection:
            status, body = await _ask(connection, flows[kind].request)
        accepted_ms[kind].append((time.perf_counter() - due_s) * 1000)
        _checked(_CREATED, status, body)
        due_of[json.loads(body)["id"]] = due_s, kind

    async with asyncio.TaskGroup() as watching:
        task = watching.create_task(watch.run(ready))
        await ready.wait()
        started_s = time.perf_counter() + 0.05
        async with asyncio.TaskGroup() as group:
            for at_s, kind in _draw(flows, seconds, seed):
                due_s = started_s + at_s
                if (ahead_s := due_s - time.perf_counter()) > 0:
                    await asyncio.sleep(ahead_s)
                group.create_task(send(due_s, kind))
        deadline_s = time.perf_counter() + _TIMEOUT_S
        while due_of.keys() - watch.at_s.keys():
            if time.perf_counter() > deadline_s:
                raise RuntimeError(f"not all messages were {goal.event} within {_TIMEOUT_S} seconds")
            await asyncio.sleep(0.01)
        task.cancel()
    reached_ms: list[list[float]] = [[] for _ in flows]
    for message_id, (due_s, kind) in due_of.items():
        reached_ms[kind].append((watch.at_s[message_id] - due_s) * 1000)
    return Arrivals(
        [sorted(found) for found in accepted_ms],
        [sorted(found) for found in reached_ms],
        {message_id: due_s for message_id, (due_s, _) in due_of.items()},
        time.perf_counter() - started_s,
        0.0,
    )


def _run_closed(sockets: Sequence[str], requests: Sequence[bytes], count: int, at_once: int) -> Sent:
    before_s, started_s = time.process_time(), time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_closed(sockets, requests, count, at_once))
    return Sent(count, time.perf_counter() - started_s, time.process_time() - before_s)


def _run_one_by_one(socket: str, request: bytes, count: int, rung: str) -> list[float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_one_by_one(socket, request, count, rung))


def _run_open_loop(sockets: Sequence[str], flows: Sequence[Flow], seconds: float, goal: Goal, seed: int) -> Arrivals:
    before_s = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_open_loop(sockets, flows, seconds, goal, seed))
    return replace(found, cpu_s=time.process_time() - before_s)


class Load:
    """The process that sends."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def closed(self, sockets: Sequence[str], requests: Sequence[bytes], count: int, at_once: int = 32) -> Sent:
        """Send `count` of the requests, in turn, `at_once` at a time; return when all have been answered."""
        return self._pool.submit(_run_closed, sockets, requests, count, at_once).result()

    def one_by_one(self, socket: str, request: bytes, count: int, rung: str = "received") -> list[float]:
        """Send so many, each once the one before has come to `rung`; how long each took, in milliseconds, sorted."""
        return self._pool.submit(_run_one_by_one, socket, request, count, rung).result()

    def begin_open_loop(
        self, sockets: Sequence[str], flows: Sequence[Flow], seconds: float, goal: Goal, seed: int = 1
    ) -> "Future[Arrivals]":
        """Send flows whose requests come at random, for so long; done when every message has reached the goal."""
        return self._pool.submit(_run_open_loop, sockets, flows, seconds, goal, seed)

    def open_loop(
        self, sockets: Sequence[str], flows: Sequence[Flow], seconds: float, goal: Goal, seed: int = 1
    ) -> Arrivals:
        """What `begin_open_loop` does, to its end."""
        return self.begin_open_loop(sockets, flows, seconds, goal, seed).result()


@contextmanager
def load() -> Iterator[Load]:
    """Start the process that sends."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield Load(pool)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the sorted `values` lies."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")
