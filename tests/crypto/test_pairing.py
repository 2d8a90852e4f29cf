"""The commitment and the words of pairing."""

import collections
import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.pairing import WORDS, commitment, commitment_holds, word_numbers

FINGERPRINTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NONCES = st.binary(min_size=32, max_size=32)
ONE, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"hackney", b"enfield"))


@given(FINGERPRINTS, NONCES)
def test_a_commitment_holds_for_what_was_committed_to(fingerprint: str, nonce: bytes) -> None:
    assert commitment_holds(commitment(fingerprint, nonce), fingerprint, nonce)


@given(FINGERPRINTS, NONCES, st.integers(0, 511))
def test_a_commitment_holds_for_no_other_identity_or_nonce(fingerprint: str, nonce: bytes, bit: int) -> None:
    made = commitment(fingerprint, nonce)
    both = bytearray(bytes.fromhex(fingerprint) + nonce)
    both[bit // 8] ^= 1 << bit % 8

    assert not commitment_holds(made, both[:32].hex(), bytes(both[32:]))


@given(FINGERPRINTS, NONCES, st.integers(0, 255))
def test_a_changed_commitment_does_not_hold(fingerprint: str, nonce: bytes, bit: int) -> None:
    made = bytearray(commitment(fingerprint, nonce))
    made[bit // 8] ^= 1 << bit % 8

    assert not commitment_holds(bytes(made), fingerprint, nonce)


@pytest.mark.parametrize("nonce", [b"", b"short", bytes(31), bytes(33)])
def test_a_nonce_of_another_length_never_holds(nonce: bytes) -> None:
    assert not commitment_holds(commitment(ONE, nonce), ONE, nonce)


def test_a_commitment_shows_neither_identity_nor_nonce() -> None:
    nonce = os.urandom(32)
    made = commitment(ONE, nonce)

    assert len(made) == 32
    assert made not in (bytes.fromhex(ONE), nonce)
    assert made != hashlib.sha256(bytes.fromhex(ONE) + nonce).digest(), "it is bound to its use"


@given(st.lists(NONCES, min_size=3, max_size=3))
def test_who_is_given_the_same_sees_the_same_words(values: list[bytes]) -> None:
    words = word_numbers(ONE, OTHER, *values)

    assert words == word_numbers(ONE, OTHER, *values)
    assert len(words) == WORDS
    assert all(0 <= word < 2048 for word in words)


@given(st.lists(NONCES, min_size=3, max_size=3), st.integers(0, 4), st.integers(0, 255))
def test_the_words_change_with_every_bit_of_what_was_sent(values: list[bytes], place: int, bit: int) -> None:
    sent = [bytes.fromhex(ONE), bytes.fromhex(OTHER), *values]
    changed = [bytearray(value) for value in sent]
    changed[place][bit // 8] ^= 1 << bit % 8

    # Once in 2^44 they would be the same all the same.
    assert _words(sent) != _words([bytes(value) for value in changed])


@given(NONCES, NONCES)
def test_it_matters_who_begins(ours: bytes, theirs: bytes) -> None:
    assert word_numbers(ONE, OTHER, bytes(32), ours, theirs) != word_numbers(OTHER, ONE, bytes(32), ours, theirs)


def test_every_word_is_as_likely_as_every_other_in_every_place() -> None:
    """Of 4,096 pairings, at each place: 16 buckets of 256 expected; five deviations are as good as never."""
    rounds, buckets = 4096, 16
    for place in range(WORDS):
        counted = collections.Counter(
            word_numbers(ONE, OTHER, bytes(32), n.to_bytes(32, "big"), bytes(32))[place] * buckets // 2048
            for n in range(rounds)
        )
        assert len(counted) == buckets
        assert all(abs(count - rounds / buckets) < 5 * (rounds / buckets) ** 0.5 for count in counted.values())


def _words(sent: list[bytes]) -> tuple[int, ...]:
    initiator, responder, *rest = sent
    return word_numbers(initiator.hex(), responder.hex(), *rest)  # type: ignore[call-arg]
