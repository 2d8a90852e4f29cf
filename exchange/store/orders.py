"""Orders to recall or erase sections: of this node about what it sent, of peers about what arrived; who has done what.

* An order is of one message; its places are the sections at the kinds of agency that read them. At the node that
  received the message there is a place for each agency that may have had the section, or one without a name.
* A place is destroyed when the node has destroyed what it had, told when the agency has the order, and confirmed when
  the agency, or its borough for it, has said that it did the same.

The unique (message, leaf hash) serves what is asked of one message, the partial indexes what is still to be done.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, func, insert, select, update

from exchange.store.messages import INBOUND, OUTBOUND
from exchange.store.outbox import ORDER
from exchange.store.tables import messages, order_places, orders, outbox
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order. `outcome` says why it came to nothing, where it did."""

    number: int
    message: int
    leaf_hash: bytes
    kind: str
    reason: str
    sections: str
    statement: bytes
    proof: str | None
    position: int | None
    ordered_by: str | None
    outcome: str | None
    scrubbed: int
    at_ms: int
    stored_at_ms: int

    @property
    def names(self) -> tuple[str, ...]:
        """The sections that it is of."""
        return tuple(self.sections.split(","))


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A section at a kind of agency, and here at one agency by name; `had` is how it stood when it was ordered."""

    order_number: int
    section: str
    agency: str
    name: str
    had: str | None
    destroyed_at_ms: int | None = None
    told_at_ms: int | None = None
    confirmed_at_ms: int | None = None
    confirmed_by: str | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """The section, and the kind of agency."""
        return self.section, self.agency


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order, with the message that it is about."""

    order: OrderRow
    message_id: str
    direction: str
    peer: str


_ORDER = tuple(orders.c)
_ADDED = tuple(column.name for column in _ORDER if column.name != "number")
_PLACE = tuple(order_places.c)
_add = Sql(insert(orders).values({name: bindparam(name) for name in _ADDED}).returning(orders.c.number))
_of_message = Sql(select(*_ORDER).where(orders.c.message == bindparam("message")).order_by(orders.c.number))
_by_number = Sql(select(*_ORDER).where(orders.c.number == bindparam("number")))
_by_hash = Sql(
    select(*_ORDER).where(orders.c.message == bindparam("message"), orders.c.leaf_hash == bindparam("leaf_hash"))
)
_unscrubbed = Sql(select(orders.c.number).where(orders.c.scrubbed == 0))
_scrubbed = Sql(update(orders).where(orders.c.number == bindparam("key")).values(scrubbed=1))
_outcome = Sql(update(orders).where(orders.c.number == bindparam("key")).values(outcome=bindparam("why")))
_known = select(*_ORDER, messages.c.message_id, messages.c.direction, messages.c.peer).select_from(
    orders.join(messages, messages.c.number == orders.c.message)
)
_unconfirmed = (
    select(order_places.c.order_number)
    .where(order_places.c.order_number == orders.c.number, order_places.c.confirmed_at_ms.is_(None))
    .exists()
)
_latest = Sql(_known.order_by(orders.c.number.desc()).limit(bindparam("most")))
_open = Sql(
    _known.where(_unconfirmed, orders.c.stored_at_ms <= bindparam("before_ms"))
    .order_by(orders.c.number)
    .limit(bindparam("most"))
)
_of_peer = Sql(
    _known.where(messages.c.peer == bindparam("peer"), messages.c.direction == bindparam("direction")).order_by(
        orders.c.number
    )
)
_to_repeat = Sql(
    _known.where(
        messages.c.peer == bindparam("peer"),
        messages.c.direction == OUTBOUND,
        _unconfirmed,
        ~select(outbox.c.number)
        .where(outbox.c.message == orders.c.message, outbox.c.kind == ORDER, outbox.c.position == orders.c.position)
        .exists(),
    ).order_by(orders.c.number)
)
_add_place = Sql(insert(order_places).values({column.name: bindparam(column.name) for column in _PLACE}))
_places = Sql(
    select(*_PLACE)
    .where(order_places.c.order_number == bindparam("number"))
    .order_by(order_places.c.section, order_places.c.agency, order_places.c.name)
)
_mine = (
    order_places.c.order_number == bindparam("key"),
    order_places.c.section == bindparam("at_section"),
    order_places.c.agency == bindparam("at_agency"),
    order_places.c.name == bindparam("at_name"),
)
_destroyed = Sql(
    update(order_places)
    .where(*_mine, order_places.c.destroyed_at_ms.is_(None))
    .values(destroyed_at_ms=bindparam("now_ms"))
)
_told = Sql(
    update(order_places).where(*_mine, order_places.c.told_at_ms.is_(None)).values(told_at_ms=bindparam("now_ms"))
)
_confirmed = Sql(
    update(order_places)
    .where(*_mine, order_places.c.confirmed_at_ms.is_(None))
    .values(
        confirmed_at_ms=bindparam("now_ms"),
        confirmed_by=bindparam("who"),
        told_at_ms=func.coalesce(order_places.c.told_at_ms, bindparam("now_ms")),
    )
)


