"""After a demo, no byte of the form is in either data directory: neither while the nodes run nor after they stopped."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec
import pysqlite3
import pytest

from exchange.schema.form import decode_form
from tests.processes.harness import DEADLINE_S, KINDS, example

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FORM = example("case-study-j")
BIRTHDAY: Final = str(decode_form(FORM).subject.date_of_birth)
#: What a form and a node's own configuration both say.
PUBLIC: Final = frozenset({"London Borough of Hackney", "London Borough of Enfield", *KINDS})


def texts(value: Any) -> Iterator[str]:
    """Every text that a part of the form holds, with dates of birth in ISO form."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            found = getattr(value, name)
            yield from [found.isoformat()] if name == "date_of_birth" and isinstance(found, date) else texts(found)
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str) and not isinstance(value, Enum):
        yield value


def needles(form: bytes) -> dict[bytes, str]:
    """What to search for: every text of six characters or more, and each way to store it."""
    decoded = decode_form(form)
    found = {text for text in texts(decoded) if not re.fullmatch(r"[EWSN][0-9]{8}", text)} - PUBLIC
    words = {word for name in (decoded.subject.name, *decoded.subject.aliases) for word in name.split()}
    whole = {text for text in found | words if len(text) >= 6}
    beginnings = {text[:32] for text in whole if len(text) > 32}
    return {
        encoded: text
        for text in whole | beginnings
        for encoded in (text.encode(), text.encode("utf-16-le"), *in_base64(text.encode()))
    }


def in_base64(data: bytes) -> Iterator[bytes]:
    """The characters that stand for `data` in base64, at each place where it may begin; none too short to be chance."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        certain = encoded[(0, 2, 3)[before] : len(encoded) - 4 if (len(data) + before) % 3 else None]
        if len(certain) >= 8:
            yield certain


def search(directory: Path, wanted: dict[bytes, str]) -> set[tuple[str, str]]:
    """Which files of a directory hold which texts."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {
        (path.name, text)
        for path in files
        for data in [path.read_bytes()]
        for item, text in wanted.items()
        if item in data
    }


@dataclass(frozen=True)
class Demo:
    """The directories of a demo, as they were while it ran and as it left them."""

    running: Path
    stopped: Path
    result: Any


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    root = tmp_path_factory.mktemp("demo")
    stopped, running = root / "stopped", root / "running"
    command = [sys.executable, "-m", "exchange.cli.main", "demo", "--dir", str(stopped), "--serve", "--json"]
    printed = root / "printed"
    printed.mkdir()
    with (printed / "stderr").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    watchdog = threading.Timer(2 * DEADLINE_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        assert lines, (printed / "stderr").read_text()
        (printed / "stdout").write_text("".join(lines))
        result = json.loads("".join(lines))
        # Sockets cannot be copied; all else is taken as it is, the write-ahead log of a running node too.
        shutil.copytree(stopped, running, ignore=lambda place, names: [n for n in names if Path(place, n).is_socket()])
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    return Demo(running, stopped, result)


def test_the_demo_ran_to_its_end_and_left_both_nodes_directories(demo: Demo) -> None:
    assert demo.result["ok"] is True
    for borough in ("hackney", "enfield"):
        names = {path.name for path in (demo.running / borough).iterdir()}
        assert {"exchange.db", "exchange.db-wal", "exchange.db-shm", "node.log", "card.json"} <= names
        assert (demo.running / borough / "exchange.db-wal").stat().st_size > 10_000
        assert (demo.stopped / borough / "exchange.db").stat().st_size > 100_000
        assert (demo.stopped / borough / "node.log").stat().st_size > 0


def test_the_search_knows_what_must_stay_secret() -> None:
    wanted = set(needles(FORM).values())
    assert {"Jolyon Exampleby", "Exampleby", "Jax Sampleton", "Sampleton", BIRTHDAY, "QQ123456C"} <= wanted
    assert {"Placeholder Aardvark", "9990000018"} <= wanted
    assert len(wanted) > 100


@pytest.mark.parametrize("borough", ["hackney", "enfield"])
@pytest.mark.parametrize("when", ["running", "stopped"])
def test_no_text_of_the_form_is_in_any_file_of_a_data_directory(demo: Demo, borough: str, when: str) -> None:
    assert search(getattr(demo, when) / borough, needles(FORM)) == set()


def test_no_text_of_the_form_is_in_what_the_demo_printed(demo: Demo) -> None:
    printed = demo.running.parent / "printed"
    assert {path.name for path in printed.iterdir() if path.stat().st_size} == {"stdout", "stderr"}
    assert search(printed, needles(FORM)) == set()


def test_the_search_finds_a_name_that_was_planted_in_the_write_ahead_log(demo: Demo, tmp_path: Path) -> None:
    directory = tmp_path / "enfield"
    shutil.copytree(demo.stopped / "enfield", directory, ignore=shutil.ignore_patterns("*.sock"))
    database = pysqlite3.connect(directory / "exchange.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("INSERT INTO alarms (at_ms, kind, origin, detail) VALUES (0, '', '', 'for Jolyon Exampleby')")
    database.commit()
    found = search(directory, needles(FORM))
    database.close()
    assert ("exchange.db-wal", "Jolyon Exampleby") in found


@pytest.mark.parametrize(
    "text", ["Jolyon Exampleby", BIRTHDAY, "Placeholder Aardvark"], ids=["name", "birthday", "other name"]
)
@pytest.mark.parametrize("prefix", ["", "x", "xy"])
@pytest.mark.parametrize("form", ["utf-8", "utf-16-le", "base64"])
def test_the_search_finds_a_text_in_a_log_however_it_is_written(
    tmp_path: Path, text: str, prefix: str, form: str
) -> None:
    data = f"{prefix}{text} said".encode("utf-16-le" if form == "utf-16-le" else "utf-8")
    (tmp_path / "node.log").write_bytes(os.urandom(100) + (base64.b64encode(data) if form == "base64" else data))
    assert ("node.log", text) in search(tmp_path, needles(FORM))
