"""What is to be delivered: rows written in the transaction of the message itself.

* A lane is a destination: `peer:ORIGIN` or `agency:NAME`. Within a lane, urgent first, otherwise in order.
* A row to an agency is for all the sections of one message that it was given and has not accepted yet.
* A row in a lane `route:KIND` is for the sections of one message that no agency was given for that kind.
* A row is `due` until it is delivered and deleted, or `held` with a reason until a person releases it. One that an
  agency is to fetch is `offered` until the agency has it all (`offers.py`).
* A claim is a lease: a row whose worker died is claimed again when the lease has run out.
* Each claim has a name of its own. What comes of an attempt changes a row only while the row is still under that name:
  a worker that was slow, and lost its lease, undoes nothing of the one that has the row now.
* A row whose delivery failed may be put off by itself: a lease that nobody holds. It is due when that has run out.
* Where several replicas share the store, one at a time works on a lane: the one whose leases are in it.

`outbox_due (lane, state, rank, number)` serves every claim, `outbox_leased (lane)` the question who works on a lane.
"""

import enum
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, text, update

from exchange.store.errors import NotFound
from exchange.store.tables import lanes, messages, outbox, waiting_forms
from exchange.store.transaction import Sql, Transaction

MANIFEST: Final = "manifest"
STATEMENT: Final = "statement"
#: A receipt with what an agency said, to the sender; and a question to the counterpart, `position` its number.
WORD: Final = "word"
QUESTION: Final = "question"
OVERDUE: Final = "overdue"
#: An order to a peer; and one that a peer gave, to an agency that may have the section, `position` its number.
ORDER: Final = "order"
PASSED_ON: Final = "passed-on"
WEBHOOK: Final = "webhook"
ROUTE: Final = "route"
REPLAY: Final = "replay"
CARD: Final = "card"
SIGHTINGS: Final = "sightings"
FORM: Final = "form"
#: An attachment to a peer, chunk by chunk; and one that has come, to be opened and scanned.
ATTACHMENT: Final = "attachment"
OPENING: Final = "opening"

URGENT_RANK: Final = 0
USUAL_RANK: Final = 1


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of the outbox."""

    number: int
    lane: str
    rank: int
    kind: str
    position: int | None
    message: int | None
    agency: str | None
    attempts: int
    deadline_ms: int
    created_at_ms: int
    #: How often this delivery itself failed; `attempts` counts the claims.
    failures: int = 0
    #: The name of the claim; empty where nobody has claimed it.
    claim: str = ""


@dataclass(frozen=True, slots=True)
class LaneRow:
    """How a destination is doing."""

    lane: str
    failures: int
    next_attempt_ms: int
    last_error: str | None
    #: The destination takes no more for now, but of what is urgent.
    urgent_only: bool = False
    #: When the failures in a row began.
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A delivery that waits for a person."""

    number: int
    lane: str
    kind: str
    message_id: str | None
    agency: str | None
    created_at_ms: int
    reason: str


