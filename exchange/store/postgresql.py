"""The store on PostgreSQL: any number of replicas of one node share it.

Each process has one writer that commits in groups, by the rules of `batch.py`. A batch takes an advisory lock first, so
the batches of all replicas follow one another as if one writer made them all, and the log has one head. Batches are
large when there is much to do, so they need not run beside each other.

A batch whose connection is lost before its COMMIT was sent is run again on the next connection. Where the answer to
COMMIT is lost, the server is asked by the transaction's number what came of it (`pg_xact_status`).

Works through a pooler that gives out connections by transaction: nothing is kept in a session but prepared statements,
which PgBouncer follows since 1.21, and LISTEN, which has a direct connection or else a poll in its place.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from exchange.store.batch import MAX_BATCH, Signing, Work, complete, linger_after
from exchange.store.errors import StoreError, StoreUnavailable, ValueRefused
from exchange.store.log import CheckpointSigner, append_batch
from exchange.store.migrate import migrate
from exchange.store.transaction import Operation, Parameters, Row, Sql

T = TypeVar("T")

#: For how long a failover of the server may go unnoticed by those who wait, in seconds.
PATIENCE_S: Final = 20.0

_RETRY_S: Final = 0.2
_LISTEN_AGAIN_S: Final = 1.0
_READERS: Final = 4

#: With the schema's name, what the batches of one node's replicas lock; the number has no meaning.
LOCK: Final = 0x45584348

#: Waits for the batches of other replicas; their commits are seen after it. What it notifies is told at the commit.
_TAKE_TURN: Final = """
    SELECT pg_current_xact_id()::text, pg_notify($2, '')
    FROM pg_advisory_xact_lock($1, hashtext(current_schema()))
"""

#: The server went away, is starting, is stopping, or is no longer the primary.
_LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.TooManyConnectionsError,
)

#: The server is there but cannot keep anything: the whole batch is in doubt, not the operation.
_IN_DOUBT: Final = (
    *_LOST,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.InternalServerError,
    asyncpg.exceptions.TransactionRollbackError,
)

_dialect = dialects.dialect()  # type: ignore[no-untyped-call]


class PostgresTransaction(Signing):
    """A transaction on one connection."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection

    async def execute(self, sql: Sql, parameters: Parameters) -> int:
        query, constants, order = sql.compiled(_dialect)
        status = await self._connection.execute(query, *_in_order(order, constants, parameters))
        return int(status.rpartition(" ")[2])

    async def execute_many(self, sql: Sql, rows: Sequence[Parameters]) -> None:
        query, constants, order = sql.compiled(_dialect)
        await self._connection.executemany(query, [_in_order(order, constants, row) for row in rows])

    async def fetch_all(self, sql: Sql, parameters: Parameters) -> list[Row]:
        query, constants, order = sql.compiled(_dialect)
        found = await self._connection.fetch(query, *_in_order(order, constants, parameters))
        return [tuple(record) for record in found]

    async def fetch_one(self, sql: Sql, parameters: Parameters) -> Row | None:
        query, constants, order = sql.compiled(_dialect)
        found = await self._connection.fetchrow(query, *_in_order(order, constants, parameters))
        return None if found is None else tuple(found)

    async def insert(self, sql: Sql, parameters: Parameters) -> int:
        row = await self.fetch_one(sql, parameters)
        if row is None:
            raise StoreUnavailable("an insert returned no row")
        return int(row[0])


def _told(error: Exception, what: str) -> Exception:
    """What a caller hears of an error; what the database says may hold what was sent, so only its kind is told."""
    if isinstance(error, asyncpg.DataError):
        return ValueRefused(f"the store cannot {what} this: {type(error).__name__}")
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return StoreUnavailable(f"the store could not {what} this: {type(error).__name__}")
    return error


def _in_order(order: tuple[str, ...], constants: Parameters, parameters: Parameters) -> list[Any]:
    return [parameters[name] if name in parameters else constants[name] for name in order]


