"""The node's key for webhooks."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import SignatureError
from exchange.crypto.secret import Secret
from exchange.crypto.webhook_key import PUBLIC_PREFIX, WebhookKey, verify_v1a

KEY = WebhookKey(Secret(bytes(32)))
PUBLIC = base64.b64decode(KEY.public.removeprefix(PUBLIC_PREFIX))


@given(st.binary(max_size=200))
def test_what_was_signed_verifies(message: bytes) -> None:
    verify_v1a(PUBLIC, message, KEY.sign(message))


@given(st.binary(max_size=64), st.integers(0, 511))
def test_no_signature_verifies_with_a_bit_changed(message: bytes, at: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[at // 8] ^= 1 << at % 8
    with pytest.raises(SignatureError):
        verify_v1a(PUBLIC, message, bytes(signature))


@given(st.binary(max_size=80).filter(lambda data: data != PUBLIC))
def test_any_bytes_in_place_of_the_key_are_refused(data: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_v1a(data, b"", KEY.sign(b""))


def test_the_key_says_nothing_of_its_seed() -> None:
    assert "00" not in repr(KEY.seed)
    assert WebhookKey.generate().public != WebhookKey.generate().public
