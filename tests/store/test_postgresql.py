"""PostgreSQL's own: replicas take turns, a lost server is waited for, and one that forgets is not trusted."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import verify_statement
from exchange.store.errors import StoreUnavailable, ValueRefused
from exchange.store.log import log_size
from exchange.store.opening import store_exists
from exchange.store.postgresql import PostgresStore, open_postgresql
from exchange.store.transaction import Transaction
from tests import databases
from tests.store.conftest import ORIGIN, Clock, Signer
from tests.store.test_batches import stored_names, work

KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid != $1"


@pytest.fixture
def url(postgresql_server: str) -> str:
    return databases.make(postgresql_server)


@pytest.fixture
async def replicas(url: str, clock: Clock) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """Two processes' worth of one node."""
    made = await asyncio.gather(*(open_postgresql(url, Signer(), clock) for _ in range(2)))
    yield made[0], made[1]
    for store in made:
        await store.close()


async def kill_connections(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT 1")
    await connection.fetch(KILL, connection.get_server_pid())
    await connection.close()


async def test_two_replicas_sign_one_log(
    replicas: tuple[PostgresStore, PostgresStore], verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    async def write(which: int) -> list[int]:
        positions = []
        for number in range(20):
            (entry,) = await replicas[which].write(work(f"{which}/{number}"))
            assert verify_statement(entry.statement, entry.proof, ORIGIN, verifiers).index == entry.position
            positions.append(entry.position)
        return positions

    first, second = await asyncio.gather(write(0), write(1))
    assert sorted(first + second) == list(range(40))
    assert await replicas[0].read(log_size) == 40


async def test_a_replica_hears_of_what_another_wrote_and_not_of_its_own(
    replicas: tuple[PostgresStore, PostgresStore],
) -> None:
    heard = [asyncio.Event(), asyncio.Event()]
    for store, event in zip(replicas, heard, strict=True):
        await asyncio.wait_for(store.listening.wait(), 30)
        store.changed = event.set

    await replicas[0].write(work("told"))

    await asyncio.wait_for(heard[1].wait(), 30)
    assert not heard[0].is_set()


async def test_what_is_asked_for_while_connections_are_cut_is_kept_once(
    url: str, replicas: tuple[PostgresStore, PostgresStore]
) -> None:
    names = [f"{number:03}" for number in range(60)]
    for name in names:
        await asyncio.gather(replicas[0].write(work(name)), kill_connections(url))

    assert sorted(await stored_names(replicas[1])) == names
    assert await replicas[1].read(log_size) == 60


async def test_a_read_goes_on_after_its_connection_was_cut(
    url: str, replicas: tuple[PostgresStore, PostgresStore]
) -> None:
    await replicas[0].write(work("kept"))
    assert await stored_names(replicas[0]) == ["kept"]
    await kill_connections(url)
    assert await stored_names(replicas[0]) == ["kept"]


async def test_a_text_that_the_database_cannot_hold_is_the_callers_fault(
    replicas: tuple[PostgresStore, PostgresStore],
) -> None:
    store, _ = replicas
    with pytest.raises(ValueRefused):
        await store.write(work("a\0b"))
    await store.write(work("fine"))
    assert await stored_names(store) == ["fine"]


async def test_a_batch_is_not_mistaken_for_kept_where_the_server_does_not_know_it(
    replicas: tuple[PostgresStore, PostgresStore],
) -> None:
    store, _ = replicas

    async def number(tx: Transaction) -> None:
        await tx.sign("note", b"one")

    await store.write(number)
    assert not await store.was_kept("another turn")


@pytest.mark.parametrize("setting", ["synchronous_commit"])
async def test_a_server_that_forgets_what_it_confirmed_is_refused(url: str, clock: Clock, setting: str) -> None:
    connection = await asyncpg.connect(url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET {setting} = off")
    await connection.close()

    with pytest.raises(StoreUnavailable, match=f"{setting} = off"):
        await open_postgresql(url, Signer(), clock)
    assert not await store_exists(url)


@pytest.mark.parametrize(
    "wrong", ["postgresql://127.0.0.1:1/nowhere", "postgresql://host.invalid/", "postgresql://[", "postgresql:///?x=y"]
)
async def test_a_server_that_is_not_there_is_named_in_one_line(wrong: str, clock: Clock) -> None:
    for attempt in (store_exists(wrong), open_postgresql(wrong, Signer(), clock)):
        with pytest.raises(StoreUnavailable, match="cannot open the store in PostgreSQL") as told:
            await attempt
        assert "\n" not in str(told.value)
