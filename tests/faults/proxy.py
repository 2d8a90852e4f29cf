"""A network between two ends, in one process of the test's own: it cuts, delays, reorders, stalls and half-opens.

The kernel of our machines has no netem; where bytes go through here, chance decides what becomes of them.
"""

import asyncio
import contextlib
import random
import threading
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 16_384


@dataclass
class Weather:
    """What happens to what passes; changed while it does."""

    #: Nothing new is let through, and what is open is cut.
    cut: bool = False
    #: Each piece waits so long; up to as much again where `jitter` is set.
    delay_s: float = 0.0
    jitter: bool = False
    #: Whole connections wait for a random time, so that requests overtake each other.
    reorder_s: float = 0.0
    #: Connections are taken, and nothing is passed on: to the one end, or the other.
    swallow_requests: bool = False
    swallow_answers: bool = False
    #: The chance with which a connection is cut after a piece.
    drop: float = 0.0


@dataclass
class Proxy:
    """Listens on a port and passes on to another."""

    port: int
    target: int
    chance: random.Random
    weather: Weather = field(default_factory=Weather)
    passed: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _thread: threading.Thread | None = None

    def start(self) -> "Proxy":
        """Listen."""
        ready = threading.Event()

        async def listen() -> None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
            ready.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(listen())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self) -> None:
        """Listen no more, and cut everything."""

        def end() -> None:
            if self._server is not None:
                self._server.close()
            self._cut()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        assert self._thread is not None
        self._thread.join(10)

    def change(self, weather: Weather) -> None:
        """Have another weather from now on."""

        def put() -> None:
            self.weather = weather
            if weather.cut:
                self._cut()

        self._loop.call_soon_threadsafe(put)

    def _cut(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        there = None
        try:
            if self.weather.cut:
                return
            if self.weather.reorder_s:
                await asyncio.sleep(self.chance.uniform(0, self.weather.reorder_s))
            back, there = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(there)
            await asyncio.gather(self._pass(reader, there, True), self._pass(back, writer, False))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    self._open.discard(end)
                    end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_request: bool) -> None:
        while data := await reader.read(_CHUNK):
            weather = self.weather
            if weather.swallow_requests if is_request else weather.swallow_answers:
                continue
            if weather.delay_s:
                await asyncio.sleep(weather.delay_s * (1 + self.chance.random() * weather.jitter))
            if weather.drop and self.chance.random() < weather.drop:
                writer.write(data[: self.chance.randrange(len(data) + 1)])
                with contextlib.suppress(OSError):
                    await writer.drain()
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
            self.passed += len(data)
        if writer.can_write_eof():
            writer.write_eof()
