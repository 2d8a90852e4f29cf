"""The local API for handovers: who is responsible for what, what is overdue, and what people record of the whole."""

from aiohttp import web

from exchange.node.errors import RequestInvalid
from exchange.node.handovers import describe_handover, list_handovers, record
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response
from exchange.node.services import Services


class HandoversApi:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[web.RouteDef]:
        """What this serves."""
        return [
            web.get("/v1/handovers", self._list),
            web.get("/v1/handovers/{id}", self._show),
            web.post("/v1/handovers/{id}/met", self._met),
            web.post("/v1/handovers/{id}/complete", self._complete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        overdue = request.query.get("overdue", "false")
        if overdue not in ("true", "false"):
            raise RequestInvalid("overdue is true or false")
        return json_response(await list_handovers(self._services, overdue=overdue == "true"))

    async def _show(self, request: web.Request) -> web.Response:
        return json_response(await describe_handover(self._services, request.match_info["id"]))

    async def _met(self, request: web.Request) -> web.Response:
        return json_response(await record(self._services, request.match_info["id"], "met", who_asks(request)))

    async def _complete(self, request: web.Request) -> web.Response:
        return json_response(await record(self._services, request.match_info["id"], "complete", who_asks(request)))
