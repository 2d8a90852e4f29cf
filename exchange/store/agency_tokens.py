"""Tokens with which agencies ask the node: the SHA-256 of each, for one agency; the lists are short.

A token that is revoked is deleted, and goes with its agency.
"""

import hmac
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, or_, select, update

from exchange.store.agencies import AgencyRow, agency
from exchange.store.errors import NotFound
from exchange.store.tables import agency_tokens
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class AgencyTokenRow:
    """A token; `used_at_ms` is when it was last used, to the hour."""

    id: str
    agency: str
    hash: bytes
    created_at_ms: int
    expires_at_ms: int | None
    used_at_ms: int | None = None


_COLUMNS = tuple(agency_tokens.c)
_add = Sql(insert(agency_tokens).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_of_agency = Sql(
    select(*_COLUMNS)
    .where(agency_tokens.c.agency == bindparam("agency"))
    .order_by(agency_tokens.c.created_at_ms, agency_tokens.c.id)
)
_by_hash = Sql(select(*_COLUMNS).where(agency_tokens.c.hash == bindparam("hash")))
_revoke = Sql(
    delete(agency_tokens).where(agency_tokens.c.agency == bindparam("of"), agency_tokens.c.id == bindparam("named"))
)
_used = Sql(
    update(agency_tokens)
    .where(
        agency_tokens.c.id == bindparam("key"),
        or_(agency_tokens.c.used_at_ms.is_(None), agency_tokens.c.used_at_ms < bindparam("hour_ms")),
    )
    .values(used_at_ms=bindparam("hour_ms"))
)


async def add_agency_token(tx: Transaction, row: AgencyTokenRow) -> None:
    """Keep a token.

    Raises:
        NotFound: no such agency is registered.
    """
    await agency(tx, row.agency)
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def agency_tokens_of(tx: Transaction, agency_id: str) -> list[AgencyTokenRow]:
    """The tokens of an agency, oldest first.

    Raises:
        NotFound: no such agency is registered.
    """
    await agency(tx, agency_id)
    return [AgencyTokenRow(*row) for row in await tx.fetch_all(_of_agency, {"agency": agency_id})]


async def revoke_agency_token(tx: Transaction, agency_id: str, token_id: str) -> None:
    """Forget a token.

    Raises:
        NotFound: the agency has none of that id.
    """
    if await tx.execute(_revoke, {"of": agency_id, "named": token_id}) == 0:
        raise NotFound(
            f"agency {agency_id} has no token {token_id}", hint="`exchange agency token list` lists those it has."
        )


async def find_agency_token(tx: Transaction, digest: bytes, now_ms: int) -> tuple[AgencyTokenRow, AgencyRow] | None:
    """The token of that SHA-256, and its agency, where it is in force.

    How long the index takes says something of a digest alone, and a digest leads to no token.
    """
    found = await tx.fetch_one(_by_hash, {"hash": digest})
    row = None if found is None else AgencyTokenRow(*found)
    if row is None or not hmac.compare_digest(row.hash, digest):
        return None
    if row.expires_at_ms is not None and row.expires_at_ms <= now_ms:
        return None
    return row, await agency(tx, row.agency)


async def note_token_used(tx: Transaction, token_id: str, hour_ms: int) -> None:
    """Note that a token was used in an hour."""
    await tx.execute(_used, {"key": token_id, "hour_ms": hour_ms})
