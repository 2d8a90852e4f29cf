"""The part of the local API that is about the node's own keys."""

import asyncio
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from exchange.crypto.keystore import Argon2Parameters
from exchange.crypto.signing import fingerprint
from exchange.node.cards import peer_card
from exchange.node.delivery import Dispatcher
from exchange.node.errors import NotNow, RequestInvalid
from exchange.node.key_status import running_state
from exchange.node.peer_client import PeerClient, Place
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.revocation import RevocationFile, prepare_revocation, publish_revocation
from exchange.node.rotation import rotate_keys
from exchange.node.services import Services
from exchange.store.peers import PeerRow, all_peers


class Revoke(Request, frozen=True, kw_only=True):
    """The revocation to publish."""

    revocation: RevocationFile


class LockAnew(Request, frozen=True, kw_only=True):
    """Another key for the keystore, sealed with the present one: whoever does not know the passphrase can make none."""

    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    opslimit: Annotated[int, Meta(ge=1, le=1000)]
    memlimit_bytes: Annotated[int, Meta(ge=1, le=2**40)]
    sealed_key: Annotated[bytes, Meta(max_length=200)]


class KeysApi:
    """The handlers for the node's own keys."""

    def __init__(self, services: Services, dispatcher: Dispatcher, client: PeerClient) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._client = client

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get("/v1/keys", self._status),
            web.post("/v1/keys/rotate", self._rotate),
            web.post("/v1/keys/revocation", self._prepare),
            web.post("/v1/keys/revoke", self._revoke),
            web.post("/v1/keys/passphrase", self._lock_anew),
        ]

    async def _status(self, _: web.Request) -> web.Response:
        return json_response(await running_state(self._services))

    async def _rotate(self, _: web.Request) -> web.Response:
        services, origin = self._services, self._services.configuration.origin
        if services.revoked.file is not None:
            raise RequestInvalid("this node's identity is revoked; make a new node")
        old = fingerprint(origin, services.keyring.verifiers)
        await rotate_keys(services, self._dispatcher)
        return json_response(
            {
                "origin": origin,
                "old_fingerprint": old,
                "fingerprint": fingerprint(origin, services.keyring.verifiers),
                "revocation": await self._file(),
            }
        )

    async def _prepare(self, _: web.Request) -> web.Response:
        return json_response({"revocation": await self._file()})

    async def _file(self) -> RevocationFile:
        return msgspec.json.decode(await prepare_revocation(self._services), type=RevocationFile)

    async def _revoke(self, request: web.Request) -> web.Response:
        """Show the revocation from now on, and push it to every peer at once."""
        wanted = await body_of(request, Revoke)
        data = msgspec.json.encode(wanted.revocation)
        await publish_revocation(self._services, data)
        rows = await self._services.store.read(all_peers)
        told = await asyncio.gather(*(self._tell(row, data) for row in rows))
        return json_response({"origin": self._services.configuration.origin, "peers": told})

    async def _lock_anew(self, request: web.Request) -> web.Response:
        """Lock the keystore with another key: here, where nothing else rewrites it meanwhile."""
        wanted = await body_of(request, LockAnew)
        file = self._services.keyring.file
        if file is None:
            raise RequestInvalid("this node keeps its keys in memory alone")
        cost = Argon2Parameters(wanted.opslimit, wanted.memlimit_bytes)
        await asyncio.to_thread(file.take_over, wanted.salt, cost, wanted.sealed_key)
        self._services.log.info("the keystore was locked anew")
        return json_response({"opslimit": cost.opslimit, "memlimit_bytes": cost.memlimit_bytes})

    async def _tell(self, row: PeerRow, data: bytes) -> dict[str, Any]:
        place = Place(peer_card(row).url, row.ca_file, row.networks)
        try:
            answer = await self._client.post(place, "/v1/revocations", "application/json", data)
        except NotNow as error:
            return {"origin": row.origin, "told": False, "reason": str(error)}
        told = answer.status == 200
        return {"origin": row.origin, "told": told, "reason": None if told else f"answered {answer.status}"}
