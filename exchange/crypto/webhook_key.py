"""The node's key for webhooks: Ed25519 (PyNaCl), as Standard Webhooks has it for `v1a`.

It signs webhooks alone. The keys that sign the log are the node's identity; this one is not, and may be lost.
"""

import base64
import os
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from exchange.crypto.errors import SignatureError
from exchange.crypto.secret import Secret

PUBLIC_PREFIX: Final = "whpk_"


class WebhookKey:
    """The private key, from a 32-byte seed."""

    __slots__ = ("_key", "seed")

    def __init__(self, seed: Secret) -> None:
        self.seed = seed
        self._key = SigningKey(seed.reveal())

    @classmethod
    def generate(cls) -> "WebhookKey":
        """A fresh key."""
        return cls(Secret(os.urandom(32)))

    @property
    def public(self) -> str:
        """The public half, as Standard Webhooks writes it."""
        return PUBLIC_PREFIX + base64.b64encode(bytes(self._key.verify_key)).decode()

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`."""
        return self._key.sign(message).signature


def verify_v1a(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature by the node whose public key, 32 bytes, is given.

    Raises:
        SignatureError: it is not one, or that is no key.
    """
    try:
        VerifyKey(public).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        raise SignatureError("the signature of the webhook does not verify") from None
