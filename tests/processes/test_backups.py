"""A whole node is backed up while it runs, lost, and restored from its backup; its peers went on meanwhile."""

import json
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exchange.cli.client import INVALID, TRY_LATER, USAGE, CommandFailed
from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.merkle import verify_consistency
from exchange.crypto.names import Origin
from exchange.crypto.note import decode_base64, parse_vkey
from exchange.crypto.proof import verify_statement
from tests import databases
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, Result, example, exchange, introduce, until
from tests.processes.receiver import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CAMDEN = "E09000007"
FORM = example("case-study-j")
KEY_WORDS = "granite otter seventeen umbrella"
NEW_WORDS = "trombone lantern quarry mistletoe"


def turned(form: bytes) -> bytes:
    """The form in the other direction."""
    here, there, aside = HACKNEY.encode(), ENFIELD.encode(), b"E09000099"
    return form.replace(here, aside).replace(there, here).replace(aside, there)


def to_camden(form: bytes) -> bytes:
    return form.replace(ENFIELD.encode(), CAMDEN.encode())


def words(directory: Path, name: str, text: str) -> Path:
    file = directory / name
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


class Admin:
    """Who holds the key of the backups, on another machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.key = directory / "key"
        self.words = words(directory, "words", KEY_WORDS)
        self.new_words = words(directory, "new", NEW_WORDS)
        made = exchange("backup", "key", "new", self.key, "--key-passphrase-file", self.words, "--json")
        assert made.code == 0, made
        self.key_id = made.document["key_id"]
        self.public = directory / "key.pub"

    def run(self, verb: str, *arguments: object) -> Result:
        return exchange("backup", verb, *arguments, "--key", self.key, "--key-passphrase-file", self.words)

    def restore(self, file: Path, directory: Path) -> Result:
        return self.run("restore", file, directory, "--new-passphrase-file", self.new_words, "--json")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Admin:
    return Admin(tmp_path_factory.mktemp("admin") / "admin")


def add_agencies(borough: Borough, receiver: Receiver, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        body = {"kind": kind, "url": receiver.url(kind), "networks": ["127.0.0.0/8"]}
        receiver.know(kind, borough.api("POST", "/v1/agencies", body)["secret"])


def settled(*boroughs: Borough) -> None:
    until("nobody has anything to deliver or to tell", lambda: all(_is_done(borough) for borough in boroughs))


def _is_done(borough: Borough) -> bool:
    """Whether nothing is due; what an agency accepts becomes due for a peer with that, so there is no gap between."""
    lanes = borough.api("GET", "/v1/health")["lanes"]
    return not [lane for lane in lanes if lane["lane"].startswith("peer:") or lane["state"] == "due"]


def alarms(borough: Borough) -> set[str]:
    return {row["kind"] for row in borough.api("GET", "/v1/alarms")["items"]}


def restored(borough: Borough, config: Path) -> Borough:
    """The node that was restored, as a borough of the tests; it listens where the lost one did."""
    borough.kill()
    borough.directory, borough.config = config.parent, config
    borough.log = borough.log.with_name(f"{borough.log.stem}-restored.log")
    return borough


def rejoined(borough: Borough) -> Any:
    return until("the node has rejoined", lambda: _last(borough))


def _last(borough: Borough) -> Any:
    try:
        document = borough.api("GET", "/v1/rejoin")
    except CommandFailed:
        return None
    return document["last"] if document["state"] == "joined" else None


def state(borough: Borough) -> Any:
    try:
        return borough.api("GET", "/v1/rejoin")
    except CommandFailed:
        return None


def receipts_lie_on_one_log(documents: list[dict[str, Any]], signer: Borough) -> int:
    """Check by hand that each receipt verifies and that the log of today continues the one under which it stands."""
    card = signer.api("GET", "/v1/card")
    first, second = (parse_vkey(text) for text in card["signing_keys"])
    latest = _get(signer, "/v1/log/checkpoint").decode()
    head = parse_checkpoint(latest, Origin(signer.origin), (first, second))
    places: dict[int, bytes] = {}
    for document in documents:
        for receipt in document["receipts"]:
            statement = decode_base64(receipt["statement"])
            verified = verify_statement(statement, receipt["proof"], Origin(signer.origin), (first, second))
            assert places.setdefault(verified.index, verified.leaf_hash) == verified.leaf_hash, "two at one place"
            answer = json.loads(
                _get(signer, f"/v1/log/consistency?first={verified.checkpoint.size}&second={head.size}")
            )
            path = [decode_base64(text) for text in answer["path"]]
            verify_consistency(verified.checkpoint.size, head.size, path, verified.checkpoint.root, head.root)
    return len(places)


def _get(borough: Borough, path: str) -> bytes:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{borough.port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def test_a_node_that_is_lost_goes_on_from_its_backup_and_contradicts_nothing(
    town: Town, admin: Admin, tmp_path: Path
) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    camden = town.borough("camden", CAMDEN).start()
    introduce(hackney, enfield)
    introduce(hackney, camden)
    add_agencies(hackney, town.receiver(), ("housing", "police"))
    add_agencies(enfield, town.receiver(), ("housing", "police"))
    before = hackney.send(FORM, ENFIELD)
    assert hackney.status(before, "received", 60)["reached"]
    backup = tmp_path / "hackney.backup"
    made = hackney.ask("backup", "create", backup, "--to", admin.public)
    assert made["key_ids"] == [admin.key_id]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    # The world goes on, and the backup is yesterday's.
    sent = [hackney.send(FORM, ENFIELD), hackney.send(to_camden(FORM), CAMDEN)]
    came = enfield.send(turned(FORM), HACKNEY)
    for borough, message in ((hackney, sent[0]), (hackney, sent[1]), (enfield, came)):
        assert borough.status(message, "received", 60)["reached"]
    settled(hackney, enfield, camden)
    held = [hackney.api("GET", f"/v1/messages/{message}/receipts") for message in (before, *sent)]
    given = enfield.api("GET", f"/v1/messages/{came}/receipts")
    size = hackney.api("GET", "/v1/keys")["log_size"]
    hackney.kill()
    shutil.rmtree(hackney.directory)

    back = admin.restore(backup, tmp_path / "restored")
    assert back.code == 0, back
    restored(hackney, Path(back.document["config"])).start(wait=False)
    record = rejoined(hackney)

    assert record["size_before"] == made["log_size"] < record["size"] == size
    assert record["forks_at"] == []
    assert {(one["id"], one["direction"]) for one in record["messages"]} == {
        (sent[0], "out"),
        (sent[1], "out"),
        (came, "in"),
    }
    until("the node answers", hackney.answers)
    told = hackney.cli("rejoin")
    assert told.code == 0
    assert f"from {record['size_before']} statements to {size}" in told.stdout
    assert f"Ask {enfield.origin} to send again: {came}" in told.stdout
    # Everybody goes on with everybody, and nobody has seen a fork.
    for borough, form, area in (
        (hackney, FORM, ENFIELD),
        (hackney, to_camden(FORM), CAMDEN),
        (enfield, turned(FORM), HACKNEY),
    ):
        assert borough.status(borough.send(form, area), "received", 60)["reached"]
    settled(hackney, enfield, camden)
    assert alarms(enfield) == alarms(camden) == {"peer-restored"}
    assert alarms(hackney) == {"content-lost"}
    # What anybody held before holds now, and all of it lies on one log.
    assert hackney.api("GET", f"/v1/messages/{came}/receipts")["receipts"] == given["receipts"]
    for document in held:
        again = hackney.api("GET", f"/v1/messages/{document['id']}/receipts")["receipts"]
        for receipt in document["receipts"]:
            assert receipt["statement"] in {one["statement"] for one in again}
    assert receipts_lie_on_one_log([given, hackney.api("GET", f"/v1/messages/{came}/receipts")], hackney) >= 2
    assert receipts_lie_on_one_log([held[0], held[1]], enfield) >= 2
    for number, message in enumerate((came, sent[0])):
        path = tmp_path / f"receipts-{number}.json"
        hackney.ask("receipt", "export", message, path)
        assert exchange("verify", path).code == 0
    assert "lost the content" in enfield.cli("explain", came).stdout
    # It has keys and a card of its own again, and needs no decision at its next start.
    hackney.stop()
    hackney.start()
    assert state(hackney)["state"] == "joined"


def test_a_restored_node_waits_for_peers_that_are_away_and_signs_nothing(
    town: Town, admin: Admin, tmp_path: Path
) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    backup = tmp_path / "hackney.backup"
    hackney.ask("backup", "create", backup, "--to", admin.public)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    settled(hackney, enfield)
    enfield.stop()
    back = admin.restore(backup, tmp_path / "restored")
    restored(hackney, Path(back.document["config"])).start(wait=False)

    document = until("it has asked", lambda: (found := state(hackney)) and found["peers"] and found)
    assert document["state"] == "rejoining"
    assert [(one["origin"], one["answered"]) for one in document["peers"]] == [(enfield.origin, False)]
    told = hackney.cli("rejoin")
    assert told.code == TRY_LATER
    assert f"{enfield.origin}: has not answered" in told.stdout
    assert hackney.ask("health")["status"] == "rejoining"
    refused = hackney.cli("send", "--to", ENFIELD, _form_file(tmp_path))
    assert refused.code == TRY_LATER
    assert "asking its peers" in refused.one_line_error()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", hackney.port), timeout=5)

    enfield.start()
    assert rejoined(hackney)["forks_at"] == []
    until("the node answers", hackney.answers)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    assert alarms(enfield) == {"peer-restored"}


def _form_file(directory: Path) -> Path:
    path = directory / "form.json"
    path.write_bytes(FORM)
    return path


@pytest.mark.sqlite
def test_a_copy_that_was_made_by_hand_rejoins_where_it_is_told_to(town: Town, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    hackney.stop()
    shutil.copytree(hackney.directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    hackney.start()
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    settled(hackney, enfield)
    restored(hackney, tmp_path / "copy" / "exchange.toml")
    both = hackney.cli("run", "--rejoin", "--old-store")
    assert (both.code, "nothing was started" in both.one_line_error()) == (USAGE, True)

    hackney.start(wait=False, arguments=("--rejoin",))

    assert rejoined(hackney)["size"] > rejoined(hackney)["size_before"]
    until("the node answers", hackney.answers)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    assert alarms(enfield) == {"peer-restored"}


def test_an_admin_may_go_on_without_a_peer_that_does_not_come_back(town: Town, admin: Admin, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    backup = tmp_path / "hackney.backup"
    hackney.ask("backup", "create", backup, "--to", admin.public)
    enfield.stop()
    back = admin.restore(backup, tmp_path / "restored")
    restored(hackney, Path(back.document["config"])).start(wait=False)
    until("it has asked", lambda: (found := state(hackney)) and found["peers"])

    assert hackney.cli("rejoin", "--go-on", "--yes").code == 0

    record = rejoined(hackney)
    assert [one["answered"] for one in record["peers"]] == [False]
    until("the node answers", hackney.answers)
    assert "has not answered" in hackney.cli("rejoin").stdout
    # What it had not seen more of does not contradict it.
    enfield.start()
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    assert alarms(enfield) == set()
    assert "nothing was changed" in hackney.cli("rejoin", "--go-on", "--yes").one_line_error()


@pytest.fixture(scope="module")
def kept(boroughs: tuple[Borough, Borough], admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of Hackney, which runs."""
    hackney, enfield = boroughs
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    assert enfield.status(enfield.send(turned(FORM), HACKNEY), "received", 60)["reached"]
    path = tmp_path_factory.mktemp("kept") / "hackney.backup"
    hackney.ask("backup", "create", path, "--to", admin.public)
    return path


