"""Move a whole store from one database to another, while no process runs on it; or read one to check it.

* The target is filled in one transaction, or in a file that takes its name once it is whole: of a move that was
  interrupted nothing is left that a node would start on.
* Every row is read back and compared, and the log is computed anew: its roots must be those that were signed.
* The source is marked then. No node starts on it again, and a process that was left running can write nothing more:
  its log would fork from the one that goes on elsewhere.
* A move whose target is there already, row for row, is finished; any other target is left alone.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pysqlite3 import dbapi2 as sqlite
from sqlalchemy import Table, Text

from exchange.store.checking import LogReport, check_log
from exchange.store.errors import AlreadyThere, NotFound, StoreDamaged, StoreInUse, StoreMoved, StoreUnavailable
from exchange.store.locking import lock_store
from exchange.store.migrate import migrate_sqlite
from exchange.store.opening import SQLITE, store_exists
from exchange.store.tables import metadata, moved, replicas
from exchange.store.transaction import Row

_CHUNK: Final = 500
#: A process that was killed counts as running for so long.
_SEEN_LATELY_MS: Final = 30_000

TABLES: Final = tuple(table for table in metadata.sorted_tables if table not in (replicas, moved))


class Database(Protocol):
    """A store that is read or filled without a node."""

    def rows(self, table: Table) -> AsyncIterator[list[Row]]:
        """Read a table in the order of its primary key."""

    async def add(self, table: Table, rows: list[Row]) -> None:
        """Add rows to a table that this move fills."""

    async def mark_moved(self, url: str, at_ms: int) -> None:
        """Let nobody write here any more."""


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What was moved: rows by table, and the log."""

    rows: dict[str, int]
    log: LogReport


async def check_store(url: str) -> LogReport:
    """Check the log of a store; a node may run on it.

    Raises:
        NotFound: there is no store.
        StoreDamaged: the log is not what was signed.
        StoreUnavailable: the store cannot be read.
    """
    async with AsyncExitStack() as stack:
        return await check_log((await _open(stack, url, for_writing=False)).rows)


async def move_store(
    source_url: str, target_url: str, lock_path: Path, verify: Callable[[LogReport], object]
) -> MoveReport:
    """Move a store on which no process runs; `lock_path` is what keeps a node out of its directory.

    `verify` checks the signatures of the log's last checkpoint.

    Raises:
        AlreadyThere: there is another store at the target.
        NotFound: there is no store at the source.
        StoreDamaged: the source's log is not what was signed, or what was written is not what was read.
        StoreInUse: a process runs on one of them.
        StoreMoved: the source was moved elsewhere before.
        StoreUnavailable: one of them cannot be read or written.
    """
    if source_url == target_url:
        raise AlreadyThere("the store is there already", hint="Name another target.")
    async with AsyncExitStack() as stack:
        files = [Path(url.removeprefix(SQLITE)) for url in (source_url, target_url) if url.startswith(SQLITE)]
        for path in sorted({lock_path, *(file.with_suffix(".lock") for file in files)}):
            stack.callback(lock_store(path).close)
        source = await _open(stack, source_url, for_writing=True)
        elsewhere = [row async for chunk in source.rows(moved) for row in chunk]
        if elsewhere and elsewhere[0][1] != target_url:
            raise StoreMoved(f"the store at {source_url} was moved to {elsewhere[0][1]}")
        log = await check_log(source.rows)
        verify(log)
        if await store_exists(target_url):
            async with AsyncExitStack() as there:
                await _compare_or_refuse(source, await _open(there, target_url, for_writing=True), target_url)
        else:
            async with _new_target(target_url) as target:
                for table in TABLES:
                    async for chunk in source.rows(table):
                        await target.add(table, chunk)
                await _compare(source, target)
                if await check_log(target.rows) != log:
                    raise StoreDamaged("the log that was written is not the one that was read")
        counts = {table.name: sum([len(chunk) async for chunk in source.rows(table)]) for table in TABLES}
        if not elsewhere:
            await source.mark_moved(target_url, time.time_ns() // 1_000_000)
        return MoveReport(counts, log)


async def _compare_or_refuse(source: Database, target: Database, target_url: str) -> None:
    """Of an earlier move that was stopped before its end, the target is there."""
    with contextlib.suppress(StoreDamaged):
        if not [row async for chunk in target.rows(moved) for row in chunk]:
            await _compare(source, target)
            return
    raise AlreadyThere(
        f"there is another store at {target_url}; nothing was changed", hint="Move it away, or name another target."
    )


async def _compare(source: Database, target: Database) -> None:
    for table in TABLES:
        there = target.rows(table)
        async for wanted in source.rows(table):
            if await anext(there, []) != wanted:
                raise StoreDamaged(f"a row of {table.name} was not written as it was read")
        if await anext(there, []):
            raise StoreDamaged(f"{table.name} has rows that were not read")


def _names(table: Table) -> list[str]:
    return [f'"{column.name}"' for column in table.c]


async def _open(stack: AsyncExitStack, url: str, *, for_writing: bool) -> "Database":
    if not await store_exists(url):
        raise NotFound(f"there is no store at {url}", hint="Check the URL.")
    if url.startswith(SQLITE):
        return _open_sqlite(stack, Path(url.removeprefix(SQLITE)), for_writing=for_writing)
    return await _open_postgresql(stack, url, for_writing=for_writing)


@contextlib.asynccontextmanager
async def _new_target(url: str) -> AsyncIterator["Database"]:
    target = _new_sqlite(Path(url.removeprefix(SQLITE))) if url.startswith(SQLITE) else _new_postgresql(url)
    async with target as database:
        yield database


# SQLite


class _Sqlite:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, table: Table) -> AsyncIterator[list[Row]]:
        order = ", ".join(f'"{column.name}"' for column in table.primary_key)
        query = f"SELECT {', '.join(_names(table))} FROM {table.name} ORDER BY {order}"  # noqa: S608 - our own names
        cursor = self._connection.execute(query)
        while found := cursor.fetchmany(_CHUNK):
            yield [tuple(row) for row in found]

    async def add(self, table: Table, rows: list[Row]) -> None:
        places = ", ".join("?" for _ in table.c)
        statement = f"INSERT INTO {table.name} ({', '.join(_names(table))}) VALUES ({places})"  # noqa: S608
        self._connection.executemany(statement, rows)

    async def mark_moved(self, url: str, at_ms: int) -> None:
        self._connection.execute("INSERT INTO moved (id, url, at_ms) VALUES (1, ?, ?)", (url, at_ms))


