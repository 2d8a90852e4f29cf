"""Find the key that opens the keystore now, and change it: another passphrase, or another cost of Argon2id.

* A running node locks its keystore itself, with a key that only one who knows the passphrase could give it; so nothing
  rewrites the file behind its back. Of a node that does not run, whoever holds the store's lock may do it.
* The passphrase that is to follow lies beside its file before the keystore changes, and takes its place after. Whatever
  a crash leaves, the file or what lies beside it opens the keystore; `find_key` finishes what was begun.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from exchange.crypto.errors import WrongPassphrase
from exchange.crypto.keystore import Argon2Parameters, KeystoreKey, keystore_key, new_keystore_key, open_with, pass_on
from exchange.crypto.secret import Secret, wipe
from exchange.node.config import Configuration
from exchange.node.errors import ConfigurationInvalid, RequestInvalid
from exchange.node.keystore_file import KeystoreFile, beside, put_in_place, wipe_file, write_beside
from exchange.node.passphrase import Ask, check_mode, check_new, passphrase_of, read_passphrase
from exchange.store.locking import lock_store


@dataclass(frozen=True, slots=True)
class Found:
    """The key that opens the keystore, the passphrase that it came from, and the file that holds that, if one does."""

    key: KeystoreKey
    passphrase: Secret
    file: Path | None


def find_key(configuration: Configuration, ask: Ask | None = None, passphrase_file: Path | None = None) -> Found:
    """The key that opens the keystore, from `passphrase_file` or else from where the configuration says.

    Raises:
        ConfigurationInvalid: a file cannot be read.
        WrongPassphrase: the passphrase does not open it.
        KeystoreCorrupt: it is not a keystore.
    """
    path, file = configuration.keystore_path, configuration.passphrase_path
    try:
        check_mode(path, "the keystore")
        if passphrase_file is not None:
            given = read_passphrase(passphrase_file)
            is_the_one = file is not None and passphrase_file.resolve() == file.resolve()
            return Found(key_of(path, given), given, file if is_the_one else None)
        passphrase = passphrase_of(configuration, ask)
        try:
            return Found(key_of(path, passphrase), passphrase, file)
        except WrongPassphrase:
            if file is None or not beside(file).exists():
                raise
        # A change was stopped after the keystore was locked anew, and before the passphrase was put in place.
        passphrase = read_passphrase(beside(file))
        found = Found(key_of(path, passphrase), passphrase, file)
        put_in_place(file)
        structlog.get_logger().warning("a change of the passphrase was finished")
        return found
    except OSError as error:
        raise ConfigurationInvalid(
            f"cannot read the keystore {path}: {error.strerror}",
            hint="Correct keystore.file, or restore the keystore from its backup.",
        ) from None


def key_of(path: Path, passphrase: Secret) -> KeystoreKey:
    """The key of a keystore file.

    Raises:
        OSError: it cannot be read.
        WrongPassphrase: the passphrase does not open it.
        KeystoreCorrupt: it is not a keystore.
    """
    data = path.read_bytes()
    key = keystore_key(data, passphrase)
    for value in open_with(data, key).values():
        wipe(value)
    return key


@dataclass(frozen=True, slots=True)
class Relocking:
    """A change of the keystore's key: `announce`, then have it done by the node or here, then `complete`."""

    configuration: Configuration
    old: KeystoreKey
    new: KeystoreKey
    passphrase: Secret
    file: Path | None

    @classmethod
    def plan(
        cls, configuration: Configuration, found: Found, passphrase: Secret | None, cost: Argon2Parameters | None = None
    ) -> "Relocking":
        """A change to another passphrase, or to today's cost under the same where none is given.

        Raises:
            ConfigurationInvalid: the new one is too short.
            RequestInvalid: it is the present one.
        """
        if passphrase is None:
            return cls(configuration, found.key, new_keystore_key(found.passphrase, cost), found.passphrase, None)
        if check_new(passphrase) == found.passphrase:
            raise RequestInvalid(
                "that is the passphrase in force; nothing was changed",
                hint="Choose another. To raise the cost of guessing it alone, use --same.",
            )
        return cls(configuration, found.key, new_keystore_key(passphrase, cost), passphrase, found.file)

    def announce(self) -> None:
        """Put the passphrase that is to follow beside its file.

        Raises:
            ConfigurationInvalid: that cannot be done; nothing was changed.
        """
        if self.file is None:
            return
        try:
            write_beside(self.file, self.passphrase.reveal() + b"\n")
        except OSError as error:
            raise ConfigurationInvalid(
                f"cannot write {beside(self.file)}: {error.strerror}; nothing was changed",
                hint="Name the present passphrase with --passphrase-file, and replace the file yourself afterwards.",
            ) from None

    def request(self) -> dict[str, Any]:
        """What the running node is asked for; it holds no secret that can be read without the present passphrase."""
        cost = self.new.cost
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "salt": self.new.salt,
                "opslimit": cost.opslimit,
                "memlimit_bytes": cost.memlimit_bytes,
                "sealed_key": pass_on(self.new, self.old),
            }
        )
        return found

    def perform(self) -> None:
        """Lock the keystore of a node that does not run.

        Raises:
            StoreInUse: it runs after all.
            KeystoreError: it was locked anew by somebody else.
            OSError: it could not be written; the old one stands.
        """
        with lock_store(self.configuration.lock_path):
            KeystoreFile(self.configuration.keystore_path, self.old).lock_anew(self.new)

    def is_done(self) -> bool:
        """Whether the keystore is locked with the new key."""
        return KeystoreFile(self.configuration.keystore_path, self.new).fits()

    def withdraw(self) -> None:
        """The keystore was not changed and will not be: leave no trace."""
        if self.file is not None and _holds(beside(self.file), self.passphrase):
            wipe_file(beside(self.file))

    def complete(self) -> None:
        """The keystore is changed: put the passphrase in its place.

        Raises:
            OSError: that could not be done; the next start does it.
        """
        # A node that started meanwhile may have done so already; somebody else's change may have taken it away.
        if self.file is None or _holds(self.file, self.passphrase):
            return
        if not _holds(beside(self.file), self.passphrase):
            write_beside(self.file, self.passphrase.reveal() + b"\n")
        put_in_place(self.file)


def _holds(path: Path, passphrase: Secret) -> bool:
    return path.exists() and Secret(path.read_bytes().rstrip(b"\r\n")) == passphrase
