"""The node's keys while it runs: signing keys and store key from the keystore, sealing keys from the store.

A sealing key is stored under a key of its epoch, and that comes from a chain in the keystore which goes forward only:
to open an old sealing key takes an old copy of both.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from exchange.crypto.chain import WrappingChain
from exchange.crypto.errors import ChainError, KeystoreCorrupt
from exchange.crypto.keystore import (
    Argon2Parameters,
    KeystoreKey,
    keystore_key,
    lock_keystore,
    open_with,
    unlock_keystore,
)
from exchange.crypto.names import Origin, SealingKeyId, context
from exchange.crypto.note import VerifierKey
from exchange.crypto.rest import StoreKey, open_at_rest, seal_at_rest
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys, fingerprint, sign_checkpoint
from exchange.node.keystore_file import KeystoreFile
from exchange.schema.wire import CardSealingKey
from exchange.store.keys import SealingKeyRow

_ED25519: Final = "signing/ed25519"
_MLDSA44: Final = "signing/ml-dsa-44"
_STORE: Final = "store"
_CHAIN: Final = "sealing-chain"
_NEXT: Final = "signing/next"
_EPOCH: Final = "sealing-epoch"
_LEAST: Final = "least-log-size"
_REJOIN: Final = "rejoin"
_MOST_IN_A_CARD: Final = 8
#: More epochs than a node lives through. A chain that begins so far ahead wraps none that an older one has wrapped.
_BEYOND: Final = 100_000


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


class Keyring:
    """All keys that a running node holds."""

    def __init__(
        self,
        origin: Origin,
        signing: SigningKeys,
        store_key: StoreKey,
        chain: WrappingChain | None = None,
        following: SigningKeys | None = None,
    ) -> None:
        self.origin = origin
        #: The keys in force, and after them those of a rotation that is under way. The writer's thread reads this too.
        self._signers: tuple[SigningKeys, ...] = (signing, following) if following else (signing,)
        self.store_key = store_key
        self.chain = chain or WrappingChain.begin()
        #: Rewrites entries of the keystore; a keyring that has no keystore keeps what it has in memory alone.
        self.rewrite: Callable[[Mapping[str, bytes]], None] | None = None
        #: The keystore itself, to be locked anew under another passphrase.
        self.file: KeystoreFile | None = None
        #: How many statements the store must have, of those keys that were restored and have not been used since.
        self.least_log_size = 0
        #: Whether the store came from a backup: peers are asked for what it lacks before anything is signed.
        self.must_rejoin = False
        self.sealing: dict[SealingKeyId, SealingPrivateKey] = {}
        self.epochs: list[SealingKeyRow] = []

    @property
    def signing(self) -> SigningKeys:
        """The signing keys in force."""
        return self._signers[0]

    @property
    def following(self) -> SigningKeys | None:
        """The signing keys of a rotation that is under way."""
        return self._signers[1] if len(self._signers) > 1 else None

    @property
    def verifiers(self) -> tuple[VerifierKey, VerifierKey]:
        """The public halves of the signing keys in force."""
        return self.signing.verifiers(self.origin)

    def sign_checkpoint(self, size: int, root: bytes, timestamp_s: int) -> str:
        """Sign a checkpoint of the node's log; while a rotation is under way, by the keys that follow too."""
        return sign_checkpoint(self._signers, self.origin, size, root, timestamp_s)

    def begin_rotation(self) -> SigningKeys:
        """Make the keys that are to follow, and keep them in the keystore beside those in force.

        Raises:
            KeystoreError: the keystore could not be rewritten; nothing was changed.
            OSError: so too.
        """
        following = SigningKeys.generate()
        ed25519, mldsa44 = following.seeds()
        self._rewrite({_NEXT: ed25519.reveal() + mldsa44.reveal()})
        self._signers = (self.signing, following)
        return following

    def finish_rotation(self) -> None:
        """The rotation stands in the log: the keys that followed are in force, and the old ones are wiped.

        Raises:
            KeystoreError: the keystore could not be rewritten. The keys in memory have changed; the next start
                finishes the rest.
            OSError: so too.
        """
        signing = self._signers[-1]
        self._signers = (signing,)
        ed25519, mldsa44 = signing.seeds()
        self._rewrite({_ED25519: ed25519.reveal(), _MLDSA44: mldsa44.reveal(), _NEXT: b""})

    def drop_rotation(self) -> None:
        """The rotation never came to stand in the log: forget the keys that were to follow.

        Raises:
            KeystoreError: the keystore could not be rewritten.
            OSError: so too.
        """
        self._signers = (self.signing,)
        self._rewrite({_NEXT: b""})

    def require_store(self, log_size: int) -> None:
        """The store has lost what it confirmed: start on none that is smaller than what was signed.

        Raises:
            KeystoreError: the keystore could not be rewritten.
            OSError: so too.
        """
        self.least_log_size = log_size
        self._rewrite({_LEAST: log_size.to_bytes(8, "big")})

    def accept_store(self) -> None:
        """The store is the one that these keys belong to: it need not be asked again.

        Raises:
            KeystoreError: the keystore could not be rewritten.
            OSError: so too.
        """
        self.least_log_size, self.must_rejoin = 0, False
        self._rewrite({_LEAST: b"", _REJOIN: b""})

    def _rewrite(self, entries: Mapping[str, bytes]) -> None:
        if self.rewrite is not None:
            self.rewrite(entries)

    def new_sealing_key(self, now_ms: int, lifetime_ms: int, grace_ms: int = 0) -> SealingKeyRow:
        """Make a sealing key for the epoch that begins now; the caller stores it."""
        key = SealingPrivateKey.generate()
        key_id = key.public.key_id
        epoch = max((row.epoch for row in self.epochs), default=self.chain.epoch - 1) + 1
        place = context("sealing-seed", key_id)
        wrapped = seal_at_rest(self.chain.wrapping_key(epoch), place, key.seed().reveal())
        not_after_ms = now_ms + lifetime_ms
        return SealingKeyRow(key_id, epoch, wrapped, now_ms, not_after_ms, not_after_ms + grace_ms)

    def load_sealing_keys(self, rows: Iterable[SealingKeyRow]) -> None:
        """Take the stored sealing keys in hand, and let go of those that are no longer stored.

        Those whose epoch the keystore has left behind are passed over: they are from an old copy of the store.

        Raises:
            RestError: store and keystore do not belong together.
        """
        self.epochs = sorted((row for row in rows if row.epoch >= self.chain.epoch), key=lambda row: row.not_before_ms)
        held = self.sealing
        self.sealing = {}
        for row in self.epochs:
            key_id = SealingKeyId(bytes(row.key_id))
            if key_id in held:
                self.sealing[key_id] = held[key_id]
            else:
                wrapping_key = self.chain.wrapping_key(row.epoch)
                seed = open_at_rest(wrapping_key, context("sealing-seed", key_id), row.wrapped_seed)
                self.sealing[key_id] = SealingPrivateKey(Secret(seed))

    def destroy_before(self, epoch: int) -> None:
        """Let go of what wrapped the sealing keys of earlier epochs: in the keystore first, then in memory.

        Raises:
            KeystoreError: the keystore could not be rewritten; nothing was changed.
            OSError: so too.
        """
        chain = self.chain.advance(epoch)
        self._rewrite({_CHAIN: chain.encode()})
        self.chain = chain

    def card_sealing_keys(self, now_ms: int) -> tuple[CardSealingKey, ...]:
        """The sealing keys that a card names: those whose epoch has not ended, oldest first.

        Where a clock has jumped there may be too many of them for a card; the youngest that are in force are in it.
        """
        current = [row for row in self.epochs if row.not_after_ms > now_ms]
        current.sort(key=lambda row: (row.not_before_ms <= now_ms, row.not_before_ms))
        return tuple(
            CardSealingKey(
                key=self.sealing[SealingKeyId(bytes(row.key_id))].public.raw,
                not_before=_moment(row.not_before_ms),
                not_after=_moment(row.not_after_ms),
                opens_until=_moment(row.opens_until_ms),
            )
            for row in sorted(current[-_MOST_IN_A_CARD:], key=lambda row: row.not_before_ms)
        )


