"""A store moves to another kind of database and back: every row, the same log, and never half of it."""

import time
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from exchange.store.agreements import add_agreement
from exchange.store.disclosures import add_disclosure
from exchange.store.errors import (
    AlreadyThere,
    NotFound,
    StoreDamaged,
    StoreInUse,
    StoreMoved,
    StoreUnavailable,
    ValueRefused,
)
from exchange.store.log import log_size
from exchange.store.messages import message_by_id
from exchange.store.moving import TABLES, MoveReport, check_store, move_store
from exchange.store.opening import open_store, store_exists
from exchange.store.outbox import enqueue, new_delivery
from exchange.store.peers import PeerRow, add_peer
from exchange.store.postgresql import open_postgresql
from exchange.store.replicas import arrive
from tests import databases
from tests.store.conftest import NOW_MS, Clock, Signer, add_one, call
from tests.store.test_batches import stored_names, work
from tests.store.test_disclosures import agreement_row, disclosure_row

NAMES = [f"{number:02}" for number in range(7)]
IDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(5)]


@pytest.fixture
async def filled(tmp_path: Path) -> str:
    """A store in SQLite with a bit of everything in it."""
    url = f"sqlite:///{tmp_path}/exchange.db"
    await fill(url)
    return url


@pytest.fixture
def target(postgresql_server: str) -> str:
    return databases.make(postgresql_server)


async def fill(url: str) -> None:
    store = await open_store(url, Signer(), Clock())
    for name in NAMES:
        await store.write(work(name))
    for message_id in IDS:
        await store.write(call(add_one, message_id))
    await store.write(call(enqueue, [new_delivery("lane", "card", now_ms=NOW_MS, deadline_ms=NOW_MS)] * 600))
    for origin in ("exchange.éxample", "exchange.Zebra.example", "exchange.apple.example"):
        await store.write(call(add_peer, PeerRow(origin, "verified", "f", 1, b"\0card\xff", "proof", None, 0)))
    await store.write(call(add_agreement, agreement_row()))
    await store.write(call(add_disclosure, disclosure_row(IDS[0], sealed=b"\0sealed\xff")))
    await store.close()


async def move(source: str, target: str, tmp_path: Path) -> MoveReport:
    return await move_store(source, target, tmp_path / "exchange.lock", lambda log: None)


def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    return {table.name: sorted(databases.rows(url, f"SELECT * FROM {table.name}"), key=repr) for table in TABLES}


async def test_every_row_arrives_and_the_node_goes_on_in_the_other_database(
    filled: str, target: str, tmp_path: Path
) -> None:
    before = everything(filled)
    report = await move(filled, target, tmp_path)

    assert everything(target) == before
    assert report.rows == {name: len(rows) for name, rows in before.items()}
    assert report.rows["outbox"] == 600
    store = await open_store(target, Signer(), Clock())
    assert (await stored_names(store))[: len(NAMES)] == NAMES
    await store.write(work("after"))
    number = await store.write(call(add_one, "00000000-0000-4000-8000-999999999999"))
    assert number == len(NAMES) + len(IDS) + 2, "the numbers go on"
    assert await store.read(log_size) == report.log.size + 1
    await store.close()


async def test_a_store_moves_back_too(filled: str, target: str, tmp_path: Path) -> None:
    await move(filled, target, tmp_path)
    store = await open_store(target, Signer(), Clock())
    await store.write(work("after"))
    await store.close()
    there = everything(target)
    back = f"sqlite:///{tmp_path}/again.db"

    await move(target, back, tmp_path)

    assert everything(back) == there
    assert (tmp_path / "again.db").stat().st_mode & 0o777 == 0o600
    store = await open_store(back, Signer(), Clock())
    await store.write(work("at home"))
    assert (await store.read(call(message_by_id, IDS[0]))).message_id == IDS[0]
    await store.close()


async def test_no_node_starts_on_a_store_that_was_moved(filled: str, target: str, tmp_path: Path) -> None:
    await move(filled, target, tmp_path)
    with pytest.raises(StoreMoved, match="was moved to postgresql"):
        await open_store(filled, Signer(), Clock())
    back = f"sqlite:///{tmp_path}/again.db"
    await move(target, back, tmp_path)
    with pytest.raises(StoreMoved):
        await open_store(target, Signer(), Clock())
    with pytest.raises(AlreadyThere):
        await move(back, filled, tmp_path)


