"""Leaf hashes of peers are kept once, in order, whatever comes twice or leaves a gap."""

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.store.mirror import keep_leaves, keep_sightings, kept_leaves, kept_sightings, leaves_from
from exchange.store.peers import PeerRow, add_peer, forget_peer_heads
from exchange.store.transaction import Store, Transaction
from tests.store.conftest import NOW_MS, OpenStore

PEER = "exchange.enfield.example"
ROW = PeerRow(PEER, "verified", "0" * 64, 1, b"card", "proof", None, NOW_MS)


def hashes(first: int, end: int) -> bytes:
    return b"".join(position.to_bytes(32, "big") for position in range(first, end))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 300)), min_size=1, max_size=8), st.integers(0, 1100))
def test_what_is_kept_is_what_was_given_and_stands_at_its_place(
    open_store: OpenStore, given_runs: list[tuple[int, int]], wanted: int
) -> None:
    async def scenario(store: Store) -> tuple[int, list[tuple[int, bytes]]]:
        async def operation(tx: Transaction) -> tuple[int, list[tuple[int, bytes]]]:
            await add_peer(tx, ROW)
            for first, count in given_runs:
                await keep_leaves(tx, PEER, first, hashes(first, first + count))
            found = await kept_leaves(tx, PEER), await leaves_from(tx, PEER, wanted, 1000)
            await forget_peer_heads(tx, PEER)
            assert await kept_leaves(tx, PEER) == 0
            return found

        return await store.write(operation)

    end, runs = open_store(scenario)
    kept: set[int] = set()
    for first, count in given_runs:
        reached = max(kept, default=-1) + 1
        kept |= set(range(max(first, reached), first + count))
    assert end == max(kept) + 1
    assert runs == [(first, hashes(first, first + len(run) // 32)) for first, run in runs]
    positions = [at for first, run in runs for at in range(first, first + len(run) // 32)]
    assert positions == sorted(at for at in kept if at >= wanted)


async def test_of_what_a_peer_has_seen_the_latest_statement_is_kept_whatever_comes_after_it(store: Store) -> None:
    async def operation(tx: Transaction) -> None:
        await add_peer(tx, ROW)
        for position in (7, 9, 9, 8):
            await keep_sightings(tx, PEER, position, b"statement %d" % position, f"proof {position}")

    await store.write(operation)
    assert await store.read(lambda tx: kept_sightings(tx, PEER)) == (b"statement 9", "proof 9")

    await store.write(lambda tx: forget_peer_heads(tx, PEER))
    assert await store.read(lambda tx: kept_sightings(tx, PEER)) is None
