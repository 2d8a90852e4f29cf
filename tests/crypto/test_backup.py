"""A backup of keys: it opens with what it was locked with and in no other way, and costs no more than is bounded."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.backup import About, join_backup, lock_backup, open_backup, parse_backup, split_backup
from exchange.crypto.errors import BackupCorrupt, BackupError, BackupRefused, ShareError
from exchange.crypto.keystore import Argon2Parameters, lock_keystore
from exchange.crypto.secret import Secret

CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
WORDS = Secret(b"correct horse battery staple")
ENTRIES = {"store": b"marker-store-key", "signing/ed25519": b"marker-seed"}
ABOUT = About(
    origin="exchange.hackney.example", fingerprint="0123456789abcdef" * 4, made_at="2026-11-24T09:30:00Z", log_size=41
)
FILE = lock_backup(ABOUT, ENTRIES, WORDS, CHEAP)
SPLIT, SHARES = split_backup(ABOUT, ENTRIES, 2, 3)


def changed(data: bytes, change: Callable[[Any], Any]) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def test_a_backup_opens_with_its_passphrase_or_its_shares() -> None:
    assert open_backup(parse_backup(FILE), WORDS) == ENTRIES
    assert join_backup(parse_backup(SPLIT), SHARES[1:]) == ENTRIES
    assert join_backup(parse_backup(SPLIT), SHARES) == ENTRIES


def test_it_says_what_it_is_and_no_secret() -> None:
    for data in (FILE, SPLIT):
        assert parse_backup(data).about == ABOUT
        assert b"marker" not in data
    words = set(SHARES[0].words.split())
    assert not words & set(SPLIT.decode().split())


@pytest.mark.parametrize("words", [b"", b"correct horse battery staple ", b"Correct horse battery staple"])
def test_another_passphrase_is_refused(words: bytes) -> None:
    with pytest.raises(BackupRefused):
        open_backup(parse_backup(FILE), Secret(words))


def test_fewer_shares_and_those_of_another_backup_are_refused() -> None:
    _, others = split_backup(ABOUT, ENTRIES, 2, 3)
    for held in ([], SHARES[:1], [SHARES[0], others[1]], others):
        with pytest.raises(BackupError):
            join_backup(parse_backup(SPLIT), held)


def test_one_is_not_opened_as_the_other() -> None:
    with pytest.raises(BackupRefused):
        open_backup(parse_backup(SPLIT), WORDS)
    with pytest.raises(BackupRefused):
        join_backup(parse_backup(FILE), SHARES)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["about"].update(origin="exchange.enfield.example"),
        lambda d: d["about"].update(fingerprint="0" * 64),
        lambda d: d["about"].update(made_at="2026-11-25T09:30:00Z"),
        lambda d: d["about"].update(log_size=0),
        lambda d: d["lock"].update(opslimit=2),
        lambda d: d["lock"].update(memlimit_bytes=16384),
        lambda d: d["lock"].update(salt="A" * 22 + "=="),
        lambda d: d.update(nonce="A" * 32),
        lambda d: d.update(ciphertext=""),
    ],
    ids=["origin", "fingerprint", "time", "log", "passes", "memory", "salt", "nonce", "ciphertext"],
)
def test_what_a_backup_says_of_itself_cannot_be_changed(change: Callable[[Any], Any]) -> None:
    with pytest.raises(BackupRefused):
        open_backup(parse_backup(changed(FILE, change)), WORDS)


def test_what_a_split_backup_says_of_itself_cannot_be_changed() -> None:
    with pytest.raises(BackupRefused):
        join_backup(parse_backup(changed(SPLIT, lambda d: d["about"].update(log_size=0))), SHARES)
    with pytest.raises(BackupRefused):
        join_backup(parse_backup(changed(SPLIT, lambda d: d["lock"].update(count=16))), SHARES)
    with pytest.raises(ShareError):
        join_backup(parse_backup(changed(SPLIT, lambda d: d["lock"].update(threshold=1))), SHARES[:1])


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(format="exchange-key-backup/2"),
        lambda d: d.update(more=1),
        lambda d: d["about"].update(more=1),
        lambda d: d["lock"].update(more=1),
        lambda d: d["lock"].update(by="nobody"),
        lambda d: d["lock"].update(opslimit=21),
        lambda d: d["lock"].update(opslimit=2**70),
        lambda d: d["lock"].update(opslimit=0),
        lambda d: d["lock"].update(memlimit_bytes=2**30 + 1),
        lambda d: d["lock"].update(memlimit_bytes=2**63),
        lambda d: d["lock"].update(memlimit_bytes=8191),
        lambda d: d["lock"].update(salt="AAAA"),
        lambda d: d.update(nonce="AAAA"),
        lambda d: d.update(ciphertext="A" * 8000),
        lambda d: d["about"].update(log_size=-1),
        lambda d: d["about"].update(made_at="yesterday"),
        lambda d: d["about"].update(fingerprint="0" * 64 + "\n"),
    ],
)
def test_what_is_not_a_backup_or_asks_too_much_is_refused_before_argon2_runs(change: Callable[[Any], Any]) -> None:
    with pytest.raises(BackupCorrupt):
        parse_backup(changed(FILE, change))


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 300_000, lock_keystore(ENTRIES, WORDS, CHEAP)])
def test_other_files_are_no_backup(data: bytes) -> None:
    with pytest.raises(BackupCorrupt):
        parse_backup(data)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([FILE, SPLIT]), st.data())
def test_a_backup_that_was_cut_short_or_changed_anywhere_gives_nothing(data: bytes, draw: st.DataObject) -> None:
    if draw.draw(st.booleans()):
        broken = data[: draw.draw(st.integers(0, len(data) - 3))]
    else:
        at, byte = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(0, 255))
        broken = data[:at] + bytes([byte]) + data[at + 1 :]
    try:
        backup = parse_backup(broken)
        opened = open_backup(backup, WORDS) if data is FILE else join_backup(backup, SHARES)
    except BackupError:
        return
    # What is between the values of JSON says nothing.
    assert json.loads(broken) == json.loads(data) or opened == ENTRIES
    assert opened == ENTRIES
