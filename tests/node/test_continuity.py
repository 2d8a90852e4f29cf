"""Continuity without a network: every growth of one log is followed, and no other history is, in whatever order."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.merkle import Frontier, consistency_path
from exchange.crypto.names import LeafHash, Origin
from exchange.node.continuity import Continuity, FetchProof
from exchange.node.errors import ForkDetected, NotNow, ProofAwaited
from exchange.node.services import Services
from exchange.schema.wire import Consistency
from exchange.store.peers import PeerRow, add_peer, peer_head
from exchange.store.transaction import Transaction
from tests.node.pair import Clock, opened

CAMDEN = Origin("exchange.camden.example")
NOTHING = Consistency(first=0, path=())


class Log:
    """A log of which only the tree matters: nobody signs it."""

    def __init__(self, name: str, common: "Log | None" = None, until: int = 0) -> None:
        self._leaves = [] if common is None else common._leaves[:until]
        self._leaves += [LeafHash(f"{name} {number}".encode().ljust(32)) for number in range(len(self._leaves), 64)]

    def checkpoint(self, size: int) -> Checkpoint:
        frontier, _ = Frontier(0, ()).append(self._leaves[:size])
        return Checkpoint(CAMDEN, size, frontier.root(), f"checkpoint {size} {frontier.root().hex()}", 0)

    def path(self, first: int, second: int) -> list[bytes]:
        _, nodes = Frontier(0, ()).append(self._leaves[:second])
        return consistency_path(first, second, dict(nodes)) if 0 < first < second else []

    def consistency(self, first: int, second: int) -> Consistency:
        return Consistency(first=first, path=tuple(self.path(first, second)))

    @property
    def fetch(self) -> FetchProof:
        async def fetch(first: int, second: int) -> Sequence[bytes]:
            return self.path(first, second)

        return fetch


async def refuse(first: int, second: int) -> Sequence[bytes]:
    raise AssertionError("nothing had to be asked for")


TRUE = Log("true")


async def follow(services: Services, continuity: Continuity, *arguments: object) -> None:
    """Follow a checkpoint, and store what comes of it."""
    for operation in await continuity.follow(*arguments):  # type: ignore[arg-type]
        await services.store.write(operation)


async def known(services: Services) -> Continuity:
    row = PeerRow(CAMDEN, "verified", "f", 1, b"card", "proof", None, 0)
    await services.store.write(lambda tx: add_peer(tx, row))
    return Continuity(services.store, services.now_ms)


async def test_a_checkpoint_is_stored_with_all_that_came_with_it_or_not_at_all(services: Services) -> None:
    continuity = await known(services)
    heads = await continuity.follow(TRUE.checkpoint(7), NOTHING, refuse)

    async def fail(_: Transaction) -> None:
        raise NotNow("what came with it cannot be kept")

    with pytest.raises(NotNow):
        await continuity.keep([*heads, fail])
    assert await services.store.read(lambda tx: peer_head(tx, CAMDEN)) is None


async def test_the_first_checkpoint_of_a_peer_is_where_it_begins(services: Services) -> None:
    continuity = await known(services)
    assert await continuity.held_size(CAMDEN) == 0
    await follow(services, continuity, TRUE.checkpoint(7), NOTHING, refuse)
    assert await continuity.held_size(CAMDEN) == 7


@pytest.mark.parametrize(("first", "second"), [(1, 2), (1, 64), (7, 8), (8, 16), (13, 40), (63, 64)])
async def test_growth_that_the_envelope_itself_proves_needs_no_question(
    services: Services, first: int, second: int
) -> None:
    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(first), NOTHING, refuse)
    await follow(services, continuity, TRUE.checkpoint(second), TRUE.consistency(first, second), refuse)
    assert await continuity.held_size(CAMDEN) == second


async def test_what_was_seen_already_needs_neither_proof_nor_question(services: Services) -> None:
    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(3), NOTHING, refuse)
    await follow(services, continuity, TRUE.checkpoint(5), TRUE.consistency(3, 5), refuse)
    for size in (3, 5):
        operations = await continuity.follow(TRUE.checkpoint(size), NOTHING, refuse)
        assert operations == [] or services.store.shared  # where others write too, the store is asked each time


async def test_what_was_verified_is_known_after_a_restart(services: Services) -> None:
    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(9), NOTHING, refuse)
    again = Continuity(services.store, services.now_ms)
    assert await again.held_size(CAMDEN) == 9
    with pytest.raises(ForkDetected):
        await again.follow(Log("false").checkpoint(9), NOTHING, refuse)


async def test_only_the_latest_head_is_kept(services: Services) -> None:
    continuity = await known(services)
    for size in (4, 9, 6, 20):
        await follow(services, continuity, TRUE.checkpoint(size), NOTHING, TRUE.fetch)
    head = await services.store.read(lambda tx: peer_head(tx, CAMDEN))
    assert head is not None
    assert (head.size, head.root) == (20, TRUE.checkpoint(20).root)


async def test_a_peer_that_cannot_be_asked_changes_nothing(services: Services) -> None:
    async def unreachable(first: int, second: int) -> Sequence[bytes]:
        raise NotNow("it cannot be reached")

    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(4), NOTHING, refuse)
    with pytest.raises(NotNow):
        await continuity.follow(TRUE.checkpoint(9), NOTHING, unreachable)
    assert await continuity.held_size(CAMDEN) == 4
    await follow(services, continuity, TRUE.checkpoint(9), NOTHING, TRUE.fetch)


async def test_few_wait_for_a_peer_that_does_not_answer(services: Services) -> None:
    answer, asked = asyncio.Event(), asyncio.Event()

    async def late(first: int, second: int) -> Sequence[bytes]:
        asked.set()
        await answer.wait()
        return TRUE.path(first, second)

    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(4), NOTHING, refuse)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(continuity.follow(TRUE.checkpoint(9 + n), NOTHING, late)) for n in range(8)]
        await asked.wait()
        with pytest.raises(NotNow, match="too many"):
            await continuity.follow(TRUE.checkpoint(20), NOTHING, late)
        answer.set()
    assert all(len(task.result()) == 1 for task in waiting)
    assert len(await continuity.follow(TRUE.checkpoint(20), NOTHING, late)) == 1


async def test_a_fork_changes_nothing_of_what_is_held(services: Services) -> None:
    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(4), NOTHING, refuse)
    false = Log("false", TRUE, 3)
    with pytest.raises(ForkDetected):
        await continuity.follow(false.checkpoint(9), false.consistency(4, 9), false.fetch)
    assert await continuity.held_size(CAMDEN) == 4
    await follow(services, continuity, TRUE.checkpoint(9), TRUE.consistency(4, 9), refuse)


async def test_a_peer_that_was_forgotten_begins_anew(services: Services) -> None:
    continuity = await known(services)
    await continuity.follow(TRUE.checkpoint(4), NOTHING, refuse)
    continuity.forget(CAMDEN)
    assert await continuity.held_size(CAMDEN) == 0
    await continuity.follow(Log("another").checkpoint(2), NOTHING, refuse)


async def test_what_is_remembered_does_not_grow_without_bound(services: Services) -> None:
    continuity = await known(services)
    log = Log("long")
    log._leaves += [LeafHash(b"%032d" % number) for number in range(400)]
    for size in range(1, 400):
        await follow(services, continuity, log.checkpoint(size), log.consistency(size - 1, size), log.fetch)
    assert len(continuity._known[CAMDEN]) <= 256
    assert await continuity.held_size(CAMDEN) == 399


_numbers = itertools.count()
sizes = st.integers(1, 64)


@given(st.lists(st.tuples(sizes, st.integers(0, 64)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_one_log_is_followed_in_any_order_whatever_the_sender_believes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    async def scenario() -> None:
        async with opened(tmp_path_factory.getbasetemp() / f"grow-{next(_numbers)}", Clock()) as services:
            continuity = await known(services)
            for size, believed in steps:
                claim = TRUE.consistency(min(believed, size), size)
                await follow(services, continuity, TRUE.checkpoint(size), claim, TRUE.fetch)
            assert await continuity.held_size(CAMDEN) == max(size for size, _ in steps)

    asyncio.run(scenario())


@given(st.integers(0, 62), sizes, st.lists(sizes, min_size=1, max_size=4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_another_history_is_never_followed_past_where_it_parts(
    tmp_path_factory: pytest.TempPathFactory, parted: int, false_size: int, seen: list[int], either: bool
) -> None:
    false = Log("false", TRUE, parted)

    async def scenario() -> None:
        async with opened(tmp_path_factory.getbasetemp() / f"fork-{next(_numbers)}", Clock()) as services:
            continuity = await known(services)
            for size in seen:
                await follow(services, continuity, TRUE.checkpoint(size), NOTHING, TRUE.fetch)
            held = await continuity.held_size(CAMDEN)
            # The liar gives whichever proof suits it best.
            fetch = (false if either else TRUE).fetch
            claim = false.consistency(min(held, false_size), false_size)
            same_so_far = false.checkpoint(false_size).root == TRUE.checkpoint(false_size).root or held <= parted
            with contextlib.suppress(ForkDetected):
                await continuity.follow(false.checkpoint(false_size), claim, fetch)
                assert same_so_far

    asyncio.run(scenario())


async def test_a_peer_that_cannot_be_asked_is_told_what_is_held_and_can_bring_the_proof(services: Services) -> None:
    async def unreachable(first: int, second: int) -> Sequence[bytes]:
        raise NotNow("connection refused")

    continuity = await known(services)
    await follow(services, continuity, TRUE.checkpoint(4), NOTHING, unreachable)
    with pytest.raises(ProofAwaited) as awaited:
        await continuity.follow(TRUE.checkpoint(9), TRUE.consistency(2, 9), unreachable)
    assert awaited.value.holds == 4
    await follow(services, continuity, TRUE.checkpoint(9), TRUE.consistency(4, 9), unreachable)
    assert await continuity.held_size(CAMDEN) == 9
