"""The forms that are measured: eight sections of case study J, and what is made of them."""

import json
from datetime import UTC, datetime
from typing import Any

from exchange.schema.examples import example_form

_SECTIONS = ("referral", "subject", "risk", "housing", "contacts")
_LEFT_OUT = ("pnc", "ndelius", "nino", "nhs", "safe_people", "unsafe_people")
#: What the form allows in one text.
_MOST_CHARACTERS = 8000


def eight_sections(from_area: str = "E09000012", to_area: str = "E09000010") -> bytes:
    """A form, of Hackney for Enfield unless told otherwise, that is split into eight sections."""
    return _encoded(_eight(from_area, to_area))


def urgent_sections() -> bytes:
    """The same form of an urgent move: ten sections, since the threat and the address of refuge are two more."""
    form = _eight("E09000012", "E09000010")
    form["referral"]["move_type"] = "urgent"
    form["urgent"] = json.loads(example_form("urgent", datetime.now(UTC).date()))["urgent"]
    return _encoded(form)


def with_a_section_of(size_bytes: int) -> bytes:
    """The same form with one section, that on risk, of about that size; the other seven stay as they are."""
    form = _eight("E09000012", "E09000010")
    statement = form["risk"]["statements"][0]
    form["risk"]["statements"] = []
    left = size_bytes - len(json.dumps(form["risk"])) - len(json.dumps(statement))
    while left > 0:
        text = "The details of this are invented. " * (_MOST_CHARACTERS // 34)
        form["risk"]["statements"].append({**statement, "text": text[: max(1, min(left, _MOST_CHARACTERS))].strip()})
        left -= len(json.dumps(form["risk"]["statements"][-1]))
    return _encoded(form)


def _eight(from_area: str, to_area: str) -> dict[str, Any]:
    whole = json.loads(example_form("case-study-j", datetime.now(UTC).date()))
    form = {name: whole[name] for name in _SECTIONS}
    form["subject"] = {name: value for name, value in form["subject"].items() if name not in _LEFT_OUT}
    form["referral"] |= {"from_area": from_area, "to_area": to_area}
    form["housing"] |= {"safe_areas": [to_area], "unsafe_areas": [from_area]}
    return form


def _encoded(form: dict[str, Any]) -> bytes:
    return json.dumps(form).encode()
