"""Hostile peers, and machines that have too little: time, descriptors, memory, processor; clocks that are wrong."""

import asyncio
import contextlib
import gzip
import http.client
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import aiohttp

from tests.faults.armed import set_clock
from tests.faults.scenario import Scenarios
from tests.faults.world import Broken, Load, World
from tests.processes.harness import Borough, until

hostile: Final = Scenarios("hostile")
scarce: Final = Scenarios("scarce")
clocks: Final = Scenarios("clock")
_TYPE: Final = "application/vnd.exchange.envelope"
_REQUESTS: Final = int(os.environ.get("FAULTS_REQUESTS", "10000"))
_DAY_S: Final = 86_400.0


def _post(port: int, body: bytes, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("POST", "/v1/envelopes", body, {"content-type": _TYPE, **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def _memory_kib(borough: Borough) -> int:
    assert borough.process is not None
    with open(f"/proc/{borough.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


@hostile.add("garbage", "random bytes and cut envelopes as requests", "refused without a word, messages go on")
def _garbage(world: World) -> None:
    world.start()
    with Load(world):
        for _ in range(200):
            body = world.chance.randbytes(world.chance.choice((0, 1, 100, 9364, 50_000)))
            if world.chance.random() < 0.5:
                body = b"exchange-envelope/1\n" + body
            status = _post(world.enfield.port, body)
            if status not in (400, 403):
                raise Broken(f"garbage was answered with {status}")
            world.counts["requests"] += 1
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", world.enfield.port), 5) as connection:
                connection.sendall(world.chance.randbytes(world.chance.randrange(1, 2000)))
            world.counts["requests"] += 1
    world.check()


@hostile.add("bombs", "bodies that are compressed, too large, or announce 1 TB", "refused; memory stays bounded")
def _bombs(world: World) -> None:
    world.start()
    world.sender.send(world.form())
    world.settle()
    before = _memory_kib(world.enfield)
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    for body, headers, wanted in (
        (bomb, {"content-encoding": "gzip"}, 415),
        (bomb, {}, 403),
        (b"x", {"content-length": str(10**12)}, 413),
    ):
        for _ in range(20):
            if (status := _post(world.enfield.port, body, **headers)) != wanted:
                raise Broken(f"a bomb was answered with {status} instead of {wanted}")
            world.counts["requests"] += 1
    if (grown := _memory_kib(world.enfield) - before) > 200 * 1024:
        raise Broken(f"the node grew by {grown} KiB")
    world.sender.send(world.form())
    world.check()


@hostile.add(
    "flood", f"{_REQUESTS:,} small requests on 100 connections", "messages go on beside them; memory stays bounded"
)
def _flood(world: World) -> None:
    world.start()
    before = _memory_kib(world.enfield)
    answers: list[int] = []

    async def flood() -> None:
        url = f"http://127.0.0.1:{world.enfield.port}/v1/"
        connector = aiohttp.TCPConnector(limit=100)
        async with aiohttp.ClientSession(connector=connector) as session:
            left = iter(range(_REQUESTS))

            async def ask() -> None:
                for number in left:
                    path, body = (("health", None), ("card", None), ("envelopes", b"x"))[number % 3]
                    headers = {"content-type": _TYPE} if body else {}
                    method = "POST" if body else "GET"
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        async with session.request(method, url + path, data=body, headers=headers) as answer:
                            answers.append(answer.status)

            await asyncio.gather(*(ask() for _ in range(100)))

    thread = threading.Thread(target=lambda: asyncio.run(flood()))
    with Load(world, pause_s=1):
        thread.start()
        thread.join()
    world.counts["requests"] += len(answers)
    if len(answers) < 0.99 * _REQUESTS or set(answers) != {200, 403}:
        raise Broken(f"{len(answers)} answers, {set(answers)}")
    if (grown := _memory_kib(world.enfield) - before) > 200 * 1024:
        raise Broken(f"the node grew by {grown} KiB")
    world.check()


@hostile.add("stalls", "700 connections that send slowly or nothing", "they make room, messages go on")
def _stalls(world: World) -> None:
    world.start()
    held: list[socket.socket] = []
    try:
        with Load(world):
            for number in range(700):
                connection = socket.create_connection(("127.0.0.1", world.enfield.port), 5)
                held.append(connection)
                world.counts["connections"] += 1
                with contextlib.suppress(OSError):
                    if number % 3:
                        connection.sendall(b"POST /v1/envelopes HTTP/1.1\r\nhost: x\r\n")
                    if number % 3 == 2:
                        connection.sendall(f"content-type: {_TYPE}\r\ncontent-length: 99999\r\n\r\nx".encode())
            time.sleep(1)
        world.check()
    finally:
        for connection in held:
            connection.close()


@contextlib.contextmanager
def _answering(port: int, make: Callable[[], bytes]) -> Iterator[list[int]]:
    """A server that answers every request with what it likes."""
    stop, served = threading.Event(), [0]
    listener = socket.create_server(("127.0.0.1", port))
    listener.settimeout(0.1)

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(1)
                    connection.recv(65536)
                    connection.sendall(make())
                    served[0] += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        stop.set()
        thread.join()
        listener.close()


def _nonsense(chance: random.Random) -> bytes:
    body = chance.choice((b"", chance.randbytes(200), b"{" * 5000, gzip.compress(bytes(10**7)), b'{"code":' * 500))
    kind = chance.choice(("application/vnd.exchange.reply", "application/problem+json", "application/json"))
    status = chance.choice(("200 OK", "503 No", "500 No", "302 Away\r\nlocation: http://127.0.0.1:1/", "999 What"))
    encoding = chance.choice(("", "content-encoding: gzip\r\n"))
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{encoding}content-length: {len(body)}\r\n\r\n"
    return chance.choice((head.encode() + body, chance.randbytes(300), head.encode(), b"HTTP/1.1 200 OK\r\n\r\n"))


@hostile.add("answers", "a peer that answers garbage, bombs and redirects", "nothing is believed, all arrives later")
def _answers(world: World) -> None:
    world.start(world.hackney)
    with _answering(world.enfield.port, lambda: _nonsense(world.chance)) as served:
        for _ in range(3):
            world.sender.send(world.form())
        until("it was asked often", lambda: served[0] >= 15)
    world.counts["answers"] += served[0]
    world.start(world.enfield)
    world.check()


# What a machine has too little of


@scarce.add("descriptors", "64 file descriptors, and connections that take them", "it answers again when they are free")
def _descriptors(world: World) -> None:
    world.enfield.program = ("prlimit", "--nofile=64:64", *world.enfield.program)
    world.start()
    held: list[socket.socket] = []
    for _ in range(3):
        with contextlib.suppress(OSError):
            for _ in range(100):
                held.append(socket.create_connection(("127.0.0.1", world.enfield.port), 1))
                world.counts["connections"] += 1
        world.sender.send(world.form())
        time.sleep(world.chance.uniform(0.3, 1))
        for connection in held:
            connection.close()
        held.clear()
    world.check()


@scarce.add("memory", "allocations fail, by RLIMIT_AS", "it ends or goes on; restarted, all arrives once")
def _memory(world: World) -> None:
    borough = world.enfield
    world.start()
    assert borough.process is not None
    with open(f"/proc/{borough.process.pid}/status") as file:
        size_kib = next(int(line.split()[1]) for line in file if line.startswith("VmSize:"))
    with Load(world):
        for spare_kib in (6_000, 2_000, 500):
            limit = (size_kib + spare_kib) * 1024
            if borough.process.poll() is None:
                os.system(f"prlimit --pid {borough.process.pid} --as={limit}:")
            world.counts["times"] += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                for _ in range(8):
                    _post(borough.port, bytes(15 * 1024 * 1024))
            time.sleep(world.chance.uniform(0.2, 0.6))
            if borough.process.poll() is not None:
                world.counts["ended"] += 1
                borough.start(wait=False)
                until(f"{borough.origin} answers", borough.answers)
        if borough.process.poll() is None:
            os.system(f"prlimit --pid {borough.process.pid} --as=unlimited:")
    if borough.process.poll() is not None:
        world.start(borough)
    if not world.counts["ended"] and "MemoryError" not in borough.log.read_text():
        raise Broken("memory was never short")
    world.check()


@scarce.add(
    "starved", "a node stopped for seconds (SIGSTOP), and at the lowest priority", "its peers wait, all arrives once"
)
def _starved(world: World) -> None:
    import signal

    world.enfield.program = ("nice", "-n", "19", *world.enfield.program)
    world.start()
    with Load(world):
        for victim in (world.enfield, world.hackney, world.enfield):
            assert victim.process is not None
            time.sleep(world.chance.uniform(0.1, 0.4))
            victim.process.send_signal(signal.SIGSTOP)
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0.5, 1.5) if victim is world.enfield else 0.5)
            victim.process.send_signal(signal.SIGCONT)
    world.check()


# Clocks


def _jump(world: World, borough: Borough, moves: list[tuple[float, float]], **more: Any) -> None:
    file = world.root / "clock"
    set_clock(file, 0)
    world.arm(borough, "--clock", file)
    world.start()
    world.sender.send(world.form())
    world.settle()
    for offset_s, rate in moves:
        set_clock(file, offset_s, rate)
        world.counts["times"] += 1
        for _ in range(2):
            world.sender.send(world.form())
        time.sleep(world.chance.uniform(0.5, 1))
    set_clock(file, 0)
    # What was refused for its time is held until a person has set the clock and releases it.
    for row in world.hackney.api("GET", "/v1/held")["items"]:
        world.counts["held"] += 1
        world.hackney.api("POST", f"/v1/held/{row['number']}/release")
    world.check(one_clock=False, **more)


@clocks.add(
    "receiver", "the receiver's clock jumps by an hour and a day, both ways", "held with a reason, nothing lost"
)
def _receiver_jumps(world: World) -> None:
    _jump(world, world.enfield, [(_DAY_S, 1), (-_DAY_S, 1), (3600, 1), (-3600, 1)])


@clocks.add("sender", "the sender's clock jumps by an hour and a day, both ways", "held with a reason, nothing lost")
def _sender_jumps(world: World) -> None:
    _jump(world, world.hackney, [(_DAY_S, 1), (-_DAY_S, 1), (3600, 1), (-3600, 1)])


@clocks.add("drift", "clocks run at half and at thrice their speed", "all arrives once")
def _drift(world: World) -> None:
    _jump(world, world.chance.choice(world.boroughs), [(0, 0.5), (0, 3)])
