"""What the word of a directory leads to, for one borough: one table. Pure: no store, no clock.

* Under the policy `hint` nothing that a directory says makes a peer heard or sent to.
* A directory lifts no stop: whom people here suspended or removed, or whose log forked, people verify again.
* It takes the place of people only where no person ever compared the identity in force.
* It takes away what it gave alone; whom people verified goes on, and people are told.
* It gives nobody the area of one whom people verified or stopped, whatever became of that one, nor the node's own.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from exchange.node.trust import Trust


class Policy(enum.StrEnum):
    """What a directory's word is worth to this node."""

    HINT = "hint"
    SUFFICES = "suffices"


class By(enum.StrEnum):
    """Who verified the identity in force."""

    NOBODY = "nobody"
    DIRECTORY = "directory"
    PEOPLE = "people"


class Says(enum.StrEnum):
    """What the directory says of a peer's origin."""

    ABSENT = "it is not listed"
    SAME = "the identity in force"
    PROVEN = "another identity, to which the one in force passed itself on"
    CANDIDATE = "another identity, which the peer has shown too"
    OTHER = "another identity"
    REVOKED = "an identity that was revoked"


class Action(enum.StrEnum):
    """What is to be done. After SHOW, the peer stands otherwise, and the table is asked again."""

    NOTHING = "nothing"
    #: Take the card where it is newer; it moves no trust.
    KEEP = "keep its card"
    #: Let the card through the table of trust, as a card from a file: a new peer stays unverified.
    SHOW = "show its card"
    CONFIRM = "verify"
    SUSPEND = "suspend, and tell people"
    TELL = "tell people"


