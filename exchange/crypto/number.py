"""The number that two admins compare by telephone: the same on both sides, for their two identities alone.

Each identity gives 30 digits, by a slow hash of its fingerprint, so that a look-alike is costly to search for; the
halves stand in the order of the fingerprints. The shape is that of Signal's safety numbers
(https://signal.org/docs/specifications), with Argon2id (RFC 9106) as the slow hash.
"""

import hashlib
from typing import Final

from nacl.pwhash import argon2id

from exchange.crypto.names import context

GROUPS: Final = 12
_OPSLIMIT: Final = 4
_MEMLIMIT_BYTES: Final = 64 * 1024 * 1024
_SALT: Final = hashlib.sha256(context("number")).digest()[:16]


def compare_number(one: str, other: str) -> tuple[str, ...]:
    """The number of two identities, given by their fingerprints (64 hexadecimal digits): 12 groups of 5 digits.

    It does not matter which of the two is one's own. It takes some tenths of a second and 64 MiB.
    """
    return tuple(group for fingerprint in sorted((one, other)) for group in _half(fingerprint))


def parse_number(text: str) -> tuple[str, ...]:
    """The groups of a number as a person wrote it: spaces and other separators do not matter.

    Raises:
        ValueError: it has not 60 digits.
    """
    digits = "".join(character for character in text if character not in " -.,\t\r\n")
    if len(digits) != 5 * GROUPS or not (digits.isascii() and digits.isdigit()):
        has = f"that has {len(digits)}" if digits.isascii() and digits.isdigit() else "that holds other characters"
        raise ValueError(f"a number to compare has 60 digits, and {has}")
    return tuple(digits[start : start + 5] for start in range(0, len(digits), 5))


def _half(fingerprint: str) -> list[str]:
    size_bytes = 5 * GROUPS // 2
    slow = argon2id.kdf(size_bytes, bytes.fromhex(fingerprint), _SALT, _OPSLIMIT, _MEMLIMIT_BYTES)
    return [f"{int.from_bytes(slow[start : start + 5], 'big') % 100_000:05}" for start in range(0, size_bytes, 5)]