def new_keystore(passphrase: Secret, cost: Argon2Parameters | None = None) -> bytes:
    """A keystore file with fresh keys."""
    ed25519, mldsa44 = SigningKeys.generate().seeds()
    entries = {
        _ED25519: ed25519.reveal(),
        _MLDSA44: mldsa44.reveal(),
        _STORE: os.urandom(32),
        _CHAIN: WrappingChain.begin().encode(),
    }
    return lock_keystore(entries, passphrase, cost)


def entries_to_back_up(entries: Mapping[str, bytes]) -> dict[str, bytes]:
    """What of a keystore a backup holds: of the chain not its key, which would open sealing keys, but its place alone.

    Raises:
        KeystoreCorrupt: a key is missing.
    """
    try:
        epoch = WrappingChain.parse(entries[_CHAIN]).epoch
        return {name: entries[name] for name in (_ED25519, _MLDSA44, _STORE)} | {_EPOCH: epoch.to_bytes(8, "big")}
    except (KeyError, ChainError):
        raise KeystoreCorrupt("the keystore lacks a key") from None


def restored_keystore(
    kept: Mapping[str, bytes],
    log_size: int,
    passphrase: Secret,
    cost: Argon2Parameters | None = None,
    *,
    rejoin: bool = False,
) -> bytes:
    """The keystore file of what a backup held, with a chain that opens no sealing key of before.

    With `rejoin`, the node asks its peers for what its store lacks before it signs.

    Raises:
        KeystoreCorrupt: a key is missing.
    """
    try:
        entries = {name: kept[name] for name in (_ED25519, _MLDSA44, _STORE)}
        epoch = int.from_bytes(kept[_EPOCH], "big") + _BEYOND
    except KeyError as error:
        raise KeystoreCorrupt(f"the backup lacks the key {error.args[0]}") from None
    entries |= {_CHAIN: WrappingChain(epoch, Secret.random()).encode(), _LEAST: log_size.to_bytes(8, "big")}
    return lock_keystore(entries | ({_REJOIN: b"\x01"} if rejoin else {}), passphrase, cost)


