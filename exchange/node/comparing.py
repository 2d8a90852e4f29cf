"""Check the checkpoints that peers say they have seen: two that no one log holds show who keeps two.

* A checkpoint from elsewhere is held to the rule for one from its signer: it extends what was verified before, or is
  extended by it, or it is a fork.
* Only its signer can show that, and is asked. Who does not show it for a day is told of to the admins.
* A checkpoint in this node's own name that is not of its log: its keys are in use elsewhere, or it was set back.
* Where admins have verified a peer anew after a fork, what was signed before that is explained, and passed over.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.errors import CryptoError, ProofError
from exchange.crypto.merkle import verify_consistency
from exchange.crypto.names import Origin
from exchange.node.cards import peer_card
from exchange.node.continuity import Continuity
from exchange.node.errors import ForkDetected, NotNow, Unacceptable
from exchange.node.forks import explained_ms
from exchange.node.hearing import while_heard
from exchange.node.inbound import Inbound
from exchange.node.peer_client import PeerClient
from exchange.node.rounds import go_round
from exchange.node.services import Services, moment
from exchange.schema.card_file import card_keys
from exchange.schema.wire import Consistency
from exchange.store.errors import NotFound, StoreError
from exchange.store.log import consistency_between, latest_head, log_size
from exchange.store.messages import add_alarm, alarms_about
from exchange.store.peers import PeerRow, peer, verified_versions
from exchange.store.transaction import Operation, Transaction

_DAY_MS: Final = 86_400_000
_ASK_AGAIN_S: Final = 300.0
_AT_ONCE: Final = 4
#: Of each log, from each who tells: the oldest stays, which the signer has left unexplained the longest.
_MOST_WAITING: Final = 4


@dataclass(frozen=True, slots=True)
class Sighting:
    """A checkpoint that a peer says it has seen, and since when this node knows."""

    by: str
    text: str
    since_ms: int


class Comparing:
    """What peers have seen of each other's logs, and of this node's."""

    def __init__(self, services: Services, continuity: Continuity, inbound: Inbound, client: PeerClient) -> None:
        self._services = services
        self._continuity = continuity
        self._inbound = inbound
        self._client = client
        self._waiting: dict[str, dict[str, Sighting]] = {}
        self._agreed: dict[str, dict[str, tuple[datetime, int]]] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._woken = asyncio.Event()

    async def take(self, by: str, texts: Sequence[str]) -> None:
        """A verified peer tells which checkpoints it has seen. They are checked soon, and cost it no wait."""
        known = {origin for origin, _, _ in await self._services.store.read(verified_versions)}
        known = (known | {self._services.configuration.origin}) - {by}
        for text in texts:
            origin, _, _ = text.partition("\n")
            waiting = self._waiting.setdefault(origin, {}) if origin in known else None
            if waiting is None or text in waiting:
                continue
            told = sorted((one for one in waiting.values() if one.by == by), key=lambda one: one.since_ms)
            if len(told) >= _MOST_WAITING:
                del waiting[told[1].text]
            waiting[text] = Sighting(by, text, self._services.now_ms())
            self._woken.set()

    def describe(self, origin: str) -> dict[str, list[dict[str, Any]]]:
        """With whom a peer's log was compared since this node started, and whose sightings still wait for a proof."""
        agreed = [
            {"with": by, "at": at, "size": size} for by, (at, size) in sorted(self._agreed.get(origin, {}).items())
        ]
        waiting = [
            {"with": one.by, "since": moment(one.since_ms)} for one in list(self._waiting.get(origin, {}).values())
        ]
        return {"compared": agreed, "unproven": waiting}

    async def run(self, stop: asyncio.Event, every_s: float = _ASK_AGAIN_S) -> None:
        """Check what was told until `stop`; who does not answer then is not waited for."""
        await go_round(self._services, self.look, self._woken, every_s, stop)

    async def look(self) -> None:
        """Check all that waits."""
        async with asyncio.TaskGroup() as group:
            for origin in [origin for origin, waiting in self._waiting.items() if waiting]:
                group.create_task(self._check(origin))

    async def _check(self, origin: str) -> None:
        services = self._services
        async with self._at_once:
            try:
                if origin == services.configuration.origin:
                    await self._check_own()
                else:
                    await self._check_peer(origin)
            except (StoreError, Unacceptable) as error:
                services.log.warning("logs not compared", peer=origin, reason=str(error))
            except Exception as error:  # noqa: BLE001 - the root of a task: nothing that a peer tells may stop the node
                services.log.error("logs not compared", peer=origin, error=type(error).__name__)

    async def _check_peer(self, origin: str) -> None:
        services = self._services
        waiting = self._waiting[origin]
        try:
            row = await services.store.read(lambda tx: peer(tx, origin))
        except NotFound:
            row = None
        if row is None or row.state != "verified":
            # Where it was stopped, people see to it, and verify it anew.
            waiting.clear()
            return
        explained, answers = await services.store.read(lambda tx: explained_ms(tx, row)), True
        for sighting in list(waiting.values()):
            checkpoint = self._verified(sighting, origin, row)
            if checkpoint is None or checkpoint.signed_at_s * 1000 <= explained:
                waiting.pop(sighting.text, None)
                continue
            try:
                await self._follow(row, checkpoint, answers=answers)
            except ForkDetected as error:
                waiting.clear()
                detail = f"{error}; {sighting.by} has seen the other"
                fork = ForkDetected(detail, error.shown, error.signed_at_s)
                await self._inbound.quarantine(row, fork, sighting.text.encode())
                return
            except NotNow:
                if answers:
                    # The next time, another comes first: a signer may leave some unanswered, and answer others.
                    waiting[sighting.text] = waiting.pop(sighting.text)
                answers = False
                await self._remind(sighting, origin)
                continue
            waiting.pop(sighting.text, None)
            self._agree(origin, sighting, checkpoint)

    def _agree(self, origin: str, sighting: Sighting, checkpoint: Checkpoint) -> None:
        self._services.counters.add("logs_compared")
        self._agreed.setdefault(origin, {})[sighting.by] = (self._services.now(), checkpoint.size)

    def _verified(self, sighting: Sighting, origin: str, row: PeerRow) -> Checkpoint | None:
        """The checkpoint, if it is of the identity in force: of another it says nothing."""
        services = self._services
        try:
            return services.checkpoints.parse(sighting.text, Origin(origin), card_keys(peer_card(row)))
        except CryptoError:
            services.counters.add("sightings_passed_over")
            return None

    async def _follow(self, row: PeerRow, checkpoint: Checkpoint, *, answers: bool) -> None:
        """Hold a checkpoint against what was verified of its log; a signer that does not answer is not asked again."""

        async def ask(first: int, second: int) -> Sequence[bytes]:
            if not answers:
                raise NotNow(f"{row.origin} did not answer just now")
            try:
                return await self._client.fetch_consistency(row, first, second)
            except NotNow:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it answers, it has not shown what it was asked for
                raise NotNow(f"{row.origin} gave no answer: {type(error).__name__}") from None

        heads = await self._continuity.follow(checkpoint, Consistency(first=0, path=()), ask)
        await self._continuity.keep(heads, lambda head: while_heard(row, head))

    async def _remind(self, sighting: Sighting, origin: str) -> None:
        if self._services.now_ms() - sighting.since_ms < _DAY_MS:
            return
        detail = (
            f"{origin} has not shown for a day that its log is the one of which {sighting.by} has seen a checkpoint"
        )
        now_ms = self._services.now_ms()

        async def operation(tx: Transaction) -> bool:
            if not await _is_news(tx, "history-not-shown", origin, now_ms):
                return False
            await add_alarm(tx, "history-not-shown", origin, detail, now_ms)
            return True

        if await self._services.store.write(operation):
            self._tell("history-not-shown", origin, detail)

    async def _check_own(self) -> None:
        """Hold what peers have seen in this node's name against its log."""
        services = self._services
        origin = services.configuration.origin
        waiting = self._waiting[origin]
        for sighting in list(waiting.values()):
            try:
                checkpoint = services.checkpoints.parse(sighting.text, origin, services.keyring.verifiers)
            except CryptoError:
                waiting.pop(sighting.text, None)
                continue
            if await services.store.read(_own(checkpoint)):
                self._agree(origin, sighting, checkpoint)
            else:
                await self._contradicted(sighting, checkpoint)
            waiting.pop(sighting.text, None)

    async def _contradicted(self, sighting: Sighting, checkpoint: Checkpoint) -> None:
        services = self._services
        origin, now_ms = services.configuration.origin, services.now_ms()
        detail = (
            f"{sighting.by} has seen a checkpoint of {checkpoint.size} statements in this node's name that is not of "
            "its log: its keys are used elsewhere, or it was set back to an old copy"
        )

        async def operation(tx: Transaction) -> bool:
            if not await _is_news(tx, "own-log", origin, now_ms):
                return False
            await add_alarm(tx, "own-log", origin, detail, now_ms)
            return True

        if await services.store.write(operation):
            self._tell("own-log", origin, detail)

    def _tell(self, kind: str, origin: str, detail: str) -> None:
        self._services.counters.add(f"alarms_{kind}")
        self._services.log.error("alarm", code=kind, peer=origin, reason=detail)
        self._services.changes.notify()


async def _is_news(tx: Transaction, kind: str, origin: str, now_ms: int) -> bool:
    """Whether the admins were not told that in the last day."""
    told = await alarms_about(tx, kind, origin)
    return not told or not 0 <= now_ms - told[0][0] < _DAY_MS


def _own(seen: Checkpoint) -> Operation[bool]:
    """Whether this node's log holds the tree of a checkpoint in its name."""

    async def holds(tx: Transaction) -> bool:
        size = await log_size(tx)
        if seen.size > size:
            return False
        try:
            path = await consistency_between(tx, seen.size, size)
            verify_consistency(seen.size, size, path, seen.root, (await latest_head(tx)).root)
        except ProofError:
            return False
        return True

    return holds
