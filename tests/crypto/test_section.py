import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import CommitmentError, SectionError
from exchange.crypto.padding import pad, unpad
from exchange.crypto.secret import Plaintext, Secret
from exchange.crypto.section import SealedSection, SectionContext, open_section, seal_section
from tests.crypto.keys import CONTEXT, ENFIELD, HACKNEY, OTHER_MESSAGE, POLICE, flips

SEALED = seal_section(b"content", CONTEXT)


def _keys(secret: Secret) -> tuple[bytes, bytes, bytes]:
    """Derived as docs/protocol.md has it."""
    block = HKDF(SHA256(), 76, b"", b"exchange/1 section\n").derive(secret.reveal())
    return block[:32], block[32:44], block[44:]


def _sealed_over(padded: bytes) -> SealedSection:
    """What a sender makes who does not pad as the protocol says."""
    secret = Secret.random()
    key, nonce, salt = _keys(secret)
    ciphertext = AESGCM(key).encrypt(nonce, padded, CONTEXT.associated_data())
    commitment = hashlib.sha256(b"exchange/1 commitment\n" + salt + padded).digest()
    return SealedSection(secret, ciphertext, hashlib.sha256(ciphertext).digest(), commitment)


@given(st.binary(max_size=2000))
def test_what_is_sealed_opens(content: bytes) -> None:
    sealed = seal_section(content, CONTEXT)

    assert open_section(sealed.ciphertext, sealed.secret, CONTEXT, sealed.commitment) == Plaintext(content)
    assert sealed.sha256 == hashlib.sha256(sealed.ciphertext).digest()


def test_a_section_is_made_as_the_protocol_says() -> None:
    key, nonce, salt = _keys(SEALED.secret)
    padded = AESGCM(key).decrypt(nonce, SEALED.ciphertext, CONTEXT.associated_data())

    assert padded == b"content\x80" + bytes(248)
    assert SEALED.commitment == hashlib.sha256(b"exchange/1 commitment\n" + salt + padded).digest()


def test_short_sections_are_of_one_length() -> None:
    assert {len(seal_section(bytes(length), CONTEXT).ciphertext) for length in range(256)} == {256 + 16}


def test_each_section_has_a_secret_of_its_own() -> None:
    other = seal_section(b"content", CONTEXT)

    assert other.secret != SEALED.secret
    assert other.commitment != SEALED.commitment


@pytest.mark.parametrize(
    "other",
    [
        CONTEXT._replace(message_id=OTHER_MESSAGE),
        CONTEXT._replace(sender=ENFIELD),
        CONTEXT._replace(recipient=HACKNEY),
        CONTEXT._replace(name=POLICE),
        SectionContext(CONTEXT.message_id, CONTEXT.recipient, CONTEXT.sender, CONTEXT.name),
    ],
    ids=["message", "sender", "recipient", "name", "turned-round"],
)
def test_a_section_opens_in_no_other_context(other: SectionContext) -> None:
    with pytest.raises(SectionError):
        open_section(SEALED.ciphertext, SEALED.secret, other, SEALED.commitment)


def test_a_section_opens_under_no_other_secret() -> None:
    for secret in (Secret.random(), Secret(b""), Secret(SEALED.secret.reveal()[:31])):
        with pytest.raises(SectionError):
            open_section(SEALED.ciphertext, secret, CONTEXT, SEALED.commitment)


def test_every_single_bit_of_a_section_matters() -> None:
    for changed in flips(SEALED.ciphertext):
        with pytest.raises(SectionError):
            open_section(changed, SEALED.secret, CONTEXT, SEALED.commitment)


def test_a_section_that_is_cut_short_is_refused() -> None:
    for length in (0, 15, 16, 255, len(SEALED.ciphertext) - 1):
        with pytest.raises(SectionError):
            open_section(SEALED.ciphertext[:length], SEALED.secret, CONTEXT, SEALED.commitment)


def test_every_single_bit_of_a_commitment_matters() -> None:
    for changed in [*flips(SEALED.commitment), b"", SEALED.commitment[:31], SEALED.commitment + b"\x00"]:
        with pytest.raises(CommitmentError):
            open_section(SEALED.ciphertext, SEALED.secret, CONTEXT, changed)


def test_a_ciphertext_that_opens_to_another_text_breaks_the_commitment() -> None:
    # The same secret, another content: what a sender would make who shows two readers two texts.
    key, nonce, _ = _keys(SEALED.secret)
    ciphertext = AESGCM(key).encrypt(nonce, pad(b"another", 256), CONTEXT.associated_data())

    with pytest.raises(CommitmentError):
        open_section(ciphertext, SEALED.secret, CONTEXT, SEALED.commitment)


def test_padding_that_is_not_canonical_is_refused_though_committed_to() -> None:
    for padded in (b"content", b"content\x80" + bytes(249), b"content\x80" + bytes(1016), bytes(256)):
        sealed = _sealed_over(padded)
        with pytest.raises(SectionError):
            open_section(sealed.ciphertext, sealed.secret, CONTEXT, sealed.commitment)


def test_a_commitment_reveals_one_section_to_a_third_party() -> None:
    _, _, salt = _keys(SEALED.secret)
    padded = pad(b"content", 256)

    assert hashlib.sha256(b"exchange/1 commitment\n" + salt + padded).digest() == SEALED.commitment
    assert unpad(padded, 256) == b"content"
