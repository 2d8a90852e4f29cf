import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import StatementError
from exchange.crypto.statement import Statement, encode_statement, leaf_hash, parse_statement

types = st.from_regex(r"[a-z0-9.-]{1,64}", fullmatch=True)


def test_a_statement_is_framed_by_its_lengths() -> None:
    assert encode_statement("receipt", b"body") == b"exchange/1 7 receipt 4 body"


def test_a_leaf_hash_has_the_leaf_prefix() -> None:
    assert leaf_hash(b"x") == hashlib.sha256(b"\x00x").digest()


@given(types, st.binary(max_size=300))
def test_what_is_encoded_is_parsed(kind: str, body: bytes) -> None:
    assert parse_statement(encode_statement(kind, body)) == Statement(kind, body)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"exchange/1 " + tail))
def test_what_is_parsed_has_one_encoding(data: bytes) -> None:
    try:
        statement = parse_statement(data)
    except StatementError:
        return
    assert encode_statement(statement.type, statement.body) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"exchange/1 ",
        b"exchange/2 7 receipt 4 body",
        b"exchange/1 07 receipt 4 body",
        b"exchange/1 +7 receipt 4 body",
        b"exchange/1 6 receipt 4 body",
        b"exchange/1 7 receipt 04 body",
        b"exchange/1 7 receipt 3 body",
        b"exchange/1 7 receipt 5 body",
        b"exchange/1 7 receipt 4 body\n",
        b"exchange/1  7 receipt 4 body",
        b"exchange/1 7 Receipt 4 body",
        b"exchange/1 0  4 body",
        b"exchange/1 7 receipt 00 ",
        b"exchange/1 7 receipt 99999999999 body",
        b" exchange/1 7 receipt 4 body",
    ],
)
def test_another_framing_is_refused(data: bytes) -> None:
    with pytest.raises(StatementError):
        parse_statement(data)


@pytest.mark.parametrize("kind", ["", "A", "a b", "a" * 65, "caf\u00e9", "a\n"])
def test_a_type_outside_its_alphabet_is_refused(kind: str) -> None:
    with pytest.raises(StatementError):
        encode_statement(kind, b"")
