"""The local API: what the command line and a borough's own programs ask of their node.

On the Unix socket whoever may open the socket may ask; on TCP a bearer token is needed.
"""

import asyncio
import hashlib
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta

from exchange.crypto.names import context
from exchange.crypto.rest import seal_at_rest
from exchange.crypto.signing import parse_fingerprint
from exchange.errors import ExchangeError
from exchange.handover.rungs import LADDER, all_reached
from exchange.node.agency_delivery import AgencyDeliveries
from exchange.node.cards import CardFile, describe_card, own_card, parse_card_file, verify_card
from exchange.node.continuity import Continuity
from exchange.node.delivery import Dispatcher
from exchange.node.egress import parse_networks, why_unreachable
from exchange.node.epochs import renew_card
from exchange.node.errors import FingerprintMismatch, RequestInvalid
from exchange.node.problems import json_response, problem, problem_of
from exchange.node.reading import describe_message, list_direction, receipts_document, timeline_document
from exchange.node.sending import describe_findings, findings_of, send_form
from exchange.node.services import Services, moment
from exchange.node.webhook import new_secret
from exchange.schema.form import MAX_FORM_BYTES
from exchange.schema.wire import KindText
from exchange.store.agencies import (
    AgencyRow,
    add_agency,
    add_token,
    agency,
    all_agencies,
    remove_agency,
    token_is_valid,
)
from exchange.store.keys import last_card
from exchange.store.messages import INBOUND, OUTBOUND, list_alarms
from exchange.store.outbox import backlog, enqueue_card, held, release, release_lane
from exchange.store.peers import (
    PeerRow,
    add_peer,
    all_peers,
    keep_peer_head,
    peer,
    remove_peer,
    set_peer_state,
    set_peer_verified,
)
from exchange.store.transaction import Transaction

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DAY_MS = 86_400_000
_RELEASED_FOR_MS = 13 * _DAY_MS


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every request body."""


class AddPeer(_Request, frozen=True):
    """Register a peer; with a fingerprint that matches, it is verified."""

    card: CardFile
    fingerprint: str | None = None
    ca_file: str | None = None


class VerifyPeer(_Request, frozen=True):
    """Verify a peer by the fingerprint that was compared out of band."""

    fingerprint: str


class AddAgency(_Request, frozen=True):
    """Register an agency's webhook."""

    kind: KindText
    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    networks: Annotated[tuple[str, ...], Meta(max_length=20)] = ()
    ca_file: str | None = None


