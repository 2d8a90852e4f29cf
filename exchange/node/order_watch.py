"""See orders through: scrub the store's files after something was destroyed, and tell admins of what is not confirmed.

* What was destroyed may be in older pages until the store has been scrubbed: after a crash that is done at the start.
* An order that somebody has not confirmed in time is an alarm at both nodes, once a day, until they have.
"""

import asyncio
from typing import Final

from exchange import crash_points
from exchange.node.orders_shown import is_ours
from exchange.node.rounds import go_round
from exchange.node.services import Services
from exchange.store.messages import add_alarm_once_a_day
from exchange.store.orders import KnownOrder, note_scrubbed, open_orders, places_of, unscrubbed_orders
from exchange.store.transaction import Transaction

_EVERY_S: Final = 60.0
_DAY_MS: Final = 86_400_000
_MOST: Final = 1000


class OrderWatch:
    """Looks at orders."""

    def __init__(self, services: Services, every_s: float = _EVERY_S) -> None:
        self._services = services
        self._every_s = every_s
        self.woken = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`."""
        await go_round(self._services, self.look, self.woken, self._every_s, stop)

    async def look(self) -> None:
        """Scrub what is to be scrubbed, and tell of what is late.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        store = self._services.store
        numbers = await store.read(unscrubbed_orders)
        if numbers:
            crash_points.reached("destroy.before-scrub")
            await store.scrub()
            crash_points.reached("destroy.scrubbed")
            await store.write(lambda tx: note_scrubbed(tx, numbers))
            self._services.counters.add("orders_scrubbed", len(numbers))
        await self._tell()

    async def _tell(self) -> None:
        services = self._services
        days = services.configuration.tables.handover.confirm_within_days
        before_ms = services.now_ms() - round(days * _DAY_MS)
        if not await services.store.read(lambda tx: open_orders(tx, before_ms, 1)):
            return

        async def operation(tx: Transaction) -> int:
            told = 0
            for known in await open_orders(tx, before_ms, _MOST):
                detail = await _detail(tx, known)
                told += await add_alarm_once_a_day(tx, "order-unconfirmed", known.peer, detail, services.now_ms())
            return told

        if told := await services.store.write(operation, long=True):
            services.counters.add("alarms_order-unconfirmed", told)
            services.log.error("alarm", code="order-unconfirmed")


async def _detail(tx: Transaction, known: KnownOrder) -> str:
    missing = [place for place in await places_of(tx, known.order.number) if place.confirmed_at_ms is None]
    kinds = ", ".join(sorted({place.name or place.agency for place in missing}))
    done = {"recall": "recalled", "erase": "ordered to be erased"}[known.order.kind]
    whose = f"This node has {done}" if is_ours(known) else f"{known.peer} has {done}"
    return (
        f"{whose} sections of message {known.message_id}, and {kinds} has not confirmed. A person may have them still: "
        "telephone the agency"
    )
