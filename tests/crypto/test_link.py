"""Tokens of links: the same for a key and an id, another for any other; and only what can be one has a digest."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.link import link_digest, link_token
from exchange.crypto.rest import StoreKey


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.text(), st.text())
def test_a_token_follows_from_key_and_id_alone(one: bytes, other: bytes, first: str, second: str) -> None:
    token = link_token(StoreKey(one), first)
    assert link_digest(token) == hashlib.sha256(token.encode()).digest()
    again = link_token(StoreKey(other), second)
    assert (token == again) == ((one, first) == (other, second))


@given(st.text())
def test_what_can_be_no_token_has_no_digest(text: str) -> None:
    assert link_digest(text) is None
    assert link_digest(f"exlk_{text[:20]}") is None
