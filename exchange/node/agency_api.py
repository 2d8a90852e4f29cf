"""What agencies ask of the node on their listener: who they are to it. What else they may do has files of its own."""

from aiohttp import web

from exchange.node.agency_listener import ASKING
from exchange.node.problems import json_response
from exchange.node.services import Services, moment


class AgencyApi:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[web.RouteDef]:
        """For agencies, by their tokens."""
        return [web.get("/v1/agency", self._who)]

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

    async def _health(self, _: web.Request) -> web.Response:
        return json_response({"status": "ok"})
