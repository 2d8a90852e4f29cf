"""The local API for sections: what the borough's people say of one for an agency, and the questions that came.

What is said so is the borough's word: the receipt says so, and who said it is kept with it.
"""

from typing import Any

from aiohttp import web

from exchange.handover.holding import By
from exchange.node.acknowledging import Acknowledging
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response
from exchange.node.questions import list_questions
from exchange.node.requests import body_of
from exchange.node.section_words import OwnSection, QuerySection, RedirectSection, section_of
from exchange.node.sections_here import Speaker
from exchange.node.services import Services
from exchange.schema.agency_names import AgencyName


class OwnFor(OwnSection, frozen=True, kw_only=True):
    """Take a section on for an agency."""

    agency: AgencyName


class QueryFor(QuerySection, frozen=True, kw_only=True):
    """Ask about a section for an agency."""

    agency: AgencyName


class RedirectFor(RedirectSection, frozen=True, kw_only=True):
    """Say for an agency that a section is not theirs."""

    agency: AgencyName


class SectionsApi:
    """The handlers."""

    def __init__(self, services: Services, acknowledging: Acknowledging) -> None:
        self._services = services
        self._acknowledging = acknowledging

    def routes(self) -> list[web.RouteDef]:
        """What this serves."""
        return [
            web.post("/v1/sections/{id:.+}/own", self._own),
            web.post("/v1/sections/{id:.+}/query", self._query),
            web.post("/v1/sections/{id:.+}/redirect", self._redirect),
            web.get("/v1/questions", self._questions),
        ]

    async def _own(self, request: web.Request) -> web.Response:
        return await self._say(request, await body_of(request, OwnFor))

    async def _query(self, request: web.Request) -> web.Response:
        return await self._say(request, await body_of(request, QueryFor))

    async def _redirect(self, request: web.Request) -> web.Response:
        return await self._say(request, await body_of(request, RedirectFor))

    async def _say(self, request: web.Request, wanted: OwnFor | QueryFor | RedirectFor) -> web.Response:
        message_id, section = section_of(request)
        speaker = Speaker(wanted.agency, By.BOROUGH, who_asks(request))
        document: dict[str, Any] = await self._acknowledging.say(speaker, message_id, section, wanted.word())
        return json_response(document)

    async def _questions(self, _: web.Request) -> web.Response:
        return json_response(await list_questions(self._services))
