"""Fetch the cards of peers: on schedule, when a sealing key is near its end, and before sending where there is none.

* A card that is fetched goes through the same table as one that was sent: it moves no trust, and another identity
  without proof blocks the peer.
* A card that is older than the one in force, has expired, or names another area or origin is refused.
* Its checkpoint must continue the peer's log, as every other: a fork shows here too.
* Only verified peers are asked. One that does not answer holds up nobody else.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from exchange.node.cards import has_expired, peer_card
from exchange.node.compose import current_key
from exchange.node.continuity import Continuity
from exchange.node.errors import (
    ForkDetected,
    IdentityRevoked,
    NoCurrentKey,
    NotNow,
    RequestInvalid,
    Unacceptable,
)
from exchange.node.hearing import while_heard
from exchange.node.inbound import Inbound
from exchange.node.peer_client import PeerClient, place_of
from exchange.node.peering import show_card, succession
from exchange.node.revocation import take_revocation
from exchange.node.rounds import go_round
from exchange.node.services import Services, moment
from exchange.schema.card_file import CardFile, VerifiedCard
from exchange.schema.wire import Consistency
from exchange.store.errors import NotFound, StoreError
from exchange.store.peers import PeerRow, all_peers, peer, peer_standing
from exchange.store.transaction import Transaction

_HOUR_MS: Final = 3_600_000
_LOOK_EVERY_S: Final = 30.0
_AT_ONCE: Final = 4
#: While a peer without a current key is away, what is sent to it must not each time wait for it not to answer.
_NOT_AGAIN_MS: Final = 30_000
#: Whoever sends what does not verify must not make this node ask all the time.
_NOT_AT_ONCE_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """When a peer's card was last asked for, and what share of the interval to let pass before the next time."""

    at_ms: int
    share: float


def is_near_its_end(row: PeerRow, now_ms: int, interval_ms: int) -> bool:
    """Whether the key that one would seal to now is missing, or in the last quarter of its life or two intervals.

    A node makes a new key at half of a key's life: who has not heard of it by then has missed something.
    """
    card, now = peer_card(row), moment(now_ms)
    try:
        key = current_key(card, now)
    except NoCurrentKey:
        return True
    return key.not_after - now <= max((key.not_after - key.not_before) / 4, timedelta(milliseconds=2 * interval_ms))


def is_due(row: PeerRow, last: Attempt, now_ms: int, interval_ms: int) -> bool:
    """Whether to ask for a peer's card now: after an interval, or a sixth of one where its key is near its end.

    A time that lies ahead is no reason to wait: the clock went back.
    """
    wait_ms = interval_ms * last.share
    if is_near_its_end(row, now_ms, interval_ms):
        wait_ms /= 6
    return not 0 <= now_ms - last.at_ms < wait_ms


