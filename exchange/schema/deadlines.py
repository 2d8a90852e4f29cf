"""The deadlines of a handover's steps, as the file says them. It is data; this reads it and finds the line that fits.

* Every kind of agency is one of the catalogue's.
* Every line can count: none stands behind one that fits all that it fits.
"""

import difflib
import enum
import importlib.resources
import re
import tomllib
from datetime import timedelta
from functools import cache
from typing import Final

import msgspec

from exchange.schema.catalogue import AgencyKind, Catalogue, default_catalogue
from exchange.schema.errors import DeadlinesInvalid

_WITHIN: Final = re.compile(r"([1-9][0-9]{0,3}) (minute|hour|working day)s?")


class Step(enum.StrEnum):
    """What has to be done by a deadline."""

    RECEIVED = "received"
    OWNED = "owned"
    ANSWERED = "answered"
    MET = "met"
    COMPLETE = "complete"
    #: Whoever is late was told, and now the coordinators are.
    ESCALATED = "escalated"


class Within(msgspec.Struct, frozen=True):
    """How long something may take: around the clock, or in working days."""

    clock: timedelta | None = None
    working_days: int | None = None


class Deadline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file."""

    step: Step
    urgent: bool
    within: str
    kinds: tuple[AgencyKind, ...] | None = None

    def fits(self, step: Step, *, urgent: bool, kind: AgencyKind | None) -> bool:
        """Whether the line speaks of that step, at that kind of agency where it is one agency's step."""
        return self.step == step and self.urgent == urgent and (self.kinds is None or kind in self.kinds)


class Deadlines(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"lines": "deadline"}):
    """The whole file, checked."""

    version: int
    lines: tuple[Deadline, ...]

    def within(self, step: Step, *, urgent: bool, kind: AgencyKind | None = None) -> Within | None:
        """How long a step may take; None where it has no deadline."""
        for line in self.lines:
            if line.fits(step, urgent=urgent, kind=kind):
                return _parse(line.within)
        return None


def load_deadlines(data: bytes, catalogue: Catalogue) -> Deadlines:
    """Read deadlines from TOML.

    Raises:
        DeadlinesInvalid: not TOML, unknown keys or kinds, a time that is none, or a line that never counts.
    """
    try:
        deadlines = msgspec.convert(tomllib.loads(data.decode()), Deadlines)
    except (ValueError, msgspec.ValidationError) as error:
        raise DeadlinesInvalid(f"the deadlines cannot be read: {error}") from None
    except RecursionError:
        raise DeadlinesInvalid("the deadlines cannot be read: a value is too deep") from None
    if deadlines.version != 1:
        raise DeadlinesInvalid(f"version: {deadlines.version} is not known here; this release reads version 1")
    kinds = catalogue.kinds()
    for number, line in enumerate(deadlines.lines, 1):
        where = f"deadline {number}"
        if _WITHIN.fullmatch(line.within) is None:
            raise DeadlinesInvalid(f"{where}: within: {line.within!r} is not N minutes, N hours or N working days")
        if line.kinds is not None and line.step is not Step.OWNED:
            raise DeadlinesInvalid(f"{where}: kinds: only `owned` has some; `{line.step}` is no agency's own step")
        for kind in line.kinds or ():
            if kind not in kinds:
                near = difflib.get_close_matches(kind, kinds, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DeadlinesInvalid(f"{where}: kinds: {kind!r} does not exist{hint}")
        asked = kinds if line.step is Step.OWNED and line.kinds is None else line.kinds or (None,)
        if all(
            any(earlier.fits(line.step, urgent=line.urgent, kind=kind) for earlier in deadlines.lines[: number - 1])
            for kind in asked
        ):
            raise DeadlinesInvalid(f"{where}: an earlier line fits all that this one fits, so it never counts")
    return deadlines


def _parse(within: str) -> Within:
    match = _WITHIN.fullmatch(within)
    assert match is not None  # noqa: S101 - checked when it was loaded
    number, unit = int(match[1]), match[2]
    if unit == "working day":
        return Within(working_days=number)
    return Within(clock=timedelta(minutes=number) if unit == "minute" else timedelta(hours=number))


@cache
def default_deadlines() -> Deadlines:
    """The deadlines that are shipped."""
    data = importlib.resources.files("exchange.schema").joinpath("data/deadlines.toml").read_bytes()
    return load_deadlines(data, default_catalogue())
