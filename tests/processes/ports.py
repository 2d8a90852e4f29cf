"""Ports for servers, below the range from which the kernel picks ports for clients: one that is down keeps its port.

Tests run in several processes at once, so a port that was given out and that nobody listens on yet is locked by a file.
"""

import contextlib
import fcntl
import random
import socket
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

_MOST_LOCKED = 40
_locked: deque[IO[str]] = deque()


def free_port() -> int:
    """A port that nobody listens on, and that no other test was given of late."""
    folder = Path(tempfile.gettempdir()) / "exchange-test-ports"
    folder.mkdir(exist_ok=True)
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            lock = stack.enter_context((folder / str(port)).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
            stack.pop_all()
            _locked.append(lock)
            if len(_locked) > _MOST_LOCKED:
                _locked.popleft().close()
            return port
