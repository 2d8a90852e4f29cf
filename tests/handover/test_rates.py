"""Buckets: never more than the rate, never a wait that was not needed, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.rates import FULL, HOUR_MS, Level, Rate, give_back, take, wait_ms

RATE = Rate(100, HOUR_MS)
NOW_MS = 1_795_449_600_000


def used(cost: float, now_ms: int = NOW_MS) -> Level:
    return take(RATE, FULL, cost, now_ms)


@pytest.mark.parametrize(
    ("already", "cost", "later_ms", "kept_back", "waits_ms"),
    [
        (0, 100, 0, 0.0, 0),
        (0, 1, 0, 0.0, 0),
        (100, 1, 0, 0.0, HOUR_MS / 100),
        (100, 1, HOUR_MS // 100, 0.0, 0),
        (50, 50, 0, 0.0, 0),
        (50, 51, 0, 0.0, HOUR_MS / 100),
        (75, 1, 0, 0.25, HOUR_MS / 100),
        (75, 25, 0, 0.0, 0),
        (0, 76, 0, 0.25, 0),
        (1, 300, 0, 0.0, HOUR_MS / 100),
        (0, 300, 0, 0.0, 0),
    ],
)
def test_what_may_be_taken_and_what_must_wait(
    already: float, cost: float, later_ms: int, kept_back: float, waits_ms: float
) -> None:
    assert wait_ms(RATE, used(already), cost, NOW_MS + later_ms, kept_back) == pytest.approx(waits_ms)


def test_what_is_larger_than_the_bucket_is_paid_off_afterwards() -> None:
    level = used(300)
    assert wait_ms(RATE, level, 1, NOW_MS) == pytest.approx(2 * HOUR_MS + HOUR_MS / 100)


def test_a_clock_that_is_set_back_fills_nothing_and_makes_nobody_wait_longer() -> None:
    level = used(100)
    assert wait_ms(RATE, level, 1, NOW_MS - 10 * HOUR_MS) == pytest.approx(HOUR_MS / 100)
    assert wait_ms(RATE, level.later(NOW_MS - HOUR_MS), 1, NOW_MS) == 0


def test_what_is_given_back_was_never_taken() -> None:
    assert give_back(RATE, take(RATE, used(10), 5, NOW_MS), 5) == used(10)
    assert give_back(RATE, used(1), 50) == Level(0, NOW_MS)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 3 * HOUR_MS), st.integers(1, 50)), min_size=1, max_size=60),
)
def test_in_no_time_does_more_come_through_than_a_bucket_and_what_filled_since(
    most: int, asked: list[tuple[int, int]]
) -> None:
    rate, level, now_ms = Rate(most, HOUR_MS), FULL, NOW_MS
    came: list[tuple[int, int]] = []
    for pause_ms, cost in asked:
        now_ms += pause_ms
        if wait_ms(rate, level, cost, now_ms) == 0:
            level = take(rate, level, cost, now_ms)
            came.append((now_ms, cost))
    for start in range(len(came)):
        for end in range(start, len(came)):
            took = sum(cost for _, cost in came[start : end + 1])
            elapsed_ms = came[end][0] - came[start][0]
            largest = max(cost for _, cost in came[start : end + 1])
            assert took <= max(most, largest) + most * elapsed_ms / HOUR_MS + 1e-6


@given(st.integers(1, 1000), st.integers(0, 3000), st.integers(1, 3000), st.sampled_from([0.0, 0.25]))
def test_whoever_waits_as_long_as_told_comes_through(most: int, already: int, cost: int, kept_back: float) -> None:
    rate = Rate(most, HOUR_MS)
    level = take(rate, FULL, already, NOW_MS)
    waited_ms = wait_ms(rate, level, cost, NOW_MS, kept_back)
    assert wait_ms(rate, level, cost, NOW_MS + int(waited_ms) + 1, kept_back) == 0
