"""The local API while a node rejoins its peers: how it stands, and an admin's decision. Nothing else is answered."""

from aiohttp import web

from exchange.node.errors import RequestInvalid
from exchange.node.key_records import RejoinRecord, last_record
from exchange.node.local_api import MOST_BYTES, told
from exchange.node.local_bounds import bounded
from exchange.node.problems import json_response, problem, problem_of
from exchange.node.rejoining import Rejoining
from exchange.node.requests import Request, body_of
from exchange.node.services import Services


class Decide(Request, frozen=True):
    """Continue with what there is; an admin has read at which peers that is seen as a fork."""

    go_on: bool


class RejoinApi:
    """The handlers."""

    def __init__(self, services: Services, rejoining: Rejoining) -> None:
        self._services = services
        self._rejoining = rejoining

    def application(self) -> web.Application:
        """The aiohttp application."""
        bound = bounded(self._services.configuration.tables.limits.local_requests_at_once)
        application = web.Application(client_max_size=MOST_BYTES, middlewares=[told, bound])
        application.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/rejoin", self._show),
                web.post("/v1/rejoin", self._decide),
                web.route("*", "/{rest:.*}", _not_now),
            ]
        )
        return application

    async def _health(self, _: web.Request) -> web.Response:
        services = self._services
        return json_response(
            {
                "status": "rejoining",
                "origin": services.configuration.origin,
                "lanes": [],
                "tls": None,
                "protection": services.protection,
            }
        )

    async def _show(self, _: web.Request) -> web.Response:
        return json_response(self._rejoining.describe())

    async def _decide(self, request: web.Request) -> web.Response:
        try:
            decision = await body_of(request, Decide)
        except RequestInvalid as error:
            return problem_of(error)
        if decision.go_on:
            self._rejoining.go_on()
        return json_response(self._rejoining.describe())


async def _not_now(_: web.Request) -> web.Response:
    return problem(
        503, "rejoining", "the node is asking its peers for what its store lacks", "See how it stands: exchange rejoin"
    )


def joined_routes(services: Services) -> list[web.RouteDef]:
    """What a node that has joined its peers answers to the same question: what came of it the last time."""

    async def show(_: web.Request) -> web.Response:
        record = last_record(services.configuration.directory, RejoinRecord)
        return json_response({"state": "joined", "last": record})

    async def decide(_: web.Request) -> web.Response:
        return problem(400, "request-invalid", "the node is not rejoining; nothing was changed")

    return [web.get("/v1/rejoin", show), web.post("/v1/rejoin", decide)]