class PostgresStore:
    """A store in one schema of a PostgreSQL database. Make it with `open_postgresql`."""

    def __init__(self, url: str, channel: str, sign: CheckpointSigner, now_ms: Callable[[], int]) -> None:
        self._url = url
        self._channel = channel
        self._sign = sign
        self._now_ms = now_ms
        self._closed = False
        self._wanted: list[Work] = []
        self._wake = asyncio.Event()
        self._idle: list[Any] = []
        self._reading = asyncio.Semaphore(_READERS)
        self._connection: Any = None
        #: Told of each commit of another replica, and after anything that may have hidden one.
        self.changed: Callable[[], None] = lambda: None
        #: Set while commits of other replicas are heard of.
        self.listening = asyncio.Event()
        self._writer = asyncio.create_task(self._write_loop(), name="store-writer")
        self._listener = asyncio.create_task(self._listen(), name="store-listener")

    async def write(self, operation: Operation[T]) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        work = Work(operation, asyncio.get_running_loop().create_future())
        self._wanted.append(work)
        self._wake.set()
        return cast("T", await work.future)

    async def read(self, operation: Operation[T]) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            return await self._read(operation)
        except _LOST:
            pass
        return await self._until_back(lambda: self._read(operation), "read")

    async def scrub(self) -> None:
        """Rewrite the tables that held keys.

        What was deleted is then in no file of the tables. It stays in the server's WAL until that is recycled, and in
        what the server's admin archives.
        """
        async with self._connected() as connection:
            for table in ("sealing_keys", "message_keys"):
                await connection.execute(f"VACUUM (FULL) {table}")

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        await self._writer
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        for connection in [*self._idle, *([self._connection] if self._connection else [])]:
            with contextlib.suppress(*_LOST):
                await connection.close(timeout=5)
        self._idle.clear()

    async def _connect(self) -> Any:
        return await asyncpg.connect(self._url, timeout=5, server_settings={"application_name": "exchange"})

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """A connection for something beside the writer."""
        async with self._reading:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            except asyncio.CancelledError:
                connection.terminate()
                raise
            finally:
                if connection.is_closed() or connection.is_in_transaction() or self._closed:
                    connection.terminate()
                else:
                    self._idle.append(connection)

    async def _read(self, operation: Operation[T]) -> T:
        async with self._connected() as connection:
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    return await operation(PostgresTransaction(connection))
            except asyncpg.PostgresError as error:
                if isinstance(error, _LOST) and not isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
                    connection.terminate()
                    raise
                raise _told(error, "read") from error

    async def _until_back(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        """Try until the server answers, or patience ends."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await attempt()
            except _LOST as error:
                if self._closed or time.monotonic() > end:
                    raise StoreUnavailable(f"the store could not be {what}: {type(error).__name__}") from error
            await asyncio.sleep(_RETRY_S)

    async def _write_loop(self) -> None:
        linger_s = 0.0
        while self._wanted or not self._closed:
            self._wake.clear()
            if not self._wanted:
                await self._wake.wait()
                continue
            if linger_s and not self._closed:
                await asyncio.sleep(linger_s)
            works, self._wanted = self._wanted[:MAX_BATCH], self._wanted[MAX_BATCH:]
            linger_s = linger_after(works)
            await self._keep(works)
            complete(works)

    async def _keep(self, works: list[Work]) -> None:
        """Run works in one batch, and where that is not possible each in its own."""
        try:
            await self._until_back(lambda: self._run_batch(works), "written")
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            if len(works) > 1 and not isinstance(error, StoreUnavailable):
                for work in works:
                    await self._keep([work])
                return
            for work in works:
                work.error = (
                    error
                    if isinstance(error, StoreError)
                    else StoreUnavailable(f"the store could not keep this: {type(error).__name__}")
                )

    async def _run_batch(self, works: list[Work]) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        connection = self._connection
        number = None
        try:
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            number = await connection.fetchval(_TAKE_TURN, LOCK, self._channel)
            tx = PostgresTransaction(connection)
            await connection.execute("SAVEPOINT operation")
            for work in works:
                work.result = work.error = None
                await self._run_one(tx, connection, work)
            prove = await append_batch(tx, tx.entries, self._signed, self._now_ms())
        except BaseException:
            with contextlib.suppress(*_IN_DOUBT, asyncpg.PostgresError):
                await connection.execute("ROLLBACK", timeout=5)
            if connection.is_in_transaction():
                connection.terminate()
            raise
        try:
            await connection.execute("COMMIT")
        except _LOST as error:
            connection.terminate()
            if not await self._until_back(lambda: self.was_committed(number), "written"):
                raise ConnectionResetError("the batch was rolled back") from error
        tx.committed(prove)

    def _signed(self, size: int, root: bytes, timestamp_s: int) -> str:
        try:
            return self._sign(size, root, timestamp_s)
        except Exception as error:
            raise StoreUnavailable(f"the checkpoint could not be signed: {type(error).__name__}") from error

    async def was_committed(self, number: str) -> bool:
        """What came of a transaction whose COMMIT had no answer.

        Raises:
            StoreUnavailable: the server does not know; a replica that lost transactions may have become the primary.
        """
        async with self._connected() as connection:
            status = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", number)
        if status == "in progress":
            raise ConnectionResetError("the server has not decided yet")
        if status not in ("committed", "aborted"):
            raise StoreUnavailable("the server does not know whether this was kept")
        return bool(status == "committed")

    async def _run_one(self, tx: PostgresTransaction, connection: Any, work: Work) -> None:
        mark = tx.mark()
        try:
            work.result = await work.operation(tx)
        except _IN_DOUBT:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
            await connection.execute("ROLLBACK TO SAVEPOINT operation")
            tx.forget(mark)
            work.error = _told(error, "keep")
        else:
            await connection.execute("RELEASE SAVEPOINT operation; SAVEPOINT operation")

    def _heard(self, _: Any, process: int, *__: Any) -> None:
        if self._connection is None or process != self._connection.get_server_pid():
            self.changed()

    async def _listen(self) -> None:
        """Hear of the commits of other replicas; where the connection is lost, what was missed is told once."""
        while True:
            gone = asyncio.Event()
            connection = None
            try:
                connection = await self._connect()
                connection.add_termination_listener(lambda _, gone=gone: gone.set())
                await connection.add_listener(self._channel, self._heard)
                self.listening.set()
                self.changed()
                await gone.wait()
            except (*_LOST, asyncpg.PostgresError):
                pass
            finally:
                self.listening.clear()
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(_LISTEN_AGAIN_S)


@contextlib.asynccontextmanager
async def _asking(url: str) -> AsyncIterator[Any]:
    """A connection for a moment.

    Raises:
        StoreUnavailable: the server cannot be reached, or refuses.
    """
    try:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(
            f"cannot open the store in PostgreSQL: {error or type(error).__name__}",
            hint="Check store.url, and that the server runs and lets this node in.",
        ) from error


async def has_tables(url: str) -> bool:
    """Whether a node was ever set up in the database at `url`.

    Raises:
        StoreUnavailable: the server cannot be reached, or refuses.
    """
    async with _asking(url) as connection:
        return await connection.fetchval("SELECT to_regclass('log_head')") is not None


async def open_postgresql(url: str, sign: CheckpointSigner, now_ms: Callable[[], int]) -> PostgresStore:
    """Open the store in the database at `url`, making or migrating its tables first.

    Raises:
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: the server cannot be reached, or is set up so that what it confirmed could be lost.
    """
    async with _asking(url) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            if await connection.fetchval("SELECT current_setting($1)", setting) == "off":
                raise StoreUnavailable(f"the PostgreSQL server has {setting} = off: what it confirmed could be lost")
        schema = await connection.fetchval("SELECT current_schema()")
    if schema is None:
        raise StoreUnavailable("cannot open the store in PostgreSQL: the search path names no schema that exists")
    await migrate_postgresql(url)
    return PostgresStore(url, f"exchange_{hashlib.sha256(schema.encode()).hexdigest()[:16]}", sign, now_ms)


async def migrate_postgresql(url: str, revision: str = "head") -> None:
    """Of several replicas that start together, one at a time."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url, timeout=10), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock, hashtext(current_schema()))"), {"lock": LOCK}
            )
            await connection.run_sync(migrate, revision)
    except DatabaseError as error:
        raise StoreUnavailable(f"cannot open the store in PostgreSQL: {error.orig}") from None
    finally:
        await engine.dispose()
