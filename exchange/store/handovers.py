"""The case that each message opens. Who watches the deadlines makes its row, after the message: no send pays for it.

`handovers_to_look_at (look_at_ms)` serves the watch, `handovers_overdue` the list of what is late.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, select, text, update

from exchange.store.tables import handovers
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class HandoverRow:
    """A handover. Without `look_at_ms` nothing is due any more; what was due by `looked_at_ms` was told."""

    message: int
    look_at_ms: int | None
    looked_at_ms: int | None
    overdue_since_ms: int | None
    met_at_ms: int | None = None
    met_by: str | None = None
    complete_at_ms: int | None = None
    complete_by: str | None = None


_COLUMNS = tuple(handovers.c)
#: A message's number is given when it is stored, and batches take turns: none below the last is still to come.
_adopt = Sql(
    text(
        """
        INSERT INTO handovers (message, look_at_ms)
        SELECT number, created_at_ms FROM messages
        WHERE number > (SELECT COALESCE(MAX(message), 0) FROM handovers) ORDER BY number LIMIT :most
        """
    ).bindparams(bindparam("most", required=True))
)
_to_look_at = Sql(
    select(*_COLUMNS)
    .where(handovers.c.look_at_ms <= bindparam("now_ms"))
    .order_by(handovers.c.look_at_ms)
    .limit(bindparam("most"))
)
_overdue = Sql(
    select(*_COLUMNS)
    .where(handovers.c.overdue_since_ms.is_not(None))
    .order_by(handovers.c.overdue_since_ms)
    .limit(bindparam("most"))
)
_latest = Sql(select(*_COLUMNS).order_by(handovers.c.message.desc()).limit(bindparam("most")))
_one = Sql(select(*_COLUMNS).where(handovers.c.message == bindparam("message")))
_keep = Sql(
    update(handovers)
    .where(handovers.c.message == bindparam("number"))
    .values({column.name: bindparam(column.name) for column in _COLUMNS if column.name != "message"})
)
_soon = Sql(
    update(handovers)
    .where(handovers.c.message == bindparam("number"), handovers.c.complete_at_ms.is_(None))
    .values(look_at_ms=bindparam("now_ms"))
)


async def adopt(tx: Transaction, most: int) -> int:
    """Make the rows of messages that have none, the oldest first; return how many."""
    return await tx.execute(_adopt, {"most": most})


async def to_look_at(tx: Transaction, now_ms: int, most: int) -> list[HandoverRow]:
    """Those that are to be looked at by now, the longest waiting first."""
    return [HandoverRow(*row) for row in await tx.fetch_all(_to_look_at, {"now_ms": now_ms, "most": most})]


async def overdue_handovers(tx: Transaction, most: int) -> list[HandoverRow]:
    """Those with something overdue, the latest last."""
    return [HandoverRow(*row) for row in await tx.fetch_all(_overdue, {"most": most})]


async def latest_handovers(tx: Transaction, most: int) -> list[HandoverRow]:
    """The newest."""
    return [HandoverRow(*row) for row in await tx.fetch_all(_latest, {"most": most})]


async def handover_of(tx: Transaction, message: int) -> HandoverRow:
    """A message's handover; one that nobody has looked at yet is as new."""
    row = await tx.fetch_one(_one, {"message": message})
    return HandoverRow(*row) if row else HandoverRow(message, None, None, None)


async def look_soon(tx: Transaction, message: int, now_ms: int) -> None:
    """Look at a handover at once: somebody has asked, or taken something on."""
    await tx.execute(_soon, {"number": message, "now_ms": now_ms})


async def keep_handover(tx: Transaction, row: HandoverRow) -> bool:
    """Keep what a handover is now; False where it has no row yet."""
    values = {name: getattr(row, name) for name in row.__dataclass_fields__ if name != "message"}
    return await tx.execute(_keep, {"number": row.message, **values}) > 0
