"""Migrations make what the tables say, all of it or nothing, and leave a database from the future alone."""

import contextlib
from pathlib import Path

import msgspec
import pysqlite3
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, schema
from sqlalchemy.pool import NullPool

from exchange.store import migrate
from exchange.store.errors import StoreTooNew, StoreUnavailable
from exchange.store.migrate import migrate_sqlite
from exchange.store.sqlite import open_sqlite
from exchange.store.tables import metadata
from tests.store.conftest import Clock, Signer, add_one, call


def schema_of(path: Path) -> dict[str, str]:
    """The SQL of every table and index that somebody made, by name."""
    connection = pysqlite3.connect(str(path))
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: " ".join(sql.split()) for name, sql in rows}


def run(path: Path, *statements: str) -> None:
    connection = pysqlite3.connect(str(path), isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def content(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def neighbours(path: Path) -> list[str]:
    return sorted(item.name for item in path.parent.iterdir())


def test_a_migrated_database_does_not_differ_from_the_tables(path: Path) -> None:
    migrate_sqlite(path)

    engine = create_engine(f"sqlite:///{path}", module=pysqlite3, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, metadata)

    assert differences == []


def test_a_migrated_database_has_what_a_comparison_does_not_see(path: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.db"
    engine = create_engine(f"sqlite:///{made}", module=pysqlite3, poolclass=NullPool)
    metadata.create_all(engine)

    migrate_sqlite(path)

    migrated = schema_of(path)
    del migrated["alembic_version"]
    assert {name: _sorted(sql) for name, sql in migrated.items()} == {
        name: _sorted(sql) for name, sql in schema_of(made).items()
    }


def _sorted(sql: str) -> list[str]:
    """A statement's parts, whatever the order of constraints, and whether the table's name is quoted."""
    return sorted(part.strip(" ()") for part in sql.replace('"', "").split(","))


def test_a_table_that_is_made_anew_loses_nothing_of_itself_and_of_what_belongs_to_it(path: Path) -> None:
    migrate_sqlite(path, "0006")
    kept = {
        "messages": [(1, "a.example", "id-1", "in", "a.example", b"l", b"s", "proof", None, 4, 0, 1, 2, 3)],
        "statements": [(0, b"leaf", "manifest", b"statement")],
        "checkpoints": [(1, "text", 5)],
        "message_keys": [(1, b"wrapped", b"secrets")],
        "contents": [(1, b"sections")],
        "placements": [(1, "housing", "housing", "routed", 6, None)],
        "timeline": [(1, 1, 7, "received", None, "a.example")],
    }
    body = msgspec.msgpack.encode({"origin": "a.example", "area": "E09000012", "name": "a name with spaces"})
    card = b"exchange/1 4 card %d %s" % (len(body), body)
    with contextlib.closing(pysqlite3.connect(str(path))) as connection:
        for table, rows in kept.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        connection.execute(
            "INSERT INTO peers (origin, state, fingerprint, serial, card, proof, added_at_ms)"
            " VALUES ('a.example', 'verified', 'f', 1, ?, 'proof', 0)",
            (card,),
        )
        receipt = (b"leaf", 1, "received", b"receipt", None, 4, 3)
        connection.execute(
            "INSERT INTO receipts (leaf_hash, message, rung, statement, proof, position, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            receipt,
        )
        connection.commit()

    migrate_sqlite(path, "0007")

    with contextlib.closing(pysqlite3.connect(str(path))) as connection:
        assert {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in kept} == kept
        found = connection.execute("SELECT leaf_hash, message, rung, statement, proof, position, at_ms FROM receipts")
        assert found.fetchall() == [receipt]
        assert connection.execute("SELECT card, area FROM peers").fetchall() == [(card, "E09000012")]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_the_migrations_do_not_read_the_tables_of_today() -> None:
    for script in (Path(migrate.__file__).parent / "migrations" / "versions").glob("*.py"):
        assert "exchange" not in script.read_text(), f"{script.name} changes when the code does"


def test_migrating_twice_changes_nothing(path: Path) -> None:
    migrate_sqlite(path)
    before = path.read_bytes()

    migrate_sqlite(path)

    assert path.read_bytes() == before


async def test_what_was_stored_outlives_a_restart(path: Path, signer: Signer, clock: Clock) -> None:
    first = await open_sqlite(path, signer, clock)
    number = await first.write(call(add_one))
    await first.close()

    second = await open_sqlite(path, signer, clock)
    try:
        assert await second.write(call(add_one, "another")) == number + 1
    finally:
        await second.close()


async def test_a_database_from_the_future_is_refused_and_not_touched(path: Path, signer: Signer, clock: Clock) -> None:
    migrate_sqlite(path)
    run(path, "UPDATE alembic_version SET version_num = '9999'", "CREATE TABLE from_the_future (id INTEGER)")
    before = content(path)

    with pytest.raises(StoreTooNew):
        await open_sqlite(path, signer, clock)

    assert content(path) == before
    assert neighbours(path) == ["node.db", "node.lock"]


def test_a_migration_that_fails_in_the_middle_leaves_nothing_behind(path: Path) -> None:
    last = list(metadata.sorted_tables)[-1]
    run(path, str(schema.CreateTable(last.to_metadata(MetaData()), include_foreign_key_constraints=[])))
    before = schema_of(path)

    with pytest.raises(StoreUnavailable):
        migrate_sqlite(path)

    assert schema_of(path) == before


async def test_a_file_that_is_no_database_is_refused_and_not_touched(path: Path, signer: Signer, clock: Clock) -> None:
    overwrite(path, b"something else" * 100)

    with pytest.raises(StoreUnavailable):
        await open_sqlite(path, signer, clock)

    assert content(path) == b"something else" * 100


async def test_a_store_in_a_directory_that_is_not_there_is_unavailable(
    tmp_path: Path, signer: Signer, clock: Clock
) -> None:
    with pytest.raises(StoreUnavailable):
        await open_sqlite(tmp_path / "missing" / "node.db", signer, clock)
