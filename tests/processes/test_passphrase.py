"""Where a node gets its passphrase: a file, a systemd credential or a person; and how it is changed while it runs."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest

from exchange.cli.main import cli
from exchange.crypto.chain import WrappingChain
from exchange.crypto.errors import WrongPassphrase
from exchange.crypto.keystore import Argon2Parameters, cost_of, lock_keystore, unlock_keystore
from exchange.crypto.secret import Secret
from tests.processes.conftest import Town
from tests.processes.harness import HACKNEY, Borough, exchange, until
from tests.processes.terminal import terminal
from tests.processes.test_epochs import DAY_S

NEW = "trombone lantern quarry mistletoe"


@pytest.fixture
def hackney(town: Town) -> Borough:
    return town.borough("hackney", HACKNEY)


def without_file(borough: Borough, line: str = "") -> str:
    """Take the passphrase's file from a node; return what it held."""
    text = borough.config.read_text()
    assert 'passphrase_file = "passphrase"' in text
    borough.config.write_text(text.replace('passphrase_file = "passphrase"', line))
    file = borough.directory / "passphrase"
    words = file.read_text().strip()
    file.unlink()
    return words


def opens(borough: Borough, words: str) -> bool:
    """Whether a passphrase opens the keystore as it is on the disk."""
    try:
        return bool(unlock_keystore((borough.directory / "keystore.json").read_bytes(), Secret(words.encode())))
    except WrongPassphrase:
        return False


def epoch_of(borough: Borough, words: str) -> int:
    """How far the chain in the keystore has come."""
    entries = unlock_keystore((borough.directory / "keystore.json").read_bytes(), Secret(words.encode()))
    return WrappingChain.parse(entries["sealing-chain"]).epoch


def new_words(town: Town, words: str = NEW) -> Path:
    file = town.root / "new-passphrase"
    file.write_text(words + "\n")
    file.chmod(0o600)
    return file


def options() -> list[click.Option]:
    def below(group: click.Group) -> list[click.Command]:
        commands = [group.get_command(click.Context(group), name) for name in group.list_commands(click.Context(group))]
        return [
            leaf
            for command in commands
            if command is not None
            for leaf in (below(command) if isinstance(command, click.Group) else [command])
        ]

    return [item for command in below(cli) for item in command.params if isinstance(item, click.Option)]  # type: ignore[arg-type]


def test_no_option_takes_a_passphrase_and_no_variable_gives_one() -> None:
    about = [item for item in options() if any("pass" in name for name in item.opts)]
    assert len(about) >= 3
    for item in about:
        assert isinstance(item.type, click.Path), item.opts
    assert {item.envvar for item in options()} == {None, "EXCHANGE_CONFIG", "EXCHANGE_DIRECTORY"}


# Where it comes from


def test_a_credential_of_systemd_opens_the_keystore(hackney: Borough, town: Town) -> None:
    words = without_file(hackney, 'passphrase_credential = "exchange-passphrase"')
    credentials = town.root / "credentials"
    credentials.mkdir()
    (credentials / "exchange-passphrase").write_text(words)
    hackney.environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    hackney.start()
    assert hackney.ask("health")["status"] == "ok"
    assert words not in hackney.log.read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [(None, "gave this process no credentials"), ({}, "No such file"), ({"exchange-passphrase": ""}, "is empty")],
    ids=["no credentials", "another credential", "an empty one"],
)
def test_a_credential_that_is_not_there_is_named(
    hackney: Borough, tmp_path: Path, given: dict[str, str] | None, said: str
) -> None:
    without_file(hackney, 'passphrase_credential = "exchange-passphrase"')
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, text in (given or {}).items():
        (credentials / name).write_text(text)
    environment = {} if given is None else {"CREDENTIALS_DIRECTORY": str(credentials)}
    error = exchange("run", "--config", hackney.config, environment=environment).one_line_error()
    assert said in error
    assert "LoadCredentialEncrypted=exchange-passphrase" in error


def test_a_variable_that_holds_the_passphrase_opens_nothing(hackney: Borough) -> None:
    words = without_file(hackney)
    names = ("EXCHANGE_PASSPHRASE", "PASSPHRASE", "EXCHANGE_KEYSTORE_PASSPHRASE", "KEYSTORE_PASSPHRASE")
    refused = exchange("run", "--config", hackney.config, environment=dict.fromkeys(names, words))
    assert "the keystore stays locked" in refused.one_line_error()


def test_a_person_at_a_terminal_is_asked_and_what_they_type_is_not_shown(hackney: Borough) -> None:
    words = without_file(hackney)
    with terminal("run", config=hackney.config) as screen:
        screen.sees(f"Passphrase of {hackney.origin}: ")
        screen.types(words)
        shown = screen.sees("node is ready")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.ends() == 0
        assert words not in shown + screen.shown


