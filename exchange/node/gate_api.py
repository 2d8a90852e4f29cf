"""The local API for the gate: sharing agreements, approvals, overrides, and what the gate would say of a form."""

import json
import urllib.parse
import uuid
from datetime import date
from typing import Annotated, Any, Final

from aiohttp import web
from msgspec import Meta

from exchange.handover.agreement import OTHERS
from exchange.node.approvals import approve, list_approvals, list_overrides, refuse, show_approval
from exchange.node.delivery import Dispatcher
from exchange.node.errors import RequestInvalid
from exchange.node.gate import Gatekeeper, agreement_of
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.sending import Sender, preview_form
from exchange.node.services import Services, moment
from exchange.schema.legal import Gateway, Regime
from exchange.schema.vocabulary import AreaCode, Line, Text
from exchange.schema.wire import KindText
from exchange.store.agreements import AgreementRow, add_agreement, agreement_by_id, all_agreements, end_agreement
from exchange.store.transaction import Transaction

#: The header with the reason for an override, percent-encoded: as text it may hold any sign.
OVERRIDE: Final = "Override-Reason"
MOST_OVERRIDE: Final = 2000


class StatedFor(Request, frozen=True):
    """The legal basis for a kind of agency; for all others where none is named."""

    regime: Regime
    gateway: Gateway
    agency: KindText | None = None


class AddAgreement(Request, frozen=True):
    """Put a sharing agreement on file; without kinds it is for every kind of agency."""

    area: AreaCode
    title: Line
    reference: Line
    starts_on: date
    ends_on: date
    bases: Annotated[tuple[StatedFor, ...], Meta(min_length=1, max_length=64)]
    kinds: Annotated[tuple[KindText, ...], Meta(max_length=64)] = ()
    review_on: date | None = None
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None


class ExpireAgreement(Request, frozen=True):
    """End a sharing agreement before its last day."""

    reason: Line


