"""How much somebody may do in a time: a bucket that is used up at once or little by little, and fills steadily.

* What is used up is counted as the time that it takes to fill again, so one number says all (GCRA, ITU-T I.371).
* A part may be kept back: whoever asks for more than what is beyond it waits, and who may use it does not.
* What costs more than a whole bucket is let through by a full one, and paid off afterwards.
* A clock that is set back fills nothing.

Pure: the time is an argument. The libraries for this (`limits`, `aiolimiter`, `pyrate-limiter`) read the clock
themselves.
"""

from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So much in a time: at once, or spread over it."""

    most: float
    per_ms: int

    def cost_ms(self, cost: float) -> float:
        """How long a cost takes to fill again."""
        return cost * self.per_ms / self.most


@dataclass(frozen=True, slots=True)
class Level:
    """How much of a bucket was used up at a time."""

    used_ms: float = 0.0
    at_ms: int = 0

    def later(self, now_ms: int) -> "Level":
        """The level now."""
        return Level(max(0.0, self.used_ms - max(0, now_ms - self.at_ms)), now_ms)


FULL: Final = Level()


def wait_ms(rate: Rate, level: Level, cost: float, now_ms: int, kept_back: float = 0.0) -> float:
    """How long to wait until `cost` may be taken; 0 where it may be taken now.

    `kept_back` is the share of the bucket, from 0 to 1, that this cost may not touch.
    """
    used_ms = level.later(now_ms).used_ms
    may_use_ms = rate.per_ms * (1 - kept_back)
    return max(0.0, used_ms - max(0.0, may_use_ms - rate.cost_ms(cost)))


def take(rate: Rate, level: Level, cost: float, now_ms: int) -> Level:
    """The level after `cost` was taken."""
    now = level.later(now_ms)
    return Level(now.used_ms + rate.cost_ms(cost), now_ms)


def give_back(rate: Rate, level: Level, cost: float) -> Level:
    """The level where `cost` was taken for nothing."""
    return Level(max(0.0, level.used_ms - rate.cost_ms(cost)), level.at_ms)
