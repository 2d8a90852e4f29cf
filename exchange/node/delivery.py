"""The delivery workers: one task a lane, each claiming from the outbox, performing, and recording what came of it.

One slow destination holds up its own lane and no other. A delivery is deleted only in the transaction that records
its success; until then a lease protects it, and a restart or the lease's end makes it due again. Leases are prolonged
while an attempt goes on, so they can be short: what a replica that was killed had in hand, another takes up soon.

Where replicas share the store, one at a time works on a lane, and how a lane is doing is read from the store with every
claim.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from exchange.node.errors import NotNow
from exchange.node.lanes import Backoff, LaneState
from exchange.node.services import Services
from exchange.store.errors import StoreUnavailable
from exchange.store.messages import add_event
from exchange.store.outbox import (
    URGENT_RANK,
    Delivery,
    LaneRow,
    Order,
    bring_all_forward,
    bring_forward,
    claim,
    claimable_lanes,
    done,
    due_lanes,
    end_all_leases,
    failing_lanes,
    give_back,
    hold,
    is_worked_on,
    keep_lane,
    lane_state,
    next_due_ms,
    put_off,
    renew,
)
from exchange.store.transaction import Transaction

_LEASE_MS: Final = 30_000
_RENEW_EVERY_S: Final = 10.0
#: Clocks that are kept right are moved by less.
_SET_BACK_MS: Final = 2000
#: A full disk or a restart of the database is soon over, or takes long.
_STORE_AGAIN_S: Final = 1.0


@dataclass(slots=True)
class Outcome:
    """What came of an attempt. Rows that are in none of the fields were recorded as done by the attempt itself."""

    again: list[Delivery] = field(default_factory=list)
    held: list[tuple[Delivery, str]] = field(default_factory=list)
    #: Asked where rows are held: whether what they wait for has come meanwhile, and nobody would release them any more.
    is_over: Callable[[Transaction], Awaitable[bool]] | None = None
    #: Deliveries that failed by themselves, and when each is due again.
    put_off: list[tuple[Delivery, int]] = field(default_factory=list)
    error: str | None = None
    asked_s: float = 0.0
    #: The destination said that it has had enough for now; what is urgent may get through.
    limited: bool = False
    wake: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was claimed of a lane; `passing` where the lane has to wait, and only what is urgent may pass."""

    rows: list[Delivery]
    passing: bool
    #: Where there are none: when the first of what was put off is due.
    next_due_ms: int | None = None


#: One attempt at a destination of one kind, `peer` or `agency`: its name, and the rows to deliver.
Perform = Callable[[str, list[Delivery]], Awaitable[Outcome]]


