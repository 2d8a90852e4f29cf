"""The local API for agencies' endpoints: how they stand, pause, secrets, settings, attempts, and sending again."""

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from exchange.handover.endpoint import Event
from exchange.node.agency_checks import check_endpoint, refuse_settings
from exchange.node.agency_keys import describe_keys
from exchange.node.config import RetryTable
from exchange.node.delivery import Dispatcher
from exchange.node.endpoints import Endpoints
from exchange.node.errors import RequestInvalid
from exchange.node.event_links import check_links
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.resending import resend
from exchange.node.services import Services, milliseconds, moment
from exchange.node.ways import folder_of
from exchange.node.webhook import secret_id
from exchange.store.agencies import AgencyRow, agency, all_agencies
from exchange.store.agency_keys import AgencyKeyRow, all_agency_keys
from exchange.store.attempts import AttemptRow, attempts_of
from exchange.store.endpoints import EndpointRow, all_endpoints, endpoint_of, keep_endpoint
from exchange.store.messages import message_by_id
from exchange.store.offers import FeedRow, all_feeds, feed_of
from exchange.store.transaction import Transaction

TimeoutText = Annotated[float, Meta(gt=0, le=300)]
_HOUR_MS = 3_600_000


class ChangeAgency(Request, frozen=True):
    """Change how an agency's endpoint is reached; null is what the configuration says, an empty proxy is none."""

    timeout_s: TimeoutText | UnsetType | None = UNSET
    retry_s: RetryTable | UnsetType | None = UNSET
    certificate: str | UnsetType | None = UNSET
    proxy: str | UnsetType | None = UNSET
    #: Whether events have a one-time link by which to take the section on.
    links: bool | UnsetType = UNSET


class RotateSecret(Request, frozen=True):
    """Make a new webhook secret; the old one signs too for so long, and until the agency has proven the new one."""

    overlap_hours: Annotated[float, Meta(ge=0, le=720)] = 24


class ConfirmSecret(Request, frozen=True):
    """Say, for the agency, by which secret it verifies."""

    secret_id: Annotated[str, Meta(pattern=r"^whid_[0-9a-f]{16}\Z")]


class PauseAgency(Request, frozen=True):
    """Hold what is for an agency; the reason is shown with it."""

    reason: Annotated[str, Meta(max_length=100, pattern=r"^[ -~]*\Z")] = ""


class ReplayAgency(Request, frozen=True):
    """Send again what an agency accepted since a time, or of one message; with `dry_run`, only count it."""

    since: Annotated[datetime, Meta(tz=True)] | None = None
    message_id: str | None = None
    dry_run: bool = False


def describe_agency(
    row: AgencyRow,
    endpoint: EndpointRow,
    keys: Iterable[AgencyKeyRow],
    dispatcher: Dispatcher,
    endpoints: Endpoints,
    public_key: str,
    feed: FeedRow | None = None,
) -> dict[str, Any]:
    """An agency, how its endpoint stands, which key of its own it has, and how its lane is doing; `feed` where it
    fetches."""
    state = dispatcher.state(f"agency:{row.name}")
    names = [secret_id(secret) for secret in endpoints.secrets(row, endpoint)]
    return {
        "id": row.id,
        "kind": row.kind,
        "name": row.name,
        "way": endpoint.way,
        "url": row.url or None,
        "folder": folder_of(endpoint).directory if endpoint.folder else None,
        "asked_at": None if feed is None else _moment(feed.asked_at_ms),
        "networks": json.loads(row.networks),
        "failures": state.failures,
        "last_error": state.last_error,
        **describe_keys(keys, row.id),
        "state": endpoint.state,
        "reason": endpoint.reason,
        "since": moment(endpoint.since_ms),
        "breaker": "open" if state.is_open else "closed",
        "failing_since": moment(state.since_ms) if state.failures and state.since_ms else None,
        "public_key": public_key,
        "secret_id": names[0] if names else None,
        "old_secret_id": names[1] if len(names) > 1 else None,
        "rotation": endpoint.stage,
        "overlap_until": _moment(endpoint.overlap_until_ms),
        "proven_at": _moment(endpoint.proven_at_ms),
        "timeout_s": endpoint.timeout_ms / 1000 if endpoint.timeout_ms is not None else None,
        "retry_s": json.loads(endpoint.retry_s) if endpoint.retry_s is not None else None,
        "certificate": endpoint.certificate,
        "proxy": endpoint.proxy,
        "rate_per_minute": endpoint.rate_per_minute,
        "links": bool(endpoint.links),
    }


