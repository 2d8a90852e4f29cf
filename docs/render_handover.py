"""Write the tables of docs/handover.md anew from what is shipped: `python docs/render_handover.py`."""

import re
from pathlib import Path
from typing import Final

from exchange.handover.holding import TABLE
from exchange.schema.deadlines import Deadlines, default_deadlines

PAGE: Final = Path(__file__).with_name("handover.md")
_WHAT: Final = {
    "received": "the other node has the form",
    "owned": "a named person has taken the sections on",
    "answered": "a question was answered",
    "met": "the agencies have met",
    "complete": "nothing is left to hand over",
    "escalated": "from a deadline that passed until the coordinators are told",
}


def states() -> str:
    """A Markdown table of what may be said in which state."""
    rows = ["| state | said | | next | receipt | by |", "|---|---|---|---|---|---|"]
    for line in TABLE:
        by = " or ".join(sorted(line.by))
        rows.append(f"| {line.state} | {line.event} | {line.guard} | {line.next} | {line.receipt or ''} | {by} |")
    return "\n" + "\n".join(rows) + "\n\n"


def deadlines(shipped: Deadlines) -> str:
    """A Markdown table of the deadlines."""
    rows = ["| step | form | agency | within |", "|---|---|---|---|"]
    for line in shipped.lines:
        form, kinds = "urgent" if line.urgent else "standard", ", ".join(line.kinds) if line.kinds else ""
        rows.append(f"| {line.step}: {_WHAT[line.step]} | {form} | {kinds} | {line.within} |")
    return "\n" + "\n".join(rows) + "\n\n"


def page(text: str) -> str:
    """The page with its tables made current."""
    for name, table in (("states", states()), ("deadlines", deadlines(default_deadlines()))):
        pattern = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        text = pattern.sub(lambda _, table=table: table, text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
