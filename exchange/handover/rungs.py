"""The ladder that a section climbs at the agency that is to have it.

Each rung is a signed receipt of the receiving node. A rung is never taken back: one that arrives late, below
where the section stands already, changes nothing. Beside the ladder stands what the agency asks, or redirects: it has
been delivered there and nobody owns it. What was redirected may be delivered once more, to somebody else.
"""

from collections.abc import Iterable
from typing import Final

#: From the lowest to the highest; before the first of them a section has no rung.
LADDER: Final = ("received", "routed", "delivered", "owned")
#: What is beside the ladder, and the rung that it has reached.
BESIDE: Final = {"queried": "delivered", "redirected": "delivered"}


def below(rung: str) -> tuple[str, ...]:
    """The rungs from which a section rises to `rung`; it does so too when it has none.

    Raises:
        ValueError: the ladder has no such rung.
    """
    return LADDER[: LADDER.index(rung)]


def has_reached(rung: str | None, wanted: str) -> bool:
    """Whether a section on `rung` stands at `wanted` or above."""
    stands = BESIDE.get(rung or "", rung)
    return stands in LADDER and LADDER.index(stands) >= LADDER.index(wanted)


def all_reached(rungs: Iterable[str | None], wanted: str) -> bool:
    """Whether every section of a message stands at `wanted` or above."""
    return all(has_reached(rung, wanted) for rung in rungs)
