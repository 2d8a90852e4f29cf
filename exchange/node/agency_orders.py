"""Orders of senders as agencies get them: a reference, and what proves that the sender has ordered it. No content.

* An agency is told of each section that it may have had, until it has accepted that.
* With the order come its proof and its sender's card: the node cannot order anything in a sender's name.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from exchange.node.services import Services, moment
from exchange.node.webhook import event_body
from exchange.schema.events import SECTION_ERASED, SECTION_RECALLED, order_event_id, section_event_id
from exchange.schema.wire import AgencyStatement, Manifest, OrderKind
from exchange.store.errors import NotFound
from exchange.store.messages import MessageRow, message_by_number
from exchange.store.orders import OrderRow, order_by_number, places_of
from exchange.store.transaction import Transaction

_TYPES: Final = {OrderKind.RECALL: SECTION_RECALLED, OrderKind.ERASE: SECTION_ERASED}


@dataclass(frozen=True, slots=True)
class PassedOn:
    """An order, with the card of the borough that gave it."""

    row: OrderRow
    card: bytes


class _Said(msgspec.Struct, frozen=True):
    acknowledgement: AgencyStatement | None = None


async def order_for(tx: Transaction, number: int, name: str) -> tuple[MessageRow, OrderRow, set[str]]:
    """An order, and the sections about which an agency has not been told yet.

    Raises:
        NotFound: it is not here any more.
    """
    row = await order_by_number(tx, number)
    if row is None:
        raise NotFound("the order is not here any more")
    places = await places_of(tx, number)
    wanted = {
        place.section
        for place in places
        if place.name == name and place.told_at_ms is None and place.confirmed_at_ms is None
    }
    return await message_by_number(tx, row.message), row, wanted


def order_event(
    services: Services, message: MessageRow, manifest: Manifest, passed: PassedOn, section: str, agency: str
) -> bytes:
    """The event that tells an agency of an order about a section; `event` is the id of the section's own."""
    row = passed.row
    data: dict[str, Any] = {
        "message_id": manifest.message_id,
        "section": section,
        "from": manifest.from_area,
        "to": manifest.to_area,
        "urgent": True,
        "agency": agency,
        "reason": row.reason,
        "event": section_event_id(message.leaf_hash, section, agency),
        "order": {"statement": row.statement, "proof": (row.proof or "").encode(), "card": passed.card},
    }
    return event_body(
        order_event_id(row.leaf_hash, section, agency),
        _TYPES[OrderKind(row.kind)],
        services.configuration.origin,
        f"{manifest.message_id}/{section}",
        moment(row.at_ms),
        data,
    )


def signed_in(body: bytes) -> AgencyStatement | None:
    """What an agency has signed, in its answer to the event of an order."""
    try:
        return msgspec.json.decode(body, type=_Said).acknowledgement
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
