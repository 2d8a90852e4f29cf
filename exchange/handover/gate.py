"""The gate at the sender: what is missing before a form may leave. Pure; the day is an argument.

* Without an agreement in force that covers the borough and each agency kind that will read something, and a legal basis
  for each part and reader, nothing passes, unless the policy only advises them or an override lifts them.
* A form without a marking, or with errors, does not pass. No override lifts that.
* What is of health or social-care origin does not go through a gateway that may not carry it. Nothing lifts that.
* Where the policy wants a second person, one who is not the sender has approved, or an override lifts that.
* An override is for an emergency, and has a name and a reason.

`RULES` says which is which.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias

from exchange.handover.agreement import Agreement, Standing
from exchange.schema.errors import Finding
from exchange.schema.legal import GATEWAYS, Basis, PartOrigin, StatedBasis, may_carry, stated_for

#: What a policy can want a second person for.
Reason: TypeAlias = Literal["urgent", "under-18", "associates"]

#: How long a form may wait for its second person before the admins are told.
APPROVAL_DUE: Final = timedelta(hours=24)
URGENT_APPROVAL_DUE: Final = timedelta(minutes=15)


class Need(enum.StrEnum):
    """What can be missing."""

    AGREEMENT = "agreement"
    BASIS = "basis"
    GATEWAY = "gateway"
    MARKING = "marking"
    FORM = "form"
    APPROVAL = "approval"
    OVERRIDE = "override"


class Effect(enum.StrEnum):
    """What comes of something that is missing."""

    WARN = "warning"
    WAIT = "waits"
    REFUSE = "error"
    #: An override lets the form pass in spite of it.
    LIFTED = "overridden"


@dataclass(frozen=True, slots=True)
class Rule:
    """What comes of a need where agreements are required, and where they are advised; whether an override lifts it."""

    need: Need
    required: Effect
    advised: Effect
    is_lifted: bool = False


RULES: Final = (
    Rule(Need.AGREEMENT, Effect.REFUSE, Effect.WARN, is_lifted=True),
    Rule(Need.BASIS, Effect.REFUSE, Effect.WARN, is_lifted=True),
    Rule(Need.GATEWAY, Effect.REFUSE, Effect.REFUSE),
    # Where it only warns, the form leaves under the stricter marking.
    Rule(Need.MARKING, Effect.REFUSE, Effect.WARN),
    Rule(Need.FORM, Effect.REFUSE, Effect.REFUSE),
    Rule(Need.APPROVAL, Effect.WAIT, Effect.WAIT, is_lifted=True),
    Rule(Need.OVERRIDE, Effect.REFUSE, Effect.REFUSE),
)
_RULES: Final = {rule.need: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class Disclosed:
    """A part of a form and who will read it; `entry` is its name in the catalogue."""

    name: str
    entry: str
    section: str
    origin: PartOrigin | None
    readers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a form the gate looks at: no content."""

    area: str
    parts: tuple[Disclosed, ...]
    stated: tuple[StatedBasis, ...]
    marked: bool
    #: Errors that the quality checks found.
    errors: tuple[Finding, ...]
    reasons: frozenset[Reason]
    #: The move is urgent, or a threat is imminent.
    emergency: bool
    sent_by: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What the borough wants."""

    agreements_required: bool
    second_approver: frozenset[Reason] = frozenset()


@dataclass(frozen=True, slots=True)
class Override:
    """Who lets a form pass in an emergency, and why."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is missing, and what comes of it."""

    need: Need
    effect: Effect
    path: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Ground:
    """Under which agreement and on what basis an agency will read a part, as far as there is one."""

    agreement: str | None = None
    basis: Basis | None = None


