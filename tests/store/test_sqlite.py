"""SQLite's own: one process at a time, files for their owner alone, operations that wait for nothing."""

import asyncio
import contextlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2 as sqlite
from sqlalchemy import text

from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import verify_statement
from exchange.store.batch import MAX_BATCH
from exchange.store.errors import StoreDamaged, StoreInUse, StoreUnavailable
from exchange.store.log import log_size
from exchange.store.messages import INBOUND, list_messages
from exchange.store.sqlite import SqliteStore, open_sqlite
from exchange.store.transaction import Sql, Transaction
from tests.store.conftest import ORIGIN, Clock, Signer, add_one, call
from tests.store.test_batches import in_one_batch, stored_names, work


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
async def store(path: Path, signer: Signer, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, signer, clock)
    yield store
    await store.close()


async def test_an_operation_that_waits_for_something_else_is_refused(store: SqliteStore) -> None:
    elsewhere = asyncio.get_running_loop().create_future()

    async def wait_elsewhere(tx: Transaction) -> None:
        await add_one(tx, "waits")
        await elsewhere

    with pytest.raises(RuntimeError, match="other than its transaction"):
        await store.write(wait_elsewhere)

    assert await stored_names(store) == []


async def test_a_store_that_is_open_cannot_be_opened_again(
    store: SqliteStore, path: Path, signer: Signer, clock: Clock
) -> None:
    with pytest.raises(StoreInUse):
        await open_sqlite(path, signer, clock)

    await store.write(work("the first goes on"))


