"""The delivery workers over a real store: order, leases, failures, and that nothing is lost or done twice at once."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from exchange.node.delivery import Dispatcher, Outcome, finish
from exchange.node.errors import NotNow
from exchange.node.lanes import WAVE
from exchange.node.services import Services
from exchange.store.errors import StoreUnavailable
from exchange.store.outbox import (
    CARD,
    URGENT_RANK,
    Delivery,
    backlog,
    claim,
    enqueue,
    held,
    lane_state,
    new_delivery,
    next_due_ms,
    release,
)
from exchange.store.replicas import arrive
from tests.node.handmade import CONTENT
from tests.node.pair import Clock, until

FAR_MS = 10**12
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


class Post:
    """A destination of the kind `box`: keeps what it was handed, and does with it as it is told."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.attempts: list[tuple[str, list[int]]] = []
        self.delivered: list[int] = []
        self.act: Callable[[str, list[Delivery]], Awaitable[Outcome | None]] | None = None

    async def perform(self, name: str, rows: list[Delivery]) -> Outcome:
        self.attempts.append((name, [row.number for row in rows]))
        outcome = await self.act(name, rows) if self.act is not None else None
        if outcome is None:
            await finish(self.services, rows)
            self.delivered += [row.number for row in rows]
            return Outcome()
        return outcome


