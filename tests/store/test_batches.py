"""The batching writer: what shares a batch shares a commit and a checkpoint, and nothing else."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import parse_proof, verify_statement
from exchange.store.errors import NotFound, StoreUnavailable
from exchange.store.log import latest_head, log_size, statement_at
from exchange.store.messages import INBOUND, list_messages
from exchange.store.opening import open_store as open_at
from exchange.store.transaction import LogEntry, Sql, Store, Transaction
from tests.store.conftest import ORIGIN, Clock, OpenStore, Signer, add_one, call


class Broken(Exception):
    """What a failing operation raises."""


def work(name: str, signs: int = 1, fails: bool = False) -> Callable[[Transaction], Any]:
    """Store a message, sign statements about it, and perhaps fail after that."""

    async def operation(tx: Transaction) -> list[LogEntry]:
        await add_one(tx, name)
        entries = [await tx.sign("note", f"{name}/{number}".encode()) for number in range(signs)]
        if fails:
            raise Broken(name)
        return entries

    return operation


async def in_one_batch(store: Store, *operations: Callable[[Transaction], Any]) -> list[Any]:
    """Ask for `operations` in one turn of the loop, so that they share a batch; return results and errors."""
    return await asyncio.gather(*map(store.write, operations), return_exceptions=True)


async def stored_names(store: Store) -> list[str]:
    return [row.message_id for row in reversed(await store.read(call(list_messages, INBOUND, 100)))]


async def test_operations_of_one_batch_share_one_checkpoint(store: Store, signer: Signer) -> None:
    results = await in_one_batch(store, *(work(name) for name in "abcd"))

    assert len({parse_proof(entry.proof).checkpoint for (entry,) in results}) == 1
    assert len(signer.signed) == 1


async def test_what_was_stored_is_read_in_brief_at_once(store: Store) -> None:
    for size in range(1, 4):
        await store.write(work(f"m{size}"))
        assert await store.read(call(log_size), brief=True) == size


async def test_a_brief_read_that_finds_nothing_says_so(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.read(call(statement_at, 0), brief=True)


async def test_the_proof_of_every_statement_verifies(store: Store, verifiers: tuple[VerifierKey, VerifierKey]) -> None:
    batches = [await in_one_batch(store, *(work(f"{batch}{name}", 2) for name in "abc")) for batch in range(3)]

    entries = [entry for batch in batches for entries in batch for entry in entries]
    for position, entry in enumerate(entries):
        verified = verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)
        assert (verified.index, verified.leaf_hash) == (position, entry.leaf_hash)


async def test_a_failing_operation_takes_nothing_of_the_others_with_it(
    store: Store, verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    first, error, last = await in_one_batch(store, work("first"), work("broken", 3, fails=True), work("last"))

    assert isinstance(error, Broken)
    assert await stored_names(store) == ["first", "last"]
    assert await store.read(log_size) == 2
    for entry in (*first, *last):
        verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)
    assert parse_proof(first[0].proof).checkpoint == parse_proof(last[0].proof).checkpoint


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=40)
def test_in_any_batch_only_what_succeeded_is_in_the_store_and_the_log(
    open_store: OpenStore, verifiers: tuple[VerifierKey, VerifierKey], plan: list[tuple[int, bool]]
) -> None:
    operations = [work(str(number), signs, fails) for number, (signs, fails) in enumerate(plan)]
    succeeded = {number: signs for number, (signs, fails) in enumerate(plan) if not fails}

    async def scenario(store: Store) -> None:
        results = await in_one_batch(store, *operations)

        assert await stored_names(store) == [str(number) for number in succeeded]
        assert await store.read(log_size) == sum(succeeded.values())
        for number in succeeded:
            for entry in results[number]:
                assert await store.read(call(statement_at, entry.position)) == entry.statement
                verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)

    open_store(scenario)


async def test_an_operation_that_breaks_the_whole_batch_fails_alone(
    store: Store, verifiers: tuple[VerifierKey, VerifierKey]
) -> None:
    broken = Sql(text("SELECT nothing FROM nowhere"))

    async def ask_for_nonsense(tx: Transaction) -> None:
        await tx.sign("note", b"nonsense")
        await tx.fetch_all(broken, {})

    first, error, last = await in_one_batch(store, work("first"), ask_for_nonsense, work("last"))

    assert isinstance(error, StoreUnavailable)
    assert await stored_names(store) == ["first", "last"]
    assert await store.read(log_size) == 2
    for entry in (*first, *last):
        verify_statement(entry.statement, entry.proof, ORIGIN, verifiers)


async def test_where_the_checkpoint_cannot_be_signed_nothing_is_kept(url: str, clock: Clock) -> None:
    def refuse(size: int, root: bytes, timestamp_s: int) -> str:
        raise OSError("no key")

    store = await open_at(url, refuse, clock)
    try:
        with pytest.raises(StoreUnavailable):
            await store.write(work("unsigned"))
        await store.write(work("without a statement", signs=0))

        assert await stored_names(store) == ["without a statement"]
        assert await store.read(log_size) == 0
    finally:
        await store.close()


async def test_a_proof_cannot_be_read_before_the_commit(store: Store) -> None:
    async def read_too_early(tx: Transaction) -> str:
        return (await tx.sign("note", b"early")).proof

    with pytest.raises(RuntimeError, match="not been committed"):
        await store.write(read_too_early)

    assert await store.read(log_size) == 0


async def test_a_batch_without_statements_signs_no_checkpoint(store: Store, signer: Signer) -> None:
    await store.write(work("silent", signs=0))

    assert signer.signed == {}
    with pytest.raises(NotFound):
        await store.read(latest_head)


async def test_a_caller_that_gives_up_harms_nobody(store: Store) -> None:
    first = asyncio.create_task(store.write(work("given up")))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    await store.write(work("next"))
    assert "next" in await stored_names(store)


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)readonly"):
        await store.read(work("written by a reader"))

    assert await stored_names(store) == []


async def test_what_was_queued_when_the_store_closes_is_kept(url: str, signer: Signer, clock: Clock) -> None:
    store = await open_at(url, signer, clock)
    await asyncio.gather(*(store.write(work(name)) for name in "abc"), store.close())

    again = await open_at(url, signer, clock)
    try:
        assert await stored_names(again) == ["a", "b", "c"]
    finally:
        await again.close()


async def test_a_closed_store_says_so_instead_of_letting_a_caller_wait(url: str, signer: Signer, clock: Clock) -> None:
    store = await open_at(url, signer, clock)
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(work("late"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(log_size)
