import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.errors import ParcelError
from exchange.crypto.names import MessageId, Origin, SectionName, context
from exchange.crypto.parcel import open_parcel, seal_parcel
from exchange.crypto.sealing import SealingPrivateKey, seal
from exchange.crypto.secret import Secret
from tests.crypto.keys import (
    ENFIELD,
    HACKNEY,
    HOUSING,
    MESSAGE,
    OTHER_MESSAGE,
    OTHER_SEALING,
    POLICE,
    SEALING,
    flips,
)

SECRETS = {POLICE: Secret(b"\x11" * 32), HOUSING: Secret(b"\x22" * 32)}
PARCEL = seal_parcel(SECRETS, SEALING.public, HACKNEY, ENFIELD, MESSAGE)
names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,79}", fullmatch=True).map(SectionName)


@settings(deadline=None)
@given(st.dictionaries(names, st.binary(min_size=32, max_size=32).map(Secret), max_size=20))
def test_what_is_sealed_opens(secrets: dict[SectionName, Secret]) -> None:
    parcel = seal_parcel(secrets, SEALING.public, HACKNEY, ENFIELD, MESSAGE)

    assert open_parcel(parcel, SEALING, HACKNEY, ENFIELD, MESSAGE) == secrets


@pytest.mark.parametrize(
    ("key", "sender", "recipient", "message"),
    [
        (OTHER_SEALING, HACKNEY, ENFIELD, MESSAGE),
        (SEALING, ENFIELD, ENFIELD, MESSAGE),
        (SEALING, HACKNEY, HACKNEY, MESSAGE),
        (SEALING, ENFIELD, HACKNEY, MESSAGE),
        (SEALING, Origin(HACKNEY + "x"), ENFIELD, MESSAGE),
        (SEALING, HACKNEY, ENFIELD, OTHER_MESSAGE),
    ],
    ids=["key", "sender", "recipient", "turned-round", "longer-origin", "message"],
)
def test_a_parcel_opens_under_no_other_key_message_id_or_origin(
    key: SealingPrivateKey, sender: Origin, recipient: Origin, message: MessageId
) -> None:
    with pytest.raises(ParcelError):
        open_parcel(PARCEL, key, sender, recipient, message)


def test_every_single_bit_of_a_parcel_matters() -> None:
    for changed in flips(PARCEL):
        with pytest.raises(ParcelError):
            open_parcel(changed, SEALING, HACKNEY, ENFIELD, MESSAGE)


@pytest.mark.parametrize("length", [0, 16, 1120, 1135, len(PARCEL) - 1])
def test_a_parcel_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ParcelError):
        open_parcel(PARCEL[:length], SEALING, HACKNEY, ENFIELD, MESSAGE)


def _parcel_of(plaintext: bytes) -> bytes:
    """What a hostile borough seals."""
    key = SEALING.public
    return seal(key, context("parcel", HACKNEY.encode(), ENFIELD.encode(), key.key_id, MESSAGE.encode()), plaintext)


def test_the_order_of_sections_does_not_show() -> None:
    turned = dict(reversed(SECRETS.items()))
    plaintext = b"\x82\xa7housing\xc4\x20" + b"\x22" * 32 + b"\xa6police\xc4\x20" + b"\x11" * 32

    assert len(seal_parcel(turned, SEALING.public, HACKNEY, ENFIELD, MESSAGE)) == len(PARCEL) == len(plaintext) + 1136
    assert open_parcel(_parcel_of(plaintext), SEALING, HACKNEY, ENFIELD, MESSAGE) == SECRETS


A, B = b"\xa1a\xc4\x20" + b"\x01" * 32, b"\xa1b\xc4\x20" + b"\x02" * 32


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x81" + A + b"\x00",
        b"\x82" + B + A,
        b"\x82" + A + A.replace(b"\x01", b"\x02"),
        b"\xde\x00\x01" + A,
        b"\x81\xd9\x01a" + A[2:],
        b"\x81\xa1a\xc4\x1f" + b"\x01" * 31,
        b"\x81\xa1a\xc4\x21" + b"\x01" * 33,
        b"\x81\xa1a\xd9\x20" + b"x" * 32,
        b"\x81\xa1A" + A[2:],
        b"\x81\xa0" + A[2:],
        b"\x81\xc4\x01a" + A[2:],
        b"\x91" + A[2:],
        b"\xdf\xff\xff\xff\xff" + A,
        msgspec.msgpack.encode({"a": None}),
    ],
    ids=[
        "empty",
        "bytes-left-over",
        "not-sorted",
        "a-name-twice",
        "long-map",
        "long-name",
        "short-secret",
        "long-secret",
        "secret-as-text",
        "not-a-section-name",
        "empty-name",
        "name-as-bytes",
        "not-a-map",
        "a-map-that-claims-to-be-huge",
        "no-secret",
    ],
)
def test_a_parcel_has_one_encoding(plaintext: bytes) -> None:
    with pytest.raises(ParcelError):
        open_parcel(_parcel_of(plaintext), SEALING, HACKNEY, ENFIELD, MESSAGE)
