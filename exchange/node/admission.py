"""What is taken of a peer, and whether there is room for it.

* A peer has an hour's worth of messages and bytes at once, which fills again steadily. A quarter is for what is urgent.
* Only a message that is new here counts: a peer's card is public, and whoever recorded an envelope can send it again.
  What others pass on in its name uses up nothing of what it may send.
* Chunks of attachments have an allowance of their own: they use up nothing that is for messages.
* The store holds so much of each peer; the disk keeps so much free.
* Receipts and cards are let through where messages are not: they end what is here, and are small.
* So is a message that is here already: its sender lacks nothing but the receipt.
* What is not taken stays with its sender, who is told when to come again. Nothing is lost by it.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from exchange.handover.rates import FULL, HOUR_MS, Level, Rate, give_back, take, wait_ms
from exchange.node.config import LimitsTable
from exchange.node.errors import AtLimit, PeerAtLimit, PeerAtQuota, QueueFull, StoreFull
from exchange.store.errors import StoreUnavailable
from exchange.store.messages import add_alarm, alarms_about
from exchange.store.outbox import backlog
from exchange.store.transaction import Operation, Transaction
from exchange.store.usage import Used, used_after

if TYPE_CHECKING:
    from exchange.node.services import Services

_URGENT_SHARE: Final = 0.25
_LOOK_EVERY_S: Final = 5.0
_DAY_MS: Final = 24 * HOUR_MS
_MIB: Final = 1024 * 1024
_ASK_AGAIN_S: Final = 300.0
_SCANNED_AT_ONCE: Final = 2000


@dataclass(frozen=True, slots=True)
class Brought:
    """The messages of an envelope as they come, and what is asked only where it matters."""

    messages: int
    size_bytes: int
    urgent: Callable[[], bool]
    here_already: Operation[bool]


@dataclass(slots=True)
class _Peer:
    """What a peer has used up, and when it was last told to wait, for what."""

    messages: Level = FULL
    bytes: Level = FULL
    chunks: Level = FULL
    limit: str = ""
    refused: int = 0
    refused_ms: int = 0


_UNSEEN: Final = _Peer()


@dataclass(slots=True)
class _Disk:
    free_bytes: int | None = None
    is_full: bool = False


@dataclass(slots=True)
class _Stored:
    """What the store holds of each peer, as far as it was counted."""

    of: dict[str, Used] = field(default_factory=dict)
    up_to: int = 0
    since_ms: int = 0


class Admission:
    """Decides what is taken of peers, and of this borough's own programs for them."""

    def __init__(self, table: LimitsTable) -> None:
        self.table = table
        self._messages = Rate(table.peer_messages_per_hour, HOUR_MS)
        self._bytes = Rate(table.peer_mib_per_hour * _MIB, HOUR_MS)
        self._chunks = Rate(table.peer_attachment_mib_per_hour * _MIB, HOUR_MS)
        self._peers: dict[str, _Peer] = {}
        self._disk = _Disk()
        self._stored = _Stored()
        self._waiting: dict[str, int] = {}

    async def look_at(self, services: "Services", origin: str, brought: Brought) -> None:
        """Whether there is room for what a peer brings; it is counted when it is taken.

        Raises:
            PeerAtLimit: the peer has sent enough for now.
            PeerAtQuota: the store holds enough of it.
            StoreFull: the disk is nearly full.
        """
        try:
            await self._check(services, origin, brought)
        except AtLimit as error:
            if await services.store.read(brought.here_already, brief=True):
                return
            self._note_refusal(services, origin, error)
            if isinstance(error, PeerAtQuota):
                await self._tell_of_quota(services, origin)
            raise

    def _note_refusal(self, services: "Services", origin: str, error: AtLimit) -> None:
        peer = self._peers.setdefault(origin, _Peer())
        peer.limit, peer.refused_ms, peer.refused = error.code, services.now_ms(), peer.refused + 1
        services.counters.add(f"envelopes_{error.code.replace('-', '_')}")

    async def _check(self, services: "Services", origin: str, brought: Brought) -> None:
        if self._disk.is_full:
            raise StoreFull("the disk of this node is nearly full", _ASK_AGAIN_S)
        used = self._stored.of.get(origin, Used())
        if used.messages >= self.table.peer_store_messages or used.bytes >= self.table.peer_store_gib * 1024 * _MIB:
            raise PeerAtQuota("the store of this node holds as much of yours as it may", _ASK_AGAIN_S)
        now_ms = services.now_ms()
        waits_ms = self._wait_ms(origin, brought, now_ms, _URGENT_SHARE)
        if waits_ms and brought.urgent():
            waits_ms = self._wait_ms(origin, brought, now_ms, 0)
        if waits_ms:
            raise PeerAtLimit(f"{origin} has sent as much as it may in an hour", waits_ms / 1000)

    def _wait_ms(self, origin: str, brought: Brought, now_ms: int, kept_back: float) -> float:
        peer = self._peers.get(origin, _UNSEEN)
        return max(
            wait_ms(self._messages, peer.messages, brought.messages, now_ms, kept_back),
            wait_ms(self._bytes, peer.bytes, brought.size_bytes, now_ms, kept_back),
        )

    async def _tell_of_quota(self, services: "Services", origin: str) -> None:
        used, now_ms = self._stored.of.get(origin, Used()), services.now_ms()
        detail = f"{origin} fills its share of the store: {used.messages} messages, {used.bytes // _MIB} MiB"

        async def operation(tx: Transaction) -> bool:
            if not await _is_news(tx, "peer-quota", origin, now_ms):
                return False
            await add_alarm(tx, "peer-quota", origin, detail, now_ms)
            return True

        if await services.store.write(operation):
            _tell(services, "peer-quota", origin, detail)

    def count(self, origin: str, size_bytes: int, now_ms: int) -> None:
        """Count a message that is about to be stored. What came at once with others may overdraw, and is paid off."""
        peer = self._peers.setdefault(origin, _Peer())
        peer.messages = take(self._messages, peer.messages, 1, now_ms)
        peer.bytes = take(self._bytes, peer.bytes, size_bytes, now_ms)

    def give_back(self, origin: str, size_bytes: int) -> None:
        """A message that was counted was here already, or could not be stored."""
        peer = self._peers[origin]
        peer.messages = give_back(self._messages, peer.messages, 1)
        peer.bytes = give_back(self._bytes, peer.bytes, size_bytes)

    def check_sending(self, lane: str) -> None:
        """Whether this borough's own programs may send more to a peer.

        Raises:
            StoreFull: the disk is nearly full.
            QueueFull: as much waits for that peer as may.
        """
        self.check_room()
        if self._waiting.get(lane, 0) >= self.table.queue_messages:
            raise QueueFull(f"{self._waiting[lane]} deliveries wait for {lane.partition(':')[2]}", _ASK_AGAIN_S)

    def check_room(self) -> None:
        """Whether the disk has room for what this borough's own programs bring.

        Raises:
            StoreFull: the disk is nearly full.
        """
        if self._disk.is_full:
            raise StoreFull("the disk of this node is nearly full; nothing was sent", _ASK_AGAIN_S)

    def look_at_chunks(self, services: "Services", origin: str, size_bytes: int) -> None:
        """Whether there is room for chunks of a peer's attachments; they are counted when they are taken.

        Raises:
            PeerAtLimit: the peer has sent enough for now.
            StoreFull: the disk is nearly full.
        """
        try:
            if self._disk.is_full:
                raise StoreFull("the disk of this node is nearly full", _ASK_AGAIN_S)
            level = self._peers.get(origin, _UNSEEN).chunks
            waits_ms = wait_ms(self._chunks, level, size_bytes, services.now_ms(), 0)
            if waits_ms:
                raise PeerAtLimit(f"{origin} has sent as much of attachments as it may in an hour", waits_ms / 1000)
        except AtLimit as error:
            self._note_refusal(services, origin, error)
            raise

    def count_chunks(self, origin: str, size_bytes: int, now_ms: int) -> None:
        """Count chunks that were taken."""
        peer = self._peers.setdefault(origin, _Peer())
        peer.chunks = take(self._chunks, peer.chunks, size_bytes, now_ms)

    def check_attachment(self, origin: str, held_bytes: int, size_bytes: int) -> None:
        """Whether the store may hold one more attachment of a peer, beside what it holds.

        Raises:
            PeerAtQuota: it may not.
        """
        if held_bytes + size_bytes > self.table.peer_attachment_gib * 1024 * _MIB:
            raise PeerAtQuota(f"the store holds as much of the attachments of {origin} as it may", _ASK_AGAIN_S)

    def describe(self, now_ms: int) -> dict[str, Any]:
        """Who was at a limit in the last hour, and how the disk is."""
        peers = [
            {"origin": origin, "limit": peer.limit, "refused": peer.refused, "last_at": _moment(peer.refused_ms)}
            for origin, peer in sorted(self._peers.items())
            if peer.refused and 0 <= now_ms - peer.refused_ms < HOUR_MS
        ]
        return {
            "peers": peers,
            "stored": [
                {"origin": origin, "messages": used.messages, "bytes": used.bytes}
                for origin, used in sorted(self._stored.of.items())
            ],
            "queues": [
                lane.partition(":")[2]
                for lane, count in sorted(self._waiting.items())
                if lane.startswith("peer:") and count >= self.table.queue_messages
            ],
            "disk_full": self._disk.is_full,
            "disk_free_bytes": self._disk.free_bytes,
        }

    async def run(self, services: "Services", stop: asyncio.Event, every_s: float = _LOOK_EVERY_S) -> None:
        """Look at the disk and the store again and again, until `stop`."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_again(services, every_s))
            await stop.wait()
            looking.cancel()

    async def _look_again(self, services: "Services", every_s: float) -> None:
        while True:
            try:
                await self.look(services)
            except (OSError, StoreUnavailable) as error:
                services.log.error("limits not looked at", error=str(error))
            await asyncio.sleep(every_s)

    async def look(self, services: "Services") -> None:
        """See how full the disk is, and count what has come into the store since the last look."""
        self._waiting = {lane: count for lane, state, count in await services.store.read(backlog) if state == "due"}
        await self._count_stored(services)
        if services.configuration.store_file is not None:
            await self._look_at_disk(services, os.statvfs(services.configuration.store_file.parent))

    async def _count_stored(self, services: "Services") -> None:
        now_ms = services.now_ms()
        if not 0 <= now_ms - self._stored.since_ms < _DAY_MS:
            # What was erased in the meantime counts no more.
            stored = _Stored(since_ms=now_ms)
        else:
            stored = _Stored(dict(self._stored.of), self._stored.up_to, self._stored.since_ms)
        more = True
        while more:
            found, up_to = await services.store.read(used_after(stored.up_to, _SCANNED_AT_ONCE))
            more = up_to > stored.up_to
            stored.up_to = up_to
            for origin, used in found.items():
                stored.of[origin] = stored.of.get(origin, Used()).plus(used)
        self._stored = stored

    async def _look_at_disk(self, services: "Services", disk: os.statvfs_result) -> None:
        least = self.table.least_free_mib * _MIB
        free = disk.f_bavail * disk.f_frsize
        # With a little more than the least it is full until there is clearly room again: not on and off.
        is_full = free < (least * 9 // 8 if self._disk.is_full else least)
        was_full, self._disk = self._disk.is_full, _Disk(free, is_full)
        if is_full == was_full:
            return
        if not is_full:
            services.log.info("the disk has room again", size_bytes=free)
            return
        origin, now_ms = services.configuration.origin, services.now_ms()
        detail = f"{free // _MIB} MiB are free on the disk of the store; new messages are not taken"

        async def operation(tx: Transaction) -> None:
            if await _is_news(tx, "store-full", origin, now_ms):
                await add_alarm(tx, "store-full", origin, detail, now_ms)

        _tell(services, "store-full", origin, detail)
        await services.store.write(operation)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _tell(services: "Services", kind: str, origin: str, detail: str) -> None:
    services.counters.add(f"alarms_{kind}")
    services.log.error("alarm", code=kind, peer=origin, reason=detail)
    services.changes.notify()


async def _is_news(tx: Transaction, kind: str, origin: str, now_ms: int) -> bool:
    """Whether the admins were not told that in the last day."""
    told = await alarms_about(tx, kind, origin)
    return not told or not 0 <= now_ms - told[0][0] < _DAY_MS
