"""Who is responsible for a section at an agency, since when, and what is due next. Pure: the time is an argument.

* Exactly one party is responsible at any time: the sender's agency, until a named holder has taken the section on.
* What was asked, or redirected to nobody, leaves it with the sender: nobody can say "I thought you had it".
* A section that is over (recalled, erased) is nobody's any more, and stays over.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from exchange.handover.deadlines import due_at
from exchange.schema.catalogue import AgencyKind
from exchange.schema.deadlines import Deadlines, Step


class Party(enum.StrEnum):
    """Who is responsible: the agency of that kind at the sender, the holder at the receiver; or it is over."""

    SENDER = "sender"
    HOLDER = "holder"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node knows of one section at one kind of agency; `at` is since when it stands on its rung."""

    kind: AgencyKind
    rung: str | None
    at: datetime
    sent_at: datetime
    urgent: bool
    #: Since when a question of the agency waits for an answer, if one does.
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A step that is still to be done, and by when."""

    step: Step
    at: datetime


@dataclass(frozen=True, slots=True)
class Responsibility:
    """Who is responsible, since when, and what is still to be done: the first of it first."""

    party: Party
    since: datetime
    due: tuple[Due, ...]

    def is_overdue(self, now: datetime) -> bool:
        """Whether something should have been done by now."""
        return bool(self.due) and self.due[0].at < now


_OVER = frozenset({"recalled", "erased"})


def responsibility(facts: Facts, deadlines: Deadlines) -> Responsibility:
    """Who is responsible for a section, and what is due."""
    if facts.rung in _OVER:
        return Responsibility(Party.NOBODY, facts.at, ())
    is_held = facts.rung == "owned"
    since = {
        Step.RECEIVED: facts.sent_at if facts.rung is None else None,
        Step.OWNED: None if is_held else facts.sent_at,
        Step.ANSWERED: facts.asked_at,
    }
    due = [
        Due(step, at)
        for step, begun in since.items()
        if begun is not None
        and (at := due_at(deadlines, step, begun, urgent=facts.urgent, kind=facts.kind)) is not None
    ]
    party = Party.HOLDER if is_held else Party.SENDER
    return Responsibility(party, facts.at if is_held else facts.sent_at, tuple(sorted(due, key=lambda item: item.at)))
