"""The words and bounded types of which the form is made.

Text holds no control characters and is not blank; whatever is longer than its bound belongs in an attachment.
"""

import enum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

# The JSON Schema repeats these patterns, so Python and ECMA 262 must both understand them: `(?![\s\S])` is the end.
# Bidirectional overrides make one name read as another; C1 controls and line separators hide text.
_HIDDEN: Final = r"\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff"
_LINE: Final = rf"^(?![\s\S]*[\u0000-\u001f{_HIDDEN}])[\s\S]*\S"
_TEXT: Final = rf"^(?![\s\S]*[\u0000-\u0008\u000b-\u001f{_HIDDEN}])[\s\S]*\S"

AreaCode: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^[EWSN][0-9]{8}(?![\s\S])", description="the ONS/GSS code of a local authority, such as E09000010"),
]
AgencyKind: TypeAlias = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}(?![\s\S])", description="the kind of an agency, such as housing")
]
Line: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=200, pattern=_LINE, description="text on one line, without control characters"),
]
Text: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=8000, pattern=_TEXT, description="text without control characters")
]
Pnc: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9]{2,4}/[0-9]{1,7}[A-Z](?![\s\S])", description="a PNC number, such as 1999/1234567A")
]
Ndelius: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Z][0-9]{6}(?![\s\S])", description="an nDelius number, such as X123456")
]
Nino: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z]{2}[0-9]{6}[A-D](?![\s\S])",
        description="a National Insurance number without spaces, such as QQ123456C",
    ),
]
Nhs: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9]{10}(?![\s\S])", description="an NHS number, 10 digits without spaces")
]
Lines: TypeAlias = Annotated[tuple[Line, ...], Meta(max_length=100)]
Areas: TypeAlias = Annotated[tuple[AreaCode, ...], Meta(max_length=100)]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of every part of a form: frozen, unknown fields are refused, and `repr` shows no content."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


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
