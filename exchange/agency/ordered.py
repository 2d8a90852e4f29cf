"""An order of the sender about a section that this agency may have: proven, carried out, and confirmed by signature.

1. the card of the borough that gave it holds under its own keys; where the agency knows that borough, they are those;
2. the order stands in that borough's log, and says what the event says: message, section, to recall or to erase;
3. what is kept of that section here is of that borough, by what it has signed.

Source: docs/protocol.md, "Orders".
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from exchange.agency.errors import NotOpened, OtherBorough
from exchange.agency.event import OrderEvent
from exchange.agency.keys import AgencyKeys
from exchange.agency.senders import KnownSenders
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import Origin
from exchange.crypto.statement import leaf_hash
from exchange.schema.acknowledgement import sign_acknowledgement
from exchange.schema.card_file import read_card_file
from exchange.schema.errors import SchemaError
from exchange.schema.events import SECTION_ERASED, SECTION_RECALLED, section_event_id
from exchange.schema.succession import all_keys, verify_by_any
from exchange.schema.wire import (
    ORDER,
    ORDERED,
    VERSION,
    Acknowledgement,
    Order,
    OrderKind,
    ProvenStatement,
    decode_wire,
    order_decoder,
)

_KINDS: Final = {SECTION_RECALLED: OrderKind.RECALL, SECTION_ERASED: OrderKind.ERASE}


@dataclass(frozen=True, slots=True)
class ProvenOrder:
    """An order about one section; `section_event` is the id under which that section came to this agency."""

    order: Order
    leaf_hash: bytes
    section: str
    section_event: str
    #: Whether the borough is one that the agency knows.
    known: bool


def read_order(event: OrderEvent, senders: KnownSenders | None = None) -> ProvenOrder:
    """Prove an order.

    Raises:
        NotOpened: it is not proven.
        OtherBorough: the event says something else than the borough has signed.
        SenderChanged: the borough is known here by other keys.
    """
    data = event.data
    try:
        card = read_card_file(data.order.card)
        origin = Origin(card.card.origin)
        item = ProvenStatement(statement=data.order.statement, proof=data.order.proof.decode())
        verified = verify_by_any(item, origin, all_keys(card.keys, origin, card.rotations))
        if verified.statement.type != ORDER:
            raise NotOpened("what the sender signed is no order")
        order = decode_wire(order_decoder, verified.statement.body)
    except (CryptoError, SchemaError, UnicodeDecodeError) as error:
        raise NotOpened(f"the order is not proven: {error}") from None
    known = (senders or KnownSenders()).knows(card)
    said = (order.origin, order.recipient, order.message_id, order.kind)
    if said != (card.card.origin, event.node, data.message_id, _KINDS[event.type]):
        raise OtherBorough("the event says something else than the sender signed")
    if order.sections and data.section not in order.sections:
        raise OtherBorough("the sender has ordered nothing about that section")
    section_event = section_event_id(order.leaf_hash, data.section, data.agency)
    return ProvenOrder(order, leaf_hash(data.order.statement), data.section, section_event, known)


def sign_confirmation(proven: ProvenOrder, kind: str, keys: AgencyKeys, now: datetime) -> dict[str, Any]:
    """What an agency says when it has carried out an order: signed, so that its node cannot say it for it."""
    order = proven.order
    said = Acknowledgement(
        version=VERSION,
        message_id=order.message_id,
        leaf_hash=order.leaf_hash,
        section=proven.section,
        agency=kind,
        rung=ORDERED[order.kind],
        origin=order.recipient,
        recipient=order.origin,
        at=now,
        order=proven.leaf_hash,
    )
    signed = sign_acknowledgement(said, keys.signing, keys.vkeys(), int(now.timestamp()))
    return {"acknowledgement": msgspec.to_builtins(signed)}
