"""The keyring: from the keystore and the store into memory, and out of it again when an epoch has ended."""

import os

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
from exchange.store.keys import SealingKeyRow

ORIGIN = Origin("exchange.hackney.example")
CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
WORDS = Secret(b"correct horse battery staple")
HOUR_MS = 3_600_000


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
    assert set(first) == set(second) == {"signing/ed25519", "signing/ml-dsa-44", "store"}
    assert not {*first.values()} & {*second.values()}
    assert len({*first.values()}) == 3


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(WrongPassphrase):
        open_keystore(new_keystore(WORDS, CHEAP), Secret(b"wrong"), ORIGIN)


@pytest.mark.parametrize("missing", ["signing/ed25519", "signing/ml-dsa-44", "store"])
def test_a_key_that_is_missing_is_named(missing: str) -> None:
    entries = {name: os.urandom(32) for name in ("signing/ed25519", "signing/ml-dsa-44", "store") if name != missing}
    with pytest.raises(KeystoreCorrupt, match=f"lacks the key {missing}$"):
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
    other = Keyring(ORIGIN, SigningKeys.generate(), keyring.store_key)
    other.load_sealing_keys([row])
    assert other.sealing[row.key_id].public.raw == key.public.raw


def test_a_sealing_key_of_another_keystore_is_refused(keyring: Keyring) -> None:
    row = keyring.new_sealing_key(0, HOUR_MS)
    with pytest.raises(RestError):
        Keyring(ORIGIN, SigningKeys.generate(), StoreKey.random()).load_sealing_keys([row])


def test_a_sealing_key_under_the_id_of_another_is_refused(keyring: Keyring) -> None:
    first, second = keyring.new_sealing_key(0, HOUR_MS), keyring.new_sealing_key(0, HOUR_MS)
    swapped = SealingKeyRow(first.key_id, second.wrapped_seed, 0, HOUR_MS)
    with pytest.raises(RestError):
        keyring.load_sealing_keys([swapped])


def test_a_key_that_is_no_longer_stored_is_let_go_of(keyring: Keyring) -> None:
    first, second = keyring.new_sealing_key(0, HOUR_MS), keyring.new_sealing_key(1, HOUR_MS)
    keyring.load_sealing_keys([first, second])
    held = keyring.sealing[second.key_id]
    keyring.load_sealing_keys([second])
    assert keyring.sealing == {second.key_id: held}
    assert keyring.epochs == [second]


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
