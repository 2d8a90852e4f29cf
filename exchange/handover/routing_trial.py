"""What rules would do with messages that have arrived, and what would change by them. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from exchange.handover.routing import Choice, Facts, Rules, decide


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that arrived: what rules ask of it, and for each section who reads it, by manifest and catalogue."""

    message_id: str
    facts: Facts
    sections: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A section that other rules would place otherwise for the readers of a kind."""

    message_id: str
    section: str
    kind: str
    now: Choice
    then: Choice


@dataclass(slots=True)
class Trial:
    """How much would go where, and is held for which reason; the same by the rules in force."""

    messages: int = 0
    sections: int = 0
    #: Messages of which the move and the age band are not known here.
    unread: int = 0
    then: Counter[Choice] = field(default_factory=Counter)
    now: Counter[Choice] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)

    def add(self, arrived: Arrived, new: Rules, in_force: Rules, here: Mapping[str, bool]) -> None:
        """Try both rules on one message."""
        self.messages += 1
        self.unread += arrived.facts.move is None and arrived.facts.age_band is None
        for section, readers in arrived.sections:
            for kind in readers:
                then, now = (decide(rules, arrived.facts, section, kind, readers, here) for rules in (new, in_force))
                self.sections += 1
                self.then[_place(then)] += 1
                self.now[_place(now)] += 1
                if _place(now) != _place(then):
                    self.changes.append(Change(arrived.message_id, section, kind, now, then))


def _place(choice: Choice) -> Choice:
    """A choice without the rule by which it was made: rules may change and places stay."""
    return Choice(choice.agency, choice.held)
