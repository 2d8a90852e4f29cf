"""What becomes of an agency's endpoint: a table of states. Short failures are the lane's breaker's, not this one's.

* What is due for an endpoint that is not active is held with the reason; nothing is dropped, and nothing is sent.
* Only a person makes an endpoint active again.
"""

import enum
from dataclasses import dataclass
from typing import Final


class State(enum.StrEnum):
    """How an endpoint stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class Event(enum.StrEnum):
    """What happens to it: a person's word, or what it answered."""

    PAUSE = "pause"
    RESUME = "resume"
    ENABLE = "enable"
    #: It answered 410.
    GONE = "gone"
    #: Something was tried as often and as long as the table says, and meanwhile nothing else was accepted.
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the table; `alarm` where the admins are told."""

    state: State
    event: Event
    next: State
    alarm: bool = False


TABLE: Final = (
    Transition(State.ACTIVE, Event.PAUSE, State.PAUSED),
    Transition(State.ACTIVE, Event.RESUME, State.ACTIVE),
    Transition(State.ACTIVE, Event.ENABLE, State.ACTIVE),
    Transition(State.ACTIVE, Event.GONE, State.DISABLED, alarm=True),
    Transition(State.ACTIVE, Event.EXHAUSTED, State.DISABLED, alarm=True),
    Transition(State.PAUSED, Event.PAUSE, State.PAUSED),
    Transition(State.PAUSED, Event.RESUME, State.ACTIVE),
    # What was under way when it was paused may still be answered.
    Transition(State.PAUSED, Event.GONE, State.DISABLED, alarm=True),
    Transition(State.PAUSED, Event.EXHAUSTED, State.PAUSED),
    Transition(State.DISABLED, Event.ENABLE, State.ACTIVE),
    Transition(State.DISABLED, Event.GONE, State.DISABLED),
    Transition(State.DISABLED, Event.EXHAUSTED, State.DISABLED),
)
_BY_PAIR: Final = {(line.state, line.event): line for line in TABLE}


def transition(state: State, event: Event) -> Transition | None:
    """The line of the table for a state and an event; None where the event is not possible there."""
    return _BY_PAIR.get((state, event))