async def test_a_process_that_was_left_running_keeps_nothing_more(filled: str, target: str, tmp_path: Path) -> None:
    await move(filled, target, tmp_path)
    left = await open_postgresql(target, Signer(), Clock())
    await left.write(work("before"))

    await move(target, f"sqlite:///{tmp_path}/again.db", tmp_path)

    with pytest.raises(StoreUnavailable):
        await left.write(work("after"))
    assert await left.read(log_size) == len(NAMES) + 1
    await left.close()


async def test_a_move_that_was_finished_but_for_its_mark_is_finished_by_the_next(
    filled: str, target: str, tmp_path: Path
) -> None:
    first = await move(filled, target, tmp_path)
    with sqlite.connect(filled.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM moved")

    assert await move(filled, target, tmp_path) == first
    assert await move(filled, target, tmp_path) == first
    with pytest.raises(StoreMoved):
        await open_store(filled, Signer(), Clock())


async def test_another_store_at_the_target_is_left_alone(filled: str, target: str, tmp_path: Path) -> None:
    store = await open_store(target, Signer(), Clock())
    await store.write(work("another"))
    await store.close()
    before = everything(target)

    with pytest.raises(AlreadyThere, match="another store"):
        await move(filled, target, tmp_path)

    assert everything(target) == before
    await (await open_store(filled, Signer(), Clock())).close()


async def test_what_the_other_database_cannot_hold_leaves_nothing_there(
    filled: str, target: str, tmp_path: Path
) -> None:
    with sqlite.connect(filled.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE outbox SET reason = 'a' || char(0) WHERE number = 599")

    with pytest.raises(ValueRefused):
        await move(filled, target, tmp_path)

    assert not await store_exists(target)
    await (await open_store(filled, Signer(), Clock())).close()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("UPDATE statements SET statement = x'00' WHERE position = 3", "statement 3"),
        ("UPDATE statements SET statement = statement || 'a' WHERE position = 3", "statement 3"),
        ("UPDATE statements SET leaf_hash = zeroblob(32), statement = x'' WHERE position = 3", "of 4 statements"),
        ("DELETE FROM statements WHERE position = 6", "checkpoint"),
        ("DELETE FROM statements WHERE position = 2", "statement 2"),
        ("DELETE FROM checkpoints WHERE size = 7", "no checkpoint"),
        ("UPDATE log_nodes SET hash = zeroblob(32) WHERE level = 1", "node 1/0"),
        ("DELETE FROM log_nodes WHERE level = 1 AND position = 1", "lacks node 1/1"),
        ("UPDATE log_head SET size = 6", "head"),
    ],
)
async def test_a_damaged_log_is_told_and_not_moved(
    filled: str, target: str, tmp_path: Path, damage: str, what: str
) -> None:
    assert (await check_store(filled)).size == len(NAMES)
    with sqlite.connect(filled.removeprefix("sqlite:///")) as connection:
        connection.execute(damage)

    with pytest.raises(StoreDamaged, match=what):
        await check_store(filled)
    with pytest.raises(StoreDamaged, match=what):
        await move(filled, target, tmp_path)
    assert not await store_exists(target)


async def test_a_forgotten_statement_is_no_damage(filled: str) -> None:
    with sqlite.connect(filled.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE statements SET statement = x'' WHERE position = 3")
    assert (await check_store(filled)).size == len(NAMES)


async def test_a_store_on_which_a_node_runs_is_not_moved(filled: str, target: str, tmp_path: Path) -> None:
    running = await open_store(filled, Signer(), Clock())
    with pytest.raises(StoreInUse):
        await move(filled, target, tmp_path)
    assert (await check_store(filled)).size == len(NAMES)
    await running.close()

    await move(filled, target, tmp_path)
    running = await open_store(target, Signer(), Clock())
    await running.write(call(arrive, running.replica, "one", time.time_ns() // 1_000_000, ""))
    with pytest.raises(StoreInUse, match="run on the store: 1"):
        await move(target, f"sqlite:///{tmp_path}/again.db", tmp_path)
    assert not (tmp_path / "again.db").exists()
    await running.write(work("goes on"))
    assert (await check_store(target)).size == len(NAMES) + 1
    await running.close()


async def test_what_is_not_there_cannot_be_moved_or_checked(target: str, tmp_path: Path) -> None:
    for url in (target, f"sqlite:///{tmp_path}/none.db"):
        with pytest.raises(NotFound):
            await check_store(url)
        with pytest.raises(NotFound):
            await move(url, f"sqlite:///{tmp_path}/new.db", tmp_path)
    assert not (tmp_path / "new.db").exists()
