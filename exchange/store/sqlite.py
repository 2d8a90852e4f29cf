"""The store on SQLite: one writer thread that commits in groups, one reader thread beside it.

The rules of its batches are those of `batch.py`; a commit is durable (`synchronous=FULL`).
One process at a time: an exclusive lock on a file beside the database.

`pysqlite3` bundles its SQLite; the standard library's may have the WAL-reset bug (sqlite.org/wal.html).
"""

import asyncio
import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pysqlite3 import dbapi2 as sqlite
from sqlalchemy.dialects.sqlite import pysqlite

from exchange import crash_points
from exchange.store.batch import MAX_BATCH, Signing, Work, complete, linger_after
from exchange.store.errors import StoreDamaged, StoreUnavailable
from exchange.store.locking import lock_store
from exchange.store.log import CheckpointSigner, append_batch
from exchange.store.migrate import migrate_sqlite
from exchange.store.transaction import Operation, Parameters, Row, Sql

T = TypeVar("T")

_dialect = pysqlite.dialect(paramstyle="qmark")


def _run(operation: Operation[T], tx: "SqliteTransaction") -> T:
    """Drive an operation to its end; on SQLite it has nothing to wait for."""
    coroutine = cast("Coroutine[Any, Any, T]", operation(tx))
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("an operation awaited something other than its transaction")


class SqliteTransaction(Signing):
    """A transaction on one SQLite connection, used by one thread."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self.cursor = connection.cursor()

    async def execute(self, sql: Sql, parameters: Parameters) -> int:
        text, values = sql.compiled(_dialect)
        self.cursor.execute(text, values(parameters))
        return int(self.cursor.rowcount)

    async def execute_many(self, sql: Sql, rows: Sequence[Parameters]) -> None:
        text, values = sql.compiled(_dialect)
        self.cursor.executemany(text, map(values, rows))

    async def fetch_all(self, sql: Sql, parameters: Parameters) -> list[Row]:
        await self.execute(sql, parameters)
        return cast("list[Row]", self.cursor.fetchall())

    async def fetch_one(self, sql: Sql, parameters: Parameters) -> Row | None:
        await self.execute(sql, parameters)
        row = self.cursor.fetchone()
        # A statement left half-read would hold its locks past the commit.
        self.cursor.fetchall()
        return cast("Row | None", row)

    async def insert(self, sql: Sql, parameters: Parameters) -> int:
        row = await self.fetch_one(sql, parameters)
        if row is None:
            raise StoreUnavailable("an insert returned no row")
        return int(row[0])


class _Queue:
    """Work for a thread. What is asked for in one turn of the loop arrives at once, so that it shares a batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turn: list[Work] = []
        self._ready: queue.SimpleQueue[list[Work] | None] = queue.SimpleQueue()

    def put(self, work: Work) -> None:
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append(work)

    def _hand_over(self) -> None:
        if self._turn:
            self._ready.put(self._turn)
            self._turn = []

    def close(self) -> None:
        """Let the thread end when it has done what it was given."""
        self._hand_over()
        self._ready.put(None)

    def gather(self, linger_s: float = 0.0) -> tuple[list[Work], bool]:
        """In the thread: wait for work, linger, then take what else is there; the flag says that this is all."""
        works: list[Work] = []
        found = self._ready.get()
        if linger_s:
            time.sleep(linger_s)
        while found is not None:
            works += found
            if len(works) >= MAX_BATCH:
                return works, False
            try:
                found = self._ready.get_nowait()
            except queue.Empty:
                return works, False
        return works, True


class _Files:
    """The files that the connections have open: what is kept in one that was removed or replaced is lost at the end."""

    def __init__(self, path: Path) -> None:
        self._paths = (path, path.with_name(path.name + "-wal"))
        self._opened: dict[Path, os.stat_result] = {}

    def check(self) -> None:
        """Check that they are still there.

        Raises:
            StoreUnavailable: one of them is not.
        """
        for path in self._paths:
            try:
                found = path.stat()
            except OSError as error:
                # SQLite makes the WAL when it is first needed.
                if path in self._opened or path == self._paths[0]:
                    raise StoreUnavailable(f"{path} is gone: {error.strerror}; restart the node") from None
                continue
            if not os.path.samestat(found, self._opened.setdefault(path, found)):
                raise StoreUnavailable(f"another file is in the place of {path}; restart the node")


