"""The number that admins compare."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.number import compare_number, parse_number

ONE, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"hackney", b"enfield"))
FINGERPRINTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_both_sides_see_the_same_number() -> None:
    number = compare_number(ONE, OTHER)

    assert number == compare_number(OTHER, ONE)
    assert len(number) == 12
    assert all(len(group) == 5 and group.isdigit() for group in number)


@settings(max_examples=5, deadline=None)
@given(FINGERPRINTS.filter(lambda value: value not in (ONE, OTHER)))
def test_another_identity_has_another_number(stranger: str) -> None:
    assert compare_number(ONE, stranger) != compare_number(ONE, OTHER)


def test_each_identity_gives_half_of_the_number() -> None:
    third = hashlib.sha256(b"camden").hexdigest()

    assert set(compare_number(ONE, OTHER)) & set(compare_number(ONE, third))


@pytest.mark.parametrize("separator", ["", " ", "-", "\n", " . "])
def test_a_number_is_read_however_it_is_written(separator: str) -> None:
    number = compare_number(ONE, OTHER)

    assert parse_number(separator.join(number)) == number


@pytest.mark.parametrize(
    "text", ["", "12345", "1" * 59, "1" * 61, "1" * 59 + "x", "1" * 59 + "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="60 digits"):
        parse_number(text)


def test_a_number_that_lacks_digits_is_refused_with_how_many_it_has() -> None:
    with pytest.raises(ValueError, match="60 digits, and that has 59"):
        parse_number("1" * 59)
