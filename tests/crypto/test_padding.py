import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import PaddingError
from exchange.crypto.padding import pad, padme, unpad


@pytest.mark.parametrize(
    ("length", "padded"),
    [(0, 0), (1, 1), (2, 2), (8, 8), (9, 10), (17, 18), (33, 36), (100, 104), (1000, 1024), (1025, 1088), (8193, 8704)],
)
def test_padme_lengths(length: int, padded: int) -> None:
    assert padme(length) == padded


@given(st.integers(1, 2**40))
def test_padme_never_shrinks_costs_an_eighth_at_most_and_is_a_fixed_point(length: int) -> None:
    padded = padme(length)

    assert length <= padded <= length * 1.12
    assert padme(padded) == padded


@given(st.binary(max_size=600), st.sampled_from([1, 256]))
def test_what_is_padded_is_unpadded(data: bytes, minimum: int) -> None:
    padded = pad(data, minimum)

    assert len(padded) >= minimum
    assert unpad(padded, minimum) == data


@given(st.binary(max_size=300))
def test_only_what_pad_gives_is_unpadded(padded: bytes) -> None:
    try:
        data = unpad(padded, 16)
    except PaddingError:
        return
    assert pad(data, 16) == padded


@pytest.mark.parametrize(
    "padded",
    [b"", bytes(256), b"x" * 256, b"\x80", b"\x80" + bytes(254), b"\x80" + bytes(256), b"\x80" + bytes(254) + b"\x01"],
    ids=["empty", "no-marker", "no-padding", "short", "one-short", "one-long", "not-zeros"],
)
def test_other_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(PaddingError):
        unpad(padded, 256)