_DELIVERY = (
    outbox.c.number,
    outbox.c.lane,
    outbox.c.rank,
    outbox.c.kind,
    outbox.c.position,
    outbox.c.message,
    outbox.c.agency,
    outbox.c.attempts,
    outbox.c.deadline_ms,
    outbox.c.created_at_ms,
    outbox.c.failures,
)
_ADDED = (
    "lane",
    "state",
    "rank",
    "kind",
    "position",
    "message",
    "agency",
    "attempts",
    "lease_until_ms",
    "deadline_ms",
    "created_at_ms",
    "reason",
)
_add = Sql(insert(outbox).values({name: bindparam(name) for name in _ADDED}))
_add_one = Sql(insert(outbox).values({name: bindparam(name) for name in _ADDED}).returning(outbox.c.number))
_claim = Sql(
    select(*_DELIVERY)
    .where(outbox.c.lane == bindparam("lane"), outbox.c.state == "due", outbox.c.lease_until_ms <= bindparam("now_ms"))
    .order_by(outbox.c.rank, outbox.c.number)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
#: Where a lane fails: one that is refused again and again must not stand before all the others, urgent or not: it may
#: be made so that it is refused. Few rows are read so.
_claim_least_tried = Sql(
    select(*_DELIVERY)
    .where(outbox.c.lane == bindparam("lane"), outbox.c.state == "due", outbox.c.lease_until_ms <= bindparam("now_ms"))
    .order_by(outbox.c.attempts, outbox.c.rank, outbox.c.number)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_claim_urgent = Sql(
    select(*_DELIVERY)
    .where(
        outbox.c.lane == bindparam("lane"),
        outbox.c.state == "due",
        outbox.c.rank == URGENT_RANK,
        outbox.c.lease_until_ms <= bindparam("now_ms"),
    )
    .order_by(outbox.c.number)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_lease = Sql(
    update(outbox)
    .where(outbox.c.number == bindparam("key"))
    .values(lease_until_ms=bindparam("until_ms"), attempts=outbox.c.attempts + 1, claimed_by=bindparam("claim"))
)
_is_mine = (outbox.c.number == bindparam("key"), outbox.c.claimed_by == bindparam("claim"))
_renew = Sql(update(outbox).where(*_is_mine).values(lease_until_ms=bindparam("until_ms")))
_done = Sql(delete(outbox).where(*_is_mine))
_remove = Sql(delete(outbox).where(outbox.c.number == bindparam("number")))
_still_claimed = Sql(select(outbox.c.number).where(*_is_mine))
_unlease = Sql(update(outbox).where(*_is_mine).values(lease_until_ms=0, claimed_by=None))
#: What was put off stays so: a node that starts again and again must not use up the attempts of what waits.
_unlease_all = Sql(
    update(outbox)
    .where(outbox.c.lease_until_ms > 0, outbox.c.claimed_by.is_not(None))
    .values(lease_until_ms=0, claimed_by=None)
)
_put_off = Sql(
    update(outbox)
    .where(*_is_mine)
    .values(lease_until_ms=bindparam("until_ms"), claimed_by=None, failures=outbox.c.failures + 1)
)
_bring_forward = Sql(
    update(outbox)
    .where(
        outbox.c.lane == bindparam("key"),
        outbox.c.state == "due",
        outbox.c.lease_until_ms > text("0"),
        outbox.c.claimed_by.is_(None),
    )
    .values(lease_until_ms=0)
)
_bring_all_forward = Sql(
    update(outbox)
    .where(outbox.c.state == "due", outbox.c.lease_until_ms > text("0"), outbox.c.claimed_by.is_(None))
    .values(lease_until_ms=0)
)
_next_due = Sql(
    select(func.min(outbox.c.lease_until_ms)).where(
        outbox.c.lane == bindparam("lane"),
        outbox.c.lease_until_ms > text("0"),
        outbox.c.state == "due",
        outbox.c.claimed_by.is_(None),
    )
)
_hold_lane = Sql(
    update(outbox)
    .where(
        outbox.c.lane == bindparam("key"),
        or_(outbox.c.state == "due", outbox.c.state == "offered"),
        outbox.c.claimed_by.is_(None),
    )
    .values(state="held", reason=bindparam("why"), lease_until_ms=0)
)
#: The literal lets PostgreSQL see that `outbox_leased` serves.
_leased = outbox.c.lease_until_ms > text("0")
_unlease_of = Sql(
    update(outbox)
    .where(_leased, outbox.c.claimed_by.like(bindparam("pattern")))
    .values(lease_until_ms=0, claimed_by=None)
)
_worked_on = Sql(
    select(outbox.c.number)
    .where(
        outbox.c.lane == bindparam("lane"),
        _leased,
        outbox.c.lease_until_ms > bindparam("now_ms"),
        outbox.c.claimed_by.not_like(bindparam("pattern")),
    )
    .limit(1)
)
_hold = Sql(
    update(outbox).where(*_is_mine).values(state="held", reason=bindparam("why"), lease_until_ms=0, claimed_by=None)
)
_held_columns = (
    outbox.c.number,
    outbox.c.lane,
    outbox.c.kind,
    func.coalesce(messages.c.message_id, waiting_forms.c.message_id),
    outbox.c.agency,
    outbox.c.created_at_ms,
    outbox.c.reason,
)
_held = Sql(
    select(*_held_columns)
    .select_from(
        outbox.outerjoin(messages, outbox.c.message == messages.c.number).outerjoin(
            waiting_forms, outbox.c.number == waiting_forms.c.delivery
        )
    )
    .where(outbox.c.state == "held")
    .order_by(outbox.c.number)
    .limit(bindparam("most"))
)
_release = Sql(
    update(outbox)
    .where(outbox.c.number == bindparam("key"), outbox.c.state == "held")
    .values(state="due", reason=None, attempts=0, failures=0, lease_until_ms=0, deadline_ms=bindparam("deadline"))
    .returning(outbox.c.lane)
)
_release_lane = Sql(
    update(outbox)
    .where(outbox.c.lane == bindparam("key"), outbox.c.state == "held")
    .values(state="due", reason=None, attempts=0, failures=0, lease_until_ms=0, deadline_ms=bindparam("deadline"))
)
_release_reason = Sql(
    update(outbox)
    .where(outbox.c.lane == bindparam("key"), outbox.c.state == "held", outbox.c.reason == bindparam("why"))
    .values(state="due", reason=None, attempts=0, failures=0, lease_until_ms=0)
)
_release_reasons_like = Sql(
    update(outbox)
    .where(outbox.c.lane == bindparam("key"), outbox.c.state == "held", outbox.c.reason.like(bindparam("pattern")))
    .values(state="due", reason=None, attempts=0, failures=0, lease_until_ms=0, deadline_ms=bindparam("deadline"))
)
_webhooks_in = Sql(
    select(*_DELIVERY)
    .where(outbox.c.lane == bindparam("lane"), outbox.c.kind == WEBHOOK, outbox.c.claimed_by.is_(None))
    .order_by(outbox.c.number)
)
_replays = Sql(select(outbox.c.message).where(outbox.c.lane == bindparam("lane"), outbox.c.kind == REPLAY))
_urgent_waits = Sql(
    select(outbox.c.number)
    .where(outbox.c.lane == bindparam("lane"), outbox.c.state == "due", outbox.c.rank == URGENT_RANK)
    .limit(1)
)
_due_lanes = Sql(select(outbox.c.lane).where(outbox.c.state == "due").distinct())
_claimed_elsewhere = outbox.alias("elsewhere")
_claimable_lanes = Sql(
    select(outbox.c.lane)
    .where(
        outbox.c.state == "due",
        outbox.c.lease_until_ms <= bindparam("now_ms"),
        ~select(_claimed_elsewhere.c.number)
        .where(
            _claimed_elsewhere.c.lane == outbox.c.lane,
            _claimed_elsewhere.c.lease_until_ms > text("0"),
            _claimed_elsewhere.c.lease_until_ms > bindparam("now_ms"),
            _claimed_elsewhere.c.claimed_by.not_like(bindparam("pattern")),
        )
        .exists(),
    )
    .distinct()
)
_by_number = Sql(select(*_DELIVERY).where(outbox.c.number == bindparam("number")))
_overdue = Sql(
    select(*_DELIVERY).where(
        outbox.c.lane == bindparam("lane"), outbox.c.state == "due", outbox.c.deadline_ms <= bindparam("now_ms")
    )
)
_backlog = Sql(
    select(outbox.c.lane, outbox.c.state, func.count()).group_by(outbox.c.lane, outbox.c.state).order_by(outbox.c.lane)
)
_of_message = Sql(
    select(outbox.c.lane, outbox.c.state, outbox.c.kind, outbox.c.agency, outbox.c.reason)
    .where(outbox.c.message == bindparam("message"))
    .order_by(outbox.c.number)
)
_question = Sql(
    select(outbox.c.lane, outbox.c.state, outbox.c.kind, outbox.c.agency, outbox.c.reason).where(
        outbox.c.message == bindparam("message"), outbox.c.kind == QUESTION, outbox.c.position == bindparam("position")
    )
)
_LANE = (
    lanes.c.lane,
    lanes.c.failures,
    lanes.c.next_attempt_ms,
    lanes.c.last_error,
    lanes.c.urgent_only,
    lanes.c.since_ms,
)
_lane = Sql(select(*_LANE).where(lanes.c.lane == bindparam("lane")))
_failing_lanes = Sql(select(*_LANE))
_drop_lane = Sql(delete(lanes).where(lanes.c.lane == bindparam("lane")))
_add_lane = Sql(
    insert(lanes).values(
        lane=bindparam("lane"),
        failures=bindparam("failures"),
        next_attempt_ms=bindparam("next_attempt_ms"),
        last_error=bindparam("last_error"),
        urgent_only=bindparam("urgent_only"),
        since_ms=bindparam("since_ms"),
    )
)


def new_delivery(
    lane: str,
    kind: str,
    *,
    now_ms: int,
    deadline_ms: int,
    urgent: bool = False,
    position: int | None = None,
    message: int | None = None,
    agency: str | None = None,
    held: str | None = None,
    not_before_ms: int = 0,
) -> dict[str, object]:
    """A row for `enqueue`; `held` is the reason where it must wait for a person from the start."""
    return {
        "lane": lane,
        "state": "held" if held else "due",
        "rank": URGENT_RANK if urgent else USUAL_RANK,
        "kind": kind,
        "position": position,
        "message": message,
        "agency": agency,
        "attempts": 0,
        "lease_until_ms": not_before_ms,
        "deadline_ms": deadline_ms,
        "created_at_ms": now_ms,
        "reason": held,
    }


async def enqueue(tx: Transaction, rows: Sequence[dict[str, object]]) -> None:
    """Write deliveries made by `new_delivery`."""
    await tx.execute_many(_add, rows)


async def enqueue_one(tx: Transaction, row: dict[str, object]) -> int:
    """Write a delivery made by `new_delivery`; return its number."""
    return await tx.insert(_add_one, row)


class Order(enum.Enum):
    """Which due rows of a lane come first: the urgent ones; those tried least, and then the urgent; or they alone."""

    IN_TURN = enum.auto()
    LEAST_TRIED = enum.auto()
    ONLY_URGENT = enum.auto()


_CLAIMS: Final = {Order.IN_TURN: _claim, Order.LEAST_TRIED: _claim_least_tried, Order.ONLY_URGENT: _claim_urgent}


async def claim(
    tx: Transaction,
    lane: str,
    most: int,
    now_ms: int,
    lease_ms: int,
    order: Order = Order.IN_TURN,
    *,
    replica: str = "",
) -> list[Delivery]:
    """Lease up to `most` due rows of a lane."""
    statement = _CLAIMS[order]
    rows = await tx.fetch_all(statement, {"lane": lane, "now_ms": now_ms, "most": most})
    name = f"{replica}-{secrets.token_hex(8)}"
    deliveries = [Delivery(*(*row, name)) for row in rows]
    leases = [{"key": row.number, "until_ms": now_ms + lease_ms, "claim": name} for row in deliveries]
    await tx.execute_many(_lease, leases)
    return deliveries


def _named(row: Delivery) -> dict[str, object]:
    return {"key": row.number, "claim": row.claim}


async def renew(tx: Transaction, rows: Sequence[Delivery], until_ms: int) -> None:
    """Prolong the leases of rows that are still in hand."""
    await tx.execute_many(_renew, [{**_named(row), "until_ms": until_ms} for row in rows])


async def done(tx: Transaction, rows: Sequence[Delivery]) -> None:
    """Delete what was delivered, but for rows that somebody else has claimed since."""
    await tx.execute_many(_done, [_named(row) for row in rows])


async def done_if_claimed(tx: Transaction, row: Delivery) -> bool:
    """Delete what was delivered; False where somebody else has claimed it since."""
    return await tx.execute(_done, _named(row)) == 1


async def is_still_claimed(tx: Transaction, row: Delivery) -> bool:
    """Whether a row is still under the claim that it was taken under."""
    return await tx.fetch_one(_still_claimed, _named(row)) is not None


async def delivery_by_number(tx: Transaction, number: int) -> Delivery | None:
    """A row, whatever its state."""
    row = await tx.fetch_one(_by_number, {"number": number})
    return None if row is None else Delivery(*row)


async def remove_delivery(tx: Transaction, number: int) -> None:
    """Delete a row in whose place another has come, whoever has it."""
    await tx.execute(_remove, {"number": number})


async def give_back(tx: Transaction, rows: Sequence[Delivery]) -> int:
    """End the leases of rows that were not delivered; return how many were still under their claim."""
    return sum([await tx.execute(_unlease, _named(row)) for row in rows])


async def put_off(tx: Transaction, row: Delivery, until_ms: int) -> bool:
    """A delivery failed: it is due again at a time; False where somebody else has claimed it since."""
    return await tx.execute(_put_off, {**_named(row), "until_ms": until_ms}) == 1


async def bring_forward(tx: Transaction, lane: str) -> int:
    """Make everything that was put off in a lane due at once; return how much that was."""
    return await tx.execute(_bring_forward, {"key": lane})


async def bring_all_forward(tx: Transaction) -> int:
    """Make everything that was put off due at once, in whatever lane; return how much that was."""
    return await tx.execute(_bring_all_forward, {})


async def next_due_ms(tx: Transaction, lane: str) -> int | None:
    """When the first of what was put off in a lane is due; None where nothing was put off."""
    row = await tx.fetch_one(_next_due, {"lane": lane})
    return None if row is None or row[0] is None else int(row[0])


async def urgent_waits(tx: Transaction, lane: str) -> bool:
    """Whether something urgent is to be delivered in a lane."""
    return await tx.fetch_one(_urgent_waits, {"lane": lane}) is not None


async def waiting_replays(tx: Transaction, lane: str) -> set[int]:
    """The messages that wait to be delivered again in a lane."""
    return {int(row[0]) for row in await tx.fetch_all(_replays, {"lane": lane})}


async def webhooks_in(tx: Transaction, lane: str) -> list[Delivery]:
    """What waits in a lane to be delivered for the first time, held or due, and that nobody has in hand."""
    return [Delivery(*row) for row in await tx.fetch_all(_webhooks_in, {"lane": lane})]


async def hold_lane(tx: Transaction, lane: str, reason: str) -> int:
    """Hold everything in a lane that nobody has in hand; return how much that was."""
    return await tx.execute(_hold_lane, {"key": lane, "why": reason})


async def end_all_leases(tx: Transaction) -> None:
    """End every lease: only for a node that knows it is the only one on this store, at its start."""
    await tx.execute(_unlease_all, {})


async def end_leases_of(tx: Transaction, replica: str) -> int:
    """End the leases of a replica that has stopped; return how many there were."""
    return await tx.execute(_unlease_of, {"pattern": f"{replica}-%"})


async def is_worked_on(tx: Transaction, lane: str, now_ms: int, replica: str) -> bool:
    """Whether another replica than this has deliveries of a lane in hand."""
    found = await tx.fetch_one(_worked_on, {"lane": lane, "now_ms": now_ms, "pattern": f"{replica}-%"})
    return found is not None


async def hold(tx: Transaction, row: Delivery, reason: str) -> bool:
    """Keep a delivery until a person releases it; False where somebody else has claimed it since."""
    return await tx.execute(_hold, {**_named(row), "why": reason}) == 1


async def held(tx: Transaction, most: int) -> list[HeldRow]:
    """What waits for a person, oldest first."""
    return [HeldRow(*row) for row in await tx.fetch_all(_held, {"most": most})]


async def release(tx: Transaction, number: int, deadline_ms: int) -> str:
    """Make a held delivery due again; return its lane.

    Raises:
        NotFound: nothing of that number is held.
    """
    row = await tx.fetch_one(_release, {"key": number, "deadline": deadline_ms})
    if row is None:
        raise NotFound(f"nothing held has the number {number}", hint="`exchange held list` lists what is.")
    return str(row[0])


async def release_one(tx: Transaction, number: int, deadline_ms: int) -> None:
    """Make a delivery due again if it is held; it may be due already."""
    await tx.execute(_release, {"key": number, "deadline": deadline_ms})


async def release_lane(tx: Transaction, lane: str, deadline_ms: int) -> int:
    """Make everything held in a lane due again; return how many."""
    return await tx.execute(_release_lane, {"key": lane, "deadline": deadline_ms})


async def release_reason(tx: Transaction, lane: str, reason: str) -> int:
    """Make what is held in a lane for one reason due again, its deadline as it was; return how many."""
    return await tx.execute(_release_reason, {"key": lane, "why": reason})


async def release_reasons_like(tx: Transaction, lane: str, pattern: str, deadline_ms: int) -> int:
    """Make what is held in a lane for reasons of a pattern (of SQL's LIKE) due again; return how many."""
    return await tx.execute(_release_reasons_like, {"key": lane, "pattern": pattern, "deadline": deadline_ms})


async def due_lanes(tx: Transaction) -> list[str]:
    """The lanes in which something is due."""
    return [str(row[0]) for row in await tx.fetch_all(_due_lanes, {})]


async def claimable_lanes(tx: Transaction, now_ms: int, replica: str) -> list[str]:
    """The lanes in which something can be claimed now, and no other replica is at work."""
    rows = await tx.fetch_all(_claimable_lanes, {"now_ms": now_ms, "pattern": f"{replica}-%"})
    return [str(row[0]) for row in rows]


async def overdue(tx: Transaction, lane: str, now_ms: int) -> list[Delivery]:
    """What has passed its deadline undelivered in a lane."""
    return [Delivery(*row) for row in await tx.fetch_all(_overdue, {"lane": lane, "now_ms": now_ms})]


async def backlog(tx: Transaction) -> list[tuple[str, str, int]]:
    """How many rows stand in each lane and state."""
    return [(str(row[0]), str(row[1]), int(row[2])) for row in await tx.fetch_all(_backlog, {})]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery of one message that is still to be made."""

    lane: str
    state: str
    kind: str
    agency: str | None
    reason: str | None


async def waiting_of(tx: Transaction, message: int) -> list[Waiting]:
    """What of a message is still to be delivered or held."""
    return [Waiting(*row) for row in await tx.fetch_all(_of_message, {"message": message})]


async def waiting_question(tx: Transaction, message: int, number: int) -> Waiting | None:
    """A question about a message, by its number, while it is still to be delivered or held."""
    row = await tx.fetch_one(_question, {"message": message, "position": number})
    return Waiting(*row) if row else None


async def lane_state(tx: Transaction, lane: str) -> LaneRow:
    """How a lane is doing; one without a row has never failed."""
    row = await tx.fetch_one(_lane, {"lane": lane})
    return _lane_row(row) if row else LaneRow(lane, 0, 0, None)


async def failing_lanes(tx: Transaction) -> list[LaneRow]:
    """The lanes whose last attempt failed."""
    return [_lane_row(row) for row in await tx.fetch_all(_failing_lanes, {})]


def _lane_row(row: Sequence[Any]) -> LaneRow:
    lane, failures, next_attempt_ms, last_error, urgent_only, since_ms = row
    return LaneRow(lane, failures, next_attempt_ms, last_error, bool(urgent_only), since_ms)


async def keep_lane(tx: Transaction, row: LaneRow) -> None:
    """Note how a lane is doing."""
    await tx.execute(_drop_lane, {"lane": row.lane})
    if row.failures:
        await tx.execute(
            _add_lane,
            {
                "lane": row.lane,
                "failures": row.failures,
                "next_attempt_ms": row.next_attempt_ms,
                "last_error": row.last_error,
                "urgent_only": int(row.urgent_only),
                "since_ms": row.since_ms,
            },
        )


#: Only a card that nobody has in hand: one that is on its way ends with its row, and a newer one must not end with it.
_lanes_awaiting_card = Sql(select(outbox.c.lane).where(outbox.c.kind == CARD, outbox.c.state == "due").distinct())
_older_waits = Sql(
    select(outbox.c.number)
    .where(
        outbox.c.lane == bindparam("lane"),
        outbox.c.kind == bindparam("what"),
        outbox.c.lease_until_ms <= bindparam("now_ms"),
    )
    .limit(1)
)
_replace_older = Sql(
    update(outbox)
    .where(
        outbox.c.lane == bindparam("key"),
        outbox.c.kind == bindparam("what"),
        outbox.c.lease_until_ms <= bindparam("now_ms"),
    )
    .values(
        position=bindparam("new_position"),
        state="due",
        reason=None,
        deadline_ms=bindparam("new_deadline_ms"),
        claimed_by=None,
    )
)


async def lanes_awaiting_card(tx: Transaction) -> set[str]:
    """The lanes in which a card of the node is still to be delivered."""
    return {str(row[0]) for row in await tx.fetch_all(_lanes_awaiting_card, {})}


async def enqueue_card(tx: Transaction, lane: str, position: int, now_ms: int, deadline_ms: int) -> None:
    """Queue the node's card for a peer, in place of an older one that still waits."""
    row = new_delivery(lane, CARD, now_ms=now_ms, deadline_ms=deadline_ms, urgent=True, position=position)
    await _enqueue_newest(tx, row)


async def enqueue_sightings(tx: Transaction, lane: str, position: int, now_ms: int, deadline_ms: int) -> None:
    """Queue what the node has seen for a peer, in place of what it had seen before."""
    await _enqueue_newest(tx, new_delivery(lane, SIGHTINGS, now_ms=now_ms, deadline_ms=deadline_ms, position=position))


async def _enqueue_newest(tx: Transaction, row: dict[str, object]) -> None:
    older = {"what": row["kind"], "now_ms": row["created_at_ms"]}
    if await tx.fetch_one(_older_waits, {"lane": row["lane"], **older}) is None:
        await enqueue(tx, [row])
        return
    newer = {"new_position": row["position"], "new_deadline_ms": row["deadline_ms"]}
    await tx.execute(_replace_older, {"key": row["lane"], **older, **newer})
