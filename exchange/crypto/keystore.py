"""The keystore: named secrets in one file under a passphrase (Argon2id, XChaCha20-Poly1305).

* The parameters of Argon2id are recorded in the file, bound to the ciphertext, and bounded before they are used.
* The file is JSON, so that an admin can see what it is; what is secret in it is not readable.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt
from nacl.exceptions import CryptoError as NaclError
from nacl.pwhash import argon2id

from exchange.crypto.errors import KeystoreCorrupt, KeystoreError, RestError, WrongPassphrase
from exchange.crypto.names import context
from exchange.crypto.rest import FileKey, open_at_rest, seal_at_rest
from exchange.crypto.secret import Secret, wipe

FORMAT: Final = "exchange-keystore/1"
_MAX_OPSLIMIT: Final = 20
_MIN_MEMLIMIT_BYTES: Final = 8192
_MAX_MEMLIMIT_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """The cost of trying one passphrase."""

    opslimit: int = 3
    memlimit_bytes: int = 256 * 1024 * 1024

    @property
    def is_current(self) -> bool:
        """Whether it costs no less than what a new keystore would."""
        today = Argon2Parameters()
        return self.opslimit >= today.opslimit and self.memlimit_bytes >= today.memlimit_bytes


Opslimit = Annotated[int, Meta(ge=1, le=_MAX_OPSLIMIT)]
Memlimit = Annotated[int, Meta(ge=_MIN_MEMLIMIT_BYTES, le=_MAX_MEMLIMIT_BYTES)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    kdf: str
    opslimit: Opslimit
    memlimit_bytes: Memlimit
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    nonce: Annotated[bytes, Meta(min_length=24, max_length=24)]
    ciphertext: bytes


def key_at(passphrase: Secret, salt: bytes, cost: Argon2Parameters) -> FileKey:
    """What Argon2id gives for a passphrase; the cost was checked before."""
    return FileKey(argon2id.kdf(32, passphrase.reveal(), salt, cost.opslimit, cost.memlimit_bytes))


def _header(salt: bytes, opslimit: int, memlimit_bytes: int) -> bytes:
    return context("keystore", opslimit.to_bytes(8, "big"), memlimit_bytes.to_bytes(8, "big"), salt)


@dataclass(frozen=True, slots=True)
class KeystoreKey:
    """What opens a keystore file and locks it anew, without the passphrase: the key that Argon2id gave for it."""

    salt: bytes
    cost: Argon2Parameters
    key: FileKey

    def fits(self, data: bytes) -> bool:
        """Whether a file is locked with this key, as far as can be seen without trying.

        Raises:
            KeystoreCorrupt: not a keystore file.
        """
        file = _parse(data)
        return (file.salt, file.opslimit, file.memlimit_bytes) == (
            self.salt,
            self.cost.opslimit,
            self.cost.memlimit_bytes,
        )


def new_keystore_key(passphrase: Secret, parameters: Argon2Parameters | None = None) -> KeystoreKey:
    """The key of a new keystore file.

    Raises:
        KeystoreError: the parameters are such as `unlock_keystore` would refuse: nobody could open the file again.
    """
    cost = _checked(parameters or Argon2Parameters())
    salt = os.urandom(16)
    return KeystoreKey(salt, cost, key_at(passphrase, salt, cost))


def keystore_key(data: bytes, passphrase: Secret) -> KeystoreKey:
    """The key of a keystore file; whether the passphrase is the right one shows when the file is opened with it.

    Raises:
        KeystoreCorrupt: not a keystore file.
    """
    file = _parse(data)
    cost = Argon2Parameters(file.opslimit, file.memlimit_bytes)
    return KeystoreKey(file.salt, cost, key_at(passphrase, file.salt, cost))


def cost_of(data: bytes) -> Argon2Parameters:
    """What one try at the passphrase of a keystore file costs, as the file says.

    Raises:
        KeystoreCorrupt: not a keystore file.
    """
    file = _parse(data)
    return Argon2Parameters(file.opslimit, file.memlimit_bytes)


def pass_on(new: KeystoreKey, old: KeystoreKey) -> bytes:
    """The key that a keystore is to be locked with next, for one who holds the present one: `take_over` opens it."""
    return seal_at_rest(old.key, _succession(old, new.salt, new.cost), new.key.reveal())


def take_over(sealed: bytes, salt: bytes, cost: Argon2Parameters, old: KeystoreKey) -> KeystoreKey:
    """The key that `pass_on` sealed, to a keystore of that salt and cost.

    Raises:
        WrongPassphrase: it was not sealed with the present key.
        KeystoreError: the cost is such as `unlock_keystore` would refuse: nobody could open the file again.
    """
    try:
        key = open_at_rest(old.key, _succession(old, salt, _checked(cost)), sealed)
    except RestError:
        raise WrongPassphrase("that was not made with the passphrase in force") from None
    return KeystoreKey(salt, cost, FileKey(key))


def _succession(old: KeystoreKey, salt: bytes, cost: Argon2Parameters) -> bytes:
    return context("keystore-succession", old.salt, _header(salt, cost.opslimit, cost.memlimit_bytes))


def _checked(cost: Argon2Parameters) -> Argon2Parameters:
    if not (1 <= cost.opslimit <= _MAX_OPSLIMIT and _MIN_MEMLIMIT_BYTES <= cost.memlimit_bytes <= _MAX_MEMLIMIT_BYTES):
        raise KeystoreError("Argon2id takes 1 to 20 passes and 8 KiB to 1 GiB here")
    return cost


def lock_with(entries: Mapping[str, bytes], key: KeystoreKey) -> bytes:
    """The keystore file that holds `entries`."""
    nonce, cost = os.urandom(24), key.cost
    header = _header(key.salt, cost.opslimit, cost.memlimit_bytes)
    plaintext = msgspec.msgpack.encode(dict(entries))
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, header, nonce, key.key.reveal())
    wipe(plaintext)
    file = _File(FORMAT, "argon2id", cost.opslimit, cost.memlimit_bytes, key.salt, nonce, ciphertext)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def open_with(data: bytes, key: KeystoreKey) -> dict[str, bytes]:
    """The entries of a keystore file.

    Raises:
        KeystoreCorrupt: not a keystore file.
        WrongPassphrase: it does not open.
    """
    file = _parse(data)
    header = _header(file.salt, file.opslimit, file.memlimit_bytes)
    try:
        plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(file.ciphertext, header, file.nonce, key.key.reveal())
    except (NaclError, ValueError):
        raise WrongPassphrase("the passphrase does not open the keystore") from None
    entries = msgspec.msgpack.decode(plaintext, type=dict[str, bytes])
    wipe(plaintext)
    return entries


def lock_keystore(entries: dict[str, bytes], passphrase: Secret, parameters: Argon2Parameters | None = None) -> bytes:
    """The keystore file that holds `entries`.

    Raises:
        KeystoreError: the parameters are such as `unlock_keystore` would refuse: nobody could open the file again.
    """
    return lock_with(entries, new_keystore_key(passphrase, parameters))


def unlock_keystore(data: bytes, passphrase: Secret) -> dict[str, bytes]:
    """The entries of a keystore file.

    Raises:
        KeystoreCorrupt: not a keystore file.
        WrongPassphrase: it does not open.
    """
    return open_with(data, keystore_key(data, passphrase))


def _parse(data: bytes) -> _File:
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, ValueError):
        raise KeystoreCorrupt("the keystore file is not well formed") from None
    if file.format != FORMAT or file.kdf != "argon2id":
        raise KeystoreCorrupt("the keystore file is of another format")
    return file
