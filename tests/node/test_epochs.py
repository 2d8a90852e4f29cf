"""Sealing keys over time: made in good time, destroyed after their grace, and the card renewed with them."""

import asyncio
import dataclasses
import io
import itertools
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pysqlite3 import dbapi2 as sqlite

from exchange.crypto.statement import parse_statement
from exchange.node.app import prepare
from exchange.node.cards import own_card
from exchange.node.compose import current_key
from exchange.node.config import NodeTable
from exchange.node.delivery import Dispatcher
from exchange.node.epochs import card_is_current, keep_current, load_sealing_keys, plan_turn, turn_epoch
from exchange.node.services import Services, milliseconds
from exchange.schema.wire import Card, card_decoder, decode_wire
from exchange.store.keys import SealingKeyRow, add_sealing_key, all_sealing_keys, destroy_sealing_key
from exchange.store.transaction import Transaction
from tests.node.handmade import Borough
from tests.node.pair import NOW_MS, Clock, Node, opened, until

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LIFETIME_MS, GRACE_MS = 7 * DAY_MS, 14 * DAY_MS


async def stored(services: Services) -> dict[bytes, tuple[int, int]]:
    rows = await services.store.read(all_sealing_keys)
    return {bytes(row.key_id): (row.not_before_ms, row.not_after_ms) for row in rows}


async def card(services: Services) -> Card:
    return decode_wire(card_decoder, parse_statement((await own_card(services)).statement).body)


async def test_a_node_without_a_key_makes_one(services: Services, clock: Clock) -> None:
    assert await turn_epoch(services)
    assert list((await stored(services)).values()) == [(clock.now_ms, clock.now_ms + LIFETIME_MS)]
    assert list(services.keyring.sealing) == list(await stored(services))


async def test_a_new_key_is_made_when_the_newest_has_passed_half_its_life(services: Services, clock: Clock) -> None:
    await turn_epoch(services)
    clock.now_ms += LIFETIME_MS // 2
    assert not await turn_epoch(services)
    clock.now_ms += 1
    assert await turn_epoch(services)
    assert not await turn_epoch(services)
    assert len(services.keyring.card_sealing_keys(clock.now_ms)) == 2


async def test_a_key_opens_what_comes_late_until_its_grace_has_passed(services: Services, clock: Clock) -> None:
    await turn_epoch(services)
    (first,) = await stored(services)
    clock.now_ms += LIFETIME_MS + GRACE_MS - 1
    await turn_epoch(services)
    assert first in services.keyring.sealing
    assert first not in {key.key for key in services.keyring.card_sealing_keys(clock.now_ms)}
    clock.now_ms += 1
    assert await turn_epoch(services)
    assert first not in services.keyring.sealing
    assert first not in await stored(services)


@pytest.mark.sqlite
async def test_a_destroyed_key_is_at_once_in_no_file_of_the_running_store(services: Services, clock: Clock) -> None:
    await turn_epoch(services)
    (row,) = await services.store.read(all_sealing_keys)
    path = services.configuration.store_file
    assert any(row.wrapped_seed in file.read_bytes() for file in path.parent.iterdir())
    clock.now_ms += LIFETIME_MS + GRACE_MS
    await turn_epoch(services)
    assert path.with_name(path.name + "-wal").exists()
    assert not any(row.wrapped_seed in file.read_bytes() for file in path.parent.iterdir())
    assert services.keyring.chain.epoch == 1


async def test_what_could_not_be_destroyed_for_good_is_told_and_tried_at_the_next_turn(
    services: Services, clock: Clock, lines: io.StringIO
) -> None:
    kept: list[bytes] = []

    def rewrite(entries: Mapping[str, bytes]) -> None:
        if not kept:
            kept.append(b"")
            raise OSError("no space left")
        kept.append(entries["sealing-chain"])

    services.keyring.rewrite = rewrite
    await turn_epoch(services)
    (first,) = await stored(services)
    clock.now_ms += LIFETIME_MS + GRACE_MS
    assert await turn_epoch(services)
    assert "sealing keys are not destroyed yet" in lines.getvalue()
    assert "no space left" in lines.getvalue()
    assert first not in await stored(services)
    assert services.keyring.chain.epoch == 0
    assert not await turn_epoch(services)
    assert kept[1:] == [services.keyring.chain.encode()]
    assert services.keyring.chain.epoch == 1
    assert lines.getvalue().count("sealing keys destroyed") == 1
    await turn_epoch(services)
    assert len(kept) == 2


