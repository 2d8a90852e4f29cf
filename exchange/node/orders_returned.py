"""Orders, and answers to them, that peers gave back after this node lost them: what they say is done again.

* A section that this node had destroyed, and that its backup has again, is destroyed.
* What this node had ordered itself is known again; where it erased, its own copy goes too.
* Agencies were told, or will be: whoever gave an order that somebody has not confirmed gives it again.
"""

from exchange.crypto.proof import VerifiedStatement
from exchange.node.destroying import destroy_sections
from exchange.node.errors import ItemRefused
from exchange.node.ordering import move_sections
from exchange.node.orders_answered import note_answer
from exchange.node.rerouting import manifest_of
from exchange.node.services import Services, milliseconds
from exchange.schema.acknowledgement import prove_acknowledgement
from exchange.schema.errors import SchemaError
from exchange.schema.wire import ORDER, ORDERED, OrderKind, ProvenStatement, Receipt, decode_wire, order_decoder
from exchange.store.messages import OUTBOUND, add_rung_events, find_message, message_by_number
from exchange.store.orders import OrderRow, PlaceRow, add_order, add_places, order_by_hash
from exchange.store.transaction import Transaction

_KINDS = {rung: kind for kind, rung in ORDERED.items()}


async def keep_own_order(
    services: Services, tx: Transaction, peer: str, verified: VerifiedStatement, item: ProvenStatement
) -> None:
    """Know an order of this node again that a peer has kept; where it erased, the copy here goes too."""
    if verified.statement.type != ORDER:
        return
    try:
        order = decode_wire(order_decoder, verified.statement.body)
    except SchemaError:
        return
    if (order.origin, order.recipient) != (services.configuration.origin, peer):
        return
    message = await find_message(tx, services.configuration.origin, order.message_id)
    if message is None or message.direction != OUTBOUND or message.leaf_hash != order.leaf_hash:
        return
    if await order_by_hash(tx, message.number, verified.leaf_hash) is not None:
        return
    entries = [entry for entry in manifest_of(message).sections if not order.sections or entry.name in order.sections]
    names = [entry.name for entry in entries]
    row = OrderRow(
        number=0,
        message=message.number,
        leaf_hash=verified.leaf_hash,
        kind=order.kind.value,
        reason=order.reason.value,
        sections=",".join(names),
        statement=item.statement,
        proof=None,
        position=verified.index,
        ordered_by=None,
        outcome=None,
        scrubbed=int(order.kind is OrderKind.RECALL),
        at_ms=milliseconds(order.at),
        stored_at_ms=services.now_ms(),
    )
    number = await add_order(tx, row)
    pairs = [(entry.name, kind) for entry in entries for kind in entry.readers]
    await add_places(tx, [PlaceRow(number, section, kind, "", None) for section, kind in pairs])
    await add_rung_events(tx, message.number, f"order-{order.kind.value}", pairs, row.at_ms)
    if order.kind is OrderKind.ERASE:
        await destroy_sections(services, tx, message, names, words=True)


async def keep_answer(services: Services, tx: Transaction, number: int, receipt: Receipt, *, is_own: bool) -> None:
    """Do again what an answer to an order says: this node's own, or that of the node that it was given to."""
    message = await message_by_number(tx, number)
    if not is_own:
        signed = receipt.acknowledgement
        try:
            await note_answer(tx, message, receipt, None if signed is None else prove_acknowledgement(signed).signer)
        except (ItemRefused, SchemaError):
            return  # it answers what is lost here, or never counted
        return
    if receipt.confirmed:
        return
    pairs = [(placement.section, placement.agency) for placement in receipt.placements]
    kind, at_ms = _KINDS[receipt.rung], milliseconds(receipt.at)
    names = {section for section, _ in pairs}
    await destroy_sections(services, tx, message, names, words=kind is OrderKind.ERASE)
    await move_sections(tx, number, kind, pairs, at_ms)
    await add_rung_events(tx, number, receipt.rung.value, pairs, at_ms)
