"""What an agency may say of a section that it was given, and what that makes of the section: a table of states. Pure.

* A section has one holder or none. The sender is responsible while it has none.
* A holder goes when another takes the section on, or when the agency says that it is not theirs; never otherwise.
* There is no bare "reject": who does not own a section asks, or says why it is not theirs and whose it may be.
* The same word again changes nothing, and is answered as before.
* The agency speaks of what it was given. The borough's admins speak for it only of what it has accepted.
"""

import enum
from dataclasses import dataclass
from typing import Final, TypeVar

H = TypeVar("H")


class State(enum.StrEnum):
    """How a section stands at an agency. `routed`: the agency has not accepted it yet."""

    ROUTED = "routed"
    DELIVERED = "delivered"
    QUERIED = "queried"
    OWNED = "owned"
    REDIRECTED = "redirected"


class Event(enum.StrEnum):
    """What is said of it; `accept` is an endpoint's 2xx."""

    ACCEPT = "accept"
    OWN = "own"
    QUERY = "query"
    REDIRECT = "redirect"


class Guard(enum.StrEnum):
    """What else must be so: the word is new or was said before; it gives the section to an agency here, or to none."""

    NEW = "new"
    AGAIN = "again"
    HERE = "here"
    AWAY = "away"


class By(enum.StrEnum):
    """Whose word it is."""

    AGENCY = "agency"
    BOROUGH = "borough"


_BOTH: Final = frozenset(By)
_AGENCY: Final = frozenset({By.AGENCY})


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the table; `receipt` is the rung that is signed for the sender, if one is."""

    state: State
    event: Event
    guard: Guard
    next: State
    receipt: str | None
    by: frozenset[By] = _BOTH


def _words(state: State, after_query: State, by: frozenset[By] = _BOTH) -> tuple[Transition, ...]:
    """What may be said in every state but that of a section which is not theirs."""
    return (
        Transition(state, Event.OWN, Guard.NEW, State.OWNED, "owned", by),
        Transition(state, Event.QUERY, Guard.NEW, after_query, "queried", by),
        Transition(state, Event.REDIRECT, Guard.HERE, State.ROUTED, "redirected", by),
        Transition(state, Event.REDIRECT, Guard.AWAY, State.REDIRECTED, "redirected", by),
    )


TABLE: Final = (
    Transition(State.ROUTED, Event.ACCEPT, Guard.NEW, State.DELIVERED, "delivered", _AGENCY),
    # Its answer may come before its 2xx is recorded. Nobody else can know whether it has the section.
    *_words(State.ROUTED, State.QUERIED, _AGENCY),
    Transition(State.ROUTED, Event.REDIRECT, Guard.AGAIN, State.ROUTED, None),
    *_words(State.DELIVERED, State.QUERIED),
    Transition(State.DELIVERED, Event.REDIRECT, Guard.AGAIN, State.DELIVERED, None),
    *_words(State.QUERIED, State.QUERIED),
    Transition(State.QUERIED, Event.QUERY, Guard.AGAIN, State.QUERIED, None),
    Transition(State.QUERIED, Event.REDIRECT, Guard.AGAIN, State.QUERIED, None),
    # A holder may ask, and may hand the section on.
    *_words(State.OWNED, State.OWNED),
    Transition(State.OWNED, Event.OWN, Guard.AGAIN, State.OWNED, None),
    Transition(State.OWNED, Event.QUERY, Guard.AGAIN, State.OWNED, None),
    Transition(State.OWNED, Event.REDIRECT, Guard.AGAIN, State.OWNED, None),
    # Who said by mistake that it is not theirs takes it on after all.
    Transition(State.REDIRECTED, Event.OWN, Guard.NEW, State.OWNED, "owned"),
    Transition(State.REDIRECTED, Event.REDIRECT, Guard.AGAIN, State.REDIRECTED, None),
    Transition(State.REDIRECTED, Event.REDIRECT, Guard.HERE, State.ROUTED, "redirected"),
    Transition(State.REDIRECTED, Event.REDIRECT, Guard.AWAY, State.REDIRECTED, "redirected"),
)
_BY_KEY: Final = {(line.state, line.event, line.guard): line for line in TABLE}


def transition(state: State, event: Event, guard: Guard, by: By) -> Transition | None:
    """The line of the table for what is said in a state; None where it may not be said there."""
    line = _BY_KEY.get((state, event, guard))
    return line if line is not None and by in line.by else None


def holder_after(line: Transition, holder: H | None, named: H | None) -> H | None:
    """Who holds the section after a line of the table; `named` is whom an `own` names."""
    if line.next != State.OWNED:
        return None
    return named if line.event == Event.OWN and line.guard == Guard.NEW else holder
