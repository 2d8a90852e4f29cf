"""Watch the deadlines of handovers, in both directions, and tell those who are to see to what is late.

* `exchange.handover.overdue` decides; what it says is queued in the transaction that notes that it was said.
* The sender's node tells the agency that is responsible, the receiver's the one that has not taken it on. Both keep
  the same deadlines, so that both coordinators are told without a word between the nodes.
* Who is told gets a reference, never content. Where nobody here can be told, the admins are, once a day.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from exchange.handover.overdue import COORDINATOR, Review, Told, review
from exchange.node.cases import Handover, read_handover
from exchange.node.counterparts import counterpart
from exchange.node.rounds import go_round
from exchange.node.services import Services, milliseconds, moment
from exchange.store.agencies import Standing, standing_agencies
from exchange.store.errors import NotFound
from exchange.store.handovers import HandoverRow, adopt, keep_handover, to_look_at
from exchange.store.messages import add_alarm_once_a_day, add_event, message_by_number
from exchange.store.outbox import OVERDUE, enqueue, new_delivery
from exchange.store.transaction import Transaction

_EVERY_S: Final = 15.0
_AT_ONCE: Final = 500
_DAY_MS: Final = 86_400_000
#: How long somebody is tried who is to be told; after that, what is late is later than that.
_TELL_FOR_MS: Final = 3 * _DAY_MS


class DeadlineWatch:
    """Looks at what is due."""

    def __init__(self, services: Services, every_s: float = _EVERY_S) -> None:
        self._services = services
        self._every_s = every_s
        self.woken = asyncio.Event()
        #: Told of lanes in which there is something new.
        self.wake: Callable[[str], None] = _unheard

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`."""
        await go_round(self._services, self.look, self.woken, self._every_s, stop)

    async def look(self) -> None:
        """Look at all handovers that are to be looked at by now.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        store = self._services.store
        while await store.write(lambda tx: adopt(tx, _AT_ONCE), long=True) == _AT_ONCE:
            pass
        before: set[int] = set()
        while True:
            now_ms = self._services.now_ms()
            rows = await store.read(lambda tx, now_ms=now_ms: to_look_at(tx, now_ms, _AT_ONCE))  # type: ignore[misc]
            fresh = [row.message for row in rows if row.message not in before]
            if not fresh:
                return
            for number in fresh:
                await self._look_at(number)
            before.update(fresh)

    async def _look_at(self, number: int) -> None:
        services = self._services

        async def operation(tx: Transaction) -> set[str]:
            now_ms = services.now_ms()
            try:
                handover = await read_handover(tx, await message_by_number(tx, number))
            except NotFound:
                return set()
            row = handover.row
            if row.look_at_ms is None or row.look_at_ms > now_ms:
                return set()  # another replica has
            looked_at = None if row.looked_at_ms is None else moment(row.looked_at_ms)
            found = review(handover.case, services.deadlines, looked_at, moment(now_ms))
            await keep_handover(tx, noted(handover, found, now_ms))
            return await self._tell(tx, handover, found, now_ms)

        lanes = await services.store.write(operation)
        for lane in lanes:
            self.wake(lane)
        if lanes:
            services.changes.notify()

    async def _tell(self, tx: Transaction, handover: Handover, found: Review, now_ms: int) -> set[str]:
        """Queue a word to each who is to be told; return the lanes."""
        if not found.tell:
            return set()
        agencies, message = await standing_agencies(tx), handover.message
        names: set[str] = set()
        for telling in found.tell:
            late = telling.late
            told = _whom(handover, telling.who, late.kind, late.sections, agencies)
            names |= told
            if not told:
                await self._alarm(tx, COORDINATOR if telling.who is Told.COORDINATOR else late.kind or "", now_ms)
            if telling.who is Told.AGENCY or late.kind is None:
                await add_event(tx, message.number, "overdue", now_ms, agency=late.kind, detail=late.due.step)
                self._services.counters.add(f"overdue_{late.due.step}")
        deliveries = [
            new_delivery(
                f"agency:{name}",
                OVERDUE,
                now_ms=now_ms,
                deadline_ms=now_ms + _TELL_FOR_MS,
                urgent=handover.case.urgent,
                message=message.number,
                agency=name,
            )
            for name in sorted(names)
        ]
        await enqueue(tx, deliveries)
        return {f"agency:{name}" for name in names}

    async def _alarm(self, tx: Transaction, kind: str, now_ms: int) -> None:
        origin = self._services.configuration.origin
        detail = (
            f"Handovers are overdue and no agency of kind {kind} is here to be told. `exchange handover list --overdue`"
        )
        if await add_alarm_once_a_day(tx, "overdue-untold", origin, detail, now_ms):
            self._services.log.error("alarm", code="overdue-untold", agency=kind)


def noted(handover: Handover, found: Review, now_ms: int) -> HandoverRow:
    """The row of a handover that was looked at now."""
    since, look_at = found.overdue_since, found.look_at
    return replace(
        handover.row,
        look_at_ms=None if look_at is None else milliseconds(look_at),
        looked_at_ms=now_ms,
        overdue_since_ms=None if since is None else milliseconds(since),
    )


def _whom(
    handover: Handover, who: Told, kind: str | None, sections: tuple[str, ...], agencies: list[Standing]
) -> set[str]:
    """The local agencies that are told of something late."""
    if who is Told.COORDINATOR or kind is None:
        name = counterpart(agencies, COORDINATOR)
        return set() if name is None else {name}
    here = {agency.name for agency in agencies}
    rows = (handover.placements.get((section, kind)) for section in sections)
    given = {row.given_to for row in rows if row is not None and row.given_to is not None} & here
    if given and handover.arrived:
        return given
    name = counterpart(agencies, kind)
    return set() if name is None else {name}


def _unheard(_: str) -> None:
    pass
