"""Registering by invitation and by pairing: what strangers may send, and what the admins' commands ask for.

* A stranger hears nothing but `unacceptable`, whatever was wrong; the node counts and logs it.
* Bodies are bounded before they are read, and read a few at a time.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from exchange.node.errors import RequestInvalid, Unacceptable
from exchange.node.invitations import Invitations
from exchange.node.listener import Bodies
from exchange.node.pairing import Stage
from exchange.node.pairings import Pairings, Session
from exchange.node.peers_api import PeersApi, who_asks
from exchange.node.problems import json_response, problem
from exchange.node.registering import Allowance
from exchange.node.requests import Request, body_of, check_file, check_networks
from exchange.node.services import Services
from exchange.schema.registration import (
    MOST_INVITATION_BYTES,
    PAIRING_TYPE,
    REGISTRATION_TYPE,
    invitation_link,
    parse_invitation,
)

MOST_REGISTRATION_BYTES: Final = 262_144
MOST_PAIRING_BYTES: Final = 1024
MOST_HOURS: Final = 720
_MOST_BODIES: Final = 32
_PATIENCE_S: Final = 10.0
_MOST_WAIT_S: Final = 60.0

Networks = Annotated[tuple[str, ...], Meta(max_length=20)]
UrlOfAdmin = Annotated[str, Meta(min_length=1, max_length=500)]


class NewInvitation(Request, frozen=True):
    """Make an invitation; what is allowed is for the node that accepts it."""

    expires_in_hours: Annotated[int, Meta(ge=1, le=MOST_HOURS)] = 48
    ca_file: str | None = None
    networks: Networks = ()


class AcceptInvitation(Request, frozen=True):
    """Accept an invitation: its JSON, or the link."""

    invitation: Annotated[str, Meta(max_length=MOST_INVITATION_BYTES)]
    ca_file: str | None = None
    networks: Networks = ()


class NewPairing(Request, frozen=True):
    """Start a pairing with the node at a URL."""

    url: UrlOfAdmin
    ca_file: str | None = None
    networks: Networks = ()


class ConfirmPairing(Request, frozen=True):
    """Whether the words are the same; or the words that the other admin read out."""

    same: bool | None = None
    words: Annotated[str, Meta(max_length=200)] | None = None


class RegistrationApi:
    """The handlers for both listeners."""

    def __init__(
        self,
        services: Services,
        invitations: Invitations,
        pairings: Pairings,
        peers: PeersApi,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._services = services
        self._invitations = invitations
        self._pairings = pairings
        self._peers = peers
        self._bodies = Bodies(_MOST_BODIES, patience_s)

    def public_routes(self) -> list[web.RouteDef]:
        """For the listeners that strangers reach."""
        return [
            web.post("/v1/registrations", self._registrations),
            web.post("/v1/pairings", self._offers),
            web.post("/v1/pairings/reveal", self._reveals),
        ]

    def local_routes(self) -> list[web.RouteDef]:
        """For the local API."""
        return [
            web.post("/v1/invitations", self._invite),
            web.get("/v1/invitations", self._outstanding),
            web.post("/v1/invitations/accept", self._accept),
            web.delete("/v1/invitations/{id}", self._withdraw),
            web.post("/v1/pairings", self._pair),
            web.get("/v1/pairings", self._current),
            web.get("/v1/pairings/{id}", self._wait),
            web.post("/v1/pairings/{id}/confirm", self._confirm),
            web.delete("/v1/pairings/{id}", self._stop),
        ]

    # Strangers

    async def _registrations(self, request: web.Request) -> web.Response:
        async def take(data: bytes) -> web.Response:
            honoured = await self._invitations.honour(data)
            if honoured.changed is not None:
                self._peers.changed(honoured.changed)
            return web.Response(body=honoured.reply, content_type="application/vnd.exchange.reply")

        return await self._take(request, REGISTRATION_TYPE, MOST_REGISTRATION_BYTES, "registrations_refused", take)

    async def _offers(self, request: web.Request) -> web.Response:
        async def take(data: bytes) -> web.Response:
            return web.Response(body=self._pairings.take_offer(data), content_type=PAIRING_TYPE)

        return await self._take(request, PAIRING_TYPE, MOST_PAIRING_BYTES, "pairings_refused", take)

    async def _reveals(self, request: web.Request) -> web.Response:
        async def take(data: bytes) -> web.Response:
            self._pairings.take_reveal(data)
            return web.Response(content_type=PAIRING_TYPE)

        return await self._take(request, PAIRING_TYPE, MOST_PAIRING_BYTES, "pairings_refused", take)

    async def _take(
        self,
        request: web.Request,
        content_type: str,
        most_bytes: int,
        counter: str,
        take: Callable[[bytes], Awaitable[web.Response]],
    ) -> web.Response:
        if request.content_type != content_type or "content-encoding" in request.headers:
            return problem(415, "unsupported-media-type", f"send {content_type}, not compressed")
        if (request.content_length or 0) > most_bytes:
            return problem(413, "too-large", f"that is {most_bytes} bytes at most")
        # A body whose length is not told is cut off at that size too.
        data = await self._bodies.read(request.clone(client_max_size=most_bytes))
        try:
            return await take(data)
        except Unacceptable as error:
            self._services.counters.add(counter)
            self._services.log.warning(counter.replace("s_", " "), reason=str(error))
            return problem(403, "unacceptable", "unacceptable")

    # Invitations

    async def _invite(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, NewInvitation)
        lasts = timedelta(hours=wanted.expires_in_hours)
        given = await self._invitations.invite(who_asks(request), lasts, _allowance(wanted))
        return json_response(
            {
                "id": given.id,
                "origin": given.origin,
                "url": given.url,
                "fingerprint": given.fingerprint,
                "expires_at": given.expires_at,
                "link": invitation_link(given),
                "invitation": given,
            },
            201,
        )

    async def _outstanding(self, _: web.Request) -> web.Response:
        return json_response({"items": [msgspec.to_builtins(item) for item in await self._invitations.standing()]})

    async def _accept(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, AcceptInvitation)
        given = parse_invitation(wanted.invitation)
        row, verified_there = await self._invitations.accept(given, _allowance(wanted), who_asks(request))
        return json_response({**self._peers.changed(row), "verified_there": verified_there}, 201)

    async def _withdraw(self, request: web.Request) -> web.Response:
        invitation_id = request.match_info["id"]
        await self._invitations.withdraw(invitation_id)
        return json_response({"id": invitation_id, "withdrawn": True})

    # Pairings

    async def _pair(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, NewPairing)
        return json_response(self._described(await self._pairings.start(wanted.url, _allowance(wanted))), 201)

    async def _current(self, _: web.Request) -> web.Response:
        session = self._pairings.current()
        return json_response({"items": [] if session is None else [self._described(session)]})

    async def _wait(self, request: web.Request) -> web.Response:
        text = request.query.get("timeout_s", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise RequestInvalid("timeout_s is a whole number of seconds")
        timeout_s = min(float(text), _MOST_WAIT_S)
        return json_response(self._described(await self._pairings.wait(request.match_info["id"], timeout_s)))

    async def _confirm(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, ConfirmPairing)
        if (wanted.same is None) == (wanted.words is None):
            raise RequestInvalid("either same or words is needed")
        session_id, by = request.match_info["id"], who_asks(request)
        row = await self._pairings.confirm(session_id, by, same=wanted.same is True, words=wanted.words)
        return json_response(self._peers.changed(row))

    async def _stop(self, request: web.Request) -> web.Response:
        return json_response(self._described(self._pairings.stop(request.match_info["id"])))

    def _described(self, session: Session) -> dict[str, Any]:
        card, pairing = session.shown.card, session.pairing
        state = Stage.WAITING if pairing.is_before_words else pairing.stage
        return {
            "id": session.id,
            "url": session.url,
            "own_url": self._services.configuration.registration_url,
            "origin": card.origin,
            "name": card.name,
            "area": card.area,
            "fingerprint": session.shown.fingerprint,
            "state": state,
            "reason": pairing.reason or None,
            "problem": session.problem if pairing.is_before_words else None,
            "words": list(session.words) or None,
            "ends_at": session.ends_at,
        }


def _allowance(wanted: NewInvitation | AcceptInvitation | NewPairing) -> Allowance:
    check_file(wanted.ca_file)
    check_networks(wanted.networks)
    return Allowance(wanted.ca_file, wanted.networks)
