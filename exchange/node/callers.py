"""Who calls, as far as an address says, and how often those may ask who prove nothing.

* An address of IPv6 stands for its /64: whoever has one has all of it.
* Behind a proxy that the admin trusts, it is the last address in X-Forwarded-For that is none of a trusted proxy. What
  stands before that was written by who calls, and may be anything.
* Of the machine itself, and of a trusted proxy that does not say for whom it calls, nothing is known: no limit for an
  address would tell one caller from all.
* A request counts, the more the more it brings, until it has told what only a peer can tell, and told it for the first
  time: peers have limits of their own. A peer's card, or an envelope that somebody recorded, can be sent by everybody.
"""

import ipaddress
from collections import OrderedDict
from typing import Final

from aiohttp import web

from exchange.handover.rates import FULL, MINUTE_MS, Level, Rate, give_back, take, wait_ms
from exchange.node.config import LimitsTable
from exchange.node.egress import LOOPBACK, Network, parse_networks

#: Whoever has more addresses than this has enough of them for no limit to hold.
_MOST_CALLERS: Final = 8192

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """An address as a proxy may write it, with a port or in brackets too; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Callers:
    """The addresses that have called, and what each has used up."""

    def __init__(self, table: LimitsTable) -> None:
        self._rate = Rate(table.address_requests_per_minute, MINUTE_MS)
        self._proxies: tuple[Network, ...] = parse_networks(table.trusted_proxies)
        self._levels: OrderedDict[str, Level] = OrderedDict()

    def at(self, text: str) -> str | None:
        """The name of the caller at the other end of a connection; None where that tells nothing."""
        address = parse_address(text)
        if address is None or self._is_in(address, LOOPBACK) or self._is_in(address, self._proxies):
            return None
        return _name(address)

    def of(self, request: web.Request) -> str | None:
        """The name of the caller behind a request; None where it cannot be told."""
        address = parse_address(request.remote or "")
        if address is None or not self._is_in(address, self._proxies):
            return self.at(request.remote or "")
        for text in reversed(",".join(request.headers.getall("x-forwarded-for", [])).split(",")):
            address = parse_address(text)
            if address is None:
                return None
            if not self._is_in(address, self._proxies):
                return _name(address)
        return None

    def wait_ms(self, caller: str | None, cost: float, now_ms: int) -> float:
        """Count a request that costs so much; how long its caller has to wait with it, 0 where it need not."""
        if caller is None:
            return 0
        level = self._levels.pop(caller, FULL)
        waits_ms = wait_ms(self._rate, level, cost, now_ms)
        self._levels[caller] = level.later(now_ms) if waits_ms else take(self._rate, level, cost, now_ms)
        while len(self._levels) > _MOST_CALLERS:
            self._levels.popitem(last=False)
        return waits_ms

    def proven(self, caller: str | None, cost: float) -> None:
        """The request just counted was of a peer, and counts there."""
        if caller is not None and caller in self._levels:
            self._levels[caller] = give_back(self._rate, self._levels[caller], cost)

    def describe(self, now_ms: int) -> int:
        """How many addresses have to wait now."""
        return sum(1 for level in self._levels.values() if wait_ms(self._rate, level, 1, now_ms))

    @staticmethod
    def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
        return any(address in network for network in networks)


def _name(address: Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
