"""The node's key for webhooks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import SignatureError
from exchange.crypto.secret import Secret
from exchange.crypto.webhook_key import WebhookKey, verify_webhook

KEY = WebhookKey(Secret(bytes(32)))


@given(st.binary(max_size=200))
def test_what_was_signed_verifies(message: bytes) -> None:
    verify_webhook(KEY.public, message, KEY.sign(message))


@given(st.binary(max_size=64), st.integers(0, 511))
def test_no_signature_verifies_with_a_bit_changed(message: bytes, at: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[at // 8] ^= 1 << at % 8
    with pytest.raises(SignatureError):
        verify_webhook(KEY.public, message, bytes(signature))


@given(st.text(max_size=80))
def test_any_text_in_place_of_a_key_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        verify_webhook(text, b"", KEY.sign(b""))


def test_the_key_says_nothing_of_its_seed() -> None:
    assert "00" not in repr(KEY.seed)
    assert WebhookKey.generate().public != WebhookKey.generate().public
