"""The store on PostgreSQL: any number of replicas of one node share it.

Each process has one writer that commits in groups, by the rules of `batch.py`. A batch takes an advisory lock first, so
the batches of all replicas follow one another as if one writer made them all, and the log has one head. Batches are
large when there is much to do, so they need not run beside each other.

A batch whose connection is lost before its COMMIT was sent is run again on the next connection. Where the answer to
COMMIT is lost, the next turn reads whether the batch is there: each writes its name, in its own transaction. The number
of the transaction would not do: a standby that became the primary may have given it to another.

A server that comes back without what it had confirmed is signed on no more: peers have seen what it lost.

Works through a pooler that gives out connections by transaction: nothing is kept in a session but prepared statements,
which PgBouncer follows since 1.21, and LISTEN, which has a direct connection or else a poll in its place.
"""

import asyncio
import contextlib
import functools
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from exchange import crash_points
from exchange.store.batch import MAX_BATCH, Signing, Work, complete, linger_after
from exchange.store.errors import StoreError, StoreInDoubt, StoreUnavailable, StoreWentBack, ValueRefused
from exchange.store.log import CheckpointSigner, append_batch
from exchange.store.migrate import migrate
from exchange.store.transaction import Operation, Parameters, Row, Sql

T = TypeVar("T")

#: For how long a failover of the server may go unnoticed by those who wait, in seconds.
PATIENCE_S: Final = 20.0
#: And for how long to wait for a server that alone knows whether a batch is kept.
_DOUBT_S: Final = 120.0

_RETRY_S: Final = 0.2
_LISTEN_AGAIN_S: Final = 1.0
_READERS: Final = 4
_CACHE: Final = "statement_cache_size"

#: With the schema's name, what the batches of one node's replicas lock; the number has no meaning.
LOCK: Final = 0x45584348

#: Waits for the batches of other replicas; their commits are seen after it. What it notifies is told at the commit.
_TAKE_TURN: Final = """
    WITH named AS (
        INSERT INTO replicas (id, turn) VALUES ($3, $4) ON CONFLICT (id) DO UPDATE SET turn = excluded.turn
    )
    SELECT pg_notify($2, '') FROM pg_advisory_xact_lock($1, hashtext(current_schema()))
"""
_WAIT_FOR_TURN: Final = "SELECT pg_is_in_recovery() FROM pg_advisory_xact_lock($1, hashtext(current_schema()))"
_LAST_TURN: Final = "SELECT turn FROM replicas WHERE id = $1"
_CHECKPOINT: Final = "SELECT text FROM checkpoints WHERE size = $1"

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
        query, values = sql.compiled(_dialect)
        status = await self._connection.execute(query, *values(parameters))
        return int(status.rpartition(" ")[2])

    async def execute_many(self, sql: Sql, rows: Sequence[Parameters]) -> None:
        query, values = sql.compiled(_dialect)
        await self._connection.executemany(query, map(values, rows))

    async def fetch_all(self, sql: Sql, parameters: Parameters) -> list[Row]:
        query, values = sql.compiled(_dialect)
        found = await self._connection.fetch(query, *values(parameters))
        return [tuple(record) for record in found]

    async def fetch_one(self, sql: Sql, parameters: Parameters) -> Row | None:
        query, values = sql.compiled(_dialect)
        found = await self._connection.fetchrow(query, *values(parameters))
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


