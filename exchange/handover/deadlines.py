"""By when a step of a handover is due. Pure: the times are arguments, the deadlines are data.

A deadline that counts around the clock passes at night too; one in working days never ends outside working hours.
"""

from datetime import datetime

from exchange.handover.working_time import WORKING_DAY, add_working_time
from exchange.schema.catalogue import AgencyKind
from exchange.schema.deadlines import Deadlines, Step


def due_at(
    deadlines: Deadlines, step: Step, since: datetime, *, urgent: bool, kind: AgencyKind | None = None
) -> datetime | None:
    """When a step that could be done since then is due, in UTC; None where it has no deadline.

    `kind` is of the agency whose step it is, for `owned`.
    """
    within = deadlines.within(step, urgent=urgent, kind=kind)
    if within is None:
        return None
    if within.clock is not None:
        return since + within.clock
    return add_working_time(since, (within.working_days or 0) * WORKING_DAY)
