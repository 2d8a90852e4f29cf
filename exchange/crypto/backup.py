"""A backup of a node's keys: one file, under a passphrase (Argon2id) or under a key that several people hold shares of.

* What it says of itself can be read by anybody, and is bound to what is sealed in it.
* It holds what a node cannot do without: signing seeds and store key. It holds nothing that opens a sealing key.
* Everything that decides about cost is bounded before anything is computed.

Source: docs/protocol.md, "Backup of the keys".
"""

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt
from nacl.exceptions import CryptoError as NaclError

from exchange.crypto.errors import BackupCorrupt, BackupRefused, ShareError
from exchange.crypto.keystore import Argon2Parameters, Memlimit, Opslimit, key_at, new_keystore_key
from exchange.crypto.names import context
from exchange.crypto.rest import FileKey
from exchange.crypto.secret import Secret, wipe
from exchange.crypto.shares import KeyShare, join_shares, split_key

FORMAT: Final = "exchange-key-backup/1"
MOST_BYTES: Final = 16_384

Count = Annotated[int, Meta(ge=1, le=16)]


class ByPassphrase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="passphrase", tag_field="by"):
    """What opens the backup is a passphrase."""

    opslimit: Opslimit
    memlimit_bytes: Memlimit
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]

    def parts(self) -> tuple[bytes, ...]:
        """What is bound of it."""
        return b"passphrase", _u64(self.opslimit), _u64(self.memlimit_bytes), self.salt


class ByShares(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="shares", tag_field="by"):
    """What opens the backup is a random key, of which there are `count` shares; any `threshold` of them have it."""

    set_id: Annotated[int, Meta(ge=0, le=32_767)]
    threshold: Count
    count: Count

    def parts(self) -> tuple[bytes, ...]:
        """What is bound of it."""
        return b"shares", _u64(self.set_id), _u64(self.threshold), _u64(self.count)


class About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself; nothing of it is secret.

    `log_size`: how many statements the node had signed at least. `made_at`: UTC, to the second.
    """

    origin: Annotated[str, Meta(min_length=1, max_length=253)]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    made_at: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]
    log_size: Annotated[int, Meta(ge=0, le=2**53)]


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backup as a file: JSON, bytes in base64."""

    format: Annotated[str, Meta(pattern=r"^exchange-key-backup/1\Z")]
    about: About
    lock: ByPassphrase | ByShares
    nonce: Annotated[bytes, Meta(min_length=24, max_length=24)]
    ciphertext: Annotated[bytes, Meta(max_length=4096)]


def lock_backup(
    about: About, entries: Mapping[str, bytes], passphrase: Secret, cost: Argon2Parameters | None = None
) -> bytes:
    """The file of a backup that a passphrase opens."""
    key = new_keystore_key(passphrase, cost)
    return _seal(about, ByPassphrase(key.cost.opslimit, key.cost.memlimit_bytes, key.salt), entries, key.key)


def split_backup(
    about: About, entries: Mapping[str, bytes], threshold: int, count: int
) -> tuple[bytes, tuple[KeyShare, ...]]:
    """The file of a backup, and the shares that open it.

    Raises:
        ShareError: so many of so many cannot be.
    """
    key = FileKey(os.urandom(32))
    shares = split_key(key, threshold, count)
    return _seal(about, ByShares(shares[0].set_id, threshold, count), entries, key), shares


def parse_backup(data: bytes) -> Backup:
    """Read the file of a backup; whether it is true shows when it is opened.

    Raises:
        BackupCorrupt: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Backup)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BackupCorrupt("that is not a backup of keys, or not the whole of one") from None


def open_backup(backup: Backup, passphrase: Secret) -> dict[str, bytes]:
    """What a backup holds, with its passphrase.

    Raises:
        BackupRefused: it does not open: another passphrase, or altered.
    """
    if not isinstance(backup.lock, ByPassphrase):
        raise BackupRefused("this backup opens with shares, not with a passphrase")
    cost = Argon2Parameters(backup.lock.opslimit, backup.lock.memlimit_bytes)
    return _open(backup, key_at(passphrase, backup.lock.salt, cost), "the passphrase does not open the backup")


def join_backup(backup: Backup, shares: Iterable[KeyShare]) -> dict[str, bytes]:
    """What a backup holds, with its shares.

    Raises:
        ShareError: they are too few, or of another backup.
        BackupRefused: it does not open: altered.
    """
    held = list(shares)
    lock = backup.lock
    if not isinstance(lock, ByShares):
        raise BackupRefused("this backup opens with a passphrase, not with shares")
    if any((share.set_id, share.threshold) != (lock.set_id, lock.threshold) for share in held):
        raise ShareError("one of these shares is of another backup")
    return _open(backup, join_shares(held), "the shares do not open the backup")


def _seal(about: About, lock: ByPassphrase | ByShares, entries: Mapping[str, bytes], key: FileKey) -> bytes:
    nonce, plaintext = os.urandom(24), msgspec.msgpack.encode(dict(entries))
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, _bound(about, lock), nonce, key.reveal())
    wipe(plaintext)
    key.wipe()
    backup = Backup(format=FORMAT, about=about, lock=lock, nonce=nonce, ciphertext=ciphertext)
    return msgspec.json.format(msgspec.json.encode(backup), indent=2) + b"\n"


def _open(backup: Backup, key: FileKey, otherwise: str) -> dict[str, bytes]:
    bound = _bound(backup.about, backup.lock)
    try:
        plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(backup.ciphertext, bound, backup.nonce, key.reveal())
        entries = msgspec.msgpack.decode(plaintext, type=dict[str, bytes])
    except (NaclError, ValueError):
        raise BackupRefused(f"{otherwise}, or the file was altered") from None
    finally:
        key.wipe()
    wipe(plaintext)
    return entries


def _bound(about: About, lock: ByPassphrase | ByShares) -> bytes:
    texts = (about.origin.encode(), about.fingerprint.encode(), about.made_at.encode(), _u64(about.log_size))
    return context("key-backup", *texts, *lock.parts())


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")