class CardRefresh:
    """Keeps the cards of peers fresh."""

    def __init__(
        self,
        services: Services,
        continuity: Continuity,
        inbound: Inbound,
        client: PeerClient,
        wake: Callable[[str], None],
    ) -> None:
        self._services = services
        self._continuity = continuity
        self._inbound = inbound
        self._client = client
        self._wake = wake
        self._chance = random.SystemRandom()
        self._attempts: dict[str, Attempt] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._hurried: dict[str, int] = {}
        self._woken = asyncio.Event()

    @property
    def interval_ms(self) -> int:
        """How long a card is left alone."""
        return round(self._services.configuration.tables.keys.card_refresh_hours * _HOUR_MS)

    async def run(self, stop: asyncio.Event, every_s: float | None = None) -> None:
        """Fetch what is due until `stop`; a peer that does not answer then is not waited for."""
        await go_round(
            self._services, self.look, self._woken, every_s or min(_LOOK_EVERY_S, self.interval_ms / 10_000), stop
        )

    async def look(self) -> None:
        """Fetch the cards that are due now."""
        now_ms = self._services.now_ms()
        rows = [row for row in await self._services.store.read(all_peers) if row.state == "verified"]
        for row in rows:
            # After a start, not all at once; one whose key is near its end still comes first.
            share = self._chance.random()
            self._attempts.setdefault(row.origin, Attempt(now_ms, 0 if self._is_urgent(row) else share))
        due = [row for row in rows if is_due(row, self._attempts[row.origin], now_ms, self.interval_ms)]
        async with asyncio.TaskGroup() as group:
            for row in due:
                group.create_task(self._fetch_in_turn(row.origin))

    def _is_urgent(self, row: PeerRow) -> bool:
        return is_near_its_end(row, self._services.now_ms(), self.interval_ms)

    async def _fetch_in_turn(self, origin: str) -> None:
        async with self._at_once:
            try:
                await self.refresh(origin)
            except Exception as error:  # noqa: BLE001 - the root of a task: nothing that one peer answers may stop the node
                self._services.log.error("card not fetched", peer=origin, error=type(error).__name__)

    def soon(self, origin: str) -> None:
        """The peer's card at hand does not fit what it does: ask for another now, or if that was just done, soon."""
        last_ms, now_ms = self._hurried.get(origin), self._services.now_ms()
        self._attempts[origin] = Attempt(now_ms, 0)
        if last_ms is None or not 0 <= now_ms - last_ms < _NOT_AT_ONCE_MS:
            self._hurried[origin] = now_ms
            self._woken.set()

    async def has_current_key(self, origin: str) -> bool:
        """Whether a peer has a key to seal to, once its card was asked for if need be.

        Also true of one that is not verified any more: there is then something else to say of it.
        """
        async with self._locks.setdefault(origin, asyncio.Lock()):
            if await self._is_ready(origin):
                return True
            last = self._attempts.get(origin)
            if last is None or not 0 <= self._services.now_ms() - last.at_ms < _NOT_AGAIN_MS:
                await self._refresh(origin)
            return await self._is_ready(origin)

    async def _is_ready(self, origin: str) -> bool:
        try:
            row = await self._services.store.read(lambda tx: peer(tx, origin))
            current_key(peer_card(row), self._services.now())
        except NoCurrentKey:
            return row.state != "verified"
        except NotFound:
            pass
        return True

    async def refresh(self, origin: str) -> None:
        """Ask a verified peer for its card, and keep it where it is newer. What goes wrong is logged."""
        async with self._locks.setdefault(origin, asyncio.Lock()):
            await self._refresh(origin)

    async def _refresh(self, origin: str) -> None:
        services = self._services
        self._attempts[origin] = Attempt(services.now_ms(), self._chance.uniform(0.75, 1.25))
        try:
            row = await services.store.read(lambda tx: peer(tx, origin))
            if row.state != "verified":
                return
            shown = await self._client.fetch_card(place_of(row, peer_card(row)))
            code = why_refused(row, shown, services)
            if code is not None:
                services.counters.add("cards_refused")
                services.log.warning("card refused", peer=origin, code=code, serial=shown.card.serial)
                return
            services.counters.add("cards_fetched")
            await self._take(row, shown)
        except IdentityRevoked as error:
            with contextlib.suppress(Unacceptable):
                await take_revocation(services, error.file)
        except (NotNow, RequestInvalid) as error:
            services.log.info("card not fetched", peer=origin, reason=str(error))
        except StoreError as error:
            services.log.error("store unavailable", peer=origin, error=str(error))
        except Exception as error:  # noqa: BLE001 - the root of a fetch: no card or URL of a peer may stop the node
            services.log.error("card not fetched", peer=origin, error=type(error).__name__)

    async def _take(self, row: PeerRow, shown: VerifiedCard) -> None:
        services = self._services
        if shown.statement == row.card and await self._continuity.held_size(row.origin):
            return
        if shown.fingerprint == row.fingerprint or succession(row, shown, services.checkpoints):
            try:
                heads = await self._continuity.follow(
                    shown.checkpoint,
                    Consistency(first=0, path=()),
                    lambda first, second: self._client.fetch_consistency(row, first, second),
                )
                await self._continuity.keep(heads, lambda head: while_heard(row, head))
            except ForkDetected as error:
                file = msgspec.json.encode(CardFile(shown.statement, shown.proof))
                await self._inbound.quarantine(row, error, file)
                return
            except Unacceptable:
                return  # it was stopped while it was asked

        async def operation(tx: Transaction) -> PeerRow:
            # What it was verified for may have changed while it was asked.
            if await peer_standing(tx, row.origin) != (row.state, row.fingerprint):
                return row
            return await show_card(tx, services, shown)

        after = await services.store.write(operation)
        if after.state != row.state:
            services.counters.add("alarms_identity-changed")
            services.log.error("alarm", code="identity-changed", peer=row.origin, state=after.state)
        elif after.serial != row.serial:
            services.log.info("card renewed", peer=row.origin, serial=after.serial)
            self._wake(f"peer:{row.origin}")
        services.changes.notify()


def why_refused(row: PeerRow, shown: VerifiedCard, services: Services) -> str | None:
    """Why a card that a peer's URL serves is not one to look at."""
    card = shown.card
    if card.origin != row.origin:
        return "card-identity"
    if has_expired(card, services.now()):
        return "card-expired"
    if shown.fingerprint == row.fingerprint and card.serial < row.serial:
        return "card-rolled-back"
    if card.area != peer_card(row).area:
        return "card-identity"
    return None
