"""The page for practitioners says what the catalogue does."""

import runpy
from pathlib import Path

from exchange.schema.catalogue import default_catalogue

DOCS = Path(__file__).parents[2] / "docs"


def test_the_readership_table_is_current() -> None:
    script = runpy.run_path(str(DOCS / "render_form.py"))
    text = (DOCS / "form.md").read_text(encoding="utf-8")
    assert script["page"](text, default_catalogue()) == text, "run: python docs/render_form.py"
