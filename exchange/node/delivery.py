"""The delivery workers: one task a lane, each claiming from the outbox, performing, and recording what came of it.

One slow destination holds up its own lane and no other. A delivery is deleted only in the transaction that records
its success; until then a lease protects it, and a restart or the lease's end makes it due again.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    claim,
    done,
    due_lanes,
    end_all_leases,
    give_back,
    hold,
    keep_lane,
    lane_state,
)
from exchange.store.transaction import Transaction

_LEASE_MS: Final = 120_000


@dataclass(slots=True)
class Outcome:
    """What came of an attempt. Rows that are in none of the fields were recorded as done by the attempt itself."""

    again: list[Delivery] = field(default_factory=list)
    held: list[tuple[Delivery, str]] = field(default_factory=list)
    error: str | None = None
    asked_s: float = 0.0
    #: The destination said that it has had enough for now; what is urgent may get through.
    limited: bool = False
    wake: set[str] = field(default_factory=set)


#: One attempt at a destination of one kind, `peer` or `agency`: its name, and the rows to deliver.
Perform = Callable[[str, list[Delivery]], Awaitable[Outcome]]


class Dispatcher:
    """Runs the lanes."""

    def __init__(self, services: Services, perform: Mapping[str, Perform], poll_s: float = 20.0) -> None:
        table = services.configuration.tables.delivery
        self._services = services
        self._poll_s = poll_s
        self._perform = perform
        self._backoff = Backoff(table.backoff_base_s, table.backoff_cap_s)
        self._events: dict[str, asyncio.Event] = {}
        self._states: dict[str, LaneState] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._chance = random.SystemRandom()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is in hand."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._services.store.write(end_all_leases)
            while not stop.is_set():
                await self._start_lanes()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await stop.wait()
            self._stopping = True
            for event in self._events.values():
                event.set()

    async def _start_lanes(self) -> None:
        """Start the lanes that nobody woke: whoever stored something may have failed before it could tell."""
        try:
            for lane in await self._services.store.read(due_lanes):
                if lane not in self._events:
                    self.wake(lane)
        except StoreUnavailable as error:
            self._services.log.error("store unavailable", error=str(error))

    def wake(self, lane: str) -> None:
        """Something new is due in a lane."""
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
        self._states[lane] = LaneState(row.failures, row.next_attempt_ms, row.last_error)
        async with asyncio.TaskGroup() as attempts:
            in_flight: set[asyncio.Task[None]] = set()

            def landed(task: asyncio.Task[None]) -> None:
                in_flight.discard(task)
                event.set()

            while not self._stopping:
                event.clear()
                wait_ms = self._states[lane].wait_ms(self._services.now_ms())
                passing = wait_ms > 0 and self._states[lane].urgent_only
                if (passing or not wait_ms) and len(in_flight) < self._states[lane].attempts_at_once():
                    rows = await self._claim(lane, urgent_only=passing)
                    if rows:
                        task = attempts.create_task(self._attempt(lane, rows, passing=passing))
                        in_flight.add(task)
                        task.add_done_callback(landed)
                        continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_ms / 1000 if wait_ms else self._poll_s):
                        await event.wait()

    async def _claim(self, lane: str, *, urgent_only: bool) -> list[Delivery]:
        services = self._services
        now_ms = services.now_ms()
        state = self._states[lane]
        if urgent_only:
            order = Order.ONLY_URGENT
        else:
            # At a limit no delivery is to blame for what became of the last attempt.
            order = Order.LEAST_TRIED if state.failures and not state.urgent_only else Order.IN_TURN
        try:
            return await services.store.write(lambda tx: claim(tx, lane, state.limit(), now_ms, _LEASE_MS, order))
        except StoreUnavailable as error:
            services.log.error("store unavailable", lane=lane, error=str(error))
            return []

    async def _attempt(self, lane: str, rows: list[Delivery], *, passing: bool = False) -> None:
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
            # The lease ends by itself; until then nothing else can be done with these rows.
            self._services.log.error("store unavailable", lane=lane, error=str(error))
            return
        for other in outcome.wake:
            self.wake(other)

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
        services = self._services
        now_ms = services.now_ms()
        if outcome.error is not None and outcome.limited:
            asked_s = self._backoff.asked_s(outcome.asked_s)
            after = before.limited(outcome.error, now_ms, asked_s, urgent_only=not urgent_alone)
            services.log.info("will try again", lane=lane, reason=outcome.error, retry_in_s=round(asked_s, 1))
        elif outcome.error is None and passing:
            after = self._states[lane]  # that something urgent got through says nothing of the rest
        elif outcome.error is not None:
            delay_s = self._backoff.delay_s(before.failures, self._chance.random(), outcome.asked_s)
            after = before.failed(outcome.error, now_ms, delay_s)
            services.log.info("will try again", lane=lane, reason=outcome.error, retry_in_s=round(delay_s, 1))
        else:
            after = LaneState()
        stored, self._states[lane] = self._states[lane], after

        async def operation(tx: Transaction) -> None:
            await give_back(tx, [row.number for row in outcome.again])
            for row, reason in outcome.held:
                await hold(tx, row.number, reason)
                if row.message is not None:
                    await add_event(tx, row.message, "held", now_ms, agency=row.agency, detail=reason)
            if after != stored:
                await keep_lane(tx, LaneRow(lane, after.failures, after.next_attempt_ms, after.last_error))

        if outcome.again or outcome.held or after != stored:
            await services.store.write(operation)
            services.changes.notify()
        for row, reason in outcome.held:
            services.log.warning("held", lane=lane, reason=reason, attempt=row.attempts)


async def finish(services: Services, rows: Sequence[Delivery]) -> None:
    """Record deliveries as done where there is nothing else to record."""
    numbers = [row.number for row in rows]
    await services.store.write(lambda tx: done(tx, numbers))
