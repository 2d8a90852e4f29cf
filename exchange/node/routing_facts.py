"""What routing rules ask of a message: from which area it is, and from the form's `referral` the move and the age band.

* The two stand in a section that is encrypted. Where the node may open it, it does, each time anew: it keeps neither.
* Where it is sealed to agencies alone, or holds what is no move or age band, they are not known.
"""

import enum
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from exchange.handover.routing import Facts
from exchange.schema.vocabulary import AgeBand, MoveType
from exchange.schema.wire import Manifest

#: The part of the form in which they stand.
REFERRAL: Final = "referral"
E = TypeVar("E", bound=enum.Enum)


def facts_of(manifest: Manifest, sealed: frozenset[str], referral: Mapping[str, Any] | None) -> Facts:
    """The facts of a message; `referral` is the content of that section, where the node has opened it."""
    content = referral or {}
    return Facts(
        from_area=manifest.from_area,
        move=_known(MoveType, content.get("move_type")),
        age_band=_known(AgeBand, content.get("age_band")),
        sealed=sealed,
    )


def _known(kind: type[E], value: object) -> E | None:
    """What another borough wrote may be anything."""
    return next((member for member in kind if member.value == value), None)
