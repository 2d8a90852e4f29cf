"""The rotation of a webhook secret, as a table: when the old secret signs no more. Pure.

* While two secrets are there, both sign every webhook: who has switched verifies, and so does who has not.
* The old one goes when the overlap has passed *and* the agency has proven that it verifies with the new one.
* An agency that names the old secret takes its proof back: one of its machines has not switched.
* Without a proof nothing is locked out: both go on signing, and the admins are told.
"""

import enum
from dataclasses import dataclass
from typing import Final


class Stage(enum.StrEnum):
    """How a rotation stands."""

    SINGLE = "single"
    OVERLAP = "overlap"
    PROVEN = "proven"
    OVERDUE = "overdue"


class Sign(enum.StrEnum):
    """What happens: an admin rotates; an answer names a secret; the overlap has passed."""

    ROTATED = "rotated"
    NEW_NAMED = "new-named"
    OLD_NAMED = "old-named"
    TIME_UP = "time-up"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the table. `retire` where the old secret is destroyed, `alarm` where the admins are told."""

    stage: Stage
    sign: Sign
    next: Stage
    retire: bool = False
    alarm: bool = False


TABLE: Final = (
    Step(Stage.SINGLE, Sign.ROTATED, Stage.OVERLAP),
    Step(Stage.OVERLAP, Sign.NEW_NAMED, Stage.PROVEN),
    Step(Stage.OVERLAP, Sign.TIME_UP, Stage.OVERDUE, alarm=True),
    Step(Stage.PROVEN, Sign.OLD_NAMED, Stage.OVERLAP),
    Step(Stage.PROVEN, Sign.TIME_UP, Stage.SINGLE, retire=True),
    Step(Stage.OVERDUE, Sign.NEW_NAMED, Stage.SINGLE, retire=True),
)
_BY_PAIR: Final = {(line.stage, line.sign): line for line in TABLE}


def step(stage: Stage, sign: Sign) -> Step | None:
    """The line of the table; None where nothing changes."""
    return _BY_PAIR.get((stage, sign))
