"""The keystore file while the node runs: rewritten in place of the old one, which is wiped.

* What is on the disk is always a whole keystore, the old or the new one: write beside it, fsync, rename, fsync.
* The entries that are not changed are those of the file as it is now, not as it was at the start.
* A file that was locked anew under another passphrase since is left alone.
* The bytes of the old file are overwritten before they are given up. Where the file system or the disk writes elsewhere
  than asked (copy on write, journals of data, flash), they may still be there: that is why a key that must not come
  back is never in the keystore alone.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from exchange.crypto.errors import KeystoreError
from exchange.crypto.keystore import KeystoreKey, lock_with, open_with


class KeystoreFile:
    """A keystore file, and the key that opens it."""

    def __init__(self, path: Path, key: KeystoreKey) -> None:
        self.path = path
        self._key = key

    def rewrite(self, changes: Mapping[str, bytes]) -> None:
        """Change entries, durably.

        Raises:
            KeystoreError: the file was locked anew since it was opened; nothing was changed.
            OSError: it could not be written; the old one stands.
        """
        data = self.path.read_bytes()
        if not self._key.fits(data):
            raise KeystoreError("the keystore was locked anew since the node started; restart the node")
        replace_file(self.path, lock_with({**open_with(data, self._key), **changes}, self._key))


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in place of a file in one step, durably, and overwrite what it held.

    Raises:
        OSError: it could not be written; the old one stands.
    """
    beside = path.with_name(path.name + ".new")
    old = os.open(path, os.O_WRONLY)
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fchmod(descriptor, os.fstat(old).st_mode & 0o777)
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        os.replace(beside, path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        # Only now: until the rename is durable, the old file is the one that a crash would leave.
        if os.fstat(old).st_nlink == 0:
            _write_all(old, bytes(os.fstat(old).st_size))
    finally:
        os.close(old)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
