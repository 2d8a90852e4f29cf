import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.errors import KeystoreCorrupt, KeystoreError, WrongPassphrase
from exchange.crypto.keystore import (
    Argon2Parameters,
    KeystoreKey,
    cost_of,
    lock_keystore,
    lock_with,
    new_keystore_key,
    open_with,
    pass_on,
    take_over,
    unlock_keystore,
)
from exchange.crypto.secret import Secret

CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
PASSPHRASE = Secret(b"correct horse battery staple")
ENTRIES = {"store": b"marker-store-key", "signing/ed25519": b"marker-seed"}
FILE = lock_keystore(ENTRIES, PASSPHRASE, CHEAP)


def _changed(**members: Any) -> bytes:
    return json.dumps(json.loads(FILE) | members).encode()


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=64), max_size=5), st.binary(max_size=40).map(Secret))
def test_what_is_locked_unlocks(entries: dict[str, bytes], passphrase: Secret) -> None:
    assert unlock_keystore(lock_keystore(entries, passphrase, CHEAP), passphrase) == entries


def test_the_file_is_json_that_tells_its_cost_and_no_secret() -> None:
    file = json.loads(FILE)

    assert set(file) == {"format", "kdf", "opslimit", "memlimit_bytes", "salt", "nonce", "ciphertext"}
    assert (file["format"], file["kdf"]) == ("exchange-keystore/1", "argon2id")
    assert (file["opslimit"], file["memlimit_bytes"]) == (1, 8192)
    assert b"marker" not in FILE
    assert b'store"' not in FILE


def test_two_files_share_neither_salt_nor_nonce() -> None:
    first, second = json.loads(FILE), json.loads(lock_keystore(ENTRIES, PASSPHRASE, CHEAP))

    assert first["salt"] != second["salt"]
    assert first["nonce"] != second["nonce"]


def test_the_default_cost_is_that_of_the_design() -> None:
    assert Argon2Parameters() == Argon2Parameters(opslimit=3, memlimit_bytes=256 * 1024 * 1024)


@pytest.mark.parametrize("passphrase", [b"", b"correct horse battery staple ", b"Correct horse battery staple"])
def test_another_passphrase_is_refused(passphrase: bytes) -> None:
    with pytest.raises(WrongPassphrase):
        unlock_keystore(FILE, Secret(passphrase))


@pytest.mark.parametrize(
    "members",
    [
        {"opslimit": 2},
        {"memlimit_bytes": 16384},
        {"salt": "A" * 22 + "=="},
        {"nonce": "A" * 32},
        {"ciphertext": "A" * 64},
        {"ciphertext": ""},
    ],
    ids=["opslimit", "memlimit", "salt", "nonce", "ciphertext", "no-ciphertext"],
)
def test_a_changed_file_does_not_open(members: dict[str, Any]) -> None:
    with pytest.raises(WrongPassphrase):
        unlock_keystore(_changed(**members), PASSPHRASE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        FILE[:-3],
        _changed(format="exchange-keystore/2"),
        _changed(kdf="scrypt"),
        _changed(opslimit=0),
        _changed(opslimit=21),
        _changed(opslimit=2**70),
        _changed(opslimit="1"),
        _changed(memlimit_bytes=8191),
        _changed(memlimit_bytes=2**30 + 1),
        _changed(salt="AAAA"),
        _changed(nonce="AAAA"),
        _changed(salt="not base64"),
        _changed(more=1),
    ],
    ids=[
        "empty",
        "array",
        "not-text",
        "cut-short",
        "other-format",
        "other-kdf",
        "no-passes",
        "too-many-passes",
        "a-great-number",
        "passes-as-text",
        "too-little-memory",
        "too-much-memory",
        "short-salt",
        "short-nonce",
        "salt-not-base64",
        "unknown-member",
    ],
)
def test_a_file_that_is_not_a_keystore_is_refused_before_argon2_runs(data: bytes) -> None:
    with pytest.raises(KeystoreCorrupt):
        unlock_keystore(data, PASSPHRASE)


@pytest.mark.parametrize("cost", [(0, 8192), (21, 8192), (1, 8191), (1, 2**30 + 1)])
def test_nothing_is_locked_that_could_not_be_unlocked(cost: tuple[int, int]) -> None:
    with pytest.raises(KeystoreError):
        lock_keystore(ENTRIES, PASSPHRASE, Argon2Parameters(*cost))


def test_the_file_tells_its_cost_without_the_passphrase() -> None:
    assert cost_of(FILE) == CHEAP
    with pytest.raises(KeystoreCorrupt):
        cost_of(b"{}")


@pytest.mark.parametrize(
    ("cost", "current"),
    [((3, 2**28), True), ((4, 2**29), True), ((2, 2**28), False), ((3, 2**28 - 1), False), ((20, 8192), False)],
)
def test_a_cost_is_current_where_neither_passes_nor_memory_are_less_than_today(
    cost: tuple[int, int], current: bool
) -> None:
    assert Argon2Parameters(*cost).is_current is current


def _two_keys() -> tuple[KeystoreKey, KeystoreKey]:
    return new_keystore_key(PASSPHRASE, CHEAP), new_keystore_key(Secret(b"tr0ub4dor&3"), CHEAP)


def test_a_key_is_passed_on_to_one_who_holds_the_present_one() -> None:
    old, new = _two_keys()
    taken = take_over(pass_on(new, old), new.salt, new.cost, old)
    assert open_with(lock_with(ENTRIES, new), taken) == ENTRIES
    assert new.key.reveal() not in pass_on(new, old)


def test_a_key_is_not_taken_over_from_one_who_does_not_hold_the_present_one() -> None:
    old, new = _two_keys()
    sealed = pass_on(new, old)
    stranger = new_keystore_key(PASSPHRASE, CHEAP)
    for changed in (
        (sealed, new.salt, new.cost, stranger),
        (sealed, old.salt, new.cost, old),
        (sealed, new.salt, Argon2Parameters(2, 8192), old),
        (sealed[:-1], new.salt, new.cost, old),
        (b"", new.salt, new.cost, old),
    ):
        with pytest.raises(WrongPassphrase):
            take_over(*changed)
    with pytest.raises(KeystoreError):
        take_over(sealed, new.salt, Argon2Parameters(21, 8192), old)
