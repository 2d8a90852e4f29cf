"""Whether a one-time link can still be used to take a section on. Pure.

What is said first is what cannot change any more: a link that was used stays used, whatever else becomes of it.
"""

import enum

from exchange.handover.holding import State


class Standing(enum.StrEnum):
    """How a link stands."""

    GOOD = "good"
    USED = "used"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    #: The section was taken on in another way.
    TAKEN = "taken"
    #: The agency has redirected the section, or has it no more.
    ELSEWHERE = "elsewhere"


def standing(
    *, used: bool, withdrawn: bool, expires_at_ms: int, now_ms: int, state: State | None, needs_delivery: bool = False
) -> Standing:
    """How a link stands; `state` is that of the section at the agency, None where the agency does not have it.

    What `needs_delivery` is the borough's word, and waits until the agency has the section.
    """
    if used:
        return Standing.USED
    if withdrawn:
        return Standing.WITHDRAWN
    if now_ms >= expires_at_ms:
        return Standing.EXPIRED
    if state is None or state is State.REDIRECTED or (needs_delivery and state is State.ROUTED):
        return Standing.ELSEWHERE
    return Standing.TAKEN if state is State.OWNED else Standing.GOOD
