"""Working time: only the hours count in which offices are open.

* A working day is one from Monday to Friday that is no bank holiday in England; its hours are from 9 to 17 in London.
* One working day is eight working hours: what begins on Friday at 14 ends on Monday at 14.
* What begins while offices are closed begins when they open next.

Bank holidays are those of https://www.gov.uk/bank-holidays for England and Wales, by the package `holidays`: those that
the Banking and Financial Dealings Act 1971 makes for any year, and those that were proclaimed when it was released.
"""

import functools
from collections.abc import Container
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

LONDON: Final = ZoneInfo("Europe/London")
OPENS: Final = time(9)
CLOSES: Final = time(17)
WORKING_DAY: Final = timedelta(hours=8)
_SATURDAY: Final = 5


@functools.cache
def is_working_day(day: date) -> bool:
    """Whether offices are open on a day."""
    return day.weekday() < _SATURDAY and day not in _bank_holidays()


def add_working_time(start: datetime, amount: timedelta) -> datetime:
    """When so much working time has passed since `start`; in UTC. `amount` is positive."""
    # Offices keep the time of the wall: no change of the clocks falls into their hours, so plain times can be added.
    now, left = _next_open(start.astimezone(LONDON).replace(tzinfo=None)), amount
    while (today := datetime.combine(now, CLOSES) - now) < left:
        left -= today
        now = _next_open(datetime.combine(now, CLOSES))
    return (now + left).replace(tzinfo=LONDON).astimezone(UTC)


def working_time_between(start: datetime, end: datetime) -> timedelta:
    """How much working time there is from `start` to `end`; none where `end` is not later."""
    now, until = (moment.astimezone(LONDON).replace(tzinfo=None) for moment in (start, end))
    passed = timedelta()
    while (now := _next_open(now)) < until:
        closes = datetime.combine(now, CLOSES)
        passed += min(closes, until) - now
        now = closes
    return passed


def _next_open(moment: datetime) -> datetime:
    """The moment itself where offices are open then, else when they open next."""
    day = moment.date()
    if is_working_day(day) and moment.time() < CLOSES:
        return max(moment, datetime.combine(day, OPENS))
    day += timedelta(days=1)
    while not is_working_day(day):
        day += timedelta(days=1)
    return datetime.combine(day, OPENS)


@functools.cache
def _bank_holidays() -> Container[date]:
    import holidays  # here: it takes an eighth of a second, and most commands never need it

    return holidays.country_holidays("GB", subdiv="ENG")