class NewToken(_Request, frozen=True):
    """Make a bearer token for the local API on TCP."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class LocalApi:
    """The handlers of the local API."""

    def __init__(
        self, services: Services, dispatcher: Dispatcher, continuity: Continuity, deliveries: AgencyDeliveries
    ) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._continuity = continuity
        self._deliveries = deliveries

    def application(self, *, needs_token: bool) -> web.Application:
        """The aiohttp application."""
        middlewares = [_errors, self._token] if needs_token else [_errors]
        application = web.Application(client_max_size=2 * MAX_FORM_BYTES, middlewares=middlewares)
        application.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/card", self._card),
                web.get("/v1/peers", self._peers),
                web.post("/v1/peers", self._add_peer),
                web.get("/v1/peers/{origin:.+}", self._peer),
                web.post("/v1/peers/verify/{origin:.+}", self._verify_peer),
                web.post("/v1/peers/suspend/{origin:.+}", self._suspend_peer),
                web.delete("/v1/peers/{origin:.+}", self._remove_peer),
                web.get("/v1/agencies", self._agencies),
                web.post("/v1/agencies", self._add_agency),
                web.post("/v1/agencies/{id}/test", self._test_agency),
                web.delete("/v1/agencies/{id}", self._remove_agency),
                web.post("/v1/forms/check", self._check_form),
                web.post("/v1/messages/to/{area}", self._send),
                web.get("/v1/messages/{id}", self._status),
                web.get("/v1/messages/{id}/timeline", self._timeline),
                web.get("/v1/messages/{id}/receipts", self._receipts),
                web.get("/v1/inbox", self._inbox),
                web.get("/v1/outbox", self._outbox),
                web.get("/v1/held", self._held),
                web.post("/v1/held/{number}/release", self._release),
                web.get("/v1/alarms", self._alarms),
                web.post("/v1/tokens", self._new_token),
            ]
        )
        return application

    @web.middleware
    async def _token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(token.encode()).digest()
        now_ms = self._services.now_ms()
        if scheme.lower() != "bearer" or not await self._services.store.read(
            lambda tx: token_is_valid(tx, digest, now_ms)
        ):
            return problem(401, "token-needed", "a valid bearer token is needed", "Make one with `exchange token new`.")
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        services = self._services
        rows = await services.store.read(backlog)
        lanes = [
            {
                "lane": lane,
                "state": state,
                "count": count,
                "failures": self._dispatcher.state(lane).failures,
                "last_error": self._dispatcher.state(lane).last_error,
            }
            for lane, state, count in rows
        ]
        return json_response(
            {
                "status": "ok",
                "origin": services.configuration.origin,
                "lanes": lanes,
                "counters": services.counters.values,
            }
        )

    async def _card(self, _: web.Request) -> web.Response:
        entry = await own_card(self._services)
        verified = verify_card(entry.statement, entry.proof, self._services.checkpoints)
        return json_response({**describe_card(verified), "card": CardFile(entry.statement, entry.proof)})

    # Peers

    async def _peers(self, _: web.Request) -> web.Response:
        rows = await self._services.store.read(all_peers)
        return json_response({"items": [self._describe_peer(row) for row in rows]})

    async def _peer(self, request: web.Request) -> web.Response:
        row = await self._services.store.read(lambda tx: peer(tx, request.match_info["origin"]))
        return json_response(self._describe_peer(row))

    def _describe_peer(self, row: PeerRow) -> dict[str, Any]:
        card = describe_card(verify_card(row.card, row.proof, self._services.checkpoints))
        state = self._dispatcher.state(f"peer:{row.origin}")
        return {
            **card,
            "trust": row.state,
            "added_at": moment(row.added_at_ms),
            "verified_at": moment(row.verified_at_ms) if row.verified_at_ms else None,
            "verified_how": row.verified_how,
            "failures": state.failures,
            "last_error": state.last_error,
        }

    async def _add_peer(self, request: web.Request) -> web.Response:
        services = self._services
        wanted = await _body(request, AddPeer)
        verified = parse_card_file(msgspec.json.encode(wanted.card))
        card, now_ms = verified.card, services.now_ms()
        if card.origin == services.configuration.origin:
            raise RequestInvalid("that is this node's own card")
        trusted = wanted.fingerprint is not None
        if wanted.fingerprint is not None and parse_fingerprint(wanted.fingerprint) != verified.fingerprint:
            raise FingerprintMismatch(f"the fingerprint is not that of the card of {card.origin}; nothing was kept")
        _check_file(wanted.ca_file)
        row = PeerRow(
            origin=card.origin,
            state="verified" if trusted else "unverified",
            fingerprint=verified.fingerprint,
            serial=card.serial,
            card=verified.statement,
            proof=verified.proof,
            ca_file=wanted.ca_file,
            added_at_ms=now_ms,
            verified_at_ms=now_ms if trusted else None,
            verified_how="fingerprint" if trusted else None,
        )

        async def operation(tx: Transaction) -> None:
            await add_peer(tx, row)
            checkpoint = verified.checkpoint
            await keep_peer_head(tx, card.origin, checkpoint.size, checkpoint.root, checkpoint.text, now_ms)
            if trusted:
                await self._greet(tx, card.origin)

        await services.store.write(operation)
        services.log.info("peer added", peer=card.origin, state=row.state)
        if trusted:
            self._dispatcher.wake(f"peer:{card.origin}")
        return json_response(self._describe_peer(row), 201)

    async def _greet(self, tx: Transaction, origin: str) -> None:
        """Queue the node's card for a peer, so that both know that they hear each other."""
        _, position = await last_card(tx)
        now_ms = self._services.now_ms()
        await enqueue_card(tx, f"peer:{origin}", position, now_ms, now_ms + 30 * _DAY_MS)

    async def _verify_peer(self, request: web.Request) -> web.Response:
        services = self._services
        origin = request.match_info["origin"]
        given = parse_fingerprint((await _body(request, VerifyPeer)).fingerprint)

        async def operation(tx: Transaction) -> PeerRow:
            row = await peer(tx, origin)
            if given != row.fingerprint:
                raise FingerprintMismatch(f"the fingerprint is not that of {origin}; it stays {row.state}")
            if row.state == "quarantined":
                raise RequestInvalid(f"{origin} is quarantined: remove it, and register its new card")
            await set_peer_verified(tx, origin, services.now_ms(), "fingerprint")
            await self._greet(tx, origin)
            await release_lane(tx, f"peer:{origin}", services.now_ms() + _RELEASED_FOR_MS)
            return await peer(tx, origin)

        row = await services.store.write(operation)
        services.log.info("peer verified", peer=origin)
        self._dispatcher.heard_from(f"peer:{origin}")
        self._dispatcher.wake(f"peer:{origin}")
        return json_response(self._describe_peer(row))

    async def _suspend_peer(self, request: web.Request) -> web.Response:
        origin = request.match_info["origin"]
        await self._services.store.write(lambda tx: set_peer_state(tx, origin, "suspended"))
        self._services.log.info("peer suspended", peer=origin)
        row = await self._services.store.read(lambda tx: peer(tx, origin))
        return json_response(self._describe_peer(row))

    async def _remove_peer(self, request: web.Request) -> web.Response:
        origin = request.match_info["origin"]
        await self._services.store.write(lambda tx: remove_peer(tx, origin))
        self._continuity.forget(origin)
        self._services.log.info("peer removed", peer=origin)
        return json_response({"origin": origin, "removed": True})

    # Agencies

    async def _agencies(self, _: web.Request) -> web.Response:
        rows = await self._services.store.read(all_agencies)
        return json_response({"items": [self._describe_agency(row) for row in rows]})

    def _describe_agency(self, row: AgencyRow) -> dict[str, Any]:
        state = self._dispatcher.state(f"agency:{row.kind}")
        return {
            "id": row.id,
            "kind": row.kind,
            "url": row.url,
            "networks": json.loads(row.networks),
            "failures": state.failures,
            "last_error": state.last_error,
        }

    async def _add_agency(self, request: web.Request) -> web.Response:
        services = self._services
        wanted = await _body(request, AddAgency)
        if wanted.kind not in services.catalogue.kinds():
            kinds = ", ".join(sorted(services.catalogue.kinds()))
            raise RequestInvalid(f"there is no agency kind {wanted.kind!r}; the catalogue has {kinds}")
        url = urlsplit(wanted.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.fragment:
            raise RequestInvalid("the URL must be http:// or https://, with a host and without a user or fragment")
        if url.scheme == "http" and not wanted.networks:
            raise RequestInvalid("http:// is only for networks that you name with --allow-network; use https://")
        try:
            parse_networks(wanted.networks)
        except ValueError:
            raise RequestInvalid("--allow-network takes networks such as 10.1.0.0/16") from None
        _check_file(wanted.ca_file)
        agency_id, secret = f"agency-{uuid.uuid4().hex[:12]}", new_secret()
        row = AgencyRow(
            id=agency_id,
            kind=wanted.kind,
            url=wanted.url,
            wrapped_secret=seal_at_rest(
                services.keyring.store_key, context("agency-secret", agency_id.encode()), secret.encode()
            ),
            networks=json.dumps(wanted.networks),
            ca_file=wanted.ca_file,
            added_at_ms=services.now_ms(),
        )
        lane = f"agency:{row.kind}"

        async def operation(tx: Transaction) -> int:
            await add_agency(tx, row)
            return await release_lane(tx, lane, services.now_ms() + _RELEASED_FOR_MS)

        released = await services.store.write(operation)
        await renew_card(services, self._dispatcher)
        services.log.info("agency added", agency=row.kind, agency_id=row.id)
        self._dispatcher.wake(lane)
        return json_response({**self._describe_agency(row), "secret": secret, "released": released}, 201)

    async def _test_agency(self, request: web.Request) -> web.Response:
        row = await self._services.store.read(lambda tx: agency(tx, request.match_info["id"]))
        try:
            status = await self._deliveries.test(row, f"evt_{uuid.uuid4().hex}")
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            return json_response({"id": row.id, "ok": False, "error": f"cannot be reached: {why_unreachable(error)}"})
        return json_response({"id": row.id, "ok": 200 <= status < 300, "status": status})

    async def _remove_agency(self, request: web.Request) -> web.Response:
        agency_id = request.match_info["id"]
        await self._services.store.write(lambda tx: remove_agency(tx, agency_id))
        await renew_card(self._services, self._dispatcher)
        return json_response({"id": agency_id, "removed": True})

    # Forms and messages

    async def _check_form(self, request: web.Request) -> web.Response:
        return json_response(describe_findings(findings_of(self._services, await request.read())))

    async def _send(self, request: web.Request) -> web.Response:
        sent = await send_form(self._services, await request.read(), request.match_info["area"])
        self._dispatcher.wake(f"peer:{sent['peer']}")
        return json_response(sent, 201)

    async def _status(self, request: web.Request) -> web.Response:
        wanted = request.query.get("wait")
        if wanted is not None and wanted not in LADDER:
            raise RequestInvalid(f"wait is one of {', '.join(LADDER)}")
        timeout_s = min(float(_number(request.query.get("timeout_s", "0"))), 60.0)
        found = await self._describe(request.match_info["id"])
        if wanted is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    while not _reached(found, wanted):
                        change = self._services.changes.next()
                        found = await self._describe(request.match_info["id"])
                        if not _reached(found, wanted):
                            await change.wait()
            except TimeoutError:
                pass
        return json_response({**found, "reached": wanted is None or _reached(found, wanted)})

    async def _describe(self, message_id: str) -> dict[str, Any]:
        return await describe_message(self._services, self._dispatcher, message_id)

    async def _timeline(self, request: web.Request) -> web.Response:
        message_id = request.match_info["id"]
        found = await self._describe(message_id)
        waiting = {"next_attempt_at": found["next_attempt_at"], "last_error": found["last_error"]}
        return json_response({**await timeline_document(self._services, message_id), **waiting})

    async def _receipts(self, request: web.Request) -> web.Response:
        return json_response(await receipts_document(self._services, request.match_info["id"]))

    async def _inbox(self, _: web.Request) -> web.Response:
        return json_response(await list_direction(self._services, INBOUND))

    async def _outbox(self, _: web.Request) -> web.Response:
        return json_response(await list_direction(self._services, OUTBOUND))

    async def _held(self, _: web.Request) -> web.Response:
        rows = await self._services.store.read(lambda tx: held(tx, 1000))
        items = [
            {
                "number": row.number,
                "lane": row.lane,
                "kind": row.kind,
                "id": row.message_id,
                "agency": row.agency,
                "since": moment(row.created_at_ms),
                "reason": row.reason,
            }
            for row in rows
        ]
        return json_response({"items": items})

    async def _release(self, request: web.Request) -> web.Response:
        number = _number(request.match_info["number"])
        deadline_ms = self._services.now_ms() + _RELEASED_FOR_MS
        lane = await self._services.store.write(lambda tx: release(tx, number, deadline_ms))
        self._dispatcher.heard_from(lane)
        self._dispatcher.wake(lane)
        return json_response({"number": number, "lane": lane, "released": True})

    async def _alarms(self, _: web.Request) -> web.Response:
        rows = await self._services.store.read(lambda tx: list_alarms(tx, 1000))
        items = [{"at": moment(row[0]), "kind": row[1], "origin": row[2], "detail": row[3]} for row in rows]
        return json_response({"items": items})

    async def _new_token(self, request: web.Request) -> web.Response:
        wanted = await _body(request, NewToken)
        token, token_id, now_ms = f"exch_{secrets.token_urlsafe(32)}", uuid.uuid4().hex[:12], self._services.now_ms()
        digest = hashlib.sha256(token.encode()).digest()
        expires_at_ms = now_ms + wanted.expires_in_days * _DAY_MS if wanted.expires_in_days else None
        await self._services.store.write(lambda tx: add_token(tx, token_id, wanted.name, digest, now_ms, expires_at_ms))
        return json_response({"id": token_id, "name": wanted.name, "token": token}, 201)


def _reached(found: dict[str, Any], rung: str) -> bool:
    return all_reached((item["rung"] for item in found["sections"]), rung)


def _number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise RequestInvalid("a whole number is needed") from None
    if not 0 <= value < 2**53:
        raise RequestInvalid("the number is out of range")
    return value


def _check_file(path: str | None) -> None:
    if path is not None and not Path(path).is_file():
        raise RequestInvalid("the CA file does not exist on the node's machine")


async def _body(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise RequestInvalid(f"the request does not fit: {str(error).split(' - at ')[-1]}") from None


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ExchangeError as error:
        return problem_of(error)
    except web.HTTPException as error:
        return problem(error.status, error.reason.lower().replace(" ", "-"), error.reason)
