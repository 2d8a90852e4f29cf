"""The form that is measured: eight sections of case study J."""

import json
from datetime import UTC, datetime

from exchange.schema.examples import example_form

_SECTIONS = ("referral", "subject", "risk", "housing", "contacts")
_LEFT_OUT = ("pnc", "ndelius", "nino", "nhs", "safe_people", "unsafe_people")


def eight_sections() -> bytes:
    """A form of Hackney for Enfield that is split into eight sections."""
    data = example_form("case-study-j", datetime.now(UTC).date())
    whole = json.loads(data)
    form = {name: whole[name] for name in _SECTIONS}
    form["subject"] = {name: value for name, value in form["subject"].items() if name not in _LEFT_OUT}
    return json.dumps(form).encode()
