"""A sharing agreement: with whom, for which agencies, from when until when, on what legal basis. Pure.

* It is in force from its first day to its last, both included, unless a person ended it before.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from exchange.schema.legal import Basis

#: How long before the end the admins are told: agreements take weeks to renew.
ENDS_SOON: Final = timedelta(days=28)
#: In `bases`: every agency kind that has no basis of its own there.
OTHERS: Final = ""


class Standing(enum.StrEnum):
    """How an agreement stands on a day."""

    FUTURE = "future"
    ACTIVE = "active"
    #: In force, for four weeks at most.
    ENDING = "ending"
    EXPIRED = "expired"


IN_FORCE: Final = frozenset({Standing.ACTIVE, Standing.ENDING})


@dataclass(frozen=True, slots=True)
class Agreement:
    """What of an agreement is decided by; `kinds` is empty where it is for every kind of agency."""

    id: str
    area: str
    kinds: frozenset[str]
    bases: Mapping[str, Basis]
    starts_on: date
    ends_on: date
    #: Whether a person ended it.
    ended: bool = False

    def standing(self, today: date) -> Standing:
        """How it stands on a day."""
        if self.ended or today > self.ends_on:
            return Standing.EXPIRED
        if today < self.starts_on:
            return Standing.FUTURE
        return Standing.ENDING if self.ends_on - today < ENDS_SOON else Standing.ACTIVE

    def is_in_force(self, today: date) -> bool:
        """Whether something may be disclosed under it on a day."""
        return self.standing(today) in IN_FORCE

    def covers(self, kind: str) -> bool:
        """Whether it is for a kind of agency."""
        return not self.kinds or kind in self.kinds

    def basis_for(self, kind: str) -> Basis | None:
        """The legal basis that it gives for a kind of agency."""
        return self.bases.get(kind, self.bases.get(OTHERS))
