"""By when each step is due, by the file that is shipped."""

from datetime import UTC, datetime, timedelta

import pytest

from exchange.handover.deadlines import due_at
from exchange.handover.working_time import LONDON
from exchange.schema.deadlines import Step, default_deadlines

#: A Friday in winter, an hour before offices close.
SENT = datetime(2026, 12, 4, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("step", "kind", "minutes"),
    [
        (Step.RECEIVED, None, 15),
        (Step.OWNED, "coordinator", 120),
        (Step.OWNED, "police", 240),
        (Step.OWNED, "housing", 240),
    ],
)
def test_what_is_urgent_is_due_around_the_clock(step: Step, kind: str | None, minutes: int) -> None:
    assert due_at(default_deadlines(), step, SENT, urgent=True, kind=kind) == SENT + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("step", "kind", "urgent", "due"),
    [
        (Step.OWNED, "probation", True, "2026-12-07T16:00"),
        (Step.OWNED, "coordinator", False, "2026-12-07T16:00"),
        (Step.OWNED, "police", False, "2026-12-09T16:00"),
        (Step.ANSWERED, None, False, "2026-12-11T16:00"),
        (Step.MET, None, False, "2026-12-18T16:00"),
        (Step.COMPLETE, None, False, "2027-01-06T16:00"),
    ],
)
def test_the_rest_is_due_in_working_hours(step: Step, kind: str | None, urgent: bool, due: str) -> None:
    expected = datetime.fromisoformat(due).replace(tzinfo=LONDON)
    assert due_at(default_deadlines(), step, SENT, urgent=urgent, kind=kind) == expected


def test_a_step_without_a_line_has_no_deadline() -> None:
    assert due_at(default_deadlines(), Step.MET, SENT, urgent=True) is None
