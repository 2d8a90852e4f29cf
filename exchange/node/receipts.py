"""Receipts: those that this node signs for what arrived, and those that peers sign for what it sent.

* A section moves only in the transaction that stores the receipt which says so.
* A receipt of a peer counts for a message that was sent to that peer, with that content, and for what was sent in it.
"""

from collections.abc import Sequence
from typing import Final

from exchange.crypto.names import LeafHash
from exchange.crypto.proof import VerifiedStatement
from exchange.crypto.statement import parse_statement
from exchange.handover.rungs import LADDER
from exchange.node.attachment_lanes import attachment_lane, begin_sending
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.services import Services, milliseconds
from exchange.schema.wire import (
    RECEIPT,
    VERSION,
    Manifest,
    Placement,
    ProvenStatement,
    Receipt,
    Rung,
    decode_wire,
    encode_wire,
    manifest_decoder,
)
from exchange.store.messages import (
    OUTBOUND,
    MessageRow,
    add_event,
    add_receipt,
    add_rung_events,
    count_receipts,
    find_message,
    raise_rung,
)
from exchange.store.outbox import STATEMENT, Delivery, done, enqueue, new_delivery
from exchange.store.peers import PeerRow
from exchange.store.transaction import LogEntry, Transaction

#: A node signs for the message, for each section and agency on each rung at most, and some of it again after a crash.
_MOST_RECEIPTS: Final = 16


async def sign_receipt(
    services: Services,
    tx: Transaction,
    manifest: Manifest,
    leaf: LeafHash,
    rung: Rung,
    placements: tuple[Placement, ...],
) -> LogEntry:
    """Sign a receipt for a message that arrived, in the transaction that stores what it says."""
    receipt = Receipt(
        version=VERSION,
        message_id=manifest.message_id,
        leaf_hash=leaf,
        rung=rung,
        origin=services.configuration.origin,
        recipient=manifest.sender,
        at=services.now(),
        placements=placements,
    )
    return await tx.sign(RECEIPT, encode_wire(receipt))


async def climb(
    services: Services,
    tx: Transaction,
    origin: str,
    manifest: Manifest,
    leaf: LeafHash,
    number: int,
    rung: Rung,
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Move sections of a message that arrived up to a rung; sign a receipt for it and queue that for the sender."""
    now_ms = services.now_ms()
    placements = tuple(Placement(section=section, agency=kind) for section, kind in pairs)
    entry = await sign_receipt(services, tx, manifest, leaf, rung, placements)
    await add_receipt(tx, number, rung.value, entry.leaf_hash, entry.statement, now_ms, position=entry.position)
    await raise_rung(tx, number, rung.value, pairs, now_ms)
    await add_rung_events(tx, number, rung.value, pairs, now_ms)
    delivery = new_delivery(
        f"peer:{origin}",
        STATEMENT,
        now_ms=now_ms,
        deadline_ms=milliseconds(manifest.expires_at),
        urgent=manifest.urgent,
        position=entry.position,
        message=number,
    )
    await enqueue(tx, [delivery])


async def take_receipt(
    services: Services,
    row: PeerRow,
    receipt: Receipt,
    verified: VerifiedStatement,
    item: ProvenStatement,
    answered: Sequence[Delivery] = (),
    woken: set[str] | None = None,
) -> bool:
    """Keep a receipt of a peer for a message of ours, and move the sections that it names; False where it is known.

    The deliveries `answered` are done with it, in the same transaction. `woken` gets the lanes that have something new.

    Raises:
        ItemRefused: it is not of that peer, or not for a message that this node sent to it.
        Unacceptable: the peer is not verified any more.
    """
    origin = row.origin
    if receipt.origin != origin or receipt.recipient != services.configuration.origin:
        raise ItemRefused("receipt-origin", "the receipt is of or for another node")

    async def operation(tx: Transaction) -> bool:
        await still_heard(tx, row)
        await done(tx, answered)
        message = await find_message(tx, services.configuration.origin, receipt.message_id)
        if message is None or message.direction != OUTBOUND or message.peer != origin:
            raise ItemRefused("receipt-unknown", "this node has sent you no such message")
        if message.leaf_hash != receipt.leaf_hash:
            raise ItemRefused("receipt-hash", "the receipt is for another content of that message")
        pairs = [(placement.section, placement.agency) for placement in receipt.placements]
        if pairs and not _placements_sent(message).issuperset(pairs):
            raise ItemRefused("receipt-placements", "the receipt names a section or agency that was not sent to")
        kept = await count_receipts(tx, message.number)
        if kept >= _MOST_RECEIPTS and kept >= _MOST_RECEIPTS + 2 * len(LADDER) * len(_placements_sent(message)):
            raise ItemRefused("receipts-too-many", "there are more receipts of that message than it has steps")
        now_ms = services.now_ms()
        rung, at_ms = receipt.rung.value, milliseconds(receipt.at)
        new = await add_receipt(tx, message.number, rung, verified.leaf_hash, item.statement, at_ms, proof=item.proof)
        if not new:
            return False
        if receipt.rung is Rung.RECEIVED:
            await add_event(tx, message.number, rung, now_ms, detail=origin)
            if await begin_sending(tx, message, now_ms) and woken is not None:
                woken.add(attachment_lane(origin))
        elif rung in LADDER:
            await raise_rung(tx, message.number, rung, pairs, at_ms)
            await add_rung_events(tx, message.number, rung, pairs, now_ms)
        return True

    new = await services.store.write(operation)
    services.counters.add(f"receipts_{receipt.rung.value}")
    return new


def _placements_sent(message: MessageRow) -> set[tuple[str, str]]:
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    return {(entry.name, kind) for entry in manifest.sections for kind in entry.readers}
