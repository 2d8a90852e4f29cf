"""What somebody who tries the demo meets, also where it cannot run."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exchange.cli.demo_story import Story
from exchange.schema.catalogue import default_catalogue
from exchange.schema.examples import NAMES
from exchange.schema.form import decode_form
from exchange.schema.quality import check_form
from tests.processes.conftest import Town
from tests.processes.harness import HACKNEY, exchange


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_demo_on_nodes_that_run_already_takes_no_agency_away(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    refused = exchange("demo", "--dir", hackney.directory.parent)
    assert refused.code == 1
    assert "runs in" in refused.stderr
    assert hackney.ask("health")["status"] == "ok"


STEPS = {
    "stolen-key": ["thief-found", "waits", "revoked", "verified-anew", "goes-on"],
    "mitm": ["unverified", "numbers-differ", "nothing-sent", "true-cards-match", "sealed"],
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("fault", "kept"), [("stolen-key", True), ("mitm", False)])
def test_an_attack_is_played_to_its_end_and_fits_a_terminal_of_80_columns(
    tmp_path: Path, fault: str, kept: bool
) -> None:
    temporary, given = tmp_path / "temporary", tmp_path / "given"
    temporary.mkdir()
    place = ("--dir", given) if kept else ()
    shown = exchange("demo", "--fault", fault, "--json", *place, environment={"TMPDIR": str(temporary)})
    assert shown.code == 0, shown
    assert shown.document["ok"] is True
    assert shown.document["fault"] == fault
    assert [(step["step"], step["ok"]) for step in shown.document["steps"]] == [(name, True) for name in STEPS[fault]]
    # With --json, what a person reads is on standard error.
    assert "Traceback" not in shown.stderr
    assert max(len(line) for line in shown.stderr.splitlines()) <= 80
    assert shown.stderr.count("[ok] ") == len(STEPS[fault])
    assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in given.glob("*")) == (
        ["enfield", "hackney", "hackney-new", "safe", "thief"] if kept else []
    )
    assert [path for path in _commands() if str(tmp_path) in path] == [], "a process is left"


def _commands() -> list[str]:
    """The command line of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_what_is_not_as_it_must_be_is_told_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(tmp_path, quiet=False)
    story.check("first", True, "That is so.")
    story.check("second", False, "That is not so.", seen=3)
    assert "[WRONG] That is not so." in capsys.readouterr().out
    document = story.document("mitm")
    assert (document["ok"], document["steps"][1]) == (False, {"step": "second", "ok": False, "seen": 3})


@pytest.mark.parametrize("arguments", [("--serve",), ("--dir", "here")])
def test_an_attack_is_not_played_where_other_things_are(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "here" / "hackney").mkdir(parents=True)
    refused = exchange("demo", "--fault", "mitm", *arguments, directory=tmp_path)
    assert refused.code in (1, 2)
    assert list((tmp_path / "here").iterdir()) == [tmp_path / "here" / "hackney"]


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


@pytest.mark.parametrize("words", [("schema", "export"), ("form", "example", "urgent")])
def test_a_file_that_is_there_already_is_kept(words: tuple[str, ...], tmp_path: Path) -> None:
    place = tmp_path / "form.json"
    place.write_text("kept")
    refused = exchange(*words, place)
    assert refused.code == 2
    assert "is there already; nothing was written" in refused.one_line_error()
    assert place.read_text() == "kept"
