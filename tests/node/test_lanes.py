"""When a lane is tried again, and with how much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.node.lanes import WAVE, Backoff, LaneState

DAY_MS = 86_400_000

chances = st.floats(0, 1)
failures = st.integers(0, 10_000)
asked = st.floats(0, 1e9)
backoffs = st.builds(Backoff, base_s=st.floats(0.001, 60), cap_s=st.floats(0.001, 3600))


@given(backoffs, failures, chances, asked)
def test_a_wait_is_never_longer_than_the_cap_whatever_was_asked_for(
    backoff: Backoff, count: int, chance: float, asked_s: float
) -> None:
    assert 0 <= backoff.delay_s(count, chance, asked_s) <= backoff.cap_s


@given(backoffs, failures, chances, asked)
def test_a_wait_is_never_shorter_than_what_was_asked_for_up_to_the_cap(
    backoff: Backoff, count: int, chance: float, asked_s: float
) -> None:
    assert backoff.delay_s(count, chance, asked_s) >= min(asked_s, backoff.cap_s)


@given(backoffs, failures)
def test_jitter_is_full_from_nothing_to_the_longest_wait(backoff: Backoff, count: int) -> None:
    longest_s = backoff.delay_s(count, 1.0)
    assert backoff.delay_s(count, 0.0) == 0
    assert backoff.delay_s(count, 0.25) == longest_s * 0.25


@given(backoffs, st.integers(0, 30))
def test_the_longest_wait_doubles_with_each_failure_until_the_cap(backoff: Backoff, count: int) -> None:
    assert backoff.delay_s(count, 1.0) == min(backoff.cap_s, backoff.base_s * 2**count)


def test_no_number_of_failures_makes_the_wait_overflow() -> None:
    assert Backoff(60, 3600).delay_s(10**9, 1.0) == 3600


def test_infinity_as_the_time_asked_for_is_cut_to_the_cap() -> None:
    assert Backoff(0.5, 60).delay_s(0, 0.5, float("inf")) == 60


def test_a_lane_that_has_not_failed_carries_a_wave_and_two_attempts_at_once() -> None:
    state = LaneState()
    assert (state.limit(), state.attempts_at_once(), state.wait_ms(10**12, DAY_MS)) == (WAVE, 2, 0)


@pytest.mark.parametrize(("since_ms", "most"), [(None, WAVE), (0, 16), (999, 16), (1000, WAVE), (-1, WAVE)], ids=str)
def test_soon_after_something_urgent_an_attempt_carries_less(since_ms: int | None, most: int) -> None:
    assert LaneState().limit(since_ms) == most
    assert LaneState(failures=1).limit(since_ms) == 1


@given(st.integers(0, 1000), st.integers(0, 2**42), st.floats(0, 3600))
def test_a_lane_that_failed_waits_and_is_then_tried_with_one_delivery(count: int, now_ms: int, delay_s: float) -> None:
    state = LaneState(failures=count).failed("it is down", now_ms, delay_s)
    assert (state.failures, state.limit(), state.attempts_at_once()) == (count + 1, 1, 1)
    assert state.last_error == "it is down"
    assert state.wait_ms(now_ms, DAY_MS) == round(delay_s * 1000)
    assert state.wait_ms(now_ms + round(delay_s * 1000), DAY_MS) == 0


@given(st.integers(1, 1000), st.integers(0, 2**42))
def test_who_is_heard_from_is_tried_at_once_but_still_with_one_delivery(count: int, now_ms: int) -> None:
    state = LaneState(count, now_ms + 60_000, "it is down").heard()
    assert state.wait_ms(now_ms, DAY_MS) == 0
    assert (state.failures, state.limit(), state.last_error) == (count, 1, "it is down")


@given(st.integers(0, 2**42), st.integers(0, 2**42))
def test_a_wait_is_never_negative(next_ms: int, now_ms: int) -> None:
    assert LaneState(1, next_ms).wait_ms(now_ms, 2**43) == max(0, next_ms - now_ms)


@given(st.integers(1, DAY_MS), st.integers(0, 2**42))
def test_a_lane_that_failed_while_the_clock_was_ahead_is_tried_when_it_has_been_set_back(
    ahead_ms: int, now_ms: int
) -> None:
    state = LaneState().failed("it is down", now_ms + 60_000 + ahead_ms, 0.5)
    assert state.wait_ms(now_ms, 60_000) == 0
