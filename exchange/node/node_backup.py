"""Back up a whole node, look whether a backup is good, and restore it to a directory of its own.

* A backup holds what a backup of the keys does, the configuration and every row of the store. It holds nothing that
  opens recorded traffic, and no passphrase.
* It is checked while it is written and each time it is read: the log in it has the root that its own keys have signed.
* Nothing that is there is written over, and what was interrupted does not look like a node.
* A restored node asks its peers for what it lacks before it signs anything.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from exchange.crypto.archive import Archived
from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.errors import ArchiveCorrupt, CryptoError
from exchange.crypto.keystore import Argon2Parameters, KeystoreKey, open_with
from exchange.crypto.merkle import Frontier
from exchange.crypto.names import LeafHash, Origin, parse_origin
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import fingerprint
from exchange.crypto.statement import leaf_hash
from exchange.node.archive_file import (
    ArchiveFile,
    End,
    NewArchive,
    NodeFiles,
    TableRows,
    sync_directory,
)
from exchange.node.config import Configuration, check_store_url, parse_configuration
from exchange.node.errors import ConfigurationInvalid, NotNow, RequestInvalid
from exchange.node.key_backup import write_new
from exchange.node.key_records import NodeBackupRecord, keep_record
from exchange.node.keyring import entries_to_back_up, is_rotating, restored_keystore, signing_keys_of
from exchange.node.passphrase import check_new
from exchange.store.dump import Rows, SqliteFilling, open_dump, restored_rows
from exchange.store.errors import StoreError
from exchange.store.opening import SQLITE, store_exists

_CONFIGURATION: Final = "exchange.toml"
_KEYSTORE: Final = "keystore.json"
_STORE: Final = "exchange.db"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(slots=True)
class LogCheck:
    """Looks at the rows of a log as they pass: whether they are the log that its keys have signed."""

    origin: Origin
    keys: Any
    size: int = 0
    without_content: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    _tree: Frontier = field(default_factory=lambda: Frontier(0, ()))
    _head: tuple[int, bytes] | None = None
    _checkpoint: tuple[int, str] = (0, "")

    def look(self, rows: Rows) -> None:
        """Take rows in their order.

        Raises:
            ArchiveCorrupt: a statement is not the one that stands in the log.
        """
        self.rows[rows.table] = self.rows.get(rows.table, 0) + len(rows.rows)
        try:
            if rows.table == "statements":
                at = [rows.columns.index(name) for name in ("position", "leaf_hash", "statement")]
                self._statements([(row[at[0]], row[at[1]], row[at[2]]) for row in rows.rows])
            elif rows.table == "log_head":
                at = [rows.columns.index(name) for name in ("size", "frontier")]
                for row in rows.rows:
                    self._head = (row[at[0]], row[at[1]])
            elif rows.table == "checkpoints":
                at = [rows.columns.index(name) for name in ("size", "text")]
                for row in rows.rows:
                    self._checkpoint = max(self._checkpoint, (row[at[0]], row[at[1]]))
        except (ValueError, IndexError, TypeError):
            raise ArchiveCorrupt("the rows of the log do not fit their table") from None

    def _statements(self, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
        for number, (position, leaf, statement) in enumerate(rows, start=self.size):
            if position != number or (statement and leaf_hash(statement) != leaf) or len(leaf) != 32:
                raise ArchiveCorrupt(f"statement {number} is not the one that stands in the log")
            self.without_content += not statement
        self._tree, _ = self._tree.append([LeafHash(leaf) for _, leaf, _ in rows])
        self.size += len(rows)

    def finish(self, log_size: int) -> datetime | None:
        """Check the whole; return when the node signed last.

        Raises:
            ArchiveCorrupt: it is not what the node's keys have signed, or not the size that was said.
        """
        head = (self._tree.size, self._tree.to_bytes())
        if self.size != log_size or (self._head or (0, b"")) != head:
            raise ArchiveCorrupt("the log is not whole")
        if not self.size:
            return None
        try:
            checkpoint = parse_checkpoint(self._checkpoint[1], self.origin, self.keys)
        except CryptoError as error:
            raise ArchiveCorrupt(f"the log was not signed by the keys beside it: {error}") from None
        if (checkpoint.size, checkpoint.root) != (self.size, self._tree.root()):
            raise ArchiveCorrupt("the log has another root than the checkpoint that was signed")
        return datetime.fromtimestamp(checkpoint.signed_at_s, UTC)


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup that was made is."""

    about: Archived
    size_bytes: int
    rows: dict[str, int]