class Dispatcher:
    """Runs the lanes."""

    def __init__(
        self,
        services: Services,
        perform: Mapping[str, Perform],
        poll_s: float = 20.0,
        asked_caps_s: Mapping[str, float] | None = None,
        clock_every_s: float = 5.0,
    ) -> None:
        table = services.configuration.tables.delivery
        self._services = services
        self._poll_s = poll_s
        self._clock_every_s = clock_every_s
        #: The latest time at which anything was put off, or the clock looked at.
        self._latest_ms = services.now_ms()
        self._perform = perform
        #: Kinds of lanes may differ in how much of Retry-After is waited.
        self._backoffs = {
            kind: Backoff(table.backoff_base_s, table.backoff_cap_s, (asked_caps_s or {}).get(kind)) for kind in perform
        }
        self._events: dict[str, asyncio.Event] = {}
        self._states: dict[str, LaneState] = {}
        self._heard: set[str] = set()
        #: Lanes that were woken for something urgent, since anything was last claimed of them.
        self._urgent: set[str] = set()
        #: When lanes were last woken for something urgent.
        self._urgent_ms: dict[str, int] = {}
        #: The lanes in which something may be put off.
        self._put_off: set[str] = set()
        #: What is being attempted, by the name of its claim.
        self._in_hand: dict[str, list[Delivery]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._chance = random.SystemRandom()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is in hand."""
        async with asyncio.TaskGroup() as beside:
            renewing = beside.create_task(self._renew_leases())
            watching = beside.create_task(self._watch_clock())
            async with asyncio.TaskGroup() as group:
                self._group = group
                if not self._services.store.shared:
                    await self._services.store.write(end_all_leases)
                while not stop.is_set():
                    await self._start_lanes()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_s):
                            await stop.wait()
                self._stopping = True
                for event in self._events.values():
                    event.set()
            renewing.cancel()
            watching.cancel()

    async def _start_lanes(self) -> None:
        """Start the lanes that nobody woke: whoever stored something may have failed before it could tell."""
        try:
            for lane in await self._services.store.read(due_lanes):
                if lane not in self._events:
                    self.wake(lane)
        except StoreUnavailable as error:
            self._services.log.error("store unavailable", error=str(error))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            rows = [row for rows in self._in_hand.values() for row in rows]
            until_ms = self._services.now_ms() + _LEASE_MS
            if not rows:
                continue
            try:
                await self._services.store.write(functools.partial(renew, rows=rows, until_ms=until_ms))
            except StoreUnavailable as error:
                self._services.log.error("store unavailable", error=str(error))

    async def _watch_clock(self) -> None:
        """What was put off while the clock was ahead, be it for a moment, is due when the clock has been set back."""
        while True:
            await asyncio.sleep(self._clock_every_s)
            now_ms = self._services.now_ms()
            if now_ms < self._latest_ms - _SET_BACK_MS:
                lanes, by_s = list(self._events), (self._latest_ms - now_ms) // 1000
                self._services.log.warning("the clock was set back", reason=f"by {by_s} s")
                try:
                    await self._services.store.write(bring_all_forward, long=True)
                except StoreUnavailable as error:
                    self._services.log.error("store unavailable", error=str(error))
                    continue
                for lane in lanes:
                    self.heard_from(lane)  # what it waits for may be a time that is far away by now
                    self.wake(lane)
            self._latest_ms = now_ms

    async def look(self) -> None:
        """See what other replicas have done: which lanes have something for this one, and how lanes are doing.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

        async def view(tx: Transaction) -> tuple[list[str], list[LaneRow]]:
            return await claimable_lanes(tx, now_ms, store.replica), await failing_lanes(tx)

        store, now_ms = self._services.store, self._services.now_ms()
        due, failing = await store.read(view)
        states = {row.lane: _state_of(row) for row in failing}
        busy = {row.lane for rows in self._in_hand.values() for row in rows}
        for lane in (self._states.keys() | states.keys()) - busy - self._heard:
            self._states[lane] = states.get(lane, LaneState())
        for lane in due:
            self.wake(lane)

    def wake(self, lane: str, *, urgent: bool = False) -> None:
        """Something new is due in a lane; what is urgent need not wait for what is under way."""
        if urgent:
            self._urgent.add(lane)
            self._urgent_ms[lane] = self._services.now_ms()
        event = self._events.get(lane)
        if event is None and self._group is not None and not self._stopping:
            event = self._events[lane] = asyncio.Event()
            self._group.create_task(self._work(lane, event), name=f"lane {lane}")
        if event is not None:
            event.set()

    def heard_from(self, lane: str) -> None:
        """The destination has shown that it lives: try it at once."""
        state = self._states.get(lane)
        if state is not None and state.failures:
            self._states[lane] = state.heard()
            self._heard.add(lane)
            self.wake(lane)

    def state(self, lane: str) -> LaneState:
        """How a lane is doing."""
        return self._states.get(lane, LaneState())

    async def _work(self, lane: str, event: asyncio.Event) -> None:
        try:
            row = await self._services.store.read(lambda tx: lane_state(tx, lane))
        except StoreUnavailable as error:
            self._services.log.error("store unavailable", lane=lane, error=str(error))
            del self._events[lane]
            return
        self._states[lane] = _state_of(row)
        self._put_off.add(lane)
        async with asyncio.TaskGroup() as attempts:
            in_flight: set[asyncio.Task[None]] = set()

            def landed(task: asyncio.Task[None]) -> None:
                in_flight.discard(task)
                event.set()

            while not self._stopping:
                event.clear()
                state = self._states[lane]
                wait_ms = self._wait_ms(lane, state)
                has_room = len(in_flight) < state.attempts_at_once()
                urgent_alone = not has_room and self._may_overtake(lane, state, len(in_flight))
                if (not wait_ms or state.urgent_only) and (has_room or urgent_alone):
                    self._urgent.discard(lane)
                    taken = await self._claim(lane, urgent_alone=urgent_alone)
                    if taken is None:
                        wait_ms = round(_STORE_AGAIN_S * 1000)
                    elif taken.rows:
                        task = attempts.create_task(self._attempt(lane, taken))
                        in_flight.add(task)
                        task.add_done_callback(landed)
                        continue
                    elif taken.next_due_ms is not None and not wait_ms:
                        wait_ms = max(1, min(taken.next_due_ms - self._services.now_ms(), round(self._poll_s * 1000)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_ms / 1000 if wait_ms else self._poll_s):
                        await event.wait()

    def _may_overtake(self, lane: str, state: LaneState, in_flight: int) -> bool:
        """Whether one attempt more may be made, for what is urgent alone."""
        return lane in self._urgent and not state.failures and in_flight == state.attempts_at_once()

    def _limit(self, lane: str, state: LaneState, now_ms: int) -> int:
        urgent_ms = self._urgent_ms.get(lane)
        return state.limit(None if urgent_ms is None else now_ms - urgent_ms)

    def _backoff(self, lane: str) -> Backoff:
        return self._backoffs[lane.partition(":")[0]]

    def _wait_ms(self, lane: str, state: LaneState) -> int:
        return state.wait_ms(self._services.now_ms(), round(self._backoff(lane).longest_s * 1000))

    async def _claim(self, lane: str, *, urgent_alone: bool) -> _Taken | None:
        """Take what is due, or what is urgent of it; None where the store is unavailable."""
        services = self._services
        now_ms = services.now_ms()
        state = self._states[lane]
        passing = urgent_alone or self._wait_ms(lane, state) > 0
        try:
            if services.store.shared:
                return await self._claim_shared(lane, now_ms, urgent_alone=urgent_alone)
            limit = self._limit(lane, state, now_ms)
            rows = await services.store.write(
                lambda tx: claim(tx, lane, limit, now_ms, _LEASE_MS, _order(state, passing=passing))
            )
            next_ms = None if rows else await self._next_due_ms(lane)
        except StoreUnavailable as error:
            services.log.error("store unavailable", lane=lane, error=str(error))
            return None
        return _Taken(rows, passing, next_ms)

    async def _claim_shared(self, lane: str, now_ms: int, *, urgent_alone: bool) -> _Taken:
        """Claim where no other replica works on the lane, by what the store says of how it is doing."""
        store = self._services.store
        heard = lane in self._heard
        self._heard.discard(lane)

        async def operation(tx: Transaction) -> tuple[LaneState, _Taken]:
            state = _state_of(await lane_state(tx, lane))
            state = state.heard() if heard else state
            waits = self._wait_ms(lane, state) > 0
            passing = urgent_alone or waits
            if (waits and not state.urgent_only) or await is_worked_on(tx, lane, now_ms, store.replica):
                return state, _Taken([], passing)
            order = _order(state, passing=passing)
            rows = await claim(
                tx, lane, self._limit(lane, state, now_ms), now_ms, _LEASE_MS, order, replica=store.replica
            )
            return state, _Taken(rows, passing)

        state, taken = await store.write(operation)
        if not any(row.lane == lane for rows in self._in_hand.values() for row in rows):
            self._states[lane] = state
        return taken if taken.rows else replace(taken, next_due_ms=await self._next_due_ms(lane))

    async def _next_due_ms(self, lane: str) -> int | None:
        """When the first of what was put off in a lane is due; most lanes have nothing such, and are not looked at."""
        if lane not in self._put_off:
            return None
        found = await self._services.store.read(lambda tx: next_due_ms(tx, lane))
        if found is None:
            self._put_off.discard(lane)
        return found

    async def _attempt(self, lane: str, taken: _Taken) -> None:
        self._in_hand[taken.rows[0].claim] = taken.rows
        try:
            await self._perform_and_record(lane, taken.rows, passing=taken.passing)
        finally:
            del self._in_hand[taken.rows[0].claim]

    async def _perform_and_record(self, lane: str, rows: list[Delivery], *, passing: bool) -> None:
        """Perform what was claimed, and record what came of it."""
        before = self._states[lane]
        now_ms = self._services.now_ms()
        late = [row for row in rows if row.deadline_ms <= now_ms]
        timely = [row for row in rows if row.deadline_ms > now_ms]
        try:
            outcome = await self._perform_safely(lane, timely) if timely else Outcome()
            outcome.held += [(row, "not delivered before it expired") for row in late]
            urgent_alone = all(row.rank == URGENT_RANK for row in timely)
            await self._record(lane, before, outcome, passing=passing, urgent_alone=urgent_alone)
        except StoreUnavailable as error:
            self._services.log.error("store unavailable", lane=lane, error=str(error))
            await self._give_back(lane, rows, now_ms + _LEASE_MS)
            return
        for other in outcome.wake:
            self.wake(other)

    async def _give_back(self, lane: str, rows: Sequence[Delivery], until_ms: int) -> None:
        """What came of an attempt could not be recorded: end its leases when the store works again, or they end so."""
        while not self._stopping and self._services.now_ms() < until_ms:
            await asyncio.sleep(_STORE_AGAIN_S)
            with contextlib.suppress(StoreUnavailable):
                await self._services.store.write(lambda tx: give_back(tx, rows))
                self.wake(lane)
                return

    async def _perform_safely(self, lane: str, rows: list[Delivery]) -> Outcome:
        try:
            kind, _, name = lane.partition(":")
            return await self._perform[kind](name, rows)
        except (OSError, TimeoutError, NotNow) as error:
            return Outcome(again=rows, error=str(error) or type(error).__name__)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the root of a lane: one bad delivery must not stop the node
            self._services.log.error("delivery failed", lane=lane, error=type(error).__name__)
            return Outcome(again=rows, error=f"internal error: {type(error).__name__}")

    async def _record(
        self, lane: str, before: LaneState, outcome: Outcome, *, passing: bool, urgent_alone: bool
    ) -> None:
        services, backoff = self._services, self._backoff(lane)
        now_ms = services.now_ms()
        if outcome.error is not None and outcome.limited:
            asked_s = backoff.asked_s(outcome.asked_s)
            after = before.limited(outcome.error, now_ms, asked_s, urgent_only=not urgent_alone)
            services.log.info("will try again", lane=lane, reason=outcome.error, retry_in_s=round(asked_s, 1))
        elif outcome.error is None and passing:
            after = self._states[lane]  # that something urgent got through says nothing of the rest
        elif outcome.error is not None:
            delay_s = backoff.delay_s(before.failures, self._chance.random(), outcome.asked_s)
            longer = backoff.asked_s(outcome.asked_s) > backoff.cap_s
            after = before.failed(outcome.error, now_ms, delay_s, urgent_only=longer and not urgent_alone)
            services.log.info("will try again", lane=lane, reason=outcome.error, retry_in_s=round(delay_s, 1))
        else:
            after = LaneState()
        stored, self._states[lane] = self._states[lane], after
        is_back = before.is_open and not after.failures
        if outcome.put_off:
            self._put_off.add(lane)
            self._latest_ms = max(self._latest_ms, now_ms)

        async def operation(tx: Transaction) -> list[tuple[Delivery, str]]:
            mine = await give_back(tx, outcome.again)
            for row, until_ms in outcome.put_off:
                mine += await put_off(tx, row, until_ms)
            if is_back:
                await bring_forward(tx, lane)
            held: list[tuple[Delivery, str]] = []
            if outcome.held and outcome.is_over is not None and await outcome.is_over(tx):
                mine += await give_back(tx, [row for row, _ in outcome.held])
                outcome.wake.add(lane)
            else:
                held = [(row, reason) for row, reason in outcome.held if await hold(tx, row, reason)]
            for row, reason in held:
                if row.message is not None:
                    await add_event(tx, row.message, "held", now_ms, agency=row.agency, detail=reason)
            # Who has lost the lane to another replica says nothing bad of it any more.
            if after != stored and (mine or not after.failures):
                await keep_lane(tx, _row_of(lane, after))
            return held

        held: list[tuple[Delivery, str]] = []
        if outcome.again or outcome.put_off or outcome.held or after != stored:
            held = await services.store.write(operation)
            services.changes.notify()
        for row, reason in held:
            services.log.warning("held", lane=lane, reason=reason, attempt=row.attempts)


async def finish(services: Services, rows: Sequence[Delivery]) -> None:
    """Record deliveries as done where there is nothing else to record."""
    await services.store.write(lambda tx: done(tx, rows))


def _state_of(row: LaneRow) -> LaneState:
    return LaneState(row.failures, row.next_attempt_ms, row.last_error, row.urgent_only, row.since_ms)


def _row_of(lane: str, state: LaneState) -> LaneRow:
    return LaneRow(lane, state.failures, state.next_attempt_ms, state.last_error, state.urgent_only, state.since_ms)


def _order(state: LaneState, *, passing: bool) -> Order:
    if passing:
        return Order.ONLY_URGENT
    # At a limit no delivery is to blame for what became of the last attempt.
    return Order.LEAST_TRIED if state.failures and not state.urgent_only else Order.IN_TURN
