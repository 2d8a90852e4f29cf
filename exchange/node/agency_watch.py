"""Looks after agencies that fetch or have a folder: the admins are told, once a day, where nobody takes what waits.

An endpoint that fails says so by itself; who does not come says nothing.
"""

import asyncio
import time
from typing import Final

from exchange.node.dropping import waiting_files
from exchange.node.pulling import Pulling
from exchange.node.rounds import go_round
from exchange.node.services import Services
from exchange.node.ways import DROP, folder_of
from exchange.store.agencies import AgencyRow, all_agencies
from exchange.store.endpoints import EndpointRow, all_endpoints
from exchange.store.messages import add_alarm, alarms_about
from exchange.store.offers import FeedRow, Waiting, all_feeds, all_waiting
from exchange.store.transaction import Transaction

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_LOOK_EVERY_S: Final = 30.0
_LOOK_AT_FOLDERS_EVERY_S: Final = 600.0
#: How long sections may wait to be fetched before the admins are told; less where one is urgent.
WAITING_MS: Final = 4 * _HOUR_MS
WAITING_URGENT_MS: Final = _HOUR_MS // 4
#: How long a file may lie in a folder.
LYING_DAYS: Final = 3


class AgencyWatch:
    """Looks, and tells."""

    def __init__(self, services: Services, pulling: Pulling) -> None:
        self._services = services
        self._pulling = pulling

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(go_round(self._services, self.look, asyncio.Event(), _LOOK_EVERY_S, stop))
            every_s = _LOOK_AT_FOLDERS_EVERY_S
            group.create_task(go_round(self._services, self.look_at_folders, asyncio.Event(), every_s, stop))

    async def look(self) -> None:
        """See to what was offered, and tell of who does not fetch it."""
        await self._pulling.look()

        async def view(tx: Transaction) -> tuple[dict[str, Waiting], dict[str, FeedRow], list[AgencyRow]]:
            return await all_waiting(tx), await all_feeds(tx), await all_agencies(tx)

        waiting, feeds, agencies = await self._services.store.read(view)
        for row in agencies:
            told = row.id in waiting and self._overdue(row, waiting[row.id], feeds.get(row.id))
            if told:
                await self._tell(row.name, told)

    def _overdue(self, row: AgencyRow, waiting: Waiting, feed: FeedRow | None) -> str | None:
        now_ms = self._services.now_ms()
        urgent_ms = 0 if waiting.urgent_since_ms is None else now_ms - waiting.urgent_since_ms
        if now_ms - waiting.since_ms < WAITING_MS and urgent_ms < WAITING_URGENT_MS:
            return None
        hours = max(urgent_ms, now_ms - waiting.since_ms) / _HOUR_MS
        what = f"{waiting.sections} section{'s' * (waiting.sections > 1)} wait{'s' * (waiting.sections == 1)}"
        asked_ms = None if feed is None else feed.asked_at_ms
        if asked_ms is not None and now_ms - asked_ms < WAITING_URGENT_MS:
            return f"agency {row.name} has not acknowledged for {hours:.1f} hours, and asks: {what}."
        return f"agency {row.name} has not fetched for {hours:.1f} hours: {what}."

    async def look_at_folders(self) -> None:
        """Tell of folders in which files lie for days, or that cannot be looked at."""

        async def view(tx: Transaction) -> list[tuple[AgencyRow, EndpointRow]]:
            endpoints = await all_endpoints(tx)
            return [(row, endpoints[row.id]) for row in await all_agencies(tx)]

        for row, endpoint in await self._services.store.read(view):
            if endpoint.way != DROP:
                continue
            try:
                count, oldest_s = await asyncio.to_thread(waiting_files, folder_of(endpoint), time.time())
            except OSError:
                continue  # nothing can be put there either, and that is told
            if oldest_s >= LYING_DAYS * _DAY_MS / 1000:
                days = int(oldest_s * 1000 / _DAY_MS)
                await self._tell(row.name, f"agency {row.name} has not taken files for {days} days: {count} lie there.")

    async def _tell(self, kind: str, detail: str) -> None:
        services = self._services
        origin, now_ms, about = services.configuration.origin, services.now_ms(), f"agency {kind} has not"

        async def operation(tx: Transaction) -> bool:
            told = await alarms_about(tx, "agency-not-fetching", origin)
            if any(earlier.startswith(about) and now_ms - at_ms < _DAY_MS for at_ms, earlier, _ in told):
                return False
            await add_alarm(tx, "agency-not-fetching", origin, detail, now_ms)
            return True

        if await services.store.write(operation):
            services.counters.add("alarms_agency-not-fetching")
            services.log.error("alarm", code="agency-not-fetching", agency=kind, reason=detail)
            services.changes.notify()
