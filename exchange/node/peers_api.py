"""The local API's half for peers: register, verify, suspend, remove."""

import asyncio
import functools
import json
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from exchange.crypto.number import compare_number, parse_number
from exchange.crypto.signing import fingerprint as fingerprint_of
from exchange.crypto.signing import parse_fingerprint
from exchange.node.attachment_lanes import attachment_lane
from exchange.node.cards import describe_card, parse_card_file, verify_card
from exchange.node.comparing import Comparing
from exchange.node.continuity import Continuity
from exchange.node.delivery import Dispatcher
from exchange.node.directory_apply import held_area
from exchange.node.errors import FingerprintMismatch, RequestInvalid
from exchange.node.forks import Fork, forks_of
from exchange.node.peering import Confirmation, confirm, move, show_card
from exchange.node.problems import json_response
from exchange.node.requests import WHO, Request, body_of, check_file, check_networks
from exchange.node.services import Services, moment
from exchange.node.trust import Standing, Trust
from exchange.schema.card_file import CardFile
from exchange.store.directory import Listed, keep_stop, listed, stopped_areas
from exchange.store.outbox import backlog
from exchange.store.peers import PeerRow, all_peers, keep_peer, peer, remove_peer
from exchange.store.transaction import Transaction
from exchange.store.trust import verifications_of


class AddPeer(Request, frozen=True):
    """Register a peer; with a fingerprint that matches, it is verified."""

    card: CardFile
    fingerprint: str | None = None
    ca_file: str | None = None
    networks: Annotated[tuple[str, ...], Meta(max_length=20)] = ()


class VerifyPeer(Request, frozen=True):
    """Verify a peer by what was compared out of band: its fingerprint, or the number of both nodes."""

    fingerprint: str | None = None
    number: str | None = None


def who_asks(request: web.Request) -> str:
    """The person behind a request: the token's name, or the account at the other end of the Unix socket."""
    if WHO in request:
        return request[WHO]
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or connection.family != socket.AF_UNIX:
        return "unknown"
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return _account(uid)


