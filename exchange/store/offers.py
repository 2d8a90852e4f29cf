"""What agencies may fetch: a row of the outbox that is `offered`, and one offer for each of its sections.

* The row stays until the agency has said of every section that it has it. Only then is anything delivered.
* Each offer has a number of its agency's feed. Numbers are given once, and in the order of commits: what has a lower
  number than another was to be seen before it. Rows of the outbox have no such numbers: SQLite gives some again, and a
  row that was held comes back behind those that came after it.
* What is offered anew, for whatever reason, has a new number. So no cursor is ever past it.
* An offer can be seen while its row is `offered`. It can be acknowledged whatever became of the row meanwhile.

`offers_in_order (agency, rank, number)` serves the feed, `offers_by_event (agency, event_id)` the acknowledgements.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from exchange.store.outbox import URGENT_RANK, USUAL_RANK, Delivery
from exchange.store.tables import feeds, offers, outbox
from exchange.store.transaction import Sql, Transaction

OFFERED: Final = "offered"


@dataclass(frozen=True, slots=True)
class OfferRow:
    """A section that an agency may fetch."""

    delivery: int
    section: str
    agency: str
    event_id: str
    rank: int
    number: int
    offered_at_ms: int
    fetched_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class FeedRow:
    """How far the numbers of an agency have come, and when it last asked, roughly."""

    agency: str
    word: str
    head: int
    asked_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much an agency is offered, and since when."""

    agency: str
    sections: int
    since_ms: int
    urgent_since_ms: int | None
    fetched: int


_FEED = tuple(feeds.c)
_OFFER = tuple(offers.c)
_feed = Sql(select(*_FEED).where(feeds.c.agency == bindparam("agency")))
_feeds = Sql(select(*_FEED))
_add_feed = Sql(insert(feeds).values({column.name: bindparam(column.name) for column in _FEED}))
_highest = Sql(select(func.max(offers.c.number)).where(offers.c.agency == bindparam("agency")))
_set_head = Sql(update(feeds).where(feeds.c.agency == bindparam("key")).values(head=bindparam("new_head")))
_asked = Sql(update(feeds).where(feeds.c.agency == bindparam("key")).values(asked_at_ms=bindparam("now_ms")))
_take = Sql(
    update(outbox)
    .where(outbox.c.number == bindparam("key"), outbox.c.claimed_by == bindparam("claim"))
    .values(state=OFFERED, lease_until_ms=0, claimed_by=None)
)
_add = Sql(insert(offers).values({column.name: bindparam(column.name) for column in _OFFER}))
_after = Sql(
    select(*_OFFER)
    .select_from(offers.join(outbox, outbox.c.number == offers.c.delivery))
    .where(
        offers.c.agency == bindparam("agency"),
        outbox.c.state == OFFERED,
        or_(
            (offers.c.rank == URGENT_RANK) & (offers.c.number > bindparam("urgent")),
            (offers.c.rank == USUAL_RANK) & (offers.c.number > bindparam("usual")),
        ),
    )
    .order_by(offers.c.rank, offers.c.number)
    .limit(bindparam("most"))
)
_of_event = Sql(
    select(*_OFFER).where(offers.c.agency == bindparam("agency"), offers.c.event_id == bindparam("event_id"))
)
_is_this = (offers.c.delivery == bindparam("of"), offers.c.section == bindparam("named"))
_drop = Sql(delete(offers).where(*_is_this))
_fetched = Sql(update(offers).where(*_is_this).values(fetched_at_ms=bindparam("now_ms")))
_left = Sql(select(offers.c.section).where(offers.c.delivery == bindparam("delivery")).limit(1))
_drop_of_delivery = Sql(delete(offers).where(offers.c.delivery == bindparam("delivery")))
_drop_of_agency = Sql(delete(offers).where(offers.c.agency == bindparam("agency")))
_withdraw = Sql(
    update(outbox)
    .where(outbox.c.number == bindparam("key"), outbox.c.state == OFFERED)
    .values(state="due", lease_until_ms=0, claimed_by=None)
)
_hold = Sql(
    update(outbox)
    .where(outbox.c.number == bindparam("key"), outbox.c.state == OFFERED)
    .values(state="held", reason=bindparam("why"), lease_until_ms=0, claimed_by=None)
)
_deliveries_of = Sql(select(offers.c.delivery).where(offers.c.agency == bindparam("agency")).distinct())
_overdue = Sql(
    select(offers.c.delivery, outbox.c.lane)
    .select_from(offers.join(outbox, outbox.c.number == offers.c.delivery))
    .where(outbox.c.state == OFFERED, outbox.c.deadline_ms <= bindparam("now_ms"))
    .distinct()
)
_unanswered = Sql(
    select(*_OFFER)
    .select_from(offers.join(outbox, outbox.c.number == offers.c.delivery))
    .where(outbox.c.state == OFFERED, offers.c.fetched_at_ms <= bindparam("before_ms"))
    .order_by(offers.c.agency, offers.c.number)
    .limit(bindparam("most"))
)
_renumber = Sql(update(offers).where(*_is_this).values(number=bindparam("new_number"), fetched_at_ms=None))
_waiting = Sql(
    select(
        offers.c.agency,
        offers.c.rank,
        func.count(),
        func.min(offers.c.offered_at_ms),
        func.count(offers.c.fetched_at_ms),
    )
    .select_from(offers.join(outbox, outbox.c.number == offers.c.delivery))
    .where(outbox.c.state == OFFERED)
    .group_by(offers.c.agency, offers.c.rank)
)


