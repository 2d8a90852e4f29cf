"""Signing keys, against RFC 8032 and the published ML-DSA-44 vectors."""

import re
from collections.abc import Callable
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from exchange.crypto.errors import NameInvalid, SignatureError
from exchange.crypto.note import ED25519, MLDSA44_COSIGNATURE, VerifierKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import (
    SigningKeys,
    cosigned_message,
    fingerprint,
    format_fingerprint,
    parse_fingerprint,
    verify_ed25519,
    verify_mldsa44,
)
from tests.crypto.keys import ENFIELD, HACKNEY, OTHER_SIGNING, SIGNING, VERIFIERS

_MLDSA = Path(cryptography_vectors.__file__).parent / "asymmetric/MLDSA/kat_MLDSA_44_det_pure.rsp"
MLDSA_CASES = [
    {
        name: bytes.fromhex(value)
        for name, value in re.findall(r"^(xi|pk|msg|sm|ctx) = ([0-9a-f]*)$", block, re.MULTILINE)
    }
    for block in re.split(r"^count = ", _MLDSA.read_text(), flags=re.MULTILINE)[1:]
]

# RFC 8032 section 7.1, tests 1 to 3: seed, public key, message, signature.
ED25519_CASES = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), ED25519_CASES)
def test_ed25519_is_that_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    keys = SigningKeys(Secret(bytes.fromhex(seed)), Secret(bytes(32)))
    key = keys.verifiers(HACKNEY)[0]

    assert key.public.hex() == public
    verify_ed25519(key, bytes.fromhex(signature), bytes.fromhex(message))


def test_mldsa44_keys_are_those_of_the_published_vectors() -> None:
    assert len(MLDSA_CASES) >= 100
    for case in MLDSA_CASES:
        keys = SigningKeys(Secret(bytes(32)), Secret(case["xi"]))
        assert keys.verifiers(HACKNEY)[1].public == case["pk"]


def test_mldsa44_verifies_the_published_signatures_and_no_other_context() -> None:
    for case in MLDSA_CASES:
        key = VerifierKey(HACKNEY, MLDSA44_COSIGNATURE, case["pk"])
        signature, context = case["sm"][:2420], case.get("ctx", b"")
        MLDSA44PublicKey.from_public_bytes(case["pk"]).verify(signature, case["msg"], context)
        if context:
            # The exchange signs without a context; a signature made for another protocol must not count.
            with pytest.raises(SignatureError):
                verify_mldsa44(key, signature, case["msg"])
        else:
            verify_mldsa44(key, signature, case["msg"])


def test_the_cosigned_message_is_laid_out_as_c2sp_says() -> None:
    message = cosigned_message(HACKNEY, 0x0102, 0x0304, b"\xaa" * 32)

    name = bytes([24]) + b"exchange.hackney.example"
    assert message == (
        b"subtree/v1\n\x00"
        + name
        + b"\x00" * 6
        + b"\x01\x02"
        + name
        + bytes(8)
        + b"\x00" * 6
        + b"\x03\x04"
        + b"\xaa" * 32
    )


@pytest.mark.parametrize(
    ("verify", "size", "public"),
    [(verify_ed25519, 64, 32), (verify_mldsa44, 2420, 1312)],
    ids=["ed25519", "ml-dsa-44"],
)
def test_what_is_no_signature_is_refused(
    verify: Callable[[VerifierKey, bytes, bytes], None], size: int, public: int
) -> None:
    key = VerifierKey(HACKNEY, ED25519 if public == 32 else MLDSA44_COSIGNATURE, bytes(public))

    for length in (0, 1, size - 1, size, size + 1):
        with pytest.raises(SignatureError):
            verify(key, bytes(length), b"message")


def test_keys_are_the_same_from_the_same_seeds() -> None:
    generated = SigningKeys.generate()

    assert SigningKeys(*generated.seeds()).verifiers(HACKNEY) == generated.verifiers(HACKNEY)
    assert SigningKeys.generate().verifiers(HACKNEY) != generated.verifiers(HACKNEY)


def test_a_fingerprint_is_of_the_origin_and_both_keys() -> None:
    first, second = VERIFIERS
    other_first, other_second = OTHER_SIGNING.verifiers(HACKNEY)
    found = {
        fingerprint(HACKNEY, (first, second)),
        fingerprint(HACKNEY, (other_first, second)),
        fingerprint(HACKNEY, (first, other_second)),
        fingerprint(ENFIELD, SIGNING.verifiers(ENFIELD)),
        fingerprint(ENFIELD, (first, second)),
    }

    assert len(found) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in found)


def test_a_fingerprint_is_read_as_people_type_it() -> None:
    value = fingerprint(HACKNEY, VERIFIERS)
    grouped = format_fingerprint(value)

    assert grouped.count(" ") == 15
    for text in (value, grouped, value.upper(), grouped.replace(" ", ":"), f" {grouped.replace(' ', '-')}\n"):
        assert parse_fingerprint(text) == value


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "\u0660" * 64])
def test_what_is_not_a_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(NameInvalid) as refused:
        parse_fingerprint(text)
    assert "16 groups" in refused.value.hint


def test_a_fingerprint_that_lacks_digits_is_refused_with_how_many_it_has() -> None:
    with pytest.raises(NameInvalid, match="64 hexadecimal digits, and that has 63"):
        parse_fingerprint("0" * 63)
