"""One process at a time on a node's directory."""

import fcntl
import os
from pathlib import Path
from typing import IO

from exchange.store.errors import StoreInUse, StoreUnavailable


def lock_store(path: Path) -> IO[str]:
    """Keep every other process out by the lock file at `path`, until what is returned is closed.

    Raises:
        StoreInUse: another process has it.
        StoreUnavailable: its directory cannot be written to.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = os.fdopen(descriptor, "w")
    except OSError as error:
        raise StoreUnavailable(f"cannot open the store in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreInUse(f"another process has the store in {path.parent} open") from None
    return lock
