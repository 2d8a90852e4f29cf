"""The forms that are shipped as examples, as if they had been written today.

A form goes stale: people grow out of an age band, orders end, dates to erase come. Every date of an example is moved by
the same number of days, so the intervals between them stay as they are.
"""

import importlib.resources
import json
import re
from datetime import date, datetime, timedelta
from typing import Any, Final

#: The day on which the examples are set.
WRITTEN_ON: Final = date(2026, 11, 23)
NAMES: Final = ("case-study-j", "urgent")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T.*")


def example_form(name: str, today: date) -> bytes:
    """The example of that name, with its dates as they would be had it been written `today`."""
    file = importlib.resources.files("exchange.schema").joinpath(f"data/examples/{name}.json")
    document = move_dates(json.loads(file.read_bytes()), today - WRITTEN_ON)
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def move_dates(value: Any, by: timedelta) -> Any:
    """A JSON value in which every text that is a date or a time is later by that much."""
    match value:
        case dict():
            return {key: move_dates(inner, by) for key, inner in value.items()}
        case list():
            return [move_dates(inner, by) for inner in value]
        case str() if _DATE.fullmatch(value):
            return (date.fromisoformat(value) + by).isoformat()
        case str() if _TIME.fullmatch(value):
            return (datetime.fromisoformat(value) + by).isoformat().replace("+00:00", "Z")
        case _:
            return value
