"""The node's append-only log in the database (RFC 6962 section 2.1, C2SP tlog-checkpoint).

* A batch appends all its leaves at once and signs one checkpoint over them, in the batch's own transaction.
* A statement's proof is against the first checkpoint that covers it, so it is the same whenever it is made again.
* Complete subtrees are stored once and never change; incomplete ones are computed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, insert, select, update

from exchange.crypto.merkle import (
    Frontier,
    NodeId,
    consistency_needs,
    consistency_path,
    frontier_ids,
    inclusion_needs,
    inclusion_path,
)
from exchange.crypto.names import LeafHash
from exchange.crypto.note import decode_base64
from exchange.crypto.proof import format_proof
from exchange.store.errors import NotFound, StoreError
from exchange.store.tables import checkpoints, log_head, log_nodes, statements
from exchange.store.transaction import LogEntry, Sql, Transaction

#: Signs the checkpoint of a tree: size, root, time in seconds since 1970; returns the signed note.
CheckpointSigner = Callable[[int, bytes, int], str]

_ADOPTED_AT_ONCE: Final = 4096
#: To read a few nodes more costs less than to ask again.
_CLOSE: Final = 8

_head = Sql(select(log_head.c.size, log_head.c.frontier).where(log_head.c.id == 1).with_for_update())
_head_size = Sql(select(log_head.c.size).where(log_head.c.id == 1))
_set_head = Sql(
    update(log_head).where(log_head.c.id == 1).values(size=bindparam("new_size"), frontier=bindparam("new_frontier"))
)
_first_head = Sql(insert(log_head).values(id=1, size=bindparam("new_size"), frontier=bindparam("new_frontier")))
_add_node = Sql(
    insert(log_nodes).values(level=bindparam("level"), position=bindparam("position"), hash=bindparam("hash"))
)
_nodes = Sql(
    select(log_nodes.c.position, log_nodes.c.hash).where(
        log_nodes.c.level == bindparam("level"),
        log_nodes.c.position >= bindparam("first"),
        log_nodes.c.position <= bindparam("last"),
    )
)
_leaves = Sql(
    select(log_nodes.c.hash)
    .where(log_nodes.c.level == 0, log_nodes.c.position >= bindparam("first"), log_nodes.c.position < bindparam("end"))
    .order_by(log_nodes.c.position)
)
_add_statement = Sql(
    insert(statements).values(
        position=bindparam("position"),
        leaf_hash=bindparam("leaf_hash"),
        type=bindparam("type"),
        statement=bindparam("statement"),
    )
)
_statement = Sql(select(statements.c.statement).where(statements.c.position == bindparam("position")))
_blank_statement = Sql(
    update(statements).where(statements.c.position == bindparam("key")).values(statement=bindparam("nothing"))
)
_add_checkpoint = Sql(
    insert(checkpoints).values(size=bindparam("size"), text=bindparam("text"), at_ms=bindparam("at_ms"))
)
_covering_checkpoint = Sql(
    select(checkpoints.c.size, checkpoints.c.text)
    .where(checkpoints.c.size > bindparam("position"))
    .order_by(checkpoints.c.size)
    .limit(1)
)
_first_checkpoint = Sql(select(checkpoints.c.at_ms).order_by(checkpoints.c.size).limit(1))
_last_checkpoint = Sql(select(checkpoints.c.at_ms).order_by(checkpoints.c.size.desc()).limit(1))
_latest_checkpoint = Sql(select(checkpoints.c.size, checkpoints.c.text).order_by(checkpoints.c.size.desc()).limit(1))


@dataclass(frozen=True, slots=True)
class Head:
    """The latest checkpoint of the node's own log."""

    size: int
    text: str

    @property
    def root(self) -> bytes:
        """The root of the tree, 32 bytes."""
        return decode_base64(self.text.split("\n", 3)[2])


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """A statement of the node's own log and its tlog-proof."""

    statement: bytes
    proof: str


@dataclass(frozen=True, slots=True)
class Appended:
    """Leaves that a transaction has appended and that no checkpoint covers yet."""

    grown: Frontier
    nodes: Mapping[NodeId, bytes]
    is_first: bool


