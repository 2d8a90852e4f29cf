import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import NameInvalid
from exchange.crypto.names import context, new_message_id, parse_message_id, parse_origin, parse_section_name

fields = st.lists(st.binary(max_size=40), max_size=5)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "exchange.hackney.gov.uk",
        "localhost:7401",
        "xn--hckney-dua.example",
        "example.org/borough/hackney",
        "a/~b._-",
        "a" * 63 + "." + "b" * 63,
    ],
)
def test_an_origin_is_a_schema_less_url(text: str) -> None:
    assert parse_origin(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://a.example",
        "A.example",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a b",
        "a\n",
        "a+b",
        "a:0",
        "a:",
        "a:080",
        "a/",
        "a//b",
        "a?b",
        "a#b",
        "user@a",
        "hackn\u00e9y",
        "\u0430.example",  # Cyrillic
        "a:\u0661",  # a digit, but not an ASCII one
        ".".join(["a" * 60] * 4),
    ],
)
def test_what_is_not_an_origin_is_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        parse_origin(text)


def test_a_new_message_id_is_a_message_id() -> None:
    assert parse_message_id(new_message_id(0))


@given(first=st.integers(0, 2**48 - 1), second=st.integers(0, 2**48 - 1))
def test_message_ids_stand_in_the_order_of_their_times(first: int, second: int) -> None:
    one, other = (uuid.UUID(new_message_id(at_ms)) for at_ms in (first, second))
    assert (one.version, one.variant, one.int >> 80) == (7, uuid.RFC_4122, first)
    assert first == second or (one < other) == (first < second)
    assert one != other


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0b7f4a529c1e4d0e8f642f7f3c1d9a10",
        "0B7F4A52-9c1e-4d0e-8f64-2f7f3c1d9a10",
        "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10\n",
        "{0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10}",
    ],
)
def test_a_message_id_has_one_spelling(text: str) -> None:
    with pytest.raises(NameInvalid):
        parse_message_id(text)


@pytest.mark.parametrize("text", ["", "-a", ".a", "A", "a_b", "a b", "a\n", "a" * 81])
def test_what_is_not_a_section_name_is_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        parse_section_name(text)


def test_a_section_name_may_have_dots_and_hyphens() -> None:
    assert parse_section_name("injunction.3-b") == "injunction.3-b"


def test_a_context_is_label_and_length_prefixed_fields() -> None:
    assert context("parcel", b"ab", b"") == b"exchange/1 parcel\n\x00\x00\x00\x02ab\x00\x00\x00\x00"


@given(fields, fields)
def test_different_fields_never_give_one_context(first: list[bytes], second: list[bytes]) -> None:
    assert (context("x", *first) == context("x", *second)) == (first == second)
