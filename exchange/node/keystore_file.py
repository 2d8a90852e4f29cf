"""The keystore file while the node runs: rewritten in place of the old one, which is wiped.

* What is on the disk is always a whole keystore, the old or the new one: write beside it, fsync, rename, fsync.
* The entries that are not changed are those of the file as it is now, not as it was at the start.
* A file that was locked anew under another passphrase since is left alone.
* Who rewrites holds a lock on the file: no two rewrite it at once, be they threads or processes.
* The bytes of the old file are overwritten before they are given up. Where the file system or the disk writes elsewhere
  than asked (copy on write, journals of data, flash), they may still be there: that is why a key that must not come
  back is never in the keystore alone.
"""

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from exchange import crash_points
from exchange.crypto.errors import KeystoreError
from exchange.crypto.keystore import Argon2Parameters, KeystoreKey, lock_with, open_with, take_over
from exchange.crypto.secret import wipe


class KeystoreFile:
    """A keystore file, and the key that opens it."""

    def __init__(self, path: Path, key: KeystoreKey) -> None:
        self.path = path
        self._key = key
        # The lock on the file ends with the rename, for those who open the new one: file and key change as one.
        self._lock = threading.Lock()

    def rewrite(self, changes: Mapping[str, bytes]) -> None:
        """Change entries, durably.

        Raises:
            KeystoreError: the file was locked anew since it was opened; nothing was changed.
            OSError: it could not be written; the old one stands.
        """
        with self._lock, _held(self.path) as old:
            data = self.path.read_bytes()
            if not self._key.fits(data):
                raise KeystoreError("the keystore was locked anew since the node started; restart the node")
            entries = open_with(data, self._key)
            _replace(self.path, old, lock_with({**entries, **changes}, self._key))
            for value in entries.values():
                wipe(value)

    def lock_anew(self, key: KeystoreKey) -> None:
        """Lock the file with another key: under another passphrase, or at another cost.

        Raises:
            WrongPassphrase: it does not open with the present key; nothing was changed.
            OSError: it could not be written; the old one stands.
        """
        with self._lock:
            self._lock_anew(key)

    def take_over(self, salt: bytes, cost: Argon2Parameters, sealed: bytes) -> None:
        """Lock the file with a key that one who holds the present one has passed on.

        Raises:
            WrongPassphrase: it was not passed on by the present key; nothing was changed.
            KeystoreError: the cost is such as nobody could open the file at.
            OSError: it could not be written; the old one stands.
        """
        with self._lock:
            self._lock_anew(take_over(sealed, salt, cost, self._key))

    def _lock_anew(self, key: KeystoreKey) -> None:
        with _held(self.path) as old:
            entries = open_with(self.path.read_bytes(), self._key)
            _replace(self.path, old, lock_with(entries, key))
            for value in entries.values():
                wipe(value)
            self._key = key

    def fits(self) -> bool:
        """Whether the file is still locked with this key.

        Raises:
            KeystoreCorrupt: it is not a keystore file.
            OSError: it cannot be read.
        """
        return self._key.fits(self.path.read_bytes())


def write_beside(path: Path, data: bytes) -> None:
    """Put what is to follow a file beside it, as NAME.new, durably and with the same mode.

    Raises:
        OSError: it could not be written.
    """
    with _held(path) as old:
        _write_beside(path, old, data)
        _sync_directory(path)


def put_in_place(path: Path) -> None:
    """Put NAME.new in place of NAME, durably, and overwrite what NAME held.

    Raises:
        OSError: one of them is not there, or may not be written; the old one stands.
    """
    with _held(path) as old:
        _put_in_place(path, old)


def beside(path: Path) -> Path:
    """Where what is to follow a file lies."""
    return path.with_name(path.name + ".new")


def wipe_file(path: Path) -> None:
    """Overwrite a file and remove it.

    Raises:
        OSError: it is not there, or may not be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_nlink == 1:
            _write_all(descriptor, bytes(os.fstat(descriptor).st_size))
        path.unlink()
    finally:
        os.close(descriptor)


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The file, opened, with the lock of those who rewrite it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # While this waited, the file may have been replaced by another.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _replace(path: Path, old: int, data: bytes) -> None:
    _write_beside(path, old, data)
    _put_in_place(path, old)


def _write_beside(path: Path, old: int, data: bytes) -> None:
    crash_points.reached("keystore.before-write")
    with suppress(FileNotFoundError):
        # A crash left it; it holds a secret too.
        wipe_file(beside(path))
    descriptor = os.open(beside(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, os.fstat(old).st_mode & 0o777)
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)
    crash_points.reached("keystore.beside")


def _put_in_place(path: Path, old: int) -> None:
    os.replace(beside(path), path)
    _sync_directory(path)
    crash_points.reached("keystore.renamed")
    # Only now: until the rename is durable, the old file is the one that a crash would leave.
    if os.fstat(old).st_nlink == 0:
        _write_all(old, bytes(os.fstat(old).st_size))
    crash_points.reached("keystore.wiped")


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