async def create_backup(
    configuration: Configuration,
    key: KeystoreKey,
    recipients: Sequence[SealingPublicKey],
    path: Path,
    now: datetime,
) -> Made:
    """Write a backup of a node, which may run, to a file that is not there yet.

    Raises:
        RequestInvalid: something is there.
        NotNow: the signing keys are being changed.
        StoreError: the store cannot be read.
        OSError: the keystore cannot be read, or the file not be written.
    """
    if _is_there(path):
        raise RequestInvalid(f"{path} is there already; nothing was made", hint="Name another file.")
    async with open_dump(configuration.store_url) as dump:
        # After the snapshot: a keystore of later than the store has the keys of the store, or those that follow them.
        entries = open_with(configuration.keystore_path.read_bytes(), key)
        if is_rotating(entries):
            raise NotNow("the signing keys are being changed; nothing was made", hint="Run this again in a minute.")
        kept = entries_to_back_up(entries)
        verifiers = signing_keys_of(kept).verifiers(configuration.origin)
        about = Archived(
            origin=configuration.origin,
            fingerprint=fingerprint(configuration.origin, verifiers),
            made_at=now.strftime(_TIME),
            log_size=dump.log_size,
            revision=dump.revision,
        )
        check, archive = LogCheck(configuration.origin, verifiers), NewArchive(path, about, recipients)
        try:
            archive.add(
                NodeFiles(
                    configuration=configuration.path.read_text(encoding="utf-8"), keys=kept, files=_files(configuration)
                )
            )
            async for rows in dump:
                check.look(rows)
                archive.add(TableRows(table=rows.table, columns=rows.columns, rows=rows.rows))
            check.finish(about.log_size)
            archive.add(End(tables=check.rows))
            size_bytes = archive.finish()
        finally:
            archive.discard()
    record = NodeBackupRecord(
        at=now,
        fingerprint=about.fingerprint,
        key_id=", ".join(to.key_id.hex() for to in recipients),
        log_size=about.log_size,
    )
    keep_record(configuration.directory, record)
    return Made(about, size_bytes, check.rows)


def _is_there(path: Path, *, unless_empty: bool = False) -> bool:
    """Whether something has that name; an empty directory does not count where asked for."""
    if unless_empty and path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return os.path.lexists(path)


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()


def _files(configuration: Configuration) -> dict[str, bytes]:
    """Further files in the node's directory that it cannot do without: its TLS certificate and key, its revocation."""
    table = configuration.tables.listen
    names = [name for name in (table.certificate, table.key) if name and _is_inside(name)]
    paths = {name: configuration.resolve(name) for name in names}
    if configuration.revocation_path.exists():
        paths[configuration.revocation_path.name] = configuration.revocation_path
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def _is_inside(name: str) -> bool:
    return not os.path.isabs(name) and ".." not in Path(name).parts


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup that is whole and true."""

    about: Archived
    signed_at: datetime | None
    rows: dict[str, int]
    without_content: int
    files: tuple[str, ...]


async def read_backup(
    archive: ArchiveFile,
    private: SealingPrivateKey,
    begin: Callable[[NodeFiles], Any] | None = None,
    each: Callable[[Rows], Any] | None = None,
) -> Verified:
    """Read a backup to its end and check all of it; hand on its files first, and then its rows.

    Raises:
        ArchiveRefused: it was made for another key.
        ArchiveCorrupt: it is not whole, not true, or has something in it that does not fit.
    """
    about, check, files, end = archive.about, None, None, None
    for record in archive.records(private):
        if isinstance(record, NodeFiles):
            if files is not None:
                raise ArchiveCorrupt("the backup holds two nodes")
            files = record
            check = _check_for(about, record)
            if begin is not None:
                await begin(record)
        elif isinstance(record, TableRows):
            if check is None:
                raise ArchiveCorrupt("the backup does not begin with a node's files")
            rows = Rows(record.table, record.columns, record.rows)
            check.look(rows)
            if each is not None:
                await each(rows)
        else:
            end = record
    if check is None or files is None or end is None or end.tables != check.rows:
        raise ArchiveCorrupt("the backup does not hold what it says")
    signed_at = check.finish(about.log_size)
    return Verified(about, signed_at, check.rows, check.without_content, tuple(sorted(files.files)))


def _check_for(about: Archived, files: NodeFiles) -> LogCheck:
    try:
        origin = parse_origin(about.origin)
        verifiers = signing_keys_of(files.keys).verifiers(origin)
    except CryptoError as error:
        raise ArchiveCorrupt(f"the keys in the backup cannot be used: {error}") from None
    if fingerprint(origin, verifiers) != about.fingerprint:
        raise ArchiveCorrupt("the keys in the backup are not those that it speaks of")
    return LogCheck(origin, verifiers)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where and how a backup is to be restored. `configure` makes the configuration file from the one in the backup."""

    directory: Path
    passphrase: Secret
    store: str = f"{SQLITE}{_STORE}"
    cost: Argon2Parameters | None = None
    configure: Callable[[str], str] | None = None


