"""Real programs of agencies that fetch, and folders, while nodes and programs are killed: everything arrives, once."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.agency.errors import NotNow
from exchange.agency.event import SectionEvent
from exchange.agency.fetching import Node
from exchange.agency.pulling import Files, Puller
from tests import databases
from tests.processes.conftest import Town
from tests.processes.harness import (
    DEADLINE_S,
    ENFIELD,
    HACKNEY,
    Borough,
    allowed_by,
    example,
    exchange,
    introduce,
    until,
)
from tests.processes.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FORM = example("urgent")
SECTIONS = allowed_by(FORM)
ROOT = Path(__file__).parents[2]


def listens(borough: Borough) -> str:
    """Give a node a listener for agencies; its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    borough.configure("agencies", address=url.removeprefix("http://"), url=url)
    return url


@pytest.fixture
def boroughs(town: Town) -> tuple[Borough, Borough]:
    """Hackney, and Enfield with the listener."""
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    listens(enfield)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    return hackney, enfield


def arm(borough: Borough, point: str, nth: int = 1) -> None:
    borough.program = (sys.executable, "-m", "tests.faults.armed", "--die-at", point, "--nth", str(nth), "--")
    borough.environment["PYTHONPATH"] = str(ROOT)


def disarm(borough: Borough) -> None:
    borough.program = (sys.executable, "-m", "exchange.cli.main")
    borough.environment.pop("PYTHONPATH")


def fetching(borough: Borough, kind: str, tmp_path: Path) -> tuple[Any, Path, Path]:
    """Register an agency that fetches: what was told, the file of its token, and a directory for its sections."""
    told = borough.ask("agency", "add", kind, "--pull")
    token = tmp_path / f"{kind}-token"
    token.write_text(told["token"] + "\n")
    place = tmp_path / f"{kind}-sections"
    place.mkdir()
    return told, token, place


