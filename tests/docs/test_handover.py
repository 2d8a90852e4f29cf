"""The page on handovers has the states and deadlines that the program has."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_of_states_and_deadlines_are_current() -> None:
    script = runpy.run_path(str(DOCS / "render_handover.py"))
    text = (DOCS / "handover.md").read_text(encoding="utf-8")
    assert "| delivered | own |" in text
    assert script["page"](text) == text, "run: python docs/render_handover.py"