@pytest.mark.sqlite
async def test_while_something_else_reads_the_store_the_keystore_is_not_believed_to_be_done(
    services: Services, clock: Clock
) -> None:
    await turn_epoch(services)
    reader = sqlite.connect(str(services.configuration.store_file), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sealing_keys").fetchall()
    clock.now_ms += LIFETIME_MS + GRACE_MS
    turning = asyncio.create_task(turn_epoch(services))

    async def deleted() -> bool:
        return len(await stored(services)) == 1 and services.keyring.epochs[0].epoch == 1

    await until("the row is deleted", deleted)
    assert services.keyring.chain.epoch == 0
    reader.close()
    await turning
    assert services.keyring.chain.epoch == 1


async def test_keys_that_an_old_copy_of_the_store_brings_back_are_deleted_and_not_used(
    services: Services, clock: Clock
) -> None:
    await turn_epoch(services)
    (old,) = await services.store.read(all_sealing_keys)
    clock.now_ms += LIFETIME_MS + GRACE_MS
    await turn_epoch(services)
    await services.store.write(lambda tx: add_sealing_key(tx, old))
    await load_sealing_keys(services)
    assert old.key_id not in services.keyring.sealing
    await turn_epoch(services)
    assert old.key_id not in await stored(services)


_numbers = itertools.count()


@given(st.lists(st.integers(0, 30 * 24), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_whenever_the_node_looks_there_is_a_key_in_force_and_none_outlives_its_grace(
    tmp_path_factory: pytest.TempPathFactory, hours: list[int]
) -> None:
    async def scenario(directory: Path) -> None:
        clock = Clock()
        async with opened(directory, clock) as services:
            for passed in hours:
                clock.now_ms += passed * HOUR_MS
                await turn_epoch(services)
                keys = await stored(services)
                in_force = [1 for start, end in keys.values() if start <= clock.now_ms < end]
                assert 1 <= len(in_force) <= 8
                assert all(end + GRACE_MS > clock.now_ms for _, end in keys.values())
                assert services.keyring.chain.epoch == min(row.epoch for row in services.keyring.epochs)
                assert set(services.keyring.sealing) == set(keys)
                assert max(end for _, end in keys.values()) - clock.now_ms >= LIFETIME_MS / 2

    asyncio.run(scenario(tmp_path_factory.getbasetemp() / f"epochs-{next(_numbers)}"))


class Schedule(RuleBasedStateMachine):
    """The schedule by itself: a clock that goes anywhere, and a configuration that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[SealingKeyRow] = []
        self.now_ms = NOW_MS
        self.lifetime_ms, self.grace_ms = LIFETIME_MS, GRACE_MS
        self.promised: dict[bytes, int] = {}
        self.made = 0
        self.turn()

    @rule(hours=st.integers(0, 40 * 24))
    def time_passes(self, hours: int) -> None:
        self.now_ms += hours * HOUR_MS
        self.turn()

    @rule(hours=st.integers(1, 40 * 24))
    def the_clock_goes_back(self, hours: int) -> None:
        self.now_ms -= hours * HOUR_MS
        self.turn()

    @rule(lifetime_days=st.floats(0.01, 90), grace_days=st.floats(0.01, 90))
    def the_configuration_changes(self, lifetime_days: float, grace_days: float) -> None:
        self.lifetime_ms, self.grace_ms = round(lifetime_days * DAY_MS), round(grace_days * DAY_MS)
        self.turn()

    def turn(self) -> None:
        due = plan_turn(self.rows, self.now_ms, self.lifetime_ms)
        for row in due.destroy:
            # What any card has said of it, and not what the configuration says now.
            assert self.promised.get(row.key_id, 0) <= self.now_ms
        self.rows = [row for row in self.rows if row not in due.destroy]
        if due.make:
            self.made += 1
            end_ms = self.now_ms + self.lifetime_ms
            self.rows.append(
                SealingKeyRow(
                    self.made.to_bytes(16, "big"), self.made, b"", self.now_ms, end_ms, end_ms + self.grace_ms
                )
            )
        # The card that is signed now.
        self.promised |= {row.key_id: row.opens_until_ms for row in self.rows if row.not_after_ms > self.now_ms}
        again = plan_turn(self.rows, self.now_ms, self.lifetime_ms)
        assert (again.make, again.destroy) == (False, ())

    @invariant()
    def a_key_is_in_force(self) -> None:
        assert any(row.not_before_ms <= self.now_ms < row.not_after_ms for row in self.rows)

    @invariant()
    def the_key_that_senders_use_has_at_most_a_lifetime_and_at_least_half_of_one_before_it(self) -> None:
        in_force = [row for row in self.rows if row.not_before_ms <= self.now_ms < row.not_after_ms]
        youngest = max(in_force, key=lambda row: (row.not_before_ms, row.epoch))
        assert youngest.not_after_ms - self.now_ms >= self.lifetime_ms / 2
        assert self.now_ms - youngest.not_before_ms <= self.lifetime_ms / 2

    @invariant()
    def nothing_is_kept_for_longer_than_promised(self) -> None:
        assert all(row.opens_until_ms > self.now_ms for row in self.rows)


TestSchedule = Schedule.TestCase


async def test_a_lifetime_that_is_made_shorter_holds_at_once_and_keeps_what_was_promised(
    services: Services, clock: Clock
) -> None:
    await prepare(services)
    (promised,) = (await card(services)).sealing_keys
    keys = msgspec.structs.replace(services.configuration.tables.keys, sealing_lifetime_days=1, sealing_grace_days=1)
    tables = msgspec.structs.replace(services.configuration.tables, keys=keys)
    changed = dataclasses.replace(services, configuration=dataclasses.replace(services.configuration, tables=tables))
    clock.now_ms += DAY_MS
    await prepare(changed)
    now_used = current_key(await card(services), services.now())
    assert (now_used.not_after - services.now()).days == 1
    clock.now_ms = milliseconds(promised.opens_until) - 1
    await prepare(changed)
    assert promised.key in {key.public.raw for key in services.keyring.sealing.values()}
    clock.now_ms += 1
    await prepare(changed)
    assert promised.key not in {key.public.raw for key in services.keyring.sealing.values()}


async def test_a_new_node_has_a_card_and_looking_again_signs_no_other(services: Services) -> None:
    await prepare(services)
    assert (await card(services)).serial == 1
    services.configuration.card_path.unlink()
    await prepare(services)
    assert (await card(services)).serial == 1
    assert services.configuration.card_path.exists()


async def test_a_card_is_renewed_when_it_says_what_is_no_longer_so(services: Services) -> None:
    await prepare(services)
    tables = services.configuration.tables
    for change in ({"name": "Another name"}, {"url": "https://exchange.hackney.example"}):
        node: NodeTable = msgspec.structs.replace(tables.node, **change)
        configuration = dataclasses.replace(services.configuration, tables=msgspec.structs.replace(tables, node=node))
        assert await card_is_current(services)
        assert not await card_is_current(dataclasses.replace(services, configuration=configuration))


async def test_a_slash_at_the_end_of_the_url_is_no_change(services: Services) -> None:
    await prepare(services)
    tables = services.configuration.tables
    node = msgspec.structs.replace(tables.node, url=tables.node.url + "/")
    configuration = dataclasses.replace(services.configuration, tables=msgspec.structs.replace(tables, node=node))
    assert await card_is_current(dataclasses.replace(services, configuration=configuration))


async def test_a_card_is_renewed_thirty_days_before_it_ends(services: Services, clock: Clock) -> None:
    await prepare(services)
    ends_ms = round((await card(services)).expires_at.timestamp() * 1000)
    row = services.keyring.new_sealing_key(clock.now_ms, 365 * DAY_MS)

    async def replace(tx: Transaction) -> None:
        for old in await all_sealing_keys(tx):
            await destroy_sealing_key(tx, old)
        await add_sealing_key(tx, row)

    await services.store.write(replace)
    await prepare(services)
    clock.now_ms = ends_ms - 30 * DAY_MS - 1
    assert await card_is_current(services)
    clock.now_ms += 1
    assert not await card_is_current(services)


async def test_while_the_node_runs_the_card_is_renewed_and_told_to_peers(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    services = enfield.services
    dispatcher, stop = Dispatcher(services, {}), asyncio.Event()
    keeper = asyncio.create_task(keep_current(services, dispatcher, stop, every_s=0.01))
    clock.now_ms += 4 * DAY_MS

    async def renewed() -> bool:
        return (await enfield.card()).serial == 2

    await until("the card was renewed", renewed)
    stop.set()
    await keeper
    assert len((await enfield.card()).sealing_keys) == 2
    newest = enfield.rows("SELECT max(position) FROM statements WHERE type = 'card'")
    assert enfield.rows("SELECT position FROM outbox WHERE kind = 'card' ORDER BY number")[-1:] == newest


async def test_a_store_that_is_gone_does_not_end_what_keeps_the_card(
    services: Services, clock: Clock, lines: io.StringIO
) -> None:
    await prepare(services)
    await services.store.close()
    stop = asyncio.Event()
    keeper = asyncio.create_task(keep_current(services, Dispatcher(services, {}), stop, every_s=0.01))
    clock.now_ms += 4 * DAY_MS

    async def told() -> bool:
        return lines.getvalue().count("the card was not renewed") >= 2

    await until("it was told twice", told)
    assert not keeper.done()
    stop.set()
    await keeper
