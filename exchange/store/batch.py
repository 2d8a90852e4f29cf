"""What the batching writers of all databases share.

* Whatever has queued up while the last batch was being committed is the next batch; under load it waits a little for
  more, so that more share a commit and a signature (PostgreSQL's `commit_delay` does the same).
* Each operation runs in a savepoint: one that fails takes nothing of the others with it.
* A future is completed only after the commit that holds its work.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from exchange.crypto.statement import encode_statement, leaf_hash
from exchange.store.log import log_size
from exchange.store.transaction import LogEntry, Operation, Transaction

#: Enough to share one checkpoint widely, few enough that nobody waits long for the batch that they are in.
MAX_BATCH: Final = 256

#: A batch waits so long for more when the last one held as many operations.
_LINGER_S: Final = 0.002
_BUSY: Final = 4


@dataclass(slots=True)
class Work:
    """An operation that somebody waits for."""

    operation: Operation[Any]
    future: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None
    #: It may take long; see `Store.write`.
    long: bool = False


def complete(works: Sequence[Work]) -> None:
    """Tell those who wait what came of it; in the loop's thread."""
    for work in works:
        if work.future.done():
            continue
        if work.error is not None:
            work.future.set_exception(work.error)
        else:
            work.future.set_result(work.result)


def linger_after(works: Sequence[Work]) -> float:
    """How long the next batch waits for more, in seconds."""
    return _LINGER_S if len(works) >= _BUSY else 0.0


class Signing:
    """The part of a transaction that appends to the log."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, LogEntry]] = []
        self._next_position: int | None = None

    async def sign(self, statement_type: str, body: bytes) -> LogEntry:
        if self._next_position is None:
            self._next_position = await log_size(cast("Transaction", self))
        statement = encode_statement(statement_type, body)
        entry = LogEntry(statement, leaf_hash(statement))
        entry.position = self._next_position
        self._next_position += 1
        self.entries.append((statement_type, entry))
        return entry

    def mark(self) -> int:
        return len(self.entries)

    def forget(self, mark: int) -> None:
        """Take back what was signed since `mark`."""
        if self._next_position is not None:
            self._next_position -= len(self.entries) - mark
        del self.entries[mark:]

    def committed(self, prove: Callable[[int], str]) -> None:
        """The batch is durable; `prove` makes the tlog-proof of each position in it."""
        for _, entry in self.entries:
            entry.committed(prove, self.entries[-1][1].position + 1)
