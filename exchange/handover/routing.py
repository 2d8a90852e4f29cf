"""Which local agency gets a section, for each kind of agency that reads it: the first rule that fits says. Pure.

* Whatever a rule says, no section goes to a kind that the manifest does not name or the catalogue does not allow.
* For each reader of a section there is one answer: an agency, or why the section is held.
* What is sealed to the key of a kind goes to the agency that has the key: no other could open it.
* A rule that asks what the node cannot read does not fit.
* An agency that is not available passes its turn to the next that a rule or the fallback names; where none of them is,
  the section waits for the first. Where none of them is registered, it is held: anything else would be a guess.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.schema.agency_names import AgencyName, AgencyNameOrNone, kind_of
from exchange.schema.vocabulary import AgeBand, MoveType
from exchange.schema.wire import AreaText, SectionText


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule: what does not stand in it fits everything. `to` names agencies in the order in which they are asked."""

    to: Annotated[tuple[AgencyName, ...], Meta(min_length=1, max_length=64)]
    sections: Annotated[tuple[SectionText, ...], Meta(max_length=100)] = ()
    moves: Annotated[tuple[MoveType, ...], Meta(max_length=10)] = ()
    age_bands: Annotated[tuple[AgeBand, ...], Meta(max_length=10)] = ()
    areas: Annotated[tuple[AreaText, ...], Meta(max_length=500)] = ()

    def fits(self, facts: "Facts", section: str) -> bool:
        """Whether the rule is for a section of a message."""
        return (
            (not self.sections or any(covers(name, section) for name in self.sections))
            and (not self.areas or facts.from_area in self.areas)
            and (not self.moves or facts.move in self.moves)
            and (not self.age_bands or facts.age_band in self.age_bands)
        )

    def of_kind(self, kind: str) -> list[str]:
        """The agencies of a kind that the rule names."""
        return [name for name in self.to if kind_of(name) == kind]


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which of several agencies gets what: rules in order, those that take what others of their kind cannot, and who is
    the point of contact for all that its kind may read, if anybody is."""

    rule: Annotated[tuple[Rule, ...], Meta(max_length=500)] = ()
    fallback: Annotated[tuple[AgencyName, ...], Meta(max_length=100)] = ()
    single_point_of_contact: AgencyNameOrNone = ""

    def deputies(self, kind: str) -> list[str]:
        """Who takes what other agencies of a kind cannot."""
        return [name for name in self.fallback if kind_of(name) == kind]


#: A borough that has one agency of each kind needs none.
NO_RULES: Final = Rules()


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules ask of a message; `sealed` are the kinds of agency that have a parcel to a key of their own in it."""

    from_area: str
    move: MoveType | None = None
    age_band: AgeBand | None = None
    sealed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a section goes for one of its readers: an agency, or why it is held; and by which rule, counted from 1."""

    agency: str | None
    held: str | None = None
    rule: int | None = None


def covers(name: str, section: str) -> bool:
    """Whether a name in a rule is that of a section, or of the whole that it is a part of."""
    rest = section.removeprefix(name)
    return section.startswith(name) and (not rest or rest[0] == "." or (rest[0] == "-" and rest[1:].isdecimal()))


def decide(
    rules: Rules, facts: Facts, section: str, kind: str, readers: Collection[str], here: Mapping[str, bool]
) -> Choice:
    """Which agency gets a section for the reader of a kind.

    `readers` are those that the manifest names and the catalogue allows; `here` are the registered agencies, each with
    whether it is available.
    """
    if kind not in readers:
        return Choice(None, f"agencies of kind {kind} may not read it")
    if kind in facts.sealed:
        return Choice(kind) if kind in here else Choice(None, _none_has_its_key(kind, here))
    wanted = list(_contact(rules, readers))
    number = next(
        (at for at, rule in enumerate(rules.rule, 1) if rule.of_kind(kind) and rule.fits(facts, section)), None
    )
    wanted += rules.rule[number - 1].of_kind(kind) if number is not None else usual(kind, here)
    wanted += rules.deputies(kind)
    present = [name for name in wanted if name in here]
    if not present:
        return Choice(None, _nobody(kind, wanted, here), number)
    return Choice(next((name for name in present if here[name]), present[0]), None, number)


def _contact(rules: Rules, readers: Collection[str]) -> Iterator[str]:
    """The single point of contact and who stands in for it, for what its kind may read."""
    contact = rules.single_point_of_contact
    if contact and kind_of(contact) in readers:
        yield contact
        yield from rules.deputies(kind_of(contact))


def usual(kind: str, here: Collection[str]) -> list[str]:
    """Where no rule says: the agency that is named by its kind alone, or the only one of the kind."""
    if kind in here:
        return [kind]
    found = [name for name in here if kind_of(name) == kind]
    return found if len(found) == 1 else []


def _nobody(kind: str, wanted: list[str], here: Mapping[str, bool]) -> str:
    if not any(kind_of(name) == kind for name in here):
        return f"no agency of kind {kind} is registered"
    return f"no agency {' or '.join(wanted)} is registered" if wanted else f"no rule says which agency of kind {kind}"


def _none_has_its_key(kind: str, here: Mapping[str, bool]) -> str:
    others = any(kind_of(name) == kind for name in here)
    return f"it is sealed to the key of agency {kind}" if others else _nobody(kind, [], here)


def may_pass_on(rules: Rules, name: str) -> bool:
    """Whether what an agency was given might go to another one while it is not available."""
    if rules.single_point_of_contact == name:
        return True
    kind = kind_of(name)
    named = {other for rule in rules.rule if name in rule.to for other in rule.of_kind(kind)}
    return bool((named | set(rules.deputies(kind))) - {name})