class PostgresStore:
    """A store in one schema of a PostgreSQL database. Make it with `open_postgresql`."""

    shared: Final = True

    def __init__(self, url: str, channel: str, sign: CheckpointSigner, now_ms: Callable[[], int]) -> None:
        #: This process, among those that share the store.
        self.replica = secrets.token_hex(8)
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
        #: Asked in each batch that is to be signed, after it has its turn: whether this process may still sign.
        self.may_sign: Operation[None] | None = None
        #: Told once, where the server has lost what it confirmed: how large the log was.
        self.went_back: Callable[[int], None] = lambda size: None
        #: Size and text of the last checkpoint that this process has signed and seen kept.
        self._last: tuple[int, str] | None = None
        self._lost: StoreWentBack | None = None
        self._writer = asyncio.create_task(self._write_loop(), name="store-writer")
        self._listener = asyncio.create_task(self._listen(), name="store-listener")

    async def write(self, operation: Operation[T], *, long: bool = False) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        work = Work(operation, asyncio.get_running_loop().create_future(), long=long)
        self._wanted.append(work)
        self._wake.set()
        return cast("T", await work.future)

    async def read(self, operation: Operation[T], *, brief: bool = False) -> T:
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

    async def connect(self) -> Any:
        # Of a cluster, only the primary: what a standby answers may be old.
        return await connect(
            self._url, timeout=5, target_session_attrs="read-write", server_settings={"application_name": "exchange"}
        )

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """A connection for something beside the writer."""
        async with self._reading:
            connection = self._idle.pop() if self._idle else await self.connect()
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

    async def _until_back(self, attempt: Callable[[], Awaitable[T]], what: str, patience_s: float = PATIENCE_S) -> T:
        """Try until the server answers, or patience ends."""
        end = time.monotonic() + patience_s
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
        if self._lost is not None:
            raise self._lost
        is_new = self._connection is None or self._connection.is_closed()
        if is_new:
            self._connection = await self.connect()
        connection, turn = self._connection, secrets.token_hex(8)
        signed: list[tuple[int, str]] = []
        try:
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            await connection.fetchval(_TAKE_TURN, LOCK, self._channel, self.replica, turn)
            if is_new:
                await self._check_history(connection)
            tx = PostgresTransaction(connection)
            await connection.execute("SAVEPOINT operation")
            for work in works:
                work.result = work.error = None
                await self._run_one(tx, connection, work)
            if tx.entries and self.may_sign is not None:
                await self.may_sign(tx)
            crash_points.reached("batch.begun")
            prove = await append_batch(tx, tx.entries, functools.partial(self._signed, signed), self._now_ms())
            crash_points.reached("batch.signed")
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
            if not await self._was_kept_after_all(turn):
                raise ConnectionResetError("the batch was rolled back") from error
        crash_points.reached("batch.committed")
        self._last = signed[0] if signed else self._last
        tx.committed(prove)

    async def _check_history(self, connection: Any) -> None:
        """On a new connection, be sure that this is the database that was left, and no older one.

        Raises:
            StoreWentBack: what this process has signed and seen confirmed is not there.
        """
        if self._last is None:
            return
        size, checkpoint = self._last
        if await connection.fetchval(_CHECKPOINT, size) != checkpoint:
            self._lost = StoreWentBack(f"the database has lost what it confirmed: it does not hold checkpoint {size}")
            self.went_back(size)
            raise self._lost

    def _signed(self, signed: list[tuple[int, str]], size: int, root: bytes, timestamp_s: int) -> str:
        try:
            checkpoint = self._sign(size, root, timestamp_s)
        except Exception as error:
            raise StoreUnavailable(f"the checkpoint could not be signed: {type(error).__name__}") from error
        signed.append((size, checkpoint))
        return checkpoint

    async def _was_kept_after_all(self, turn: str) -> bool:
        try:
            return await self._until_back(lambda: self.was_kept(turn), "asked", _DOUBT_S)
        except StoreUnavailable as error:
            raise StoreInDoubt("the database went away, and has not said whether this was kept") from error

    async def was_kept(self, turn: str) -> bool:
        """Whether a batch whose COMMIT had no answer is there; only once its own transaction has ended."""
        async with self._connected() as connection, connection.transaction():
            if await connection.fetchval(_WAIT_FOR_TURN, LOCK):
                raise ConnectionResetError("this server is a standby now")
            # A statement of its own: what it sees begins after the wait.
            return bool(await connection.fetchval(_LAST_TURN, self.replica) == turn)

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
                connection = await self.connect()
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


async def connect(url: str, **options: Any) -> Any:
    """Connect; `statement_cache_size=0` in the URL is for poolers that follow no prepared statements."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    sizes = [int(value) for name, value in query if name == _CACHE]
    if sizes:
        options["statement_cache_size"] = sizes[-1]
        url = parts._replace(query=urlencode([pair for pair in query if pair[0] != _CACHE])).geturl()
    return await asyncpg.connect(url, **options)


@contextlib.asynccontextmanager
async def asking(url: str) -> AsyncIterator[Any]:
    """A connection for a moment.

    Raises:
        StoreUnavailable: the server cannot be reached, or refuses.
    """
    try:
        connection = await connect(url, timeout=10)
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
    async with asking(url) as connection:
        return await connection.fetchval("SELECT to_regclass('log_head')") is not None


async def open_postgresql(url: str, sign: CheckpointSigner, now_ms: Callable[[], int]) -> PostgresStore:
    """Open the store in the database at `url`, making or migrating its tables first.

    Raises:
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: the server cannot be reached, or is set up so that what it confirmed could be lost.
    """
    async with asking(url) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            if await connection.fetchval("SELECT current_setting($1)", setting) == "off":
                raise StoreUnavailable(f"the PostgreSQL server has {setting} = off: what it confirmed could be lost")
        schema = await connection.fetchval("SELECT current_schema()")
    if schema is None:
        raise StoreUnavailable("cannot open the store in PostgreSQL: the search path names no schema that exists")
    await migrate_postgresql(url)
    return PostgresStore(url, f"exchange_{hashlib.sha256(schema.encode()).hexdigest()[:16]}", sign, now_ms)


async def migrate_postgresql(url: str, revision: str = "head") -> None:
    """Make or migrate the tables, up to a revision; of several replicas that start together, one at a time.

    Raises:
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: the server cannot be reached, or refuses.
    """
    async with migrating(url, revision):
        pass


@contextlib.asynccontextmanager
async def migrating(url: str, revision: str = "head") -> AsyncIterator[Any]:
    """Make or migrate the tables in a transaction that goes on: all that follows on the connection is there with them.

    Raises:
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: the server cannot be reached, or refuses.
        ValueRefused: it cannot hold what it was given.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url, timeout=10), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock, hashtext(current_schema()))"), {"lock": LOCK}
            )
            await connection.run_sync(migrate, revision)
            yield (await connection.get_raw_connection()).driver_connection
    except DatabaseError as error:
        raise StoreUnavailable(f"cannot open the store in PostgreSQL: {error.orig}") from None
    except asyncpg.PostgresError as error:
        raise _told(error, "keep") from None
    finally:
        await engine.dispose()
