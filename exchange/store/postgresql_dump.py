"""All rows of a store in PostgreSQL at one moment, and such a store made of rows: see `dump`."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from sqlalchemy import Table, select
from sqlalchemy.dialects.postgresql import asyncpg as dialects

from exchange.store.dump import MOVED, Dump, Row, Rows, check_revision, insert_names, refuse_if_moved
from exchange.store.errors import StoreError, StoreUnavailable
from exchange.store.postgresql import connect, has_tables, migrate_postgresql
from exchange.store.tables import metadata

_LOST = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError)


@contextlib.asynccontextmanager
async def open_postgresql_dump(url: str) -> AsyncIterator[Dump]:
    """A snapshot of the store at `url`, until it is closed.

    Raises:
        StoreUnavailable: it cannot be read.
        StoreMoved: the node goes on in another store.
        StoreTooNew: another version of the program wrote it.
    """
    try:
        if not await has_tables(url):
            raise StoreUnavailable("there is no store in that database")
        connection = await connect(url, timeout=10, server_settings={"application_name": "exchange backup"})
    except _LOST as error:
        raise StoreUnavailable(f"cannot open the store in PostgreSQL: {type(error).__name__}") from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            check_revision(await connection.fetchval("SELECT version_num FROM alembic_version"))
            refuse_if_moved(await connection.fetchrow(MOVED))
            size = await connection.fetchval("SELECT size FROM log_head WHERE id = 1")

            async def rows(table: Table) -> AsyncIterator[Row]:
                statement = select(*table.c).order_by(*table.primary_key.columns)
                query = str(statement.compile(dialect=dialects.dialect()))  # type: ignore[no-untyped-call]
                async for record in connection.cursor(query, prefetch=20):
                    yield tuple(record)

            yield Dump(size or 0, rows)
    except _LOST as error:
        raise StoreUnavailable(f"the store could not be read: {type(error).__name__}") from None
    finally:
        await connection.close()


class PostgresFilling:
    """A database that is filled with rows, all in one transaction."""

    def __init__(self, url: str, connection: Any, transaction: Any) -> None:
        self._url = url
        self._connection = connection
        self._transaction = transaction

    @classmethod
    async def begin(cls, url: str, revision: str) -> "PostgresFilling":
        """Make the tables of a revision in an empty database.

        Raises:
            StoreUnavailable: it cannot be reached, or holds a node.
            StoreTooNew: this version does not know the revision.
        """
        if await has_tables(url):
            raise StoreUnavailable(
                "the PostgreSQL database holds a node already; nothing was changed",
                hint="Choose another database, or a schema of its own.",
            )
        await migrate_postgresql(url, revision)
        connection = await connect(url, timeout=10)
        transaction = connection.transaction()
        await transaction.start()
        return cls(url, connection, transaction)

    async def add(self, rows: Rows) -> None:
        """Add rows.

        Raises:
            StoreError: they do not fit the tables.
        """
        names = insert_names(rows)
        marks = ", ".join(f"${number}" for number in range(1, len(rows.columns) + 1))
        try:
            await self._connection.executemany(f"INSERT INTO {names} VALUES ({marks})", rows.rows)  # noqa: S608 - checked names
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise StoreError(f"rows of {rows.table} do not fit: {type(error).__name__}") from None

    async def finish(self) -> None:
        """Commit, and bring the tables to this version."""
        for table in metadata.sorted_tables:
            for column in table.primary_key.columns:
                sequence = await self._connection.fetchval(
                    "SELECT pg_get_serial_sequence($1, $2)", table.name, column.name
                )
                if sequence is not None:
                    query = f"SELECT max({column.name}) FROM {table.name}"  # noqa: S608 - our own names
                    last = await self._connection.fetchval(query)
                    await self._connection.execute("SELECT setval($1, $2, false)", sequence, (last or 0) + 1)
        await self._transaction.commit()
        await self._connection.close()
        await migrate_postgresql(self._url)

    async def close(self) -> None:
        """Let go of it; what was not finished is not kept, and no table either."""
        if not self._connection.is_closed():
            await self._transaction.rollback()
            tables = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
            await self._connection.execute(f"DROP TABLE IF EXISTS {tables}, alembic_version CASCADE")
            await self._connection.close()
