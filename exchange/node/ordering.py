"""Order that what this node sent is recalled or erased: signed, stored and queued for the other borough at once.

* Only the sender of a message orders anything about it. The same order again is answered as before.
* To erase destroys this node's own copy in the same transaction; to recall keeps it.
* What has not left yet does not leave any more.
* An order does not expire: it is tried until the other node has taken it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from exchange.crypto.statement import parse_statement
from exchange.handover.holding import Event, after_order
from exchange.node.destroying import destroy_sections
from exchange.node.errors import NotSentYet, OrdersTooMany, RequestInvalid
from exchange.node.orders_shown import describe_order
from exchange.node.services import Services
from exchange.schema.wire import (
    ORDER,
    VERSION,
    Order,
    OrderKind,
    OrderReason,
    decode_wire,
    encode_wire,
    manifest_decoder,
)
from exchange.store.erasing import waiting_sections
from exchange.store.errors import NotFound
from exchange.store.handovers import look_soon
from exchange.store.messages import (
    OUTBOUND,
    MessageRow,
    add_event,
    add_rung_events,
    find_message,
    message_by_number,
    placements_of,
    received_at_ms,
    stand,
)
from exchange.store.orders import (
    KnownOrder,
    OrderRow,
    PlaceRow,
    add_order,
    add_places,
    note_confirmed,
    note_destroyed,
    note_outcome,
    order_by_number,
    orders_of,
    orders_to_repeat,
    places_of,
)
from exchange.store.outbox import MANIFEST, Delivery, done, enqueue, new_delivery, remove_delivery
from exchange.store.outbox import ORDER as ORDER_DELIVERY
from exchange.store.transaction import Transaction
from exchange.store.waiting import drop_waiting_form, waiting_form

#: About one message: its receiver has the same bound.
MOST_ORDERS: Final = 64
EVENTS: Final = {OrderKind.RECALL: Event.RECALL, OrderKind.ERASE: Event.ERASE}
#: Why an order came to nothing.
NEVER_LEFT: Final = "never-left"
NOT_THERE: Final = "not-there"
NOBODY: Final = "nobody"
#: An order, and what answers it, is tried for so long.
TRIED_FOR_MS: Final = 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order as it stands, and whose lane has something new."""

    document: dict[str, Any]
    lane: str | None


async def order_sections(
    services: Services, message_id: str, kind: OrderKind, reason: OrderReason, sections: Sequence[str], who: str
) -> Ordered:
    """Order that sections of a message that this node sent, or all of it, are recalled or erased.

    Raises:
        NotFound: this node has sent no such message.
        RequestInvalid: it has no such section.
        NotSentYet: it is on its way still, and sections do not travel one by one.
        OrdersTooMany: as much was ordered about it as may be.
    """

    async def operation(tx: Transaction) -> tuple[Ordered, bool]:
        message = await find_message(tx, services.configuration.origin, message_id)
        if message is None or message.direction != OUTBOUND:
            return await _never_signed(services, tx, message_id, kind, reason), True
        manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
        known = [entry.name for entry in manifest.sections]
        if not set(sections) <= set(known):
            raise RequestInvalid("the message has no such section", hint="`exchange status ID` names its sections.")
        wanted = set(sections) or set(known)
        names = tuple(name for name in known if name in wanted)
        given = await orders_of(tx, message.number)
        for earlier in given:
            if earlier.kind == kind.value and set(earlier.names) == wanted:
                if len(names) == len(known):
                    await _stop_sending(tx, message, services.now_ms(), is_whole=True)
                return Ordered(await _describe(tx, message, earlier), None), False
        if len(given) >= MOST_ORDERS:
            raise OrdersTooMany(f"{MOST_ORDERS} orders were given about this message")
        is_whole = len(names) == len(known)
        never_left = await _stop_sending(tx, message, services.now_ms(), is_whole=is_whole)
        order = Order(
            version=VERSION,
            message_id=message.message_id,
            leaf_hash=message.leaf_hash,
            kind=kind,
            reason=reason,
            origin=services.configuration.origin,
            recipient=message.peer,
            at=services.now(),
            sections=() if is_whole else tuple(sorted(names)),
        )
        row = await _sign(tx, services, message, order, names, who)
        pairs = [
            (entry.name, reader) for entry in manifest.sections if entry.name in wanted for reader in entry.readers
        ]
        stood = {(placed.section, placed.agency): placed.rung for placed in await placements_of(tx, message.number)}
        await add_places(
            tx, [PlaceRow(row.number, section, agency, "", stood.get((section, agency))) for section, agency in pairs]
        )
        await add_rung_events(tx, message.number, f"order-{kind.value}", pairs, row.at_ms)
        if kind is OrderKind.ERASE:
            await destroy_sections(services, tx, message, names, words=True)
        if never_left:
            await end_in_vain(services, tx, message, row, NEVER_LEFT)
        else:
            await enqueue(tx, [_delivery(row, message, row.stored_at_ms)])
        lane = None if never_left else f"peer:{message.peer}"
        return Ordered(await _describe(tx, message, row), lane), True

    ordered, is_new = await services.store.write(operation)
    services.counters.add(f"orders_{kind.value}" if is_new else "orders_repeated")
    services.changes.notify()
    return Ordered({**ordered.document, "repeated": not is_new}, ordered.lane)


