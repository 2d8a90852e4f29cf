"""A file of deadlines that contradicts itself is refused, and says where."""

import pytest

from exchange.schema.catalogue import default_catalogue
from exchange.schema.deadlines import default_deadlines, load_deadlines
from exchange.schema.errors import DeadlinesInvalid
from tests.schema.forms import EXAMPLES

SHIPPED = (EXAMPLES.parent / "deadlines.toml").read_text(encoding="utf-8")


def test_the_file_in_config_is_the_one_that_is_shipped() -> None:
    assert load_deadlines(SHIPPED.encode(), default_catalogue()) == default_deadlines()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kinds = ["police", "housing"]', 'kinds = ["polcie"]', "deadline 3: kinds: 'polcie' does not exist; did you"),
        ('within = "15 minutes"', 'within = "15 min"', "deadline 1: within: '15 min' is not N minutes"),
        ('within = "15 minutes"', 'within = "0 minutes"', "is not N minutes"),
        ('within = "20 working days"', 'within = "20 days"', "is not N minutes"),
        ('kinds = ["coordinator"]\n', "", "deadline 3: an earlier line fits all"),
        ('step = "received"', 'step = "received"\nkinds = ["police"]', "deadline 1: kinds: only `owned` has some"),
        ('step = "met"', 'step = "meeting"', "cannot be read"),
        ("version = 1", "version = 2", "version: 2 is not known"),
        ("version = 1", "version = ", "cannot be read"),
        ("version = 1", "version = 1\ncolour = 1", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_meant_so_is_refused(old: str, new: str, message: str) -> None:
    assert old in SHIPPED
    with pytest.raises(DeadlinesInvalid, match=message):
        load_deadlines(SHIPPED.replace(old, new, 1).encode(), default_catalogue())


def test_a_second_line_for_the_same_kinds_never_counts() -> None:
    again = '[[deadline]]\nstep = "owned"\nurgent = true\nkinds = ["housing", "coordinator"]\nwithin = "1 hour"\n'
    with pytest.raises(DeadlinesInvalid, match="deadline 13: an earlier line fits all"):
        load_deadlines(f"{SHIPPED}\n{again}".encode(), default_catalogue())
