"""Tell each peer which checkpoints this node has verified, of that peer and of all others, so that logs are compared.

* A checkpoint bears its signer's own signatures: who passes it on can slander nobody.
* It travels in an envelope to a verified peer, which alone can open it. Replies tell nothing: whoever shows a public
  card of a peer gets one.
* Each peer is told once in an interval, and at once when a log was seen to fork. What it was told is not told again.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

from exchange.node.forks import forks_of
from exchange.node.peering import greet
from exchange.node.services import Services
from exchange.schema.wire import MOST_SEEN
from exchange.store.errors import StoreError
from exchange.store.peers import all_peers, peer_head
from exchange.store.transaction import Transaction

HOUR_MS: Final = 3_600_000
_LOOK_EVERY_S: Final = 30.0


class Telling:
    """What each peer was told, and what it is to be told next."""

    def __init__(self, services: Services, wake: Callable[[str], None]) -> None:
        self._services = services
        self._wake = wake
        self._chance = random.SystemRandom()
        #: When each peer was last told, and when an envelope was last made only to tell it.
        self._told_ms: dict[str, int] = {}
        self._queued_ms: dict[str, int] = {}
        self._told: dict[str, set[str]] = {}
        self._woken = asyncio.Event()

    @property
    def interval_ms(self) -> int:
        """How often a peer is told."""
        return round(self._services.configuration.tables.trust.compare_logs_hours * HOUR_MS)

    async def offer(self, origin: str) -> tuple[str, ...]:
        """What to tell a peer in the envelope that is being made for it; mostly nothing."""
        if not self._is_due(self._told_ms, origin):
            return ()
        _, seen = await self._services.store.read(self._collect)
        fresh = self._fresh(origin, seen)
        if not fresh:
            self._told_ms[origin] = self._services.now_ms()
        return fresh

    def told(self, origin: str, offered: tuple[str, ...]) -> None:
        """A peer has taken an envelope with what was offered."""
        if offered:
            self._told.setdefault(origin, set()).update(offered)
            self._told_ms[origin] = self._services.now_ms()

    def soon(self) -> None:
        """Something was seen that every peer should know now."""
        self._told_ms.clear()
        self._queued_ms.clear()
        self._woken.set()

    async def run(self, stop: asyncio.Event, every_s: float | None = None) -> None:
        """Tell the peers that have something to hear, until `stop`."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_again(every_s or min(_LOOK_EVERY_S, self.interval_ms / 4000)))
            await stop.wait()
            looking.cancel()

    async def _look_again(self, every_s: float) -> None:
        while True:
            self._woken.clear()
            try:
                await self.look()
            except StoreError as error:
                self._services.log.error("store unavailable", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._woken.wait()

    async def look(self) -> None:
        """Queue the node's card for each peer that is to be told something: no envelope is without a statement."""
        services = self._services
        heard, seen = await services.store.read(self._collect)
        due = [
            origin
            for origin in heard
            if self._is_due(self._told_ms, origin)
            and self._is_due(self._queued_ms, origin)
            and self._fresh(origin, seen)
        ]

        async def operation(tx: Transaction) -> None:
            for origin in due:
                await greet(tx, services, origin)

        if due:
            await services.store.write(operation)
        for origin in due:
            # Not all at the same moment the next time.
            self._queued_ms[origin] = services.now_ms() - round(self.interval_ms * self._chance.random() / 4)
            self._wake(f"peer:{origin}")

    def _is_due(self, times: dict[str, int], origin: str) -> bool:
        last_ms = times.get(origin)
        return last_ms is None or not 0 <= self._services.now_ms() - last_ms < self.interval_ms

    def _fresh(self, origin: str, seen: list[str]) -> tuple[str, ...]:
        told = self._told.setdefault(origin, set())
        told.intersection_update(seen)
        return tuple(text for text in seen if text not in told)[:MOST_SEEN]

    async def _collect(self, tx: Transaction) -> tuple[list[str], list[str]]:
        """The verified peers; and every peer's latest checkpoint, of one whose log forked both that contradict."""
        heard: list[str] = []
        seen: list[str] = []
        for row in await all_peers(tx):
            if row.state == "verified":
                heard.append(row.origin)
                head = await peer_head(tx, row.origin)
                seen += [head.checkpoint] if head is not None else []
            elif row.state == "quarantined":
                forks = [fork.evidence for fork in await forks_of(tx, self._services, row.origin) if fork.evidence]
                seen += [text for text in (forks[0].held, forks[0].checkpoint) if text] if forks else []
        return heard, seen
