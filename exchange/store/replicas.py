"""The processes that run one node on a shared store, each under a name that is made anew at every start.

`turn` is written by the store itself, with every batch: it tells whether a batch was kept whose answer was lost.
The table holds a handful of rows; every query but the list is by primary key.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.store.outbox import end_leases_of
from exchange.store.tables import replicas
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """A process that runs the node, and when it was last seen."""

    id: str
    name: str
    started_at_ms: int
    seen_at_ms: int


_all = Sql(
    select(replicas.c.id, replicas.c.name, replicas.c.started_at_ms, replicas.c.seen_at_ms)
    .where(replicas.c.seen_at_ms.is_not(None))
    .order_by(replicas.c.started_at_ms, replicas.c.id)
)
_one = Sql(select(replicas.c.id).where(replicas.c.id == bindparam("id")))
_add = Sql(insert(replicas).values(id=bindparam("id"), turn=""))
_arrive = Sql(
    update(replicas)
    .where(replicas.c.id == bindparam("key"))
    .values(name=bindparam("new_name"), started_at_ms=bindparam("now_ms"), seen_at_ms=bindparam("now_ms"))
)
_seen = Sql(update(replicas).where(replicas.c.id == bindparam("key")).values(seen_at_ms=bindparam("now_ms")))
#: A row that its own process holds is not of a dead one; to wait for it could be to wait for oneself.
_forget = Sql(
    delete(replicas).where(
        replicas.c.id.in_(
            select(replicas.c.id)
            .where(replicas.c.seen_at_ms < bindparam("before_ms"))
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
    )
)
_leave = Sql(delete(replicas).where(replicas.c.id == bindparam("id")))


async def arrive(tx: Transaction, replica: str, name: str, now_ms: int, former: str) -> int:
    """Begin, and end the leases of the process that was here before; return how many of those there were."""
    if await tx.fetch_one(_one, {"id": replica}) is None:
        await tx.execute(_add, {"id": replica})
    await tx.execute(_arrive, {"key": replica, "new_name": name, "now_ms": now_ms})
    if not former or former == replica:
        return 0
    await tx.execute(_leave, {"id": former})
    return await end_leases_of(tx, former)


async def be_seen(tx: Transaction, replica: str, now_ms: int, forget_before_ms: int) -> None:
    """Note that a process is there, and forget those that have not been seen for long."""
    await tx.execute(_seen, {"key": replica, "now_ms": now_ms})
    await tx.execute(_forget, {"before_ms": forget_before_ms})


async def leave(tx: Transaction, replica: str) -> None:
    """End; what was still leased is given back."""
    await tx.execute(_leave, {"id": replica})
    await end_leases_of(tx, replica)


async def all_replicas(tx: Transaction) -> list[ReplicaRow]:
    """Every process that was seen lately, oldest first."""
    return [ReplicaRow(*row) for row in await tx.fetch_all(_all, {})]
