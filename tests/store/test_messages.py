"""Form messages: they arrive once, their rungs only go up, and what was erased is gone."""

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysqlite3 import dbapi2 as sqlite

from exchange.store.errors import NotFound
from exchange.store.messages import (
    INBOUND,
    OUTBOUND,
    KeysRow,
    PlacementRow,
    ReceiptRow,
    SectionRow,
    add_alarm,
    add_event,
    add_receipt,
    events_of,
    find_message,
    keys_of,
    list_alarms,
    list_messages,
    message_by_id,
    message_by_number,
    placements_of,
    raise_rung,
    receipts_of,
    received_at_ms,
    sections_of,
)
from exchange.store.transaction import Store
from tests.store.conftest import NOW_MS, ORIGIN, OpenStore, add_one, call, message_row

LADDER = ["received", "routed", "delivered", "owned"]
FIRST = "00000000-0000-4000-8000-000000000001"
SECOND = "00000000-0000-4000-8000-000000000002"


async def test_a_message_comes_back_as_it_was_stored(store: Store) -> None:
    number = await store.write(call(add_one, FIRST, urgent=1))

    row = await store.read(call(message_by_id, FIRST))

    assert row == message_row(FIRST, urgent=1)._replace(number=number)
    assert await store.read(call(message_by_number, number)) == row
    assert await store.read(call(find_message, ORIGIN, FIRST)) == row
    assert await store.read(call(keys_of, number)) == KeysRow(b"wrapped", b"secrets")


async def test_sections_come_back_and_one_that_nobody_here_opens_has_no_secret(store: Store) -> None:
    number = await store.write(call(add_one))

    assert await store.read(call(sections_of, number)) == [
        SectionRow("subject", b"ciphertext"),
        SectionRow("housing", b"other"),
    ]


async def test_one_origin_cannot_store_the_same_message_id_twice(store: Store) -> None:
    await store.write(call(add_one, FIRST))

    with pytest.raises((sqlite.IntegrityError, asyncpg.IntegrityConstraintViolationError)):
        await store.write(call(add_one, FIRST))

    assert len(await store.read(call(list_messages, INBOUND, 10))) == 1


async def test_two_origins_may_use_the_same_message_id(store: Store) -> None:
    await store.write(call(add_one, FIRST))
    await store.write(call(add_one, FIRST, origin="exchange.enfield.example"))

    found = await store.read(call(find_message, "exchange.enfield.example", FIRST))

    assert found is not None
    assert found.origin == "exchange.enfield.example"


async def test_messages_are_listed_by_direction_and_newest_first(store: Store) -> None:
    for name, direction in (("a", INBOUND), ("b", OUTBOUND), ("c", INBOUND), ("d", INBOUND)):
        await store.write(call(add_one, name, direction=direction))

    assert [row.message_id for row in await store.read(call(list_messages, INBOUND, 2))] == ["d", "c"]
    assert [row.message_id for row in await store.read(call(list_messages, OUTBOUND, 2))] == ["b"]


@pytest.mark.parametrize(
    "query",
    [
        call(message_by_id, FIRST),
        call(message_by_number, 1),
        call(keys_of, 1),
    ],
    ids=["by id", "by number", "key"],
)
async def test_asking_for_what_is_not_there_says_so(store: Store, query: object) -> None:
    with pytest.raises(NotFound):
        await store.read(query)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", LADDER)
@pytest.mark.parametrize("rung", LADDER)
async def test_a_rung_rises_and_never_goes_down(store: Store, start: str, rung: str) -> None:
    number = await store.write(call(add_one))
    pairs = [("subject", "police")]
    await store.write(call(raise_rung, number, start, pairs, NOW_MS))

    await store.write(call(raise_rung, number, rung, pairs, NOW_MS + 5))

    before = PlacementRow("subject", "police", start, NOW_MS)
    after = PlacementRow("subject", "police", rung, NOW_MS + 5)
    rises = LADDER.index(rung) > LADDER.index(start)
    assert await store.read(call(placements_of, number)) == [after if rises else before]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(LADDER), min_size=1, max_size=12))
def test_in_whatever_order_rungs_arrive_the_highest_stands(open_store: OpenStore, rungs: list[str]) -> None:
    async def climb(store: Store) -> list[PlacementRow]:
        number = await store.write(call(add_one))
        for rung in rungs:
            await store.write(call(raise_rung, number, rung, [("subject", "police")], NOW_MS))
        return await store.read(call(placements_of, number))

    (placement,) = open_store(climb)

    assert placement.rung == max(rungs, key=LADDER.index)


async def test_raising_one_section_leaves_the_others(store: Store) -> None:
    number = await store.write(call(add_one))
    other = await store.write(call(add_one, SECOND))
    pairs = [("housing", "housing"), ("subject", "housing"), ("subject", "police")]
    await store.write(call(raise_rung, number, "routed", pairs, NOW_MS))
    await store.write(call(raise_rung, other, "routed", pairs, NOW_MS))

    await store.write(call(raise_rung, number, "owned", [("subject", "police")], NOW_MS))

    rungs = [row.rung for row in await store.read(call(placements_of, number))]
    assert rungs == ["routed", "routed", "owned"]
    assert {row.rung for row in await store.read(call(placements_of, other))} == {"routed"}


async def test_a_message_is_received_when_its_receipt_says(store: Store) -> None:
    number = await store.write(call(add_one))
    assert await store.read(call(received_at_ms, number)) is None

    await store.write(call(add_receipt, number, "received", b"leaf", b"body", NOW_MS + 5, proof="proof"))

    assert await store.read(call(received_at_ms, number)) == NOW_MS + 5


async def test_a_receipt_is_kept_once(store: Store) -> None:
    number = await store.write(call(add_one))

    first = await store.write(call(add_receipt, number, "received", b"leaf", b"body", NOW_MS, proof="proof"))
    again = await store.write(call(add_receipt, number, "received", b"leaf", b"body", NOW_MS + 1, proof="proof"))

    assert (first, again) == (True, False)
    assert await store.read(call(receipts_of, number)) == [ReceiptRow("received", b"body", "proof", None)]


async def test_the_timeline_is_in_the_order_of_writing(store: Store) -> None:
    number = await store.write(call(add_one))
    await store.write(call(add_event, number, "received", NOW_MS + 5))
    await store.write(call(add_event, number, "delivered", NOW_MS, agency="police", detail="note"))

    events = await store.read(call(events_of, number))

    assert [(event.event, event.at_ms) for event in events] == [("received", NOW_MS + 5), ("delivered", NOW_MS)]
    assert (events[1].agency, events[1].detail) == ("police", "note")


async def test_the_latest_alarm_comes_first(store: Store) -> None:
    for at in (1, 2, 3):
        await store.write(call(add_alarm, "fork", ORIGIN, "two roots", at, b"sealed"))

    assert await store.read(call(list_alarms, 2)) == [
        (3, "fork", ORIGIN, "two roots"),
        (2, "fork", ORIGIN, "two roots"),
    ]
