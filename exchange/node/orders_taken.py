"""Orders of peers about what they sent here: destroyed, passed on to each agency that may have it, and answered.

* All of it is one transaction: whoever is told that it was destroyed can rely on it.
* Only the sender of a message orders anything about it, and only what it signed for that very message.
* Every agency that has, had, or may have been sent a section is told; where there is none, nobody here has it.
* The same order again changes nothing.
"""

from exchange.crypto.names import LeafHash
from exchange.crypto.proof import VerifiedStatement
from exchange.handover.holding import is_over
from exchange.node.destroying import destroy_sections
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.ordering import MOST_ORDERS, NOBODY, move_sections
from exchange.node.orders_confirmed import answer
from exchange.node.rerouting import manifest_of
from exchange.node.services import Services, milliseconds
from exchange.schema.agency_names import kind_of
from exchange.schema.wire import Manifest, Order, OrderKind, ProvenStatement
from exchange.store.acknowledgements import acknowledgements_of
from exchange.store.attempts import attempts_of
from exchange.store.erasing import waiting_sections
from exchange.store.messages import INBOUND, MessageRow, add_rung_events, find_message, placements_of
from exchange.store.orders import (
    OrderRow,
    PlaceRow,
    add_order,
    add_places,
    note_confirmed,
    note_destroyed,
    order_by_hash,
    order_by_number,
    orders_of,
)
from exchange.store.outbox import MANIFEST, PASSED_ON, ROUTE, enqueue, new_delivery, remove_delivery
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction

#: How long an agency is tried; after that the order is held, and people are told.
_PASSED_ON_FOR_MS = 90 * 86_400_000


async def take_order(
    services: Services, row: PeerRow, order: Order, verified: VerifiedStatement, item: ProvenStatement, lanes: set[str]
) -> bool:
    """Take an order of a peer; False where it was taken before. The lanes with something new are added to `lanes`.

    Raises:
        ItemRefused: it is not of that peer, or not about what it sent here.
        Unacceptable: the peer is not verified any more.
    """
    if order.origin != row.origin or order.recipient != services.configuration.origin:
        raise ItemRefused("order-origin", "the order is of or for another node")

    async def operation(tx: Transaction) -> bool:
        await still_heard(tx, row)
        message = await find_message(tx, row.origin, order.message_id)
        if message is None or message.direction != INBOUND:
            raise ItemRefused("order-message-unknown", "you have sent this node no such message")
        if message.leaf_hash != order.leaf_hash:
            raise ItemRefused("order-hash", "the order is about another content of that message")
        manifest = manifest_of(message)
        names = [entry.name for entry in manifest.sections if not order.sections or entry.name in order.sections]
        if not set(order.sections) <= set(names):
            raise ItemRefused("order-sections", "the message has no such section")
        if await order_by_hash(tx, message.number, verified.leaf_hash) is not None:
            return False
        if len(await orders_of(tx, message.number)) >= MOST_ORDERS:
            raise ItemRefused("orders-too-many", f"{MOST_ORDERS} orders were given about that message")
        kept = await _keep(services, tx, message, order, verified.leaf_hash, item, names)
        lanes.update(await carry_out(services, tx, message, manifest, kept))
        return True

    new = await services.store.write(operation)
    if new:
        services.counters.add(f"orders_taken_{order.kind.value}")
    return new


async def _keep(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    order: Order,
    leaf_hash: LeafHash,
    item: ProvenStatement,
    names: list[str],
) -> OrderRow:
    row = OrderRow(
        number=0,
        message=message.number,
        leaf_hash=leaf_hash,
        kind=order.kind.value,
        reason=order.reason.value,
        sections=",".join(names),
        statement=item.statement,
        proof=item.proof,
        position=None,
        ordered_by=None,
        outcome=None,
        scrubbed=0,
        at_ms=milliseconds(order.at),
        stored_at_ms=services.now_ms(),
    )
    found = await order_by_number(tx, await add_order(tx, row))
    assert found is not None  # noqa: S101 - it was added just now
    return found


