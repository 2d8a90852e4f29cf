"""The listener for agencies that ask the node: each request is of one agency, by a token, or for everybody.

* A wrong token hears 401, whatever was wrong with it: unknown, expired, revoked, of a form that none has.
* A request counts for its address until its token is known; one that may be a guess counts much more.
* The body is read after the token, and is small.
* What an agency may do is for the handlers: they are told which agency asks.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web

from exchange.node.agency_tokens import Asking, token_digest
from exchange.node.callers import Callers
from exchange.node.errors import TokenNeeded, TooManyRequests
from exchange.node.listener import Bodies, Connections, nameless
from exchange.node.local_api import told
from exchange.node.problems import problem
from exchange.node.services import Services
from exchange.store.agency_tokens import find_agency_token, note_token_used

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Who asks, in a request that came with a token.
ASKING: Final = web.RequestKey("asking", Asking)
MOST_BYTES: Final = 64 * 1024
#: What a token that may be a guess counts, in requests. Tokens cannot be guessed; this is for the noise of trying.
_GUESS_COST: Final = 20.0
_MOST_BODIES: Final = 64
_PATIENCE_S: Final = 10.0
_HOUR_MS: Final = 3_600_000
_CALLER: Final = web.RequestKey("caller", str)


class AgencyListener:
    """What every request to the listener passes."""

    def __init__(self, services: Services, patience_s: float = _PATIENCE_S) -> None:
        limits = services.configuration.tables.limits
        self._services = services
        self._callers = Callers(limits)
        self._bodies = Bodies(_MOST_BODIES, patience_s)
        self.connections = Connections(most_of_one=limits.address_connections, caller_at=self._callers.at)

    def application(
        self, for_agencies: Iterable[web.RouteDef], for_everybody: Iterable[web.RouteDef] = ()
    ) -> web.Application:
        """The aiohttp application. The handlers of `for_agencies` find in `request[ASKING]` who asks."""
        application = web.Application(client_max_size=MOST_BYTES, middlewares=[told, self._guard])
        application.add_routes([_handled(route, self._with_token) for route in for_agencies])
        application.add_routes([_handled(route, self._with_body) for route in for_everybody])
        application.on_response_prepare.append(_without_name)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.connections.begins(request.protocol)
        try:
            request[_CALLER] = self._callers.of(request) or ""
            self._count(request, 1)
            return await handler(request)
        except TimeoutError:
            return problem(408, "too-slow", "the request took too long")
        finally:
            self.connections.ends(request.protocol)

    def _count(self, request: web.Request, cost: float) -> None:
        waits_ms = self._callers.wait_ms(request[_CALLER] or None, cost, self._services.now_ms())
        if waits_ms:
            self._services.counters.add("agency_requests_over_limit")
            raise TooManyRequests("too many requests from this address", waits_ms / 1000)

    def guessed(self, request: web.Request) -> None:
        """Count a request that asked for what cannot be guessed, and was wrong.

        Raises:
            TooManyRequests: its address has tried too often.
        """
        self._count(request, _GUESS_COST)

    def _with_token(self, handler: Handler) -> Handler:
        with_body = self._with_body(handler)

        async def known(request: web.Request) -> web.StreamResponse:
            self._count(request, _GUESS_COST)
            asking = await self._who(request.headers.get("authorization", ""))
            if asking is None:
                self._services.counters.add("agency_tokens_refused")
                self._services.log.warning("agency token refused", address=request[_CALLER])
                raise TokenNeeded("a valid token is needed")
            self._callers.proven(request[_CALLER] or None, 1 + _GUESS_COST)
            request[ASKING] = asking
            return await with_body(request)

        return known

    def _with_body(self, handler: Handler) -> Handler:
        async def read(request: web.Request) -> web.StreamResponse:
            if (request.content_length or 0) > MOST_BYTES:
                return problem(413, "too-large", f"a request is {MOST_BYTES // 1024} KiB at most")
            if request.can_read_body:
                await self._bodies.read(request)  # which keeps it for the handler
            return await handler(request)

        return read

    async def _who(self, header: str) -> Asking | None:
        services = self._services
        digest, now_ms = token_digest(header), services.now_ms()
        if digest is None:
            return None
        found = await services.store.read(lambda tx: find_agency_token(tx, digest, now_ms))
        if found is None:
            return None
        token, agency = found
        hour_ms = now_ms - now_ms % _HOUR_MS
        if token.used_at_ms is None or token.used_at_ms < hour_ms:
            await services.store.write(lambda tx: note_token_used(tx, token.id, hour_ms))
        return Asking(agency, token)


def _handled(route: web.RouteDef, around: Callable[[Handler], Handler]) -> web.RouteDef:
    return web.RouteDef(route.method, route.path, around(route.handler), route.kwargs)


async def _without_name(_: web.Request, response: web.StreamResponse) -> None:
    nameless(response)
