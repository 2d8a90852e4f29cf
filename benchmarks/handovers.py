"""Handovers from node to node: two real nodes, durable at both ends, every receipt verified by the sender.

The receiving borough has no agency registered, so its sections wait in `held` and no webhook is measured.
Each node has a core: the threads of one process that change cores carry each other's cache lines about.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.forms import eight_sections
from exchange.cli.boroughs import ENFIELD, HACKNEY, RunningNode, register, start_node
from exchange.cli.client import socket_of

_AT_ONCE = 32
_TIMEOUT_S = 300.0
#: More than a node lets through by itself: what is measured is how fast it could be.
_LIMITS = "\n[limits]\npeer_messages_per_hour = 10000000\npeer_mib_per_hour = 10000000\nqueue_messages = 10000000\n"


@dataclass(frozen=True)
class Handovers:
    """What was measured; CPU is of both nodes together and leaves out the program that sends."""

    count: int
    per_s: float
    cpu_ms: float
    sender_cpu_ms: float
    receiver_cpu_ms: float
    p50_ms: float
    p99_ms: float
    envelopes: int


def measure(count: int, timed: int) -> Handovers:
    """Send `count` forms as fast as the node takes them, then `timed` more one after the other."""
    with tempfile.TemporaryDirectory(prefix="exchange-bench-") as directory, contextlib.ExitStack() as stack:
        hackney, enfield = (start_node(stack, Path(directory), borough, _LIMITS) for borough in (HACKNEY, ENFIELD))
        register(hackney, enfield)
        for node, core in zip((hackney, enfield), sorted(os.sched_getaffinity(0))[:2], strict=False):
            _pin(node, core)
        return asyncio.run(_measure(hackney, enfield, count, timed))


async def _measure(hackney: RunningNode, enfield: RunningNode, count: int, timed: int) -> Handovers:
    connector = aiohttp.UnixConnector(_path(hackney.config), limit=_AT_ONCE)
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        await _send(session, eight_sections(), _AT_ONCE)
        await _until_empty(session)
        before_s = [_cpu_s(node) for node in (hackney, enfield)]
        counted = await _envelopes(enfield)
        started_s = time.perf_counter()
        await _send(session, eight_sections(), count)
        await _until_empty(session)
        took_s = time.perf_counter() - started_s
        after_s = [_cpu_s(node) for node in (hackney, enfield)]
        envelopes = await _envelopes(enfield) - counted
        latencies_ms = sorted([await _send_one(session, eight_sections()) for _ in range(timed)])
    sender_ms, receiver_ms = ((after - before) * 1000 / count for before, after in zip(before_s, after_s, strict=True))
    return Handovers(
        count=count,
        per_s=count / took_s,
        cpu_ms=sender_ms + receiver_ms,
        sender_cpu_ms=sender_ms,
        receiver_cpu_ms=receiver_ms,
        p50_ms=statistics.median(latencies_ms),
        p99_ms=latencies_ms[int(len(latencies_ms) * 0.99)],
        envelopes=envelopes,
    )


async def _send(session: aiohttp.ClientSession, form: bytes, count: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            async with session.post(f"/v1/messages/to/{ENFIELD.area}", data=form) as answer:
                answer.raise_for_status()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


async def _send_one(session: aiohttp.ClientSession, form: bytes) -> float:
    """Milliseconds from asking the node to send until the receipt is verified and stored."""
    started_s = time.perf_counter()
    async with session.post(f"/v1/messages/to/{ENFIELD.area}", data=form) as answer:
        message_id = (await answer.json())["id"]
    async with session.get(f"/v1/messages/{message_id}", params={"wait": "received", "timeout_s": "60"}) as answer:
        status = await answer.json()
    if not status["reached"]:
        raise RuntimeError(f"message {message_id} was not received within a minute")
    return (time.perf_counter() - started_s) * 1000


async def _until_empty(session: aiohttp.ClientSession) -> None:
    """Wait until every delivery is done: the sender deletes one once it has verified the receipt and stored it."""
    deadline_s = time.perf_counter() + _TIMEOUT_S
    while time.perf_counter() < deadline_s:
        async with session.get("/v1/health") as answer:
            if not any(lane["count"] for lane in (await answer.json())["lanes"]):
                return
        await asyncio.sleep(0.02)
    raise RuntimeError(f"the outbox was not empty within {_TIMEOUT_S:g} seconds")


async def _envelopes(node: RunningNode) -> int:
    health: dict[str, Any] = await asyncio.to_thread(node.request, "GET", "/v1/health")
    return int(health["counters"].get("envelopes_accepted", 0))


def _pin(node: RunningNode, core: int) -> None:
    for task in Path(f"/proc/{node.process.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _cpu_s(node: RunningNode) -> float:
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _path(config: Path) -> str:
    return str(socket_of(config))
