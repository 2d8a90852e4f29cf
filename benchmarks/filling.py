"""Grows the store of a node that does not run, by copies of messages that it really sent and received.

A copy is what the node itself would have written, by the store's own functions: a manifest or a receipt of its own is
signed, so it is a leaf of the log under a signed checkpoint, and `exchange store check` holds. Ids, leaf hashes and
positions are new; all rows have the sizes of real ones. What a copy is not is readable: its sections are those of the
message that was copied, sealed under another id.

Unless told otherwise, of what waits nothing is copied: in a store that has grown, old messages wait for nothing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from exchange.crypto.names import new_message_id
from exchange.crypto.statement import leaf_hash, parse_statement
from exchange.node.app import open_services, unlock
from exchange.node.config import load_configuration
from exchange.node.services import Services
from exchange.node.store_check import verify_head
from exchange.store.messages import (
    INBOUND,
    OUTBOUND,
    EventRow,
    KeysRow,
    MessageRow,
    ReceiptRow,
    SectionRow,
    add_event,
    add_message,
    add_receipt,
    events_of,
    keys_of,
    list_messages,
    receipts_of,
    sections_of,
)
from exchange.store.moving import check_store
from exchange.store.outbox import Waiting, enqueue, new_delivery, waiting_of
from exchange.store.transaction import Operation, Transaction

#: Messages in one commit and under one checkpoint: about as many as where real ones share an envelope.
_TOGETHER = 64


@dataclass(frozen=True)
class _Original:
    """A message as it stands in the store, with all that belongs to it."""

    row: MessageRow
    keys: KeysRow
    sections: Sequence[SectionRow]
    receipts: Sequence[ReceiptRow]
    events: Sequence[EventRow]
    waiting: Sequence[Waiting]


def fill(config: Path, count: int, *, waiting: bool = False) -> None:
    """Add `count` messages to the store of a node, half of them sent and half received; `waiting` copies that too.

    The node must have sent and received one, and must not run.
    """
    asyncio.run(_fill(config, count, waiting=waiting))


def check(config: Path) -> int:
    """Check the log of a store as `exchange store check` does; return how many statements it has.

    Raises:
        StoreDamaged: it does not hold.
    """
    report = asyncio.run(check_store(load_configuration(config).store_url))
    verify_head(report)
    return report.size


async def _fill(config: Path, count: int, *, waiting: bool) -> None:
    configuration = load_configuration(config)
    async with AsyncExitStack() as stack:
        services = await open_services(stack, configuration, unlock(configuration))
        for direction, share in ((OUTBOUND, count // 2), (INBOUND, count - count // 2)):
            original = await services.store.read(_last(direction))
            if not waiting:
                original = replace(original, waiting=())
            for done in range(0, share, _TOGETHER):
                await services.store.write(_copies(services, original, min(_TOGETHER, share - done)))


def _last(direction: str) -> Operation[_Original]:
    async def operation(tx: Transaction) -> _Original:
        row = (await list_messages(tx, direction, 1))[0]
        return _Original(
            row,
            await keys_of(tx, row.number),
            await sections_of(tx, row.number),
            await receipts_of(tx, row.number),
            await events_of(tx, row.number),
            await waiting_of(tx, row.number),
        )

    return operation


def _copies(services: Services, original: _Original, count: int) -> Operation[None]:
    async def operation(tx: Transaction) -> None:
        for _ in range(count):
            await _copy(tx, original, new_message_id(services.now_ms()), services.now_ms())

    return operation


async def _copy(tx: Transaction, original: _Original, message_id: str, now_ms: int) -> None:
    row = original.row

    def renamed(statement: bytes) -> bytes:
        return statement.replace(row.message_id.encode(), message_id.encode())

    statement, position, received_position = renamed(row.statement), None, None
    if row.direction == OUTBOUND:
        position = await _sign(tx, statement)
    leaf = leaf_hash(statement)
    receipts: list[tuple[ReceiptRow, bytes, int | None]] = []
    for receipt in original.receipts:
        text = renamed(receipt.statement).replace(row.leaf_hash, leaf)
        at = None if receipt.position is None else await _sign(tx, text)
        if receipt.position is not None and receipt.position == row.received_position:
            received_position = at
        receipts.append((receipt, text, at))
    number = await add_message(
        tx,
        row._replace(
            message_id=message_id,
            leaf_hash=leaf,
            statement=statement,
            position=position,
            received_position=received_position,
            created_at_ms=now_ms,
            stored_at_ms=now_ms,
        ),
        original.keys,
        original.sections,
    )
    for receipt, text, at in receipts:
        await add_receipt(tx, number, receipt.rung, leaf_hash(text), text, now_ms, proof=receipt.proof, position=at)
    for event in original.events:
        await add_event(tx, number, event.event, now_ms, agency=event.agency, detail=event.detail)
    await enqueue(tx, [_delivery(row, waiting, number, now_ms) for waiting in original.waiting])


async def _sign(tx: Transaction, statement: bytes) -> int:
    parsed = parse_statement(statement)
    return (await tx.sign(parsed.type, parsed.body)).position


def _delivery(row: MessageRow, waiting: Waiting, number: int, now_ms: int) -> dict[str, object]:
    return new_delivery(
        waiting.lane,
        waiting.kind,
        now_ms=now_ms,
        deadline_ms=row.expires_at_ms,
        message=number,
        agency=waiting.agency,
        held=waiting.reason,
    )