def _connect_sqlite(path: Path, mode: str) -> Any:
    try:
        connection = sqlite.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite.Error as error:
        raise StoreUnavailable(f"cannot open the store at {path}: {error}") from None
    return connection


def _open_sqlite(stack: AsyncExitStack, path: Path, *, for_writing: bool) -> Database:
    if for_writing:
        migrate_sqlite(path)
    connection = _connect_sqlite(path, "rw" if for_writing else "ro")
    stack.callback(connection.close)
    if not for_writing:
        connection.execute("BEGIN")
    return _Sqlite(connection)


@contextlib.asynccontextmanager
async def _new_sqlite(path: Path) -> AsyncIterator[Database]:
    growing = path.with_name(path.name + ".moving")
    try:
        with contextlib.suppress(FileNotFoundError):
            growing.unlink()
        os.close(os.open(growing, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        await asyncio.to_thread(migrate_sqlite, growing)
        connection = _connect_sqlite(growing, "rw")
        try:
            connection.execute("BEGIN")
            yield _Sqlite(connection)
            connection.execute("COMMIT")
        finally:
            connection.close()
        os.replace(growing, path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    except (sqlite.Error, OSError) as error:
        raise StoreUnavailable(f"cannot write the store at {path}: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            growing.unlink()


# PostgreSQL


class _Postgresql:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, table: Table) -> AsyncIterator[list[Row]]:
        # The order of bytes, as SQLite has it, and not that of a language.
        order = ", ".join(
            f'"{column.name}"' + (' COLLATE "C"' if isinstance(column.type, Text) else "")
            for column in table.primary_key
        )
        query = f"SELECT {', '.join(_names(table))} FROM {table.name} ORDER BY {order}"  # noqa: S608 - our own names
        cursor = await self._connection.cursor(query)
        while found := await cursor.fetch(_CHUNK):
            yield [tuple(record) for record in found]

    async def add(self, table: Table, rows: list[Row]) -> None:
        names = [column.name for column in table.c]
        await self._connection.copy_records_to_table(table.name, records=rows, columns=names)

    async def mark_moved(self, url: str, at_ms: int) -> None:
        await self._connection.execute("INSERT INTO moved (id, url, at_ms) VALUES (1, $1, $2)", url, at_ms)
        # Every batch of a node writes to this table: a process that comes back by mistake keeps nothing more.
        await self._connection.execute("ALTER TABLE replicas ADD CONSTRAINT moved CHECK (false) NOT VALID")


async def _open_postgresql(stack: AsyncExitStack, url: str, *, for_writing: bool) -> Database:
    from exchange.store.postgresql import asking, migrate_postgresql

    if for_writing:
        await migrate_postgresql(url)
    connection = await stack.enter_async_context(asking(url))
    isolation = "read_committed" if for_writing else "repeatable_read"
    await stack.enter_async_context(connection.transaction(isolation=isolation, readonly=not for_writing))
    if for_writing:
        # Every batch of a node writes to this table first: what runs now ends, and none begins until this ends.
        await connection.execute("LOCK TABLE replicas IN ACCESS EXCLUSIVE MODE")
        seen = "SELECT count(*) FROM replicas WHERE seen_at_ms > $1"
        if running := await connection.fetchval(seen, time.time_ns() // 1_000_000 - _SEEN_LATELY_MS):
            raise StoreInUse(
                f"processes of the node run on the store: {running}",
                hint="Stop them all. One that was killed counts as running for half a minute.",
            )
    return _Postgresql(connection)


@contextlib.asynccontextmanager
async def _new_postgresql(url: str) -> AsyncIterator[Database]:
    from exchange.store.postgresql import migrating

    async with migrating(url) as connection:
        yield _Postgresql(connection)
        for table in TABLES:
            number = table.c.get("number")
            if number is not None and number.primary_key:
                await connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'number'), max(number)) FROM {table.name}"  # noqa: S608
                )
