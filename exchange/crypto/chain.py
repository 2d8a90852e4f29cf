"""The keys that wrap sealing keys at rest: a chain that goes forward and never back.

* The wrapping key of an epoch comes from the chain's key at that epoch (HKDF-Expand, SHA-256), and so does the chain's
  key at the next. From a later one, neither an earlier key of the chain nor what it wrapped can be found.
* To destroy the epochs before one: replace the chain by `advance(epoch)` everywhere that it is kept.
* It needs no luck in timing: a chain that lags opens more than it has to, and never too little.

The same on every machine that holds the chain: who has an older copy can still open all that is newer.
"""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from exchange.crypto.errors import ChainError
from exchange.crypto.names import context
from exchange.crypto.rest import EpochKey
from exchange.crypto.secret import Secret

#: Two thousand years of half weeks: an epoch that is further off is no epoch, and would only cost time.
_FURTHEST: Final = 200_000
_KEY_BYTES: Final = 32
_NUMBER_BYTES: Final = 8


class WrappingChain:
    """A chain, standing at an epoch."""

    def __init__(self, epoch: int, key: Secret) -> None:
        """Raises ChainError where it is none."""
        if epoch < 0 or len(key.reveal()) != _KEY_BYTES:
            raise ChainError("that is not a chain of wrapping keys")
        self.epoch = epoch
        self._key = key

    @classmethod
    def begin(cls) -> "WrappingChain":
        """A fresh chain, at epoch 0."""
        return cls(0, Secret.random())

    @classmethod
    def parse(cls, data: bytes) -> "WrappingChain":
        """The chain that `encode` gave.

        Raises:
            ChainError: it is none.
        """
        return cls(int.from_bytes(data[:_NUMBER_BYTES], "big"), Secret(data[_NUMBER_BYTES:]))

    def encode(self) -> bytes:
        """Epoch and key, for the keystore."""
        return self.epoch.to_bytes(_NUMBER_BYTES, "big") + self._key.reveal()

    def advance(self, epoch: int) -> "WrappingChain":
        """The chain at a later epoch.

        Raises:
            ChainError: the epoch lies behind, or too far ahead.
        """
        if not 0 <= epoch - self.epoch <= _FURTHEST:
            raise ChainError(f"epoch {epoch} cannot be reached from epoch {self.epoch}")
        key = self._key
        for _ in range(epoch - self.epoch):
            key = Secret(_derive(key, b"next"))
        return WrappingChain(epoch, key)

    def wrapping_key(self, epoch: int) -> EpochKey:
        """The key that wraps the sealing key of an epoch.

        Raises:
            ChainError: the epoch lies behind, or too far ahead.
        """
        return EpochKey(_derive(self.advance(epoch)._key, b"wrap"))


def _derive(key: Secret, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), _KEY_BYTES, context("sealing-chain", purpose)).derive(key.reveal())
