"""Ports for servers, below the range from which the kernel picks ports for clients: one that is down keeps its port."""

import contextlib
import random
import socket


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