async def carry_out(
    services: Services, tx: Transaction, message: MessageRow, manifest: Manifest, row: OrderRow
) -> set[str]:
    """Destroy what an order names, pass it on and answer; return the lanes to wake."""
    kind, names, now_ms = OrderKind(row.kind), set(row.names), services.now_ms()
    pairs = [(entry.name, reader) for entry in manifest.sections if entry.name in names for reader in entry.readers]
    places = await _places(tx, message, row, pairs)
    await add_places(tx, places)
    await destroy_sections(services, tx, message, names, words=kind is OrderKind.ERASE)
    moved = await move_sections(tx, message.number, kind, pairs, now_ms)
    await add_rung_events(tx, message.number, f"order-{kind.value}", pairs, now_ms)
    await note_destroyed(tx, places, now_ms)
    busy_until_ms = await _drop_waiting(tx, message, manifest, now_ms)
    nobody = [place for place in places if not place.name]
    lanes = {f"peer:{message.peer}"}
    await answer(services, tx, message, row, pairs)
    if nobody:
        await note_confirmed(tx, nobody, now_ms, NOBODY)
        await answer(services, tx, message, row, [place.pair for place in nobody], confirmed=True, by_borough=True)
    for name in sorted({place.name for place in places if place.name}):
        delivery = new_delivery(
            f"agency:{name}",
            PASSED_ON,
            now_ms=now_ms,
            deadline_ms=now_ms + _PASSED_ON_FOR_MS,
            urgent=True,
            position=row.number,
            message=message.number,
            agency=name,
            # What is on its way to the agency now must not come after the order.
            not_before_ms=busy_until_ms.get(name, 0),
        )
        await enqueue(tx, [delivery])
        lanes.add(f"agency:{name}")
    services.counters.add("sections_destroyed", len(moved))
    return lanes


async def _places(tx: Transaction, message: MessageRow, row: OrderRow, pairs: list[tuple[str, str]]) -> list[PlaceRow]:
    """Each section at each kind, with every agency that may have it; one place without a name where there is none."""
    placed = {(found.section, found.agency): found for found in await placements_of(tx, message.number)}
    seen = {(attempt.section, attempt.agency) for attempt in await attempts_of(tx, message.number)}
    said = {(word.section, word.agency, word.name) for word in await acknowledgements_of(tx, message.number)}
    places: list[PlaceRow] = []
    for section, kind in pairs:
        here = placed.get((section, kind))
        names = {name for at, name in seen if at == section and kind_of(name) == kind}
        names |= {name for at, of, name in said if (at, of) == (section, kind) and name}
        if here is not None and here.given_to is not None:
            names.add(here.given_to)
        had = None if here is None else here.rung
        places += [PlaceRow(row.number, section, kind, name, had) for name in sorted(names) or [""]]
    return places


async def _drop_waiting(tx: Transaction, message: MessageRow, manifest: Manifest, now_ms: int) -> dict[str, int]:
    """Drop what waits to be delivered of sections that are over; until when agencies have something on its way.

    What somebody has in hand ends by itself: there is nothing left of it to be tried again.
    """
    placed = {(found.section, found.agency): found for found in await placements_of(tx, message.number)}
    readers = {(entry.name, kind) for entry in manifest.sections for kind in entry.readers}
    left = {pair for pair in readers if pair not in placed or not is_over(placed[pair].rung)}
    kinds = {kind for _, kind in left}
    names = {placed[pair].given_to for pair in left if pair in placed}
    busy: dict[str, int] = {}
    for number, kind, agency, until_ms, _ in await waiting_sections(tx, message.number):
        if kind == MANIFEST:
            continue
        if until_ms > now_ms and kind != ROUTE:
            busy[agency or ""] = max(until_ms, busy.get(agency or "", 0))
        elif agency not in (kinds if kind == ROUTE else names):
            await remove_delivery(tx, number)
    return busy