def test_a_person_who_is_wrong_is_told_in_one_line(hackney: Borough) -> None:
    without_file(hackney)
    with terminal("run", config=hackney.config) as screen:
        screen.sees("Passphrase of ")
        screen.types("something else entirely")
        assert screen.ends() == 1
        assert "Error: the passphrase does not open the keystore" in screen.shown
        assert "Traceback" not in screen.shown


@pytest.mark.parametrize("name", ["passphrase", "keystore.json"])
@pytest.mark.parametrize(("mode", "starts"), [(0o600, True), (0o640, True), (0o644, True), (0o602, False)])
def test_files_that_others_may_read_are_warned_of_and_those_that_all_may_write_are_refused(
    hackney: Borough, name: str, mode: int, starts: bool
) -> None:
    (hackney.directory / name).chmod(mode)
    if starts:
        hackney.start()
        assert ("others may read" in hackney.log.read_text()) is (mode != 0o600)
    else:
        error = exchange("run", "--config", hackney.config).one_line_error()
        assert "everybody may write" in error
        assert "chmod 600" in error


def test_a_passphrase_may_come_from_a_pipe_and_is_not_read_without_end(hackney: Borough, town: Town) -> None:
    words = (hackney.directory / "passphrase").read_text()
    command = [sys.executable, "-m", "exchange.cli.main", "keys", "passwd", "--same", "--config", str(hackney.config)]
    done = subprocess.run([*command, "--passphrase-file", "/dev/stdin"], input=words, text=True, capture_output=True)
    assert done.returncode == 0, done
    endless = hackney.cli("keys", "passwd", "--same", "--passphrase-file", "/dev/zero")
    assert "that is no passphrase" in endless.one_line_error()


# How it is changed


def test_the_passphrase_is_changed_while_the_node_runs_and_goes_on_being_rewritten(
    hackney: Borough, town: Town
) -> None:
    old = (hackney.directory / "passphrase").read_text().strip()
    hackney.configure("keys", sealing_lifetime_days=4 / DAY_S, sealing_grace_days=2 / DAY_S)
    hackney.start()
    changed = hackney.ask("keys", "passwd", "--new-passphrase-file", new_words(town))
    assert changed["running"] is True
    assert changed["passphrase_file"] == str(hackney.directory / "passphrase")
    assert (opens(hackney, old), opens(hackney, NEW)) == (False, True)
    # The node rewrites it under the new key without being started again.
    rotated = hackney.ask("keys", "rotate", "--yes", "--revocation", town.root / "next.json")["fingerprint"]
    assert opens(hackney, NEW)
    assert hackney.ask("keys", "passwd", "--same")["running"] is True
    hackney.stop()
    hackney.start()
    assert hackney.ask("card", "show")["fingerprint"] == rotated
    text = hackney.log.read_text()
    assert "are not destroyed yet" not in text
    for words in (old, NEW):
        assert words not in text
    assert [file.name for file in hackney.directory.iterdir() if file.name.endswith(".new")] == []


@pytest.mark.sqlite
@pytest.mark.slow
def test_the_passphrase_is_changed_again_and_again_while_sealing_keys_are_destroyed(
    hackney: Borough, town: Town
) -> None:
    hackney.configure("keys", sealing_lifetime_days=2 / DAY_S, sealing_grace_days=1 / DAY_S)
    database = hackney.directory / "exchange.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM sealing_keys")
        connection.commit()
    hackney.start()
    epoch = 0
    for turn in range(4):
        words = f"{NEW} {turn}"
        hackney.ask("keys", "passwd", "--new-passphrase-file", new_words(town, words))
        until("an epoch is destroyed", lambda before=epoch, words=words: epoch_of(hackney, words) > before)
        epoch = epoch_of(hackney, words)
        assert opens(hackney, words)
    assert "are not destroyed yet" not in hackney.log.read_text()


def test_the_passphrase_of_a_node_that_does_not_run_is_changed(hackney: Borough, town: Town) -> None:
    changed = hackney.ask("keys", "passwd", "--new-passphrase-file", new_words(town))
    assert changed["running"] is False
    hackney.start()
    assert opens(hackney, NEW)


def test_a_person_changes_the_passphrase_at_a_terminal(hackney: Borough) -> None:
    words = without_file(hackney)
    with terminal("keys", "passwd", config=hackney.config) as screen:
        for prompt, line in (("Passphrase of ", words), ("New passphrase of ", NEW), ("The same again: ", NEW)):
            screen.sees(prompt)
            screen.types(line)
        assert screen.ends() == 0
        assert "has a new passphrase" in screen.shown
    assert opens(hackney, NEW)
    with terminal("keys", "passwd", config=hackney.config) as screen:
        for prompt, line in (("Passphrase of ", NEW), ("New passphrase of ", words), ("The same again: ", NEW)):
            screen.sees(prompt)
            screen.types(line)
        assert screen.ends() == 2
        assert "the two are not the same" in screen.shown
    assert opens(hackney, NEW)


