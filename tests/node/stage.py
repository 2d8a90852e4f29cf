"""An event loop for a test that is not asynchronous itself: what lives in it runs while the test waits for it."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")


class Stage:
    """Runs coroutines, and holds what must be entered and left by one task."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._held: list[tuple[object, asyncio.Event, asyncio.Task[None]]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine; everything else on the stage goes on meanwhile."""
        return self._runner.run(work)

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context, until `leave` or `close`."""

        async def enter() -> T:
            entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            leave = asyncio.Event()

            async def hold() -> None:
                async with context as value:
                    entered.set_result(value)
                    await leave.wait()

            task = asyncio.create_task(hold())
            await asyncio.wait({task, entered}, return_when=asyncio.FIRST_COMPLETED)
            if not entered.done():
                task.result()
            self._held.append((entered.result(), leave, task))
            return entered.result()

        return self.run(enter())

    def leave(self, value: object) -> None:
        """Leave the context that gave `value`."""
        at = next(at for at, (held, _, _) in enumerate(self._held) if held is value)
        self._leave(at)

    def close(self) -> None:
        """Leave everything, the latest first."""
        while self._held:
            self._leave(len(self._held) - 1)
        self._runner.close()

    def _leave(self, at: int) -> None:
        _, leave, task = self._held.pop(at)

        async def end() -> None:
            leave.set()
            await task

        self.run(end())
