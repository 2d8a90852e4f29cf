"""The part of the local API that is about agencies' own keys: give one, ask for the challenge, prove it."""

import uuid
from typing import Any

from aiohttp import web

from exchange.node.agency_delivery import AgencyDeliveries
from exchange.node.agency_keys import (
    challenge_of,
    check_proof,
    check_unused,
    claimed_key,
    describe_keys,
    pending_key,
)
from exchange.node.delivery import Dispatcher
from exchange.node.epochs import renew_card
from exchange.node.errors import RequestInvalid
from exchange.node.peering import RELEASED_FOR_MS
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.services import Services
from exchange.schema.agency_keys import AgencyKeyFile, AnswerFile, read_answer
from exchange.schema.errors import AgencyKeyInvalid
from exchange.store.agencies import agency
from exchange.store.agency_keys import AgencyKeyRow, add_pending_key, all_agency_keys, prove_key
from exchange.store.outbox import release_lane
from exchange.store.transaction import Transaction


class Rekey(Request, frozen=True, kw_only=True):
    """The public half of a key that an agency made."""

    key: AgencyKeyFile


class Prove(Request, frozen=True, kw_only=True):
    """What the agency answered to the challenge; without it, the node asks the agency's endpoint."""

    answer: AnswerFile | None = None


class AgencyKeysApi:
    """The handlers."""

    def __init__(self, services: Services, dispatcher: Dispatcher, deliveries: AgencyDeliveries) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._deliveries = deliveries

    def routes(self) -> list[web.RouteDef]:
        """What this serves."""
        return [
            web.post("/v1/agencies/{id}/key", self._rekey),
            web.get("/v1/agencies/{id}/challenge", self._challenge),
            web.post("/v1/agencies/{id}/prove", self._prove),
        ]

    async def _rekey(self, request: web.Request) -> web.Response:
        services, agency_id = self._services, request.match_info["id"]
        wanted = await body_of(request, Rekey)

        async def operation(tx: Transaction) -> tuple[AgencyKeyRow, list[AgencyKeyRow]]:
            row = await agency(tx, agency_id)
            # Until the new key is proven, all goes on as it was.
            claimed = claimed_key(services, row, wanted.key, holds=False)
            await check_unused(tx, claimed)
            await add_pending_key(tx, claimed)
            return claimed, await all_agency_keys(tx)

        claimed, rows = await services.store.write(operation)
        services.log.info("agency key claimed", agency=claimed.kind, key_id=claimed.key_id.hex())
        return json_response(
            {"id": agency_id, **describe_keys(rows, agency_id), "challenge": challenge_of(services, claimed)}, 201
        )

    async def _pending(self, agency_id: str) -> AgencyKeyRow:
        async def find(tx: Transaction) -> AgencyKeyRow:
            await agency(tx, agency_id)
            return pending_key(await all_agency_keys(tx), agency_id)

        return await self._services.store.read(find)

    async def _challenge(self, request: web.Request) -> web.Response:
        return json_response(challenge_of(self._services, await self._pending(request.match_info["id"])))

    async def _prove(self, request: web.Request) -> web.Response:
        agency_id = request.match_info["id"]
        answer = (await body_of(request, Prove)).answer
        pending = await self._pending(agency_id)
        document: dict[str, Any] = {"id": agency_id, "key_id": pending.key_id.hex()}
        if answer is not None:
            check_proof(self._services, pending, answer)
        else:
            wrong = await self._ask(pending)
            if wrong is not None:
                return json_response({**document, "ok": False, "error": wrong, "released": 0})
        released = await self._put_in_force(pending)
        return json_response({**document, "ok": True, "error": None, "released": released})

    async def _ask(self, pending: AgencyKeyRow) -> str | None:
        """Challenge the agency at its endpoint; None where it has proven its key, or what was wrong."""
        services = self._services
        row = await services.store.read(lambda tx: agency(tx, pending.agency))
        if not row.url:
            return "the agency has no endpoint to ask: have it answer by file"
        told, said = await self._deliveries.challenge(row, f"evt_{uuid.uuid4().hex}", challenge_of(services, pending))
        if told.status != 200:
            return told.error or f"agency {row.kind} answered {told.status} and no proof"
        try:
            answer = read_answer(said)
        except AgencyKeyInvalid:
            return "the agency's endpoint does not answer challenges: have it answer by file"
        try:
            check_proof(services, pending, answer)
        except RequestInvalid as error:
            return str(error)
        return None

    async def _put_in_force(self, pending: AgencyKeyRow) -> int:
        services, lane = self._services, f"agency:{pending.kind}"

        async def operation(tx: Transaction) -> int:
            # What was proven is the key that was asked about, and not one that was given meanwhile.
            now = pending_key(await all_agency_keys(tx), pending.agency)
            if (now.key_id, now.wrapped_nonce) != (pending.key_id, pending.wrapped_nonce):
                raise RequestInvalid("another key was registered for the agency meanwhile; nothing was changed")
            await prove_key(tx, pending.agency, pending.key_id, services.now_ms())
            until_ms = services.now_ms() + RELEASED_FOR_MS
            return await release_lane(tx, lane, until_ms) + await release_lane(tx, f"route:{pending.kind}", until_ms)

        released = await services.store.write(operation, long=True)
        await renew_card(services, self._dispatcher)
        services.log.info("agency key proven", agency=pending.kind, key_id=pending.key_id.hex())
        services.counters.add("agency_keys_proven")
        self._dispatcher.wake(lane)
        self._dispatcher.wake(f"route:{pending.kind}")
        return released
