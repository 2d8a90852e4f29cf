"""The public listener: what peers may ask. It says nothing to an unproven sender but `unacceptable`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web

from exchange import crash_points
from exchange.crypto.envelope import MAX_ENVELOPE_BYTES
from exchange.node.callers import Callers
from exchange.node.cards import own_card_file
from exchange.node.errors import AtLimit, NotNow, ProofAwaited, TooManyRequests, Unacceptable
from exchange.node.inbound import Inbound
from exchange.node.listener import Bodies, Connections, nameless
from exchange.node.peer_client import ENVELOPE_TYPE
from exchange.node.problems import json_response, problem
from exchange.node.returning import Returning
from exchange.node.revocation import MOST_BYTES, take_revocation
from exchange.node.services import Services
from exchange.schema.rejoining import REJOIN_TYPE
from exchange.store.errors import NotFound, StoreUnavailable
from exchange.store.log import consistency_between, latest_head

#: What a form takes; larger bodies may take longer, and there are fewer of them at a time.
_USUAL_BYTES: Final = 256 * 1024
_USUAL_PATIENCE_S: Final = 10.0
_CALLER: Final = web.RequestKey("caller", str)


class PeerApi:
    """The handlers of the peer API."""

    def __init__(
        self,
        services: Services,
        inbound: Inbound,
        accepted: Callable[[str, frozenset[str]], None],
        body_timeout_s: float = 60.0,
        more: Sequence[web.RouteDef] = (),
    ) -> None:
        self._services = services
        #: What strangers need too.
        self._more = more
        limits = services.configuration.tables.limits
        self._callers = Callers(limits)
        self.connections = Connections(most_of_one=limits.address_connections, caller_at=self._callers.at)
        #: Those of the listener for strangers: however many they are, they close none of the peers' connections.
        self.open_connections = Connections(most_of_one=limits.address_connections, caller_at=self._callers.at)
        self._usual = Bodies(256, min(body_timeout_s, _USUAL_PATIENCE_S))
        self._large = Bodies(16, body_timeout_s)
        self._inbound = inbound
        self._accepted = accepted
        self._returning = Returning(services)

    def application(self, *, for_strangers: bool = False) -> web.Application:
        """The aiohttp application; the one for strangers has what is needed to register, and no more."""
        application = web.Application(client_max_size=MAX_ENVELOPE_BYTES, middlewares=[self._guard])
        application.add_routes(
            [
                *self._more,
                web.get("/v1/card", self._card),
                web.get("/v1/health", self._health),
                web.post("/v1/revocations", self._revocations),
            ]
        )
        if not for_strangers:
            application.add_routes(
                [
                    web.post("/v1/envelopes", self._envelopes),
                    web.post("/v1/rejoin", self._rejoin),
                    web.get("/v1/log/checkpoint", self._checkpoint),
                    web.get("/v1/log/consistency", self._consistency),
                ]
            )
        application.on_response_prepare.append(_without_name)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        for connections in (self.connections, self.open_connections):
            connections.begins(request.protocol)
        try:
            self._admit(request)
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            # Python's words for this status change with its version; the code must not.
            return problem(413, "too-large", "an envelope is 16 MiB at most")
        except web.HTTPException as error:
            return problem(error.status, error.reason.lower().replace(" ", "-"), error.reason)
        except Unacceptable as error:
            self._services.counters.add("envelopes_refused")
            self._services.log.warning("envelope refused", reason=str(error))
            return problem(403, "unacceptable", "unacceptable")
        except ProofAwaited as error:
            # For a peer that can call, and cannot be called.
            self._services.log.warning("not now", reason=str(error))
            return problem(503, "proof-awaited", "bring the consistency proof", holds=error.holds)
        except AtLimit as error:
            caller = request.get(_CALLER, "")
            self._services.log.warning("at a limit", code=error.code, reason=str(error), address=caller)
            return problem(error.status, error.code, str(error), retry_after_s=error.retry_after_s)
        except (NotNow, StoreUnavailable) as error:
            self._services.log.warning("not now", reason=str(error))
            return problem(503, "try-later", "try again later")
        except (web.RequestPayloadError, ConnectionError):
            return problem(400, "incomplete", "the request ended before its end")
        except TimeoutError:
            return problem(408, "too-slow", "the request took too long")
        except Exception as error:  # noqa: BLE001 - the root of a request: what went wrong is not for the sender
            self._services.log.error("request failed", error=type(error).__name__)
            return problem(500, "internal", "internal error")
        finally:
            for connections in (self.connections, self.open_connections):
                connections.ends(request.protocol)

    def _admit(self, request: web.Request) -> None:
        """Count a request of somebody who has proven nothing yet; who was admitted in the handshake has."""
        if getattr(request.protocol, "pin", None) is not None:
            return
        caller = request[_CALLER] = self._callers.of(request) or ""
        waits_ms = self._callers.wait_ms(caller or None, _cost(request), self._services.now_ms())
        if waits_ms:
            self._services.counters.add("requests_over_limit")
            raise TooManyRequests("too many requests from this address", waits_ms / 1000)

    async def _envelopes(self, request: web.Request) -> web.Response:
        if request.content_type != ENVELOPE_TYPE or "content-encoding" in request.headers:
            # Sealed bytes do not get smaller; what does is meant to get larger here.
            return problem(415, "unsupported-media-type", f"send {ENVELOPE_TYPE}, not compressed")
        if (request.content_length or 0) > MAX_ENVELOPE_BYTES:
            return problem(413, "too-large", "an envelope is 16 MiB at most")
        announced = request.content_length
        bodies = self._usual if announced is not None and announced <= _USUAL_BYTES else self._large
        answer = await self._inbound.accept(await bodies.read(request))
        crash_points.reached("envelope.before-answer")
        if answer.is_news:
            self._callers.proven(request.get(_CALLER) or None, _cost(request))
        self._accepted(answer.origin, answer.lanes)
        return web.Response(body=answer.body, content_type="application/vnd.exchange.reply")

    async def _rejoin(self, request: web.Request) -> web.Response:
        if request.content_type != REJOIN_TYPE or "content-encoding" in request.headers:
            return problem(415, "unsupported-media-type", f"send {REJOIN_TYPE}, not compressed")
        if (request.content_length or 0) > MOST_BYTES:
            return problem(413, "too-large", "a question is 64 KiB at most")
        answer = await self._returning.answer(await self._usual.read(request.clone(client_max_size=MOST_BYTES)))
        # A question is answered once, and only to the peer that signed it: nobody else can use it up.
        self._callers.proven(request.get(_CALLER) or None, _cost(request))
        return web.Response(body=answer, content_type="application/vnd.exchange.reply")

    async def _card(self, _: web.Request) -> web.Response:
        if self._services.revoked.file is not None:
            return web.Response(body=self._services.revoked.file, content_type="application/json")
        return json_response(await own_card_file(self._services))

    async def _revocations(self, request: web.Request) -> web.Response:
        """Whoever brings a revocation that holds is heard: it proves itself."""
        if (request.content_length or 0) > MOST_BYTES:
            return problem(413, "too-large", "a revocation is 64 KiB at most")
        data = await self._usual.read(request.clone(client_max_size=MOST_BYTES))
        row = await take_revocation(self._services, data)
        return json_response({"origin": row.origin, "trust": row.state})

    async def _checkpoint(self, _: web.Request) -> web.Response:
        return web.Response(text=(await self._services.store.read(latest_head)).text)

    async def _consistency(self, request: web.Request) -> web.Response:
        sizes = [request.query.get(name, "") for name in ("first", "second")]
        if not all(text.isascii() and text.isdigit() and len(text) < 17 for text in sizes):
            return problem(400, "request-invalid", "first and second are sizes of the log")
        first, second = (int(text) for text in sizes)
        try:
            path = await self._services.store.read(lambda tx: consistency_between(tx, first, second))
        except NotFound:
            return problem(404, "not-found", "the log never had these sizes")
        self._services.counters.add("consistency_proofs_asked")
        body = msgspec.json.encode({"first": first, "second": second, "path": path})
        return web.Response(body=body, content_type="application/json")

    async def _health(self, _: web.Request) -> web.Response:
        return json_response({"status": "ok"})


def _cost(request: web.Request) -> float:
    """What a request costs its caller: more, the more it brings; what does not say how much may bring all."""
    length = request.content_length
    if length is None:
        length = MAX_ENVELOPE_BYTES if request.body_exists else 0
    return 1 + min(length, MAX_ENVELOPE_BYTES) / _USUAL_BYTES


async def _without_name(_: web.Request, response: web.StreamResponse) -> None:
    nameless(response)