async def restore_backup(archive: ArchiveFile, private: SealingPrivateKey, plan: Plan) -> tuple[Path, Verified]:
    """Restore a backup to a directory that is not there yet, or empty; the path of the configuration.

    Raises:
        RequestInvalid: something is in the directory.
        ConfigurationInvalid: the store's URL cannot be.
        ArchiveRefused: it was made for another key.
        ArchiveCorrupt: it is not whole or not true; nothing was kept.
        StoreError: the store cannot be made.
        OSError: the directory cannot be written.
    """
    check_store_url(plan.store)
    directory = plan.directory.absolute()
    if _is_there(directory, unless_empty=True):
        raise RequestInvalid(
            f"{directory} is not an empty directory; nothing was changed",
            hint="Name a directory that is not there yet.",
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    check_new(plan.passphrase)
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.partial")
    temporary.mkdir(mode=0o700)
    try:
        verified = await _fill(archive, private, plan, temporary)
        for path in sorted(temporary.iterdir()):
            _sync(path)
        sync_directory(temporary)
        temporary.rename(directory)
        sync_directory(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory / _CONFIGURATION, verified


async def _fill(archive: ArchiveFile, private: SealingPrivateKey, plan: Plan, directory: Path) -> Verified:
    async with _filling(plan.store, directory, archive.about.revision) as filling:

        async def begin(files: NodeFiles) -> None:
            text = plan.configure(files.configuration) if plan.configure else _moved(files.configuration, plan.store)
            configuration = parse_configuration(directory / _CONFIGURATION, text)
            if configuration.origin != archive.about.origin:
                raise ArchiveCorrupt("the configuration in the backup is of another node")
            write_new(configuration.path, text.encode())
            data = restored_keystore(files.keys, archive.about.log_size, plan.passphrase, plan.cost, rejoin=True)
            write_new(directory / _KEYSTORE, data)
            wanted = configuration.passphrase_path
            if wanted is not None and _same(wanted.parent, directory):
                write_new(wanted, plan.passphrase.reveal() + b"\n")
            for name, content in files.files.items():
                if not _is_inside(name):
                    raise ArchiveCorrupt("the backup names a file outside the node's directory")
                path = directory / name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_new(path, content)

        try:
            verified = await read_backup(archive, private, begin, filling.add)
            await filling.add(restored_rows(archive.about.log_size))
        except (StoreError, ConfigurationInvalid) as error:
            raise ArchiveCorrupt(f"the backup does not fit this program: {error}") from None
        await filling.finish()
    return verified


@contextlib.asynccontextmanager
async def _filling(store: str, directory: Path, revision: str) -> AsyncIterator[Any]:
    filling: Any
    if store.startswith(SQLITE):
        filling = SqliteFilling(directory / store.removeprefix(SQLITE), revision)
    else:
        if await store_exists(store):
            raise RequestInvalid(
                "the PostgreSQL database holds a node already; nothing was changed",
                hint="Choose another database, or a schema of its own.",
            )
        from exchange.store.postgresql_dump import PostgresFilling

        filling = await PostgresFilling.begin(store, revision)
    try:
        yield filling
    finally:
        await filling.close()


def _moved(text: str, store: str) -> str:
    """A configuration whose store and keystore are where the restore puts them."""
    text = _set(text, "store", "url", store)
    found = re.search(r'(?m)^\s*file\s*=\s*"([^"]*)"', _table(text, "keystore"))
    return text if found is None or found[1] == _KEYSTORE else _set(text, "keystore", "file", _KEYSTORE)


def _table(text: str, name: str) -> str:
    found = re.search(rf"(?ms)^\[{name}\].*?(?=^\[|\Z)", text)
    return found[0] if found else ""


def _set(text: str, table: str, key: str, value: str) -> str:
    """The text of a TOML file with one key set, all else as it was."""
    line, old = f"{key} = {json.dumps(value)}", _table(text, table)
    if not old:
        return f"{text.rstrip()}\n\n[{table}]\n{line}\n"
    new, count = re.subn(rf"(?m)^\s*{key}\s*=.*$", lambda _: line, old, count=1)
    if not count:
        new = old.replace(f"[{table}]\n", f"[{table}]\n{line}\n", 1)
    return text.replace(old, new, 1)


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def age_of(about: Archived, now: datetime) -> timedelta:
    """How old a backup is."""
    return now - datetime.strptime(about.made_at, _TIME).replace(tzinfo=UTC)


def describe_rows(rows: dict[str, int], names: Iterable[str]) -> dict[str, int]:
    """How many rows some tables have."""
    return {name: rows.get(name, 0) for name in names}
