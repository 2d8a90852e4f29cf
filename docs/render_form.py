"""Write the readership table of docs/form.md anew from the shipped catalogue: `python docs/render_form.py`."""

import re
from pathlib import Path

from exchange.schema.catalogue import Catalogue, CataloguePart, default_catalogue

PAGE = Path(__file__).with_name("form.md")
TABLE = re.compile(r"(?<=<!-- readership -->\n).*?(?=<!-- /readership -->)", re.DOTALL)


def readership(catalogue: Catalogue) -> str:
    """A Markdown table: part, its fields, who reads it."""
    rows = ["| part | holds | read by |", "|---|---|---|"]
    for part in catalogue.parts:
        name = f"{part.name}-N" if part.each else part.name
        holds = (f"one of `{part.each}`: " if part.each else "") + ", ".join(part.fields)
        rows.append(f"| `{name}` | {holds} | {_readers(part, catalogue)} |")
    return "\n" + "\n".join(rows) + "\n\n"


def page(text: str, catalogue: Catalogue) -> str:
    """The page with its table made current."""
    return TABLE.sub(lambda _: readership(catalogue), text)


def _readers(part: CataloguePart, catalogue: Catalogue) -> str:
    titles = {agency.kind: agency.name for agency in catalogue.agencies}

    def listed(kinds: tuple[str, ...]) -> str:
        return "everybody" if set(kinds) == set(titles) else ", ".join(titles[kind] for kind in kinds)

    if part.readers_from is None:
        return listed(part.readers)
    others = tuple(kind for kind in part.readers if kind not in part.always)
    always = f"{listed(part.always)}; " if part.always else ""
    return f"{always}whom `{part.readers_from}` names, among: {listed(others)}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), default_catalogue()), encoding="utf-8")
