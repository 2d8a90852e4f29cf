"""Sealed sections: one section's content under a one-time key, bound to its message, and committed to.

* Key, nonce and salt come from the section's 32-byte secret by HKDF-SHA256; the secret is never used again.
* AES-256-GCM does not commit to its key; the commitment binds one plaintext to the ciphertext, and a reader that
  does not recompute it has not opened the section.
* Revealing one section's salt and plaintext proves its content to a third party and reveals no other.

Source: docs/protocol.md, "Sections".
"""

import hashlib
import hmac
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exchange.crypto.errors import CommitmentError, PaddingError, SectionError
from exchange.crypto.names import MessageId, Origin, SectionName, context, extend
from exchange.crypto.padding import pad, unpad
from exchange.crypto.secret import Plaintext, Secret

MINIMUM_BYTES: Final = 256
_COMMITMENT: Final = b"exchange/1 commitment\n"
_INFO: Final = context("section")


class SectionContext(NamedTuple):
    """What a sealed section is bound to."""

    message_id: MessageId
    sender: Origin
    recipient: Origin
    name: SectionName

    def associated_data(self) -> bytes:
        """The AEAD's associated data."""
        return extend(_message_context(self.message_id, self.sender, self.recipient), self.name.encode())


@lru_cache(maxsize=64)
def _message_context(*fields: str) -> bytes:
    """What the sections of a message have in common."""
    return context("section", *(field.encode() for field in fields))


class SealedSection(NamedTuple):
    """A sealed section; `sha256` is of the ciphertext."""

    secret: Secret
    ciphertext: bytes
    sha256: bytes
    commitment: bytes


def _derive(secret: Secret) -> tuple[bytes, bytes, bytes]:
    block = HKDF(SHA256(), 76, None, _INFO).derive(secret.reveal())
    return block[:32], block[32:44], block[44:]


def _commit(salt: bytes, padded: bytes) -> bytes:
    return hashlib.sha256(_COMMITMENT + salt + padded).digest()


def seal_section(plaintext: bytes, bound_to: SectionContext, secret: Secret | None = None) -> SealedSection:
    """Seal one section under a fresh secret: one made now, or one under which its attachments were sealed before it."""
    secret = secret or Secret.random()
    key, nonce, salt = _derive(secret)
    padded = pad(plaintext, MINIMUM_BYTES)
    ciphertext = AESGCM(key).encrypt(nonce, padded, bound_to.associated_data())
    return SealedSection(secret, ciphertext, hashlib.sha256(ciphertext).digest(), _commit(salt, padded))


def open_section(ciphertext: bytes, secret: Secret, bound_to: SectionContext, commitment: bytes) -> Plaintext:
    """Open one section and check what its sender committed to.

    Raises:
        SectionError: another secret or context, or an altered ciphertext.
        CommitmentError: it opens to something other than what the manifest commits to.
    """
    key, nonce, salt = _derive(secret)
    try:
        padded = AESGCM(key).decrypt(nonce, ciphertext, bound_to.associated_data())
    except (InvalidTag, ValueError):
        raise SectionError("the section does not open under this secret and context") from None
    if not hmac.compare_digest(_commit(salt, padded), commitment):
        raise CommitmentError("the section is not what its sender committed to")
    try:
        return Plaintext(unpad(padded, MINIMUM_BYTES))
    except PaddingError:
        raise SectionError("the section's padding is not the canonical one") from None
