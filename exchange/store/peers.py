"""Counterpart nodes: whom an admin has registered, the card in force, and what was verified of their logs.

Every query is by primary key or by area, but the list of all peers, which is short.
"""

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import bindparam, delete, insert, or_, select, update

from exchange.store.errors import AlreadyThere, NotFound
from exchange.store.tables import outbox, peer_heads, peer_leaves, peer_sightings, peers
from exchange.store.transaction import Operation, Sql, Transaction


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A registered peer; `card` and `proof` are the bytes as received.

    The candidate is an identity that it has shown and that nobody has verified; `first_by` who confirmed first.
    `networks` is a JSON list of the networks in which its address may lie.
    """

    origin: str
    state: str
    fingerprint: str
    serial: int
    card: bytes
    proof: str
    ca_file: str | None
    added_at_ms: int
    verified_at_ms: int | None = None
    verified_how: str | None = None
    candidate: str | None = None
    candidate_card: bytes | None = None
    candidate_proof: str | None = None
    first_by: str | None = None
    networks: str = "[]"
    #: As its card says; a peer never changes it.
    area: str = ""


@dataclass(frozen=True, slots=True)
class PeerHead:
    """The last checkpoint of a peer's log that this node has verified."""

    size: int
    root: bytes
    checkpoint: str


