"""The law under which something is disclosed: a regime of data protection, and the gateway that gives the power.

* A gateway that may not carry what health or social care recorded never does: `may_carry` is that rule, in one place.
* What comes from where stands in the catalogue, part by part.

Source: Police, Crime, Sentencing and Courts Act 2022, section 16(4): the section does not authorise the disclosure of
patient information, nor of personal information by a health or social care authority.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from exchange.schema.vocabulary import Part

#: Whose records a part of the form holds, where the law asks.
PartOrigin: TypeAlias = Literal["health", "social-care"]


class Regime(enum.Enum):
    """Which rules of data protection hold for the disclosure."""

    LAW_ENFORCEMENT = "law-enforcement"
    UK_GDPR = "uk-gdpr"


class Gateway(enum.Enum):
    """The power or duty to disclose."""

    CRIME_AND_DISORDER = "crime-and-disorder-s115"
    SERIOUS_VIOLENCE = "serious-violence-s16"
    OFFENDER_MANAGEMENT = "offender-management-s14"
    MAPPA = "mappa-s325"
    CHILDREN_ENQUIRIES = "children-act-1989-s47"
    CHILDREN_COOPERATION = "children-act-2004-s10"
    HOUSING_NOTICE = "housing-act-s208"
    HOUSING_REFERRAL = "housing-act-s213b"
    HEALTH_AND_CARE = "health-and-care-s251b"
    LOCALISM = "localism-act-s1"
    COMMON_LAW = "common-law"
    #: The agreement's own reference names it.
    ANOTHER = "another"


#: What to show people.
REGIMES: Final[Mapping[Regime, str]] = {
    Regime.LAW_ENFORCEMENT: "Data Protection Act 2018, Part 3",
    Regime.UK_GDPR: "UK GDPR",
}
GATEWAYS: Final[Mapping[Gateway, str]] = {
    Gateway.CRIME_AND_DISORDER: "Crime and Disorder Act 1998, section 115",
    Gateway.SERIOUS_VIOLENCE: "Police, Crime, Sentencing and Courts Act 2022, section 16",
    Gateway.OFFENDER_MANAGEMENT: "Offender Management Act 2007, section 14",
    Gateway.MAPPA: "Criminal Justice Act 2003, section 325",
    Gateway.CHILDREN_ENQUIRIES: "Children Act 1989, section 47",
    Gateway.CHILDREN_COOPERATION: "Children Act 2004, section 10",
    Gateway.HOUSING_NOTICE: "Housing Act 1996, section 208",
    Gateway.HOUSING_REFERRAL: "Housing Act 1996, section 213B",
    Gateway.HEALTH_AND_CARE: "Health and Social Care Act 2012, section 251B",
    Gateway.LOCALISM: "Localism Act 2011, section 1",
    Gateway.COMMON_LAW: "common law",
    Gateway.ANOTHER: "another, which the agreement names",
}
_NOT_UNDER: Final[Mapping[Gateway, frozenset[PartOrigin]]] = {
    Gateway.SERIOUS_VIOLENCE: frozenset({"health", "social-care"})
}


@dataclass(frozen=True, slots=True)
class Basis:
    """A regime and a gateway."""

    regime: Regime
    gateway: Gateway

    def __str__(self) -> str:
        return f"{self.regime.value}/{self.gateway.value}"


class StatedBasis(Part, frozen=True):
    """The basis that a form states for a section, or for one part of it, in place of the agreement's."""

    section: Annotated[
        str, Meta(pattern=r"^[a-z][a-z.-]{0,79}(?![\s\S])", description="a section or a part of one, such as health")
    ]
    regime: Regime
    gateway: Gateway


def may_carry(gateway: Gateway, origin: PartOrigin | None) -> bool:
    """Whether what has that origin may be disclosed through a gateway."""
    return origin not in _NOT_UNDER.get(gateway, ())


def stated_for(stated: Iterable[StatedBasis], *names: str) -> Basis | None:
    """The basis that a form states for the first of the names for which it states one."""
    by_name = {item.section: item for item in stated}
    found = next((by_name[name] for name in names if name in by_name), None)
    return Basis(found.regime, found.gateway) if found is not None else None