class SqliteStore:
    """A store in one SQLite file. Make it with `open_sqlite`."""

    shared: Final = False
    replica: Final = ""

    def __init__(
        self,
        connections: tuple[Any, Any],
        lock: Any,
        sign: CheckpointSigner,
        now_ms: Callable[[], int],
        files: _Files,
    ) -> None:
        self._lock = lock
        self._files = files
        self._sign = sign
        self._now_ms = now_ms
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._writes, self._reads = _Queue(self._loop), _Queue(self._loop)
        writing, reading = connections
        self._writer = threading.Thread(
            target=_or_end, args=(self._write_loop, writing), name="store-writer", daemon=True
        )
        self._reader = threading.Thread(
            target=_or_end, args=(self._read_loop, reading), name="store-reader", daemon=True
        )
        self._writer.start()
        self._reader.start()

    async def write(self, operation: Operation[T]) -> T:
        return await self._submit(self._writes, operation)

    async def read(self, operation: Operation[T]) -> T:
        return await self._submit(self._reads, operation)

    async def scrub(self) -> None:
        """`secure_delete` has zeroed what was deleted; here the WAL, which holds older pages, is emptied."""
        await self._submit(self._writes, _scrub)

    async def close(self) -> None:
        self._closed = True
        for pending, thread in ((self._writes, self._writer), (self._reads, self._reader)):
            pending.close()
            await asyncio.to_thread(thread.join)
        self._lock.close()

    async def _submit(self, pending: _Queue, operation: Operation[T]) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        pending.put(Work(operation, future))
        return await future

    def _finish(self, works: list[Work]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits for these any more
            self._loop.call_soon_threadsafe(complete, works)

    def _write_loop(self, connection: Any) -> None:
        last, linger_s = False, 0.0
        while not last:
            works, last = self._writes.gather(linger_s)
            linger_s = linger_after(works)
            scrubs = [work for work in works if work.operation is _scrub]
            works = [work for work in works if work.operation is not _scrub]
            if works:
                if not self._run_batch(connection, works):
                    for work in works:
                        self._run_batch(connection, [work])
                self._finish(works)
            if scrubs:
                _empty_wal(connection, scrubs)
                self._finish(scrubs)
        with contextlib.suppress(sqlite.Error):  # a full disk: the next start does it
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _run_batch(self, connection: Any, works: list[Work]) -> bool:
        """Run `works` in one transaction; False where a batch of several has to be tried one by one."""
        tx = SqliteTransaction(connection)
        try:
            tx.cursor.execute("BEGIN IMMEDIATE")
            for work in works:
                work.result = work.error = None
                _run_in_savepoint(tx, work)
            crash_points.reached("batch.begun")
            prove = _run(lambda transaction: append_batch(transaction, tx.entries, self._sign, self._now_ms()), tx)
            crash_points.reached("batch.signed")
            self._files.check()
            tx.cursor.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever broke the batch is handed to those who wait for it
            with contextlib.suppress(sqlite.Error):
                tx.cursor.execute("ROLLBACK")
            if len(works) > 1:
                return False
            works[0].error = (
                error
                if isinstance(error, StoreUnavailable)
                else StoreUnavailable(f"the store could not keep this: {type(error).__name__}: {error}")
            )
            return True
        crash_points.reached("batch.committed")
        tx.committed(prove)
        return True

    def _read_loop(self, connection: Any) -> None:
        last = False
        while not last:
            works, last = self._reads.gather()
            # All of these were asked for before the first is run, so the same question has the same answer.
            results: dict[Operation[Any], Any] = {}
            for work in works:
                try:
                    if work.operation not in results:
                        results[work.operation] = _run(work.operation, SqliteTransaction(connection))
                    work.result = results[work.operation]
                except sqlite.Error as error:
                    work.error = StoreUnavailable(f"the store could not be read: {type(error).__name__}: {error}")
                except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
                    work.error = error
            if works:
                self._finish(works)
        connection.close()


def _or_end(loop: Callable[[Any], None], connection: Any) -> None:
    """Run a thread of the store. Without it everybody would wait for ever: what ends it ends the process."""
    try:
        loop(connection)
    except BaseException:  # noqa: BLE001 - whatever it is
        traceback.print_exc()
        os._exit(70)


async def _scrub(_: Any) -> None:
    """Marks the work that is done between two transactions."""


def _empty_wal(connection: Any, scrubs: list[Work]) -> None:
    error: StoreUnavailable | None = None
    try:
        if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            error = StoreUnavailable("the WAL could not be emptied: something else is reading the store")
    except sqlite.Error as failed:
        error = StoreUnavailable(f"the WAL could not be emptied: {type(failed).__name__}: {failed}")
    for scrub in scrubs:
        scrub.error = error


def _run_in_savepoint(tx: SqliteTransaction, work: Work) -> None:
    mark = tx.mark()
    tx.cursor.execute("SAVEPOINT operation")
    try:
        work.result = _run(work.operation, tx)
    except sqlite.OperationalError:
        raise  # disk full, I/O error: the whole batch is in doubt
    except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
        tx.cursor.execute("ROLLBACK TO operation")
        tx.forget(mark)
        work.error = error
    tx.cursor.execute("RELEASE operation")


def _connect(path: Path) -> Any:
    connection = sqlite.connect(str(path), isolation_level=None, check_same_thread=False, cached_statements=512)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",
        "busy_timeout = 10000",
        "wal_autocheckpoint = 4000",
        "cache_size = -65536",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _prepare(path: Path) -> tuple[Any, Any]:
    """Migrate, then connect the writer and the reader; one after the other, since two cannot switch to WAL at once."""
    migrate_sqlite(path)
    writing = _connect(path)
    reading = _connect(path)
    reading.execute("PRAGMA query_only = ON")
    found = reading.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        # What would be written into it, a receipt would promise to keep.
        raise StoreDamaged(f"the store at {path} is damaged: {found}")
    return writing, reading


async def open_sqlite(path: Path, sign: CheckpointSigner, now_ms: Callable[[], int]) -> SqliteStore:
    """Open the store at `path`, making or migrating it first.

    Raises:
        StoreInUse: another process has it open.
        StoreTooNew: a newer version of the program wrote it.
        StoreDamaged: its structure does not hold.
        StoreUnavailable: the file cannot be read or written.
    """
    lock = lock_store(path.with_suffix(".lock"))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connections = await asyncio.to_thread(_prepare, path)
        files = _Files(path)
        files.check()
    except OSError as error:
        lock.close()
        raise StoreUnavailable(f"cannot open the store at {path}: {error.strerror}") from error
    except sqlite.Error as error:
        lock.close()
        raise StoreUnavailable(f"cannot open the store at {path}: {error}") from error
    except BaseException:
        lock.close()
        raise
    return SqliteStore(connections, lock, sign, now_ms, files)
