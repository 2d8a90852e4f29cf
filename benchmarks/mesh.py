"""MESH by the NHS's `mesh-sandbox` and `mesh-client`: a form is sent to a mailbox, fetched from it and acknowledged.

What it does: a real server process on loopback, started as its page says, that keeps messages in files, and the client
as published. Each request bears a keyed hash that the server checks. What it does not: the sandbox is for tests, not
the service. It writes without waiting for the disk, keeps in memory what was acknowledged, and has one worker. The
server can read the form, there is no TLS (nor is there between the nodes that are measured), and nothing is signed.

It runs by itself in the environment that `make .venv/compare` makes, with the form on standard input, and prints JSON.
It imports nothing of the exchange. Both packages are under the MIT licence.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mesh_client import MeshClient

#: The two mailboxes that the sandbox comes with, and their password.
_SENDER, _RECEIVER, _PASSWORD = "X26ABC1", "X26ABC2", "password"
_SHARED_KEY = "fictitious-key"
_WORKFLOW = "FICTITIOUS_HANDOVER"
_AT_ONCE = 8
_DEADLINE_S = 60.0


class MeshError(Exception):
    """The sandbox did not start, or a message did not come out as it went in."""


@dataclass(frozen=True)
class Server:
    """A running sandbox."""

    url: str
    process_id: int

    def cpu_s(self) -> float:
        """What its process has used so far."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def client(self, mailbox: str) -> MeshClient:
        """The published client, without its retries: a failure is to be seen."""
        return MeshClient(self.url, mailbox, _PASSWORD, shared_key=_SHARED_KEY.encode(), max_retries=0, timeout=30)


@dataclass(frozen=True)
class Found:
    """What was measured, and what a reader can tell from it that the work was done."""

    messages: int
    per_s: float
    server_cpu_ms: float
    client_cpu_ms: float
    p50_ms: float
    p99_ms: float
    payload_sha256: str
    inbox_before_acknowledgement: int
    inbox_afterwards: int


@contextlib.contextmanager
def sandbox(core: int) -> Iterator[Server]:
    """A sandbox on a free port of loopback, on one core, with its messages in a folder that goes with it.

    Raises:
        MeshError: it does not answer within a minute.
    """
    with tempfile.TemporaryDirectory(prefix="exchange-bench-") as directory:
        log = Path(directory) / "log"
        environment = {
            **os.environ,
            "AUTH_MODE": "full",
            "SHARED_KEY": _SHARED_KEY,
            "STORE_MODE": "file",
            "MAILBOXES_DATA_DIR": str(Path(directory) / "mailboxes"),
        }
        options = ("--host", "127.0.0.1", "--port", "0", "--workers", "1", "--no-access-log", "--no-use-colors")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "mesh_sandbox.api:app", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            os.sched_setaffinity(process.pid, {core})
            yield Server(_url_when_up(process, log), process.pid)
        finally:
            process.terminate()
            process.wait(10)


def _url_when_up(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline_s = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if bound := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text()):
            with urllib.request.urlopen(f"{bound[1]}/health", timeout=30) as answer:
                if answer.status == 200:
                    return bound[1]
        time.sleep(0.05)
    raise MeshError(f"the sandbox did not start:\n{log.read_text()[-2000:]}")


def measure(form: bytes, messages: int, timed: int) -> Found:
    """Send `messages` as fast as it goes while the receiver fetches them, then `timed` more one after the other.

    The server has a core, and this process, which is both sender and receiver, another where there is one.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    with sandbox(cores[0]) as server, server.client(_SENDER) as sender, server.client(_RECEIVER) as receiver:
        waiting, payload = _seen(sender, receiver, form)
        server_s, client_s, started_s = server.cpu_s(), time.process_time(), time.perf_counter()
        _stream(server, form, messages)
        took_s = time.perf_counter() - started_s
        server_s, client_s = server.cpu_s() - server_s, time.process_time() - client_s
        round_trips_ms = sorted(_round_trip_ms(sender, receiver, form) for _ in range(timed))
        return Found(
            messages=messages,
            per_s=messages / took_s,
            server_cpu_ms=server_s * 1000 / messages,
            client_cpu_ms=client_s * 1000 / messages,
            p50_ms=statistics.median(round_trips_ms),
            p99_ms=round_trips_ms[int(len(round_trips_ms) * 0.99)],
            payload_sha256=hashlib.sha256(payload).hexdigest(),
            inbox_before_acknowledgement=waiting,
            inbox_afterwards=len(receiver.list_messages()),
        )


def _seen(sender: MeshClient, receiver: MeshClient, form: bytes) -> tuple[int, bytes]:
    """How many messages wait once one is sent, and what it holds; it is then acknowledged."""
    message_id = _send(sender, form)
    waiting = len(receiver.list_messages())
    payload = _fetch(receiver, message_id)
    receiver.acknowledge_message(message_id)
    return waiting, payload


def _stream(server: Server, form: bytes, messages: int) -> None:
    """Send all, then list and fetch all: no request of a receiver finds an empty inbox, and lists are long."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as pool:
        senders, receivers = (
            [stack.enter_context(server.client(mailbox)) for _ in range(_AT_ONCE)] for mailbox in (_SENDER, _RECEIVER)
        )
        _share(pool, senders, range(messages), lambda sender, _: _send(sender, form))
        taken = 0
        while waiting := receivers[0].list_messages():
            _share(pool, receivers, waiting, lambda receiver, message_id: _take(receiver, message_id, form))
            taken += len(waiting)
    if taken != messages:
        raise MeshError(f"{taken} messages came of the {messages} that were sent")


def _share(
    pool: ThreadPoolExecutor,
    clients: list[MeshClient],
    items: Sequence[Any],
    act: Callable[[MeshClient, Any], object],
) -> None:
    """Have each client, which serves one thread, act on its share of the items."""

    def work(number: int) -> None:
        for item in items[number :: len(clients)]:
            act(clients[number], item)

    for _ in pool.map(work, range(len(clients))):
        pass


def _round_trip_ms(sender: MeshClient, receiver: MeshClient, form: bytes) -> float:
    started_s = time.perf_counter()
    message_id = _send(sender, form)
    if receiver.list_messages() != [message_id]:
        raise MeshError("the inbox does not hold the message that was sent, and it alone")
    _take(receiver, message_id, form)
    return (time.perf_counter() - started_s) * 1000


def _send(sender: MeshClient, form: bytes) -> str:
    return sender.send_message(_RECEIVER, form, workflow_id=_WORKFLOW, content_type="application/json")


def _fetch(receiver: MeshClient, message_id: str) -> bytes:
    message = receiver.retrieve_message(message_id)
    try:
        return message.read()
    finally:
        message.close()


def _take(receiver: MeshClient, message_id: str, form: bytes) -> None:
    if _fetch(receiver, message_id) != form:
        raise MeshError("the form did not come out as it went in")
    receiver.acknowledge_message(message_id)


def main() -> None:
    """Measure the form on standard input, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mesh", description=__doc__)
    parser.add_argument("--messages", type=int, default=1000, help="messages to send at full speed")
    parser.add_argument("--timed", type=int, default=200, help="messages to time one by one")
    options = parser.parse_args()
    os.environ["no_proxy"] = "127.0.0.1"  # The client would obey a proxy of the environment, for loopback too.
    json.dump(asdict(measure(sys.stdin.buffer.read(), options.messages, options.timed)), sys.stdout)


if __name__ == "__main__":
    main()
