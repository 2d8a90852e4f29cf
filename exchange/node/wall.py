"""The listener's TLS while the node runs: whom it admits, and with which certificate it proves itself.

* With `listen.mutual`, whoever is not a verified peer is refused in the handshake, and its open connections are closed.
  That comes before the proof in each envelope, and replaces nothing of it: what an envelope may do is decided in the
  store, in the transaction that keeps it.
* A peer is what the store says: contexts are made anew whenever the verified peers or their cards have changed.
* A new certificate is taken from its files without a restart. Where peers pin its key, a card that names both keys goes
  first; the listener changes over once they have that card, or could have had it.
* Files that do not fit together change nothing: a renewal writes one after the other.
"""

import asyncio
import contextlib
import ssl
from datetime import timedelta
from typing import Final

from exchange.node.cards import own_card, peer_card, stored_card
from exchange.node.delivery import Dispatcher
from exchange.node.epochs import renew_card
from exchange.node.errors import CertificateUnusable
from exchange.node.listener import Connections
from exchange.node.services import Services, moment
from exchange.node.tls import (
    Door,
    ListenerCertificate,
    is_usable_anchor,
    listener_certificate,
    listening_context,
    mutual_context,
    read_certificate_files,
    spki_sha256,
)
from exchange.store.errors import StoreError, StoreUnavailable
from exchange.store.outbox import lanes_awaiting_card
from exchange.store.peers import all_peers, verified_versions
from exchange.store.transaction import Transaction

_LOOK_EVERY_S: Final = 5.0
#: Changes are told; this is for those that nobody tells.
_COUNT_EVERY_S: Final = 2.0
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS


