"""Every row of a store goes into another, of either kind, and nothing else does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from exchange.store.dump import Rows, SqliteFilling, open_dump
from exchange.store.errors import StoreError, StoreMoved, StoreTooNew, StoreUnavailable
from exchange.store.keys import SealingKeyRow, add_sealing_key
from exchange.store.log import consistency_between, latest_head, proven_at
from exchange.store.migrate import latest_revision
from exchange.store.opening import open_store
from exchange.store.postgresql_dump import PostgresFilling
from exchange.store.tables import metadata, moved
from exchange.store.transaction import Sql, Store, Transaction
from tests import databases
from tests.store.conftest import Clock, Signer, add_one, call

#: What opens traffic or registers strangers, and what is of one store alone.
LEFT_OUT = {"sealing_keys", "invitations", "links", "feeds", "replicas", "moved", "restored"}


async def fill(store: Store) -> None:
    async def operation(tx: Transaction) -> None:
        for number in range(3):
            await tx.sign("card", bytes([number]))
        await add_one(tx)
        await add_sealing_key(tx, SealingKeyRow(b"key", 1, b"wrapped", 0, 1, 2))

    await store.write(operation)
    await store.write(lambda tx: tx.sign("card", b"more"))


async def rows_of(url: str) -> tuple[int, list[Rows]]:
    async with open_dump(url) as dump:
        return dump.log_size, [rows async for rows in dump]


async def copy(rows: list[Rows], filling: Any) -> None:
    try:
        for some in rows:
            await filling.add(some)
        await filling.finish()
    finally:
        await filling.close()


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_a_store_that_was_copied_has_the_same_rows_and_goes_on(
    store: Store,
    url: str,
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    signer: Signer,
    clock: Clock,
) -> None:
    await fill(store)
    size, rows = await rows_of(url)
    filling: Any
    if kind == "sqlite":
        filling = SqliteFilling(tmp_path / "copy.db", latest_revision())
        other = f"sqlite:///{tmp_path / 'copy.db'}"
    else:
        other = databases.make(request.getfixturevalue("postgresql_server"))
        filling = await PostgresFilling.begin(other, latest_revision())

    await copy(rows, filling)

    assert size == 4
    assert await rows_of(other) == (size, rows)
    assert {some.table for some in rows} == metadata.tables.keys() - LEFT_OUT
    assert databases.rows(other, "SELECT count(*) FROM sealing_keys") == [(0,)]
    copied = await open_store(other, signer, clock)
    head = await store.read(latest_head)
    await copied.write(lambda tx: tx.sign("card", b"next"))
    await copied.write(call(add_one, "00000000-0000-4000-8000-000000000002"))
    assert await copied.read(lambda tx: consistency_between(tx, head.size, head.size + 1))
    assert (await copied.read(lambda tx: proven_at(tx, 3))) == await store.read(lambda tx: proven_at(tx, 3))
    await copied.close()


async def test_a_dump_is_of_one_moment(store: Store, url: str) -> None:
    await fill(store)
    async with open_dump(url) as dump:
        await store.write(lambda tx: tx.sign("card", b"later"))
        rows = [some async for some in dump]
    assert dump.log_size == 4
    assert sum(len(some.rows) for some in rows if some.table == "statements") == 4


async def test_many_rows_come_in_parts(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store)
    monkeypatch.setattr("exchange.store.dump._AT_ONCE", 1)
    _, rows = await rows_of(url)
    assert [len(some.rows) for some in rows if some.table == "statements"] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        Rows("no_such_table", ("id",), [(1,)]),
        Rows("messages", ("no_such_column",), [(1,)]),
        Rows("messages; DROP TABLE messages", ("number",), [(1,)]),
        Rows("messages", ('number"), (number', "peer"), [(1, "x")]),
        Rows("messages", ("number",), [(1,)]),
        Rows("contents", ("message", "sections"), [(1, b"")]),
        Rows("agencies", ("id", "kind"), [({"a": 1}, "x")]),
    ],
    ids=["table", "column", "statement", "quotes", "missing", "reference", "type"],
)
@pytest.mark.parametrize("kind", databases.KINDS)
async def test_rows_that_do_not_fit_are_refused_and_nothing_is_kept(
    wrong: Rows, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    filling: Any
    if kind == "sqlite":
        filling = SqliteFilling(tmp_path / "copy.db", latest_revision())
    else:
        other = databases.make(request.getfixturevalue("postgresql_server"))
        filling = await PostgresFilling.begin(other, latest_revision())
    with pytest.raises(StoreError):
        await filling.add(wrong)
    await filling.close()
    if kind == "postgresql":
        assert databases.rows(other, "SELECT to_regclass('messages') IS NULL") == [(True,)]


async def test_a_backup_of_a_version_to_come_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreTooNew, match="revision 9999"):
        SqliteFilling(tmp_path / "copy.db", "9999")


async def test_rows_of_an_earlier_version_are_brought_to_this_one(tmp_path: Path) -> None:
    filling = SqliteFilling(tmp_path / "copy.db", "0002")
    await copy([Rows("log_head", ("id", "size", "frontier"), [(1, 0, b"")])], filling)
    assert await rows_of(f"sqlite:///{tmp_path / 'copy.db'}")


async def test_where_there_is_no_store_there_is_no_dump(new_url: Callable[[], str]) -> None:
    with pytest.raises(StoreUnavailable):
        await rows_of(new_url())


async def test_of_a_store_that_was_moved_away_there_is_no_backup(store: Store, url: str) -> None:
    await fill(store)
    mark = Sql(insert(moved).values(id=1, url="postgresql://elsewhere/node", at_ms=0))
    await store.write(lambda tx: tx.execute(mark, {}))

    with pytest.raises(StoreMoved, match="moved to postgresql://elsewhere/node"):
        await rows_of(url)
