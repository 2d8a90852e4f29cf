"""The part of the local API that is about the directory which the node has joined."""

import json
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from exchange.node.directory import Directory
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of, check_file, check_networks
from exchange.node.services import Services
from exchange.store.directory import DirectoryRow


class Join(Request, frozen=True):
    """Join a directory; `root` is the content of its root file."""

    url: Annotated[str, Meta(min_length=1, max_length=500)]
    root: msgspec.Raw
    ca_file: str | None = None
    networks: Annotated[tuple[str, ...], Meta(max_length=20)] = ()
    peer_ca_file: str | None = None
    peer_networks: Annotated[tuple[str, ...], Meta(max_length=20)] = ()


class DirectoryApi:
    """The handlers for the directory."""

    def __init__(self, services: Services, directory: Directory) -> None:
        self._services = services
        self._directory = directory

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get("/v1/directory", self._show),
            web.post("/v1/directory", self._join),
            web.delete("/v1/directory", self._leave),
            web.post("/v1/directory/refresh", self._refresh),
        ]

    async def _show(self, _: web.Request) -> web.Response:
        return json_response(await self._directory.describe())

    async def _join(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, Join)
        for file in (wanted.ca_file, wanted.peer_ca_file):
            check_file(file)
        check_networks((*wanted.networks, *wanted.peer_networks))
        row = DirectoryRow(
            url=wanted.url.rstrip("/"),
            ca_file=wanted.ca_file,
            networks=json.dumps(wanted.networks),
            peer_ca_file=wanted.peer_ca_file,
            peer_networks=json.dumps(wanted.peer_networks),
            joined_by=who_asks(request),
            joined_at_ms=self._services.now_ms(),
        )
        return json_response(await self._directory.join(row, bytes(wanted.root)), 201)

    async def _leave(self, _: web.Request) -> web.Response:
        return json_response(await self._directory.leave())

    async def _refresh(self, _: web.Request) -> web.Response:
        return json_response(await self._directory.refresh())
