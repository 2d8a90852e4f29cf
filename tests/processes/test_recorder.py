"""Who records two real nodes, and later has both whole disks and passphrases, opens nothing of a past epoch."""

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

import pytest

from tests.node.thief import Disk, Recording, Thief
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until
from tests.processes.test_epochs import DAY_S, chain_of, seeds_of

FORM = example("case-study-j")


@dataclass
class Recorder:
    """Passes connections on to a borough's listener, and keeps every byte that either side says."""

    borough: Borough
    streams: list[bytearray] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def start(self) -> "Recorder":
        """Stand in front of the borough, which must not run yet: its card names this place."""
        here = self.listener.getsockname()[1]
        text = self.borough.config.read_text()
        url = f'url = "http://127.0.0.1:{self.borough.port}"'
        assert url in text
        self.borough.config.write_text(text.replace(url, f'url = "http://127.0.0.1:{here}"'))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.borough.port))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        kept = bytearray()
        self.streams.append(kept)
        with suppress(OSError):
            while data := source.recv(65_536):
                kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def short_lived(borough: Borough) -> None:
    """Have sealing keys last for seconds; the one that `init` made would last for a week."""
    borough.configure("keys", sealing_lifetime_days=60 / DAY_S, sealing_grace_days=30 / DAY_S)
    with closing(sqlite3.connect(borough.directory / "exchange.db")) as database:
        database.execute("DELETE FROM sealing_keys")
        database.commit()


@pytest.fixture
def recorders(town: Town) -> Iterator[list[Recorder]]:
    """Hackney and Enfield, each behind a recorder, registered with one another."""
    made = [Recorder(town.borough(slug, area)) for slug, area in (("hackney", HACKNEY), ("enfield", ENFIELD))]
    for recorder in made:
        short_lived(recorder.borough)
        recorder.start().borough.start()
    introduce(made[0].borough, made[1].borough)
    yield made
    for recorder in made:
        recorder.listener.close()


def disks(*boroughs: Borough) -> list[tuple[Disk, bytes]]:
    """The whole disk of each node while it runs, and its passphrase."""
    passphrases = [(borough.directory / "passphrase").read_bytes().strip() for borough in boroughs]
    return list(zip([Disk.image(borough.directory) for borough in boroughs], passphrases, strict=True))


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_the_epoch_the_disks_and_passphrases_of_both_nodes_open_nothing_of_what_was_recorded(
    recorders: list[Recorder],
) -> None:
    hackney, enfield = (recorder.borough for recorder in recorders)
    message_id = hackney.send(FORM, ENFIELD)
    assert hackney.status(message_id, "received", 60)["reached"]
    before = disks(hackney, enfield)
    last = {borough.origin: max(seeds_of(borough)) for borough in (hackney, enfield)}
    recording = Recording()
    for recorder in recorders:
        for stream in recorder.streams:
            recording.take(bytes(stream))
    assert recording.envelopes
    assert recording.replies
    thief = Thief(recording, (hackney.origin, enfield.origin))
    found = [text for disk, passphrase in before for text in thief.search(disk, passphrase)]
    assert any(b"exchange/1 8 manifest" in text for text in found), "until then, the same search opens it"

    for borough in (hackney, enfield):
        until(f"{borough.origin} destroys its keys", lambda one=borough: chain_of(one).epoch > last[one.origin], 300)

    assert [text for disk, passphrase in disks(hackney, enfield) for text in thief.search(disk, passphrase)] == []