async def test_another_process_cannot_open_the_store(store: SqliteStore, path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from exchange.store.errors import StoreInUse\n"
        "from exchange.store.sqlite import open_sqlite\n"
        "try:\n"
        "    asyncio.run(open_sqlite(pathlib.Path(sys.argv[1]), None, None))\n"
        "except StoreInUse:\n"
        "    print('in use')\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    answer = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)

    assert answer.stdout == "in use\n"


async def test_the_store_is_readable_by_its_owner_alone(store: SqliteStore, path: Path) -> None:
    await store.write(work("private"))

    modes = await asyncio.to_thread(lambda: {item.name: item.stat().st_mode & 0o777 for item in path.parent.iterdir()})

    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_nothing_is_kept_in_files_that_were_removed(store: SqliteStore, path: Path, suffix: str) -> None:
    await store.write(work("before"))
    path.with_name(path.name + suffix).unlink()

    with pytest.raises(StoreUnavailable, match="is gone"):
        await store.write(work("into nowhere"))

    assert await stored_names(store) == ["before"]


async def test_nothing_is_kept_in_a_file_that_another_has_taken_the_place_of(store: SqliteStore, path: Path) -> None:
    await store.write(work("before"))
    await asyncio.to_thread(path.rename, path.with_name("moved"))
    await asyncio.to_thread(path.write_bytes, b"")

    with pytest.raises(StoreUnavailable, match="another file"):
        await asyncio.gather(store.write(work("one")), store.write(work("two")))


async def test_a_file_that_was_moved_back_goes_on(store: SqliteStore, path: Path) -> None:
    await store.write(work("before"))
    await asyncio.to_thread(path.rename, path.with_name("moved"))
    with pytest.raises(StoreUnavailable):
        await store.write(work("meanwhile"))
    await asyncio.to_thread(path.with_name("moved").rename, path)

    await store.write(work("after"))

    assert await stored_names(store) == ["before", "after"]


async def test_a_damaged_database_is_refused_and_left_as_it_is(path: Path, signer: Signer, clock: Clock) -> None:
    store = await open_sqlite(path, signer, clock)
    for number in range(200):
        await store.write(work(f"message {number}"))
    await store.close()
    data = bytearray(await asyncio.to_thread(path.read_bytes))
    # The last page is one of those that the many messages took.
    data[-4096:] = b"\xff" * 4096
    await asyncio.to_thread(path.write_bytes, data)

    with pytest.raises(StoreDamaged, match="is damaged"):
        await open_sqlite(path, signer, clock)

    assert await asyncio.to_thread(path.read_bytes) == data


async def test_a_thread_of_the_store_that_ends_takes_the_process_with_it(path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from exchange.store.sqlite import open_sqlite\n"
        "async def end(tx):\n"
        "    raise SystemExit\n"
        "async def main():\n"
        "    store = await open_sqlite(pathlib.Path(sys.argv[1]), None, lambda: 0)\n"
        "    await store.write(end)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(path)]

    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, check=False)

    assert done.returncode == 70


class Gate(Signer):
    """A signer that waits, as a slow disk would, until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, size: int, root: bytes, timestamp_s: int) -> str:
        self.reached.set()
        assert self.open.wait(30), "the test did not open the gate"
        return super().__call__(size, root, timestamp_s)


@pytest.fixture
async def gated(path: Path, clock: Clock) -> AsyncIterator[tuple[SqliteStore, Gate]]:
    gate = Gate()
    store = await open_sqlite(path, gate, clock)
    yield store, gate
    gate.open.set()
    await store.close()


async def test_the_loop_goes_on_and_nobody_is_told_while_a_commit_is_slow(gated: tuple[SqliteStore, Gate]) -> None:
    store, gate = gated
    first = asyncio.create_task(store.write(work("first")))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    second = asyncio.create_task(store.write(work("second")))

    # The loop and the reader go on, and see nothing of what is not durable.
    assert await stored_names(store) == []
    assert not first.done()
    assert not second.done()

    gate.open.set()
    await first
    assert (await stored_names(store))[:1] == ["first"]
    await second
    assert await stored_names(store) == ["first", "second"]


async def test_all_that_is_queued_behind_a_slow_commit_is_kept_in_its_order_when_the_store_closes(
    gated: tuple[SqliteStore, Gate], path: Path, signer: Signer, clock: Clock
) -> None:
    store, gate = gated
    names = [f"{number:03}" for number in range(MAX_BATCH + 44)]
    writes = [asyncio.create_task(store.write(work(names[0])))]
    assert await asyncio.to_thread(gate.reached.wait, 30)
    writes += [asyncio.create_task(store.write(work(name), long=name.endswith("77"))) for name in names[1:]]
    await asyncio.sleep(0)
    writes[5].cancel()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(work("late"))
    gate.open.set()
    await closing

    assert all(write.done() for write in writes)
    again = await open_sqlite(path, signer, clock)
    try:
        rows = await again.read(call(list_messages, INBOUND, 1000))
        assert [row.message_id for row in reversed(rows)] == names
        assert await again.read(log_size) == len(names)
    finally:
        await again.close()


async def test_only_a_long_operation_runs_beside_the_loop_and_all_keep_their_order(store: SqliteStore) -> None:
    ran: list[tuple[str, bool]] = []

    def noted(name: str) -> Callable[[Transaction], Any]:
        async def operation(tx: Transaction) -> None:
            ran.append((name, threading.current_thread() is threading.main_thread()))
            await add_one(tx, name)

        return operation

    await asyncio.gather(store.write(noted("a")), store.write(noted("b"), long=True), store.write(noted("c")))

    assert ran == [("a", True), ("b", False), ("c", True)]
    assert await stored_names(store) == ["a", "b", "c"]


async def test_a_lock_of_another_process_is_waited_for_beside_the_loop(store: SqliteStore, path: Path) -> None:
    other = sqlite.connect(str(path), isolation_level=None)
    names: list[str] = []
    # Again and again: what the loop let go of late had to wait now and then only.
    for number in range(20):
        other.execute("BEGIN IMMEDIATE")
        writes = [asyncio.create_task(store.write(work(f"{number:02}{name}"))) for name in "ab"]

        begun_s = time.monotonic()
        assert await stored_names(store) == names
        assert time.monotonic() - begun_s < 5, "the loop waited for the lock"
        assert not any(write.done() for write in writes)
        other.execute("ROLLBACK")
        await asyncio.gather(*writes)
        names += [f"{number:02}a", f"{number:02}b"]
    other.close()

    assert await stored_names(store) == names


@contextlib.contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """Let writes beyond that fail, as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_where_the_commit_fails_nothing_is_kept_and_afterwards_each_is_kept_once(
    store: SqliteStore, path: Path, verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    await store.write(work("before"))
    with files_no_larger_than(path.with_name("node.db-wal").stat().st_size):
        refused = await in_one_batch(store, *(work(name) for name in "abc"))
        alone = await in_one_batch(store, work("alone"))
    assert [type(error) for error in refused + alone] == [StoreUnavailable] * 4
    assert await stored_names(store) == ["before"]
    assert await store.read(log_size) == 1

    kept = await in_one_batch(store, *(work(name) for name in "abc"))

    assert await stored_names(store) == ["before", "a", "b", "c"]
    assert await store.read(log_size) == 4
    for (entry,) in kept:
        verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)


async def test_of_a_batch_that_does_not_fit_on_the_disk_what_fits_is_kept_before_what_is_newer(
    store: SqliteStore, path: Path, verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    async def large(tx: Transaction) -> None:
        await tx.sign("note", b"large" * 200_000)

    await store.write(work("before"))
    with files_no_larger_than(path.with_name("node.db-wal").stat().st_size + 500_000):
        batch = asyncio.create_task(in_one_batch(store, work("first"), large, work("last")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        newer = asyncio.create_task(store.write(work("newer")))
        first, error, last = await batch
        third = await newer

    assert isinstance(error, StoreUnavailable)
    assert await stored_names(store) == ["before", "first", "last", "newer"]
    entries = [*first, *last, *third]
    assert [entry.position for entry in entries] == [1, 2, 3]
    for entry in entries:
        verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)


async def test_an_operation_that_fills_the_database_fails_alone(store: SqliteStore, path: Path) -> None:
    async def fill(tx: Transaction) -> None:
        # The error of SQLite that a full disk gives while an operation runs.
        await tx.execute(Sql(text("PRAGMA max_page_count = 1")), {})
        try:
            await tx.sign("note", b"large" * 200_000)
            await add_one(tx, "too much", statement=b"large" * 200_000)
        finally:
            await tx.execute(Sql(text("PRAGMA max_page_count = 4294967294")), {})

    first, error, last = await in_one_batch(store, work("first"), fill, work("last"))

    assert isinstance(error, StoreUnavailable)
    assert [entry.position for entry in (*first, *last)] == [0, 1]
    assert await stored_names(store) == ["first", "last"]


async def test_what_is_deleted_before_a_scrub_is_in_no_file_after_it(store: SqliteStore, path: Path) -> None:
    writes = [asyncio.create_task(store.write(work(name))) for name in "ab"]
    await asyncio.sleep(0)
    await store.scrub()

    assert all(write.done() for write in writes)
    assert path.with_name("node.db-wal").stat().st_size == 0


async def test_what_is_read_in_brief_waits_for_no_long_read(store: SqliteStore) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def read_long(_: Transaction) -> None:
        begun.set()
        go_on.wait(20)

    await store.write(work("a"))
    reading = asyncio.create_task(store.read(read_long))
    await asyncio.to_thread(begun.wait, 20)

    assert await store.read(call(log_size), brief=True) == 1
    assert not reading.done()
    go_on.set()
    await reading


async def test_what_changes_nothing_needs_no_disk(store: SqliteStore, path: Path) -> None:
    moved = path.with_name("moved")
    await store.write(work("a"))
    await asyncio.to_thread(path.rename, moved)

    assert await store.write(call(log_size)) == 1
    with pytest.raises(StoreUnavailable, match="is gone"):
        await store.write(work("b"))

    await asyncio.to_thread(moved.rename, path)
    await store.write(work("c"))
    assert await stored_names(store) == ["a", "c"]
