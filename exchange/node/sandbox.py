"""A process that can reach nobody: in a network of its own, in which there is nothing but its own loopback.

* The kernel sees to it (network_namespaces(7)): there is no interface to send by, and no route. A port on this loopback
  is not the one that others see.
* It cannot be left: in a user namespace of its own, the process has no right to join another network again.
* Whether it holds is tried before anything else is done.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from exchange.node.errors import SandboxUnavailable

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
#: Addresses for documentation (RFC 5737, RFC 3849): nobody is there, so whoever could send would wait in vain.
_OUTSIDE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EHOSTUNREACH})


def enter_sandbox() -> None:
    """Leave every network behind, for good; before the process has threads.

    Raises:
        SandboxUnavailable: the system does not let it, or something can still be reached.
    """
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        # Files that are made here are to belong to who made them.
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    elif libc.unshare(_CLONE_NEWNET) != 0:
        raise SandboxUnavailable(f"no network of its own: {os.strerror(ctypes.get_errno())}")
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _raise_loopback()
    check_sandbox()


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(channel, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(channel, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def check_sandbox() -> None:
    """Check that nobody can be reached.

    Raises:
        SandboxUnavailable: somebody could be.
    """
    names = [name for _, name in socket.if_nameindex()]
    if [name for name in names if name != "lo"] and _any_up(names):
        raise SandboxUnavailable(f"there is a network: {', '.join(names)}")
    for family, address in _OUTSIDE:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect((address, 9))
        except OSError as error:
            if error.errno in _NO_WAY:
                continue
        raise SandboxUnavailable(f"there is a way to {address}")


def _any_up(names: list[str]) -> bool:
    """Whether an interface other than the loopback is up: some kernels make tunnels that are down in every network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for name in names:
            answer = fcntl.ioctl(channel, _SIOCGIFFLAGS, struct.pack("16sh14x", name.encode(), 0))
            if name != "lo" and struct.unpack("16sh14x", answer)[1] & _IFF_UP:
                return True
    return False
