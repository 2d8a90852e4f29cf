"""The examples stay good for ever: each is as fresh on any day as on the day for which it was written."""

import json
from datetime import date, timedelta

import pytest

from exchange.schema.catalogue import default_catalogue
from exchange.schema.examples import NAMES, WRITTEN_ON, example_form, move_dates
from exchange.schema.form import decode_form
from exchange.schema.quality import check_form
from tests.schema.forms import EXAMPLES

DAYS = [
    WRITTEN_ON,
    WRITTEN_ON - timedelta(days=400),
    WRITTEN_ON + timedelta(days=1),
    date(2028, 2, 29),
    date(2028, 4, 17),
    date(2032, 12, 7),
    date(2050, 1, 1),
    date(2099, 12, 31),
    date(2400, 2, 29),
]


@pytest.mark.parametrize("today", DAYS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_no_findings_on_any_day(name: str, today: date) -> None:
    form = decode_form(example_form(name, today))
    assert check_form(form, default_catalogue(), today) == []


@pytest.mark.parametrize("name", NAMES)
def test_on_the_day_for_which_it_was_written_an_example_is_the_file_itself(name: str) -> None:
    shipped = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    assert json.loads(example_form(name, WRITTEN_ON)) == shipped


def test_every_example_that_is_shipped_is_known_by_its_name() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} == set(NAMES)


def test_only_dates_and_times_move() -> None:
    document = {"on": "2028-02-28", "at": ["2026-12-31T23:30:00Z"], "text": "since 2026-01-01", "n": 1, "none": None}
    moved = {"on": "2028-02-29", "at": ["2027-01-01T23:30:00Z"], "text": "since 2026-01-01", "n": 1, "none": None}
    assert move_dates(document, timedelta(days=1)) == moved
