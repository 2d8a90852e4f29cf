"""Who is told that something is late, and when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.overdue import Case, Told, may_complete, open_steps, review
from exchange.handover.responsibility import Facts
from exchange.schema.deadlines import Step, default_deadlines

DEADLINES = default_deadlines()
#: A Tuesday morning.
SENT = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)
RUNGS = (None, "received", "routed", "delivered", "queried", "redirected", "owned", "recalled", "erased")


def minutes(count: float) -> datetime:
    return SENT + timedelta(minutes=count)


def case(*places: tuple[str, str, str | None], urgent: bool = True, **more: bool) -> Case:
    facts = tuple((section, Facts(kind, rung, SENT, SENT, urgent=urgent)) for section, kind, rung in places)
    return Case(SENT, urgent, facts, **more)


def told(given: Case, looked_at: datetime | None, now: datetime) -> list[tuple[Told, Step, str | None]]:
    found = review(given, DEADLINES, looked_at, now).tell
    return [(item.who, item.late.due.step, item.late.kind) for item in found]


URGENT = case(("risk", "police", "delivered"), ("police", "police", "delivered"), ("dwp", "dwp", "owned"))


@pytest.mark.parametrize(
    ("looked_at", "now", "expected"),
    [
        pytest.param(None, 239, [], id="before the deadline"),
        pytest.param(239, 240, [(Told.AGENCY, Step.OWNED, "police")], id="at the deadline"),
        pytest.param(240, 269, [], id="once"),
        pytest.param(240, 270, [(Told.COORDINATOR, Step.OWNED, "police")], id="half an hour later"),
        pytest.param(270, 10_000, [], id="never again"),
        pytest.param(
            None,
            10_000,
            [(Told.AGENCY, Step.OWNED, "police"), (Told.COORDINATOR, Step.OWNED, "police")],
            id="after the node was down",
        ),
    ],
)
def test_the_agency_is_told_and_then_the_coordinator(
    looked_at: float | None, now: float, expected: list[tuple[Told, Step, str | None]]
) -> None:
    assert told(URGENT, None if looked_at is None else minutes(looked_at), minutes(now)) == expected


def test_sections_that_wait_for_the_same_agency_are_one_matter() -> None:
    [step] = open_steps(URGENT, DEADLINES)
    assert (step.kind, step.sections) == ("police", ("risk", "police"))


def test_what_the_agencies_do_together_is_the_coordinators() -> None:
    given = case(("dwp", "dwp", "owned"), urgent=False)
    late = SENT + timedelta(days=60)
    assert told(given, None, late) == [(Told.COORDINATOR, Step.MET, None), (Told.COORDINATOR, Step.COMPLETE, None)]
    assert told(replace(given, met=True), None, late) == [(Told.COORDINATOR, Step.COMPLETE, None)]
    assert told(replace(given, complete=True), None, late) == []


def test_nothing_is_looked_at_again_where_nothing_is_due() -> None:
    assert review(case(("dwp", "dwp", "owned")), DEADLINES, None, SENT).look_at is None


@pytest.mark.parametrize(("rung", "may"), [(rung, rung in {"owned", "recalled", "erased"}) for rung in RUNGS])
def test_a_handover_is_complete_when_nothing_is_left_with_the_sender(rung: str | None, may: bool) -> None:
    assert may_complete(case(("dwp", "dwp", "owned"), ("risk", "police", rung)).places) is may


places = st.lists(
    st.tuples(st.sampled_from(["risk", "dwp", "housing"]), st.sampled_from(["police", "dwp"]), st.sampled_from(RUNGS)),
    max_size=4,
)
cases = st.builds(lambda given, urgent: case(*given, urgent=urgent), places, st.booleans())
looks = st.lists(st.timedeltas(timedelta(0), timedelta(days=60)), min_size=1, max_size=8).map(sorted)


@given(cases, looks)
def test_however_often_one_looks_each_is_told_once(given_case: Case, after: list[timedelta]) -> None:
    looked_at, seen = None, []
    for wait in after:
        seen += review(given_case, DEADLINES, looked_at, SENT + wait).tell
        looked_at = SENT + wait
    assert len(seen) == len(set(seen))
    assert set(seen) == set(review(given_case, DEADLINES, None, SENT + after[-1]).tell)


@given(cases, looks)
def test_who_looks_when_it_is_said_misses_nothing(given_case: Case, after: list[timedelta]) -> None:
    looked_at, now, end, seen = None, SENT, SENT + after[-1], []
    while now <= end:
        found = review(given_case, DEADLINES, looked_at, now)
        seen += [(item, now) for item in found.tell]
        assert all(item.late.due.at <= now for item in found.tell)
        if found.look_at is None:
            break
        assert found.look_at > now
        looked_at, now = now, found.look_at
    assert {item for item, _ in seen} == set(review(given_case, DEADLINES, None, end).tell)
