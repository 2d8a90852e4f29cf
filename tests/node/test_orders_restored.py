"""A backup brings no recalled or erased section back: what peers return says what was ordered, and it is done again."""

import dataclasses
import io
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from exchange.node.app import open_services
from tests.node.pair import HACKNEY, Clock, Node, reserved_port, running, until
from tests.node.test_orders import order
from tests.node.test_rejoining import Restorable, acquaint, idle, send_to

pytestmark = [pytest.mark.sqlite, pytest.mark.slow]
ENFIELD = "E09000010"


@pytest.fixture
def hackney(tmp_path: Path, clock: Clock, lines: io.StringIO) -> Any:
    clock.run()
    with reserved_port() as port, reserved_port() as local_port:
        yield Restorable(tmp_path, clock, (port, local_port))


async def received(node: Node, message: str) -> None:
    async def there() -> bool:
        return all(row["rung"] is not None for row in (await node.status(message))["sections"])

    await until(f"{message} is received", there)


async def over(node: Node, message: str, rung: str) -> None:
    async def all_over() -> bool:
        rows = (await node.status(message))["sections"]
        return all(row["rung"] == rung and row["order"] and row["order"]["confirmed_at"] for row in rows)

    await until(f"{message} is {rung} and confirmed at {node.origin}", all_over)


def left(node: Node) -> list[int]:
    return [node.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("message_keys", "contents")]


async def left_in(restorable: Restorable) -> list[int]:
    """What opens messages, and their sections, in the store of a node that does not run."""
    from sqlalchemy import func, select

    from exchange.store.tables import contents, message_keys
    from exchange.store.transaction import Sql

    async with AsyncExitStack() as stack:
        services = await open_services(stack, restorable.configuration, restorable.keyring)
        services = dataclasses.replace(services, now_ms=restorable.clock)
        found = []
        for table in (message_keys, contents):
            query = Sql(select(func.count()).select_from(table))
            row = await services.store.read(lambda tx, query=query: tx.fetch_one(query, {}))  # type: ignore[misc]
            found.append(int(row[0]) if row else 0)
        return found


async def test_a_restored_receiver_destroys_again_what_its_backup_brought_back(
    hackney: Restorable, tmp_path: Path, clock: Clock
) -> None:
    async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield:
        async with hackney.run() as node:
            await acquaint(node, enfield)
            message = await send_to(enfield, HACKNEY)
            await received(enfield, message)
            await idle(node)
        hackney.back_up()
        assert await left_in(hackney) == [1, 1]
        async with hackney.run() as node:
            await order(enfield, message, "erase")
            await over(enfield, message, "erased")
            await idle(enfield)
        hackney.set_back()
        assert await hackney.rejoin() is not None
        assert await left_in(hackney) == [0, 0], "the backup's copy is destroyed before the node runs"
        async with hackney.run() as node:
            assert {row["rung"] for row in (await node.status(message))["sections"]} == {"erased"}


async def test_a_restored_receiver_that_lost_its_answer_is_given_the_order_again(
    hackney: Restorable, tmp_path: Path, clock: Clock
) -> None:
    async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield:
        async with hackney.run() as node:
            await acquaint(node, enfield)
            message = await send_to(enfield, HACKNEY)
            await received(enfield, message)
            await idle(node)
        hackney.back_up()
        async with hackney.run() as node:
            await order(enfield, message, "recall")
            await over(enfield, message, "recalled")
            await idle(enfield)
        # As though the answers had not come: the sender knows of none.
        await enfield.services.store.write(_forget_answers)
        hackney.set_back()
        assert await hackney.rejoin() is not None
        async with hackney.run() as node:
            await over(enfield, message, "recalled")
            assert left(node) == [0, 0]


async def _forget_answers(tx: Any) -> None:
    from sqlalchemy import delete, update

    from exchange.store.tables import order_places, receipts
    from exchange.store.transaction import Sql

    await tx.execute(Sql(update(order_places).values(destroyed_at_ms=None, confirmed_at_ms=None)), {})
    await tx.execute(Sql(delete(receipts).where(receipts.c.rung == "recalled")), {})


async def test_a_restored_sender_knows_what_it_ordered_and_erased(
    hackney: Restorable, tmp_path: Path, clock: Clock
) -> None:
    async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield:
        async with hackney.run() as node:
            await acquaint(node, enfield)
            message = await send_to(node, ENFIELD)
            await received(node, message)
            await idle(node)
            await idle(enfield)
        hackney.back_up()
        assert await left_in(hackney) == [1, 1]
        async with hackney.run() as node:
            await order(node, message, "erase")
            await over(node, message, "erased")
            await idle(node)
            await idle(enfield)
        hackney.set_back()
        assert await hackney.rejoin() is not None
        assert await left_in(hackney) == [0, 0]
        async with hackney.run() as node:
            await over(node, message, "erased")
            (listed,) = (await node.local("GET", "/v1/orders"))[1]["items"]
            assert (listed["kind"], listed["reason"], listed["unconfirmed"]) == ("erase", "wrong-person", 0)