async def add_order(tx: Transaction, row: OrderRow) -> int:
    """Keep an order; return its number (`row.number` is not used)."""
    return await tx.insert(_add, {name: getattr(row, name) for name in _ADDED})


async def orders_of(tx: Transaction, message: int) -> list[OrderRow]:
    """The orders about a message, oldest first."""
    return [OrderRow(*row) for row in await tx.fetch_all(_of_message, {"message": message})]


async def order_by_number(tx: Transaction, number: int) -> OrderRow | None:
    """An order, if it is here still."""
    row = await tx.fetch_one(_by_number, {"number": number})
    return OrderRow(*row) if row else None


async def order_by_hash(tx: Transaction, message: int, leaf_hash: bytes) -> OrderRow | None:
    """An order about a message, by its leaf hash."""
    row = await tx.fetch_one(_by_hash, {"message": message, "leaf_hash": leaf_hash})
    return OrderRow(*row) if row else None


async def unscrubbed_orders(tx: Transaction) -> list[int]:
    """The orders of which what was destroyed may still be in older pages."""
    return [int(row[0]) for row in await tx.fetch_all(_unscrubbed, {})]


async def note_scrubbed(tx: Transaction, numbers: Iterable[int]) -> None:
    """Note that older pages are gone."""
    await tx.execute_many(_scrubbed, [{"key": number} for number in numbers])


async def note_outcome(tx: Transaction, number: int, why: str) -> None:
    """Note why an order came to nothing."""
    await tx.execute(_outcome, {"key": number, "why": why})


async def latest_orders(tx: Transaction, most: int) -> list[KnownOrder]:
    """The latest orders, of this node and of peers, newest first."""
    return [_known_order(row) for row in await tx.fetch_all(_latest, {"most": most})]


async def open_orders(tx: Transaction, before_ms: int, most: int) -> list[KnownOrder]:
    """Orders that were stored up to a time and that somebody has not confirmed, oldest first."""
    return [_known_order(row) for row in await tx.fetch_all(_open, {"before_ms": before_ms, "most": most})]


async def orders_of_peer(tx: Transaction, peer: str) -> list[OrderRow]:
    """The orders that a peer gave, oldest first."""
    rows = await tx.fetch_all(_of_peer, {"peer": peer, "direction": INBOUND})
    return [_known_order(row).order for row in rows]


async def orders_to_repeat(tx: Transaction, peer: str) -> list[OrderRow]:
    """This node's orders to a peer that somebody there has not confirmed, and that are not on their way."""
    return [_known_order(row).order for row in await tx.fetch_all(_to_repeat, {"peer": peer})]


def _known_order(row: tuple[object, ...]) -> KnownOrder:
    return KnownOrder(OrderRow(*row[:-3]), *row[-3:])  # type: ignore[arg-type]


async def add_places(tx: Transaction, rows: Iterable[PlaceRow]) -> None:
    """Keep what an order is of."""
    await tx.execute_many(_add_place, [{name: getattr(row, name) for name in row.__dataclass_fields__} for row in rows])


async def places_of(tx: Transaction, number: int) -> list[PlaceRow]:
    """What an order is of, and how far that has come."""
    return [PlaceRow(*row) for row in await tx.fetch_all(_places, {"number": number})]


def _keys(rows: Iterable[PlaceRow], now_ms: int, **more: object) -> list[dict[str, object]]:
    return [
        {
            "key": row.order_number,
            "at_section": row.section,
            "at_agency": row.agency,
            "at_name": row.name,
            "now_ms": now_ms,
            **more,
        }
        for row in rows
    ]


async def note_destroyed(tx: Transaction, rows: Iterable[PlaceRow], at_ms: int) -> None:
    """Note that the node has destroyed what it had; the first time counts."""
    await tx.execute_many(_destroyed, _keys(rows, at_ms))


async def note_told(tx: Transaction, rows: Iterable[PlaceRow], at_ms: int) -> None:
    """Note that agencies have the order; the first time counts."""
    await tx.execute_many(_told, _keys(rows, at_ms))


async def note_confirmed(tx: Transaction, rows: Iterable[PlaceRow], at_ms: int, who: str) -> None:
    """Note that it was confirmed, and by whom; the first time counts."""
    await tx.execute_many(_confirmed, _keys(rows, at_ms, who=who))
