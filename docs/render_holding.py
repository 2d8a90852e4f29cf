"""Write what may be said of a section, in docs/agencies.md, anew from the table: `python docs/render_holding.py`."""

import re
from pathlib import Path

from exchange.handover.holding import TABLE, Event, State

PAGE = Path(__file__).with_name("agencies.md")
_TABLE = re.compile(r"(?<=<!-- holding -->\n).*?(?=<!-- /holding -->)", re.DOTALL)


def holding() -> str:
    """A Markdown table: state, what is said, by whom, the next state, the receipt, and who is responsible."""
    rows = ["| stands | is said | by | stands then | receipt | responsible |", "|---|---|---|---|---|---|"]
    for line in TABLE:
        said = "2xx" if line.event == Event.ACCEPT else f"{line.event}, {line.guard}"
        by = " or ".join(sorted(line.by))
        holder = "the holder" if line.next == State.OWNED else "the sender"
        rows.append(f"| {line.state} | {said} | {by} | {line.next} | {line.receipt or 'as before'} | {holder} |")
    return "\n" + "\n".join(rows) + "\n\n"


def page(text: str) -> str:
    """The page with its table made current."""
    return _TABLE.sub(lambda _: holding(), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
