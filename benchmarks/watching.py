"""Sees from outside when a message has come somewhere: by the timeline in its node's store, as it is committed.

A request that waits for a rung is woken by every change of the node, so many of them would change what is measured.
This reads the few rows that are new, some hundred times a second, and nothing of it is the node's work.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import asyncpg
from pysqlite3 import dbapi2 as sqlite

_EVERY_S: Final = 0.002
#: Rows of several writers are not committed in the order of their numbers.
_LOOK_BACK: Final = 2000

_LAST: Final = "SELECT coalesce(max(number), 0) FROM timeline"
_NEW: Final = """
    SELECT timeline.number, messages.message_id FROM timeline JOIN messages ON messages.number = timeline.message
    WHERE timeline.number > {} AND timeline.event = {}
"""


class _Reader(Protocol):
    async def fetch(self, query: str, *parameters: object) -> Sequence[Any]: ...

    async def close(self) -> None: ...


class _File:
    def __init__(self, path: str) -> None:
        self._connection = sqlite.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    async def fetch(self, query: str, *parameters: object) -> Sequence[Any]:
        return list(self._connection.execute(query, parameters).fetchall())

    async def close(self) -> None:
        self._connection.close()


@dataclass
class Watch:
    """Notes when the `count`-th event of a name was in the store, for each message that had it since the start."""

    url: str
    event: str
    count: int = 1
    #: By the id of the message, on the clock of `time.perf_counter`, which all processes of a machine share.
    at_s: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    async def run(self, ready: asyncio.Event) -> None:
        """Watch until cancelled."""
        is_file = self.url.startswith("sqlite:///")
        reader: _Reader = _File(self.url.removeprefix("sqlite:///")) if is_file else await asyncpg.connect(self.url)
        new = _NEW.format("?", "?") if is_file else _NEW.format("$1", "$2")
        try:
            last = first = int((await reader.fetch(_LAST))[0][0])
            known: set[int] = set()
            ready.set()
            while True:
                found = await reader.fetch(new, last if is_file else max(first, last - _LOOK_BACK), self.event)
                now_s = time.perf_counter()
                for number, message_id in found:
                    if number in known:
                        continue
                    if not is_file:
                        known.add(number)
                    last = max(last, number)
                    self._seen[message_id] = self._seen.get(message_id, 0) + 1
                    if self._seen[message_id] == self.count:
                        self.at_s[message_id] = now_s
                await asyncio.sleep(_EVERY_S)
        finally:
            await reader.close()