@asynccontextmanager
async def working(services: Services, post: Post, poll_s: float = 20.0) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher, then let it finish."""
    dispatcher, stop = Dispatcher(services, {"box": post.perform}, poll_s), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run(stop))
        try:
            yield dispatcher
        finally:
            stop.set()


async def put(services: Services, lane: str, count: int = 1, *, urgent: bool = False, deadline_ms: int = 0) -> None:
    now_ms = services.now_ms()
    rows = [
        new_delivery(lane, CARD, now_ms=now_ms, deadline_ms=deadline_ms or now_ms + FAR_MS, urgent=urgent, position=0)
        for _ in range(count)
    ]
    await services.store.write(lambda tx: enqueue(tx, rows))


async def waits(services: Services) -> int:
    """How many deliveries there are that nobody holds."""
    return sum(count for _, _, count in await services.store.read(backlog))


async def all_done(services: Services) -> None:
    async def empty() -> bool:
        return await waits(services) == 0

    await until("everything is delivered", empty)


async def test_what_was_queued_before_the_start_is_delivered_in_order_and_urgent_first(services: Services) -> None:
    post = Post(services)
    await put(services, "box:a", 3)
    await put(services, "box:a", 2, urgent=True)
    async with working(services, post):
        await all_done(services)
    assert post.delivered == [4, 5, 1, 2, 3]


@pytest.mark.sqlite
async def test_what_could_not_be_recorded_is_tried_again_when_the_store_works_again(services: Services) -> None:
    post, file = Post(services), services.configuration.store_file
    assert file is not None
    moved = file.with_name("moved")

    async def while_the_store_is_away(name: str, rows: list[Delivery]) -> None:
        if len(post.attempts) == 1:
            file.rename(moved)

    post.act = while_the_store_is_away
    await put(services, "box:a", 2)
    async with working(services, post):

        async def was_attempted() -> bool:
            return bool(post.attempts)

        await until("it was attempted", was_attempted)
        with pytest.raises(StoreUnavailable):
            await put(services, "box:b")
        moved.rename(file)
        async with asyncio.timeout(15):
            await all_done(services)
    assert len(post.attempts) == 2


@pytest.mark.sqlite
async def test_a_lane_that_could_not_claim_does_so_when_the_store_works_again(services: Services) -> None:
    post, file = Post(services), services.configuration.store_file
    assert file is not None
    moved = file.with_name("moved")
    async with working(services, post) as dispatcher:
        await put(services, "box:a")
        file.rename(moved)
        dispatcher.wake("box:a")
        for _ in range(20):
            await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await put(services, "box:b")
        moved.rename(file)
        async with asyncio.timeout(15):
            await all_done(services)
    assert post.delivered == [1]


async def test_a_slow_destination_holds_up_no_other(services: Services) -> None:
    post, gate = Post(services), asyncio.Event()

    async def slow(name: str, rows: list[Delivery]) -> None:
        if name == "slow":
            await gate.wait()

    post.act = slow
    await put(services, "box:slow")
    await put(services, "box:quick", 3)
    async with working(services, post):

        async def others_are_done() -> bool:
            return post.delivered == [2, 3, 4]

        await until("the quick one is done", others_are_done)
        gate.set()
        await all_done(services)


async def test_what_failed_is_tried_again_with_one_until_it_goes(services: Services) -> None:
    post = Post(services)
    failures = iter([NotNow("box a is down"), TimeoutError(), OSError("no route"), None])

    async def fail(name: str, rows: list[Delivery]) -> None:
        error = next(failures, None)
        if error is not None:
            raise error

    post.act = fail
    await put(services, "box:a", 3)
    async with working(services, post) as dispatcher:
        await all_done(services)
        assert dispatcher.state("box:a").failures == 0
    assert sorted(post.delivered) == [1, 2, 3]
    assert [len(rows) for _, rows in post.attempts[:4]] == [3, 1, 1, 1]


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_delivery_that_is_always_refused_does_not_stand_before_the_others(
    services: Services, *, urgent: bool
) -> None:
    post = Post(services)

    async def refuse_the_first(name: str, rows: list[Delivery]) -> Outcome | None:
        if any(row.number == 1 for row in rows):
            return Outcome(again=rows, error="box a answered 500")
        return None

    post.act = refuse_the_first
    await put(services, "box:a", urgent=urgent)
    await put(services, "box:a", 4)
    async with working(services, post):

        async def others_are_done() -> bool:
            return sorted(post.delivered) == [2, 3, 4, 5]

        await until("the others are done", others_are_done)
        post.act = None
        await all_done(services)
    assert post.delivered[-1] == 1


async def test_a_fault_of_our_own_is_one_more_failure_and_not_the_end_of_the_node(
    services: Services, lines: io.StringIO
) -> None:
    post = Post(services)

    async def break_down(name: str, rows: list[Delivery]) -> None:
        raise RuntimeError(CONTENT)

    post.act = break_down
    await put(services, "box:a", 2)
    async with working(services, post) as dispatcher:

        async def noted() -> bool:
            return dispatcher.state("box:a").failures > 1

        await until("it failed twice", noted)
        assert dispatcher.state("box:a").last_error == "internal error: RuntimeError"
        post.act = None
        dispatcher.heard_from("box:a")
        await all_done(services)
    assert CONTENT not in lines.getvalue()
    assert "RuntimeError" in lines.getvalue()


async def test_what_is_late_is_held_and_not_tried(services: Services) -> None:
    post = Post(services)
    await put(services, "box:a", deadline_ms=services.now_ms())
    await put(services, "box:a")
    async with working(services, post):

        async def is_held() -> bool:
            return len(await services.store.read(lambda tx: held(tx, 10))) == 1

        await until("the late one is held", is_held)
    (row,) = await services.store.read(lambda tx: held(tx, 10))
    assert (row.number, row.reason) == (1, "not delivered before it expired")
    assert post.delivered == [2]


async def test_what_is_held_waits_until_it_is_released(services: Services) -> None:
    post = Post(services)

    async def hold(name: str, rows: list[Delivery]) -> Outcome:
        return Outcome(held=[(row, "a reason") for row in rows])

    post.act = hold
    await put(services, "box:a")
    async with working(services, post) as dispatcher:

        async def is_held() -> bool:
            return bool(await services.store.read(lambda tx: held(tx, 10)))

        await until("it is held", is_held)
        post.act = None
        lane = await services.store.write(lambda tx: release(tx, 1, services.now_ms() + FAR_MS))
        dispatcher.wake(lane)
        await all_done(services)
    assert post.attempts == [("a", [1]), ("a", [1])]


async def test_a_lane_that_nobody_woke_is_found(services: Services) -> None:
    post = Post(services)
    async with working(services, post, poll_s=0.05):
        await put(services, "box:forgotten")
        await all_done(services)
    assert post.delivered == [1]


async def test_what_is_in_hand_is_given_to_nobody_else(services: Services) -> None:
    post, gate = Post(services), asyncio.Event()

    async def wait(name: str, rows: list[Delivery]) -> None:
        await gate.wait()

    post.act = wait
    await put(services, "box:a", 2)
    async with working(services, post, poll_s=0.02) as dispatcher:

        async def begun() -> bool:
            return bool(post.attempts)

        await until("the first attempt has begun", begun)
        for _ in range(20):
            dispatcher.wake("box:a")
            await waits(services)
        gate.set()
        await all_done(services)
    assert post.attempts == [("a", [1, 2])]


async def test_what_is_urgent_does_not_wait_for_what_is_under_way(services: Services) -> None:
    post, gate, usual = Post(services), asyncio.Event(), WAVE * 2 + 1

    async def usual_ones_wait(name: str, rows: list[Delivery]) -> None:
        if any(row.rank != URGENT_RANK for row in rows):
            await gate.wait()

    post.act = usual_ones_wait
    await put(services, "box:a", usual)
    async with working(services, post) as dispatcher:

        async def busy() -> bool:
            return len(post.attempts) == 2

        await until("two attempts are under way", busy)
        await put(services, "box:a", urgent=True)
        dispatcher.wake("box:a", urgent=True)

        async def urgent_is_done() -> bool:
            return post.delivered == [usual + 1]

        await until("the urgent one is delivered", urgent_is_done)
        assert len(post.attempts) == 3
        gate.set()
        await all_done(services)
    assert sorted(post.delivered) == list(range(1, usual + 2))


async def test_what_goes_beside_something_urgent_goes_in_small_parts(services: Services) -> None:
    post = Post(services)
    await put(services, "box:a", WAVE)
    await put(services, "box:b", WAVE)
    async with working(services, post) as dispatcher:
        dispatcher.wake("box:a", urgent=True)
        await all_done(services)

    most = {name: max(len(rows) for box, rows in post.attempts if box == name) for name in ("a", "b")}
    assert most == {"a": WAVE // 4, "b": WAVE}


async def test_what_was_put_off_while_the_clock_was_ahead_is_due_when_it_is_set_back(
    services: Services, clock: Clock
) -> None:
    post, gate = Post(services), asyncio.Event()

    async def put_off_for_a_minute(name: str, rows: list[Delivery]) -> Outcome | None:
        if gate.is_set():
            return None
        return Outcome(put_off=[(row, services.now_ms() + 60_000) for row in rows])

    post.act = put_off_for_a_minute
    clock.now_ms += DAY_MS
    await put(services, "box:a")
    dispatcher = Dispatcher(services, {"box": post.perform}, clock_every_s=0.01)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run(stop))

        async def put_off() -> bool:
            return await services.store.read(lambda tx: next_due_ms(tx, "box:a")) is not None

        await until("it is put off", put_off)
        gate.set()
        clock.now_ms -= DAY_MS
        await all_done(services)
        stop.set()
    assert post.delivered == [1]


async def test_at_the_end_what_is_in_hand_is_finished_and_recorded(services: Services) -> None:
    post, gate = Post(services), asyncio.Event()

    async def wait(name: str, rows: list[Delivery]) -> None:
        await gate.wait()

    post.act = wait
    await put(services, "box:a")
    dispatcher, stop = Dispatcher(services, {"box": post.perform}), asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))

    async def begun() -> bool:
        return bool(post.attempts)

    await until("the attempt has begun", begun)
    stop.set()
    await put(services, "box:a")
    dispatcher.wake("box:a")
    gate.set()
    await running
    assert post.delivered == [1]
    assert await waits(services) == 1


async def test_what_a_killed_node_had_in_hand_is_delivered_after_its_restart(services: Services) -> None:
    await put(services, "box:a")
    store, now_ms = services.store, services.now_ms()
    await store.write(lambda tx: claim(tx, "box:a", 10, now_ms, FAR_MS, replica="former"))
    if store.shared:  # what a node with a store of its own does at its start
        await store.write(lambda tx: arrive(tx, store.replica, "hackney", now_ms, "former"))
    post = Post(services)
    async with working(services, post):
        await all_done(services)
    assert post.delivered == [1]


async def test_how_a_lane_was_doing_is_known_after_a_restart(services: Services, clock: Clock) -> None:
    post = Post(services)

    async def fail(name: str, rows: list[Delivery]) -> Outcome:
        return Outcome(again=rows, error="box a answered 503", asked_s=3600)

    post.act = fail
    await put(services, "box:a")
    async with working(services, post) as dispatcher:

        async def noted() -> bool:
            return dispatcher.state("box:a").failures == 1

        await until("it failed", noted)
    post.act = None
    async with working(services, post) as dispatcher:

        async def known() -> bool:
            return dispatcher.state("box:a").last_error == "box a answered 503"

        await until("the state is known", known)
        assert dispatcher.state("box:a").failures == 1


async def test_who_is_heard_from_is_tried_at_once(services: Services, clock: Clock) -> None:
    post = Post(services)
    clock._running_since = None  # so that no wait ever ends by itself

    async def fail(name: str, rows: list[Delivery]) -> Outcome:
        return Outcome(again=rows, error="box a answered 503", asked_s=3600)

    post.act = fail
    await put(services, "box:a")
    async with working(services, post) as dispatcher:

        async def noted() -> bool:
            return dispatcher.state("box:a").failures == 1

        await until("it failed", noted)
        post.act = None
        dispatcher.heard_from("box:a")
        await all_done(services)
    assert post.delivered == [1]


async def test_a_store_that_is_gone_ends_no_worker_by_itself(services: Services, lines: io.StringIO) -> None:
    post = Post(services)
    await put(services, "box:a")
    async with working(services, post, poll_s=0.02) as dispatcher:
        await all_done(services)
        await services.store.close()
        dispatcher.wake("box:b")

        async def told() -> bool:
            return "store unavailable" in lines.getvalue()

        await until("it is told", told)


async def test_what_is_urgent_passes_a_lane_at_a_limit_after_a_new_start_too(services: Services, clock: Clock) -> None:
    clock.stop()
    post, lane = Post(services), "box:one"

    async def takes_only_urgent(name: str, rows: list[Delivery]) -> Outcome | None:
        if all(row.rank == URGENT_RANK for row in rows):
            return None
        return Outcome(again=rows, error="answered 429: peer-limit", asked_s=3600, limited=True)

    async def is_at_a_limit() -> bool:
        return (await services.store.read(lambda tx: lane_state(tx, lane))).urgent_only

    async def urgent_is_delivered() -> bool:
        return post.delivered == [3]

    post.act = takes_only_urgent
    await put(services, lane, 2)
    async with working(services, post):
        await until("the lane is at a limit", is_at_a_limit)
    await put(services, lane, urgent=True)
    async with working(services, post):
        await until("what is urgent is delivered", urgent_is_delivered)
        assert await is_at_a_limit(), "that something urgent got through says nothing of the rest"
    assert len(post.attempts) == 2
    assert await waits(services) == 2