async def add_feed(tx: Transaction, agency_id: str) -> FeedRow:
    """Begin the numbers of an agency, behind those that a restored store has."""
    highest = await tx.fetch_one(_highest, {"agency": agency_id})
    row = FeedRow(agency_id, secrets.token_hex(8), int((highest and highest[0]) or 0))
    await tx.execute(_add_feed, {column.name: getattr(row, column.name) for column in _FEED})
    return row


async def feed_of(tx: Transaction, agency_id: str) -> FeedRow | None:
    """The feed of an agency; a restored store has none before it is asked for."""
    row = await tx.fetch_one(_feed, {"agency": agency_id})
    return None if row is None else FeedRow(*row)


async def all_feeds(tx: Transaction) -> dict[str, FeedRow]:
    """Every feed, by the id of its agency."""
    return {str(row[0]): FeedRow(*row) for row in await tx.fetch_all(_feeds, {})}


async def note_asked(tx: Transaction, agency_id: str, now_ms: int) -> None:
    """Note that an agency has asked."""
    await tx.execute(_asked, {"key": agency_id, "now_ms": now_ms})


async def _numbers(tx: Transaction, agency_id: str, count: int) -> range:
    feed = await feed_of(tx, agency_id) or await add_feed(tx, agency_id)
    await tx.execute(_set_head, {"key": agency_id, "new_head": feed.head + count})
    return range(feed.head + 1, feed.head + 1 + count)


async def offer(
    tx: Transaction, row: Delivery, agency_id: str, sections: Sequence[tuple[str, str]], now_ms: int
) -> bool:
    """Offer sections of a claimed delivery, each with its event's id; False where another has claimed it since."""
    if await tx.execute(_take, {"key": row.number, "claim": row.claim}) != 1:
        return False
    await tx.execute(_drop_of_delivery, {"delivery": row.number})
    numbers = await _numbers(tx, agency_id, len(sections))
    made = [
        OfferRow(row.number, section, agency_id, event_id, row.rank, number, now_ms)
        for (section, event_id), number in zip(sections, numbers, strict=True)
    ]
    await tx.execute_many(_add, [{column.name: getattr(one, column.name) for column in _OFFER} for one in made])
    return True


async def offers_after(tx: Transaction, agency_id: str, urgent: int, usual: int, most: int) -> list[OfferRow]:
    """What an agency may fetch past a number of what is urgent, and one of the rest: urgent first, each in order."""
    where = {"agency": agency_id, "urgent": urgent, "usual": usual, "most": most}
    return [OfferRow(*row) for row in await tx.fetch_all(_after, where)]


async def offers_of_event(tx: Transaction, agency_id: str, event_id: str) -> list[OfferRow]:
    """What an agency was offered under an event's id, whatever became of the delivery meanwhile."""
    rows = await tx.fetch_all(_of_event, {"agency": agency_id, "event_id": event_id})
    return [OfferRow(*row) for row in rows]


async def note_fetched(tx: Transaction, rows: Iterable[OfferRow], now_ms: int) -> None:
    """Note that offers were given out."""
    await tx.execute_many(_fetched, [{"of": row.delivery, "named": row.section, "now_ms": now_ms} for row in rows])


async def settle(tx: Transaction, row: OfferRow) -> bool:
    """End an offer; True where it was the last one of its delivery."""
    await tx.execute(_drop, {"of": row.delivery, "named": row.section})
    return await tx.fetch_one(_left, {"delivery": row.delivery}) is None


async def withdraw(tx: Transaction, deliveries: Iterable[int]) -> None:
    """Offer deliveries no more: their lane decides anew. What was fetched of them can be acknowledged still."""
    await tx.execute_many(_withdraw, [{"key": number} for number in deliveries])


async def withdraw_all(tx: Transaction, agency_id: str) -> None:
    """The same for everything that an agency is offered, which is going: nobody will acknowledge it."""
    await withdraw(tx, [int(row[0]) for row in await tx.fetch_all(_deliveries_of, {"agency": agency_id})])
    await tx.execute(_drop_of_agency, {"agency": agency_id})


async def hold_offered(tx: Transaction, delivery: int, reason: str) -> bool:
    """Keep an offered delivery until a person releases it; False where it is offered no more."""
    return await tx.execute(_hold, {"key": delivery, "why": reason}) == 1


async def overdue_offers(tx: Transaction, now_ms: int) -> dict[int, str]:
    """Offered deliveries that have passed their deadline, and their lanes."""
    return {int(row[0]): str(row[1]) for row in await tx.fetch_all(_overdue, {"now_ms": now_ms})}


async def unanswered_offers(tx: Transaction, before_ms: int, most: int) -> list[OfferRow]:
    """What was given out before a time and not acknowledged since."""
    rows = await tx.fetch_all(_unanswered, {"before_ms": before_ms, "most": most})
    return [OfferRow(*row) for row in rows]


async def renumber(tx: Transaction, rows: Iterable[OfferRow]) -> None:
    """Give offers new numbers: a cursor that is past them is so no more."""
    for row in rows:
        (number,) = await _numbers(tx, row.agency, 1)
        await tx.execute(_renumber, {"of": row.delivery, "named": row.section, "new_number": number})


async def all_waiting(tx: Transaction) -> dict[str, Waiting]:
    """How much each agency is offered, by the agency's id."""
    found: dict[str, Waiting] = {}
    for agency_id, rank, count, since_ms, fetched in await tx.fetch_all(_waiting, {}):
        urgent_ms = int(since_ms) if rank == URGENT_RANK else None
        other = found.get(str(agency_id), Waiting(str(agency_id), 0, int(since_ms), None, 0))
        found[str(agency_id)] = Waiting(
            str(agency_id),
            other.sections + int(count),
            min(other.since_ms, int(since_ms)),
            urgent_ms if urgent_ms is not None else other.urgent_since_ms,
            other.fetched + int(fetched),
        )
    return found
