"""When a lane may be tried: backoff with full jitter, and a half-open breaker. Pure: time and chance are arguments.

* After a failure the whole lane waits: what is behind the first delivery would fail too.
* The first try after a failure carries one delivery; where it succeeds the lane is open again.
* Whoever is heard from is tried at once.
* A destination that says it has had enough for now does not fail: it is tried when it said, and what is urgent at once.
* The breaker is open after a few failures in a row. What was put off meanwhile, delivery by delivery, is due when one
  gets through: the destination is back.
"""

from dataclasses import dataclass, replace
from typing import Final

WAVE: Final = 64
#: While something urgent goes the same way: it waits at the destination for the attempts that came before it.
_SHORT_WAVE: Final = 16
#: For so long after something urgent, the next may follow.
_URGENT_FOR_MS: Final = 1000
#: One delivery that is refused is no sign that the others would be.
OPEN_AFTER: Final = 3


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait: a random share of `base_s * 2^failures`, at most `cap_s`, never less than was asked for."""

    base_s: float
    cap_s: float
    #: How much of a wait that a destination asks for is waited, where that is another.
    asked_cap_s: float | None = None

    @property
    def longest_s(self) -> float:
        """No wait is longer."""
        return max(self.cap_s, self.asked_cap_s or 0.0)

    def delay_s(self, failures: int, chance: float, asked_s: float = 0.0) -> float:
        """The wait after `failures` failures in a row; `chance` is between 0 and 1, `asked_s` is Retry-After."""
        longest_s = min(self.cap_s, self.base_s * float(2 ** min(failures, 32)))
        return max(longest_s * chance, self.asked_s(asked_s))

    def asked_s(self, asked_s: float) -> float:
        """How much is done of a wait that was asked for: a destination can be mistaken, or mean harm."""
        return min(asked_s, self.cap_s if self.asked_cap_s is None else self.asked_cap_s)


@dataclass(frozen=True, slots=True)
class LaneState:
    """How a destination is doing."""

    failures: int = 0
    next_attempt_ms: int = 0
    last_error: str | None = None
    #: The destination takes no more for now, but of what is urgent.
    urgent_only: bool = False
    #: When the failures in a row began.
    since_ms: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open: the destination itself fails, and is only probed."""
        return self.failures >= OPEN_AFTER

    def limit(self, since_urgent_ms: int | None = None) -> int:
        """How many deliveries the next attempt may carry; `since_urgent_ms` ago something urgent was to be sent."""
        if self.failures:
            return 1
        return WAVE if since_urgent_ms is None or not 0 <= since_urgent_ms < _URGENT_FOR_MS else _SHORT_WAVE

    def attempts_at_once(self) -> int:
        """How many attempts may be under way: a healthy destination is sent the next while it answers the last."""
        return 1 if self.failures else 2

    def wait_ms(self, now_ms: int, longest_ms: int) -> int:
        """How long until the lane may be tried; nothing waits longer than the longest delay.

        Where it would, the clock was ahead when the last attempt failed, and has been set back.
        """
        wait_ms = max(0, self.next_attempt_ms - now_ms)
        return wait_ms if wait_ms <= longest_ms else 0

    def limited(self, error: str, now_ms: int, asked_s: float, *, urgent_only: bool) -> "LaneState":
        """After the destination has said when to come again."""
        return LaneState(1, now_ms + round(asked_s * 1000), error, urgent_only, self._since_ms(now_ms))

    def failed(self, error: str, now_ms: int, delay_s: float, *, urgent_only: bool = False) -> "LaneState":
        """After an attempt that failed; `urgent_only` where what is urgent need not wait so long."""
        next_ms = now_ms + round(delay_s * 1000)
        return LaneState(self.failures + 1, next_ms, error, urgent_only, self._since_ms(now_ms))

    def _since_ms(self, now_ms: int) -> int:
        return self.since_ms if self.failures else now_ms

    def heard(self) -> "LaneState":
        """After the destination has shown that it lives."""
        return replace(self, next_attempt_ms=0, urgent_only=False)
