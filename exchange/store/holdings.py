"""What this node holds of one peer's log: the statements that the peer sent, and its own that answer to them.

Read in pages, by message and leaf hash, since a proof is large and only its index is wanted.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import bindparam, select, tuple_

from exchange.store.messages import INBOUND, OUTBOUND
from exchange.store.tables import messages, receipts
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class HeldStatement:
    """Where a statement is kept: a message by its number, or a receipt by its leaf hash."""

    message: int
    leaf_hash: bytes | None
    rung: str | None
    #: Of the other node's log, or the position in this node's own.
    proof: str | None
    position: int | None


_messages = Sql(
    select(messages.c.number, messages.c.proof, messages.c.position)
    .where(
        messages.c.peer == bindparam("peer"),
        messages.c.direction == bindparam("direction"),
        messages.c.number > bindparam("after"),
        messages.c.stored_at_ms >= bindparam("since_ms"),
    )
    .order_by(messages.c.number)
    .limit(bindparam("most"))
)
_receipts = Sql(
    select(receipts.c.message, receipts.c.leaf_hash, receipts.c.rung, receipts.c.proof, receipts.c.position)
    .join(messages, receipts.c.message == messages.c.number)
    .where(
        messages.c.peer == bindparam("peer"),
        messages.c.direction == bindparam("direction"),
        tuple_(receipts.c.message, receipts.c.leaf_hash) > tuple_(bindparam("message"), bindparam("leaf_hash")),
        receipts.c.at_ms >= bindparam("since_ms"),
    )
    .order_by(receipts.c.message, receipts.c.leaf_hash)
    .limit(bindparam("most"))
)
_receipt = Sql(
    select(receipts.c.statement).where(
        receipts.c.message == bindparam("message"), receipts.c.leaf_hash == bindparam("leaf_hash")
    )
)

#: Where a page ends: a message, and a receipt of it by its leaf hash.
Place: TypeAlias = tuple[int, bytes]
BEGINNING: Final[Place] = (0, b"")


async def messages_from(tx: Transaction, peer: str, since_ms: int, after: Place, most: int) -> list[HeldStatement]:
    """The manifests that a peer sent, stored since a time."""
    found = {"peer": peer, "direction": INBOUND, "since_ms": since_ms, "after": after[0], "most": most}
    return [HeldStatement(row[0], None, None, row[1], row[2]) for row in await tx.fetch_all(_messages, found)]


async def receipts_from(tx: Transaction, peer: str, since_ms: int, after: Place, most: int) -> list[HeldStatement]:
    """The receipts that a peer signed since a time."""
    return await _receipts_of(tx, peer, OUTBOUND, since_ms, after, most)


async def receipts_for(tx: Transaction, peer: str, since_ms: int, after: Place, most: int) -> list[HeldStatement]:
    """The receipts that this node signed for a peer's messages since a time."""
    return await _receipts_of(tx, peer, INBOUND, since_ms, after, most)


async def _receipts_of(
    tx: Transaction, peer: str, direction: str, since_ms: int, after: Place, most: int
) -> list[HeldStatement]:
    found = {"peer": peer, "direction": direction, "since_ms": since_ms, "most": most}
    rows = await tx.fetch_all(_receipts, {**found, "message": after[0], "leaf_hash": after[1]})
    return [HeldStatement(*row) for row in rows]


async def receipt_statement(tx: Transaction, message: int, leaf_hash: bytes) -> bytes:
    """A receipt that is kept."""
    row = await tx.fetch_one(_receipt, {"message": message, "leaf_hash": leaf_hash})
    return bytes(row[0]) if row else b""
