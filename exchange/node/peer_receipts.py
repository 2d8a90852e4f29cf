"""Receipts that peers sign for what this node sent: which count, and what they move.

* A section moves only in the transaction that stores the receipt which says so.
* A receipt of a peer counts for a message that was sent to that peer, with that content, and for what was sent in it.
* What agencies say with one is for `acknowledged`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from exchange.crypto.proof import VerifiedStatement
from exchange.crypto.statement import parse_statement
from exchange.handover.rungs import LADDER
from exchange.node.acknowledged import UNSIGNED, check_signer, hear, keep_heard, tell_unsigned
from exchange.node.attachment_lanes import attachment_lane, begin_sending
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.orders_answered import take_order_receipt
from exchange.node.services import Services, milliseconds
from exchange.schema.wire import ProvenStatement, Receipt, Rung, decode_wire, manifest_decoder
from exchange.schema.words import PARTS
from exchange.store.messages import (
    OUTBOUND,
    MessageRow,
    add_event,
    add_receipt,
    add_rung_events,
    count_receipts,
    find_message,
    has_receipt,
    raise_rung,
)
from exchange.store.outbox import Delivery, done
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction

#: A node signs for the message, for each section and agency on each rung at most, and some of it again after a crash.
#: What agencies say is counted apart.
_MOST_RECEIPTS: Final = 16


async def take_receipt(
    services: Services,
    row: PeerRow,
    receipt: Receipt,
    verified: VerifiedStatement,
    item: ProvenStatement,
    answered: Sequence[Delivery] = (),
    ciphertexts: Mapping[bytes, bytes] | None = None,
    lanes: set[str] | None = None,
) -> bool:
    """Keep a receipt of a peer for a message of ours, and move the sections that it names; False where it is known.

    The deliveries `answered` are done with it, in the same transaction. `ciphertexts` came beside it, by their SHA-256;
    the lanes that have something new are added to `lanes`.

    Raises:
        ItemRefused: it is not of that peer, or not for a message that this node sent to it.
        Unacceptable: the peer is not verified any more.
    """
    origin = row.origin
    if receipt.origin != origin or receipt.recipient != services.configuration.origin:
        raise ItemRefused("receipt-origin", "the receipt is of or for another node")
    if receipt.order is not None:
        return await _take_answer(services, row, receipt, verified, item)
    if receipt.rung in PARTS and await services.store.read(lambda tx: _is_known(tx, services, receipt, verified)):
        # What opened it then may be destroyed by now.
        return False
    heard = await hear(services, receipt, ciphertexts or {})

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
        if heard is not None:
            await check_signer(services, tx, message.number, receipt, heard)
        now_ms = services.now_ms()
        rung, at_ms = receipt.rung.value, milliseconds(receipt.at)
        new = await add_receipt(tx, message.number, rung, verified.leaf_hash, item.statement, at_ms, proof=item.proof)
        if not new:
            return False
        if heard is not None:
            waking = await keep_heard(services, tx, message, receipt, verified.leaf_hash, heard)
            if lanes is not None:
                lanes.update(waking)
        elif receipt.rung is Rung.RECEIVED:
            await add_event(tx, message.number, rung, now_ms, detail=origin)
            if await begin_sending(tx, message, now_ms) and lanes is not None:
                lanes.add(attachment_lane(origin))
        elif rung in LADDER:
            await raise_rung(tx, message.number, rung, pairs, at_ms)
            await add_rung_events(tx, message.number, rung, pairs, now_ms)
        return True

    try:
        new = await services.store.write(operation)
    except ItemRefused as error:
        if error.refusal == UNSIGNED:
            await tell_unsigned(services, origin, receipt)
        raise
    services.counters.add(f"receipts_{receipt.rung.value}")
    return new


async def _take_answer(
    services: Services, row: PeerRow, receipt: Receipt, verified: VerifiedStatement, item: ProvenStatement
) -> bool:
    try:
        return await take_order_receipt(services, row, receipt, verified, item)
    except ItemRefused as error:
        if error.refusal == UNSIGNED:
            await tell_unsigned(services, row.origin, receipt)
        raise


async def _is_known(tx: Transaction, services: Services, receipt: Receipt, verified: VerifiedStatement) -> bool:
    message = await find_message(tx, services.configuration.origin, receipt.message_id)
    return message is not None and await has_receipt(tx, message.number, verified.leaf_hash)


def _placements_sent(message: MessageRow) -> set[tuple[str, str]]:
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    return {(entry.name, kind) for entry in manifest.sections for kind in entry.readers}
