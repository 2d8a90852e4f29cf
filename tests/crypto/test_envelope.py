import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.envelope import (
    MAX_ENVELOPE_BYTES,
    envelope_key_id,
    open_envelope,
    open_reply,
    seal_envelope,
    seal_reply,
)
from exchange.crypto.errors import EnvelopeError, EnvelopeTooLarge, UnknownKey, UnknownVersion
from exchange.crypto.names import context
from exchange.crypto.sealing import seal
from exchange.crypto.secret import Secret
from tests.crypto.keys import ENFIELD, HACKNEY, OTHER_SEALING, SEALING, flips

MAGIC = b"exchange-envelope/1\n"
ENVELOPE = seal_envelope(b"payload", ENFIELD, SEALING.public)
HEADER_BYTES, ENC_BYTES, TAG_BYTES = 36, 1120, 16
SECRET = Secret(b"\x33" * 32)
REPLY = seal_reply(SECRET, b"payload")


@settings(deadline=None)
@given(st.binary(max_size=20_000))
def test_what_is_sealed_opens(payload: bytes) -> None:
    envelope = seal_envelope(payload, ENFIELD, SEALING.public)

    assert envelope_key_id(envelope) == SEALING.public.key_id
    assert open_envelope(envelope, ENFIELD, SEALING) == payload


def test_an_envelope_shows_magic_key_id_and_a_padded_length() -> None:
    assert ENVELOPE.startswith(MAGIC + SEALING.public.key_id)
    assert len(ENVELOPE) == HEADER_BYTES + ENC_BYTES + 8192 + TAG_BYTES
    assert len(seal_envelope(bytes(8191), ENFIELD, SEALING.public)) == len(ENVELOPE)
    assert len(seal_envelope(bytes(8192), ENFIELD, SEALING.public)) == len(ENVELOPE) + 512


def test_every_single_bit_of_header_encapsulation_and_tag_matters() -> None:
    ends = [*range(HEADER_BYTES + ENC_BYTES), *range(len(ENVELOPE) - TAG_BYTES, len(ENVELOPE))]

    for changed in flips(ENVELOPE, ends):
        with pytest.raises(EnvelopeError):
            open_envelope(changed, ENFIELD, SEALING)


def test_every_byte_of_the_ciphertext_matters() -> None:
    for at in range(HEADER_BYTES + ENC_BYTES, len(ENVELOPE) - TAG_BYTES):
        changed = bytearray(ENVELOPE)
        changed[at] ^= 1 << at % 8
        with pytest.raises(EnvelopeError):
            open_envelope(bytes(changed), ENFIELD, SEALING)


@pytest.mark.slow
def test_every_single_bit_of_an_envelope_matters() -> None:
    for at in range(len(ENVELOPE)):
        for changed in flips(ENVELOPE, [at]):
            with pytest.raises(EnvelopeError):
                open_envelope(changed, ENFIELD, SEALING)


@pytest.mark.parametrize("length", [0, 1, 20, 35, 36, 37, 1156, 1172, len(ENVELOPE) - 1])
def test_an_envelope_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(ENVELOPE[:length], ENFIELD, SEALING)


def test_an_envelope_with_more_at_its_end_is_refused() -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(ENVELOPE + b"\x00", ENFIELD, SEALING)


def test_an_envelope_opens_for_no_other_recipient() -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(ENVELOPE, HACKNEY, SEALING)


def test_an_envelope_opens_under_no_other_key() -> None:
    with pytest.raises(UnknownKey):
        open_envelope(ENVELOPE, ENFIELD, OTHER_SEALING)
    renamed = MAGIC + OTHER_SEALING.public.key_id + ENVELOPE[HEADER_BYTES:]
    with pytest.raises(EnvelopeError):
        open_envelope(renamed, ENFIELD, OTHER_SEALING)


@pytest.mark.parametrize(
    "data",
    [b"", MAGIC, MAGIC + bytes(15), b"exchange-envelope/2\n" + bytes(2000), b"{}", ENVELOPE[1:]],
    ids=["empty", "magic-alone", "short-key-id", "version-2", "json", "first-byte-gone"],
)
def test_another_version_is_told_apart(data: bytes) -> None:
    with pytest.raises(UnknownVersion):
        envelope_key_id(data)


def test_an_envelope_that_is_too_large_is_neither_sealed_nor_looked_at() -> None:
    with pytest.raises(EnvelopeTooLarge):
        seal_envelope(bytes(MAX_ENVELOPE_BYTES), ENFIELD, SEALING.public)
    with pytest.raises(EnvelopeTooLarge):
        open_envelope(bytes(MAX_ENVELOPE_BYTES + 1), ENFIELD, SEALING)


def test_an_envelope_that_is_not_padded_as_the_protocol_says_is_refused() -> None:
    info = context("envelope", ENFIELD.encode(), SEALING.public.key_id)
    for padded in (b"payload", b"payload\x80", b"payload\x80" + bytes(8185), bytes(8192)):
        envelope = MAGIC + SEALING.public.key_id + seal(SEALING.public, info, padded)
        with pytest.raises(EnvelopeError):
            open_envelope(envelope, ENFIELD, SEALING)


@given(st.binary(max_size=20_000))
def test_a_reply_opens(payload: bytes) -> None:
    assert open_reply(SECRET, seal_reply(SECRET, payload)) == payload


def test_replies_under_one_secret_are_salted_apart() -> None:
    # A replayed envelope is answered again under its secret: the nonce must not be used twice.
    other = seal_reply(SECRET, b"payload")

    assert other[:32] != REPLY[:32]
    assert other[32:] != REPLY[32:]
    assert len(other) == 32 + 8192 + 16


def test_a_reply_opens_under_no_other_secret() -> None:
    with pytest.raises(EnvelopeError):
        open_reply(Secret.random(), REPLY)


def test_every_single_bit_of_a_reply_matters() -> None:
    for changed in flips(REPLY, [*range(64), *range(64, len(REPLY), 97), *range(len(REPLY) - 16, len(REPLY))]):
        with pytest.raises(EnvelopeError):
            open_reply(SECRET, changed)


@pytest.mark.parametrize("length", [0, 31, 32, 47, 48, len(REPLY) - 1])
def test_a_reply_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(EnvelopeError):
        open_reply(SECRET, REPLY[:length])