def test_a_backup_says_what_is_in_it_and_the_node_when_it_was_made(
    boroughs: tuple[Borough, Borough], admin: Admin, kept: Path
) -> None:
    hackney, _ = boroughs
    found = admin.run("verify", kept, "--json")
    assert found.code == 0, found
    assert found.document["ok"]
    assert found.document["fingerprint"] == hackney.ask("card", "show")["fingerprint"]
    assert found.document["rows"]["messages"] == 2
    assert found.document["rows"]["statements"] == found.document["log_size"]
    assert "is whole" in admin.run("verify", kept).stdout
    assert hackney.ask("health")["backup"]["age_hours"] < 1
    state = hackney.ask("keys", "status")
    assert state["node_backup"]["key_id"] == admin.key_id
    assert "no-node-backup" not in {advice["code"] for advice in state["advice"]}
    assert "whole node" in hackney.cli("keys", "status").stdout


def test_a_node_moves_to_postgresql_by_its_backup(
    admin: Admin, kept: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgresql_server")
    url = databases.make(server)
    arguments = (kept, tmp_path / "node", "--new-passphrase-file", admin.new_words, "--store", url, "--json")

    back = admin.run("restore", *arguments)

    assert back.code == 0, back
    config = Path(back.document["config"])
    assert f'url = "{url}"' in config.read_text()
    again = exchange("backup", "create", tmp_path / "again", "--to", admin.public, "--config", config, "--json")
    assert again.code == 0, again
    found, before = (admin.run("verify", path, "--json").document for path in (tmp_path / "again", kept))
    assert (found["rows"], found["log_size"]) == (before["rows"], before["log_size"])
    twice = admin.run("restore", kept, tmp_path / "other", "--new-passphrase-file", admin.new_words, "--store", url)
    assert "holds a node already" in twice.one_line_error()
    password = "postgresql://node:secret@127.0.0.1/node"
    wrong = admin.run(
        "restore", kept, tmp_path / "other", "--new-passphrase-file", admin.new_words, "--store", password
    )
    assert "must not hold a password" in wrong.one_line_error()
    assert not (tmp_path / "other").exists()


def test_nothing_that_is_there_is_written_over(
    boroughs: tuple[Borough, Borough], admin: Admin, kept: Path, tmp_path: Path
) -> None:
    hackney, _ = boroughs
    data = kept.read_bytes()
    again = hackney.cli("backup", "create", kept, "--to", admin.public)
    assert "nothing was made" in again.one_line_error()
    assert kept.read_bytes() == data
    (tmp_path / "mine").write_text("mine")
    assert "nothing was changed" in admin.restore(kept, tmp_path).one_line_error()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    key = exchange("backup", "key", "new", admin.key, "--key-passphrase-file", admin.words)
    assert (key.code, "nothing was made" in key.one_line_error()) == (USAGE, True)


def damaged(data: bytes, directory: Path) -> Iterator[Path]:
    flipped = bytearray(data)
    flipped[-100] ^= 1
    middle = bytearray(data)
    middle[len(data) // 2] ^= 1
    for name, content in {
        "empty": b"",
        "text": b"this is no backup\n",
        "cut": data[:-1],
        "half": data[: len(data) // 2],
        "head": data[:1800],
        "flipped": bytes(flipped),
        "middle": bytes(middle),
        "more": data + b"x",
    }.items():
        path = directory / name
        path.write_bytes(content)
        yield path


def test_a_backup_that_is_not_whole_is_refused_and_nothing_is_made_of_it(
    admin: Admin, kept: Path, tmp_path: Path
) -> None:
    (tmp_path / "to").mkdir()
    for path in damaged(kept.read_bytes(), tmp_path):
        found = admin.run("verify", path)
        assert (found.code, path.name in found.one_line_error()) == (INVALID, True), path
        back = admin.restore(path, tmp_path / "to" / "node")
        assert back.code == INVALID, path
        assert list((tmp_path / "to").iterdir()) == [], path


def test_a_backup_opens_with_its_key_alone(
    boroughs: tuple[Borough, Borough], admin: Admin, kept: Path, tmp_path: Path
) -> None:
    hackney, _ = boroughs
    other = Admin(tmp_path / "other")
    assert "another key" in other.run("verify", kept).one_line_error()
    wrong = words(tmp_path, "wrong", "not the passphrase at all")
    found = exchange("backup", "verify", kept, "--key", admin.key, "--key-passphrase-file", wrong)
    assert (found.code, "does not open" in found.one_line_error()) == (INVALID, True)
    public = hackney.cli("backup", "create", tmp_path / "b", "--to", admin.key)
    assert (public.code, ".pub" in public.one_line_error()) == (INVALID, True)
    keystore = exchange(
        "backup", "verify", kept, "--key", hackney.directory / "keystore.json",
        "--key-passphrase-file", hackney.directory / "passphrase",
    )  # fmt: skip
    assert "not the key of a backup" in keystore.one_line_error()


@contextmanager
def counting(port: int) -> Iterator[list[int]]:
    """Listen in the place of a peer, and count who comes."""
    came: list[int] = []
    with socket.create_server(("127.0.0.1", port)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                came.append(1)
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield came
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_rehearsal_runs_the_node_and_sends_nothing(town: Town, admin: Admin, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    receiver = town.receiver()
    assert enfield.status(enfield.send(turned(FORM), HACKNEY), "received", 60)["reached"]
    add_agencies(hackney, receiver, ("housing",))
    enfield.stop()
    hackney.send(FORM, ENFIELD)  # it waits in the outbox
    backup = tmp_path / "hackney.backup"
    hackney.ask("backup", "create", backup, "--to", admin.public)
    hackney.stop()
    delivered = len(receiver.accepted())
    (tmp_path / "for-the-while").mkdir()

    with counting(enfield.port) as came, counting(hackney.port) as came_home:
        done = admin.run("rehearse", backup, "--dir", tmp_path / "for-the-while", "--json")
        assert (came, came_home) == ([], [])
    with counting(enfield.port) as came:
        # It would send if it could: the same node, outside, comes at once.
        hackney.start()
        until("the node itself calls its peer", lambda: came)

    assert done.code == 0, done
    report = done.document
    assert report["ok"]
    assert report["found"]["problems"] == []
    assert report["found"]["waiting"] >= 1
    assert report["found"]["peers"] == 1
    assert report["found"]["messages_in"] == report["found"]["messages_out"] == 1
    assert report["found"]["contents"] == 2
    assert report["age_hours"] < 1
    assert report["restored_in_s"] > report["found"]["started_in_s"] > 0
    assert len(receiver.accepted()) == delivered
    assert list((tmp_path / "for-the-while").iterdir()) == []
