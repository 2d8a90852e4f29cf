"""The words and bounded types of which the form is made.

Text holds no control characters; whatever is longer than its bound belongs in an attachment.
"""

import enum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

AreaCode: TypeAlias = Annotated[
    str, Meta(pattern=r"^[EWSN][0-9]{8}\Z", description="ONS/GSS code of a local authority")
]
AgencyKind: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}\Z", description="agency kind")]
Line: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=8000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+\Z")]
Lines: TypeAlias = Annotated[tuple[Line, ...], Meta(max_length=100)]
Areas: TypeAlias = Annotated[tuple[AreaCode, ...], Meta(max_length=100)]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of every part of a form: frozen, and unknown fields are refused."""


class MoveType(enum.Enum):
    """How the move comes about."""

    PLANNED = "planned"
    URGENT = "urgent"
    ALREADY_MOVED = "already-moved"
    TEMPORARY = "temporary"


class AgeBand(enum.Enum):
    """Enough to choose who is involved, without a date of birth."""

    UNDER_18 = "under-18"
    FROM_18_TO_24 = "18-24"
    FROM_25 = "25-and-over"


class Marking(enum.Enum):
    """The government security classification, as the originator sets it."""

    OFFICIAL = "OFFICIAL"
    OFFICIAL_SENSITIVE = "OFFICIAL-SENSITIVE"


class Category(enum.Enum):
    """Why the person is in this form (Data Protection Act 2018, section 38(3)); several may hold."""

    SUSPECT = "suspect"
    CONVICTED = "convicted"
    VICTIM = "victim"
    WITNESS = "witness"


class StatementKind(enum.Enum):
    """Whether a statement is a fact or a personal assessment."""

    FACT = "fact"
    ASSESSMENT = "assessment"


class Reliability(enum.Enum):
    """How far the source can be relied on."""

    CONFIRMED = "confirmed"
    PROBABLE = "probable"
    UNCONFIRMED = "unconfirmed"


class ConditionKind(enum.Enum):
    """What an injunction's condition does."""

    PROHIBITION = "prohibition"
    REQUIREMENT = "requirement"


class ConditionType(enum.Enum):
    """What an injunction's condition is about."""

    EXCLUSION = "exclusion"
    NON_ASSOCIATION = "non-association"
    INTERNET = "internet"
    ANIMALS = "animals"
    CLOTHING = "clothing"
    ADDRESS_NOTIFICATION = "address-notification"
    CURFEW = "curfew"
    REPORTING = "reporting"
    ACTIVITIES = "activities"
    OTHER = "other"


class LegalStatus(enum.Enum):
    """A child's or care leaver's status with the local authority."""

    CHILD_IN_NEED = "child-in-need"
    CHILD_PROTECTION = "child-protection"
    LOOKED_AFTER = "looked-after"
    CARE_LEAVER = "care-leaver"
