"""A log that gets its end back is the log that it was: it continues every checkpoint of it, and goes on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.merkle import Frontier, verify_consistency
from exchange.crypto.names import LeafHash
from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import parse_proof, verify_statement
from exchange.crypto.statement import encode_statement, leaf_hash
from exchange.store.errors import NotFound, StoreError
from exchange.store.log import adopt, consistency_between, latest_head, log_size, proven_at, statement_at
from exchange.store.transaction import Store
from tests.store.conftest import NOW_MS, ORIGIN, OpenStore, Signer

STATEMENTS = [encode_statement("card", b"body %d" % number) for number in range(20)]
LEAVES = [leaf_hash(statement) for statement in STATEMENTS]


def tree(size: int) -> Frontier:
    return Frontier(0, ()).append(LEAVES[:size])[0]


def signed(size: int) -> tuple[int, str, int]:
    return size, Signer()(size, tree(size).root(), NOW_MS // 1000), NOW_MS


async def begin(store: Store, size: int) -> None:
    for number in range(size):
        await store.write(lambda tx, number=number: tx.sign("card", b"body %d" % number))  # type: ignore[misc]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_log_that_lost_its_end_gets_it_back(
    open_store: OpenStore, verifiers: tuple[VerifierKey, VerifierKey], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(STATEMENTS)), "size")
    base = data.draw(st.integers(0, size - 1), "base")
    returned = data.draw(st.sets(st.integers(base, size - 1)), "returned")
    sizes = sorted(data.draw(st.sets(st.integers(1, size)), "seen") | {size})

    async def scenario(store: Store) -> None:
        await begin(store, base)
        known = {position: ("card", STATEMENTS[position]) for position in returned}
        checkpoints = [signed(one) for one in sizes]
        await store.write(lambda tx: adopt(tx, LEAVES[base:size], known, checkpoints))
        assert await store.read(log_size) == size
        await store.write(lambda tx: tx.sign("card", b"after"))
        head = await store.read(latest_head)
        assert head.size == size + 1
        for one in range(1, size + 1):
            path = await store.read(lambda tx, one=one: consistency_between(tx, one, head.size))  # type: ignore[misc]
            verify_consistency(one, head.size, path, tree(one).root(), head.root)
        for position in range(base, size):
            statement = await store.read(lambda tx, position=position: statement_at(tx, position))  # type: ignore[misc]
            assert statement == (STATEMENTS[position] if position in returned else b"")
        for position in returned:
            proven = await store.read(lambda tx, position=position: proven_at(tx, position))  # type: ignore[misc]
            verified = verify_statement(proven.statement, proven.proof, ORIGIN, verifiers)
            assert verified.index == position
            nearest = min(one for one in sizes if one > position)
            assert f"\n{nearest}\n" in parse_proof(proven.proof).checkpoint, "the first that covers it"

    open_store(scenario)


async def test_nothing_is_adopted_that_no_checkpoint_covers(store: Store) -> None:
    await begin(store, 2)
    other = [LeafHash(bytes(32))]
    for leaves, checkpoints in (
        (LEAVES[2:5], [signed(4)]),
        (LEAVES[2:5], []),
        (other, [signed(3)]),
    ):
        with pytest.raises(StoreError):
            await store.write(lambda tx, given=(leaves, checkpoints): adopt(tx, given[0], {}, given[1]))  # type: ignore[misc]
        assert await store.read(log_size) == 2
        with pytest.raises(NotFound):
            await store.read(lambda tx: statement_at(tx, 2))
