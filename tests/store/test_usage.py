"""How much of the store each peer takes, counted in steps of any length."""

import pytest

from exchange.store.messages import OUTBOUND, count_receipts
from exchange.store.outbox import Order, claim, enqueue, new_delivery
from exchange.store.transaction import Store
from exchange.store.usage import Used, used_after
from tests.store.conftest import NOW_MS, add_one, call

CAMDEN, ENFIELD = "exchange.camden.example", "exchange.enfield.example"


@pytest.mark.parametrize("step", [1, 2, 3, 100])
async def test_every_message_of_a_peer_is_counted_once_and_those_for_it_are_not(store: Store, step: int) -> None:
    for number in range(5):
        message_id = f"00000000-0000-4000-8000-00000000000{number}"
        await store.write(call(add_one, message_id, peer=CAMDEN if number % 2 else ENFIELD))
    await store.write(call(add_one, "00000000-0000-4000-8000-000000000009", peer=CAMDEN, direction=OUTBOUND))

    found: dict[str, Used] = {}
    number, last = 0, -1
    while number > last:
        last = number
        more, number = await store.read(used_after(last, step))
        for origin, used in more.items():
            found[origin] = found.get(origin, Used()).plus(used)

    first, _ = await store.read(used_after(0, 1))
    one = first[ENFIELD]
    assert one.bytes > len(b"statement" + b"ciphertext" + b"other")
    assert found == {CAMDEN: Used(2, 2 * one.bytes), ENFIELD: Used(3, 3 * one.bytes)}


async def test_a_message_without_receipts_has_none(store: Store) -> None:
    assert await store.read(call(count_receipts, await store.write(call(add_one)))) == 0


async def test_only_what_is_urgent_is_claimed_where_only_that_may_pass(store: Store) -> None:
    lane = "peer:exchange.enfield.example"
    rows = [
        new_delivery(lane, "manifest", now_ms=NOW_MS, deadline_ms=NOW_MS + 60_000, urgent=urgent)
        for urgent in (False, True, False, True)
    ]
    await store.write(call(enqueue, rows))
    first = await store.write(call(claim, lane, 1, NOW_MS, 30_000, Order.ONLY_URGENT))
    rest = await store.write(call(claim, lane, 9, NOW_MS, 30_000, Order.ONLY_URGENT))
    assert [row.number for row in (*first, *rest)] == [2, 4]
    assert len(await store.write(call(claim, lane, 9, NOW_MS, 30_000))) == 2
