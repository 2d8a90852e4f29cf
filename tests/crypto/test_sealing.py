"""Sealing, against the published HPKE vectors.

The published ones for this KEM use ChaCha20-Poly1305; those for AES-256-GCM use another KEM. Between them they cover
each part of the suite.
"""

import json
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import SealError
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey, open_sealed, seal
from exchange.crypto.secret import Secret
from tests.crypto.keys import OTHER_SEALING, SEALING, flips

_VECTORS = Path(cryptography_vectors.__file__).parent / "HPKE"
_AEADS = {1: AEAD.AES_128_GCM, 2: AEAD.AES_256_GCM, 3: AEAD.CHACHA20_POLY1305}


def _cases(file: str, kem: int) -> list[dict[str, Any]]:
    """Base mode, HKDF-SHA256, and an AEAD that encrypts."""
    found = json.loads((_VECTORS / file).read_text())
    return [
        case for case in found if (case["mode"], case["kem_id"], case["kdf_id"]) == (0, kem, 1) and case["aead_id"] < 4
    ]


PQ_CASES = _cases("hpke-pq-test-vectors.json", 0x647A)
X25519_CASES = _cases("test-vectors.json", 0x20)


def _open(case: dict[str, Any], kem: KEM, key: Any) -> None:
    # The public single-shot call takes no associated data, which the published vectors have.
    first = case["encryptions"][0]
    sealed, info, aad = (bytes.fromhex(text) for text in (case["enc"] + first["ct"], case["info"], first["aad"]))
    suite = Suite(kem, KDF.HKDF_SHA256, _AEADS[case["aead_id"]])
    assert openssl.hpke._decrypt_with_aad(suite, sealed, key, info, aad).hex() == first["pt"]


@pytest.mark.parametrize("case", PQ_CASES, ids=lambda case: f"aead-{case['aead_id']}")
def test_a_seed_expands_to_the_published_key_which_opens_what_was_sealed_to_it(case: dict[str, Any]) -> None:
    key = SealingPrivateKey(Secret(bytes.fromhex(case["skRm"])))

    assert key.public.raw.hex() == case["pkRm"]
    _open(case, KEM.MLKEM768_X25519, key.key)


@pytest.mark.parametrize("case", X25519_CASES, ids=lambda case: f"aead-{case['aead_id']}")
def test_hpke_is_that_of_rfc_9180(case: dict[str, Any]) -> None:
    _open(case, KEM.X25519, X25519PrivateKey.from_private_bytes(bytes.fromhex(case["skRm"])))


def test_there_are_published_vectors() -> None:
    assert PQ_CASES
    assert {case["aead_id"] for case in X25519_CASES} == {1, 2, 3}


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_is_sealed_opens(plaintext: bytes, info: bytes) -> None:
    sealed = seal(SEALING.public, info, plaintext)

    assert len(sealed) == len(plaintext) + 1136
    assert open_sealed(SEALING, info, sealed) == plaintext


def test_sealing_twice_gives_two_ciphertexts() -> None:
    assert seal(SEALING.public, b"", b"x") != seal(SEALING.public, b"", b"x")


def test_it_opens_under_no_other_key_or_info() -> None:
    sealed = seal(SEALING.public, b"info", b"x")

    for key, info in [(OTHER_SEALING, b"info"), (SEALING, b"inf"), (SEALING, b"")]:
        with pytest.raises(SealError):
            open_sealed(key, info, sealed)


def test_every_single_bit_matters() -> None:
    for changed in flips(seal(SEALING.public, b"", b"x")):
        with pytest.raises(SealError):
            open_sealed(SEALING, b"", changed)


def test_what_is_cut_short_is_refused() -> None:
    sealed = seal(SEALING.public, b"", b"x")

    for length in (0, 1, 1088, 1119, 1120, 1135, 1136):
        with pytest.raises(SealError):
            open_sealed(SEALING, b"", sealed[:length])


def test_a_key_is_the_same_from_its_seed() -> None:
    key = SealingPrivateKey.generate()

    assert SealingPrivateKey(key.seed()).public.raw == key.public.raw
    assert len(key.public.key_id) == 16
    assert SealingPublicKey(key.public.raw).key_id == key.public.key_id != SEALING.public.key_id


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SealError):
        SealingPrivateKey(Secret(bytes(length)))


RAW = SEALING.public.raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        RAW[:-1],
        RAW + b"\x00",
        b"\xff" * 1184 + RAW[1184:],
        RAW[:1184] + bytes(32),
        RAW[:1184] + b"\x01" + bytes(31),
    ],
    ids=["empty", "short", "long", "coefficients-not-reduced", "x25519-zero", "x25519-of-low-order"],
)
def test_nothing_is_sealed_to_what_is_no_key(raw: bytes) -> None:
    with pytest.raises(SealError):
        seal(SealingPublicKey(raw), b"", b"x")


def test_an_encapsulation_of_low_order_is_refused() -> None:
    sealed = seal(SEALING.public, b"", b"x")

    with pytest.raises(SealError):
        open_sealed(SEALING, b"", sealed[:1088] + bytes(32) + sealed[1120:])
