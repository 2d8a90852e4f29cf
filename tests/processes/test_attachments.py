"""Large files between two real boroughs, by the command line: cut, killed, in flat memory."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from exchange.crypto.names import new_message_id
from tests.faults.proxy import Proxy, Weather
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until
from tests.processes.ports import free_port

MIB: Final = 1024 * 1024
#: What the whole of the file is; a gibibyte takes minutes: `make attachments`.
SIZE_MIB: Final = int(os.environ.get("ATTACHMENT_MIB", "64"))
CUTS: Final = 20
#: What a node may grow by while a large file passes: its page caches (64 MiB for each connection to SQLite) fill, and a
#: few chunks are in hand. It does not depend on the size of the file.
MOST_GROWTH_MIB: Final = 220
FORM: Final = example("case-study-j")


def rss_mib(borough: Borough) -> float:
    """How much memory a node has resident."""
    assert borough.process is not None
    lines = Path(f"/proc/{borough.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


class Watch:
    """Notes the most that nodes have resident while something happens."""

    def __init__(self, *boroughs: Borough) -> None:
        self.before = {borough.origin: rss_mib(borough) for borough in boroughs}
        self.most = dict(self.before)
        self._boroughs = boroughs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            for borough in self._boroughs:
                self.most[borough.origin] = max(self.most[borough.origin], rss_mib(borough))


def write_random(path: Path, size_mib: int) -> str:
    """A file that compresses to nothing less; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_mib):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def boroughs(town: Town, **delivery: object) -> tuple[Borough, Borough, Proxy]:
    """Hackney and Enfield, whom Hackney reaches through a network that a test cuts."""
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    port = free_port()
    enfield.is_reached_at(port)
    proxy = Proxy(port, enfield.port, random.Random(1)).start()
    for borough in (hackney, enfield):
        borough.configure("delivery", backoff_base_s=0.05, backoff_cap_s=0.2, **delivery)
        borough.start()
    introduce(hackney, enfield)
    return hackney, enfield, proxy


def done_bytes(borough: Borough, message_id: str) -> tuple[int, int, str]:
    """How much of the one attachment has gone, of how much, and where it stands."""
    (item,) = borough.status(message_id)["attachments"]
    return item["done_bytes"], item["size_bytes"], item["state"]


def is_ready(borough: Borough, message_id: str) -> bool:
    return all(item["state"] == "ready" for item in borough.status(message_id)["attachments"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_large_file_comes_through_a_line_that_is_cut_twenty_times(
    town: Town, tmp_path: Path, record_property: object
) -> None:
    hackney, enfield, proxy = boroughs(town)
    file, form = tmp_path / "photographs.zip", tmp_path / "form.json"
    digest = write_random(file, SIZE_MIB)
    form.write_bytes(FORM)
    message_id = new_message_id(time.time_ns() // 1_000_000)
    began_s = time.monotonic()

    with Watch(hackney, enfield) as watch:
        arguments = ("--to", ENFIELD, "--attach", f"injunction={file},Photographs", "--id", message_id)
        hackney.ask("send", form, *arguments)
        staged_s = time.monotonic() - began_s
        for cut in range(CUTS):
            goal = (cut + 1) / (CUTS + 1)

            def has_come_so_far(goal: float = goal) -> bool:
                done, whole, _ = done_bytes(hackney, message_id)
                return done >= goal * whole

            until(f"{goal:.0%} of the file has gone", has_come_so_far, 300)
            failures = proxy.passed
            proxy.change(Weather(cut=True))
            before, _, _ = done_bytes(hackney, message_id)
            until("the line is seen to be cut", lambda: "cannot be reached" in hackney.log.read_text()[-3000:])
            proxy.change(Weather())
            assert done_bytes(hackney, message_id)[0] >= before
            assert proxy.passed >= failures
        until("the file is ready", lambda: is_ready(hackney, message_id), 300)
        sent_s = time.monotonic() - began_s - staged_s
        out = tmp_path / "out.zip"
        enfield.ask("attachment", "get", message_id, "injunction", 1, out)

    assert sha256_of(out) == digest
    received = enfield.api("GET", "/v1/health")["counters"]["attachment_chunks_received"]
    sent = hackney.api("GET", "/v1/health")["counters"]["attachment_chunks_sent"]
    for origin, most in watch.most.items():
        print(  # noqa: T201 - the figure is what is shown
            f"\n{origin}: {watch.before[origin]:.0f} MiB resident before, {most:.0f} MiB at most, "
            f"for a file of {SIZE_MIB} MiB cut {CUTS} times"
        )
    print(f"sealed in {staged_s:.1f} s, sent in {sent_s:.1f} s; {received} chunks, {sent} acknowledged")  # noqa: T201
    assert received == sent
    for origin, most in watch.most.items():
        assert most - watch.before[origin] < MOST_GROWTH_MIB, f"{origin} grew to {most:.0f} MiB"
    proxy.stop()


def test_send_waits_for_the_attachment_and_says_where_it_is(town: Town, tmp_path: Path) -> None:
    hackney, enfield, proxy = boroughs(town)
    file, form = tmp_path / "order, of the court.pdf", tmp_path / "form.json"
    file.write_bytes(os.urandom(3 * MIB))
    form.write_bytes(FORM)

    sent = hackney.ask(
        "send",
        form,
        "--to",
        ENFIELD,
        "--attach",
        f"injunction={file}",
        "--attach",
        f"risk={file}",
        "--wait",
        "received",
    )

    assert [(item["section"], item["state"]) for item in sent["attachments"]] == [
        ("injunction", "ready"),
        ("risk", "ready"),
    ]
    out = tmp_path / "out.pdf"
    got = enfield.ask("attachment", "get", sent["id"], "injunction", 1, out)
    assert (got["title"], got["file_name"], got["media_type"]) == (file.name, file.name, "application/pdf")
    assert out.read_bytes() == file.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    shown = enfield.cli("attachment", "list", sent["id"])
    assert "injunction  1           ready" in shown.stdout
    assert enfield.cli("attachment", "get", sent["id"], "injunction", 1, out).code == 2
    refused = hackney.cli("send", form, "--to", ENFIELD, "--attach", f"nothing={file}")
    assert "no part nothing" in refused.one_line_error()
    assert enfield.cli("attachment", "get", sent["id"], "risk", 2, tmp_path / "none").code == 3
    assert not list(tmp_path.glob("*.part"))
    proxy.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nodes_that_are_killed_go_on_where_they_were(town: Town, tmp_path: Path) -> None:
    hackney, enfield, proxy = boroughs(town)
    file, form = tmp_path / "film.mp4", tmp_path / "form.json"
    digest = write_random(file, 64)
    form.write_bytes(FORM)
    message_id = new_message_id(time.time_ns() // 1_000_000)
    hackney.ask("send", form, "--to", ENFIELD, "--attach", f"injunction={file}", "--id", message_id)

    for goal, victim in ((0.1, enfield), (0.3, hackney), (0.5, enfield), (0.7, hackney), (0.9, enfield)):

        def has_come_so_far(goal: float = goal) -> bool:
            done, whole, _ = done_bytes(hackney, message_id)
            return done >= goal * whole

        until(f"{goal:.0%} of the file has gone", has_come_so_far, 120)
        victim.kill()
        victim.start()
    until("the file is ready", lambda: is_ready(hackney, message_id), 120)
    enfield.kill()
    enfield.start()

    out = tmp_path / "out.mp4"
    enfield.ask("attachment", "get", message_id, "injunction", 1, out)
    assert sha256_of(out) == digest
    proxy.stop()