class ApproveForm(Request, frozen=True):
    """Approve a form; with the hash of its file, that form and no other."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None


class RefuseForm(Request, frozen=True):
    """Refuse a form."""

    reason: Text


def sender_of(request: web.Request) -> Sender:
    """Who sends a form, and the reason that they give for an override.

    Raises:
        RequestInvalid: the reason cannot be read.
    """
    given = request.headers.get(OVERRIDE)
    if given is None:
        return Sender(who_asks(request))
    try:
        reason = urllib.parse.unquote(given, errors="strict")
        reason.encode()
    except UnicodeError:
        raise RequestInvalid(f"{OVERRIDE} is text in UTF-8, percent-encoded") from None
    if not reason.strip() or len(reason) > MOST_OVERRIDE:
        raise RequestInvalid(f"{OVERRIDE} is not empty, and {MOST_OVERRIDE} characters long at most")
    return Sender(who_asks(request), reason)


def describe_agreement(row: AgreementRow, today: date) -> dict[str, Any]:
    """An agreement, and how it stands on a day."""
    agreement = agreement_of(row)
    return {
        "id": row.id,
        "area": row.area,
        "kinds": json.loads(row.kinds),
        "bases": [
            {"agency": kind or None, "regime": regime, "gateway": gateway}
            for kind, (regime, gateway) in json.loads(row.bases).items()
        ],
        "title": row.title,
        "reference": row.reference,
        "starts_on": row.starts_on,
        "ends_on": row.ends_on,
        "review_on": row.review_on,
        "review_due": row.review_on is not None and date.fromisoformat(row.review_on) <= today,
        "sha256": row.sha256,
        "state": agreement.standing(today).value,
        "added_by": row.added_by,
        "added_at": moment(row.added_at_ms),
        "ended_by": row.ended_by,
        "ended_at": None if row.ended_at_ms is None else moment(row.ended_at_ms),
        "ended_reason": row.ended_reason,
    }


class GateApi:
    """The handlers."""

    def __init__(self, services: Services, dispatcher: Dispatcher, gatekeeper: Gatekeeper) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._gatekeeper = gatekeeper

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/v1/agreements", self._agreements),
            web.post("/v1/agreements", self._add),
            web.get("/v1/agreements/{id}", self._agreement),
            web.post("/v1/agreements/{id}/expire", self._expire),
            web.post("/v1/forms/preview/{area}", self._preview),
            web.get("/v1/approvals", self._approvals),
            web.get("/v1/approvals/{id}", self._approval),
            web.post("/v1/approvals/{id}/approve", self._approve),
            web.post("/v1/approvals/{id}/refuse", self._refuse),
            web.get("/v1/overrides", self._overrides),
        ]

    async def _agreements(self, _: web.Request) -> web.Response:
        rows, today = await self._services.store.read(all_agreements), self._services.now().date()
        return json_response({"items": [describe_agreement(row, today) for row in rows]})

    async def _agreement(self, request: web.Request) -> web.Response:
        row = await self._services.store.read(lambda tx: agreement_by_id(tx, request.match_info["id"]))
        return json_response(describe_agreement(row, self._services.now().date()))

    async def _add(self, request: web.Request) -> web.Response:
        services, wanted = self._services, await body_of(request, AddAgreement)
        today = services.now().date()
        _check(wanted, services.catalogue.kinds(), today)
        bases = {one.agency or OTHERS: (one.regime.value, one.gateway.value) for one in wanted.bases}
        row = AgreementRow(
            id=f"agreement-{uuid.uuid4().hex[:12]}",
            area=wanted.area,
            kinds=json.dumps(sorted(set(wanted.kinds))),
            bases=json.dumps(bases),
            title=wanted.title,
            reference=wanted.reference,
            starts_on=wanted.starts_on.isoformat(),
            ends_on=wanted.ends_on.isoformat(),
            review_on=wanted.review_on.isoformat() if wanted.review_on else None,
            sha256=wanted.sha256,
            added_by=who_asks(request),
            added_at_ms=services.now_ms(),
        )
        await services.store.write(lambda tx: add_agreement(tx, row))
        services.counters.add("agreements_added")
        services.log.info("agreement added", area=row.area)
        self._gatekeeper.soon()
        return json_response(describe_agreement(row, today), 201)

    async def _expire(self, request: web.Request) -> web.Response:
        services, wanted, agreement_id = (
            self._services,
            await body_of(request, ExpireAgreement),
            request.match_info["id"],
        )
        by, now_ms = who_asks(request), services.now_ms()

        async def operation(tx: Transaction) -> AgreementRow:
            return await end_agreement(tx, agreement_id, by, wanted.reason, now_ms)

        row = await services.store.write(operation)
        services.log.info("agreement ended", area=row.area)
        return json_response(describe_agreement(row, services.now().date()))

    async def _preview(self, request: web.Request) -> web.Response:
        sender = sender_of(request)
        area = request.match_info["area"]
        return json_response(await preview_form(self._services, await request.read(), area, sender))

    async def _approvals(self, _: web.Request) -> web.Response:
        return json_response(await list_approvals(self._services))

    async def _approval(self, request: web.Request) -> web.Response:
        return json_response(await show_approval(self._services, request.match_info["id"]))

    async def _approve(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, ApproveForm)
        message_id, who = request.match_info["id"], who_asks(request)
        lane, document = await approve(self._services, message_id, who, wanted.sha256)
        self._dispatcher.wake(lane, urgent=True)
        return json_response(document)

    async def _refuse(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, RefuseForm)
        return json_response(await refuse(self._services, request.match_info["id"], who_asks(request), wanted.reason))

    async def _overrides(self, _: web.Request) -> web.Response:
        return json_response(await list_overrides(self._services))


def _check(wanted: AddAgreement, kinds: frozenset[str], today: date) -> None:
    """Check what no field can see by itself.

    Raises:
        RequestInvalid: something contradicts something else.
    """
    named = [one.agency for one in wanted.bases]
    strange = sorted({kind for kind in (*wanted.kinds, *named) if kind is not None} - kinds)
    for is_wrong, message in (
        (bool(strange), f"there is no agency kind {', '.join(strange)}; the catalogue has {', '.join(sorted(kinds))}"),
        (len(set(named)) != len(named), "two legal bases are for the same agency kind"),
        (
            bool(wanted.kinds) and not {kind for kind in named if kind is not None} <= set(wanted.kinds),
            "a legal basis is for an agency kind that the agreement does not cover",
        ),
        (wanted.ends_on < wanted.starts_on, "the agreement ends before it begins"),
        (wanted.ends_on < today, "the agreement has ended already"),
        (
            wanted.review_on is not None and not wanted.starts_on <= wanted.review_on <= wanted.ends_on,
            "the review is not between the first day and the last",
        ),
    ):
        if is_wrong:
            raise RequestInvalid(f"{message}; nothing was kept")
