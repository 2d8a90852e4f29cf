"""Working hours: from 9 to 17 in London, Monday to Friday, without England's bank holidays."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.working_time import (
    CLOSES,
    LONDON,
    OPENS,
    WORKING_DAY,
    add_working_time,
    is_working_day,
    working_time_between,
)

moments = st.integers(1_735_689_600, 2_051_222_400).map(lambda second: datetime.fromtimestamp(second, UTC))
amounts = st.timedeltas(timedelta(minutes=1), 30 * WORKING_DAY)


def london(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=LONDON)


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        pytest.param("2026-12-01T10:00", 1, "2026-12-02T10:00", id="Tuesday to Wednesday"),
        pytest.param("2026-12-04T14:00", 1, "2026-12-07T14:00", id="over a weekend"),
        pytest.param("2026-12-05T03:00", 1, "2026-12-07T17:00", id="sent on a Saturday night: all of Monday"),
        pytest.param("2026-12-01T18:30", 1, "2026-12-02T17:00", id="sent in the evening: all of the next day"),
        pytest.param("2026-12-01T07:00", 1, "2026-12-01T17:00", id="sent before offices open: all of that day"),
        pytest.param("2026-12-01T17:00", 1, "2026-12-02T17:00", id="sent as offices close"),
        pytest.param("2026-12-24T12:00", 1, "2026-12-29T12:00", id="over Christmas, whose Boxing Day is on Monday"),
        pytest.param("2026-04-02T12:00", 3, "2026-04-09T12:00", id="over Easter"),
        pytest.param("2026-03-27T12:00", 1, "2026-03-30T12:00", id="over the change to summer time"),
        pytest.param("2026-10-23T12:00", 1, "2026-10-26T12:00", id="over the change to winter time"),
        pytest.param("2026-12-01T10:00", 20, "2026-12-31T10:00", id="a standard handover over Christmas"),
    ],
)
def test_working_days_end_when_offices_are_open(start: str, days: int, end: str) -> None:
    assert add_working_time(london(start), days * WORKING_DAY) == london(end)


@pytest.mark.parametrize(
    ("day", "works"),
    [
        (date(2026, 12, 24), True),
        (date(2026, 12, 25), False),
        (date(2026, 12, 28), False),  # Boxing Day, as the 26th is a Saturday
        (date(2027, 3, 26), False),  # Good Friday
        (date(2027, 3, 29), False),  # Easter Monday, which Scotland works
        (date(2027, 1, 4), True),  # a holiday in Scotland alone
        (date(2027, 7, 12), True),  # a holiday in Northern Ireland alone
        (date(2027, 1, 2), False),  # a Saturday
    ],
)
def test_bank_holidays_are_those_of_england(day: date, works: bool) -> None:
    assert is_working_day(day) is works


@given(moments, amounts)
def test_what_was_added_lies_between(start: datetime, amount: timedelta) -> None:
    assert working_time_between(start, add_working_time(start, amount)) == amount


@given(moments, amounts)
def test_an_end_is_a_time_at_which_offices_are_open(start: datetime, amount: timedelta) -> None:
    end = add_working_time(start, amount).astimezone(LONDON)
    assert is_working_day(end.date())
    assert OPENS < end.time() <= CLOSES


@given(moments, amounts, st.timedeltas(timedelta(0), timedelta(days=9)))
def test_who_begins_later_ends_no_earlier(start: datetime, amount: timedelta, later: timedelta) -> None:
    assert add_working_time(start + later, amount) >= add_working_time(start, amount)


@given(moments, amounts, amounts)
def test_what_is_done_in_two_parts_ends_at_the_same_time(start: datetime, one: timedelta, two: timedelta) -> None:
    assert add_working_time(add_working_time(start, one), two) == add_working_time(start, one + two)


@given(moments, st.timedeltas(timedelta(0), timedelta(days=30)))
def test_there_is_no_working_time_backwards(moment: datetime, earlier: timedelta) -> None:
    assert working_time_between(moment, moment - earlier) == timedelta()
