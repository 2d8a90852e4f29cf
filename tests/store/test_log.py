"""The log: proofs can be made again for ever, and every size grows out of every smaller one."""

import asyncio
from base64 import b64decode
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.merkle import verify_consistency
from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import parse_proof, verify_statement
from exchange.store.errors import NotFound
from exchange.store.log import (
    ProvenEntry,
    consistency_between,
    latest_head,
    log_size,
    proofs_of,
    proven_at,
    statement_at,
)
from exchange.store.transaction import LogEntry, Store, Transaction
from tests.store.conftest import ORIGIN, Clock, OpenStore, Signer, call


async def append(store: Store, count: int, label: str = "") -> list[LogEntry]:
    """Sign `count` statements in one batch."""

    async def operation(tx: Transaction) -> list[LogEntry]:
        start = await log_size(tx)
        return [await tx.sign("note", f"{label}{number}".encode()) for number in range(start, start + count)]

    return await store.write(operation)


async def test_positions_follow_on_across_batches(store: Store) -> None:
    entries = [*await append(store, 3), *await append(store, 1), *await append(store, 4)]

    assert [entry.position for entry in entries] == list(range(8))
    assert await store.read(log_size) == 8


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=30)
def test_a_proof_made_later_is_the_one_that_was_given_out(
    open_store: OpenStore, verifiers: tuple[VerifierKey, VerifierKey], batches: list[int]
) -> None:
    async def scenario(store: Store) -> None:
        entries = [entry for count in batches for entry in await append(store, count)]
        for entry in entries:
            again = await store.read(call(proven_at, entry.position))
            assert again == ProvenEntry(entry.statement, entry.proof)
            verify_statement(again.statement, again.proof, ORIGIN, verifiers)

    open_store(scenario)


async def test_a_proof_can_be_made_against_the_latest_checkpoint(
    store: Store, verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    await append(store, 5)
    await append(store, 6)
    head = await store.read(latest_head)

    for position, proof in enumerate(await store.read(call(proofs_of, range(11), head))):
        statement = await store.read(call(statement_at, position))
        verified = verify_statement(statement, proof, ORIGIN, verifiers)
        assert (verified.index, verified.checkpoint.size, verified.checkpoint.text) == (position, 11, head.text)


async def test_the_log_grows_consistently_between_any_two_sizes(store: Store, signer: Signer) -> None:
    for _ in range(33):
        await append(store, 1)
    roots = signer.roots()
    assert sorted(roots) == list(range(1, 34))

    for first in roots:
        for second in range(first, 34):
            path = await store.read(call(consistency_between, first, second))
            verify_consistency(first, second, path, roots[first], roots[second])


@given(st.lists(st.integers(1, 70), min_size=2, max_size=5))
@settings(max_examples=30)
def test_checkpoints_of_batches_of_any_size_are_consistent(open_store: OpenStore, batches: list[int]) -> None:
    async def scenario(store: Store) -> None:
        heads = []
        for count in batches:
            await append(store, count)
            heads.append(await store.read(latest_head))
        for earlier, later in pairwise(heads):
            path = await store.read(call(consistency_between, earlier.size, later.size))
            verify_consistency(earlier.size, later.size, path, root_of(earlier.text), root_of(later.text))

    open_store(scenario)


def root_of(checkpoint: str) -> bytes:
    return b64decode(checkpoint.split("\n")[2])


async def test_from_nothing_and_to_itself_a_size_needs_no_path(store: Store) -> None:
    await append(store, 3)

    assert await store.read(call(consistency_between, 0, 3)) == []
    assert await store.read(call(consistency_between, 3, 3)) == []
    assert await store.read(call(consistency_between, 0, 0)) == []


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 4), (4, 4), (-1, 2)])
async def test_sizes_that_the_log_never_had_are_refused(store: Store, first: int, second: int) -> None:
    await append(store, 3)

    with pytest.raises(NotFound):
        await store.read(call(consistency_between, first, second))


@pytest.mark.parametrize("query", [statement_at, proven_at])
async def test_a_position_beyond_the_log_is_not_found(store: Store, query: object) -> None:
    await append(store, 3)

    with pytest.raises(NotFound):
        await store.read(call(query, 3))  # type: ignore[arg-type]


async def test_a_log_without_a_leaf_has_no_head(store: Store) -> None:
    assert await store.read(log_size) == 0
    with pytest.raises(NotFound):
        await store.read(latest_head)


async def test_a_statement_is_covered_by_the_first_checkpoint_after_it(store: Store) -> None:
    (first,) = await append(store, 1)
    later = await append(store, 2)

    assert parse_proof(first.proof).checkpoint.split("\n")[1] == "1"
    assert {parse_proof(entry.proof).checkpoint.split("\n")[1] for entry in later} == {"3"}


async def test_checkpoints_carry_the_time_of_their_batch(
    store: Store, clock: Clock, verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    await append(store, 1)
    clock.now_ms += 3_600_000
    (entry,) = await append(store, 1)

    verified = verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)

    _, mldsa44 = verifiers
    line = next(line for line in verified.checkpoint.text.split("\n") if key_id_of(line) == mldsa44.key_id)
    assert int.from_bytes(signature(line)[4:12], "big") == clock.now_ms // 1000


def signature(line: str) -> bytes:
    return b64decode(line.rpartition(" ")[2])


def key_id_of(line: str) -> bytes:
    return signature(line)[:4] if line.startswith("— ") else b""


async def test_many_writers_at_once_leave_no_gap(store: Store, verifiers: tuple[VerifierKey, VerifierKey]) -> None:
    groups = await asyncio.gather(*(append(store, 2, f"{number}-") for number in range(40)))

    entries = sorted((entry for group in groups for entry in group), key=lambda entry: entry.position)
    assert [entry.position for entry in entries] == list(range(80))
    for entry in entries:
        verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)
