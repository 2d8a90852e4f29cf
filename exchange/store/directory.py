"""The directory that the node has joined, its trusted metadata and what it lists; and who was stopped here.

* The metadata is written only where nobody has written since it was read: replicas of a node do not undo each other.

Every query is by primary key, but the lists of all files, entries and stops, which are short.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.store.tables import directories, directory_entries, directory_files, stops
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class DirectoryRow:
    """The directory that the node has joined.

    `expires_at_ms` is when the first part of its metadata expires, `expiries` when each does (JSON). `problem` is why
    nothing is taken from it now, and `own` what it says of this node: `listed`, `missing` or `differs`.
    """

    url: str
    ca_file: str | None
    networks: str
    peer_ca_file: str | None
    peer_networks: str
    joined_by: str
    joined_at_ms: int
    revision: int = 0
    checked_at_ms: int = 0
    refreshed_at_ms: int = 0
    expires_at_ms: int = 0
    expiries: str = "{}"
    problem: str | None = None
    detail: str | None = None
    problem_since_ms: int | None = None
    alarmed: int = 0
    own: str = "listed"


@dataclass(frozen=True, slots=True)
class EntryRow:
    """What the directory lists for an area; `note` is why it is not taken, where it is not."""

    area: str
    origin: str
    fingerprint: str
    serial: int
    note: str | None
    data: bytes


_NAMES = tuple(field.name for field in fields(DirectoryRow))
_COLUMNS = tuple(directories.c[name] for name in _NAMES)
_ENTRY = tuple(directory_entries.c[field.name] for field in fields(EntryRow))
_directory = Sql(select(*_COLUMNS).order_by(directories.c.url))
_add = Sql(insert(directories).values({name: bindparam(name) for name in _NAMES}))
_keep = Sql(
    update(directories)
    .where(directories.c.url == bindparam("key"), directories.c.revision == bindparam("held"))
    .values({name: bindparam(f"new_{name}") for name in _NAMES})
)
_remove = Sql(delete(directories))
_files = Sql(select(directory_files.c.name, directory_files.c.data))
_add_file = Sql(insert(directory_files).values(name=bindparam("name"), data=bindparam("data")))
_remove_files = Sql(delete(directory_files))
_entries = Sql(select(*_ENTRY).order_by(directory_entries.c.area))
_add_entry = Sql(insert(directory_entries).values({column.name: bindparam(column.name) for column in _ENTRY}))
_remove_entries = Sql(delete(directory_entries))
_stop = Sql(select(stops.c.why).where(stops.c.origin == bindparam("origin")))
_add_stop = Sql(insert(stops).values(origin=bindparam("origin"), why=bindparam("why"), area=bindparam("area")))
_stopped_areas = Sql(select(stops.c.origin, stops.c.area).where(stops.c.area.is_not(None)).order_by(stops.c.origin))
_remove_stop = Sql(delete(stops).where(stops.c.origin == bindparam("origin")))


async def joined(tx: Transaction) -> DirectoryRow | None:
    """The directory that the node has joined, if it has."""
    row = await tx.fetch_one(_directory, {})
    return DirectoryRow(*row) if row else None


async def add_directory(tx: Transaction, row: DirectoryRow) -> None:
    """Join a directory; the node must have joined none."""
    await tx.execute(_add, {name: getattr(row, name) for name in _NAMES})


async def keep_directory(tx: Transaction, row: DirectoryRow) -> bool:
    """Write what the node knows of its directory, with the next revision; False where somebody wrote since."""
    values = {f"new_{name}": getattr(row, name) for name in _NAMES} | {"new_revision": row.revision + 1}
    return await tx.execute(_keep, {"key": row.url, "held": row.revision, **values}) == 1


async def leave_directory(tx: Transaction) -> None:
    """Forget the directory, its metadata and what it listed."""
    for sql in (_remove, _remove_files, _remove_entries):
        await tx.execute(sql, {})


async def directory_metadata(tx: Transaction) -> dict[str, bytes]:
    """The trusted metadata, by role."""
    return {str(name): bytes(data) for name, data in await tx.fetch_all(_files, {})}


async def keep_metadata(tx: Transaction, files: Mapping[str, bytes]) -> None:
    """Put trusted metadata in place of what was kept."""
    await tx.execute(_remove_files, {})
    for name, data in files.items():
        await tx.execute(_add_file, {"name": name, "data": data})


async def entries(tx: Transaction) -> list[EntryRow]:
    """What the directory lists, by area."""
    return [
        EntryRow(row[0], row[1], row[2], int(row[3]), row[4], bytes(row[5])) for row in await tx.fetch_all(_entries, {})
    ]


async def keep_entries(tx: Transaction, rows: Iterable[EntryRow]) -> None:
    """Put what the directory lists now in place of what it listed."""
    await tx.execute(_remove_entries, {})
    for row in rows:
        await tx.execute(_add_entry, {column.name: getattr(row, column.name) for column in _ENTRY})


@dataclass(frozen=True, slots=True)
class Listed:
    """Which identity the directory lists of each node; nothing while it is refused."""

    url: str | None
    fingerprints: Mapping[str, str]


async def listed(tx: Transaction) -> Listed:
    """What the directory says of peers, as a hint for people."""
    row = await joined(tx)
    if row is None or row.problem not in (None, "unreachable"):
        return Listed(None, {})
    return Listed(row.url, {entry.origin: entry.fingerprint for entry in await entries(tx) if entry.note is None})


async def stop_of(tx: Transaction, origin: str) -> str | None:
    """Why people here do not want to hear a node, if they do not."""
    row = await tx.fetch_one(_stop, {"origin": origin})
    return str(row[0]) if row else None


async def keep_stop(tx: Transaction, origin: str, why: str, area: str | None) -> None:
    """Remember that a node was stopped, until people verify it again; with the area that it holds, if it does."""
    await tx.execute(_remove_stop, {"origin": origin})
    await tx.execute(_add_stop, {"origin": origin, "why": why, "area": area})


async def stopped_areas(tx: Transaction) -> dict[str, str]:
    """The areas that nodes which were stopped hold all the same, by origin."""
    return {str(origin): str(area) for origin, area in await tx.fetch_all(_stopped_areas, {})}


async def drop_stop(tx: Transaction, origin: str) -> None:
    """People have verified a node again."""
    await tx.execute(_remove_stop, {"origin": origin})