def _moment(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else moment(at_ms)


class AgenciesApi:
    """The handlers."""

    def __init__(self, services: Services, dispatcher: Dispatcher, endpoints: Endpoints) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._endpoints = endpoints

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/v1/agencies", self._list),
            web.get("/v1/agencies/{id}", self._show),
            web.post("/v1/agencies/{id}/pause", self._pause),
            web.post("/v1/agencies/{id}/resume", self._changing(Event.RESUME)),
            web.post("/v1/agencies/{id}/enable", self._changing(Event.ENABLE)),
            web.post("/v1/agencies/{id}/settings", self._settings),
            web.post("/v1/agencies/{id}/secret", self._rotate),
            web.post("/v1/agencies/{id}/secret/confirm", self._confirm),
            web.post("/v1/agencies/{id}/replay", self._replay),
            web.get("/v1/messages/{id}/attempts", self._attempts),
        ]

    async def _list(self, _: web.Request) -> web.Response:
        async def view(
            tx: Transaction,
        ) -> tuple[list[AgencyRow], dict[str, EndpointRow], list[AgencyKeyRow], dict[str, FeedRow]]:
            return await all_agencies(tx), await all_endpoints(tx), await all_agency_keys(tx), await all_feeds(tx)

        rows, endpoints, keys, feeds = await self._services.store.read(view)
        public = (await self._endpoints.key()).public
        items = [self._describe(row, endpoints[row.id], keys, public, feeds.get(row.id)) for row in rows]
        return json_response({"items": items})

    async def _show(self, request: web.Request) -> web.Response:
        return await self._shown(request.match_info["id"])

    async def _shown(self, agency_id: str, **more: object) -> web.Response:
        async def view(tx: Transaction) -> tuple[AgencyRow, EndpointRow, list[AgencyKeyRow], FeedRow | None]:
            row, endpoint = await agency(tx, agency_id), await endpoint_of(tx, agency_id)
            return row, endpoint, await all_agency_keys(tx), await feed_of(tx, agency_id)

        row, endpoint, keys, feed = await self._services.store.read(view)
        public = (await self._endpoints.key()).public
        return json_response({**self._describe(row, endpoint, keys, public, feed), **more})

    def _describe(
        self, row: AgencyRow, endpoint: EndpointRow, keys: Iterable[AgencyKeyRow], public: str, feed: FeedRow | None
    ) -> dict[str, Any]:
        return describe_agency(row, endpoint, keys, self._dispatcher, self._endpoints, public, feed)

    async def _pause(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, PauseAgency) if await request.read() else PauseAgency()
        _, held = await self._endpoints.change(request.match_info["id"], Event.PAUSE, wanted.reason or None)
        return await self._shown(request.match_info["id"], held=held)

    def _changing(self, event: Event) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def change(request: web.Request) -> web.Response:
            _, released = await self._endpoints.change(request.match_info["id"], event)
            return await self._shown(request.match_info["id"], released=released)

        return change

    async def _settings(self, request: web.Request) -> web.Response:
        agency_id, wanted = request.match_info["id"], await body_of(request, ChangeAgency)
        row = await self._services.store.read(lambda tx: agency(tx, agency_id))
        way = (await self._services.store.read(lambda tx: endpoint_of(tx, agency_id))).way
        given = {name: getattr(wanted, name) for name in ("timeout_s", "certificate", "proxy")}
        refuse_settings(way, {name: value for name, value in given.items() if value is not UNSET})
        check_endpoint(wanted.certificate or None, wanted.proxy or None, row.url)
        changes: dict[str, Any] = {}
        if wanted.timeout_s is not UNSET:
            changes["timeout_ms"] = None if wanted.timeout_s is None else round(wanted.timeout_s * 1000)
        if wanted.retry_s is not UNSET:
            changes["retry_s"] = None if wanted.retry_s is None else json.dumps(wanted.retry_s)
        if wanted.certificate is not UNSET:
            changes["certificate"] = wanted.certificate or None
        if wanted.proxy is not UNSET:
            changes["proxy"] = wanted.proxy
        if wanted.links is not UNSET:
            check_links(self._services, wanted.links)
            changes["links"] = int(wanted.links)

        async def operation(tx: Transaction) -> None:
            await keep_endpoint(tx, replace(await endpoint_of(tx, agency_id), **changes))

        await self._services.store.write(operation)
        return await self._shown(agency_id)

    async def _rotate(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, RotateSecret)
        agency_id = request.match_info["id"]
        secret = await self._endpoints.rotate(agency_id, round(wanted.overlap_hours * _HOUR_MS))
        return await self._shown(agency_id, secret=secret)

    async def _confirm(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, ConfirmSecret)
        await self._endpoints.named(request.match_info["id"], wanted.secret_id)
        return await self._shown(request.match_info["id"])

    async def _replay(self, request: web.Request) -> web.Response:
        services, wanted = self._services, await body_of(request, ReplayAgency)
        if (wanted.since is None) == (wanted.message_id is None):
            raise RequestInvalid("give either `since` or `message_id`")
        row = await services.store.read(lambda tx: agency(tx, request.match_info["id"]))
        since_ms = None if wanted.since is None else milliseconds(wanted.since)
        resent = await resend(services, row, since_ms=since_ms, message_id=wanted.message_id, dry_run=wanted.dry_run)
        if not wanted.dry_run:
            self._dispatcher.wake(f"agency:{row.name}")
        return json_response({"id": row.id, "dry_run": wanted.dry_run, **asdict(resent)})

    async def _attempts(self, request: web.Request) -> web.Response:
        message_id = request.match_info["id"]

        async def view(tx: Transaction) -> list[AttemptRow]:
            return await attempts_of(tx, (await message_by_id(tx, message_id)).number)

        rows = await self._services.store.read(view)
        return json_response({"id": message_id, "items": [_describe_attempt(row) for row in rows]})


def _describe_attempt(row: AttemptRow) -> dict[str, Any]:
    return {
        "at": moment(row.at_ms),
        "delivery": row.delivery,
        "agency": row.agency,
        "section": row.section,
        "replay": bool(row.replay),
        "accepted": bool(row.accepted),
        "duration_ms": row.duration_ms,
        "status": row.status,
        "error": row.error,
        "content_type": row.content_type,
        "size_bytes": row.size_bytes,
        "digest": row.digest,
        "code": row.code,
    }
