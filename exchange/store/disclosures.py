"""What the gate said of each form: one row, whether it waits, has become a message, or was refused.

* `awaiting` until a second person has approved or refused it; `passed` where none was wanted.
* A refused form is not kept; its row is.

`disclosures_awaiting` and `disclosures_lifted` serve the lists, the primary key everything else.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, insert, literal_column, select, update

from exchange.store.tables import disclosures, waiting_forms
from exchange.store.transaction import Sql, Transaction

PASSED: Final = "passed"
AWAITING: Final = "awaiting"
APPROVED: Final = "approved"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class DisclosureRow:
    """What the gate said. `due_ms`: until when a second person is wanted; `lifted`: what an override lifted."""

    message_id: str
    area: str
    sent_by: str
    at_ms: int
    state: str
    due_ms: int | None
    decided_by: str | None
    decided_at_ms: int | None
    lifted: str | None
    grounds: bytes
    wrapped: bytes | None
    sealed: bytes | None


_COLUMNS = tuple(disclosures.c)
_SET = tuple(column.name for column in _COLUMNS if column.name != "message_id")
_add = Sql(insert(disclosures).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_by_id = Sql(select(*_COLUMNS).where(disclosures.c.message_id == bindparam("message_id")))
_keep = Sql(
    update(disclosures)
    .where(disclosures.c.message_id == bindparam("key"))
    .values({name: bindparam(f"new_{name}") for name in _SET})
)
#: Of a restored node some may be messages already: what awaits nothing any more has no form.
_awaiting = Sql(
    select(*_COLUMNS)
    .select_from(disclosures.join(waiting_forms, waiting_forms.c.message_id == disclosures.c.message_id))
    .where(disclosures.c.state == literal_column("'awaiting'"))
    .order_by(disclosures.c.at_ms, disclosures.c.message_id)
)
_lifted = Sql(
    select(*_COLUMNS)
    .where(disclosures.c.lifted.is_not(None))
    .order_by(disclosures.c.at_ms.desc(), disclosures.c.message_id)
    .limit(bindparam("most"))
)


async def add_disclosure(tx: Transaction, row: DisclosureRow) -> None:
    """Note what the gate said of a form."""
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def disclosure_of(tx: Transaction, message_id: str) -> DisclosureRow | None:
    """What the gate said of a form; None for messages that came, and those of before there was a gate."""
    row = await tx.fetch_one(_by_id, {"message_id": message_id})
    return DisclosureRow(*row) if row else None


async def keep_disclosure(tx: Transaction, row: DisclosureRow) -> None:
    """Note how it stands now."""
    await tx.execute(_keep, {"key": row.message_id, **{f"new_{name}": getattr(row, name) for name in _SET}})


async def put_disclosure(tx: Transaction, row: DisclosureRow) -> None:
    """Note how it stands now, where there may be no row yet: a form can have waited since before there was a gate."""
    if await disclosure_of(tx, row.message_id) is None:
        await add_disclosure(tx, row)
    else:
        await keep_disclosure(tx, row)


async def awaiting_approval(tx: Transaction) -> list[DisclosureRow]:
    """The forms that await a second person, oldest first."""
    return [DisclosureRow(*row) for row in await tx.fetch_all(_awaiting, {})]


async def overridden(tx: Transaction, most: int) -> list[DisclosureRow]:
    """The latest forms that passed by an override, newest first."""
    return [DisclosureRow(*row) for row in await tx.fetch_all(_lifted, {"most": most})]
