"""SQLite's own: one process at a time, files for their owner alone, operations that wait for nothing."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exchange.store.errors import StoreDamaged, StoreInUse, StoreUnavailable
from exchange.store.sqlite import SqliteStore, open_sqlite
from exchange.store.transaction import Transaction
from tests.store.conftest import Clock, Signer, add_one
from tests.store.test_batches import stored_names, work


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
