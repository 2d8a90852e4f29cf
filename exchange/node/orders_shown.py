"""What orders have come to, for whoever may ask the node: said honestly, where nobody has confirmed."""

from typing import Any, Final

from exchange.node.services import Services, moment
from exchange.store.messages import OUTBOUND
from exchange.store.orders import KnownOrder, PlaceRow, latest_orders, open_orders, orders_of, places_of
from exchange.store.transaction import Transaction

_MOST: Final = 1000
_NO_END: Final = 2**53


async def list_orders(services: Services, *, unconfirmed: bool) -> dict[str, Any]:
    """The latest thousand orders, newest first; or those that somebody has not confirmed, oldest first."""

    async def view(tx: Transaction) -> list[dict[str, Any]]:
        found = await (open_orders(tx, _NO_END, _MOST) if unconfirmed else latest_orders(tx, _MOST))
        return [describe_order(known, await places_of(tx, known.order.number)) for known in found]

    return {"items": await services.store.read(view)}


def describe_order(known: KnownOrder, places: list[PlaceRow]) -> dict[str, Any]:
    """An order, and how far it has come at each place."""
    order = known.order
    return {
        "number": order.number,
        "id": known.message_id,
        "direction": known.direction,
        "peer": known.peer,
        "kind": order.kind,
        "reason": order.reason,
        "sections": order.names,
        "ordered_at": moment(order.at_ms),
        "ordered_by": order.ordered_by,
        "outcome": order.outcome,
        "places": [
            {
                "section": place.section,
                "agency": place.agency,
                "name": place.name or None,
                **_place(place),
            }
            for place in places
        ],
        "unconfirmed": sum(place.confirmed_at_ms is None for place in places),
    }


def _place(place: PlaceRow) -> dict[str, Any]:
    return {
        "had": place.had,
        "destroyed_at": _at(place.destroyed_at_ms),
        "told_at": _at(place.told_at_ms),
        "confirmed_at": _at(place.confirmed_at_ms),
        "confirmed_by": place.confirmed_by,
    }


def _at(at_ms: int | None) -> Any:
    return None if at_ms is None else moment(at_ms)


async def orders_by_place(tx: Transaction, number: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The latest order about each section of a message at each kind of agency."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for order in await orders_of(tx, number):
        by_pair: dict[tuple[str, str], list[PlaceRow]] = {}
        for place in await places_of(tx, order.number):
            by_pair.setdefault(place.pair, []).append(place)
        for pair, places in by_pair.items():
            # Several agencies may have had it: it is confirmed when the last of them has.
            slowest = max(places, key=lambda place: _NO_END if place.confirmed_at_ms is None else place.confirmed_at_ms)
            found[pair] = {
                "kind": order.kind,
                "reason": order.reason,
                "ordered_at": moment(order.at_ms),
                "ordered_by": order.ordered_by,
                "outcome": order.outcome,
                **_place(slowest),
                "text": sentence(order.outcome, slowest),
            }
    return found


def sentence(outcome: str | None, place: PlaceRow) -> str:
    """How far an order has come at a place, and what nobody can know."""
    if outcome == "never-left":
        return "The message had not left this node: nobody elsewhere has read it."
    if outcome == "not-there":
        return "The other node says that it does not have the message."
    if place.confirmed_by == "nobody":
        return "No agency there had been given it."
    if place.confirmed_at_ms is not None:
        who = f"the borough, for {place.agency}," if place.confirmed_by == "borough" else place.agency
        signed = ", signed by its own key" if place.confirmed_by == "agency-signed" else ""
        return f"Destroyed at the node, and {who} has confirmed{signed}. A person may have read it before."
    if place.destroyed_at_ms is None:
        return f"The other node has not destroyed it yet. A person at {place.agency} may read it, or have read it."
    return (
        f"Destroyed at the node; {place.agency} has not confirmed. A person there may have read it, and have it still."
    )


def is_ours(known: KnownOrder) -> bool:
    """Whether this node gave an order."""
    return known.direction == OUTBOUND
