"""All rows of a store at one moment, and a store made of them: the same from SQLite and PostgreSQL, and into either.

* What is read is one snapshot: SQLite's read transaction, PostgreSQL's repeatable read. The node may run meanwhile.
* Rows come table by table, in an order in which each finds those that it refers to, and by primary key.
* Sealing keys are left out: what wraps them is in no backup, and their copies would only wait for a thief.
* So are invitations and links: one that was used or withdrawn since would be good again. And what is of this one
  store: which processes run on it, whether it was moved or restored, and how far agencies that fetch have come in it.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pysqlite3 import dbapi2 as sqlite
from sqlalchemy import Table, select
from sqlalchemy.dialects import sqlite as sqlite_dialect

from exchange.store.errors import StoreError, StoreMoved, StoreTooNew, StoreUnavailable
from exchange.store.migrate import latest_revision, migrate_sqlite
from exchange.store.tables import feeds, invitations, links, metadata, moved, replicas, restored, sealing_keys

SQLITE: Final = "sqlite:///"
MOVED: Final = "SELECT url FROM moved"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OF_ONE_STORE: Final = (feeds, replicas, moved, restored)
_LEFT_OUT: Final = frozenset(table.name for table in (sealing_keys, invitations, links, *_OF_ONE_STORE))
_AT_ONCE: Final = 200
_MOST_BYTES: Final = 1024 * 1024

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of one table; the columns are in the order of the table's definition."""

    table: str
    columns: tuple[str, ...]
    rows: list[Row]


class Dump:
    """An open snapshot of a store."""

    def __init__(self, size: int, tables: Callable[[Table], AsyncIterator[Row]]) -> None:
        #: How many statements the log has in it.
        self.log_size = size
        self.revision = latest_revision()
        self._tables = tables

    async def __aiter__(self) -> AsyncIterator[Rows]:
        for table in metadata.sorted_tables:
            if table.name in _LEFT_OUT:
                continue
            columns = tuple(f"{column.name}" for column in table.c)  # as plain texts
            rows: list[Row] = []
            size_bytes = 0
            async for row in self._tables(table):
                rows.append(row)
                size_bytes += sum(len(value) for value in row if isinstance(value, bytes | str))
                if len(rows) >= _AT_ONCE or size_bytes >= _MOST_BYTES:
                    yield Rows(f"{table.name}", columns, rows)
                    rows, size_bytes = [], 0
            yield Rows(f"{table.name}", columns, rows)


@contextlib.asynccontextmanager
async def open_dump(url: str) -> AsyncIterator[Dump]:
    """A snapshot of the store at `url`, until it is closed.

    Raises:
        StoreUnavailable: it cannot be read.
        StoreMoved: the node goes on in another store.
        StoreTooNew: another version of the program wrote it.
    """
    if not url.startswith(SQLITE):
        from exchange.store.postgresql_dump import open_postgresql_dump

        async with open_postgresql_dump(url) as dump:
            yield dump
        return
    path = Path(url.removeprefix(SQLITE))
    if not path.exists():  # noqa: ASYNC240 - as quick as a question can be
        raise StoreUnavailable(f"there is no store at {path}")
    try:
        connection = sqlite.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)
    except sqlite.Error as error:
        raise StoreUnavailable(f"cannot open the store at {path}: {error}") from None
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute("BEGIN")
        check_revision(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
        refuse_if_moved(connection.execute(MOVED).fetchone())
        head = connection.execute("SELECT size FROM log_head WHERE id = 1").fetchone()

        async def rows(table: Table) -> AsyncIterator[Row]:
            for row in connection.execute(_query(table)):
                yield row

        yield Dump(int(head[0]) if head else 0, rows)
    except sqlite.Error as error:
        raise StoreUnavailable(f"the store could not be read: {error}") from None
    finally:
        connection.close()


def _query(table: Table) -> str:
    statement = select(*table.c).order_by(*table.primary_key.columns)
    return str(statement.compile(dialect=sqlite_dialect.dialect()))


def refuse_if_moved(row: Row | None) -> None:
    """Check that the node did not go on elsewhere: a backup of what it left behind would be an old one.

    Raises:
        StoreMoved: it did.
    """
    if row is not None:
        raise StoreMoved(f"this store was moved to {row[0]}")


def restored_rows(log_size: int) -> Rows:
    """What tells every process that starts on a store that it is of a backup."""
    return Rows(f"{restored.name}", ("id", "log_size"), [(1, log_size)])


def check_revision(revision: str) -> None:
    """Refuse a store that another version of the program wrote.

    Raises:
        StoreTooNew: it did.
    """
    if revision != latest_revision():
        raise StoreTooNew(
            f"the store is at revision {revision}, and this version makes backups of {latest_revision()}",
            hint="Start the node once with this version of the program, or use the one that it runs with.",
        )


class SqliteFilling:
    """A new SQLite file that is filled with rows; it is whole once `finish` has returned."""

    def __init__(self, path: Path, revision: str) -> None:
        """Make the file with the tables of a revision.

        Raises:
            StoreTooNew: this version does not know it.
            StoreUnavailable: the file cannot be made.
        """
        self._path = path
        path.touch(mode=0o600, exist_ok=False)
        migrate_sqlite(path, revision)
        self._connection = sqlite.connect(str(path), isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("BEGIN IMMEDIATE")

    async def add(self, rows: Rows) -> None:
        """Add rows.

        Raises:
            StoreError: they do not fit the tables.
        """
        names = insert_names(rows)
        marks = ", ".join("?" for _ in rows.columns)
        try:
            self._connection.executemany(f"INSERT INTO {names} VALUES ({marks})", rows.rows)  # noqa: S608 - checked names
        except (sqlite.Error, ValueError, OverflowError) as error:
            raise StoreError(f"rows of {rows.table} do not fit: {type(error).__name__}") from None

    async def finish(self) -> None:
        """Commit, and bring the tables to this version."""
        self._connection.execute("COMMIT")
        self._connection.close()
        migrate_sqlite(self._path)

    async def close(self) -> None:
        """Let go of it; what was not finished is not kept."""
        self._connection.close()


def insert_names(rows: Rows) -> str:
    """`table (column, ...)`, of names that can be nothing else.

    Raises:
        StoreError: one is not a name.
    """
    if not all(_NAME.fullmatch(name) for name in (rows.table, *rows.columns)):
        raise StoreError("a table or column has a name that cannot be")
    return f"{rows.table} ({', '.join(quoted(rows.columns))})"


def quoted(names: Iterable[str]) -> Iterator[str]:
    """Names as both databases take them, where they are words of SQL too."""
    return (f'"{name}"' for name in names)
