"""The outbox: urgent first, then in order; leases; and what waits for a person."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.store.errors import NotFound
from exchange.store.outbox import (
    MANIFEST,
    Delivery,
    HeldRow,
    LaneRow,
    backlog,
    claim,
    claimable_lanes,
    done,
    done_if_claimed,
    due_lanes,
    end_all_leases,
    end_leases_of,
    enqueue,
    give_back,
    held,
    hold,
    is_still_claimed,
    is_worked_on,
    keep_lane,
    lane_state,
    new_delivery,
    overdue,
    release,
    release_lane,
    renew,
    waiting_of,
)
from exchange.store.transaction import Store
from tests.store.conftest import NOW_MS, OpenStore, add_one, call

LANE = "peer:exchange.enfield.example"
OTHER = "agency:police"
LEASE_MS = 30_000


def delivery(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {"lane": LANE, "kind": MANIFEST, "now_ms": NOW_MS, "deadline_ms": NOW_MS + 60_000}
    return new_delivery(**(values | changes))  # type: ignore[arg-type]


async def take(
    store: Store, most: int = 10, now_ms: int = NOW_MS, lane: str = LANE, replica: str = ""
) -> list[Delivery]:
    rows: list[Delivery] = await store.write(call(claim, lane, most, now_ms, LEASE_MS, replica=replica))
    return rows


async def claimed(store: Store, most: int = 10, now_ms: int = NOW_MS, lane: str = LANE) -> list[int]:
    return [row.number for row in await take(store, most, now_ms, lane)]


@settings(max_examples=40)
@given(st.lists(st.booleans(), max_size=12), st.integers(1, 5))
def test_urgent_rows_are_claimed_first_and_otherwise_in_order(
    open_store: OpenStore, urgent: list[bool], most: int
) -> None:
    async def drain(store: Store) -> list[int]:
        await store.write(call(enqueue, [delivery(urgent=flag) for flag in urgent]))
        taken: list[int] = []
        while numbers := await claimed(store, most):
            taken.extend(numbers)
        return taken

    taken = open_store(drain)

    numbers = range(1, len(urgent) + 1)
    assert taken == sorted(numbers, key=lambda number: (not urgent[number - 1], number))


async def test_a_claim_takes_only_from_its_lane(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery(lane=OTHER)]))

    assert await claimed(store, lane=OTHER) == [2]


async def test_a_leased_row_is_not_claimed_until_its_lease_has_run_out(store: Store) -> None:
    await store.write(call(enqueue, [delivery()]))

    assert await claimed(store) == [1]
    assert await claimed(store, now_ms=NOW_MS + LEASE_MS - 1) == []
    assert await claimed(store, now_ms=NOW_MS + LEASE_MS) == [1]


async def test_every_claim_counts_as_an_attempt(store: Store) -> None:
    await store.write(call(enqueue, [delivery()]))
    for attempt in range(3):
        (row,) = await store.write(call(claim, LANE, 1, NOW_MS + attempt * LEASE_MS, LEASE_MS))
        assert row.attempts == attempt


async def test_a_row_that_was_given_back_is_claimed_at_once(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery()]))
    _, second = await take(store)

    assert await store.write(call(give_back, [second])) == 1

    assert await claimed(store) == [2]


async def test_a_node_that_starts_ends_the_leases_of_its_last_life(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery(lane=OTHER)]))
    await claimed(store)
    await claimed(store, lane=OTHER)

    await store.write(end_all_leases)

    assert await claimed(store) == [1]
    assert await claimed(store, lane=OTHER) == [2]


async def test_what_was_delivered_is_gone(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery()]))
    (first,) = await take(store, 1)

    await store.write(call(done, [first]))

    assert await claimed(store) == [2]
    assert await store.read(backlog) == [(LANE, "due", 1)]


async def test_a_held_row_is_shown_with_its_reason_and_never_claimed(store: Store) -> None:
    message = await store.write(call(add_one, "message"))
    await store.write(call(enqueue, [delivery(message=message, agency="police"), delivery()]))
    (first,) = await take(store, 1)

    assert await store.write(call(hold, first, "peer-blocked"))

    row = HeldRow(1, LANE, MANIFEST, "message", "police", NOW_MS, "peer-blocked")
    assert await store.read(call(held, 10)) == [row]
    assert await claimed(store, now_ms=NOW_MS + 10 * LEASE_MS) == [2]


async def test_a_row_may_be_held_from_the_start(store: Store) -> None:
    await store.write(call(enqueue, [delivery(held="peer-unverified")]))

    assert [row.reason for row in await store.read(call(held, 10))] == ["peer-unverified"]
    assert await store.read(due_lanes) == []


async def test_a_released_row_is_due_again_with_a_new_deadline_and_no_attempts(store: Store) -> None:
    await store.write(call(enqueue, [delivery()]))
    (first,) = await take(store)
    await store.write(call(hold, first, "peer-blocked"))

    lane = await store.write(call(release, 1, NOW_MS + 99))

    (row,) = await store.write(call(claim, LANE, 1, NOW_MS, LEASE_MS))
    assert (lane, row.number, row.attempts, row.deadline_ms) == (LANE, 1, 0, NOW_MS + 99)
    assert await store.read(call(held, 10)) == []


@pytest.mark.parametrize("number", [1, 2])
async def test_only_what_is_held_can_be_released(store: Store, number: int) -> None:
    await store.write(call(enqueue, [delivery()]))

    with pytest.raises(NotFound):
        await store.write(call(release, number, NOW_MS))


async def test_a_lane_is_released_whole_and_no_other_with_it(store: Store) -> None:
    rows = [delivery(held="x"), delivery(), delivery(held="x"), delivery(lane=OTHER, held="x")]
    await store.write(call(enqueue, rows))

    assert await store.write(call(release_lane, LANE, NOW_MS + 99)) == 2

    assert await claimed(store) == [1, 2, 3]
    assert [row.number for row in await store.read(call(held, 10))] == [4]


async def test_overdue_is_what_is_due_and_has_reached_its_deadline(store: Store) -> None:
    rows = [delivery(deadline_ms=at, held=reason) for at, reason in ((10, None), (11, None), (10, "x"))]
    await store.write(call(enqueue, [*rows, delivery(lane=OTHER, deadline_ms=10)]))

    assert [row.number for row in await store.read(call(overdue, LANE, 10))] == [1]


async def test_lanes_with_something_due_are_named_once(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery(), delivery(lane=OTHER), delivery(lane="x", held="why")]))

    assert sorted(await store.read(due_lanes)) == [OTHER, LANE]
    assert await store.read(backlog) == [(OTHER, "due", 1), (LANE, "due", 2), ("x", "held", 1)]


async def test_a_message_tells_what_of_it_still_waits(store: Store) -> None:
    message = await store.write(call(add_one))
    await store.write(call(enqueue, [delivery(message=message), delivery(), delivery(message=message, held="why")]))

    waiting = await store.read(call(waiting_of, message))

    assert [(row.state, row.reason) for row in waiting] == [("due", None), ("held", "why")]


async def test_a_lane_remembers_its_failures_until_it_succeeds(store: Store) -> None:
    assert await store.read(call(lane_state, LANE)) == LaneRow(LANE, 0, 0, None)

    for failures in (1, 2):
        await store.write(call(keep_lane, LaneRow(LANE, failures, NOW_MS, "timeout")))
    assert await store.read(call(lane_state, LANE)) == LaneRow(LANE, 2, NOW_MS, "timeout")

    at_a_limit = LaneRow(LANE, 1, NOW_MS, "peer-limit", urgent_only=True)
    await store.write(call(keep_lane, at_a_limit))
    assert await store.read(call(lane_state, LANE)) == at_a_limit

    await store.write(call(keep_lane, LaneRow(LANE, 0, 0, None)))
    assert await store.read(call(lane_state, LANE)) == LaneRow(LANE, 0, 0, None)


async def lost_and_claimed_again(store: Store) -> tuple[Delivery, Delivery]:
    """One row as a slow worker has it, and as the one has it that took it up when the lease had run out."""
    await store.write(call(enqueue, [delivery()]))
    (slow,) = await take(store, replica="slow")
    (quick,) = await take(store, replica="quick", now_ms=NOW_MS + LEASE_MS)
    return slow, quick


async def test_who_has_lost_its_lease_can_neither_finish_nor_hold_nor_give_back(store: Store) -> None:
    slow, quick = await lost_and_claimed_again(store)

    await store.write(call(done, [slow]))
    assert not await store.write(call(done_if_claimed, slow))
    assert not await store.write(call(hold, slow, "late"))
    assert await store.write(call(give_back, [slow])) == 0
    assert not await store.read(call(is_still_claimed, slow))

    assert await claimed(store, now_ms=NOW_MS + LEASE_MS) == []
    assert await store.read(call(is_still_claimed, quick))
    assert await store.write(call(done_if_claimed, quick))
    assert await store.read(backlog) == []


async def test_who_has_lost_its_lease_cannot_prolong_it(store: Store) -> None:
    slow, quick = await lost_and_claimed_again(store)

    await store.write(call(renew, [slow], NOW_MS + 100 * LEASE_MS))
    assert await claimed(store, now_ms=NOW_MS + 2 * LEASE_MS) == [quick.number]


async def test_a_lease_that_is_prolonged_lasts_longer(store: Store) -> None:
    await store.write(call(enqueue, [delivery()]))
    rows = await take(store)

    await store.write(call(renew, rows, NOW_MS + 3 * LEASE_MS))

    assert await claimed(store, now_ms=NOW_MS + 2 * LEASE_MS) == []
    assert await claimed(store, now_ms=NOW_MS + 3 * LEASE_MS) == [1]


async def test_a_claim_that_was_released_and_made_anew_is_not_the_old_one(store: Store) -> None:
    slow, quick = await lost_and_claimed_again(store)
    await store.write(call(hold, quick, "why"))
    await store.write(call(release, quick.number, NOW_MS))
    (again,) = await take(store)

    assert again.attempts == slow.attempts
    assert not await store.write(call(done_if_claimed, slow))
    assert await store.write(call(done_if_claimed, again))


async def test_a_lane_is_worked_on_by_whose_leases_are_in_it(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery(), delivery(lane=OTHER)]))
    rows = await take(store, 1, replica="one")

    assert await store.read(call(is_worked_on, LANE, NOW_MS, "two"))
    assert not await store.read(call(is_worked_on, LANE, NOW_MS, "one"))
    assert not await store.read(call(is_worked_on, OTHER, NOW_MS, "two"))
    assert not await store.read(call(is_worked_on, LANE, NOW_MS + LEASE_MS, "two"))

    await store.write(call(done, rows))
    assert not await store.read(call(is_worked_on, LANE, NOW_MS, "two"))


async def test_a_lane_can_be_claimed_from_where_something_is_due_and_nobody_else_is_at_work(store: Store) -> None:
    rows = [delivery(), delivery(), delivery(lane=OTHER), delivery(lane="held", held="why")]
    await store.write(call(enqueue, rows))
    first = await take(store, 1, replica="one")

    assert await store.read(call(claimable_lanes, NOW_MS, "two")) == [OTHER]
    assert sorted(await store.read(call(claimable_lanes, NOW_MS, "one"))) == [OTHER, LANE]
    await take(store, replica="one")
    assert await store.read(call(claimable_lanes, NOW_MS, "one")) == [OTHER]
    assert sorted(await store.read(call(claimable_lanes, NOW_MS + LEASE_MS, "two"))) == [OTHER, LANE]
    await store.write(call(give_back, first))
    assert await store.read(call(claimable_lanes, NOW_MS, "two")) == [OTHER]


async def test_the_leases_of_one_replica_end_and_no_others(store: Store) -> None:
    await store.write(call(enqueue, [delivery(), delivery(lane=OTHER)]))
    await take(store, replica="one")
    await take(store, lane=OTHER, replica="two")

    assert await store.write(call(end_leases_of, "one")) == 1

    assert await claimed(store) == [1]
    assert await claimed(store, lane=OTHER) == []
