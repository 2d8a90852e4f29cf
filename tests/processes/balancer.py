"""A load balancer as simple as one can be: each connection goes to the next of several ports that takes it."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.processes.ports import free_port


@dataclass
class Balancer:
    """Listens on a port of its own, in a thread of its own, until it is stopped."""

    port: int = field(default_factory=free_port)
    backends: Sequence[int] = ()
    #: How many connections each port was given.
    given: dict[int, int] = field(default_factory=dict)
    _turn: "itertools.count[int]" = field(default_factory=itertools.count)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    def start(self, *backends: int) -> "Balancer":
        """Listen."""
        self.backends = backends
        ready = threading.Event()

        async def serve() -> None:
            await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
            ready.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._serving = self._loop.create_task(serve())
            self._loop.run_forever()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self) -> None:
        """Listen no more, and cut every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        for _ in self.backends:
            port = self.backends[next(self._turn) % len(self.backends)]
            with contextlib.suppress(OSError):
                node, to_node = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            to_client.close()
            return
        self.given[port] = self.given.get(port, 0) + 1
        await asyncio.gather(_pipe(client, to_node), _pipe(node, to_client))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
