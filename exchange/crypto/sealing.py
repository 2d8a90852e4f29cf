"""Sealing to a public key: HPKE base mode with X-Wing (RFC 9180; KEM 0x647a, HKDF-SHA256, AES-256-GCM)."""

import hashlib
import os
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from exchange.crypto.errors import SealError
from exchange.crypto.names import SealingKeyId, context
from exchange.crypto.secret import Secret

PUBLIC_KEY_BYTES: Final = 1216
_MLKEM_PUBLIC_BYTES: Final = 1184
_suite: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealingPublicKey:
    """An X-Wing public key: ML-KEM-768 (1184 bytes), then X25519 (32 bytes)."""

    def __init__(self, raw: bytes) -> None:
        """Parse 1216 bytes.

        Raises:
            SealError: they are not a public key.
        """
        self.raw = raw
        self.key_id = SealingKeyId(hashlib.sha256(context("sealing-key", raw)).digest()[:16])
        if len(raw) != PUBLIC_KEY_BYTES:
            raise SealError("a sealing key is 1216 bytes")

    @cached_property
    def key(self) -> MLKEM768X25519PublicKey:
        """The key as `cryptography` has it; parsing it costs more than hashing it."""
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM_PUBLIC_BYTES])
            return MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC_BYTES:]))
        except ValueError:
            raise SealError("that is not a sealing key") from None


class SealingPrivateKey:
    """An X-Wing private key from its 32-byte seed (draft-connolly-cfrg-xwing-kem, section 5.2)."""

    def __init__(self, seed: Secret) -> None:
        """Expand a seed.

        Raises:
            SealError: it is not 32 bytes.
        """
        if len(seed.reveal()) != 32:
            raise SealError("the seed of a sealing key is 32 bytes")
        expanded = hashlib.shake_256(seed.reveal()).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self._seed = seed
        self.key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = SealingPublicKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "SealingPrivateKey":
        """A fresh key."""
        return cls(Secret(os.urandom(32)))

    def seed(self) -> Secret:
        """The seed, for keeping under the store key."""
        return self._seed


def seal(public: SealingPublicKey, info: bytes, plaintext: bytes) -> bytes:
    """HPKE's single-shot seal: `enc || ciphertext`, 1136 bytes longer than `plaintext`.

    Raises:
        SealError: the key is not usable; X25519 refuses points of low order only now.
    """
    try:
        return _suite.encrypt(plaintext, public.key, info)
    except ValueError:
        raise SealError("that is not a sealing key") from None


def open_sealed(private: SealingPrivateKey, info: bytes, data: bytes) -> bytes:
    """HPKE's single-shot open.

    Raises:
        SealError: sealed to another key or context, or altered.
    """
    try:
        return _suite.decrypt(data, private.key, info)
    except (InvalidTag, ValueError):
        raise SealError("this does not open under that key and context") from None
