"""The local API for one-time links: made for a person to hand on, listed, withdrawn."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from exchange.node.event_links import DAYS
from exchange.node.links import Links
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.section_words import section_of
from exchange.schema.agency_names import AgencyName


class NewLink(Request, frozen=True):
    """Make a link by which somebody at an agency takes a section on; without `agency`, at the only one that has it."""

    agency: AgencyName | None = None
    days: Annotated[int, Meta(ge=1, le=30)] = DAYS


class LinksApi:
    """The handlers."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.post("/v1/sections/{id:.+}/links", self._make),
            web.get("/v1/sections/{id:.+}/links", self._list),
            web.delete("/v1/links/{id}", self._withdraw),
        ]

    async def _make(self, request: web.Request) -> web.Response:
        message_id, section = section_of(request)
        wanted = await body_of(request, NewLink)
        made = await self._links.make(message_id, section, wanted.agency, wanted.days, who_asks(request))
        return json_response(made, 201)

    async def _list(self, request: web.Request) -> web.Response:
        return json_response({"items": await self._links.all_of(*section_of(request))})

    async def _withdraw(self, request: web.Request) -> web.Response:
        link_id = request.match_info["id"]
        await self._links.withdraw(link_id)
        return json_response({"id": link_id, "withdrawn": True})
