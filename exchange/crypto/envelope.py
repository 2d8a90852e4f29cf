"""Envelopes: everything that one node sends another, padded and sealed whole to the receiver's current sealing key.

Who stands between the two nodes sees a key id that changes with the epoch, and a padded length.
A reply is sealed under a secret that only the envelope's two ends know, freshly salted, since a replayed envelope is
answered again under the same secret. Source: docs/protocol.md, "Envelopes".
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exchange.crypto.errors import EnvelopeError, EnvelopeTooLarge, PaddingError, SealError, UnknownKey, UnknownVersion
from exchange.crypto.names import Origin, SealingKeyId, context
from exchange.crypto.padding import pad, unpad
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey, open_sealed, seal
from exchange.crypto.secret import Secret

MAX_ENVELOPE_BYTES: Final = 16 * 1024 * 1024
MINIMUM_BYTES: Final = 8192
_MAGIC: Final = b"exchange-envelope/1\n"
_HEADER_BYTES: Final = len(_MAGIC) + 16
_REPLY: Final = context("reply")


def _info(recipient: Origin, key_id: SealingKeyId) -> bytes:
    return context("envelope", recipient.encode(), key_id)


def seal_envelope(payload: bytes, recipient: Origin, key: SealingPublicKey) -> bytes:
    """Seal `payload` to the node `recipient`.

    Raises:
        EnvelopeTooLarge: the envelope would be larger than 16 MiB.
    """
    envelope = _MAGIC + key.key_id + seal(key, _info(recipient, key.key_id), pad(payload, MINIMUM_BYTES))
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise EnvelopeTooLarge("the envelope would be larger than 16 MiB")
    return envelope


def envelope_key_id(data: bytes) -> SealingKeyId:
    """The id of the sealing key that an envelope is for.

    Raises:
        EnvelopeTooLarge: more than 16 MiB.
        UnknownVersion: not an envelope of version 1.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeTooLarge("the envelope is larger than 16 MiB")
    if not data.startswith(_MAGIC) or len(data) < _HEADER_BYTES:
        raise UnknownVersion("that is not an envelope of version 1")
    return SealingKeyId(data[len(_MAGIC) : _HEADER_BYTES])


def open_envelope(data: bytes, recipient: Origin, key: SealingPrivateKey) -> bytes:
    """Open an envelope.

    Raises:
        EnvelopeTooLarge: more than 16 MiB.
        UnknownVersion: not an envelope of version 1.
        UnknownKey: for another sealing key.
        EnvelopeError: for another recipient, or altered.
    """
    if envelope_key_id(data) != key.public.key_id:
        raise UnknownKey("the envelope is for another key")
    try:
        padded = open_sealed(key, _info(recipient, key.public.key_id), data[_HEADER_BYTES:])
        return unpad(padded, MINIMUM_BYTES)
    except (SealError, PaddingError):
        raise EnvelopeError("the envelope does not open") from None


def _reply_key(secret: Secret, salt: bytes) -> tuple[AESGCM, bytes]:
    block = HKDF(SHA256(), 44, salt, _REPLY).derive(secret.reveal())
    return AESGCM(block[:32]), block[32:]


def seal_reply(secret: Secret, payload: bytes) -> bytes:
    """Seal the reply to an envelope that carried `secret`."""
    salt = os.urandom(32)
    cipher, nonce = _reply_key(secret, salt)
    return salt + cipher.encrypt(nonce, pad(payload, MINIMUM_BYTES), _REPLY)


def open_reply(secret: Secret, data: bytes) -> bytes:
    """Open the reply to an envelope.

    Raises:
        EnvelopeError: of another envelope, or altered.
    """
    cipher, nonce = _reply_key(secret, data[:32])
    try:
        return unpad(cipher.decrypt(nonce, data[32:], _REPLY), MINIMUM_BYTES)
    except (InvalidTag, ValueError, PaddingError):
        raise EnvelopeError("the reply does not open") from None
