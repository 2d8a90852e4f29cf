"""Padding that hides lengths: PADMÉ lengths, filled as in ISO/IEC 7816-4.

Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", section 4.
"""

from exchange.crypto.errors import PaddingError


def padme(length: int) -> int:
    """The PADMÉ length for `length`: at most 12 % longer, and one of few."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (length + mask) & ~mask


def pad(data: bytes, minimum: int) -> bytes:
    """`data`, 0x80, then zeros up to a PADMÉ length of at least `minimum`."""
    total = padme(max(len(data) + 1, minimum))
    return data + b"\x80" + bytes(total - len(data) - 1)


def unpad(padded: bytes, minimum: int) -> bytes:
    """The data within `padded`.

    Raises:
        PaddingError: this is not what `pad` gives for any data.
    """
    data = padded.rstrip(b"\x00")
    if not data.endswith(b"\x80") or len(padded) != padme(max(len(data), minimum)):
        raise PaddingError("the padding is not the canonical one")
    return data[:-1]
