"""When a webhook that was not accepted is tried again. Pure: time and chance are arguments.

* The waits are those of Standard Webhooks, each up to a fifth longer, so that those who failed together come apart.
* What is urgent waits a minute at most: it is about somebody's safety now.
* Retry-After is honoured up to an hour, and for what is urgent up to a minute.
* A delivery is given up by the table only when it was tried as often as the table says, and for as long. It is then
  held for a person: nothing is dropped.

Source: Standard Webhooks 1.0, "Deliverability and reliability".
"""

from collections.abc import Sequence
from typing import Final

#: The waits after the first attempt, which is at once: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
STANDARD_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
URGENT_CAP_S: Final = 60.0
ASKED_CAP_S: Final = 3600.0
JITTER: Final = 0.2


def honoured_s(asked_s: float, *, urgent: bool) -> float:
    """How much of a wait that was asked for is waited: an endpoint can be mistaken, or mean harm."""
    return max(0.0, min(asked_s, URGENT_CAP_S if urgent else ASKED_CAP_S))


def next_try_s(
    table_s: Sequence[float], failures: int, waited_s: float, chance: float, *, asked_s: float = 0.0, urgent: bool
) -> float | None:
    """How long to wait after so many failures of one delivery, at least one; None where the table is used up.

    `waited_s` is how long the delivery has been tried, `chance` is between 0 and 1, `asked_s` is Retry-After.
    """
    if failures > len(table_s) and waited_s >= sum(table_s):
        return None
    wait_s = table_s[min(failures, len(table_s)) - 1]
    if urgent:
        wait_s = min(wait_s, URGENT_CAP_S)
    return max(wait_s * (1 + JITTER * chance), honoured_s(asked_s, urgent=urgent))
