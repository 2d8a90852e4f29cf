"""Whom a node hears and sends to: one table. Pure: no store, no clock.

* Only a `verified` peer is heard or sent to.
* Trust is in one identity, named by its fingerprint. Another identity that does not prove itself blocks the peer;
  out of that leads a new verification alone, of either of the two.
* A revoked identity never comes back: who was compromised returns under a new one, verified anew.
"""

import enum
from dataclasses import dataclass, replace
from typing import Final


class Trust(enum.StrEnum):
    """What a peer is to this node."""

    UNVERIFIED = "unverified"
    CONFIRMING = "confirming"
    VERIFIED = "verified"
    SUSPENDED = "suspended"
    BLOCKED = "blocked"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"


class Event(enum.StrEnum):
    """What happens to a peer."""

    CONFIRMED_BY_ONE = "confirmed by one of two"
    CONFIRMED = "confirmed"
    SUSPENDED = "suspended"
    SHOWN_ANOTHER = "another identity shown"
    ROTATED = "identity rotated, with proof"
    FORKED = "fork seen"
    REVOKED = "identity revoked"


@dataclass(frozen=True, slots=True)
class Transition:
    """In any of `states`, `event` leads to `after`, or changes no state where `after` is None."""

    states: frozenset[Trust]
    event: Event
    after: Trust | None


_NEVER_TRUSTED: Final = frozenset({Trust.UNVERIFIED, Trust.CONFIRMING})
_ONCE_TRUSTED: Final = frozenset({Trust.VERIFIED, Trust.SUSPENDED})
_STOPPED: Final = frozenset({Trust.BLOCKED, Trust.QUARANTINED})

#: What stands in no row is refused.
TABLE: Final = (
    Transition(frozenset(Trust) - {Trust.VERIFIED, Trust.CONFIRMING}, Event.CONFIRMED_BY_ONE, Trust.CONFIRMING),
    Transition(frozenset(Trust), Event.CONFIRMED, Trust.VERIFIED),
    Transition(_ONCE_TRUSTED | {Trust.CONFIRMING}, Event.SUSPENDED, Trust.SUSPENDED),
    Transition(_NEVER_TRUSTED, Event.SHOWN_ANOTHER, Trust.UNVERIFIED),
    Transition(_ONCE_TRUSTED | {Trust.BLOCKED}, Event.SHOWN_ANOTHER, Trust.BLOCKED),
    Transition(frozenset({Trust.QUARANTINED, Trust.REVOKED}), Event.SHOWN_ANOTHER, None),
    Transition(_NEVER_TRUSTED | _ONCE_TRUSTED, Event.ROTATED, None),
    Transition(_ONCE_TRUSTED, Event.FORKED, Trust.QUARANTINED),
    Transition(frozenset({Trust.CONFIRMING}), Event.FORKED, Trust.UNVERIFIED),
    Transition(_STOPPED | {Trust.UNVERIFIED, Trust.REVOKED}, Event.FORKED, None),
    Transition(frozenset(Trust), Event.REVOKED, Trust.REVOKED),
)


class NotInTable(ValueError):
    """An event that cannot happen in a state."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What this node holds of a peer's identity.

    `candidate` is the fingerprint of an identity that was shown and is not proven, `first` who confirmed first where
    two must, and `revoked` every fingerprint of the peer that was revoked.
    """

    trust: Trust
    fingerprint: str
    candidate: str | None = None
    first: str | None = None
    revoked: frozenset[str] = frozenset()

    @property
    def is_heard(self) -> bool:
        """Whether the peer is heard and sent to."""
        return self.trust is Trust.VERIFIED

    def confirm(self, fingerprint: str, who: str, *, needs_two: bool) -> "Standing":
        """`who` has compared `fingerprint` with the peer's admin, out of band.

        Raises:
            NotInTable: it is neither the identity in force nor the one shown, it was revoked, or the second person
                who must confirm is the first again.
        """
        if fingerprint not in (self.fingerprint, self.candidate):
            raise NotInTable("that is not an identity that this peer has shown")
        if fingerprint in self.revoked:
            raise NotInTable("that identity was revoked")
        if needs_two and self.trust is not Trust.CONFIRMING:
            return replace(self._move(Event.CONFIRMED_BY_ONE), fingerprint=fingerprint, candidate=None, first=who)
        if needs_two and who == self.first:
            raise NotInTable("a second person must confirm")
        return replace(self._move(Event.CONFIRMED), fingerprint=fingerprint, candidate=None)

    def show(self, fingerprint: str) -> "Standing":
        """The peer shows an identity without any proof that it is the one in force.

        Raises:
            NotInTable: it was revoked.
        """
        if fingerprint in self.revoked:
            raise NotInTable("that identity was revoked")
        if fingerprint == self.fingerprint:
            return self
        moved = self._move(Event.SHOWN_ANOTHER)
        if moved.trust is Trust.UNVERIFIED:
            return replace(moved, fingerprint=fingerprint, candidate=None)
        return replace(moved, candidate=fingerprint)

    def rotate(self, fingerprint: str) -> "Standing":
        """The identity in force has passed itself on to another, with proof.

        Raises:
            NotInTable: the peer is stopped, or the new identity was revoked.
        """
        if fingerprint in self.revoked:
            raise NotInTable("that identity was revoked")
        moved = self._move(Event.ROTATED)
        return replace(moved, fingerprint=fingerprint, candidate=None, first=self.first)

    def suspend(self) -> "Standing":
        """An admin stops the peer.

        Raises:
            NotInTable: there is nothing to stop.
        """
        return self._move(Event.SUSPENDED)

    def fork(self) -> "Standing":
        """The peer's log was seen to fork."""
        return self._move(Event.FORKED)

    def revoke(self) -> "Standing":
        """The identity in force has revoked itself."""
        moved = self._move(Event.REVOKED)
        return replace(moved, revoked=self.revoked | {self.fingerprint})

    def _move(self, event: Event) -> "Standing":
        for row in TABLE:
            if row.event is event and self.trust in row.states:
                return replace(self, trust=row.after or self.trust, first=None)
        raise NotInTable(f"a peer that is {self.trust} cannot be {event}")
