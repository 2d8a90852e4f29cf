"""Pairing during one telephone call: a commitment first, then the identities, then the same words on both screens.

The initiator commits to its nonce before it sees the responder's, so a man in the middle must choose what he shows
each side before he can know which words will come out: he gets one guess in 2^44. This is the short authentication
string of Vaudenay (CRYPTO 2005) and of ZRTP (RFC 6189, section 4.5.2).
"""

import hashlib
import hmac
from typing import Final

from exchange.crypto.names import context

NONCE_BYTES: Final = 32
WORDS: Final = 4
_BITS: Final = 11


def commitment(fingerprint: str, nonce: bytes) -> bytes:
    """What the initiator sends first: it binds its identity and its nonce, and shows neither."""
    return hashlib.sha256(context("pairing-commitment", bytes.fromhex(fingerprint), nonce)).digest()


def commitment_holds(value: bytes, fingerprint: str, nonce: bytes) -> bool:
    """Whether a commitment was to that identity and nonce."""
    return len(nonce) == NONCE_BYTES and hmac.compare_digest(value, commitment(fingerprint, nonce))


def word_numbers(
    initiator: str, responder: str, committed: bytes, initiator_nonce: bytes, responder_nonce: bytes
) -> tuple[int, ...]:
    """Which words both admins must see: four numbers below 2048, from all that either side sent.

    `initiator` and `responder` are fingerprints, in 64 hexadecimal digits.
    """
    digest = hashlib.sha256(
        context(
            "pairing-words",
            bytes.fromhex(initiator),
            bytes.fromhex(responder),
            committed,
            initiator_nonce,
            responder_nonce,
        )
    ).digest()
    bits = int.from_bytes(digest, "big") >> (len(digest) * 8 - WORDS * _BITS)
    return tuple(bits >> (_BITS * place) & (1 << _BITS) - 1 for place in reversed(range(WORDS)))