_NONE: Final = Ground()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says: what is missing, and the ground for each part and reader."""

    missing: tuple[Missing, ...]
    grounds: Mapping[tuple[str, str], Ground]

    def of(self, effect: Effect) -> tuple[Missing, ...]:
        """What is missing and has that effect."""
        return tuple(item for item in self.missing if item.effect is effect)

    @property
    def passes(self) -> bool:
        """Whether the form may leave now."""
        return not self.of(Effect.REFUSE) and not self.of(Effect.WAIT)

    @property
    def awaits(self) -> bool:
        """Whether a second person is all that is missing."""
        return not self.of(Effect.REFUSE) and bool(self.of(Effect.WAIT))


def decide(
    facts: Facts,
    agreements: Iterable[Agreement],
    policy: Policy,
    today: date,
    approvals: Iterable[str] = (),
    override: Override | None = None,
) -> Decision:
    """Decide whether a form may leave; `approvals` are the people who approved it."""
    here = [agreement for agreement in agreements if agreement.area == facts.area]
    in_force = sorted((one for one in here if one.is_in_force(today)), key=_newest, reverse=True)
    grounds = _grounds(facts, in_force)
    needs = [
        *_agreements_missing(facts, here, in_force, grounds, today),
        *_bases_missing(facts, grounds),
        *_gateways_closed(facts, grounds),
        *_of_the_form(facts),
        *_approval_missing(facts, policy, approvals),
        *_override_refused(facts, override),
    ]
    lifts = override is not None and not any(need is Need.OVERRIDE for need, *_ in needs)
    missing = tuple(Missing(need, _effect(need, policy, lifts=lifts), *words) for need, *words in needs)
    if lifts and not any(item.effect is Effect.LIFTED for item in missing):
        unneeded = Missing(Need.OVERRIDE, Effect.WARN, "override", "was not needed, and is not recorded", "")
        missing = (*missing, unneeded)
    return Decision(missing, grounds)


def _effect(need: Need, policy: Policy, *, lifts: bool) -> Effect:
    rule = _RULES[need]
    effect = rule.required if policy.agreements_required else rule.advised
    return Effect.LIFTED if lifts and rule.is_lifted and effect is not Effect.WARN else effect


def _newest(agreement: Agreement) -> tuple[date, str]:
    return agreement.starts_on, agreement.id


def _grounds(facts: Facts, in_force: Sequence[Agreement]) -> dict[tuple[str, str], Ground]:
    """The ground for each part and reader; `in_force` are the agreements, newest first."""
    kinds = {kind for part in facts.parts for kind in part.readers}
    offered = {
        kind: [Ground(one.id, one.basis_for(kind)) for one in in_force if one.covers(kind)] or [_NONE] for kind in kinds
    }
    fitting: dict[tuple[str, PartOrigin | None], Ground] = {}
    grounds = {}
    for part in facts.parts:
        said = stated_for(facts.stated, part.name, part.entry, part.section)
        for kind in part.readers:
            if said is not None:
                grounds[part.name, kind] = Ground(offered[kind][0].agreement, said)
                continue
            if (kind, part.origin) not in fitting:
                fitting[kind, part.origin] = _fitting(offered[kind], part.origin)
            grounds[part.name, kind] = fitting[kind, part.origin]
    return grounds


def _fitting(offered: Sequence[Ground], origin: PartOrigin | None) -> Ground:
    """The newest ground whose basis may carry what has that origin; failing that, the best there is."""
    with_basis = [ground for ground in offered if ground.basis is not None]
    return next((ground for ground in with_basis if _carries(ground, origin)), (with_basis or offered)[0])


def _carries(ground: Ground, origin: PartOrigin | None) -> bool:
    return origin is None or ground.basis is None or may_carry(ground.basis.gateway, origin)


_Need: TypeAlias = tuple[Need, str, str, str]


def _agreements_missing(
    facts: Facts,
    here: Sequence[Agreement],
    in_force: Sequence[Agreement],
    grounds: Mapping[tuple[str, str], Ground],
    today: date,
) -> Iterator[_Need]:
    uncovered = sorted({kind for (_, kind), ground in grounds.items() if ground.agreement is None})
    if not uncovered:
        return
    hint = f"Put it on file: exchange agreement add --with {facts.area} ..."
    if in_force:
        message = f"no sharing agreement in force with {facts.area} covers {', '.join(uncovered)}"
    elif here:
        last = max(here, key=_newest)
        begins = last.standing(today) is Standing.FUTURE
        when = f"{last.id} begins on {last.starts_on}" if begins else f"{last.id} has expired"
        message = f"no sharing agreement with {facts.area} is in force: {when}"
    else:
        message = f"no sharing agreement with {facts.area} is on file"
    yield Need.AGREEMENT, "agreement", message, hint


def _bases_missing(facts: Facts, grounds: Mapping[tuple[str, str], Ground]) -> Iterator[_Need]:
    names = dict.fromkeys(
        part.section for part in facts.parts for kind in part.readers if grounds[part.name, kind].basis is None
    )
    if names:
        message = f"there is no legal basis for {', '.join(names)}"
        yield Need.BASIS, "legal_bases", message, "Put it into the agreement, or into the form's legal_bases."


def _gateways_closed(facts: Facts, grounds: Mapping[tuple[str, str], Ground]) -> Iterator[_Need]:
    for part in facts.parts:
        closed = [ground for kind in part.readers if not _carries(ground := grounds[part.name, kind], part.origin)]
        for ground in closed[:1]:
            title = GATEWAYS[ground.basis.gateway] if ground.basis is not None else ""
            message = f"is of {part.origin} origin, which the {title}, does not let out"
            hint = (
                "Leave the section out, or state another gateway for it in the form's legal_bases. No override helps."
            )
            yield Need.GATEWAY, part.name, message, hint


def _of_the_form(facts: Facts) -> Iterator[_Need]:
    if not facts.marked:
        message = "is not set; what leaves is marked OFFICIAL-SENSITIVE"
        yield Need.MARKING, "referral.marking", message, "Set it to OFFICIAL-SENSITIVE, or to OFFICIAL."
    for finding in facts.errors:
        yield Need.FORM, finding.path, finding.message, "Mend the form."


_WHY: Final[Mapping[Reason, str]] = {
    "urgent": "the move is urgent",
    "under-18": "the person is under 18",
    "associates": "the form names associates",
}


def _approval_missing(facts: Facts, policy: Policy, approvals: Iterable[str]) -> Iterator[_Need]:
    reasons = sorted(policy.second_approver & facts.reasons)
    if reasons and not {who for who in approvals if who} - {facts.sent_by}:
        message = f"a second person must approve: {', and '.join(_WHY[reason] for reason in reasons)}"
        yield (
            Need.APPROVAL,
            "approval",
            message,
            "Another person runs `exchange approve ID`, from an account of their own.",
        )


def _override_refused(facts: Facts, override: Override | None) -> Iterator[_Need]:
    if override is None:
        return
    if not override.by.strip() or not override.reason.strip():
        yield Need.OVERRIDE, "override", "needs a name and a reason", "Say why the form cannot wait."
    elif not facts.emergency:
        message = "is for emergencies, and neither is the move urgent nor a threat imminent"
        yield Need.OVERRIDE, "override", message, "Send the form without it."
