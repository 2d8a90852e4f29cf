"""Content at rest: XChaCha20-Poly1305 under a per-message key, which the keystore's store key wraps.

The associated data names what the bytes are and where they belong, so rows cannot be swapped.
Deleting a message's wrapped key erases everything that was sealed under it.
"""

import os
from typing import Final

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt
from nacl.exceptions import CryptoError as NaclError

from exchange.crypto.errors import RestError
from exchange.crypto.names import context
from exchange.crypto.secret import Secret

_NONCE_BYTES: Final = 24


class StoreKey(Secret):
    """The keystore's key to everything in the store."""


class MessageKey(Secret):
    """The key to one message's content."""


class EpochKey(Secret):
    """The key to one epoch's sealing key; `chain` gives it."""


class FileKey(Secret):
    """The key to a file that a passphrase opens; Argon2id gives it."""


def seal_at_rest(key: StoreKey | MessageKey | EpochKey | FileKey, associated_data: bytes, data: bytes) -> bytes:
    """`nonce || ciphertext` of `data`."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(data, associated_data, nonce, key.reveal())


def open_at_rest(key: StoreKey | MessageKey | EpochKey | FileKey, associated_data: bytes, sealed: bytes) -> bytes:
    """Open what `seal_at_rest` sealed.

    Raises:
        RestError: another key or place, or altered.
    """
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated_data, nonce, key.reveal())
    except (NaclError, ValueError):
        raise RestError("something in the store does not open") from None


def wrap_message_key(store_key: StoreKey, key: MessageKey, message: bytes) -> bytes:
    """Wrap a message's key; `message` names the message."""
    return seal_at_rest(store_key, context("message-key", message), key.reveal())


def unwrap_message_key(store_key: StoreKey, wrapped: bytes, message: bytes) -> MessageKey:
    """Unwrap a message's key.

    Raises:
        RestError: another store key or message, or altered.
    """
    return MessageKey(open_at_rest(store_key, context("message-key", message), wrapped))
