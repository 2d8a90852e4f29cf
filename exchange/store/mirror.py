"""The leaf hashes of peers' logs, as they gave them: what a peer gets back of its log where it was lost.

* Beside them its latest `sightings` statement: messages, receipts and cards are kept elsewhere, and that is not.
* Only hashes that led to the root of a checkpoint which was verified are kept, so a row is true of that peer's log.
* Rows follow one another; between them there may be gaps. A row is added to until it is long enough.

Every query is by primary key.
"""

from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.store.tables import peer_leaves, peer_sightings
from exchange.store.transaction import Sql, Transaction

_LEAF_BYTES: Final = 32
_LONG_BYTES: Final = 256 * _LEAF_BYTES

_last = Sql(
    select(peer_leaves.c.first, peer_leaves.c.hashes)
    .where(peer_leaves.c.origin == bindparam("origin"))
    .order_by(peer_leaves.c.first.desc())
    .limit(1)
)
_from = Sql(
    select(peer_leaves.c.first, peer_leaves.c.hashes)
    .where(peer_leaves.c.origin == bindparam("origin"), peer_leaves.c.first >= bindparam("first"))
    .order_by(peer_leaves.c.first)
    .limit(bindparam("most"))
)
_before = Sql(
    select(peer_leaves.c.first)
    .where(peer_leaves.c.origin == bindparam("origin"), peer_leaves.c.first <= bindparam("first"))
    .order_by(peer_leaves.c.first.desc())
    .limit(1)
)
_add = Sql(insert(peer_leaves).values(origin=bindparam("origin"), first=bindparam("first"), hashes=bindparam("hashes")))
_grow = Sql(
    update(peer_leaves)
    .where(peer_leaves.c.origin == bindparam("key"), peer_leaves.c.first == bindparam("key_first"))
    .values(hashes=bindparam("new_hashes"))
)
_sightings = Sql(
    select(peer_sightings.c.position, peer_sightings.c.statement, peer_sightings.c.proof).where(
        peer_sightings.c.origin == bindparam("origin")
    )
)
_drop_sightings = Sql(delete(peer_sightings).where(peer_sightings.c.origin == bindparam("origin")))
_add_sightings = Sql(
    insert(peer_sightings).values(
        origin=bindparam("origin"),
        position=bindparam("position"),
        statement=bindparam("statement"),
        proof=bindparam("proof"),
    )
)


async def kept_leaves(tx: Transaction, origin: str) -> int:
    """Up to which statement of a peer's log leaf hashes are kept."""
    row = await tx.fetch_one(_last, {"origin": origin})
    return int(row[0]) + len(row[1]) // _LEAF_BYTES if row else 0


async def keep_leaves(tx: Transaction, origin: str, first: int, hashes: bytes) -> None:
    """Keep what is new of leaf hashes that were checked."""
    row = await tx.fetch_one(_last, {"origin": origin})
    start, held = (int(row[0]), bytes(row[1])) if row else (0, b"")
    end = start + len(held) // _LEAF_BYTES
    new = hashes[max(end - first, 0) * _LEAF_BYTES :]
    if not new:
        return
    if row and first <= end and len(held) < _LONG_BYTES:
        await tx.execute(_grow, {"key": origin, "key_first": start, "new_hashes": held + new})
    else:
        await tx.execute(_add, {"origin": origin, "first": max(first, end), "hashes": new})


async def leaves_from(tx: Transaction, origin: str, first: int, most_rows: int) -> list[tuple[int, bytes]]:
    """Runs of leaf hashes of a peer's log that reach beyond `first`: where each begins, and the hashes, joined."""
    row = await tx.fetch_one(_before, {"origin": origin, "first": first})
    start = int(row[0]) if row else first
    rows = await tx.fetch_all(_from, {"origin": origin, "first": start, "most": most_rows})
    runs = [(int(row[0]), bytes(row[1])) for row in rows]
    cut = [(max(at, first), hashes[max(first - at, 0) * _LEAF_BYTES :]) for at, hashes in runs]
    return [(at, hashes) for at, hashes in cut if hashes]


async def keep_sightings(tx: Transaction, origin: str, position: int, statement: bytes, proof: str) -> None:
    """Keep a peer's statement of what it has seen, but for one that is older than what is kept."""
    row = await tx.fetch_one(_sightings, {"origin": origin})
    if row is not None and int(row[0]) >= position:
        return
    await tx.execute(_drop_sightings, {"origin": origin})
    await tx.execute(_add_sightings, {"origin": origin, "position": position, "statement": statement, "proof": proof})


async def kept_sightings(tx: Transaction, origin: str) -> tuple[bytes, str] | None:
    """A peer's latest statement of what it has seen, and its proof."""
    row = await tx.fetch_one(_sightings, {"origin": origin})
    return None if row is None else (bytes(row[1]), str(row[2]))
