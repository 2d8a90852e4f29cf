"""Sharing agreements. The list is short; those that have ended stay, since disclosures name them."""

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from exchange.store.errors import AlreadyThere, NotFound
from exchange.store.tables import agreements
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """An agreement. `kinds` is a JSON list, empty for all kinds; `bases` a JSON object; days are ISO dates."""

    id: str
    area: str
    kinds: str
    bases: str
    title: str
    reference: str
    starts_on: str
    ends_on: str
    review_on: str | None
    sha256: str | None
    added_by: str
    added_at_ms: int
    ended_by: str | None = None
    ended_at_ms: int | None = None
    ended_reason: str | None = None


_COLUMNS = tuple(agreements.c)
_add = Sql(insert(agreements).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_by_id = Sql(select(*_COLUMNS).where(agreements.c.id == bindparam("id")))
_with_area = Sql(select(*_COLUMNS).where(agreements.c.area == bindparam("area")))
_all = Sql(select(*_COLUMNS).order_by(agreements.c.area, agreements.c.starts_on, agreements.c.id))
_end = Sql(
    update(agreements)
    .where(agreements.c.id == bindparam("key"), agreements.c.ended_at_ms.is_(None))
    .values(ended_by=bindparam("by"), ended_at_ms=bindparam("at_ms"), ended_reason=bindparam("why"))
)


async def add_agreement(tx: Transaction, row: AgreementRow) -> None:
    """Keep an agreement."""
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def agreement_by_id(tx: Transaction, agreement_id: str) -> AgreementRow:
    """The agreement of that id.

    Raises:
        NotFound: there is none.
    """
    row = await tx.fetch_one(_by_id, {"id": agreement_id})
    if row is None:
        raise NotFound(f"there is no agreement {agreement_id}", hint="`exchange agreement list` lists those there are.")
    return AgreementRow(*row)


async def agreements_with(tx: Transaction, area: str) -> list[AgreementRow]:
    """The agreements with the borough of an area."""
    return [AgreementRow(*row) for row in await tx.fetch_all(_with_area, {"area": area})]


async def all_agreements(tx: Transaction) -> list[AgreementRow]:
    """Every agreement, area by area."""
    return [AgreementRow(*row) for row in await tx.fetch_all(_all, {})]


async def end_agreement(tx: Transaction, agreement_id: str, by: str, reason: str, now_ms: int) -> AgreementRow:
    """End an agreement before its last day.

    Raises:
        NotFound: there is none of that id.
        AlreadyThere: it was ended before.
    """
    row = await agreement_by_id(tx, agreement_id)
    if await tx.execute(_end, {"key": agreement_id, "by": by, "at_ms": now_ms, "why": reason}) == 0:
        raise AlreadyThere(f"{agreement_id} was ended by {row.ended_by} before", hint="Nothing was changed.")
    return await agreement_by_id(tx, agreement_id)