@dataclass(frozen=True, slots=True)
class Case:
    """All that the table looks at. `trust` is None for a node that nobody registered."""

    policy: Policy
    trust: Trust | None
    by: By
    is_stopped: bool
    says: Says
    #: Another node holds the same area (`holds_area`), or it is this node's own.
    is_area_taken: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a case is one of all these, this is done. None stands for any."""

    action: Action
    says: frozenset[Says] | None = None
    policy: Policy | None = None
    trust: frozenset[Trust | None] | None = None
    by: frozenset[By] | None = None
    is_stopped: bool | None = None
    is_area_taken: bool | None = None

    def holds(self, case: Case) -> bool:
        """Whether the case is one of this rule."""
        return (
            (self.says is None or case.says in self.says)
            and (self.policy is None or case.policy is self.policy)
            and (self.trust is None or case.trust in self.trust)
            and (self.by is None or case.by in self.by)
            and (self.is_stopped is None or case.is_stopped is self.is_stopped)
            and (self.is_area_taken is None or case.is_area_taken is self.is_area_taken)
        )


def _says(*says: Says) -> frozenset[Says]:
    return frozenset(says)


def _trust(*trust: Trust | None) -> frozenset[Trust | None]:
    return frozenset(trust)


_ANOTHER: Final = _says(Says.CANDIDATE, Says.OTHER, Says.PROVEN)
_ALONE: Final = frozenset({By.DIRECTORY})
_STOPPED: Final = _trust(Trust.SUSPENDED, Trust.QUARANTINED)
_SUFFICES: Final = Policy.SUFFICES

#: The first rule that holds is followed.
TABLE: Final = (
    # A stop is people's to lift; a newer card of the same identity lifts none.
    Rule(Action.NOTHING, _says(Says.ABSENT), is_stopped=True),
    Rule(Action.NOTHING, trust=_trust(None), is_stopped=True),
    Rule(Action.KEEP, _says(Says.SAME), is_stopped=True),
    Rule(Action.NOTHING, is_stopped=True),
    Rule(Action.KEEP, _says(Says.SAME), trust=_STOPPED),
    Rule(Action.NOTHING, trust=_STOPPED),
    Rule(Action.TELL, _says(Says.REVOKED)),
    # Nobody registered it: it appears, unverified.
    Rule(Action.NOTHING, _says(Says.ABSENT), trust=_trust(None)),
    Rule(Action.SHOW, trust=_trust(None)),
    # The identity in force.
    Rule(
        Action.TELL, _says(Says.SAME), _SUFFICES, trust=_trust(Trust.UNVERIFIED, Trust.CONFIRMING), is_area_taken=True
    ),
    Rule(Action.CONFIRM, _says(Says.SAME), _SUFFICES, trust=_trust(Trust.UNVERIFIED)),
    # One of two; the directory does not count twice.
    Rule(Action.KEEP, _says(Says.SAME), trust=_trust(Trust.CONFIRMING), by=_ALONE),
    Rule(Action.CONFIRM, _says(Says.SAME), _SUFFICES, trust=_trust(Trust.CONFIRMING)),
    Rule(Action.KEEP, _says(Says.SAME)),
    # A rotation is proven by the keys in force: who carries it does not matter.
    Rule(Action.SHOW, _says(Says.PROVEN), trust=_trust(Trust.UNVERIFIED, Trust.CONFIRMING, Trust.VERIFIED)),
    # Another identity, of one whom nobody trusted yet.
    Rule(Action.SHOW, _ANOTHER, _SUFFICES, trust=_trust(Trust.UNVERIFIED)),
    Rule(Action.NOTHING, _ANOTHER, trust=_trust(Trust.UNVERIFIED)),
    # Another identity, of one whom the directory alone vouched for: what it gave it may take, and give anew.
    Rule(Action.SUSPEND, _ANOTHER, Policy.HINT, trust=_trust(Trust.CONFIRMING, Trust.VERIFIED), by=_ALONE),
    Rule(Action.SHOW, _ANOTHER, trust=_trust(Trust.CONFIRMING, Trust.VERIFIED), by=_ALONE),
    Rule(Action.TELL, _ANOTHER, is_area_taken=True),
    Rule(Action.CONFIRM, _says(Says.CANDIDATE), _SUFFICES, trust=_trust(Trust.BLOCKED, Trust.REVOKED), by=_ALONE),
    Rule(Action.SHOW, _ANOTHER, _SUFFICES, trust=_trust(Trust.BLOCKED, Trust.REVOKED), by=_ALONE),
    # Another identity than people verified.
    Rule(Action.TELL, _ANOTHER),
    # Not listed, or not any more.
    Rule(Action.SUSPEND, _says(Says.ABSENT), trust=_trust(Trust.CONFIRMING, Trust.VERIFIED), by=_ALONE),
    Rule(Action.TELL, _says(Says.ABSENT), trust=_trust(Trust.VERIFIED)),
    Rule(Action.NOTHING, _says(Says.ABSENT)),
)


def decide(case: Case) -> Action:
    """What to do about one borough."""
    return next(rule.action for rule in TABLE if rule.holds(case))


def holds_area(trust: Trust, *, by_people: bool, is_stopped: bool) -> bool:
    """Whether a peer keeps its area from others whom the directory lists for it.

    It does where it is verified; and whatever became of it, where people ever compared an identity of it, or where
    people or a fork stopped it: who serves that area now is for people to say.
    """
    return trust is Trust.VERIFIED or by_people or is_stopped


def ever_by_people(records: Iterable[tuple[str, str]]) -> bool:
    """Whether people ever compared any identity of a peer, from the same records as `verified_by`."""
    return any(how not in ("rotation", "directory") for how, _ in records)


def verified_by(records: Iterable[tuple[str, str]]) -> By:
    """Who verified the identity in force, from how each identity of a peer was verified and which, oldest first.

    A rotation passes on what the identity before it had.
    """
    confirmed = [(how, fingerprint) for how, fingerprint in records if how != "rotation"]
    if not confirmed:
        return By.NOBODY
    _, latest = confirmed[-1]
    alone = all(how == "directory" for how, fingerprint in confirmed if fingerprint == latest)
    return By.DIRECTORY if alone else By.PEOPLE
