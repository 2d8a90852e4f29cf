"""A backup of a whole node as a file: sealed to the keys of those who may restore it, in a stream that stays small in
memory.

* The node needs the public halves alone: who steals the file, or the machine that makes it, reads nothing in it.
* What the file says of itself can be read by anybody, and is bound to what is sealed.
* A file that was cut off, put together or altered does not open to its end: only the last chunk says that it is the
  last.

Source: docs/protocol.md, "Backup of a node".
"""

import hmac
import os
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_ABYTES,
    crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
)
from nacl.bindings import crypto_secretstream_xchacha20poly1305_TAG_FINAL as _LAST
from nacl.bindings import crypto_secretstream_xchacha20poly1305_TAG_MESSAGE as _MESSAGE

from exchange.crypto.errors import ArchiveCorrupt, ArchiveRefused, KeystoreCorrupt, SealError
from exchange.crypto.keystore import Argon2Parameters, lock_keystore, unlock_keystore
from exchange.crypto.names import context
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey, open_sealed, seal
from exchange.crypto.secret import Secret

MAGIC: Final = b"exchange-backup/1\n"
CHUNK_BYTES: Final = 65_536
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + crypto_secretstream_xchacha20poly1305_ABYTES
STREAM_HEADER_BYTES: Final = crypto_secretstream_xchacha20poly1305_HEADERBYTES
MOST_ABOUT_BYTES: Final = 65_536
PUBLIC_FORMAT: Final = "exchange-backup-key/1"
_SEED: Final = "backup-key"
_DIGITS: Final = r"^[0-9a-f]{32}\Z"


class Recipient(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whoever may restore: the id of their key, and the key of the stream sealed to it."""

    key_id: Annotated[str, Meta(pattern=_DIGITS)]
    sealed: Annotated[bytes, Meta(min_length=1168, max_length=1168)]


class Archived(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself; nothing of it is secret.

    `fingerprint` is of the signing keys, `made_at` UTC to the second, `revision` that of the tables.
    """

    origin: Annotated[str, Meta(min_length=1, max_length=200)]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    made_at: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]
    log_size: Annotated[int, Meta(ge=0, le=2**53)]
    revision: Annotated[str, Meta(pattern=r"^[0-9]{4}\Z")]


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    about: Archived
    recipients: Annotated[tuple[Recipient, ...], Meta(min_length=1, max_length=8)]


class ArchiveWriter:
    """Seals one backup, chunk by chunk; `head` comes first."""

    def __init__(self, about: Archived, recipients: Sequence[SealingPublicKey]) -> None:
        key = os.urandom(32)
        bound = _bound(about)
        sealed = tuple(Recipient(key_id=to.key_id.hex(), sealed=seal(to, bound, key)) for to in recipients)
        text = msgspec.json.encode(_Head(about=about, recipients=sealed))
        self._state = crypto_secretstream_xchacha20poly1305_state()
        header = crypto_secretstream_xchacha20poly1305_init_push(self._state, key)
        self.head = MAGIC + len(text).to_bytes(4, "big") + text + header

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        """A chunk of 65,536 bytes, or the last one, which may be shorter."""
        return crypto_secretstream_xchacha20poly1305_push(self._state, chunk, None, _LAST if last else _MESSAGE)


class ArchiveReader:
    """Opens one backup; make it from what stands before the chunks."""

    def __init__(self, text: bytes, header: bytes) -> None:
        """Read what a backup says of itself; whether it is true shows when it is opened.

        Raises:
            ArchiveCorrupt: it is none.
        """
        try:
            self._head = msgspec.json.decode(text, type=_Head)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise ArchiveCorrupt("that is not a backup of a node") from None
        self.about = self._head.about
        self._header = header
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._ended = False

    @property
    def key_ids(self) -> tuple[str, ...]:
        """For which keys it was made."""
        return tuple(to.key_id for to in self._head.recipients)

    def unlock(self, private: SealingPrivateKey) -> None:
        """Take the key of one who may restore.

        Raises:
            ArchiveRefused: it was made for another key, or what it says of itself was altered.
        """
        sealed = [to.sealed for to in self._head.recipients if to.key_id == private.public.key_id.hex()]
        if not sealed:
            raise ArchiveRefused("the backup was made for another key")
        try:
            key = open_sealed(private, _bound(self.about), sealed[0])
            crypto_secretstream_xchacha20poly1305_init_pull(self._state, self._header, key)
        except (SealError, ValueError):
            raise ArchiveRefused("the backup does not open: what it says of itself was altered") from None

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """A chunk; `last` where the file ends after it.

        Raises:
            ArchiveCorrupt: it was altered, or the file goes on after its end or ends before it.
        """
        if len(sealed) <= crypto_secretstream_xchacha20poly1305_ABYTES - 1:
            raise ArchiveCorrupt("the backup is not whole: it ends in the middle")
        try:
            chunk, tag = crypto_secretstream_xchacha20poly1305_pull(self._state, sealed)
        except (RuntimeError, ValueError):
            raise ArchiveCorrupt("the backup was altered, or is not whole") from None
        if (tag == _LAST) is not last:
            raise ArchiveCorrupt("the backup is not whole: it ends in the middle")
        return bytes(chunk)


def _bound(about: Archived) -> bytes:
    return context("backup", msgspec.json.encode(about))


class PublicKeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The public half of a key that backups are made for, as a file: JSON, bytes in base64."""

    format: Annotated[str, Meta(pattern=r"^exchange-backup-key/1\Z")]
    key_id: Annotated[str, Meta(pattern=_DIGITS)]
    public_key: Annotated[bytes, Meta(min_length=1216, max_length=1216)]


def new_backup_key(passphrase: Secret, cost: Argon2Parameters | None = None) -> tuple[bytes, bytes]:
    """A key for backups, as two files: the private half, which the passphrase opens, and the public half."""
    key = SealingPrivateKey.generate()
    public = PublicKeyFile(format=PUBLIC_FORMAT, key_id=key.public.key_id.hex(), public_key=key.public.raw)
    text = msgspec.json.format(msgspec.json.encode(public), indent=2) + b"\n"
    return lock_keystore({_SEED: key.seed().reveal()}, passphrase, cost), text


def parse_public_key(data: bytes) -> SealingPublicKey:
    """Read the file with the public half.

    Raises:
        ArchiveCorrupt: it is none.
    """
    try:
        file = msgspec.json.decode(data, type=PublicKeyFile)
        public = SealingPublicKey(file.public_key)
        _ = public.key
    except (msgspec.DecodeError, ValueError, SealError):
        raise ArchiveCorrupt("that is not the public half of a key for backups") from None
    if not hmac.compare_digest(public.key_id.hex(), file.key_id):
        raise ArchiveCorrupt("the public half of the key was altered")
    return public


def open_backup_key(data: bytes, passphrase: Secret) -> SealingPrivateKey:
    """Open the file with the private half.

    Raises:
        KeystoreCorrupt: it is none.
        WrongPassphrase: the passphrase does not open it.
    """
    entries = unlock_keystore(data, passphrase)
    if _SEED not in entries:
        raise KeystoreCorrupt("that is a keystore, and not the key of a backup")
    return SealingPrivateKey(Secret(entries[_SEED]))
