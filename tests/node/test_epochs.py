"""Sealing keys over time: made in good time, destroyed after their grace, and the card renewed with them."""

import asyncio
import dataclasses
import io
import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.statement import parse_statement
from exchange.node.app import prepare
from exchange.node.cards import own_card
from exchange.node.config import NodeTable
from exchange.node.delivery import Dispatcher
from exchange.node.epochs import card_is_current, keep_current, turn_epoch
from exchange.node.services import Services
from exchange.schema.wire import Card, card_decoder, decode_wire
from exchange.store.keys import all_sealing_keys
from tests.node.handmade import Borough
from tests.node.pair import Clock, Node, opened, until

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


async def test_a_destroyed_key_is_not_in_the_store_any_more(services: Services, clock: Clock) -> None:
    await turn_epoch(services)
    ((wrapped,),) = [(row.wrapped_seed,) for row in await services.store.read(all_sealing_keys)]
    clock.now_ms += LIFETIME_MS + GRACE_MS
    await turn_epoch(services)
    path = services.configuration.store_path
    await services.store.close()
    assert wrapped not in path.read_bytes()


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
                assert set(services.keyring.sealing) == set(keys)
                assert max(end for _, end in keys.values()) - clock.now_ms >= LIFETIME_MS / 2

    asyncio.run(scenario(tmp_path_factory.getbasetemp() / f"epochs-{next(_numbers)}"))


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
    services.keyring.load_sealing_keys([row])
    await prepare(services)
    clock.now_ms = ends_ms - 30 * DAY_MS - 1
    services.keyring.load_sealing_keys([row])
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
