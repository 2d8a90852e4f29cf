"""Keys of agencies' own. An agency has one in force at most, and one at most that it is yet to prove.

* A key that was ever in force stays: what was sealed to it goes on to the agency sealed.
* The list is short; every query takes all of it, or is by primary key.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.store.tables import agency_keys
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class AgencyKeyRow:
    """A key of an agency; `signing_keys` is a JSON list of vkeys, `challenge` what the agency is to open."""

    agency: str
    key_id: bytes
    kind: str
    key: bytes
    signing_keys: str
    holds: int
    challenge: bytes | None
    wrapped_nonce: bytes | None
    added_at_ms: int
    proven_at_ms: int | None
    ended_at_ms: int | None

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The keys by which the agency signs."""
        return tuple(json.loads(self.signing_keys))

    @property
    def is_pending(self) -> bool:
        """Whether the agency is yet to prove it."""
        return self.proven_at_ms is None

    @property
    def is_in_force(self) -> bool:
        """Whether senders are to seal to it."""
        return self.proven_at_ms is not None and self.ended_at_ms is None


_COLUMNS = tuple(agency_keys.c)
_all = Sql(select(*_COLUMNS).order_by(agency_keys.c.added_at_ms, agency_keys.c.agency, agency_keys.c.key_id))
_add = Sql(insert(agency_keys).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_drop_pending = Sql(
    delete(agency_keys).where(agency_keys.c.agency == bindparam("of"), agency_keys.c.proven_at_ms.is_(None))
)
_end = Sql(
    update(agency_keys)
    .where(agency_keys.c.agency == bindparam("of"), agency_keys.c.ended_at_ms.is_(None))
    .values(ended_at_ms=bindparam("now_ms"))
)
_prove = Sql(
    update(agency_keys)
    .where(agency_keys.c.agency == bindparam("of"), agency_keys.c.key_id == bindparam("named"))
    .values(proven_at_ms=bindparam("now_ms"), ended_at_ms=None, holds=0, challenge=None, wrapped_nonce=None)
)


async def all_agency_keys(tx: Transaction) -> list[AgencyKeyRow]:
    """Every key of every agency, those that were in force once too, oldest first."""
    return [AgencyKeyRow(*row) for row in await tx.fetch_all(_all, {})]


async def add_pending_key(tx: Transaction, row: AgencyKeyRow) -> None:
    """Note a key that an agency is to prove, in place of what it was to prove before; it has never had this one."""
    await tx.execute(_drop_pending, {"of": row.agency})
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def prove_key(tx: Transaction, agency: str, key_id: bytes, now_ms: int) -> None:
    """Put the key that an agency has proven in force, in place of the one before."""
    await tx.execute(_end, {"of": agency, "now_ms": now_ms})
    await tx.execute(_prove, {"of": agency, "named": key_id, "now_ms": now_ms})


async def end_keys(tx: Transaction, agency: str, now_ms: int) -> None:
    """End the keys of an agency that is not registered any more."""
    await tx.execute(_drop_pending, {"of": agency})
    await tx.execute(_end, {"of": agency, "now_ms": now_ms})


def keys_in_force(rows: Iterable[AgencyKeyRow]) -> dict[str, AgencyKeyRow]:
    """The key in force of each kind of agency that has one."""
    return {row.kind: row for row in rows if row.is_in_force}


def pending_keys(rows: Iterable[AgencyKeyRow]) -> dict[str, AgencyKeyRow]:
    """The key that each agency is yet to prove, by the agency's id."""
    return {row.agency: row for row in rows if row.is_pending}


def kinds_by_key(rows: Iterable[AgencyKeyRow]) -> dict[bytes, str]:
    """Whose each key is or was, of those that were ever proven."""
    return {row.key_id: row.kind for row in rows if not row.is_pending}