def is_rotating(entries: Mapping[str, bytes]) -> bool:
    """Whether a keystore holds signing keys that are to follow those in force."""
    return bool(entries.get(_NEXT, b""))


def signing_keys_of(entries: Mapping[str, bytes]) -> SigningKeys:
    """The signing keys in a keystore or in a backup.

    Raises:
        KeystoreCorrupt: one is missing, or is none.
    """
    try:
        return SigningKeys(Secret(entries[_ED25519]), Secret(entries[_MLDSA44]))
    except KeyError as error:
        raise KeystoreCorrupt(f"the keystore lacks the key {error.args[0]}") from None
    except ValueError:
        raise KeystoreCorrupt("a signing key is not one") from None


def fingerprint_of(entries: Mapping[str, bytes], origin: Origin) -> str:
    """The fingerprint of the signing keys in a keystore or in a backup.

    Raises:
        KeystoreCorrupt: a key is missing.
    """
    try:
        return fingerprint(origin, SigningKeys(Secret(entries[_ED25519]), Secret(entries[_MLDSA44])).verifiers(origin))
    except KeyError as error:
        raise KeystoreCorrupt(f"the keystore lacks the key {error.args[0]}") from None


def open_keystore_file(path: Path, passphrase: Secret, origin: Origin) -> Keyring:
    """Unlock the keystore file of a node, to be rewritten when keys change.

    Raises:
        OSError: it cannot be read.
        KeystoreCorrupt: not a keystore file, or a key is missing.
        WrongPassphrase: it does not open.
    """
    return open_keystore_with(path, keystore_key(path.read_bytes(), passphrase), origin)


def open_keystore_with(path: Path, key: KeystoreKey, origin: Origin) -> Keyring:
    """Unlock the keystore file of a node with the key that Argon2id gave.

    Raises:
        OSError: it cannot be read.
        KeystoreCorrupt: not a keystore file, or a key is missing.
        WrongPassphrase: it does not open.
    """
    keyring = _keyring_of(open_with(path.read_bytes(), key), origin)
    keyring.file = KeystoreFile(path, key)
    keyring.rewrite = keyring.file.rewrite
    return keyring


def open_keystore(data: bytes, passphrase: Secret, origin: Origin) -> Keyring:
    """Unlock the bytes of a keystore file.

    Raises:
        KeystoreCorrupt: not a keystore file, or a key is missing.
        WrongPassphrase: it does not open.
    """
    return _keyring_of(unlock_keystore(data, passphrase), origin)


def _keyring_of(entries: Mapping[str, bytes], origin: Origin) -> Keyring:
    try:
        signing = SigningKeys(Secret(entries[_ED25519]), Secret(entries[_MLDSA44]))
        seeds = entries.get(_NEXT, b"")
        following = SigningKeys(Secret(seeds[:32]), Secret(seeds[32:])) if seeds else None
        chain = WrappingChain.parse(entries[_CHAIN])
        keyring = Keyring(origin, signing, StoreKey(entries[_STORE]), chain, following)
        keyring.least_log_size = int.from_bytes(entries.get(_LEAST, b""), "big")
        keyring.must_rejoin = bool(entries.get(_REJOIN, b""))
        return keyring
    except KeyError as error:
        raise KeystoreCorrupt(f"the keystore lacks the key {error.args[0]}") from None
    except ChainError as error:
        raise KeystoreCorrupt(f"the keystore: {error}") from None
