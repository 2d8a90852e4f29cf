"""The node's keys while it runs: signing keys and store key from the keystore, sealing keys from the store.

Sealing keys live for an epoch: a new one is made at half of the newest one's life, an old one is destroyed when its
grace has passed.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from exchange.crypto.errors import KeystoreCorrupt
from exchange.crypto.keystore import Argon2Parameters, lock_keystore, unlock_keystore
from exchange.crypto.names import Origin, SealingKeyId, context
from exchange.crypto.note import VerifierKey
from exchange.crypto.rest import StoreKey, open_at_rest, seal_at_rest
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys
from exchange.schema.wire import CardSealingKey
from exchange.store.keys import SealingKeyRow

_ED25519: Final = "signing/ed25519"
_MLDSA44: Final = "signing/ml-dsa-44"
_STORE: Final = "store"


class Keyring:
    """All keys that a running node holds."""

    def __init__(self, origin: Origin, signing: SigningKeys, store_key: StoreKey) -> None:
        self.origin = origin
        self.signing = signing
        self.store_key = store_key
        self.sealing: dict[SealingKeyId, SealingPrivateKey] = {}
        self.epochs: list[SealingKeyRow] = []

    @property
    def verifiers(self) -> tuple[VerifierKey, VerifierKey]:
        """The public halves of the signing keys."""
        return self.signing.verifiers(self.origin)

    def sign_checkpoint(self, size: int, root: bytes, timestamp_s: int) -> str:
        """Sign a checkpoint of the node's log."""
        return self.signing.sign_checkpoint(self.origin, size, root, timestamp_s)

    def new_sealing_key(self, now_ms: int, lifetime_ms: int) -> SealingKeyRow:
        """Make a sealing key for the epoch that begins now; the caller stores it."""
        key = SealingPrivateKey.generate()
        key_id = key.public.key_id
        wrapped = seal_at_rest(self.store_key, context("sealing-seed", key_id), key.seed().reveal())
        return SealingKeyRow(key_id, wrapped, now_ms, now_ms + lifetime_ms)

    def load_sealing_keys(self, rows: Iterable[SealingKeyRow]) -> None:
        """Take the stored sealing keys in hand, and let go of those that are no longer stored.

        Raises:
            RestError: store and keystore do not belong together.
        """
        self.epochs = sorted(rows, key=lambda row: row.not_before_ms)
        held = self.sealing
        self.sealing = {}
        for row in self.epochs:
            key_id = SealingKeyId(bytes(row.key_id))
            if key_id in held:
                self.sealing[key_id] = held[key_id]
            else:
                seed = open_at_rest(self.store_key, context("sealing-seed", key_id), row.wrapped_seed)
                self.sealing[key_id] = SealingPrivateKey(Secret(seed))

    def card_sealing_keys(self, now_ms: int) -> tuple[CardSealingKey, ...]:
        """The sealing keys that a card names: those whose epoch has not ended."""
        return tuple(
            CardSealingKey(
                key=self.sealing[SealingKeyId(bytes(row.key_id))].public.raw,
                not_before=datetime.fromtimestamp(row.not_before_ms / 1000, UTC),
                not_after=datetime.fromtimestamp(row.not_after_ms / 1000, UTC),
            )
            for row in self.epochs
            if row.not_after_ms > now_ms
        )


def new_keystore(passphrase: Secret, cost: Argon2Parameters | None = None) -> bytes:
    """A keystore file with fresh keys."""
    ed25519, mldsa44 = SigningKeys.generate().seeds()
    entries = {_ED25519: ed25519.reveal(), _MLDSA44: mldsa44.reveal(), _STORE: os.urandom(32)}
    return lock_keystore(entries, passphrase, cost)


def open_keystore(data: bytes, passphrase: Secret, origin: Origin) -> Keyring:
    """Unlock a keystore file.

    Raises:
        KeystoreCorrupt: not a keystore file, or a key is missing.
        WrongPassphrase: it does not open.
    """
    entries = unlock_keystore(data, passphrase)
    try:
        signing = SigningKeys(Secret(entries[_ED25519]), Secret(entries[_MLDSA44]))
        return Keyring(origin, signing, StoreKey(entries[_STORE]))
    except KeyError as error:
        raise KeystoreCorrupt(f"the keystore lacks the key {error.args[0]}") from None
