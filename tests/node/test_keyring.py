"""The keyring: from the keystore and the store into memory, and out of it again when an epoch has ended."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.errors import KeystoreCorrupt, RestError, WrongPassphrase
from exchange.crypto.keystore import Argon2Parameters, lock_keystore, unlock_keystore
from exchange.crypto.names import Origin
from exchange.crypto.rest import StoreKey
from exchange.crypto.sealing import open_sealed, seal
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys
from exchange.node.keyring import Keyring, new_keystore, open_keystore

ORIGIN = Origin("exchange.hackney.example")
CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
WORDS = Secret(b"correct horse battery staple")
HOUR_MS = 3_600_000
NAMES = ("signing/ed25519", "signing/ml-dsa-44", "store", "sealing-chain")


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(ORIGIN, SigningKeys.generate(), StoreKey.random())


def test_a_new_keystore_opens_with_its_passphrase_to_the_same_keys_each_time() -> None:
    data = new_keystore(WORDS, CHEAP)
    first, second = (open_keystore(data, WORDS, ORIGIN) for _ in range(2))
    assert first.verifiers == second.verifiers
    assert first.store_key.reveal() == second.store_key.reveal()
    assert first.sealing == {}


def test_no_two_keystores_have_a_key_in_common() -> None:
    first, second = (unlock_keystore(new_keystore(WORDS, CHEAP), WORDS) for _ in range(2))
    assert set(first) == set(second) == {*NAMES}
    assert not {*first.values()} & {*second.values()}
    assert len({*first.values()}) == len(NAMES)


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(WrongPassphrase):
        open_keystore(new_keystore(WORDS, CHEAP), Secret(b"wrong"), ORIGIN)


@pytest.mark.parametrize("missing", NAMES)
def test_a_key_that_is_missing_is_named(missing: str) -> None:
    entries = unlock_keystore(new_keystore(WORDS, CHEAP), WORDS)
    del entries[missing]
    with pytest.raises(KeystoreCorrupt, match=f"lacks the key {missing}$"):
        open_keystore(lock_keystore(entries, WORDS, CHEAP), WORDS, ORIGIN)


@pytest.mark.parametrize("chain", [b"", bytes(39), bytes(41)])
def test_a_chain_that_is_none_is_told(chain: bytes) -> None:
    entries = unlock_keystore(new_keystore(WORDS, CHEAP), WORDS) | {"sealing-chain": chain}
    with pytest.raises(KeystoreCorrupt, match="chain"):
        open_keystore(lock_keystore(entries, WORDS, CHEAP), WORDS, ORIGIN)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format":"exchange-keystore/2"}'])
def test_what_is_no_keystore_is_refused(data: bytes) -> None:
    with pytest.raises(KeystoreCorrupt):
        open_keystore(data, WORDS, ORIGIN)


def test_the_keyring_signs_checkpoints_of_its_node(keyring: Keyring) -> None:
    text = keyring.sign_checkpoint(5, bytes(32), 1_795_449_600)
    found = parse_checkpoint(text, ORIGIN, keyring.verifiers)
    assert (found.origin, found.size, found.root) == (ORIGIN, 5, bytes(32))


def test_a_sealing_key_is_stored_sealed_and_comes_back(keyring: Keyring) -> None:
    row = keyring.new_sealing_key(0, HOUR_MS)
    keyring.load_sealing_keys([row])
    key = keyring.sealing[row.key_id]
    assert open_sealed(key, b"info", seal(key.public, b"info", b"text")) == b"text"
    assert key.seed().reveal() not in row.wrapped_seed
    other = Keyring(ORIGIN, SigningKeys.generate(), StoreKey.random(), keyring.chain)
    other.load_sealing_keys([row])
    assert other.sealing[row.key_id].public.raw == key.public.raw


def test_a_sealing_key_of_another_keystore_is_refused(keyring: Keyring) -> None:
    row = keyring.new_sealing_key(0, HOUR_MS)
    with pytest.raises(RestError):
        Keyring(ORIGIN, SigningKeys.generate(), StoreKey.random()).load_sealing_keys([row])


def test_a_sealing_key_under_the_id_of_another_is_refused(keyring: Keyring) -> None:
    first, second = keyring.new_sealing_key(0, HOUR_MS), keyring.new_sealing_key(0, HOUR_MS)
    swapped = dataclasses.replace(first, wrapped_seed=second.wrapped_seed)
    with pytest.raises(RestError):
        keyring.load_sealing_keys([swapped])


def test_a_key_that_is_no_longer_stored_is_let_go_of(keyring: Keyring) -> None:
    first, second = keyring.new_sealing_key(0, HOUR_MS), keyring.new_sealing_key(1, HOUR_MS)
    keyring.load_sealing_keys([first, second])
    held = keyring.sealing[second.key_id]
    keyring.load_sealing_keys([second])
    assert keyring.sealing == {second.key_id: held}
    assert keyring.epochs == [second]


def test_a_chain_that_has_gone_on_opens_no_earlier_key(keyring: Keyring) -> None:
    rows = []
    for hour in range(3):
        rows.append(keyring.new_sealing_key(hour * HOUR_MS, HOUR_MS))
        keyring.load_sealing_keys(rows)
    assert [row.epoch for row in rows] == [0, 1, 2]
    keyring.destroy_before(1)
    keyring.load_sealing_keys(rows)
    assert keyring.epochs == rows[1:]
    stolen = Keyring(ORIGIN, keyring.signing, keyring.store_key, keyring.chain)
    stolen.load_sealing_keys([dataclasses.replace(rows[1])])
    with pytest.raises(RestError):
        stolen.load_sealing_keys([dataclasses.replace(rows[0], epoch=1)])


def test_what_the_keystore_does_not_keep_is_not_destroyed_in_memory(keyring: Keyring) -> None:
    def fail(_: object) -> None:
        raise OSError("no space left")

    keyring.rewrite = fail
    with pytest.raises(OSError, match="no space"):
        keyring.destroy_before(1)
    assert keyring.chain.epoch == 0


@given(st.lists(st.integers(0, 30), min_size=9, max_size=20), st.integers(0, 30))
def test_of_more_keys_than_a_card_holds_it_names_the_youngest_in_force(starts: list[int], hour: int) -> None:
    keyring = Keyring(ORIGIN, SigningKeys.generate(), StoreKey.random())
    keyring.load_sealing_keys([keyring.new_sealing_key(start * HOUR_MS, 40 * HOUR_MS) for start in starts])
    named = [round(key.not_before.timestamp() / 3600) for key in keyring.card_sealing_keys(hour * HOUR_MS)]
    assert len(named) == 8
    assert named == sorted(named)
    in_force = sorted(start for start in starts if start <= hour)
    assert [start for start in named if start <= hour] == in_force[-8:]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 100)), min_size=1, max_size=4), st.integers(0, 250))
def test_a_card_names_the_keys_whose_epoch_has_not_ended_in_order(epochs: list[tuple[int, int]], hour: int) -> None:
    keyring = Keyring(ORIGIN, SigningKeys.generate(), StoreKey.random())
    rows = [keyring.new_sealing_key(start * HOUR_MS, length * HOUR_MS) for start, length in epochs]
    keyring.load_sealing_keys(reversed(rows))
    named = keyring.card_sealing_keys(hour * HOUR_MS)
    assert len(named) == sum(start + length > hour for start, length in epochs)
    assert [key.not_before for key in named] == sorted(key.not_before for key in named)
    assert all(key.not_after.timestamp() > hour * 3600 for key in named)


def test_a_keyring_shows_no_key(keyring: Keyring) -> None:
    ed25519, mldsa44 = keyring.signing.seeds()
    for secret in (ed25519, mldsa44, keyring.store_key):
        assert secret.reveal().hex() not in repr(vars(keyring))
        assert repr(secret.reveal()) not in repr(vars(keyring))