async def append_leaves(tx: Transaction, entries: Sequence[tuple[str, LogEntry]]) -> Appended | None:
    """Append `entries` (type and entry) without a checkpoint: `sign_appended` must follow; None without entries.

    The entries' positions follow on from the log's size.
    """
    if not entries:
        return None
    row = await tx.fetch_one(_head, {})
    frontier = Frontier.from_bytes(row[0], row[1]) if row else Frontier.from_bytes(0, b"")
    old = dict(zip(frontier_ids(frontier.size), frontier.hashes, strict=True))
    if entries[0][1].position != frontier.size:
        raise StoreError(f"the log moved from {entries[0][1].position} to {frontier.size} within one batch")
    grown, new_nodes = frontier.append([entry.leaf_hash for _, entry in entries])
    await tx.execute_many(
        _add_node, [{"level": node.level, "position": node.position, "hash": value} for node, value in new_nodes]
    )
    await tx.execute_many(
        _add_statement,
        [
            {
                "position": entry.position,
                "leaf_hash": entry.leaf_hash,
                "type": statement_type,
                "statement": entry.statement,
            }
            for statement_type, entry in entries
        ],
    )
    return Appended(grown, old | dict(new_nodes), row is None)


async def sign_appended(
    tx: Transaction, appended: Appended | None, sign: CheckpointSigner, now_ms: int
) -> Callable[[int], str]:
    """Store one signed checkpoint over what was appended; return what makes a position's tlog-proof.

    Where nothing was, nothing is signed.
    """
    if appended is None:
        return _nothing_to_prove
    grown, nodes = appended.grown, appended.nodes
    checkpoint = sign(grown.size, grown.root(), now_ms // 1000)
    await tx.execute(_add_checkpoint, {"size": grown.size, "text": checkpoint, "at_ms": now_ms})
    head = {"new_size": grown.size, "new_frontier": grown.to_bytes()}
    await tx.execute(_first_head if appended.is_first else _set_head, head)
    return lambda position: format_proof(position, inclusion_path(position, grown.size, nodes), checkpoint)


async def append_batch(
    tx: Transaction, entries: Sequence[tuple[str, LogEntry]], sign: CheckpointSigner, now_ms: int
) -> Callable[[int], str]:
    """Append `entries` and store one signed checkpoint; return what makes a position's tlog-proof."""
    return await sign_appended(tx, await append_leaves(tx, entries), sign, now_ms)


async def adopt(
    tx: Transaction,
    leaves: Sequence[LeafHash],
    known: Mapping[int, tuple[str, bytes]],
    signed: Sequence[tuple[int, str, int]],
) -> None:
    """Continue the log by what it lost: leaf hashes, the statements that came back, and signed checkpoints over them.

    `known` are type and statement by position; `signed` are size, text and time. One must be of the size that the log
    then has.

    Raises:
        StoreError: none is.
    """
    row = await tx.fetch_one(_head, {})
    frontier = Frontier.from_bytes(row[0], row[1]) if row else Frontier.from_bytes(0, b"")
    start, grown = frontier.size, frontier
    for at in range(0, len(leaves), _ADOPTED_AT_ONCE):
        part = leaves[at : at + _ADOPTED_AT_ONCE]
        first, (grown, nodes) = grown.size, grown.append(part)
        await tx.execute_many(
            _add_node, [{"level": node.level, "position": node.position, "hash": value} for node, value in nodes]
        )
        rows = []
        for position, leaf in enumerate(part, start=first):
            # What nobody returned stands in the log by its hash alone.
            statement_type, statement = known.get(position, ("lost", b""))
            rows.append({"position": position, "leaf_hash": leaf, "type": statement_type, "statement": statement})
        await tx.execute_many(_add_statement, rows)
    if not any(size == grown.size and Head(size, text).root == grown.root() for size, text, _ in signed):
        raise StoreError("no checkpoint is of the log that was regrown")
    for size, text, at_ms in signed:
        if start < size <= grown.size:
            await tx.execute(_add_checkpoint, {"size": size, "text": text, "at_ms": at_ms})
    head = {"new_size": grown.size, "new_frontier": grown.to_bytes()}
    await tx.execute(_set_head if row else _first_head, head)


def _nothing_to_prove(position: int) -> str:
    raise StoreError(f"statement {position} is not of this batch")


async def log_size(tx: Transaction) -> int:
    """The number of leaves in the log."""
    row = await tx.fetch_one(_head_size, {})
    return int(row[0]) if row else 0


async def first_signed_at_ms(tx: Transaction) -> int | None:
    """When the node signed for the first time."""
    row = await tx.fetch_one(_first_checkpoint, {})
    return int(row[0]) if row else None


async def last_signed_at_ms(tx: Transaction) -> int | None:
    """When the node signed for the last time."""
    row = await tx.fetch_one(_last_checkpoint, {})
    return int(row[0]) if row else None


async def latest_head(tx: Transaction) -> Head:
    """The latest checkpoint.

    Raises:
        NotFound: nothing has been signed yet.
    """
    row = await tx.fetch_one(_latest_checkpoint, {})
    if row is None:
        raise NotFound("the log is empty")
    return Head(*row)


async def statement_at(tx: Transaction, position: int) -> bytes:
    """The encoded statement at `position`.

    Raises:
        NotFound: the log is shorter.
    """
    row = await tx.fetch_one(_statement, {"position": position})
    if row is None:
        raise NotFound(f"the log has no statement {position}")
    return bytes(row[0])


async def blank_statement(tx: Transaction, position: int) -> None:
    """Forget what a statement says; its leaf hash stays, so the log is whole."""
    await tx.execute(_blank_statement, {"key": position, "nothing": b""})


async def proven_at(tx: Transaction, position: int) -> ProvenEntry:
    """The statement at `position` with its proof against the first checkpoint that covers it.

    Raises:
        NotFound: the log is shorter.
    """
    statement = await statement_at(tx, position)
    row = await tx.fetch_one(_covering_checkpoint, {"position": position})
    if row is None:
        raise NotFound(f"no checkpoint covers statement {position}")
    (proof,) = await proofs_of(tx, (position,), Head(*row))
    return ProvenEntry(statement, proof)


async def proofs_of(tx: Transaction, positions: Sequence[int], head: Head) -> list[str]:
    """The tlog-proofs of statements against one checkpoint: neighbours share most of their nodes."""
    needs = frozenset().union(*(inclusion_needs(position, head.size) for position in positions))
    nodes = await _read_nodes(tx, needs)
    return [format_proof(position, inclusion_path(position, head.size, nodes), head.text) for position in positions]


async def consistency_between(tx: Transaction, first: int, second: int) -> list[bytes]:
    """The consistency proof between two sizes of the log; empty where `first` is 0 or equals `second`.

    Raises:
        NotFound: the log never had these sizes.
    """
    if not 0 <= first <= second <= await log_size(tx):
        raise NotFound("the log never had that size")
    if first in (0, second):
        return []
    return consistency_path(first, second, await _read_nodes(tx, consistency_needs(first, second)))


async def frontier_at(tx: Transaction, size: int) -> Frontier:
    """The right edge of the tree of the first `size` statements.

    Raises:
        NotFound: the log never had that size.
    """
    if not 0 <= size <= await log_size(tx):
        raise NotFound("the log never had that size")
    ids = frontier_ids(size)
    nodes = await _read_nodes(tx, ids)
    return Frontier(size, tuple(nodes[node] for node in ids))


async def leaf_hashes(tx: Transaction, first: int, end: int) -> bytes:
    """The leaf hashes of the statements from `first` up to `end`, joined."""
    rows = await tx.fetch_all(_leaves, {"first": first, "end": end})
    return b"".join(bytes(row[0]) for row in rows)


async def _read_nodes(tx: Transaction, needs: Iterable[NodeId]) -> dict[NodeId, bytes]:
    """Nodes of the log: those of a level that lie close together with one query, and with them what is between."""
    levels: dict[int, list[int]] = {}
    for level, position in needs:
        levels.setdefault(level, []).append(position)
    nodes: dict[NodeId, bytes] = {}
    for level, positions in levels.items():
        for first, last in _runs(sorted(positions)):
            rows = await tx.fetch_all(_nodes, {"level": level, "first": first, "last": last})
            nodes.update((NodeId(level, position), bytes(value)) for position, value in rows)
    for node in needs:
        if node not in nodes:
            raise StoreError(f"the log lacks node {node.level}/{node.position}")
    return nodes


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = positions[0]
    for position in positions[1:]:
        if position - last > _CLOSE:
            yield first, last
            first = position
        last = position
    yield first, last
