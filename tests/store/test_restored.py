"""Whether a store came from a backup is said in the store itself, until its node has rejoined its peers."""

import pytest

from exchange.store.errors import StoreInUse
from exchange.store.replicas import arrive, be_seen
from exchange.store.restored import begin_to_rejoin, end_rejoining, is_restored
from exchange.store.transaction import Store
from tests.store.conftest import NOW_MS, call

OWN, OTHER = "11111111", "22222222"


async def test_who_starts_after_a_rejoining_that_was_broken_off_rejoins_too(store: Store) -> None:
    assert not await store.read(is_restored)

    for _ in range(2):
        await store.write(call(begin_to_rejoin, 7, OWN, NOW_MS))
        assert await store.read(is_restored)

    await store.write(end_rejoining)
    assert not await store.read(is_restored)


async def test_nobody_rejoins_while_another_process_may_sign(store: Store) -> None:
    await store.write(call(arrive, OWN, "own", NOW_MS, ""))
    await store.write(call(arrive, OTHER, "other", NOW_MS, ""))

    with pytest.raises(StoreInUse, match="other processes of the node run on the store: 1"):
        await store.write(call(begin_to_rejoin, 7, OWN, NOW_MS + 29_000))
    assert not await store.read(is_restored)

    await store.write(call(be_seen, OWN, NOW_MS + 30_000, 0))
    await store.write(call(begin_to_rejoin, 7, OWN, NOW_MS + 30_000))
    assert await store.read(is_restored)
