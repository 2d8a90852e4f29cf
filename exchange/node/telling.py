"""Tell every peer which checkpoints this node has verified, of that peer and of all others, so that logs are compared.

* A checkpoint bears its signer's own signatures: who passes it on can slander nobody.
* What is told is under a `sightings` statement: else anybody could tell things beside a peer's public card, and crowd
  out what the peer itself tells. The statement has a hash alone, so that the log grows little.
* All peers are told the same, once in an interval where anything is new, once a day in any case, and at once when a log
  was seen to fork. Of one that forked, both checkpoints are told, to whoever comes to know it later too.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import Final

import msgspec

from exchange.node.forks import forks_of
from exchange.node.rounds import go_round
from exchange.node.services import Services
from exchange.schema.wire import MOST_SEEN, SIGHTINGS, VERSION, Sightings, encode_wire
from exchange.store.outbox import enqueue_sightings
from exchange.store.peers import all_peers, peer_head
from exchange.store.sightings import Told, keep_told, last_told
from exchange.store.transaction import Transaction

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_LOOK_EVERY_S: Final = 30.0


class Telling:
    """Signs and queues what peers are told."""

    def __init__(self, services: Services, wake: Callable[[str], None]) -> None:
        self._services = services
        self._wake = wake
        self._chance = random.SystemRandom()
        self._hurried = False
        #: Who has never told anything waits for an interval too: nothing is known yet that anybody should hear at once.
        self._since_ms = services.now_ms()
        self._woken = asyncio.Event()

    @property
    def interval_ms(self) -> int:
        """How often peers are told."""
        return round(self._services.configuration.tables.trust.compare_logs_hours * _HOUR_MS)

    def soon(self) -> None:
        """Something was seen that every peer should know now."""
        self._hurried = True
        self._woken.set()

    async def run(self, stop: asyncio.Event, every_s: float | None = None) -> None:
        """Tell the peers what is due, until `stop`."""
        await go_round(
            self._services, self.look, self._woken, every_s or min(_LOOK_EVERY_S, self.interval_ms / 4000), stop
        )

    async def look(self) -> None:
        """Tell every verified peer what was seen, where that is due."""
        last = await self._services.store.read(last_told)
        if not self._hurried and not self._is_due(last, self.interval_ms):
            return
        hurried, self._hurried = self._hurried, False
        for origin in await self._services.store.write(lambda tx: self._tell(tx, hurried=hurried)):
            self._wake(f"peer:{origin}")

    def _is_due(self, last: Told | None, after_ms: int) -> bool:
        since_ms = self._since_ms if last is None else last.at_ms
        return not 0 <= self._services.now_ms() - since_ms < after_ms

    async def _tell(self, tx: Transaction, *, hurried: bool) -> list[str]:
        """Sign what was seen and queue it; return whom it is for."""
        last = await last_told(tx)
        if not hurried and not self._is_due(last, self.interval_ms):
            return []  # another replica was quicker
        heard, seen = await self._collect(tx)
        if not heard or not seen:
            return []
        if last is not None and seen == last.seen and not self._is_due(last, _DAY_MS):
            return []
        now_ms = self._services.now_ms()
        digest = hashlib.sha256(msgspec.msgpack.encode(seen)).digest()
        body = Sightings(version=VERSION, at=self._services.now(), seen_sha256=digest)
        entry = await tx.sign(SIGHTINGS, encode_wire(body))
        await keep_told(tx, Told(entry.position, now_ms, seen))
        for origin in heard:
            await enqueue_sightings(tx, f"peer:{origin}", entry.position, now_ms, now_ms + 30 * _DAY_MS)
        return heard

    async def _collect(self, tx: Transaction) -> tuple[list[str], tuple[str, ...]]:
        """The verified peers; and every peer's latest checkpoint, of one whose log forked both that contradict."""
        heard: list[str] = []
        forked: list[str] = []
        seen: list[str] = []
        for row in await all_peers(tx):
            if row.state == "verified":
                heard.append(row.origin)
                head = await peer_head(tx, row.origin)
                seen += [head.checkpoint] if head is not None else []
            elif row.state == "quarantined":
                forks = [fork.evidence for fork in await forks_of(tx, self._services, row.origin) if fork.evidence]
                forked += [text for text in (forks[0].held, forks[0].checkpoint) if text] if forks else []
        if len(forked) + len(seen) > MOST_SEEN:
            # Not all fit: others the next time.
            self._chance.shuffle(seen)
        return heard, tuple((forked + seen)[:MOST_SEEN])
