"""A process in the sandbox reaches nobody, not even on this machine."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from exchange.node.errors import SandboxUnavailable
from exchange.node.sandbox import check_sandbox

_TRIES = """
import json, os, socket, sys
from exchange.node.sandbox import enter_sandbox
told = {}
def attempt(name, action):
    try:
        action()
        told[name] = "done"
    except OSError as error:
        told[name] = type(error).__name__
def connect(address):
    with socket.socket() as s:
        s.settimeout(5)
        s.connect(address)
def listen_and_connect():
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect(server.getsockname())
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("192.0.2.1", 53))
def leave():
    fd = os.open("/proc/%d/ns/net" % os.getppid(), os.O_RDONLY)
    import ctypes
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "")
target = ("127.0.0.1", int(sys.argv[1]))
connect(target)
enter_sandbox()
attempt("this machine", lambda: connect(target))
attempt("outside", lambda: connect(("192.0.2.1", 443)))
attempt("datagram", datagram)
attempt("name", lambda: socket.getaddrinfo("example.com", 443))
attempt("own loopback", listen_and_connect)
attempt("leave", leave)
attempt("this machine again", lambda: connect(target))
print(json.dumps(told))
"""


def told() -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", _TRIES, str(port)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_process_in_the_sandbox_reaches_only_itself() -> None:
    found = told()
    assert found.pop("own loopback") == "done"
    assert "done" not in found.values(), found


@pytest.mark.skipif(len(socket.if_nameindex()) < 2, reason="this machine has no network itself")
def test_outside_the_sandbox_the_check_says_so() -> None:
    with pytest.raises(SandboxUnavailable):
        check_sandbox()
