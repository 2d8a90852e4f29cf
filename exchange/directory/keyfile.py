"""The key files of keyholders: an Ed25519 key under a passphrase (as the keystore is), and its public half for others.

* The file says whose key it is without its passphrase; that is bound to the key when it is opened.
* There is one key in a file: who holds a root key and a targets key has two files.
"""

import os
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from exchange.crypto.errors import KeystoreCorrupt
from exchange.crypto.keystore import Argon2Parameters, lock_keystore, unlock_keystore
from exchange.crypto.secret import Secret
from exchange.directory.errors import DirectoryError, DirectoryUnreadable

FORMAT: Final = "exchange-directory-key/1"
#: Where a key in the root says whose it is.
HOLDER: Final = "x-exchange-holder"

HolderText = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,100}\Z")]


class KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key as a file: the private one holds a keystore, the public one does not."""

    format: Annotated[str, Meta(pattern=r"^exchange-directory-key/1\Z")]
    holder: HolderText
    public: Annotated[bytes, Meta(min_length=32, max_length=32)]
    keystore: dict[str, str | int] | None = None

    def key(self) -> SSlibKey:
        """The public half as TUF has it, with the holder's name."""
        key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(self.public))
        key.unrecognized_fields[HOLDER] = self.holder
        return key

    def signer(self, passphrase: Secret) -> CryptoSigner:
        """What signs with this key.

        Raises:
            WrongPassphrase: the passphrase does not open it.
            DirectoryUnreadable: it is a public half, or not whole.
        """
        if self.keystore is None:
            raise DirectoryUnreadable(
                "that is the public half of a key: it signs nothing", hint="Name the file without .pub"
            )
        try:
            entries = unlock_keystore(msgspec.json.encode(self.keystore), passphrase)
        except KeystoreCorrupt as error:
            raise DirectoryUnreadable(f"the key file cannot be read: {error}", hint=_ANOTHER) from None
        key = Ed25519PrivateKey.from_private_bytes(entries["seed"])
        if entries.get("holder") != self.holder.encode() or key.public_key().public_bytes_raw() != self.public:
            raise DirectoryUnreadable("the key file was altered: it holds another key than it says", hint=_ANOTHER)
        return CryptoSigner(key, self.key())


_ANOTHER: Final = "Take the copy of the key file that was made when it was new."


def new_key(holder: str, passphrase: Secret, cost: Argon2Parameters | None = None) -> tuple[bytes, bytes]:
    """A new key: its file, and the file of its public half.

    Raises:
        DirectoryError: the holder's name cannot be one.
    """
    seed = os.urandom(32)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    keystore = lock_keystore({"seed": seed, "holder": holder.encode()}, passphrase, cost)
    private = KeyFile(format=FORMAT, holder=holder, public=public, keystore=msgspec.json.decode(keystore))
    data = _encode(private)
    parse_key_file(data)
    return data, _encode(KeyFile(format=FORMAT, holder=holder, public=public))


def parse_key_file(data: bytes) -> KeyFile:
    """Read a key file, private or public.

    Raises:
        DirectoryError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=KeyFile)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise DirectoryError(
            "that is not a directory key, or its holder's name is not 1 to 100 characters",
            hint="Make one with: exchange directory keys new FILE --holder NAME",
        ) from None


def holder_of(key: Key) -> str:
    """Whose key it is, and which."""
    return f"{plain(key.unrecognized_fields.get(HOLDER, 'unknown'))} ({plain(key.keyid[:8])})"


def plain(text: object) -> str:
    """A text of somebody else's as it may be shown on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:200])


def _encode(file: KeyFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"
