"""The agencies' end in a process of its own: takes webhooks, checks each, and notes when it answered 2xx.

The check is that of the public `standardwebhooks` package.
"""

import asyncio
import contextlib
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import uvloop
from standardwebhooks import Webhook, WebhookVerificationError


@dataclass
class Taken:
    """What was taken since the last look: webhooks of each message, and when the last of them was answered."""

    count: dict[str, int] = field(default_factory=dict)
    last_s: dict[str, float] = field(default_factory=dict)
    refused: int = 0


class Receiver:
    """A receiver that runs."""

    def __init__(self, port: int, pipe: "Connection[Any, Any]") -> None:
        self._port = port
        self._pipe = pipe

    def url(self, kind: str) -> str:
        """Where an agency of that kind is reached."""
        return f"http://127.0.0.1:{self._port}/{kind}"

    def know(self, kind: str, secret: str) -> None:
        """Take an agency's webhook secret."""
        self._ask(("know", kind, secret))

    def taken(self) -> Taken:
        """What was taken since the last time.

        Raises:
            RuntimeError: something came that does not verify.
        """
        found = self._ask(("taken",))
        assert isinstance(found, Taken)
        if found.refused:
            raise RuntimeError(f"{found.refused} webhooks did not verify")
        return found

    def _ask(self, what: tuple[str, ...]) -> object:
        self._pipe.send(what)
        return self._pipe.recv()


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Take webhooks until the end of the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there,), daemon=True)
    process.start()
    try:
        yield Receiver(int(here.recv()), here)
    finally:
        process.terminate()
        process.join(10)


class _Agency(asyncio.Protocol):
    """One connection of a node; it sends the next request after the answer to the last."""

    def __init__(self, known: dict[str, Webhook], taken: list[Taken]) -> None:
        self._known = known
        self._taken = taken
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        request, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(body) < int(headers.get("content-length", 0)):
            return
        self._data = b""
        self._transport.write(f"HTTP/1.1 {self._take(request, headers, body)}\r\nContent-Length: 0\r\n\r\n".encode())

    def _take(self, request: str, headers: dict[str, str], body: bytes) -> str:
        if request.startswith("OPTIONS "):
            return "200 OK"
        taken = self._taken[0]
        kind = request.split(" ")[1].strip("/")
        try:
            event = self._known[kind].verify(body, headers)
        except (WebhookVerificationError, KeyError):
            taken.refused += 1
            return "401 Unauthorized"
        message_id = event["data"]["message_id"]
        taken.count[message_id] = taken.count.get(message_id, 0) + 1
        taken.last_s[message_id] = perf_counter()
        return "204 No Content"


def _run(pipe: "Connection[Any, Any]") -> None:
    known: dict[str, Webhook] = {}
    taken = [Taken()]

    def told() -> None:
        match pipe.recv():
            case ("know", kind, secret):
                known[kind] = Webhook(secret)
                pipe.send(None)
            case ("taken",):
                pipe.send(taken.pop())
                taken.append(Taken())

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Agency(known, taken), "127.0.0.1", 0)
        loop.add_reader(pipe.fileno(), told)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
