"""The guard on outbound connections: it looks at the address that is connected to, not at the name.

Only globally routable addresses, unless the admin allowed the network; without TLS, only networks that the admin
allowed. aiohttp's resolver hook is bypassed by addresses written into the URL, so the guard sits where the socket is
made.
"""

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import aiohttp

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

#: All of IPv6 that is routed globally: what is outside is local, translated (NAT64, mapped) or not assigned.
_UNICAST: Final = ipaddress.ip_network("2000::/3")
#: Not in every version of Python does `is_global` say no to these: protocol addresses, relays, Teredo, 6to4, examples.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
)


class AddressRefused(OSError):
    """The address is neither globally routable nor allowed for this destination."""


def why_unreachable(error: Exception) -> str:
    """Why there is no connection, in words for the admin; nothing of what the other side may have said."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return "the proxy cannot be reached"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        reason = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
        return f"its certificate is not trusted: {reason}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not in the DNS"
    cause = getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientSSLError) or isinstance(cause, ssl.SSLError):
        return "no TLS 1.3 connection could be made"
    if isinstance(cause, AddressRefused):
        return str(cause)
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number).lower() if number is not None and number in errno.errorcode else type(error).__name__


def is_allowed(address: str, networks: Iterable[Network], *, elsewhere: bool = True) -> bool:
    """Whether a connection to `address` may be made: in `networks`, and `elsewhere` where it is globally routable."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip.version == network.version and ip in network for network in networks):
        return True
    if not elsewhere or any(ip.version == network.version and ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and (ip.version == 4 or ip in _UNICAST)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """CIDR texts as networks.

    Raises:
        ValueError: one of them is not a network.
    """
    return tuple(ipaddress.ip_network(text.strip()) for text in texts if text.strip())


def refuse_literal(host: str, networks: Iterable[Network], *, elsewhere: bool = True) -> None:
    """Check a host that is an address: behind a proxy, that is all that can be seen of where a connection leads.

    Raises:
        AddressRefused: it is one that is not allowed.
    """
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if not is_allowed(host, networks, elsewhere=elsewhere):
        raise AddressRefused(f"connections to {host} are not allowed for this destination")


def guarded_connector(networks: Iterable[Network], *, elsewhere: bool = True, **options: Any) -> aiohttp.TCPConnector:
    """A connector that makes no socket for an address that is not allowed."""
    allowed = tuple(networks)

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), allowed, elsewhere=elsewhere):
            raise AddressRefused(f"connections to {address[0]} are not allowed for this destination")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return aiohttp.TCPConnector(socket_factory=make, **options)
