"""The checkpoints that the node told its peers last: one row, by primary key."""

from dataclasses import dataclass

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from exchange.store.tables import sightings
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class Told:
    """What stands in `seen` beside the `sightings` statement at `position` of the node's log."""

    position: int
    at_ms: int
    seen: tuple[str, ...]


_last = Sql(select(sightings.c.position, sightings.c.at_ms, sightings.c.seen).order_by(sightings.c.position.desc()))
_forget = Sql(delete(sightings))
_keep = Sql(insert(sightings).values({column.name: bindparam(column.name) for column in sightings.c}))


async def last_told(tx: Transaction) -> Told | None:
    """What peers were told last."""
    row = await tx.fetch_one(_last, {})
    if row is None:
        return None
    return Told(int(row[0]), int(row[1]), tuple(msgspec.msgpack.decode(bytes(row[2]), type=list[str])))


async def keep_told(tx: Transaction, told: Told) -> None:
    """Keep what peers are told, in place of what they were told before."""
    await tx.execute(_forget, {})
    values = {"position": told.position, "at_ms": told.at_ms, "seen": msgspec.msgpack.encode(told.seen)}
    await tx.execute(_keep, values)


async def seen_at(tx: Transaction, position: int) -> tuple[str, ...]:
    """The checkpoints of the statement at `position`; none where peers were told something newer since."""
    told = await last_told(tx)
    return told.seen if told is not None and told.position == position else ()
