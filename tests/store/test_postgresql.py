"""PostgreSQL's own: replicas take turns, a lost server is waited for, and one that forgets is not trusted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from sqlalchemy import bindparam, select

from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import verify_statement
from exchange.store import tables
from exchange.store.errors import StoreUnavailable, StoreWentBack, ValueRefused
from exchange.store.log import log_size
from exchange.store.opening import store_exists
from exchange.store.outbox import Delivery, claim, done, end_leases_of, enqueue, is_worked_on, new_delivery
from exchange.store.postgresql import PostgresStore, open_postgresql
from exchange.store.replicas import all_replicas, arrive, be_seen, leave
from exchange.store.transaction import Operation, Row, Sql, Transaction
from tests import databases
from tests.store.conftest import NOW_MS, ORIGIN, Clock, Signer, call
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


class Cutter:
    """Stands between a store and its server, and cuts the connection at a COMMIT: before it, or before its answer."""

    def __init__(self, url: str) -> None:
        self.socket = f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"
        self.cut: str = ""
        self.cuts = 0

    @contextlib.asynccontextmanager
    async def between(self, url: str) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        parts = urlsplit(url)
        yield f"postgresql://{parts.username}:@127.0.0.1:{port}{parts.path}"
        server.close()

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        node, to_node = await asyncio.open_unix_connection(self.socket)
        back = asyncio.create_task(self._pipe(node, to_client))
        with contextlib.suppress(OSError):
            while data := await client.read(65536):
                if b"COMMIT" in data and self.cut:
                    cut, self.cut = self.cut, ""
                    self.cuts += 1
                    back.cancel()
                    if cut == "answer":
                        to_node.write(data)
                        await to_node.drain()
                        await node.read(1)  # the server has done it
                    break
                to_node.write(data)
                await to_node.drain()
        for writer in (to_node, to_client):
            writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.mark.parametrize("cut", ["commit", "answer"])
async def test_a_commit_that_was_cut_off_is_kept_once_and_told_as_kept(url: str, clock: Clock, cut: str) -> None:
    cutter = Cutter(url)
    async with cutter.between(url) as through:
        store = await open_postgresql(through, Signer(), clock)
        await store.write(work("first"))
        cutter.cut = cut

        (entry,) = await store.write(work("second"))

        assert cutter.cuts == 1
        assert entry.position == 1
        assert await stored_names(store) == ["first", "second"]
        assert await store.read(log_size) == 2
        (entry,) = await store.write(work("third"))
        assert entry.position == 2
        await store.close()


async def test_a_batch_that_another_has_followed_is_still_known(replicas: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = replicas
    await one.write(work("one"))
    await other.write(work("other"))
    ((turn,),) = await one.read(call_turn(one.replica))

    assert await one.was_kept(turn)
    assert not await one.was_kept("another")
    assert not await other.was_kept(turn)


def call_turn(replica: str) -> Operation[list[Row]]:
    return lambda tx: tx.fetch_all(_turn_of, {"id": replica})


_turn_of = Sql(select(tables.replicas.c.turn).where(tables.replicas.c.id == bindparam("id")))


async def test_a_server_that_lost_what_it_confirmed_is_signed_on_no_more(
    url: str, replicas: tuple[PostgresStore, PostgresStore]
) -> None:
    store, other = replicas
    told: list[int] = []
    store.went_back = told.append
    await store.write(work("first"))
    await other.write(work("kept"))
    before = await databases_dump(url)
    await store.write(work("lost"))
    await databases_restore(url, before)  # as a standby does that had not got the last of it
    await kill_connections(url)

    with pytest.raises(StoreWentBack):
        await store.write(work("late"))
    with pytest.raises(StoreWentBack):
        await store.write(work("later"))

    assert told == [3]
    await other.write(work("unharmed"))  # what that one has signed is all there


LOG = ("log_head", "log_nodes", "checkpoints", "statements")


async def databases_dump(url: str) -> dict[str, list[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    found = {name: await connection.fetch(f"SELECT * FROM {name}") for name in LOG}
    await connection.close()
    return found


async def databases_restore(url: str, rows: dict[str, list[asyncpg.Record]]) -> None:
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        for name, records in rows.items():
            await connection.execute(f"DELETE FROM {name}")
            await connection.copy_records_to_table(name, records=[tuple(record) for record in records])
    await connection.close()


@pytest.mark.slow
async def test_who_may_not_sign_keeps_nothing_that_is_to_be_signed(
    replicas: tuple[PostgresStore, PostgresStore],
) -> None:
    store, other = replicas

    async def refuse(tx: Transaction) -> None:
        raise PermissionError

    store.may_sign = refuse
    with pytest.raises(StoreUnavailable, match="PermissionError"):
        await store.write(work("unsigned"))
    assert await other.read(log_size) == 0
    assert await stored_names(other) == []
    assert await store.write(call(end_leases_of, "nobody")) == 0  # what is not signed goes on


async def test_replicas_that_claim_at_the_same_time_share_out_a_lane_in_order_and_one_at_a_time(
    replicas: tuple[PostgresStore, PostgresStore],
) -> None:
    rows = [new_delivery("lane", "card", now_ms=NOW_MS, deadline_ms=NOW_MS + 1) for _ in range(40)]
    await replicas[0].write(call(enqueue, rows))
    order: list[int] = []
    holders: set[str] = set()

    async def work_on(store: PostgresStore) -> None:
        async def operation(tx: Transaction) -> list[Delivery]:
            if await is_worked_on(tx, "lane", NOW_MS, store.replica):
                return []
            return await claim(tx, "lane", 3, NOW_MS, 1000, replica=store.replica)

        while len(order) < 40:
            claimed = await store.write(operation)
            if claimed:
                holders.add(store.replica)
                assert len(holders) == 1, "both work on the lane"
                order.extend(row.number for row in claimed)
                await asyncio.sleep(0)
                holders.discard(store.replica)
                await store.write(call(done, claimed))

    await asyncio.gather(*(work_on(store) for store in replicas))
    assert order == sorted(order)
    assert len(order) == 40


async def test_a_replica_that_arrives_ends_what_its_directory_had_in_hand(
    replicas: tuple[PostgresStore, PostgresStore],
) -> None:
    store, other = replicas
    await store.write(call(arrive, "former", "one", NOW_MS, ""))
    await store.write(call(enqueue, [new_delivery("lane", "card", now_ms=NOW_MS, deadline_ms=NOW_MS + 1)]))
    await store.write(call(claim, "lane", 1, NOW_MS, 1000, replica="former"))
    assert await store.read(call(is_worked_on, "lane", NOW_MS, store.replica))

    assert await store.write(call(arrive, store.replica, "two", NOW_MS, "former")) == 1

    assert not await store.read(call(is_worked_on, "lane", NOW_MS, store.replica))
    assert [row.name for row in await other.read(all_replicas)] == ["two"]
    await store.write(call(be_seen, store.replica, NOW_MS + 5, NOW_MS + 6))
    assert await other.read(all_replicas) == []
    await store.write(call(leave, store.replica))


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
