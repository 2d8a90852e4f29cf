"""The ladder: what stands below, and what counts as reached."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.rungs import LADDER, all_reached, below, has_reached

rungs = st.sampled_from((None, *LADDER, "queried", "recalled"))


@pytest.mark.parametrize(
    ("rung", "lower"),
    [
        ("received", ()),
        ("routed", ("received",)),
        ("delivered", ("received", "routed")),
        ("owned", ("received", "routed", "delivered")),
    ],
)
def test_a_section_rises_to_a_rung_from_those_below_it(rung: str, lower: tuple[str, ...]) -> None:
    assert below(rung) == lower


@pytest.mark.parametrize("rung", ["queried", "", "RECEIVED", "received "])
def test_what_is_no_rung_of_the_ladder_has_nothing_below_it(rung: str) -> None:
    with pytest.raises(ValueError, match="not in"):
        below(rung)


@pytest.mark.parametrize(("rung", "wanted"), list(itertools.product(LADDER, LADDER)))
def test_a_rung_is_reached_by_itself_and_by_what_is_above_it(rung: str, wanted: str) -> None:
    assert has_reached(rung, wanted) == (rung == wanted or wanted in below(rung))


@pytest.mark.parametrize("rung", [None, "expired", "recalled", "erased", ""])
def test_a_section_that_is_not_on_the_ladder_has_reached_nothing(rung: str | None) -> None:
    assert not any(has_reached(rung, wanted) for wanted in LADDER)


@pytest.mark.parametrize("rung", ["queried", "redirected"])
def test_what_was_asked_about_or_redirected_was_delivered_and_is_not_owned(rung: str) -> None:
    assert has_reached(rung, "delivered")
    assert not has_reached(rung, "owned")


@given(st.lists(rungs), st.sampled_from(LADDER))
def test_a_message_has_come_as_far_as_the_section_that_is_furthest_behind(found: list[str | None], wanted: str) -> None:
    assert all_reached(found, wanted) == (False not in [has_reached(rung, wanted) for rung in found])


@given(rungs, st.sampled_from(LADDER), st.sampled_from(LADDER))
def test_what_has_reached_a_rung_has_reached_every_rung_below_it(rung: str | None, first: str, second: str) -> None:
    low, high = sorted((first, second), key=LADDER.index)
    assert has_reached(rung, low) or not has_reached(rung, high)
