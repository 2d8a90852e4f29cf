"""What agencies say of their sections on their own listener: each speaks for itself, and of what it was given."""

from aiohttp import web

from exchange.handover.holding import By
from exchange.node.acknowledging import Acknowledging
from exchange.node.agency_listener import ASKING
from exchange.node.problems import json_response
from exchange.node.requests import body_of
from exchange.node.section_words import OwnSection, QuerySection, RedirectSection, section_of
from exchange.node.sections_here import Speaker


class AgencySectionsApi:
    """The handlers."""

    def __init__(self, acknowledging: Acknowledging) -> None:
        self._acknowledging = acknowledging

    def routes(self) -> list[web.RouteDef]:
        """For agencies, by their tokens."""
        return [
            web.post("/v1/sections/{id:.+}/own", self._own),
            web.post("/v1/sections/{id:.+}/query", self._query),
            web.post("/v1/sections/{id:.+}/redirect", self._redirect),
            web.get("/v1/sections/{id:.+}", self._show),
        ]

    async def _own(self, request: web.Request) -> web.Response:
        return await self._say(request, await body_of(request, OwnSection))

    async def _query(self, request: web.Request) -> web.Response:
        return await self._say(request, await body_of(request, QuerySection))

    async def _redirect(self, request: web.Request) -> web.Response:
        return await self._say(request, await body_of(request, RedirectSection))

    async def _say(self, request: web.Request, wanted: OwnSection | QuerySection | RedirectSection) -> web.Response:
        message_id, section = section_of(request)
        return json_response(await self._acknowledging.say(_speaker(request), message_id, section, wanted.word()))

    async def _show(self, request: web.Request) -> web.Response:
        message_id, section = section_of(request)
        return json_response(await self._acknowledging.describe(_speaker(request), message_id, section))


def _speaker(request: web.Request) -> Speaker:
    return Speaker(request[ASKING].agency.name, By.AGENCY)
