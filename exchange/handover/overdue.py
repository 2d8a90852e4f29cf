"""What of a handover is late, who is told of it now, and when to look again. Pure: the times are arguments.

* Whoever is responsible is told when a deadline passes: the agency, and its deputy.
* The coordinator is told when that has not helped in time (`escalated` in the deadlines).
* Each is told once: what was late at the last look was told then.
* What the agencies do together, to meet and to complete, is the coordinator's from the start.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.handover.deadlines import due_at
from exchange.handover.responsibility import Due, Facts, responsibility
from exchange.schema.catalogue import AgencyKind
from exchange.schema.deadlines import Deadlines, Step

#: The kind of agency that sees to what the others are late with.
COORDINATOR: Final = "coordinator"


class Told(enum.StrEnum):
    """Who is told that something is late."""

    AGENCY = "agency"
    COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class Open:
    """A step that is still to be done, and the sections that wait for it; `kind` is of the agency whose step it is."""

    due: Due
    kind: AgencyKind | None
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Telling:
    """Somebody to be told now that a step is late."""

    who: Told
    late: Open


@dataclass(frozen=True, slots=True)
class Review:
    """What was found: whom to tell, since when something is late, and when to look again, if ever."""

    tell: tuple[Telling, ...]
    overdue_since: datetime | None
    look_at: datetime | None


@dataclass(frozen=True, slots=True)
class Case:
    """A handover as a node knows it: each section at each kind of agency, and what people recorded of the whole."""

    sent_at: datetime
    urgent: bool
    places: tuple[tuple[str, Facts], ...]
    met: bool = False
    complete: bool = False


def open_steps(case: Case, deadlines: Deadlines) -> list[Open]:
    """The steps that are still to be done, the first first."""
    if case.complete:
        return []
    waiting: dict[tuple[AgencyKind | None, Due], list[str]] = {}
    for section, facts in case.places:
        for due in responsibility(facts, deadlines).due:
            waiting.setdefault((facts.kind, due), []).append(section)
    for step, is_done in ((Step.MET, case.met), (Step.COMPLETE, False)):
        at = None if is_done else due_at(deadlines, step, case.sent_at, urgent=case.urgent)
        if at is not None:
            waiting[None, Due(step, at)] = []
    steps = [Open(due, kind, tuple(sections)) for (kind, due), sections in waiting.items()]
    return sorted(steps, key=lambda item: (item.due.at, item.due.step, item.kind or ""))


def review(case: Case, deadlines: Deadlines, looked_at: datetime | None, now: datetime) -> Review:
    """Look at a handover; `looked_at` is when it was looked at last."""
    steps = open_steps(case, deadlines)
    moments = [(at, telling) for step in steps for at, telling in _moments(step, case, deadlines)]
    tell = [telling for at, telling in moments if at <= now and (looked_at is None or at > looked_at)]
    return Review(
        tuple(tell),
        min((step.due.at for step in steps if step.due.at <= now), default=None),
        min((at for at, _ in moments if at > now), default=None),
    )


def late_for(case: Case, deadlines: Deadlines, now: datetime, kind: AgencyKind) -> list[Open]:
    """What an agency of that kind is to see to by now, because it is late."""
    late = (
        telling.late
        for step in open_steps(case, deadlines)
        for at, telling in _moments(step, case, deadlines)
        if at <= now and kind == (COORDINATOR if telling.who is Told.COORDINATOR else step.kind)
    )
    return list(dict.fromkeys(late))


def _moments(step: Open, case: Case, deadlines: Deadlines) -> Iterable[tuple[datetime, Telling]]:
    """When somebody is to be told of a step, should it still be open then."""
    if step.kind is None:
        yield step.due.at, Telling(Told.COORDINATOR, step)
        return
    yield step.due.at, Telling(Told.AGENCY, step)
    later = due_at(deadlines, Step.ESCALATED, step.due.at, urgent=case.urgent)
    if later is not None:
        yield later, Telling(Told.COORDINATOR, step)


def may_complete(places: Sequence[tuple[str, Facts]]) -> bool:
    """Whether nothing is left with the sender: each section has a holder, or is over."""
    return all(facts.rung in {"owned", "recalled", "erased"} for _, facts in places)
