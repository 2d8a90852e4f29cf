"""The store on SQLite: batches that begin on the event loop and are committed by a writer thread; a reader thread.

What is read by its key is read on the loop too.

* The rules of the batches are those of `batch.py`; a commit is durable (`synchronous=FULL`).
* The loop runs the operations of a batch: each statement gives up the GIL and must get it back, for which a thread
  would compete with the loop. It waits for nothing there: for no disk to sync, and for no lock of another process.
* The writer thread signs, commits and empties the WAL. It also runs, as a whole, what may take long, what the loop
  could not begin, and each operation of a batch that broke.
* The connection is the loop's or the thread's, never both's: from `_begin` to `_done` one batch is under way.
* One process at a time: an exclusive lock on a file beside the database.

`pysqlite3` bundles its SQLite; the standard library's may have the WAL-reset bug (sqlite.org/wal.html).
"""

import asyncio
import contextlib
import functools
import os
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

from pysqlite3 import dbapi2 as sqlite
from sqlalchemy.dialects.sqlite import pysqlite

from exchange import crash_points
from exchange.store.batch import MAX_BATCH, Signing, Work, complete, linger_after
from exchange.store.errors import StoreDamaged, StoreUnavailable
from exchange.store.locking import lock_store
from exchange.store.log import Appended, CheckpointSigner, append_leaves, sign_appended
from exchange.store.migrate import migrate_sqlite
from exchange.store.transaction import Operation, Parameters, Row, Sql

T = TypeVar("T")

#: How long the writer thread waits for another process that writes to the database.
_PATIENCE_MS: Final = 10_000