def test_the_cost_of_a_guess_is_raised_to_that_of_today_under_the_same_passphrase(hackney: Borough) -> None:
    words = (hackney.directory / "passphrase").read_text().strip()
    assert not cost_of((hackney.directory / "keystore.json").read_bytes()).is_current
    hackney.start()
    raised = hackney.ask("keys", "passwd", "--same")
    assert raised["same"] is True
    assert cost_of((hackney.directory / "keystore.json").read_bytes()) == Argon2Parameters()
    assert opens(hackney, words)


def refusals(town: Town) -> list[tuple[list[object], str]]:
    old = (town.root / "hackney" / "passphrase").read_text().strip()
    wrong, short, same = (town.root / name for name in ("wrong", "short", "same"))
    for file, words in ((wrong, "something else entirely"), (short, "eleven char"), (same, old)):
        file.write_text(words)
    fine = new_words(town)
    return [
        (["--passphrase-file", wrong, "--new-passphrase-file", fine], "does not open"),
        (["--new-passphrase-file", short], "shorter than 12"),
        (["--new-passphrase-file", same], "in force"),
        (["--new-passphrase-file", town.root / "nothing"], "No such file"),
        (["--new-passphrase-file", fine, "--same"], "do not go together"),
        ([], "no terminal"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_what_is_refused_changes_nothing(hackney: Borough, town: Town, running: bool) -> None:
    if running:
        hackney.start()
    keystore, passphrase = hackney.directory / "keystore.json", hackney.directory / "passphrase"
    before = keystore.read_bytes(), passphrase.read_bytes()
    for arguments, said in refusals(town):
        assert said in hackney.cli("keys", "passwd", *arguments).one_line_error()
        assert (keystore.read_bytes(), passphrase.read_bytes()) == before
        assert not (hackney.directory / "passphrase.new").exists()


def test_who_reaches_the_socket_and_has_no_passphrase_cannot_lock_the_keystore(hackney: Borough) -> None:
    hackney.start()
    before = (hackney.directory / "keystore.json").read_bytes()
    body = {"salt": "A" * 22 + "==", "opslimit": 1, "memlimit_bytes": 8192, "sealed_key": "A" * 96}
    with pytest.raises(click.ClickException) as refusal:
        hackney.api("POST", "/v1/keys/passphrase", body)
    assert getattr(refusal.value, "code", "") == "wrong-passphrase"
    assert (hackney.directory / "keystore.json").read_bytes() == before


# What a power cut leaves


def locked(words: str, entries: dict[str, bytes]) -> bytes:
    return lock_keystore(entries, Secret(words.encode()), Argon2Parameters(1, 8192))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keystore", "beside", "holds"),
    [
        ("old", None, "old"),
        ("old", b"", "old"),
        ("old", b"trombone la", "old"),
        ("old", NEW.encode() + b"\n", "old"),
        ("new", NEW.encode() + b"\n", "new"),
    ],
    ids=["before", "file made", "file half written", "announced", "locked anew"],
)
def test_wherever_a_change_stops_the_node_starts(
    hackney: Borough, keystore: str, beside: bytes | None, holds: str
) -> None:
    file, path = hackney.directory / "passphrase", hackney.directory / "keystore.json"
    old = file.read_text().strip()
    if keystore == "new":
        path.write_bytes(locked(NEW, unlock_keystore(path.read_bytes(), Secret(old.encode()))))
    if beside is not None:
        (hackney.directory / "passphrase.new").write_bytes(beside)
        (hackney.directory / "passphrase.new").chmod(0o600)
    hackney.start()
    assert file.read_text().strip() == (NEW if holds == "new" else old)
    hackney.ask("keys", "passwd", "--same")
    assert opens(hackney, NEW if holds == "new" else old)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["command", "node"])
def test_a_kill_in_the_middle_leaves_a_node_that_starts(hackney: Borough, town: Town, victim: str) -> None:
    old = (hackney.directory / "passphrase").read_text().strip()
    hackney.start()
    command = subprocess.Popen(
        [sys.executable, "-m", "exchange.cli.main", "keys", "passwd", "--new-passphrase-file", str(new_words(town))],
        env={"EXCHANGE_CONFIG": str(hackney.config), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until("the change has begun", lambda: (hackney.directory / "passphrase.new").exists() or command.poll() is not None)
    if victim == "command":
        command.kill()
        command.wait()
    else:
        hackney.kill()
        assert command.wait() in (0, 75)
    hackney.kill()
    hackney.start()
    words = (hackney.directory / "passphrase").read_text().strip()
    assert words in (old, NEW)
    assert opens(hackney, words)
    assert not opens(hackney, NEW if words == old else old)
    assert hackney.ask("keys", "passwd", "--same")["running"] is True
