"""Answer a sender's order: that this node has destroyed what it had, and then that its agencies have.

* An agency has confirmed with its 2xx. Where the message was sealed to a key of its own, and it has keys to sign by, it
  has confirmed with what it has signed, and only then.
* The borough's people may say it for an agency that cannot; the receipt says so.
* Where several agencies have had a section for one kind of reader, it is confirmed when the last of them has.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

from exchange.handover.holding import By
from exchange.node.agency_keys import signer_for
from exchange.node.errors import AgencySigns
from exchange.node.ordering import TRIED_FOR_MS
from exchange.node.rerouting import manifest_of
from exchange.node.sections_here import Speaker
from exchange.node.services import Services, moment
from exchange.schema.acknowledgement import ProvenAcknowledgement, prove_acknowledgement
from exchange.schema.errors import AcknowledgementInvalid
from exchange.schema.wire import (
    ORDERED,
    RECEIPT,
    VERSION,
    AgencyStatement,
    OrderKind,
    Placement,
    Receipt,
    encode_wire,
)
from exchange.store.errors import NotFound
from exchange.store.messages import INBOUND, MessageRow, add_event, add_receipt, messages_by_id
from exchange.store.orders import OrderRow, PlaceRow, note_confirmed, note_told, orders_of, places_of
from exchange.store.outbox import STATEMENT, enqueue, new_delivery
from exchange.store.transaction import Transaction

BY_AGENCY: Final = "agency"
BY_AGENCY_SIGNED: Final = "agency-signed"
BY_BOROUGH: Final = "borough"


async def answer(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    row: OrderRow,
    pairs: Sequence[tuple[str, str]],
    *,
    confirmed: bool = False,
    by_borough: bool = False,
    signed: AgencyStatement | None = None,
) -> None:
    """Sign a receipt to an order, and queue it for who gave it."""
    now_ms, rung = services.now_ms(), ORDERED[OrderKind(row.kind)]
    receipt = Receipt(
        version=VERSION,
        message_id=message.message_id,
        leaf_hash=message.leaf_hash,
        rung=rung,
        origin=services.configuration.origin,
        recipient=message.origin,
        at=moment(now_ms),
        placements=tuple(Placement(section=section, agency=kind) for section, kind in pairs),
        by_borough=by_borough,
        acknowledgement=signed,
        order=row.leaf_hash,
        confirmed=confirmed,
    )
    entry = await tx.sign(RECEIPT, encode_wire(receipt))
    await add_receipt(tx, message.number, rung.value, entry.leaf_hash, entry.statement, now_ms, position=entry.position)
    delivery = new_delivery(
        f"peer:{message.peer}",
        STATEMENT,
        now_ms=now_ms,
        deadline_ms=now_ms + TRIED_FOR_MS,
        urgent=True,
        position=entry.position,
        message=message.number,
    )
    await enqueue(tx, [delivery])


async def note_accepted(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    row: OrderRow,
    name: str,
    sections: Collection[str],
    signed: Sequence[AgencyStatement] = (),
    *,
    confirms: bool = True,
) -> bool:
    """An agency has accepted an order about sections, and has signed for some; whether it has confirmed anything.

    What was put into its folder is accepted, and says nothing of the agency: it does not confirm.
    """
    open_places = [
        place
        for place in await places_of(tx, row.number)
        if place.name == name and place.section in sections and place.confirmed_at_ms is None
    ]
    signer = await signer_for(tx, manifest_of(message), name)
    if signer is None and confirms:
        await _confirm(services, tx, message, row, open_places, BY_AGENCY)
        return bool(open_places)
    await note_told(tx, open_places, services.now_ms())
    found = False
    for statement in signed:
        try:
            proven = _prove(services, message, row, signer, statement)
        except AcknowledgementInvalid:
            continue  # it has the order, and has not confirmed it
        places = [place for place in open_places if place.pair == (proven.said.section, proven.said.agency)]
        await _confirm(services, tx, message, row, places, BY_AGENCY_SIGNED, statement)
        found = found or bool(places)
    return found


async def confirm_section(
    services: Services, speaker: Speaker, message_id: str, section: str, signed: AgencyStatement | None
) -> tuple[dict[str, Any], set[str]]:
    """Take the confirmation of an agency, or of the borough for it; also the lanes to wake.

    Raises:
        NotFound: nothing was ordered about such a section of that agency's.
        AgencySigns: the agency confirms with its own key.
        AcknowledgementInvalid: what it has signed does not hold, or is about something else.
    """

    async def operation(tx: Transaction) -> tuple[dict[str, Any], set[str]]:
        lanes: set[str] = set()
        found: list[tuple[MessageRow, OrderRow, list[PlaceRow]]] = []
        for message in await messages_by_id(tx, message_id):
            if message.direction == INBOUND:
                for row in await orders_of(tx, message.number):
                    places = await places_of(tx, row.number)
                    mine = [place for place in places if (place.name, place.section) == (speaker.name, section)]
                    if mine:
                        found.append((message, row, mine))
        if not found:
            raise NotFound(f"nothing was ordered about {message_id}/{section} of agency {speaker.name}")
        failed: AcknowledgementInvalid | None = None
        for message, row, mine in found:
            signer = await signer_for(tx, manifest_of(message), speaker.name)
            by = BY_BOROUGH if speaker.by is By.BOROUGH else BY_AGENCY
            if signed is not None:
                try:
                    _prove(services, message, row, signer, signed)
                except AcknowledgementInvalid as error:
                    failed = failed or error
                    continue
                by = BY_AGENCY_SIGNED
            elif signer is not None and speaker.by is By.AGENCY:
                raise AgencySigns("the sender takes only what this agency has signed with its own key")
            fresh = [place for place in mine if place.confirmed_at_ms is None]
            if fresh:
                await _confirm(services, tx, message, row, fresh, by, signed)
                lanes.add(f"peer:{message.peer}")
            if signed is not None:
                failed = None
                break
        if failed is not None:
            raise failed
        return {"id": f"{message_id}/{section}", "confirmed": True, "repeated": not lanes}, lanes

    document, lanes = await services.store.write(operation)
    services.counters.add("orders_confirmed" if lanes else "orders_confirmed_again")
    if lanes:
        services.changes.notify()
    return document, lanes


def _prove(
    services: Services, message: MessageRow, row: OrderRow, signer: bytes | None, signed: AgencyStatement
) -> ProvenAcknowledgement:
    proven = prove_acknowledgement(signed)
    said = proven.said
    if signer is None or proven.signer != signer:
        raise AcknowledgementInvalid("it is not signed with the keys to which the sender sealed this section")
    wanted = (message.message_id, message.leaf_hash, services.configuration.origin, message.origin, row.leaf_hash)
    if (said.message_id, said.leaf_hash, said.origin, said.recipient, said.order) != wanted:
        raise AcknowledgementInvalid("the agency has signed something else than the order")
    if said.rung is not ORDERED[OrderKind(row.kind)] or said.section not in row.names:
        raise AcknowledgementInvalid("the agency has signed something else than the order")
    return proven


async def _confirm(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    row: OrderRow,
    fresh: Sequence[PlaceRow],
    by: str,
    signed: AgencyStatement | None = None,
) -> None:
    """Note who has confirmed, and sign for each kind of reader of which all have."""
    if not fresh:
        return
    now_ms = services.now_ms()
    await note_confirmed(tx, fresh, now_ms, by)
    waiting = {place.pair for place in await places_of(tx, row.number) if place.confirmed_at_ms is None}
    pairs = sorted({place.pair for place in fresh} - waiting)
    if pairs:
        await answer(services, tx, message, row, pairs, confirmed=True, by_borough=by == BY_BOROUGH, signed=signed)
    for name in sorted({place.name for place in fresh}):
        sections = ", ".join(sorted({place.section for place in fresh if place.name == name}))
        await add_event(tx, message.number, "order-confirmed", now_ms, agency=name, detail=sections)