@functools.cache
def _account(uid: int) -> str:
    """The name of an account; a directory service may be slow to say it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def describe_listing(row: PeerRow, said: Listed) -> dict[str, Any]:
    """Whether the directory lists the identity that people would verify now, and which it lists."""
    found = said.fingerprints.get(row.origin)
    same = found is not None and found == (row.candidate or row.fingerprint)
    return {"listed_by": said.url if same else None, "listed_fingerprint": found}


class PeersApi:
    """The handlers for peers."""

    def __init__(
        self, services: Services, dispatcher: Dispatcher, continuity: Continuity, comparing: Comparing
    ) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._continuity = continuity
        self._comparing = comparing
        #: Told of a peer that people have verified anew after its log forked.
        self.explained: Callable[[str], None] = lambda origin: None

    def routes(self) -> list[web.RouteDef]:
        """The routes, for the local API's application."""
        return [
            web.get("/v1/peers", self._all),
            web.post("/v1/peers", self._add),
            web.get("/v1/peers/number/{origin:.+}", self._number),
            web.get("/v1/peers/explain/{origin:.+}", self._explain),
            web.post("/v1/peers/verify/{origin:.+}", self._verify),
            web.post("/v1/peers/suspend/{origin:.+}", self._suspend),
            web.get("/v1/peers/{origin:.+}", self._one),
            web.delete("/v1/peers/{origin:.+}", self._remove),
        ]

    def own_fingerprint(self) -> str:
        """The fingerprint of this node's identity."""
        return fingerprint_of(self._services.configuration.origin, self._services.keyring.verifiers)

    async def _all(self, _: web.Request) -> web.Response:
        async def collect(tx: Transaction) -> tuple[list[PeerRow], Listed]:
            return await all_peers(tx), await listed(tx)

        rows, said = await self._services.store.read(collect)
        return json_response({"items": [{**self.describe(row), **describe_listing(row, said)} for row in rows]})

    async def _one(self, request: web.Request) -> web.Response:
        origin = request.match_info["origin"]

        async def collect(tx: Transaction) -> tuple[PeerRow, list[dict[str, Any]], Listed]:
            records = [
                {"fingerprint": row.fingerprint, "how": row.how, "who": row.who, "at": moment(row.at_ms)}
                for row in await verifications_of(tx, origin)
            ]
            return await peer(tx, origin), records, await listed(tx)

        row, records, said = await self._services.store.read(collect)
        return json_response({**self.describe(row), **describe_listing(row, said), "verifications": records})

    async def _explain(self, request: web.Request) -> web.Response:
        origin = request.match_info["origin"]

        async def collect(tx: Transaction) -> tuple[PeerRow, list[Fork], int]:
            waiting = sum(count for lane, _, count in await backlog(tx) if lane == f"peer:{origin}")
            return await peer(tx, origin), await forks_of(tx, self._services, origin), waiting

        row, forks, waiting = await self._services.store.read(collect)
        described = [fork.describe() for fork in forks]
        seen = self._comparing.describe(origin)
        return json_response({**self.describe(row), "waiting": waiting, "forks": described, **seen})

    def describe(self, row: PeerRow) -> dict[str, Any]:
        """A peer for a person or a script."""
        card = describe_card(verify_card(row.card, row.proof, self._services.checkpoints))
        state = self._dispatcher.state(f"peer:{row.origin}")
        return {
            **card,
            "trust": row.state,
            "networks": json.loads(row.networks),
            "candidate": row.candidate,
            "confirmed_first_by": row.first_by,
            "added_at": moment(row.added_at_ms),
            "verified_at": moment(row.verified_at_ms) if row.verified_at_ms else None,
            "verified_how": row.verified_how,
            "failures": state.failures,
            "last_error": state.last_error,
        }

    async def _add(self, request: web.Request) -> web.Response:
        services = self._services
        wanted = await body_of(request, AddPeer)
        verified = parse_card_file(msgspec.json.encode(wanted.card))
        origin = verified.card.origin
        given = parse_fingerprint(wanted.fingerprint) if wanted.fingerprint is not None else None
        if given is not None and given != verified.fingerprint:
            raise FingerprintMismatch(f"the fingerprint is not that of the card of {origin}; nothing was kept")
        check_file(wanted.ca_file)
        check_networks(wanted.networks)
        by = who_asks(request)

        async def operation(tx: Transaction) -> PeerRow:
            row = await show_card(tx, services, verified, wanted.ca_file)
            if wanted.networks:
                row = replace(row, networks=json.dumps(wanted.networks))
                await keep_peer(tx, row)
            if given is None or (row.state == Trust.VERIFIED and row.fingerprint == given):
                return row
            return await confirm(tx, services, origin, Confirmation(given, "fingerprint", by))

        row = await services.store.write(operation, long=True)
        services.log.info("peer added", peer=origin, state=row.state)
        return json_response(self.changed(row), 201)

    def changed(self, row: PeerRow) -> dict[str, Any]:
        """After a peer's standing has changed: forget what was believed, and try what waits."""
        self._continuity.forget(row.origin)
        if row.state == Trust.VERIFIED:
            self._dispatcher.heard_from(f"peer:{row.origin}")
            self._dispatcher.wake(f"peer:{row.origin}")
            self._dispatcher.wake(attachment_lane(row.origin))
        self._services.changes.notify()
        return self.describe(row)

    async def _number(self, request: web.Request) -> web.Response:
        async def collect(tx: Transaction) -> tuple[PeerRow, Listed]:
            return await peer(tx, request.match_info["origin"]), await listed(tx)

        row, said = await self._services.store.read(collect)
        shown = row.candidate or row.fingerprint
        number = await asyncio.to_thread(compare_number, self.own_fingerprint(), shown)
        facts = {"origin": row.origin, "trust": row.state, "fingerprint": shown, "number": number}
        return json_response({**facts, **describe_listing(row, said)})

    async def _verify(self, request: web.Request) -> web.Response:
        services = self._services
        origin = request.match_info["origin"]
        wanted = await body_of(request, VerifyPeer)
        before = row = await services.store.read(lambda tx: peer(tx, origin))
        shown = row.candidate or row.fingerprint
        if wanted.number is not None:
            try:
                given = parse_number(wanted.number)
            except ValueError as error:
                raise RequestInvalid(str(error)) from None
            if given != await asyncio.to_thread(compare_number, self.own_fingerprint(), shown):
                raise FingerprintMismatch(f"the number is not the one of this node and {origin}; it stays {row.state}")
            confirmation = Confirmation(shown, "number", who_asks(request))
        elif wanted.fingerprint is not None:
            confirmation = Confirmation(parse_fingerprint(wanted.fingerprint), "fingerprint", who_asks(request))
        else:
            raise RequestInvalid("a number or a fingerprint is needed")
        row = await services.store.write(lambda tx: confirm(tx, services, origin, confirmation), long=True)
        services.log.info("peer verified" if row.state == Trust.VERIFIED else "peer confirmed by one", peer=origin)
        described = self.changed(row)
        if row.state == Trust.VERIFIED and before.state in (Trust.QUARANTINED, Trust.CONFIRMING):
            # Its own word for which log it keeps should be the first: strangers may have what it signed in another.
            self.explained(origin)
        return json_response(described)

    async def _suspend(self, request: web.Request) -> web.Response:
        return json_response(await self._move(request.match_info["origin"], Standing.suspend))

    async def _move(self, origin: str, step: Callable[[Standing], Standing]) -> dict[str, Any]:
        row = await self._services.store.write(lambda tx: move(tx, origin, step))
        self._services.log.info("peer moved", peer=origin, state=row.state)
        return self.changed(row)

    async def _remove(self, request: web.Request) -> web.Response:
        origin = request.match_info["origin"]

        async def operation(tx: Transaction) -> None:
            area = await held_area(tx, await peer(tx, origin), await stopped_areas(tx))
            await remove_peer(tx, origin)
            # A directory must not bring it back by itself, nor another in its place.
            await keep_stop(tx, origin, "removed", area)

        await self._services.store.write(operation, long=True)
        self._continuity.forget(origin)
        self._services.log.info("peer removed", peer=origin)
        return json_response({"origin": origin, "removed": True})
