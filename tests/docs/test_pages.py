"""The pages say what the program does: verbs, log keys, configuration; and every link leads somewhere."""

import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from exchange.cli.main import cli
from exchange.node.config import FileTables, NodeTable, load_configuration
from exchange.node.forks import FORK
from exchange.node.logs import ALLOWED
from exchange.node.trust import Trust

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
EXAMPLE = ROOT / "config" / "exchange.example.toml"
CLI: dict[str, Any] = runpy.run_path(str(DOCS / "render_cli.py"))

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def links(page: Path) -> Iterator[str]:
    return (link for link in _LINK.findall(_FENCE.sub("", read(page))) if not link.startswith(("https://", "http://")))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", read(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{by_name(page)} links to {place}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{by_name(page)} links to {link}: there is no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in reached and page.suffix == ".md" and page.is_file():
            reached.add(page)
            left += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert set(PAGES) <= reached


def test_the_table_of_verbs_is_current() -> None:
    text = read(DOCS / "cli.md")
    assert CLI["page"](text, cli) == text, "run: python docs/render_cli.py"


def test_every_verb_with_json_has_its_keys_on_the_page() -> None:
    _, _, output = read(DOCS / "cli.md").partition("\n## Output\n")
    rows = re.findall(r"(?m)^\| (`[^|]*) \|", output.partition("\n## ")[0])
    told = {verb for row in rows for verb in re.findall("`([a-z -]+)`", row)}
    verbs: list[tuple[str, click.Command]] = list(CLI["verbs"](cli))
    with_json = {name for name, command in verbs if any("--json" in item.opts for item in command.params)}
    assert told == with_json


def test_the_page_names_every_state_of_trust() -> None:
    line = re.search(r"A `trust` is (.*?)\.", read(DOCS / "cli.md"), re.DOTALL)
    assert line is not None
    assert re.findall("`([a-z]+)`", line[1]) == [trust.value for trust in Trust]


def test_the_page_lists_every_key_that_a_log_line_may_have() -> None:
    listed = re.search(r"<!-- log keys -->(.*?)<!-- /log keys -->", read(DOCS / "operations.md"), re.DOTALL)
    assert listed is not None
    assert set(re.findall("`([a-z_]+)`", listed[1])) == ALLOWED


def test_the_page_explains_every_kind_of_alarm() -> None:
    code = "".join(read(path) for path in (ROOT / "exchange" / "node").glob("*.py"))
    kinds = set(re.findall(r'add_alarm(?:_once_a_day)?\(\s*tx,\s*"([a-z-]+)"', code)) | {FORK}
    assert kinds >= {"revoked", "conflict"}, "the code no longer says so in this way"
    _, _, alarms = read(DOCS / "operations.md").partition("\n## Alarms\n")
    assert set(re.findall(r"(?m)^\| `([a-z-]+)` \|", alarms.partition("\n## ")[0])) == kinds


def test_the_example_configuration_loads() -> None:
    configuration = load_configuration(EXAMPLE)
    assert configuration.origin == "exchange.hackney.example"


def test_the_example_configuration_lists_every_key_with_its_default() -> None:
    written = tomllib.loads(read(EXAMPLE))
    tables = {field.name: field.type for field in msgspec.structs.fields(FileTables)}
    assert written.keys() == tables.keys()
    for name, table in tables.items():
        fields = msgspec.structs.fields(table)
        assert written[name].keys() == {field.name for field in fields}, f"[{name}] lacks a key, or has one too many"
        if table is not NodeTable:
            defaults = {field.name: field.default for field in fields}
            defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
            assert written[name] == defaults, f"[{name}] has another default"


def test_every_test_that_the_threat_model_points_at_is_there() -> None:
    named = re.findall(r"`([a-z]+/test_[a-z_]+)`", read(DOCS / "threat-model.md"))
    assert len(named) > 20
    for name in named:
        assert (ROOT / "tests" / f"{name}.py").is_file(), f"tests/{name}.py is not there"


def test_every_decision_is_in_the_index_and_says_why() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    titles = [(read(record).splitlines()[0].removeprefix("# "), record.name) for record in records]
    assert re.findall(r"(?m)^\* \[(.*)\]\((.*)\)$", read(DOCS / "decisions" / "README.md")) == titles
    numbers = [record.name.partition("-")[0] for record in records]
    assert len(set(numbers)) == len(numbers), "two decisions have one number"
    for record in records:
        headings = re.findall(r"(?m)^## (.+)$", read(record))
        assert headings == ["Context", "Decision", "Consequence"], record.name