#: Of each connection. What is looked for is nearly all at the end of the tables, so more holds more and saves nothing.
_CACHE_KIB: Final = 16 * 1024

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
    """A transaction on one SQLite connection, used by one thread at a time."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self.cursor = connection.cursor()

    def changes(self) -> int:
        """How many rows this connection has ever changed."""
        return int(self.cursor.connection.total_changes)

    def end(self) -> None:
        """Let go of the connection: a cursor that is only forgotten does so later, and may have to wait for it then."""
        self.cursor.close()

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
    """Reads for a thread. What is asked for in one turn of the loop arrives at once, so that it shares answers."""

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

    def gather(self) -> tuple[list[Work], bool]:
        """In the thread: wait for work, then take what else is there; the flag says that this is all."""
        works: list[Work] = []
        found = self._ready.get()
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
        connections: "_Connections",
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
        self._wanted: deque[Work] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._jobs: queue.SimpleQueue[Callable[[], list[Work]] | None] = queue.SimpleQueue()
        self._reads = _Queue(self._loop)
        self._connection, self._looking, reading = connections
        self._writer = threading.Thread(
            target=_or_end, args=(self._write_loop, self._connection), name="store-writer", daemon=True
        )
        self._reader = threading.Thread(
            target=_or_end, args=(self._read_loop, reading), name="store-reader", daemon=True
        )
        self._writer.start()
        self._reader.start()

    async def write(self, operation: Operation[T], *, long: bool = False) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._wanted.append(Work(operation, future, long=long))
        if self._idle.is_set():
            self._idle.clear()
            # What else is asked for in this turn of the loop shares the batch.
            self._loop.call_soon(_or_end, self._begin)
        return await future

    async def read(self, operation: Operation[T], *, brief: bool = False) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if brief:
            with contextlib.suppress(StoreUnavailable):  # the thread can wait, and says what is wrong
                return _look(operation, self._looking)
        future: asyncio.Future[T] = self._loop.create_future()
        self._reads.put(Work(operation, future))
        return await future

    async def scrub(self) -> None:
        """`secure_delete` has zeroed what was deleted; here the WAL, which holds older pages, is emptied."""
        await self.write(_scrub, long=True)

    async def close(self) -> None:
        self._closed = True
        await self._idle.wait()
        self._jobs.put(None)
        self._reads.close()
        for thread in (self._writer, self._reader):
            await asyncio.to_thread(thread.join)
        self._looking.close()
        self._lock.close()

    # Writing: in the loop's thread

    def _begin(self) -> None:
        """Run the operations of the next batch, and leave its commit to the writer thread."""
        works = self._next_works()
        if works[0].long:
            self._jobs.put(functools.partial(self._run_alone, works[0]))
            return
        tx = SqliteTransaction(self._connection)
        try:
            tx.cursor.execute("BEGIN IMMEDIATE")
        except sqlite.Error:
            # Perhaps another process writes: the thread can wait for it, and says what is wrong otherwise.
            tx.end()
            self._jobs.put(functools.partial(self._run_together, works))
            return
        before = tx.changes()
        try:
            appended = _run_operations(tx, works)
            is_idle = appended is None and tx.changes() == before
            if is_idle:
                tx.cursor.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever broke the batch is handed to those who wait for it
            _roll_back(tx)
            if len(works) > 1:
                self._jobs.put(functools.partial(self._run_one_by_one, works))
            else:
                works[0].error = _unkept(error)
                self._done(works)
            return
        if is_idle:
            # Such as a claim that found nothing: there is nothing for the disk, nor for the thread.
            tx.end()
            self._done(works)
        else:
            self._jobs.put(functools.partial(self._commit_batch, tx, works, appended))

    def _next_works(self) -> list[Work]:
        """What was asked for first, up to what is long; that is alone."""
        works = [self._wanted.popleft()]
        while not works[0].long and self._wanted and not self._wanted[0].long and len(works) < MAX_BATCH:
            works.append(self._wanted.popleft())
        return works

    def _done(self, works: list[Work]) -> None:
        """Whatever became of `works` is settled: tell those who wait, and go on."""
        complete(works)
        if not self._wanted:
            self._idle.set()
        elif linger_s := linger_after(works):
            self._loop.call_later(linger_s, _or_end, self._begin)
        else:
            self._loop.call_soon(_or_end, self._begin)

    # Writing: in the writer thread

    def _write_loop(self, connection: Any) -> None:
        while (job := self._jobs.get()) is not None:
            works = job()
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits for these any more
                self._loop.call_soon_threadsafe(_or_end, self._done, works)
        with contextlib.suppress(sqlite.Error), _patient(connection):  # a full disk: the next start does it
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _commit_batch(self, tx: SqliteTransaction, works: list[Work], appended: Appended | None) -> list[Work]:
        """Make durable what the loop has run; where that fails, try each of `works` in a batch of its own."""
        error = self._commit(tx, appended)
        if error is None:
            return works
        if len(works) > 1:
            return self._run_one_by_one(works)
        works[0].error = _unkept(error)
        return works

    def _run_alone(self, work: Work) -> list[Work]:
        if work.operation is _scrub:
            with _patient(self._connection):
                work.error = _empty_wal(self._connection)
            return [work]
        return self._run_together([work])

    def _run_together(self, works: list[Work]) -> list[Work]:
        """Run a batch as a whole, and where it breaks each of `works` in one of its own."""
        error = self._run_batch(works)
        if error is not None:
            if len(works) > 1:
                return self._run_one_by_one(works)
            works[0].error = _unkept(error)
        return works

    def _run_one_by_one(self, works: list[Work]) -> list[Work]:
        for work in works:
            self._run_together([work])
        return works

    def _run_batch(self, works: list[Work]) -> Exception | None:
        """Run `works` in one transaction; return what broke it."""
        tx = SqliteTransaction(self._connection)
        try:
            with _patient(self._connection):
                tx.cursor.execute("BEGIN IMMEDIATE")
            appended = _run_operations(tx, works)
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            _roll_back(tx)
            return error
        return self._commit(tx, appended)

    def _commit(self, tx: SqliteTransaction, appended: Appended | None) -> Exception | None:
        """Sign what was appended, and commit; return what stood against it, after which nothing is kept."""
        try:
            prove = _run(lambda given: sign_appended(given, appended, self._sign, self._now_ms()), tx)
            crash_points.reached("batch.signed")
            self._files.check()
            tx.cursor.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            _roll_back(tx)
            return error
        crash_points.reached("batch.committed")
        tx.end()
        tx.committed(prove)
        return None

    # Reading: in the reader thread

    def _read_loop(self, connection: Any) -> None:
        last = False
        while not last:
            works, last = self._reads.gather()
            # All of these were asked for before the first is run, so the same question has the same answer.
            results: dict[Operation[Any], Any] = {}
            for work in works:
                try:
                    if work.operation not in results:
                        results[work.operation] = _look(work.operation, connection)
                    work.result = results[work.operation]
                except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
                    work.error = error
            if works:
                with contextlib.suppress(RuntimeError):  # the loop is gone
                    self._loop.call_soon_threadsafe(complete, works)
        connection.close()


def _or_end(part: Callable[..., None], *arguments: Any) -> None:
    """Run a part of the store. Without it everybody would wait for ever: what ends it ends the process."""
    try:
        part(*arguments)
    except BaseException:  # noqa: BLE001 - whatever it is
        traceback.print_exc()
        os._exit(70)


async def _scrub(_: Any) -> None:
    """Marks the work that is done between two transactions."""


def _empty_wal(connection: Any) -> StoreUnavailable | None:
    try:
        if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return StoreUnavailable("the WAL could not be emptied: something else is reading the store")
    except sqlite.Error as error:
        return StoreUnavailable(f"the WAL could not be emptied: {type(error).__name__}: {error}")
    return None


@contextlib.contextmanager
def _patient(connection: Any) -> Iterator[None]:
    """Wait for other processes that hold a lock; on the loop nothing must."""
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
    try:
        yield
    finally:
        connection.execute("PRAGMA busy_timeout = 0")


def _unkept(error: Exception) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(f"the store could not keep this: {type(error).__name__}: {error}")


def _roll_back(tx: SqliteTransaction) -> None:
    with contextlib.suppress(sqlite.Error):  # SQLite has done so itself after most errors
        tx.cursor.execute("ROLLBACK")
    tx.end()


def _look(operation: Operation[T], connection: Any) -> T:
    tx = SqliteTransaction(connection)
    try:
        return _run(operation, tx)
    except sqlite.Error as error:
        raise StoreUnavailable(f"the store could not be read: {type(error).__name__}: {error}") from None
    finally:
        tx.end()


def _run_operations(tx: SqliteTransaction, works: list[Work]) -> Appended | None:
    """In a transaction that has begun: run `works`, and append what they signed."""
    for work in works:
        work.result = work.error = None
        _run_in_savepoint(tx, work)
    crash_points.reached("batch.begun")
    return _run(lambda given: append_leaves(given, tx.entries), tx)


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
        f"busy_timeout = {_PATIENCE_MS}",
        "wal_autocheckpoint = 1000",
        f"cache_size = -{_CACHE_KIB}",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class _Connections(NamedTuple):
    writing: Any
    #: Reads on the loop.
    looking: Any
    #: Reads in the reader thread.
    reading: Any


def _prepare(path: Path) -> _Connections:
    """Migrate, then connect, one after the other: two cannot switch to WAL at once."""
    migrate_sqlite(path)
    writing = _connect(path)
    writing.execute("PRAGMA busy_timeout = 0")
    looking, reading = _connect(path), _connect(path)
    looking.execute("PRAGMA busy_timeout = 0")
    for connection in (looking, reading):
        connection.execute("PRAGMA query_only = ON")
    found = reading.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        # What would be written into it, a receipt would promise to keep.
        raise StoreDamaged(f"the store at {path} is damaged: {found}")
    return _Connections(writing, looking, reading)


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
