"""What other boroughs answer to this node's orders: that a section is destroyed, and that agencies have confirmed.

* An answer counts for the order that it names, and for what that order is of.
* An agency that signs for itself has confirmed when it has signed. Its borough may say so for it, and is shown to.
* What tells nothing new is not kept.
"""

from exchange.crypto.proof import VerifiedStatement
from exchange.node.acknowledged import UNSIGNED
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.ordering import move_sections
from exchange.node.orders_confirmed import BY_AGENCY, BY_AGENCY_SIGNED, BY_BOROUGH
from exchange.node.services import Services, milliseconds
from exchange.schema.acknowledgement import check_is_of, prove_acknowledgement
from exchange.schema.errors import SchemaError
from exchange.schema.wire import ORDERED, OrderKind, ProvenStatement, Receipt
from exchange.store.acknowledgements import signers_of
from exchange.store.messages import (
    OUTBOUND,
    MessageRow,
    add_event,
    add_receipt,
    add_rung_events,
    find_message,
    has_receipt,
)
from exchange.store.orders import PlaceRow, note_confirmed, note_destroyed, order_by_hash, places_of
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction


async def take_order_receipt(
    services: Services, row: PeerRow, receipt: Receipt, verified: VerifiedStatement, item: ProvenStatement
) -> bool:
    """Keep what a peer answers to an order of this node; False where it tells nothing new.

    Raises:
        ItemRefused: it answers no order of this node, or names what that is not of, or lacks an agency's signature.
        Unacceptable: the peer is not verified any more.
    """
    signer = _signer(receipt)

    async def operation(tx: Transaction) -> bool:
        await still_heard(tx, row)
        message = await find_message(tx, services.configuration.origin, receipt.message_id)
        if message is None or message.direction != OUTBOUND or message.peer != row.origin:
            raise ItemRefused("receipt-unknown", "this node has sent you no such message")
        if message.leaf_hash != receipt.leaf_hash:
            raise ItemRefused("receipt-hash", "the receipt is for another content of that message")
        if await has_receipt(tx, message.number, verified.leaf_hash):
            return False
        if not await note_answer(tx, message, receipt, signer):
            return False
        at_ms, rung = milliseconds(receipt.at), receipt.rung.value
        await add_receipt(tx, message.number, rung, verified.leaf_hash, item.statement, at_ms, proof=item.proof)
        return True

    new = await services.store.write(operation)
    if new:
        services.counters.add("orders_confirmed" if receipt.confirmed else f"receipts_{receipt.rung.value}")
    return new


def _signer(receipt: Receipt) -> bytes | None:
    """By whose keys an agency has confirmed, if it has signed."""
    if receipt.words is not None or receipt.to is not None or not receipt.placements:
        raise ItemRefused("receipt-placements", "an answer to an order names sections, and says nothing else")
    if receipt.acknowledgement is None:
        return None
    if not receipt.confirmed:
        raise ItemRefused("receipt-order", "an agency confirms for itself, not that its node has destroyed anything")
    try:
        proven = prove_acknowledgement(receipt.acknowledgement)
        check_is_of(proven, receipt)
    except SchemaError as error:
        raise ItemRefused(error.code, str(error)) from None
    return proven.signer


async def note_answer(tx: Transaction, message: MessageRow, receipt: Receipt, signer: bytes | None) -> bool:
    """Note what an answer says of the places of its order; whether that was new.

    Raises:
        ItemRefused: there is no such order, or it is not of these places, or an agency's signature is lacking.
    """
    order = await order_by_hash(tx, message.number, receipt.order or b"")
    if order is None or receipt.rung is not ORDERED[OrderKind(order.kind)]:
        raise ItemRefused("receipt-order", "this node has given you no such order")
    places = {place.pair: place for place in await places_of(tx, order.number)}
    pairs = [(placement.section, placement.agency) for placement in receipt.placements]
    if not places.keys() >= set(pairs):
        raise ItemRefused("receipt-placements", "the receipt names a section or agency that the order is not of")
    if receipt.confirmed:
        await _check_signer(tx, message, receipt, signer)
    wanted = [places[pair] for pair in pairs]
    at_ms = milliseconds(receipt.at)
    fresh = [place for place in wanted if _tells(place, receipt)]
    if not fresh:
        return False
    fresh_pairs = [place.pair for place in fresh]
    if receipt.confirmed:
        by = BY_BOROUGH if receipt.by_borough else BY_AGENCY if signer is None else BY_AGENCY_SIGNED
        await note_confirmed(tx, fresh, at_ms, by)
        for kind in sorted({place.agency for place in fresh}):
            sections = ", ".join(sorted({place.section for place in fresh if place.agency == kind}))
            await add_event(tx, message.number, "order-confirmed", at_ms, agency=kind, detail=sections)
    else:
        await note_destroyed(tx, fresh, at_ms)
        await move_sections(tx, message.number, OrderKind(order.kind), fresh_pairs, at_ms)
        await add_rung_events(tx, message.number, receipt.rung.value, fresh_pairs, at_ms)
    return True


def _tells(place: PlaceRow, receipt: Receipt) -> bool:
    return (place.confirmed_at_ms if receipt.confirmed else place.destroyed_at_ms) is None


async def _check_signer(tx: Transaction, message: MessageRow, receipt: Receipt, signer: bytes | None) -> None:
    signers = await signers_of(tx, message.number)
    wanted = {signers[place.agency] for place in receipt.placements if place.agency in signers}
    signed = set() if signer is None else {signer}
    if signed - wanted:
        raise ItemRefused("acknowledgement-signer", "it is signed by keys that no card named to which this was sealed")
    if wanted - signed and not receipt.by_borough:
        raise ItemRefused(UNSIGNED, "the message was sealed to this agency's own key, and the agency has not signed")
