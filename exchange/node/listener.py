"""What the public listener gives to those who have proven nothing: few connections, little time and little memory.

* One address has few of the connections. When all are taken, the one that has been without a request for longest
  makes room for the next.
* A connection on which no request comes to the end of its head is closed after `IDLE_S`.
* Bodies are read a few at a time; when too many are on their way, the one that has been so for longest is given up.
* No answer names the software's version, or repeats what was sent.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from aiohttp import web

from exchange.node.problems import problem
from exchange.node.tls import PinnedObject

MOST_CONNECTIONS: Final = 512
#: Longer than proxies (60 s) and nodes (15 s) keep a connection that they may use again.
IDLE_S: Final = 75
_HANDSHAKE_S: Final = 10.0


class Connections:
    """The open connections of a listener, those without a request under way in the order of how long they are so."""

    def __init__(
        self,
        most: int = MOST_CONNECTIONS,
        idle_s: float = IDLE_S,
        most_of_one: int = MOST_CONNECTIONS,
        caller_at: Callable[[str], str | None] = lambda address: None,
    ) -> None:
        self.idle_s = idle_s
        #: The name of the caller at an address, where that can be told.
        self.caller_at = caller_at
        self._most = most
        self._most_of_one = most_of_one
        self._of_one: dict[str, dict[web.RequestHandler, None]] = {}
        self._idle: dict[web.RequestHandler, None] = {}
        self._busy: set[web.RequestHandler] = set()

    def opened(self, connection: web.RequestHandler) -> None:
        """Count a connection; where there are too many, close the one that has been idle for longest."""
        self._idle[connection] = None
        caller = _caller(connection)
        if caller is not None:
            theirs = self._of_one.setdefault(caller, {})
            theirs[connection] = None
            if len(theirs) > self._most_of_one:
                # Where all the others are at work, the new one goes.
                longest = next(one for one in theirs if one in self._idle)
                del self._idle[longest], theirs[longest]
                longest.force_close()
        if self._idle and len(self._idle) + len(self._busy) > self._most:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.force_close()

    def closed(self, connection: web.RequestHandler) -> None:
        """Forget a connection."""
        self._idle.pop(connection, None)
        self._busy.discard(connection)
        caller = _caller(connection)
        if caller in self._of_one:
            self._of_one[caller].pop(connection, None)
            if not self._of_one[caller]:
                del self._of_one[caller]

    def close_where(self, unwanted: Callable[[bytes], bool]) -> None:
        """Close the connections of those whose pin is not wanted any more, whatever they are at."""
        for connection in [*self._idle, *self._busy]:
            if isinstance(connection, _Connection) and connection.pin is not None and unwanted(connection.pin):
                connection.force_close()
                if connection.transport is not None:
                    connection.transport.abort()

    def begins(self, connection: web.RequestHandler) -> None:
        """A request has come on a connection."""
        if connection in self._idle:
            del self._idle[connection]
            self._busy.add(connection)

    def ends(self, connection: web.RequestHandler) -> None:
        """A request has been answered."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._idle[connection] = None


class _Quiet(web.RequestHandler):
    """A connection on which what is no request is not repeated: a token may be in it."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request: aiohttp would say what it is, and repeat some of what was sent."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        code, title = ("bad-request", "that is not HTTP") if status < 500 else ("internal", "internal error")
        response = nameless(problem(status, code, title))
        response.force_close()
        return response


class _Connection(_Quiet):
    """One connection, which counts itself."""

    __slots__ = ("_connections", "caller", "pin")

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as in aiohttp's own runners
            keepalive_timeout=connections.idle_s,
            # Of what is refused, too, the rest is read: compressed, a little of it could be much.
            auto_decompress=False,
        )
        self._connections = connections
        self.pin: bytes | None = None
        self.caller: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self.pin = tls.pin if isinstance(tls, PinnedObject) else None
        if self.pin is None:
            place = transport.get_extra_info("peername")
            self.caller = self._connections.caller_at(str(place[0])) if place else None
        super().connection_made(transport)
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.closed(self)
        super().connection_lost(exc)


def _caller(connection: web.RequestHandler) -> str | None:
    return connection.caller if isinstance(connection, _Connection) else None


class PublicSite(web.TCPSite):
    """Listens for everybody."""

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        connections: Connections,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(runner, host, port, ssl_context=ssl_context)
        self._connections = connections
        self._public = runner

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is in use.
        """
        await web.BaseSite.start(self)
        server = self._public.server
        assert server is not None  # noqa: S101 - the runner was set up
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(server, self._connections),
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=_HANDSHAKE_S if self._ssl_context else None,
        )


class LocalSite(web.UnixSite):
    """The local API's Unix socket."""

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be made.
        """
        await web.BaseSite.start(self)
        self._server = await asyncio.get_running_loop().create_unix_server(_quiet(self._runner), self._path)


class LocalTcpSite(web.TCPSite):
    """The local API on TCP."""

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is in use.
        """
        await web.BaseSite.start(self)
        self._server = await asyncio.get_running_loop().create_server(_quiet(self._runner), self._host, self._port)


def _quiet(runner: web.BaseRunner) -> Callable[[], _Quiet]:
    server = runner.server
    assert server is not None  # noqa: S101 - the runner was set up
    return lambda: _Quiet(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]


def nameless(response: web.StreamResponse) -> web.StreamResponse:
    """A response that does not say which software gives it; aiohttp would name its version and Python's."""
    response.headers["server"] = "exchange"
    return response


class Bodies:
    """Reads bodies, at most so many at a time."""

    def __init__(self, most: int, patience_s: float) -> None:
        self._most = most
        self._patience_s = patience_s
        self._reading: dict[asyncio.Timeout, None] = {}

    async def read(self, request: web.Request) -> bytes:
        """A request's body.

        Raises:
            TimeoutError: it took too long, or too many came after it.
        """
        if len(self._reading) >= self._most:
            # Who sends slowly on many connections gives up his own: an honest body is here in much less time.
            longest = next(iter(self._reading))
            del self._reading[longest]
            longest.reschedule(asyncio.get_running_loop().time())
        async with asyncio.timeout(self._patience_s) as patience:
            self._reading[patience] = None
            try:
                return await request.read()
            finally:
                self._reading.pop(patience, None)
