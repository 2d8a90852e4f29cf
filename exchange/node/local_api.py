"""The local API: what the command line and a borough's own programs ask of their node.

On the Unix socket whoever may open the socket may ask; on TCP a bearer token is needed.
`browsers` says what a browser may.
"""

import asyncio
import dataclasses
import hashlib
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from exchange import crash_points
from exchange.crypto.errors import NameInvalid
from exchange.crypto.names import parse_message_id
from exchange.errors import ExchangeError
from exchange.handover.endpoint import State
from exchange.handover.rungs import LADDER, all_reached
from exchange.node.agencies_api import TimeoutText, describe_agency
from exchange.node.agency_checks import check_way
from exchange.node.agency_client import Handshake
from exchange.node.agency_delivery import AgencyDeliveries
from exchange.node.agency_keys import challenge_of, check_unused, claimed_key
from exchange.node.agency_tokens import new_token
from exchange.node.browsers import basic_password, guarded, is_page
from exchange.node.card_refresh import CardRefresh
from exchange.node.cards import describe_card, own_card_file, verify_card
from exchange.node.config import RetryTable
from exchange.node.delivery import Dispatcher
from exchange.node.endpoints import Endpoints, wrap_secret
from exchange.node.epochs import renew_card
from exchange.node.errors import HandshakeRefused, RequestInvalid
from exchange.node.event_links import check_links
from exchange.node.gate import describe_gate
from exchange.node.gate_api import sender_of
from exchange.node.key_status import describe_node_backup
from exchange.node.local_bounds import bounded
from exchange.node.peering import RELEASED_FOR_MS
from exchange.node.peers_api import PeersApi
from exchange.node.problems import json_response, problem, problem_of
from exchange.node.reading import describe_message, list_direction, receipts_document, timeline_document
from exchange.node.requests import WHO, Request, body_of
from exchange.node.sending import describe_findings, findings_of, send_form
from exchange.node.services import Services, moment
from exchange.node.wall import Wall
from exchange.node.ways import PULL, WEBHOOK, Folder
from exchange.node.webhook import new_secret
from exchange.schema.agency_keys import AgencyKeyFile
from exchange.schema.agency_names import LabelText
from exchange.schema.form import MAX_FORM_BYTES
from exchange.schema.wire import KindText
from exchange.store.agencies import (
    AgencyRow,
    add_agency,
    add_token,
    agency,
    remove_agency,
    token_name,
)
from exchange.store.agency_keys import add_pending_key, end_keys
from exchange.store.agency_tokens import add_agency_token
from exchange.store.endpoints import EndpointRow, add_endpoint
from exchange.store.messages import INBOUND, OUTBOUND, list_alarms
from exchange.store.offers import add_feed, withdraw_all
from exchange.store.outbox import backlog, bring_forward, held, release, release_lane
from exchange.store.replicas import ReplicaRow, all_replicas
from exchange.store.transaction import Transaction

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DAY_MS = 86_400_000

#: Of a request.
MOST_BYTES: Final = 2 * MAX_FORM_BYTES


class AddAgency(Request, frozen=True):
    """Register an agency: at the `url` of its webhook, as one that fetches (`pull`), or with a `folder`."""

    kind: KindText
    url: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    pull: bool = False
    folder: Folder | None = None
    #: How long the token of an agency that fetches is good.
    token_days: Annotated[int, Meta(ge=1, le=3650)] | None = None
    #: What tells it from others of its kind.
    label: LabelText | None = None
    networks: Annotated[tuple[str, ...], Meta(max_length=20)] = ()
    ca_file: str | None = None
    timeout_s: TimeoutText | None = None
    retry_s: RetryTable | None = None
    certificate: str | None = None
    proxy: str | None = None
    #: Whether the endpoint is asked first if it wants webhooks of this node.
    handshake: bool = True
    key: AgencyKeyFile | None = None
    #: Whether its events have a one-time link by which to take the section on.
    links: bool = False