_COLUMNS = (
    peers.c.origin,
    peers.c.state,
    peers.c.fingerprint,
    peers.c.serial,
    peers.c.card,
    peers.c.proof,
    peers.c.ca_file,
    peers.c.added_at_ms,
    peers.c.verified_at_ms,
    peers.c.verified_how,
    peers.c.candidate,
    peers.c.candidate_card,
    peers.c.candidate_proof,
    peers.c.first_by,
    peers.c.networks,
    peers.c.area,
)
_all = Sql(select(*_COLUMNS).order_by(peers.c.origin))
_of_area = Sql(select(*_COLUMNS).where(peers.c.area == bindparam("area")).order_by(peers.c.origin))
_verified = Sql(
    select(peers.c.origin, peers.c.fingerprint, peers.c.serial)
    .where(peers.c.state == "verified")
    .order_by(peers.c.origin)
)
_one = Sql(select(*_COLUMNS).where(peers.c.origin == bindparam("origin")))
_standing = Sql(select(peers.c.state, peers.c.fingerprint).where(peers.c.origin == bindparam("origin")))
_add = Sql(insert(peers).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_keep = Sql(
    update(peers)
    .where(peers.c.origin == bindparam("key"))
    .values({column.name: bindparam(f"new_{column.name}") for column in _COLUMNS})
)
_set_card = Sql(
    update(peers)
    .where(peers.c.origin == bindparam("key"), peers.c.serial < bindparam("new_serial"))
    .values(serial=bindparam("new_serial"), card=bindparam("new_card"), proof=bindparam("new_proof"))
)
_remove = Sql(delete(peers).where(peers.c.origin == bindparam("origin")))
_remove_head = Sql(delete(peer_heads).where(peer_heads.c.origin == bindparam("origin")))
_remove_leaves = Sql(delete(peer_leaves).where(peer_leaves.c.origin == bindparam("origin")))
_remove_sightings = Sql(delete(peer_sightings).where(peer_sightings.c.origin == bindparam("origin")))
_pending = Sql(
    select(outbox.c.number)
    .where(outbox.c.lane == bindparam("lane"), or_(outbox.c.kind == "manifest", outbox.c.kind == "form"))
    .limit(1)
)
_heads = Sql(
    select(peer_heads.c.size, peer_heads.c.root, peer_heads.c.checkpoint)
    .where(peer_heads.c.origin == bindparam("origin"))
    .order_by(peer_heads.c.size.desc())
    .limit(1)
)
_add_head = Sql(
    insert(peer_heads).values(
        origin=bindparam("origin"),
        size=bindparam("size"),
        root=bindparam("root"),
        checkpoint=bindparam("checkpoint"),
        at_ms=bindparam("at_ms"),
    )
)
_prune_heads = Sql(
    delete(peer_heads).where(peer_heads.c.origin == bindparam("origin"), peer_heads.c.size < bindparam("size"))
)


async def all_peers(tx: Transaction) -> list[PeerRow]:
    """Every registered peer, by origin."""
    return [PeerRow(*row) for row in await tx.fetch_all(_all, {})]


@lru_cache(maxsize=1024)
def peers_of_area(area: str) -> Operation[list[PeerRow]]:
    """The peers whose cards are for an area, by origin; the same operation each time, so that one answer is shared."""

    async def find(tx: Transaction) -> list[PeerRow]:
        return [PeerRow(*row) for row in await tx.fetch_all(_of_area, {"area": area})]

    return find


async def verified_versions(tx: Transaction) -> tuple[tuple[str, str, int], ...]:
    """Origin, fingerprint and serial of each verified peer: little to read, and another where a card is another."""
    return tuple((str(row[0]), str(row[1]), int(row[2])) for row in await tx.fetch_all(_verified, {}))


async def peer(tx: Transaction, origin: str) -> PeerRow:
    """The peer of that origin.

    Raises:
        NotFound: nobody registered it.
    """
    row = await tx.fetch_one(_one, {"origin": origin})
    if row is None:
        raise NotFound(f"no peer {origin} is registered", hint="`exchange peer list` lists those that are.")
    return PeerRow(*row)


async def peer_standing(tx: Transaction, origin: str) -> tuple[str, str] | None:
    """What the peer of that origin is to this node, and under which identity: asked for each thing that it sent."""
    row = await tx.fetch_one(_standing, {"origin": origin})
    return (str(row[0]), str(row[1])) if row else None


async def add_peer(tx: Transaction, row: PeerRow) -> None:
    """Register a peer.

    Raises:
        AlreadyThere: it is registered already.
    """
    if await tx.fetch_one(_one, {"origin": row.origin}) is not None:
        raise AlreadyThere(f"the peer {row.origin} is registered already")
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def keep_peer(tx: Transaction, row: PeerRow) -> None:
    """Write a registered peer anew.

    Raises:
        NotFound: nobody registered it.
    """
    values = {f"new_{column.name}": getattr(row, column.name) for column in _COLUMNS}
    if await tx.execute(_keep, {"key": row.origin, **values}) == 0:
        raise NotFound(f"no peer {row.origin} is registered", hint="`exchange peer list` lists those that are.")


async def forget_peer_heads(tx: Transaction, origin: str) -> None:
    """Forget what was verified of a peer's log: only where an admin has verified the peer anew."""
    await tx.execute(_remove_head, {"origin": origin})
    await tx.execute(_remove_leaves, {"origin": origin})
    await tx.execute(_remove_sightings, {"origin": origin})


async def set_peer_card(tx: Transaction, origin: str, serial: int, card: bytes, proof: str) -> bool:
    """Keep a newer card; False where the one in force is as new (serials never go back)."""
    parameters = {"key": origin, "new_serial": serial, "new_card": card, "new_proof": proof}
    return await tx.execute(_set_card, parameters) == 1


async def remove_peer(tx: Transaction, origin: str) -> None:
    """Forget a peer that nothing waits for.

    Raises:
        NotFound: nobody registered it.
        AlreadyThere: messages to it still wait.
    """
    if await tx.fetch_one(_pending, {"lane": f"peer:{origin}"}) is not None:
        raise AlreadyThere(f"messages to {origin} still wait in the outbox")
    await forget_peer_heads(tx, origin)
    if await tx.execute(_remove, {"origin": origin}) == 0:
        raise NotFound(f"no peer {origin} is registered", hint="`exchange peer list` lists those that are.")


async def peer_head(tx: Transaction, origin: str) -> PeerHead | None:
    """The last verified checkpoint of a peer's log."""
    row = await tx.fetch_one(_heads, {"origin": origin})
    return PeerHead(int(row[0]), bytes(row[1]), str(row[2])) if row else None


async def keep_peer_head(tx: Transaction, origin: str, size: int, root: bytes, checkpoint: str, now_ms: int) -> None:
    """Keep a newer verified checkpoint of a peer's log, in place of the older ones."""
    held = await peer_head(tx, origin)
    if held is not None and held.size >= size:
        return
    await tx.execute(
        _add_head, {"origin": origin, "size": size, "root": root, "checkpoint": checkpoint, "at_ms": now_ms}
    )
    await tx.execute(_prune_heads, {"origin": origin, "size": size})
