"""One party is responsible for each section, and knows what is due."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.responsibility import Facts, Party, responsibility
from exchange.schema.catalogue import default_catalogue
from exchange.schema.deadlines import Step, default_deadlines

#: A Tuesday morning.
SENT = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)
LATER = SENT + timedelta(hours=1)
DEADLINES = default_deadlines()
RUNGS = (None, "received", "routed", "delivered", "queried", "redirected", "owned", "expired", "recalled", "erased")

facts = st.builds(
    Facts,
    kind=st.sampled_from(sorted(default_catalogue().kinds())),
    rung=st.sampled_from(RUNGS),
    at=st.just(LATER),
    sent_at=st.just(SENT),
    urgent=st.booleans(),
    asked_at=st.sampled_from([None, LATER]),
)


@pytest.mark.parametrize("rung", [rung for rung in RUNGS if rung not in {"owned", "recalled", "erased"}])
def test_the_sender_is_responsible_until_somebody_has_taken_the_section_on(rung: str | None) -> None:
    found = responsibility(Facts("police", rung, LATER, SENT, urgent=False), DEADLINES)
    assert (found.party, found.since) == (Party.SENDER, SENT)


def test_a_holder_is_responsible_from_when_they_took_it_on() -> None:
    found = responsibility(Facts("police", "owned", LATER, SENT, urgent=True), DEADLINES)
    assert (found.party, found.since, found.due) == (Party.HOLDER, LATER, ())


@pytest.mark.parametrize(
    ("rung", "urgent", "asked_at", "steps"),
    [
        (None, True, None, [Step.RECEIVED, Step.OWNED]),
        (None, False, None, [Step.OWNED]),
        ("delivered", True, None, [Step.OWNED]),
        ("queried", False, LATER, [Step.OWNED, Step.ANSWERED]),
        ("owned", False, LATER, [Step.ANSWERED]),
        ("owned", False, None, []),
        ("erased", True, LATER, []),
    ],
)
def test_what_is_due_stands_in_order(
    rung: str | None, urgent: bool, asked_at: datetime | None, steps: list[Step]
) -> None:
    found = responsibility(Facts("police", rung, LATER, SENT, urgent=urgent, asked_at=asked_at), DEADLINES)
    assert [due.step for due in found.due] == steps
    assert sorted(due.at for due in found.due) == [due.at for due in found.due]


def test_a_section_is_overdue_from_the_first_deadline_on() -> None:
    found = responsibility(Facts("police", None, SENT, SENT, urgent=True), DEADLINES)
    assert not found.is_overdue(SENT + timedelta(minutes=15))
    assert found.is_overdue(SENT + timedelta(minutes=15, seconds=1))


@given(facts)
def test_nobody_is_responsible_only_for_what_is_over(given: Facts) -> None:
    found = responsibility(given, DEADLINES)
    assert (found.party is Party.NOBODY) == (given.rung in {"recalled", "erased"})
    assert found.party is not Party.NOBODY or not found.due


@given(facts, st.timedeltas(timedelta(0), timedelta(days=60)))
def test_what_is_overdue_stays_overdue_until_something_is_done(given: Facts, later: timedelta) -> None:
    found = responsibility(given, DEADLINES)
    if found.is_overdue(SENT + later):
        assert found.is_overdue(SENT + later + timedelta(days=1))
