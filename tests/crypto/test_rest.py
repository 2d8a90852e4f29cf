import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import RestError
from exchange.crypto.rest import (
    MessageKey,
    StoreKey,
    open_at_rest,
    seal_at_rest,
    unwrap_message_key,
    wrap_message_key,
)
from tests.crypto.keys import flips

KEY = MessageKey(b"\x44" * 32)
STORE_KEY = StoreKey(b"\x55" * 32)

# draft-irtf-cfrg-xchacha, appendix A.3.1.
KNOWN_KEY = bytes(range(0x80, 0xA0))
KNOWN_NONCE = bytes(range(0x40, 0x58))
KNOWN_AAD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
KNOWN_CIPHERTEXT = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
    "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
    "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52e"
    "c0875924c1c7987947deafd8780acf49"
)
KNOWN_PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: "
    b"If I could offer you only one tip for the future, sunscreen would be it."
)


def test_the_cipher_is_that_of_the_published_vector() -> None:
    assert open_at_rest(StoreKey(KNOWN_KEY), KNOWN_AAD, KNOWN_NONCE + KNOWN_CIPHERTEXT) == KNOWN_PLAINTEXT


@given(st.binary(max_size=500), st.binary(max_size=50))
def test_what_is_sealed_opens(data: bytes, associated_data: bytes) -> None:
    sealed = seal_at_rest(KEY, associated_data, data)

    assert len(sealed) == len(data) + 40
    assert open_at_rest(KEY, associated_data, sealed) == data


def test_every_single_bit_matters() -> None:
    for changed in flips(seal_at_rest(KEY, b"place", b"data")):
        with pytest.raises(RestError):
            open_at_rest(KEY, b"place", changed)


def test_it_opens_under_no_other_key_or_place() -> None:
    sealed = seal_at_rest(KEY, b"place", b"data")

    for key, place in [(MessageKey(b"\x45" * 32), b"place"), (KEY, b"other"), (KEY, b"")]:
        with pytest.raises(RestError):
            open_at_rest(key, place, sealed)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 39, 43])
def test_what_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(RestError):
        open_at_rest(KEY, b"place", seal_at_rest(KEY, b"place", b"data")[:length])


def test_a_wrapped_key_unwraps_for_its_message_alone() -> None:
    wrapped = wrap_message_key(STORE_KEY, KEY, b"message")

    assert unwrap_message_key(STORE_KEY, wrapped, b"message") == KEY
    for store_key, message in [(STORE_KEY, b"another"), (StoreKey(b"\x56" * 32), b"message")]:
        with pytest.raises(RestError):
            unwrap_message_key(store_key, wrapped, message)
