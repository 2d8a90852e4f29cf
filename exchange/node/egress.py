"""The guard on outbound connections: it looks at the address that is connected to, not at the name.

Only globally routable addresses, unless the admin allowed the network. aiohttp's resolver hook is bypassed by
addresses written into the URL, so the guard sits where the socket is made.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any, Final

import aiohttp

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: `ipaddress.is_global` says yes to these, yet they lead to addresses inside.
_TUNNELS: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10", "::ffff:0:0/96", "::/96")
)


class AddressRefused(OSError):
    """The address is neither globally routable nor allowed for this destination."""


def is_allowed(address: str, networks: Iterable[_Network]) -> bool:
    """Whether a connection to `address` may be made."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip.version == network.version and ip in network for network in networks):
        return True
    if ip.version == 6 and any(ip in network for network in _TUNNELS):
        return False
    return ip.is_global and not ip.is_multicast


def parse_networks(texts: Iterable[str]) -> tuple[_Network, ...]:
    """CIDR texts as networks.

    Raises:
        ValueError: one of them is not a network.
    """
    return tuple(ipaddress.ip_network(text.strip()) for text in texts if text.strip())


def guarded_connector(networks: Iterable[_Network], **options: Any) -> aiohttp.TCPConnector:
    """A connector that makes no socket for an address that is not allowed."""
    allowed = tuple(networks)

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), allowed):
            raise AddressRefused(f"connections to {address[0]} are not allowed for this destination")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return aiohttp.TCPConnector(socket_factory=make, **options)
