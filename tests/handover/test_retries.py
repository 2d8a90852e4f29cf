"""The table by which a webhook is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.retries import ASKED_CAP_S, JITTER, STANDARD_S, URGENT_CAP_S, honoured_s, next_try_s

tables = st.lists(st.floats(0.01, 100_000), min_size=1, max_size=20)
chances = st.floats(0, 1)
asked = st.floats(0, allow_nan=False)


def test_the_standard_table_is_that_of_standard_webhooks() -> None:
    waits = [next_try_s(STANDARD_S, count, 0, 0.0, urgent=False) for count in range(1, 10)]
    hours = [0, 0, 0, 2, 5, 10, 14, 20, 24]
    assert waits == [5, 300, 1800, *(3600 * hour for hour in hours[3:])]


def test_a_usual_delivery_is_tried_ten_times_over_seventy_five_hours() -> None:
    now_s, attempts = 0.0, 1
    while (wait_s := next_try_s(STANDARD_S, attempts, now_s, 0.0, urgent=False)) is not None:
        now_s, attempts = now_s + wait_s, attempts + 1
    assert (attempts, now_s / 3600) == (10, pytest.approx(75.58, abs=0.01))


def test_an_urgent_delivery_is_tried_every_minute_for_as_long() -> None:
    now_s, attempts = 0.0, 1
    while (wait_s := next_try_s(STANDARD_S, attempts, now_s, 0.0, urgent=True)) is not None:
        assert wait_s <= URGENT_CAP_S
        now_s, attempts = now_s + wait_s, attempts + 1
    assert now_s == pytest.approx(sum(STANDARD_S), abs=URGENT_CAP_S)


@given(tables, st.integers(1, 1000), st.floats(0, 1e7), chances, asked, st.booleans())
def test_a_wait_is_that_of_the_table_a_fifth_longer_at_most_or_what_was_asked_for(
    table: list[float], failures: int, waited_s: float, chance: float, asked_s: float, urgent: bool
) -> None:
    wait_s = next_try_s(table, failures, waited_s, chance, asked_s=asked_s, urgent=urgent)
    if wait_s is None:
        assert failures > len(table)
        assert waited_s >= sum(table)
        return
    listed_s = table[min(failures, len(table)) - 1]
    listed_s = min(listed_s, URGENT_CAP_S) if urgent else listed_s
    assert wait_s >= max(listed_s, honoured_s(asked_s, urgent=urgent))
    assert wait_s <= max(listed_s * (1 + JITTER), honoured_s(asked_s, urgent=urgent))


@given(asked, st.booleans())
def test_no_endpoint_puts_a_delivery_off_for_longer_than_the_cap(asked_s: float, urgent: bool) -> None:
    assert 0 <= honoured_s(asked_s, urgent=urgent) <= (URGENT_CAP_S if urgent else ASKED_CAP_S)


@given(st.integers(1, 1000), chances)
def test_what_is_urgent_never_waits_much_longer_than_a_minute(failures: int, chance: float) -> None:
    wait_s = next_try_s(STANDARD_S, failures, 0.0, chance, asked_s=1e9, urgent=True)
    assert wait_s is not None
    assert wait_s <= URGENT_CAP_S * (1 + JITTER)


@given(tables, st.integers(1, 100), chances)
def test_nothing_is_given_up_early_because_it_was_tried_often(table: list[float], failures: int, chance: float) -> None:
    assert next_try_s(table, failures, sum(table) * 0.99 - 0.001, chance, urgent=False) is not None
