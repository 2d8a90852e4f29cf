"""The machine and the versions that figures were measured on: they mean little elsewhere."""

import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from pysqlite3 import dbapi2 as sqlite

from benchmarks.databases import Server
from benchmarks.report import Table

_PACKAGES = ("cryptography", "aiohttp", "uvloop", "msgspec", "PyNaCl", "asyncpg")
_SYNCS = 50


def describe(root: Path | None, server: Server | None) -> Table:
    """What this machine is, and how long its disk takes to keep 4 KiB; `root` is where the stores are put."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    rows = [
        ("processor", _processor()),
        ("cores", f"{len(os.sched_getaffinity(0))}"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("write of 4 KiB and fsync", f"{_sync_ms(root):.2f} ms (median)"),
        ("Python", platform.python_version()),
        ("SQLite", sqlite.sqlite_version),
        ("PostgreSQL", server.version if server else "not measured"),
        *versions.items(),
    ]
    return Table("Machine", "", ("", ""), rows)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sync_ms(root: Path | None) -> float:
    took_ms = []
    with tempfile.TemporaryFile(dir=root) as file:
        for _ in range(_SYNCS):
            started_s = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(took_ms)
