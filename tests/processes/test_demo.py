"""What somebody who tries the demo meets, also where it cannot run."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from exchange.schema.catalogue import default_catalogue
from exchange.schema.examples import NAMES
from exchange.schema.form import decode_form
from exchange.schema.quality import check_form
from tests.processes.conftest import Town
from tests.processes.harness import HACKNEY, exchange


def test_the_demo_says_who_received_what_and_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    shown = exchange("demo", "--dir", tmp_path / "demo")
    assert shown.code == 0, shown
    assert shown.stdout.rstrip().endswith("Every section reached exactly the agencies that may read it: yes")
    for agency in default_catalogue().agencies:
        assert f"\n{agency.kind} " in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80


def test_a_demo_in_a_directory_with_something_else_in_it_says_so_and_leaves_it(tmp_path: Path) -> None:
    kept = tmp_path / "hackney" / "passphrase"
    kept.parent.mkdir()
    kept.write_text("of something else\n")
    refused = exchange("demo", "--dir", tmp_path)
    assert refused.code == 1
    assert "could not be made" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert kept.read_text() == "of something else\n"


def test_a_demo_on_nodes_that_run_already_takes_no_agency_away(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    refused = exchange("demo", "--dir", hackney.directory.parent)
    assert refused.code == 1
    assert "runs in" in refused.stderr
    assert hackney.ask("health")["status"] == "ok"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_sent_as_it_is(name: str, tmp_path: Path) -> None:
    written = exchange("form", "example", name, tmp_path / "form.json")
    assert written.code == 0, written
    data = (tmp_path / "form.json").read_bytes()
    assert exchange("form", "example", name).stdout.encode() == data
    assert check_form(decode_form(data), default_catalogue(), datetime.now(UTC).date()) == []


@pytest.mark.parametrize("words", [("schema", "export"), ("form", "example", "urgent")])
def test_a_file_that_cannot_be_written_is_named(words: tuple[str, ...], tmp_path: Path) -> None:
    place = tmp_path / "nowhere" / "form.json"
    refused = exchange(*words, place)
    assert refused.code == 1
    assert str(place) in refused.one_line_error()