@contextlib.contextmanager
def pulling(url: str, token: Path, place: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    """`exchange agency-pull`, until it is killed."""
    command = [sys.executable, "-m", "exchange.cli.main", "agency-pull", "--url", url, "--token-file", str(token)]
    with subprocess.Popen(
        [*command, "--to", str(place), *map(str, options)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def sections(place: Path, message_id: str) -> list[str]:
    """The sections of a message that are in a directory."""
    events = [json.loads(path.read_bytes()) for path in place.glob("evt_*.json")]
    return sorted(event["data"]["section"] for event in events if event["data"]["message_id"] == message_id)


def rungs(borough: Borough, message_id: str, kind: str) -> set[str]:
    return {item["rung"] for item in borough.status(message_id)["sections"] if item["agency"] == kind}


def deliveries(borough: Borough) -> list[tuple[Any, ...]]:
    """The signed receipts for delivered sections, by message."""
    url = borough.setting("store", "url")
    if url.startswith("sqlite:///"):
        url = f"sqlite:///{borough.directory / url.removeprefix('sqlite:///')}"
    return databases.rows(url, "SELECT message, count(*) FROM receipts WHERE rung = 'delivered' GROUP BY message")


def test_a_program_fetches_keeps_and_acknowledges_and_the_sender_is_told(
    boroughs: tuple[Borough, Borough], tmp_path: Path
) -> None:
    hackney, enfield = boroughs
    told, token, place = fetching(enfield, "housing", tmp_path)
    with pulling(told["asks_at"], token, place):
        message_id = hackney.send(FORM, ENFIELD)
        until("the sender has the receipts", lambda: rungs(hackney, message_id, "housing") == {"delivered"})
    assert sections(place, message_id) == sorted(SECTIONS["housing"])
    (file, *_) = place.glob("evt_*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "content" in json.loads(file.read_bytes())["data"]
    done = exchange(
        *("agency-pull", "--url", told["asks_at"], "--token-file", token, "--to", place, "--once", "--json")
    )
    assert done.document == {"kept": 0, "refused": 0}


def test_a_program_that_is_killed_between_keeping_and_saying_so_goes_on_where_it_was(
    boroughs: tuple[Borough, Borough], tmp_path: Path
) -> None:
    hackney, enfield = boroughs
    told, token, place = fetching(enfield, "housing", tmp_path)
    message_id = hackney.send(FORM, ENFIELD)

    class Killed(BaseException):
        pass

    class Dies(Files):
        def keep(self, event: SectionEvent, body: bytes) -> bool:
            super().keep(event, body)
            raise Killed

    node = Node(told["asks_at"], told["token"])
    until("there is something", lambda: node.fetch("", 1).items)
    with pytest.raises(Killed):
        Puller(node, Dies(place, enfield.origin)).once()
    assert len(sections(place, message_id)) == 1
    assert rungs(enfield, message_id, "housing") == {"routed"}
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    done = exchange(
        *("agency-pull", "--url", told["asks_at"], "--token-file", token, "--to", place, "--once", "--json")
    )
    assert done.document == {"kept": len(SECTIONS["housing"]) - 1, "refused": 0}
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in place.iterdir()}.items()
    assert rungs(enfield, message_id, "housing") == {"delivered"}


@pytest.mark.parametrize("point", ["pull.before-answer", "pull.recorded"])
def test_a_node_that_is_killed_between_giving_out_and_hearing_loses_and_repeats_nothing(
    boroughs: tuple[Borough, Borough], tmp_path: Path, point: str
) -> None:
    hackney, enfield = boroughs
    told, token, place = fetching(enfield, "housing", tmp_path)
    enfield.stop()
    arm(enfield, point)
    enfield.start()
    message_id = hackney.send(FORM, ENFIELD)
    with pulling(told["asks_at"], token, place):
        assert enfield.process is not None
        enfield.process.wait(DEADLINE_S)
        disarm(enfield)
        enfield.start()
        until("all is delivered", lambda: rungs(enfield, message_id, "housing") == {"delivered"})
    assert sections(place, message_id) == sorted(SECTIONS["housing"])
    ((_, count),) = deliveries(enfield)
    assert count == len(SECTIONS["housing"]), "each was signed for once"


@pytest.mark.parametrize("point", ["drop.beside", "drop.in-place"])
def test_a_node_that_is_killed_around_the_rename_leaves_each_section_once(
    boroughs: tuple[Borough, Borough], tmp_path: Path, point: str
) -> None:
    hackney, enfield = boroughs
    place = tmp_path / "folder"
    place.mkdir(mode=0o700)
    added = enfield.ask("agency", "add", "housing", "--drop", place)
    assert "the file is in its folder" in enfield.cli("agency", "test", added["id"]).stdout
    (test,) = place.iterdir()
    test.unlink()
    enfield.stop()
    arm(enfield, point)
    enfield.start()
    message_id = hackney.send(FORM, ENFIELD)
    assert enfield.process is not None
    enfield.process.wait(DEADLINE_S)
    assert rungs_after(enfield, message_id) == {"delivered"}
    assert sections(place, message_id) == sorted(SECTIONS["housing"])
    assert len(list(place.glob("evt_*.json"))) == len(SECTIONS["housing"])


def rungs_after(enfield: Borough, message_id: str) -> set[str]:
    """Start a node that was killed, and wait until housing has a message."""
    disarm(enfield)
    enfield.start()
    until("all is delivered", lambda: rungs(enfield, message_id, "housing") == {"delivered"})
    return rungs(enfield, message_id, "housing")


@pytest.fixture
def in_postgresql(postgresql_server: str, tmp_path: Path) -> Iterator[Town]:
    """A town whose boroughs have their stores in PostgreSQL."""
    before, databases.server = databases.server, postgresql_server
    for name in ("town", "templates"):
        (tmp_path / name).mkdir()
    made = Town(tmp_path / "town", tmp_path / "templates")
    yield made
    made.end()
    databases.server = before


def test_two_replicas_give_out_at_once_and_each_section_is_delivered_once(in_postgresql: Town, tmp_path: Path) -> None:
    town = in_postgresql
    hackney, first = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    urls = [listens(first)]
    second = town.replica_of(first, "enfield-2")
    text = second.config.read_text().replace(urls[0].rpartition(":")[2], other := str(free_port()))
    second.config.write_text(text)
    urls.append(f"http://127.0.0.1:{other}")
    for one in (hackney, first, second):
        one.start()
    introduce(hackney, first)
    told, *_ = fetching(first, "housing", tmp_path)
    stop = threading.Event()
    kept: list[tuple[str, str]] = []

    def pull(url: str) -> None:
        node = Node(url, told["token"])
        after = ""
        while not stop.is_set():
            with contextlib.suppress(NotNow):
                fetched = node.fetch(after, 1)
                after = fetched.after
                for item in fetched.items:
                    event = json.loads(bytes(item))
                    kept.append((event["data"]["message_id"], event["data"]["section"]))
                    node.says(event["id"], "delivered")

    threads = [threading.Thread(target=pull, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    sent = [hackney.send(FORM, ENFIELD) for _ in range(12)]
    for message_id in sent:
        until("all is delivered", lambda one=message_id: rungs(first, one, "housing") == {"delivered"})
    stop.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    wanted = {(message_id, section) for message_id in sent for section in SECTIONS["housing"]}
    assert set(kept) == wanted
    assert {count for _, count in deliveries(first)} == {len(SECTIONS["housing"])}
    assert Node(urls[1], told["token"]).fetch("", 0).items == ()
    # Who waits at one replica hears of what the other took.
    began_s = time.monotonic()
    waiting: list[Any] = []
    thread = threading.Thread(target=lambda: waiting.extend(Node(urls[1], told["token"]).fetch("", 60).items))
    thread.start()
    hackney.send(FORM, ENFIELD)
    thread.join(DEADLINE_S)
    assert waiting
    assert time.monotonic() - began_s < DEADLINE_S