async def _never_signed(
    services: Services, tx: Transaction, message_id: str, kind: OrderKind, reason: OrderReason
) -> Ordered:
    """Forget a form that waits to be sealed: nothing of it has left, and nothing was signed."""
    try:
        form = await waiting_form(tx, message_id)
    except NotFound:
        raise NotFound(
            f"this node has sent no message {message_id}", hint="Only the borough that sent it can order it back."
        ) from None
    await drop_waiting_form(tx, message_id)
    now = services.now()
    document: dict[str, Any] = {
        "number": None,
        "id": message_id,
        "direction": "out",
        "peer": form.peer,
        "kind": kind.value,
        "reason": reason.value,
        "sections": [],
        "ordered_at": now,
        "ordered_by": None,
        "outcome": NEVER_LEFT,
        "places": [],
        "unconfirmed": 0,
    }
    return Ordered(document, None)


async def _stop_sending(tx: Transaction, message: MessageRow, now_ms: int, *, is_whole: bool) -> bool:
    """Take a message that waits out of the outbox; whether nothing of it can have left."""
    waiting = [row for row in await waiting_sections(tx, message.number) if row[1] == MANIFEST]
    if not waiting:
        return False
    if not is_whole:
        raise NotSentYet("the message has not arrived yet, and its sections do not travel one by one")
    ((number, _, _, until_ms, attempts),) = waiting
    if until_ms <= now_ms:
        await remove_delivery(tx, number)
    # Where it was tried, its answer may have been lost, or may come yet: the order follows it.
    return not attempts


async def _sign(
    tx: Transaction, services: Services, message: MessageRow, order: Order, names: Sequence[str], who: str
) -> OrderRow:
    entry = await tx.sign(ORDER, encode_wire(order))
    now_ms = services.now_ms()
    row = OrderRow(
        number=0,
        message=message.number,
        leaf_hash=entry.leaf_hash,
        kind=order.kind.value,
        reason=order.reason.value,
        sections=",".join(names),
        statement=entry.statement,
        proof=None,
        position=entry.position,
        ordered_by=who,
        outcome=None,
        scrubbed=int(order.kind is OrderKind.RECALL),
        at_ms=now_ms,
        stored_at_ms=now_ms,
    )
    number = await add_order(tx, row)
    found = await order_by_number(tx, number)
    assert found is not None  # noqa: S101 - it was added just now
    return found


def _delivery(row: OrderRow, message: MessageRow, now_ms: int) -> dict[str, object]:
    return new_delivery(
        f"peer:{message.peer}",
        ORDER_DELIVERY,
        now_ms=now_ms,
        deadline_ms=now_ms + TRIED_FOR_MS,
        urgent=True,
        position=row.position,
        message=message.number,
    )


async def end_in_vain(services: Services, tx: Transaction, message: MessageRow, row: OrderRow, why: str) -> None:
    """An order found nothing to be done at the other node: nobody there has had the message."""
    now_ms = services.now_ms()
    places = await places_of(tx, row.number)
    await note_outcome(tx, row.number, why)
    await note_destroyed(tx, places, now_ms)
    await note_confirmed(tx, places, now_ms, NOBODY)
    await move_sections(tx, message.number, OrderKind(row.kind), [place.pair for place in places], now_ms)
    await add_event(tx, message.number, why, now_ms, detail=message.peer)


async def move_sections(
    tx: Transaction, number: int, kind: OrderKind, pairs: Sequence[tuple[str, str]], now_ms: int
) -> list[tuple[str, str]]:
    """Let sections stand where an order puts them; return those that it moved."""
    stood = {(row.section, row.agency): row.rung for row in await placements_of(tx, number)}
    moved: list[tuple[str, str]] = []
    for pair in pairs:
        after = after_order(stood.get(pair), EVENTS[kind])
        if after.value != stood.get(pair):
            await stand(tx, number, after.value, [pair], now_ms)
            moved.append(pair)
    await look_soon(tx, number, now_ms)
    return moved


async def not_there(services: Services, delivery: Delivery) -> str | None:
    """The other node does not have the message of an order: why that waits for a person, if it does.

    Where the message itself is still under way, the order is tried again behind it (the empty reason).
    """

    async def operation(tx: Transaction) -> str | None:
        number = delivery.message or 0
        manifests = [row for row in await waiting_sections(tx, number) if row[1] == MANIFEST]
        if any(row[3] > services.now_ms() for row in manifests):
            return ""
        for row in manifests:
            await remove_delivery(tx, row[0])
        if await received_at_ms(tx, number) is not None:
            return "the peer has signed for the message, and does not have it any more: telephone its admins"
        await done(tx, [delivery])
        message = await message_by_number(tx, number)
        for order in await orders_of(tx, number):
            if order.position == delivery.position:
                await end_in_vain(services, tx, message, order, NOT_THERE)
        return None

    return await services.store.write(operation)


async def repeat_orders(services: Services, tx: Transaction, peer: str) -> int:
    """Queue again what a peer that was restored may have lost of this node's orders; return how many there are."""
    now_ms = services.now_ms()
    rows = await orders_to_repeat(tx, peer)
    deliveries = [_delivery(row, await message_by_number(tx, row.message), now_ms) for row in rows]
    await enqueue(tx, deliveries)
    return len(deliveries)


async def _describe(tx: Transaction, message: MessageRow, row: OrderRow) -> dict[str, Any]:
    known = KnownOrder(row, message.message_id, message.direction, message.peer)
    return describe_order(known, await places_of(tx, row.number))
