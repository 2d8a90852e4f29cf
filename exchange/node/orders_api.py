"""The local API for orders: recall and erase what was sent, list orders, and confirm one for an agency."""

from collections.abc import Callable
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta

from exchange import crash_points
from exchange.handover.holding import By
from exchange.node.errors import RequestInvalid
from exchange.node.ordering import order_sections
from exchange.node.orders_confirmed import confirm_section
from exchange.node.orders_shown import list_orders
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.section_words import section_of
from exchange.node.sections_here import Speaker
from exchange.node.services import Services
from exchange.schema.agency_names import AgencyName
from exchange.schema.wire import AgencyStatement, OrderKind, OrderReason, SectionText


class GiveOrder(Request, frozen=True, kw_only=True):
    """Recall or erase sections of a message, or all of it."""

    reason: OrderReason
    sections: Annotated[tuple[SectionText, ...], Meta(max_length=256)] = ()


class ConfirmFor(Request, frozen=True, kw_only=True):
    """Confirm for an agency that it has a section no more."""

    agency: AgencyName


class ConfirmSection(Request, frozen=True, kw_only=True):
    """Confirm that the agency has a section no more; signed where it has keys of its own."""

    acknowledgement: AgencyStatement | None = None


class OrdersApi:
    """The handlers."""

    def __init__(self, services: Services, wake: Callable[[str], None], destroyed: Callable[[], None]) -> None:
        self._services = services
        self._wake = wake
        self._destroyed = destroyed

    def routes(self) -> list[web.RouteDef]:
        """What this serves."""
        return [
            web.post("/v1/messages/{id}/recall", self._recall),
            web.post("/v1/messages/{id}/erase", self._erase),
            web.get("/v1/orders", self._list),
            web.post("/v1/sections/{id:.+}/confirm", self._confirm),
        ]

    async def _recall(self, request: web.Request) -> web.Response:
        return await self._order(request, OrderKind.RECALL)

    async def _erase(self, request: web.Request) -> web.Response:
        return await self._order(request, OrderKind.ERASE)

    async def _order(self, request: web.Request, kind: OrderKind) -> web.Response:
        wanted = await body_of(request, GiveOrder)
        message_id, who = request.match_info["id"], who_asks(request)
        ordered = await order_sections(self._services, message_id, kind, wanted.reason, wanted.sections, who)
        crash_points.reached("order.before-answer")
        if ordered.lane is not None:
            self._wake(ordered.lane)
        self._destroyed()
        return json_response(ordered.document, 200 if ordered.document["repeated"] else 201)

    async def _list(self, request: web.Request) -> web.Response:
        unconfirmed = request.query.get("unconfirmed", "false")
        if unconfirmed not in ("true", "false"):
            raise RequestInvalid("unconfirmed is true or false")
        return json_response(await list_orders(self._services, unconfirmed=unconfirmed == "true"))

    async def _confirm(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, ConfirmFor)
        speaker = Speaker(wanted.agency, By.BOROUGH, who_asks(request))
        return json_response(await self.confirm(speaker, request, None))

    async def confirm(self, speaker: Speaker, request: web.Request, signed: AgencyStatement | None) -> dict[str, Any]:
        """Take a confirmation of whoever has been authenticated before."""
        message_id, section = section_of(request)
        document, lanes = await confirm_section(self._services, speaker, message_id, section, signed)
        for lane in lanes:
            self._wake(lane)
        return document
