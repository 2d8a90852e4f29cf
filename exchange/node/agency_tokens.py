"""Tokens with which an agency asks the node: made, listed and revoked by an admin, each for one agency.

* A token is 256 random bits, shown once. The store has its SHA-256: there is nothing to guess, so nothing to slow down.
* Two tokens may be in force at once: that is how one is changed.
* Whatever takes long asks again whether the token is still in force before it gives anything out.
"""

import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Final

from aiohttp import web
from msgspec import Meta

from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.services import Services, moment
from exchange.store.agencies import AgencyRow
from exchange.store.agency_tokens import (
    AgencyTokenRow,
    add_agency_token,
    agency_tokens_of,
    find_agency_token,
    revoke_agency_token,
)
from exchange.store.transaction import Transaction

_HEADER: Final = re.compile(r"bearer +(exag_[A-Za-z0-9_-]{43})", re.IGNORECASE)
_DAY_MS: Final = 86_400_000


class NewAgencyToken(Request, frozen=True):
    """Make a token for an agency; without `days` it is good until it is revoked."""

    days: Annotated[int, Meta(ge=1, le=3650)] | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """The agency that asks, and the token that says so."""

    agency: AgencyRow
    token: AgencyTokenRow

    async def is_in_force(self, tx: Transaction, now_ms: int) -> bool:
        """Whether the token is good still."""
        return await find_agency_token(tx, self.token.hash, now_ms) is not None


def token_digest(header: str) -> bytes | None:
    """The SHA-256 of the token in an Authorization header; None where none can be there."""
    match = _HEADER.fullmatch(header)
    return None if match is None else hashlib.sha256(match[1].encode()).digest()


def new_token(agency_id: str, now_ms: int, days: int | None) -> tuple[str, AgencyTokenRow]:
    """A token for an agency, and what is kept of it."""
    token = f"exag_{secrets.token_urlsafe(32)}"
    expires_at_ms = None if days is None else now_ms + days * _DAY_MS
    digest = hashlib.sha256(token.encode()).digest()
    return token, AgencyTokenRow(uuid.uuid4().hex[:12], agency_id, digest, now_ms, expires_at_ms)


def describe_token(row: AgencyTokenRow) -> dict[str, Any]:
    """A token for an admin: not the token itself, which nobody has but the agency."""
    return {
        "id": row.id,
        "agency": row.agency,
        "created_at": moment(row.created_at_ms),
        "expires_at": None if row.expires_at_ms is None else moment(row.expires_at_ms),
        "used_at": None if row.used_at_ms is None else moment(row.used_at_ms),
    }


class AgencyTokensApi:
    """The part of the local API that is about them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.post("/v1/agencies/{id}/tokens", self._new),
            web.get("/v1/agencies/{id}/tokens", self._list),
            web.delete("/v1/agencies/{id}/tokens/{token}", self._revoke),
        ]

    async def _new(self, request: web.Request) -> web.Response:
        services, wanted = self._services, await body_of(request, NewAgencyToken)
        token, row = new_token(request.match_info["id"], services.now_ms(), wanted.days)
        await services.store.write(lambda tx: add_agency_token(tx, row))
        services.log.info("agency token made", agency_id=row.agency)
        url = services.configuration.tables.agencies.url or None
        return json_response({**describe_token(row), "token": token, "url": url}, 201)

    async def _list(self, request: web.Request) -> web.Response:
        rows = await self._services.store.read(lambda tx: agency_tokens_of(tx, request.match_info["id"]))
        return json_response({"items": [describe_token(row) for row in rows]})

    async def _revoke(self, request: web.Request) -> web.Response:
        services = self._services
        agency_id, token_id = request.match_info["id"], request.match_info["token"]
        await services.store.write(lambda tx: revoke_agency_token(tx, agency_id, token_id))
        services.log.info("agency token revoked", agency_id=agency_id)
        services.changes.notify()  # an agency that waits under it is let go
        return json_response({"id": token_id, "agency": agency_id, "revoked": True})
