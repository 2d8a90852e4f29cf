"""The keystore file is rewritten whole or not at all, and what the old one held is wiped."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exchange.crypto.errors import KeystoreError, WrongPassphrase
from exchange.crypto.keystore import (
    Argon2Parameters,
    keystore_key,
    lock_keystore,
    new_keystore_key,
    open_with,
    unlock_keystore,
)
from exchange.crypto.names import Origin
from exchange.crypto.secret import Secret
from exchange.node.keyring import new_keystore, open_keystore_file
from exchange.node.keystore_file import KeystoreFile, put_in_place, write_beside

ORIGIN = Origin("exchange.hackney.example")
CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
WORDS, OTHER_WORDS = Secret(b"correct horse battery staple"), Secret(b"tr0ub4dor&3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keystore.json"
    path.write_bytes(lock_keystore({"a": b"1" * 32, "b": b"2" * 32}, WORDS, CHEAP))
    path.chmod(0o600)
    return path


def opened(path: Path) -> KeystoreFile:
    return KeystoreFile(path, keystore_key(path.read_bytes(), WORDS))


def test_an_entry_is_changed_and_the_others_are_those_of_the_file(path: Path) -> None:
    file, another = opened(path), opened(path)
    file.rewrite({"a": b"3" * 32})
    another.rewrite({"c": b"4" * 32})
    assert unlock_keystore(path.read_bytes(), WORDS) == {"a": b"3" * 32, "b": b"2" * 32, "c": b"4" * 32}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_the_bytes_of_the_old_file_are_overwritten(path: Path) -> None:
    with path.open("rb") as old:
        size = len(path.read_bytes())
        opened(path).rewrite({"a": b"3" * 32})
        assert old.read() == bytes(size)


def test_a_copy_that_an_admin_linked_is_not_touched(path: Path) -> None:
    copy = path.with_name("copy.json")
    os.link(path, copy)
    before = copy.read_bytes()
    opened(path).rewrite({"a": b"3" * 32})
    assert copy.read_bytes() == before


@pytest.mark.parametrize("words", [WORDS, OTHER_WORDS])
def test_a_keystore_that_was_locked_anew_since_is_left_alone(path: Path, words: Secret) -> None:
    file = opened(path)
    path.write_bytes(lock_keystore({"a": b"5" * 32}, words, CHEAP))
    before = path.read_bytes()
    with pytest.raises(KeystoreError, match="restart the node"):
        file.rewrite({"a": b"3" * 32})
    assert path.read_bytes() == before


def test_what_cannot_be_written_leaves_the_old_keystore(path: Path) -> None:
    file, before = opened(path), path.read_bytes()
    path.with_name("keystore.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        file.rewrite({"a": b"3" * 32})
    assert path.read_bytes() == before


def test_what_a_crash_left_beside_it_is_overwritten_and_does_no_harm(path: Path) -> None:
    beside = path.with_name("keystore.json.new")
    beside.write_bytes(b"half of a keyst" * 500)
    with beside.open("rb") as left:
        opened(path).rewrite({"a": b"3" * 32})
        assert left.read() == bytes(15 * 500)
    assert unlock_keystore(path.read_bytes(), WORDS)["a"] == b"3" * 32


def test_a_link_that_lies_where_the_new_file_goes_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(b"marker")
    path.with_name("keystore.json.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        opened(path).rewrite({"a": b"3" * 32})
    assert victim.read_bytes() == b"marker"


def test_many_who_rewrite_at_once_lose_no_change_of_one_another(path: Path) -> None:
    files = [opened(path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: files[at].rewrite({f"new-{at}": bytes([at]) * 32}), range(8)))
    entries = unlock_keystore(path.read_bytes(), WORDS)
    assert entries == {"a": b"1" * 32, "b": b"2" * 32} | {f"new-{at}": bytes([at]) * 32 for at in range(8)}


def test_a_file_that_is_locked_anew_opens_with_the_new_passphrase_alone_and_holds_the_same(path: Path) -> None:
    before = unlock_keystore(path.read_bytes(), WORDS)
    file = opened(path)
    with path.open("rb") as old:
        size = path.stat().st_size
        file.lock_anew(new_keystore_key(OTHER_WORDS, CHEAP))
        assert old.read() == bytes(size)
    assert unlock_keystore(path.read_bytes(), OTHER_WORDS) == before
    with pytest.raises(WrongPassphrase):
        unlock_keystore(path.read_bytes(), WORDS)
    file.rewrite({"a": b"3" * 32})
    assert unlock_keystore(path.read_bytes(), OTHER_WORDS)["a"] == b"3" * 32


def test_who_rewrites_a_file_while_it_is_locked_anew_finds_the_key_that_fits(path: Path) -> None:
    file = opened(path)
    keys = [new_keystore_key(Secret(b"words %d" % at), CHEAP) for at in range(6)]
    with ThreadPoolExecutor(8) as pool:
        rewrites = [pool.submit(file.rewrite, {f"new-{at}": bytes([at]) * 32}) for at in range(20)]
        changes = [pool.submit(file.lock_anew, key) for key in keys]
        for done in (*rewrites, *changes):
            done.result()
    assert file.fits()
    entries = open_with(path.read_bytes(), next(key for key in keys if key.fits(path.read_bytes())))
    assert entries == {"a": b"1" * 32, "b": b"2" * 32} | {f"new-{at}": bytes([at]) * 32 for at in range(20)}


def test_what_follows_a_file_takes_its_place_and_the_old_bytes_are_overwritten(path: Path) -> None:
    path.chmod(0o640)
    with path.open("rb", buffering=0) as old:
        size = path.stat().st_size
        write_beside(path, b"what follows")
        assert old.read(2) == b"{\n"
        put_in_place(path)
        assert path.read_bytes() == b"what follows"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        old.seek(0)
        assert old.read() == bytes(size)
    with pytest.raises(FileNotFoundError):
        put_in_place(path)
    assert path.read_bytes() == b"what follows"


def test_a_file_is_not_locked_anew_by_one_who_cannot_open_it(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(WrongPassphrase):
        KeystoreFile(path, keystore_key(before, OTHER_WORDS)).lock_anew(new_keystore_key(OTHER_WORDS, CHEAP))
    assert path.read_bytes() == before


def test_a_chain_that_has_gone_on_is_what_the_next_start_finds(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    path.write_bytes(new_keystore(WORDS, CHEAP))
    keyring = open_keystore_file(path, WORDS, ORIGIN)
    before = keyring.chain
    keyring.destroy_before(3)
    again = open_keystore_file(path, WORDS, ORIGIN)
    assert again.chain.encode() == before.advance(3).encode()
    assert again.verifiers == keyring.verifiers
    assert again.store_key == keyring.store_key