class Wall:
    """Keeps the listener's context as the peers and the certificate's files are."""

    def __init__(self, services: Services, connections: Connections, dispatcher: Dispatcher) -> None:
        self._services = services
        self._connections = connections
        self._dispatcher = dispatcher
        self._mutual = services.configuration.tables.listen.mutual
        self._files: tuple[bytes, bytes] | None = None
        self._versions: tuple[tuple[str, str, int], ...] | None = None
        #: Certificates that admit, each with its pin. Two may have one key: one peer's must not take another's place.
        self._anchors: dict[bytes, bytes] = {}
        self._pins: frozenset[bytes] = frozenset()
        self._unusable: set[bytes] = set()
        self._followed_since_ms = 0
        self._warned_at_ms: int | None = None
        self.door: Door | None = None
        self.open_door: Door | None = None

    async def raise_up(self) -> None:
        """Make the listener's contexts; where the node does no TLS itself there are none."""
        if self._services.certificates.serving is None:
            return
        if self._mutual:
            await self.count_peers()
        self._change_context()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the peers and the certificate's files until `stop`."""
        if self.door is None:
            return
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow_files())]
            if self._mutual:
                tasks.append(group.create_task(self._follow_peers()))
            await stop.wait()
            for task in tasks:
                task.cancel()

    def admits(self, pin: bytes) -> bool:
        """Whether a key is one with which a verified peer calls."""
        return pin in self._pins

    def describe(self) -> dict[str, object] | None:
        """The listener's TLS for an admin or a script; None where the node does none itself."""
        certificates = self._services.certificates
        if certificates.serving is None:
            return None
        return {
            "mutual": self._mutual,
            "certificate_ends_at": certificates.serving.not_after,
            "pins": [pin.hex() for pin in certificates.pins],
            "announced": certificates.following is not None,
            "admitted": len(self._pins),
        }

    # Peers

    async def _follow_peers(self) -> None:
        while True:
            change = self._services.changes.next()
            try:
                await self.count_peers()
            except StoreUnavailable as error:
                self._services.log.error("store unavailable", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COUNT_EVERY_S):
                    await change.wait()

    async def count_peers(self) -> None:
        """Admit those who are verified now, and nobody else."""
        versions = await self._services.store.read(verified_versions)
        if versions == self._versions:
            return
        anchors: dict[bytes, bytes] = {}
        for row in await self._services.store.read(all_peers):
            if row.state != "verified":
                continue
            for certificate in peer_card(row).tls_client_certificates:
                if is_usable_anchor(certificate):
                    anchors[certificate] = spki_sha256(certificate)
                elif certificate not in self._unusable:
                    self._unusable.add(certificate)
                    self._services.log.warning("certificate not usable", peer=row.origin)
        self._versions = versions
        if anchors != self._anchors:
            self._anchors, self._pins = anchors, frozenset(anchors.values())
            if self.door is not None:
                self._change_context()
            self._connections.close_where(lambda pin: not self.admits(pin))

    def _change_context(self) -> None:
        certificate = self._services.certificates.serving
        assert certificate is not None  # noqa: S101 - `raise_up` has seen it
        opened = listening_context(certificate)
        closed: ssl.SSLContext = opened
        if self._mutual:
            closed = mutual_context(certificate, self._anchors, self.admits, self._refused)
        if self.door is None or self.open_door is None:
            self.door, self.open_door = Door(closed), Door(opened)
        else:
            self.door.current, self.open_door.current = closed, opened

    def _refused(self) -> None:
        self._services.counters.add("connections_refused")

    # Files

    async def _follow_files(self) -> None:
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._services.log.error("store unavailable", error=str(error))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Take a new certificate from the files, bring a change under way further, and warn of an end."""
        services = self._services
        try:
            configuration = services.configuration
            files = await asyncio.to_thread(read_certificate_files, configuration, configuration.tables.listen)
            if files != self._files:
                self._files = files
                await self._take(listener_certificate(*files))
        except (OSError, CertificateUnusable) as error:
            services.log.warning("certificate not taken", reason=str(error))
        if services.certificates.following is not None and await self._may_follow():
            await self._follow()
        self._warn()

    async def _take(self, found: ListenerCertificate) -> None:
        services, certificates = self._services, self._services.certificates
        serving = certificates.serving
        if serving is None or found.pem.reveal() == serving.pem.reveal():
            await self._take_back()
            return
        if found.not_after <= services.now():
            raise CertificateUnusable("the new certificate has expired")
        if found.pin == serving.pin or not self._mutual:
            certificates.serving = found
            self._change_context()
            services.log.info("certificate renewed")
            await self._take_back()
            return
        certificates.following, self._followed_since_ms = found, services.now_ms()
        services.log.info("certificate announced")
        await renew_card(services, self._dispatcher)

    async def _take_back(self) -> None:
        if self._services.certificates.following is not None:
            self._services.certificates.following = None
            await renew_card(self._services, self._dispatcher)

    async def _may_follow(self) -> bool:
        """Whether the peers know the next certificate's key, or have had the time to ask for the card that names it."""
        services, certificates = self._services, self._services.certificates
        following, serving = certificates.following, certificates.serving
        entry = await own_card(services)
        if following is None or following.pin not in stored_card(entry.statement).tls_spki_sha256:
            return False  # the card could not be signed; the next turn of the epoch tries again
        waited_ms = services.now_ms() - self._followed_since_ms
        patience_ms = 2 * services.configuration.tables.keys.card_refresh_hours * _HOUR_MS
        ends_soon = serving is None or serving.not_after - services.now() < timedelta(milliseconds=patience_ms)
        if ends_soon or not 0 <= waited_ms < patience_ms:
            return True

        async def all_told(tx: Transaction) -> bool:
            verified = {f"peer:{row.origin}" for row in await all_peers(tx) if row.state == "verified"}
            return verified.isdisjoint(await lanes_awaiting_card(tx))

        return await services.store.read(all_told)

    async def _follow(self) -> None:
        certificates = self._services.certificates
        certificates.serving, certificates.following = certificates.following, None
        self._change_context()
        self._services.log.info("certificate renewed")
        await renew_card(self._services, self._dispatcher)

    def _warn(self) -> None:
        services, serving = self._services, self._services.certificates.serving
        now_ms = services.now_ms()
        if serving is None or not serving.is_near_its_end(moment(now_ms)):
            return
        if self._warned_at_ms is None or not 0 <= now_ms - self._warned_at_ms < _DAY_MS:
            self._warned_at_ms = now_ms
            ends = f"{serving.not_after:%Y-%m-%d %H:%M} UTC"
            services.log.warning("certificate is near its end", reason=f"it ends at {ends}; renew it")
