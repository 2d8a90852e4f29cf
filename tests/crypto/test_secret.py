import copy
import pickle

import pytest

from exchange.crypto.rest import MessageKey, StoreKey
from exchange.crypto.secret import Hidden, Plaintext, Secret, wipe

KINDS = [Secret, Plaintext, StoreKey, MessageKey]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_is_not_printed(kind: type[Hidden]) -> None:
    value = kind(b"marker-bytes")

    for text in (repr(value), str(value), f"{value}", repr([value])):
        assert "marker" not in text
    assert value.reveal() == b"marker-bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_is_neither_hashed_nor_pickled_nor_copied(kind: type[Hidden]) -> None:
    value = kind(b"x")

    for act in (hash, pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            act(value)


def test_secrets_are_equal_by_content_and_kind() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert StoreKey(b"a") != MessageKey(b"a")
    assert Secret(b"a") != b"a"


def test_random_secrets_are_32_bytes_and_differ() -> None:
    first, second = Secret.random(), Secret.random()

    assert len(first.reveal()) == 32
    assert first != second


def test_what_is_wiped_is_overwritten_where_it_lay() -> None:
    value = b"-".join([b"marker", b"bytes"])
    secret = Secret(value)
    secret.wipe()

    assert value == bytes(12)
    with pytest.raises(RuntimeError, match="wiped"):
        secret.reveal()
    secret.wipe()


def test_bytes_that_the_interpreter_shares_are_left_alone() -> None:
    for value in (b"", bytes([120])):
        Secret(value).wipe()

    assert bytes([120]) == b"x"


def test_a_buffer_keeps_its_length_when_it_is_wiped() -> None:
    buffer = bytearray(b"marker")
    wipe(buffer)

    assert buffer == bytes(6)
