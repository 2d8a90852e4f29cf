"""Look again and again until the node stops: at once when woken, otherwise after a while."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from exchange.node.services import Services
from exchange.store.errors import StoreError


async def go_round(
    services: Services, look: Callable[[], Awaitable[None]], woken: asyncio.Event, every_s: float, stop: asyncio.Event
) -> None:
    """Call `look` until `stop`; what it waits for then is given up. A store that is away is asked the next time."""
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(_look_again(services, look, woken, every_s))
        await stop.wait()
        looking.cancel()


async def _look_again(
    services: Services, look: Callable[[], Awaitable[None]], woken: asyncio.Event, every_s: float
) -> None:
    while True:
        woken.clear()
        try:
            await look()
        except StoreError as error:
            services.log.error("store unavailable", error=str(error))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await woken.wait()
