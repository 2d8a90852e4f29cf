"""What agencies ask of the node on their listener: who they are to it, and for those that fetch, their sections."""

import asyncio
from collections import Counter
from typing import Final

import msgspec
from aiohttp import web

from exchange.node.agency_listener import ASKING
from exchange.node.errors import RequestInvalid, TooManyRequests
from exchange.node.problems import json_response
from exchange.node.pulling import MOST_ITEMS, Cursor, Page, Pulling
from exchange.node.services import Services, moment

_MOST_WAIT_S: Final = 60
#: Requests of one agency that wait or are being answered.
_MOST_AT_ONCE: Final = 4
#: For a whole answer: who reads more slowly asks for less.
_WRITE_S: Final = 60.0


class AgencyApi:
    """The handlers."""

    def __init__(self, services: Services, pulling: Pulling) -> None:
        self._services = services
        self._pulling = pulling
        self._under_way: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """For agencies, by their tokens."""
        return [
            web.get("/v1/agency", self._who),
            web.get("/v1/agency/sections", self._sections, allow_head=False),
            web.post("/v1/agency/sections/{id}/delivered", self._delivered),
            web.post("/v1/agency/sections/{id}/refused", self._refused),
        ]

    def open_routes(self) -> list[web.RouteDef]:
        """For everybody."""
        return [web.get("/v1/health", self._health)]

    async def _who(self, request: web.Request) -> web.Response:
        asking, node = request[ASKING], self._services.configuration.tables.node
        expires_at_ms = asking.token.expires_at_ms
        return json_response(
            {
                "id": asking.agency.id,
                "kind": asking.agency.kind,
                "origin": node.origin,
                "area": node.area,
                "token_id": asking.token.id,
                "expires_at": None if expires_at_ms is None else moment(expires_at_ms),
            }
        )

    async def _sections(self, request: web.Request) -> web.StreamResponse:
        asking, query = request[ASKING], request.query
        after = query.get("after", "")
        cursor = Cursor.read(after) if after else None
        wait_s = _number(query.get("wait", "0"), "wait", 0, _MOST_WAIT_S)
        most = _number(query.get("limit", str(MOST_ITEMS)), "limit", 1, MOST_ITEMS)
        if self._under_way[asking.agency.id] >= _MOST_AT_ONCE:
            raise TooManyRequests(f"{_MOST_AT_ONCE} requests of this agency are under way", 2.0)
        self._under_way[asking.agency.id] += 1
        try:
            page = await self._pulling.fetch(asking, cursor, most, wait_s)
            return await _write(request, _response(page))
        finally:
            self._under_way[asking.agency.id] -= 1

    async def _delivered(self, request: web.Request) -> web.Response:
        event_id = request.match_info["id"]
        await self._pulling.delivered(request[ASKING], event_id)
        return json_response({"id": event_id, "delivered": True})

    async def _refused(self, request: web.Request) -> web.Response:
        event_id = request.match_info["id"]
        await self._pulling.refused(request[ASKING], event_id)
        return json_response({"id": event_id, "refused": True})

    async def _health(self, _: web.Request) -> web.Response:
        return json_response({"status": "ok"})


def _response(page: Page) -> web.Response:
    items = [msgspec.Raw(event) for event in page.events]
    return json_response({"state": page.state, "after": str(page.after), "items": items})


async def _write(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Write an answer that may be large; who does not read it loses the connection."""
    try:
        async with asyncio.timeout(_WRITE_S):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise RequestInvalid(f"{name} is a whole number, {least} to {most}")
    return min(int(text), most)