class NewToken(Request, frozen=True):
    """Make a bearer token for the local API on TCP."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class LocalApi:
    """The handlers of the local API."""

    def __init__(
        self,
        services: Services,
        dispatcher: Dispatcher,
        peers: PeersApi,
        deliveries: AgencyDeliveries,
        endpoints: Endpoints,
        cards: CardRefresh,
        wall: Wall,
        more: Sequence[web.RouteDef] = (),
    ) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._peers = peers
        self._deliveries = deliveries
        self._endpoints = endpoints
        self._cards = cards
        self._wall = wall
        self._more = more

    def application(self, *, needs_token: bool) -> web.Application:
        """The aiohttp application."""
        bound = bounded(self._services.configuration.tables.limits.local_requests_at_once)
        middlewares = [told, guarded(any_host=needs_token), bound, *([self._token] if needs_token else [])]
        application = web.Application(client_max_size=MOST_BYTES, middlewares=middlewares)
        application.add_routes(
            [
                *self._peers.routes(),
                *self._more,
                web.get("/v1/health", self._health),
                web.get("/v1/card", self._card),
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
        header, page = request.headers.get("authorization", ""), is_page(request.path)
        scheme, _, token = header.partition(" ")
        if page and (password := basic_password(header)) is not None:
            scheme, token = "bearer", password
        # A header may hold any bytes, and all that is not a token is refused alike.
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        now_ms = self._services.now_ms()
        name = await self._services.store.read(lambda tx: token_name(tx, digest, now_ms))
        if scheme.lower() != "bearer" or name is None:
            refusal = problem(
                401, "token-needed", "a valid bearer token is needed", "Make one with `exchange token new`."
            )
            if page:
                refusal.headers["www-authenticate"] = 'Basic realm="exchange: a token as the password", charset="UTF-8"'
            return refusal
        request[WHO] = name
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        services = self._services
        rows, replicas, gate = await services.store.read(lambda tx: _state(tx, services))
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
                "protection": services.protection,
                "tls": self._wall.describe(),
                "replicas": [
                    {
                        "name": row.name,
                        "started_at": moment(row.started_at_ms),
                        "seen_at": moment(row.seen_at_ms),
                        "answers": row.id == services.store.replica,
                    }
                    for row in replicas
                ],
                "limits": services.admission.describe(services.now_ms()),
                "backup": describe_node_backup(services),
                "gate": gate,
            }
        )

    async def _card(self, _: web.Request) -> web.Response:
        file = await own_card_file(self._services)
        verified = verify_card(file.statement, file.proof, self._services.checkpoints)
        return json_response({**describe_card(verified), "card": file})

    # Agencies

    async def _add_agency(self, request: web.Request) -> web.Response:
        services = self._services
        wanted = await body_of(request, AddAgency)
        if wanted.kind not in services.catalogue.kinds():
            kinds = ", ".join(sorted(services.catalogue.kinds()))
            raise RequestInvalid(f"there is no agency kind {wanted.kind!r}; the catalogue has {kinds}")
        way = await asyncio.to_thread(check_way, wanted, services.configuration)
        check_links(services, wanted.links)
        agency_id, secret = f"agency-{uuid.uuid4().hex[:12]}", new_secret() if way == WEBHOOK else None
        row = AgencyRow(
            id=agency_id,
            name=wanted.kind if wanted.label is None else f"{wanted.kind}/{wanted.label}",
            url=wanted.url or "",
            wrapped_secret=b"" if secret is None else wrap_secret(services, agency_id, secret),
            networks=json.dumps(wanted.networks),
            ca_file=wanted.ca_file,
            added_at_ms=services.now_ms(),
        )
        endpoint = EndpointRow(
            agency=agency_id,
            state=State.ACTIVE.value,
            reason=None,
            since_ms=row.added_at_ms,
            timeout_ms=None if wanted.timeout_s is None else round(wanted.timeout_s * 1000),
            retry_s=None if wanted.retry_s is None else json.dumps(wanted.retry_s),
            certificate=wanted.certificate,
            proxy=wanted.proxy,
            links=int(wanted.links),
            way=way,
            folder=None if wanted.folder is None else msgspec.json.encode(wanted.folder).decode(),
        )
        handshake = Handshake("skipped")
        if wanted.handshake and way == WEBHOOK:
            handshake = await self._deliveries.handshake(row, endpoint)
            endpoint = dataclasses.replace(endpoint, rate_per_minute=handshake.rate_per_minute)
        if handshake.state == "refused":
            raise HandshakeRefused(f"the endpoint does not want webhooks of this node: {handshake.why}")
        lanes = (f"agency:{row.name}", f"route:{row.kind}")
        claimed = claimed_key(services, row, wanted.key, holds=True) if wanted.key is not None else None

        token, made = new_token(agency_id, row.added_at_ms, wanted.token_days)

        async def operation(tx: Transaction) -> int:
            await add_agency(tx, row)
            await add_endpoint(tx, endpoint)
            if way == PULL:
                await add_feed(tx, agency_id)
                await add_agency_token(tx, made)
            if claimed is not None:
                await check_unused(tx, claimed)
                await add_pending_key(tx, claimed)
                return 0  # what is held waits on, until the key is proven
            until_ms = services.now_ms() + RELEASED_FOR_MS
            return sum([await release_lane(tx, lane, until_ms) for lane in lanes])

        released = await services.store.write(operation, long=True)
        await renew_card(services, self._dispatcher)
        services.log.info("agency added", agency=row.name, agency_id=row.id)
        for lane in lanes:
            self._dispatcher.wake(lane)
        public_key, keys = (await self._endpoints.key()).public, [] if claimed is None else [claimed]
        described = describe_agency(row, endpoint, keys, self._dispatcher, self._endpoints, public_key)
        more = {
            "secret": secret,
            "token": token if way == PULL else None,
            "asks_at": services.configuration.tables.agencies.url or None if way == PULL else None,
            "released": released,
            "handshake": {"state": handshake.state, "why": handshake.why},
            "challenge": challenge_of(services, claimed) if claimed is not None else None,
        }
        return json_response({**described, **more}, 201)

    async def _test_agency(self, request: web.Request) -> web.Response:
        row = await self._services.store.read(lambda tx: agency(tx, request.match_info["id"]))
        answer = await self._deliveries.test(row, f"evt_{uuid.uuid4().hex}")
        if answer.accepted:
            lane = f"agency:{row.name}"
            await self._services.store.write(lambda tx: bring_forward(tx, lane))
            self._dispatcher.heard_from(lane)
            self._dispatcher.wake(lane)
        document = {"id": row.id, "ok": answer.accepted, "duration_ms": answer.duration_ms}
        if answer.named_secret is not None:
            document["secret_id"] = answer.named_secret
        if answer.status is None and answer.accepted:
            return json_response(document)  # a file was put into a folder
        if answer.status is None:
            return json_response({**document, "error": (answer.error or "").removeprefix(f"agency {row.name} ")})
        return json_response({**document, "status": answer.status})

    async def _remove_agency(self, request: web.Request) -> web.Response:
        agency_id = request.match_info["id"]
        now_ms = self._services.now_ms()

        async def operation(tx: Transaction) -> tuple[str, str]:
            row = await agency(tx, agency_id)
            await withdraw_all(tx, agency_id)
            await remove_agency(tx, agency_id)
            await end_keys(tx, agency_id, now_ms)
            # Another may have what it has not accepted, or what nobody could tell whose it was; else it is held.
            lanes = (f"agency:{row.name}", f"route:{row.kind}")
            await bring_forward(tx, lanes[0])
            for lane in lanes:
                await release_lane(tx, lane, now_ms + RELEASED_FOR_MS)
            return lanes

        lanes = await self._services.store.write(operation, long=True)
        await renew_card(self._services, self._dispatcher)
        for lane in lanes:
            self._dispatcher.wake(lane)
        return json_response({"id": agency_id, "removed": True})

    # Forms and messages

    async def _check_form(self, request: web.Request) -> web.Response:
        return json_response(describe_findings(findings_of(self._services, await request.read())))

    async def _send(self, request: web.Request) -> web.Response:
        area = request.match_info["area"]
        key = request.headers.get("idempotency-key")
        try:
            message_id = parse_message_id(key) if key is not None else None
        except NameInvalid:
            raise RequestInvalid("Idempotency-Key becomes the message's id: a UUID, in lower case") from None
        sent = await send_form(
            self._services, await request.read(), area, self._cards.has_current_key, sender_of(request), message_id
        )
        crash_points.reached("send.before-answer")
        self._dispatcher.wake(f"peer:{sent['peer']}", urgent=sent["urgent"])
        return json_response(sent, 200 if sent["repeated"] else 201)

    async def _status(self, request: web.Request) -> web.Response:
        wanted = request.query.get("wait")
        if wanted is not None and wanted not in LADDER:
            raise RequestInvalid(f"wait is one of {', '.join(LADDER)}")
        timeout_s = min(float(_number(request.query.get("timeout_s", "0"))), 60.0)
        change = self._services.changes.next()
        found = await self._describe(request.match_info["id"])
        if wanted is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    while not _reached(found, wanted):
                        await change.wait()
                        change = self._services.changes.next()
                        found = await self._describe(request.match_info["id"])
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
        deadline_ms = self._services.now_ms() + RELEASED_FOR_MS
        lane = await self._services.store.write(lambda tx: release(tx, number, deadline_ms))
        self._dispatcher.heard_from(lane)
        self._dispatcher.wake(lane)
        return json_response({"number": number, "lane": lane, "released": True})

    async def _alarms(self, _: web.Request) -> web.Response:
        rows = await self._services.store.read(lambda tx: list_alarms(tx, 1000))
        items = [{"at": moment(row[0]), "kind": row[1], "origin": row[2], "detail": row[3]} for row in rows]
        return json_response({"items": items})

    async def _new_token(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, NewToken)
        token, token_id, now_ms = f"exch_{secrets.token_urlsafe(32)}", uuid.uuid4().hex[:12], self._services.now_ms()
        digest = hashlib.sha256(token.encode()).digest()
        expires_at_ms = now_ms + wanted.expires_in_days * _DAY_MS if wanted.expires_in_days else None
        await self._services.store.write(lambda tx: add_token(tx, token_id, wanted.name, digest, now_ms, expires_at_ms))
        return json_response({"id": token_id, "name": wanted.name, "token": token}, 201)


async def _state(
    tx: Transaction, services: Services
) -> tuple[list[tuple[str, str, int]], list[ReplicaRow], dict[str, Any]]:
    return await backlog(tx), await all_replicas(tx), await describe_gate(tx, services)


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


@web.middleware
async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever goes wrong with a problem document, which repeats nothing of the request."""
    if "\0" in request.path:
        return problem(404, "not-found", "nothing is there: no name holds a NUL")
    try:
        return await handler(request)
    except ExchangeError as error:
        return problem_of(error)
    except web.HTTPRequestEntityTooLarge:
        # Python's words for this status change with its version; the code must not.
        return problem(413, "too-large", "the request is too large")
    except web.HTTPException as error:
        return problem(error.status, error.reason.lower().replace(" ", "-"), error.reason)
    except (web.RequestPayloadError, ConnectionError):
        return problem(400, "incomplete", "the request ended before its end")
    except Exception as error:  # noqa: BLE001 - the root of a request: an error's text may hold what was sent
        structlog.get_logger().error("request failed", error=type(error).__name__)
        return problem(500, "internal", "internal error", "The node's log names the kind of error.")
