"""A store that came from a backup, and whose node has not asked its peers yet what it lacks: nobody signs on it.

It is said in the store, and not only in a keystore: each replica has a keystore of its own, and they share the store.
"""

from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from exchange.store.errors import StoreInUse
from exchange.store.replicas import all_replicas
from exchange.store.tables import restored
from exchange.store.transaction import Sql, Transaction

#: A process that was killed counts as running for so long.
_SEEN_LATELY_MS: Final = 30_000

_mark = Sql(select(restored.c.log_size).where(restored.c.id == 1))
_add = Sql(insert(restored).values(id=1, log_size=bindparam("log_size")))
_end = Sql(delete(restored))


async def is_restored(tx: Transaction) -> bool:
    """Whether the node has to rejoin its peers first."""
    return await tx.fetch_one(_mark, {}) is not None


async def begin_to_rejoin(tx: Transaction, log_size: int, replica: str, now_ms: int) -> None:
    """Note that the node rejoins: whoever starts on the store before it has, or after it was stopped, does so too.

    Raises:
        StoreInUse: another process of the node runs on it, and may sign.
    """
    others = [row for row in await all_replicas(tx) if row.id != replica and row.seen_at_ms > now_ms - _SEEN_LATELY_MS]
    if others:
        raise StoreInUse(
            f"other processes of the node run on the store: {len(others)}",
            hint="Stop them all: one process asks the peers. One that was killed counts as running for half a minute.",
        )
    if not await is_restored(tx):
        await tx.execute(_add, {"log_size": log_size})


async def end_rejoining(tx: Transaction) -> None:
    """The node has rejoined, or an admin goes on without."""
    await tx.execute(_end, {})
