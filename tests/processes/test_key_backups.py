"""Keys are backed up, lost and restored: with the store that ran last, with an old one, and with none."""

import json
import shutil
import stat
from pathlib import Path

import pytest

from exchange.crypto.keystore import Argon2Parameters, unlock_keystore
from exchange.crypto.secret import Secret
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, Result, example, exchange, introduce, until
from tests.processes.terminal import terminal

pytestmark = pytest.mark.slow

FORM = example("case-study-j")
BACKUP_WORDS = "granite otter seventeen umbrella"
NEW_WORDS = "trombone lantern quarry mistletoe"


def words(town: Town, name: str, text: str) -> Path:
    file = town.root / name
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


def entries(borough: Borough, passphrase: str) -> dict[str, bytes]:
    return unlock_keystore((borough.directory / "keystore.json").read_bytes(), Secret(passphrase.encode()))


def lose_the_keystore(borough: Borough) -> None:
    """The node is stopped, and keystore and passphrase are gone; store and configuration are there."""
    borough.stop()
    (borough.directory / "keystore.json").unlink()
    (borough.directory / "passphrase").unlink()


def restored(borough: Borough, *arguments: object) -> Result:
    return exchange("keys", "restore", *arguments, borough.directory, "--json")


def test_a_node_that_lost_its_keystore_goes_on_under_its_backup_and_its_peers_notice_nothing(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    message = hackney.send(FORM, ENFIELD)
    hackney.status(message, "received", 30)
    made = enfield.ask(
        "keys", "backup", town.root / "keys.backup", "--backup-passphrase-file", words(town, "b", BACKUP_WORDS)
    )
    assert made["by"] == "passphrase"
    assert made["fingerprint"] == enfield.ask("card", "show")["fingerprint"]
    assert stat.S_IMODE((town.root / "keys.backup").stat().st_mode) == 0o600
    # It signs more after the backup, and that does no harm.
    hackney.status(hackney.send(FORM, ENFIELD), "received", 30)
    lose_the_keystore(enfield)

    new = words(town, "n", NEW_WORDS)
    back = restored(
        enfield, town.root / "keys.backup", "--backup-passphrase-file", town.root / "b", "--new-passphrase-file", new
    )

    assert back.code == 0, back
    assert back.document["store"] == "current"
    shutil.copy(new, enfield.directory / "passphrase")
    enfield.start()
    assert enfield.ask("card", "show")["fingerprint"] == made["fingerprint"]
    after = hackney.send(FORM, ENFIELD)
    hackney.status(after, "received", 30)
    assert hackney.ask("peer", "show", enfield.origin)["trust"] == "verified"
    assert hackney.ask("alarms") == {"items": []}
    back_again = enfield.send(turned(FORM), HACKNEY)
    assert enfield.status(back_again, "received", 30)["reached"]
    # What it had before, it still reads: the store key is the same.
    receiver = town.receiver()
    enfield.add_agency("housing", receiver)
    until("what was stored before the loss is delivered", lambda: receiver.accepted("housing", message))
    # No sealing key of before came back: those that the store holds were made since.
    chain = entries(enfield, NEW_WORDS)["sealing-chain"]
    assert int.from_bytes(chain[:8], "big") >= 100_000


def turned(form: bytes) -> bytes:
    """The form in the other direction."""
    here, there, aside = HACKNEY.encode(), ENFIELD.encode(), b"E09000099"
    return form.replace(here, aside).replace(there, here).replace(aside, there)


@pytest.mark.sqlite
def test_a_node_on_a_store_older_than_its_backup_does_not_start_unasked_and_then_shows_as_a_fork(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    enfield.stop()
    for name in ("exchange.db", "exchange.db-wal"):
        if (enfield.directory / name).exists():
            shutil.copy(enfield.directory / name, town.root / name)
    enfield.start()
    hackney.status(hackney.send(FORM, ENFIELD), "received", 30)
    passphrase = words(town, "b", BACKUP_WORDS)
    enfield.ask("keys", "backup", town.root / "keys.backup", "--backup-passphrase-file", passphrase)
    lose_the_keystore(enfield)
    for path in enfield.directory.glob("exchange.db*"):
        path.unlink()
    for path in town.root.glob("exchange.db*"):
        shutil.copy(path, enfield.directory / path.name)
    words(town, "enfield/passphrase", NEW_WORDS)

    back = exchange(
        "keys", "restore", town.root / "keys.backup", enfield.directory, "--backup-passphrase-file", passphrase
    )

    assert back.code == 0, back
    assert "telephone every peer first" in back.stdout
    assert "exchange run --old-store" in back.stdout
    before = (enfield.directory / "exchange.db").read_bytes()
    refused = exchange("run", "--config", enfield.config)
    assert "exchange run --rejoin" in refused.one_line_error()
    assert refused.code == 1
    assert hackney.ask("peer", "show", enfield.origin)["trust"] == "verified"
    assert len(before) == len((enfield.directory / "exchange.db").read_bytes())

    enfield.start(arguments=("--old-store",))
    until(
        "Hackney sees the fork",
        lambda: hackney.ask("peer", "show", enfield.origin)["trust"] == "quarantined",
    )
    # Both admins compare anew, as the page says, and go on; the next start asks nothing any more.
    fingerprint = enfield.ask("card", "show")["fingerprint"]
    hackney.ask("peer", "verify", enfield.origin, "--fingerprint", fingerprint)
    enfield.stop()
    enfield.start()
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 30)["reached"]


@pytest.fixture(scope="module")
def split(shared_town: Town) -> tuple[Borough, Path]:
    """A node that does not run, and its backup split 2 of 3."""
    hackney = shared_town.borough("hackney", HACKNEY)
    file = shared_town.root / "split.backup"
    made = hackney.ask("keys", "backup", file, "--split", "2/3")
    assert (made["by"], made["threshold"], made["count"]) == ("shares", 2, 3)
    assert made["shares"] == [f"{file}.share-{number}" for number in (1, 2, 3)]
    return hackney, file


def share(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.share-{number}")


def shared_words(tmp_path: Path) -> Path:
    file = tmp_path / "words"
    file.write_text(NEW_WORDS)
    file.chmod(0o600)
    return file


def test_any_two_of_three_shares_restore_the_keys_and_one_does_not(split: tuple[Borough, Path], tmp_path: Path) -> None:
    hackney, file = split
    old = entries(hackney, (hackney.directory / "passphrase").read_text().strip())
    new = ("--new-passphrase-file", shared_words(tmp_path), "--json")
    for held in ([], [1], [2, 2]):
        refused = exchange("keys", "restore", file, *[share(file, number) for number in held], tmp_path / "no", *new)
        assert refused.code == 5
        assert "2 shares are needed" in refused.one_line_error() or "no share was given" in refused.stderr
        assert not (tmp_path / "no").exists()
    for held in ([1, 2], [3, 1], [1, 2, 3]):
        target = tmp_path / "-".join(map(str, held))
        back = exchange("keys", "restore", file, *[share(file, number) for number in held], target, *new)
        assert back.code == 0, back
        assert back.document["store"] == "none"
        path = target / "keystore.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = unlock_keystore(path.read_bytes(), Secret(NEW_WORDS.encode()))
        for name in ("signing/ed25519", "signing/ml-dsa-44", "store"):
            assert found[name] == old[name]
        assert found["sealing-chain"] != old["sealing-chain"]


def test_a_share_says_whose_it_is_and_what_it_needs(split: tuple[Borough, Path]) -> None:
    hackney, file = split
    text = share(file, 2).read_text()
    assert text.startswith(f"# Share 2 of 3 of the backup split.backup of the keys of {hackney.origin}.\n")
    assert "Any 2 of the 3 open it" in text
    assert stat.S_IMODE(share(file, 2).stat().st_mode) == 0o600


def test_shares_are_typed_from_paper_and_a_wrong_word_is_asked_for_again(
    split: tuple[Borough, Path], tmp_path: Path
) -> None:
    hackney, file = split
    lines = [" ".join(line for line in share(file, n).read_text().splitlines() if line[0] != "#") for n in (1, 3)]
    mistaken = " ".join(["academic", *lines[0].split()[1:]])
    arguments = ("keys", "restore", file, tmp_path / "there", "--new-passphrase-file", shared_words(tmp_path))
    with terminal(*arguments, config=hackney.config) as screen:
        screen.sees("0 of 2 given")
        screen.types(mistaken)
        screen.sees("Type them again")
        screen.sees("0 of 2 given")
        screen.types(lines[0])
        screen.sees("1 of 2 given")
        screen.types(lines[1])
        assert screen.ends() == 0
    assert (tmp_path / "there" / "keystore.json").exists()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: data[: len(data) // 2], "backup-corrupt"),
        (lambda data: b"", "backup-corrupt"),
        (lambda data: data.replace(b'"log_size": ', b'"log_size": 1'), "backup-refused"),
        (lambda data: data.replace(b'"ciphertext": "', b'"ciphertext": "AAAA'), "backup-refused"),
        (lambda data: data + b" " * 20_000, "failed"),
    ],
    ids=["truncated", "empty", "metadata changed", "content changed", "endless"],
)
def test_a_damaged_backup_is_refused_in_one_line_and_writes_nothing(
    split: tuple[Borough, Path], tmp_path: Path, spoil: object, code: str
) -> None:
    _, file = split
    assert callable(spoil)
    bad = tmp_path / "bad.backup"
    bad.write_bytes(spoil(file.read_bytes()))
    arguments = (bad, share(file, 1), share(file, 2), tmp_path / "there", "--new-passphrase-file")
    refused = exchange("keys", "restore", *arguments, shared_words(tmp_path), "--json")
    assert (refused.code, refused.document["code"]) == (5, code)
    assert refused.one_line_error()
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(("opslimit", "memlimit"), [(2**31, 2**28), (3, 2**46), (20, 2**30 + 1)])
def test_a_hostile_backup_does_not_cost_what_it_asks_for(tmp_path: Path, opslimit: int, memlimit: int) -> None:
    hostile = tmp_path / "hostile.backup"
    about = {"origin": "a.example", "fingerprint": "0" * 64, "made_at": "2026-11-24T00:00:00Z", "log_size": 0}
    lock = {"by": "passphrase", "opslimit": opslimit, "memlimit_bytes": memlimit, "salt": "A" * 22 + "=="}
    document = {"format": "exchange-key-backup/1", "about": about, "lock": lock, "nonce": "A" * 32, "ciphertext": ""}
    hostile.write_text(json.dumps(document))
    given = ("--backup-passphrase-file", shared_words(tmp_path), "--new-passphrase-file", shared_words(tmp_path))
    refused = exchange("keys", "restore", hostile, tmp_path / "there", *given, "--json")
    assert (refused.code, refused.document["code"]) == (5, "backup-corrupt")


def test_nothing_is_written_over(split: tuple[Borough, Path], tmp_path: Path) -> None:
    hackney, file = split
    before = {path: path.read_bytes() for path in hackney.directory.iterdir() if path.is_file()}
    again = hackney.cli("keys", "backup", file, "--split", "2/3")
    assert "is there already; nothing was made" in again.one_line_error()
    other = tmp_path / "other.backup"
    share(other, 2).write_text("kept")
    assert "share-2 is there already" in hackney.cli("keys", "backup", other, "--split", "2/3").one_line_error()
    assert not other.exists()
    back = exchange("keys", "restore", file, share(file, 1), share(file, 2), hackney.directory)
    assert "keystore.json is there already; nothing was changed" in back.one_line_error()
    assert {path: path.read_bytes() for path in hackney.directory.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("split_as", ["1/2", "3/2", "2/17", "3", "a/b", "2/-3", "0/0"])
def test_a_split_that_cannot_be_makes_nothing(split: tuple[Borough, Path], tmp_path: Path, split_as: str) -> None:
    hackney, _ = split
    refused = hackney.cli("keys", "backup", tmp_path / "f", "--split", split_as)
    assert refused.code == 2
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_backup_needs_a_passphrase_of_its_own(split: tuple[Borough, Path], tmp_path: Path) -> None:
    hackney, _ = split
    own = hackney.directory / "passphrase"
    refused = hackney.cli("keys", "backup", tmp_path / "f", "--backup-passphrase-file", own)
    assert "the passphrase of the node itself" in refused.one_line_error()
    short = tmp_path / "short"
    short.write_text("eleven char")
    assert (
        "shorter than 12"
        in hackney.cli("keys", "backup", tmp_path / "f", "--backup-passphrase-file", short).one_line_error()
    )
    assert not (tmp_path / "f").exists()


def test_keys_are_not_restored_to_another_borough_nor_from_before_they_were_changed(
    split: tuple[Borough, Path], town: Town
) -> None:
    _, file = split
    enfield = town.borough("enfield", ENFIELD)
    (enfield.directory / "keystore.json").unlink()
    shares = (share(file, 1), share(file, 2))
    assert "exchange.enfield.example" in exchange("keys", "restore", file, *shares, enfield.directory).one_line_error()
    hackney = town.borough("hackney", HACKNEY).start()
    hackney.ask("keys", "backup", town.root / "before", "--split", "1/1")
    assert hackney.ask("keys", "status")["backup"]["current"] is True
    hackney.ask("keys", "rotate", "--yes", "--revocation", town.root / "next.json")
    status = hackney.ask("keys", "status")
    assert status["backup"]["current"] is False
    assert "backup-outdated" in [advice["code"] for advice in status["advice"]]
    lose_the_keystore(hackney)
    refused = restored(hackney, town.root / "before", town.root / "before.share-1")
    assert refused.document["code"] == "backup-outdated"
    assert not (hackney.directory / "keystore.json").exists()


# What the admin is told of the keys


def codes(status: dict[str, list[dict[str, str]]]) -> set[str]:
    return {advice["code"] for advice in status["advice"]}


def test_the_state_of_the_keys_is_told_with_the_node_and_with_less_without_it(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    running = hackney.ask("keys", "status")
    card = hackney.ask("card", "show")
    assert running["running"] is True
    assert running["signing"]["fingerprint"] == card["fingerprint"]
    assert running["signing"]["since"] is not None
    assert [epoch["not_after"] for epoch in running["sealing"]] == [key["not_after"] for key in card["sealing_keys"]]
    assert (running["keystore"]["opslimit"], running["keystore"]["current"]) == (1, False)
    assert running["passphrase"]["source"] == "file"
    assert running["passphrase"]["beside_keystore"] is True
    assert running["revocation"]["current"] is True
    assert running["backup"] is None
    assert running["log_size"] > 0
    assert running["protection"]["dumps_off"] is True
    assert {"no-backup", "cost-low", "passphrase-beside"} <= codes(running)
    hackney.ask("keys", "passwd", "--same")
    hackney.ask("keys", "backup", town.root / "f", "--split", "2/2")
    after = hackney.ask("keys", "status")
    assert not {"no-backup", "cost-low"} & codes(after)
    assert after["keystore"]["memlimit_bytes"] == Argon2Parameters().memlimit_bytes
    hackney.stop()
    stopped = hackney.ask("keys", "status")
    assert stopped["running"] is False
    assert stopped["signing"] == running["signing"] | {"since": None, "rotating": None}
    assert stopped["sealing"] == running["sealing"]
    assert (stopped["backup"], stopped["revocation"]) == (after["backup"], after["revocation"])
    assert (stopped["protection"], stopped["log_size"]) == (None, None)
    (hackney.directory / "keystore.json").chmod(0o644)
    told = hackney.cli("keys", "status")
    assert told.code == 0
    assert "Others may read" in told.stderr
    assert "opens with 2 of 2 shares" in told.stdout
    (hackney.directory / "keystore.json").write_text("{}")
    assert "keystore" in hackney.cli("keys", "status").one_line_error()
