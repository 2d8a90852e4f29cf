"""A node ends between any two steps of an order: what was ordered is destroyed, told and confirmed all the same."""

import contextlib
import functools
from typing import Any, Final

from exchange.cli.client import CommandFailed
from exchange.crash_points import Point
from tests.faults.scenario import Scenario, Scenarios
from tests.faults.world import Broken, World, rows_of
from tests.processes.harness import Borough, until

scenarios: Final = Scenarios("order")

_SENDER: Final[tuple[Point, ...]] = (
    # The order is signed and stored, sent, and answered.
    "batch.begun",
    "batch.signed",
    "batch.committed",
    "order.before-answer",
    "peer.before-call",
    "peer.answered",
    "envelope.before-answer",
)
_RECEIVER: Final[tuple[Point, ...]] = (
    # It is taken and carried out, answered, and passed on to agencies, whose confirmation goes back.
    "batch.begun",
    "batch.signed",
    "batch.committed",
    "envelope.before-answer",
    "destroy.before-scrub",
    "destroy.scrubbed",
    "webhook.before-call",
    "webhook.accepted",
    "webhook.recorded",
    "peer.before-call",
    "peer.answered",
)


def _between_steps(kind: str, slug: str, points: tuple[Point, ...], world: World) -> None:
    victim = world.enfield if slug == "enfield" else world.hackney
    world.start(*(borough for borough in world.boroughs if borough is not victim))
    flag = world.root / "ordered"
    for point in points:
        flag.unlink(missing_ok=True)
        world.arm(victim, "--die-at", point, "--once", flag)
        world.start(victim)
        message = world.sender.send(world.form())
        if not world.hackney.status(message, "delivered", 30)["reached"]:
            raise Broken(f"message {message} was not delivered")
        world.settle()
        flag.touch()
        _order(world, message, kind)
        if not world.died(victim):
            raise Broken(f"the node never came to {point}")
        world.counts["kills"] += 1
        world.disarm(victim)
        world.start(victim)
        _order(world, message, kind)
        until(f"{kind} of {message} is confirmed after {point}", functools.partial(_is_over, world, message, kind))
        _nothing_left(world, message, kind)
        victim.kill()
    world.start(victim)
    world.settle()


def _order(world: World, message: str, kind: str) -> None:
    """Order it; where the node ends meanwhile, nobody knows, and it is ordered again later."""
    with contextlib.suppress(CommandFailed):
        world.hackney.api("POST", f"/v1/messages/{message}/{kind}", {"reason": "wrong-person"})


def _is_over(world: World, message: str, kind: str) -> bool:
    rung = {"recall": "recalled", "erase": "erased"}[kind]
    for borough in world.boroughs:
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(CommandFailed):
            rows = borough.api("GET", f"/v1/messages/{message}")["sections"]
        if not rows or any(row["rung"] != rung or not row["order"]["confirmed_at"] for row in rows):
            return False
    return True


def _nothing_left(world: World, message: str, kind: str) -> None:
    """The receiver has nothing that opens it, and after an erasure neither has the sender; each agency was told."""
    for borough in world.boroughs if kind == "erase" else (world.enfield,):
        if [item["unconfirmed"] for item in _orders(borough) if item["id"] == message] != [0]:
            raise Broken(f"{borough.origin} knows of no order about {message}, or of one that is not confirmed")
        for table in ("contents", "message_keys"):
            number = f"(SELECT number FROM messages WHERE message_id = '{message}')"
            until(
                f"{borough.origin} has no {table} of {message}",
                lambda borough=borough, table=table, number=number: not _count(borough, table, number),
            )
    given, told = (
        _heard(world, message, "delivered"),
        _heard(world, message, {"recall": "recalled"}.get(kind, "erased")),
    )
    if told != given:
        raise Broken(f"agencies were not told of {sorted(given - told)}")


def _heard(world: World, message: str, what: str) -> set[tuple[str, str]]:
    """Of which sections each agency has taken such an event."""
    return {
        (request.event["data"]["section"], request.kind)
        for request in world.receiver.accepted()
        if request.event["data"].get("message_id") == message and request.event["type"] == f"exchange.section.{what}.v1"
    }


def _orders(borough: Borough) -> list[dict[str, Any]]:
    return list(borough.api("GET", "/v1/orders")["items"])


def _count(borough: Borough, table: str, number: str) -> int:
    return int(next(iter(rows_of(borough)(f"SELECT count(*) FROM {table} WHERE message = {number}")))[0])


for _kind in ("recall", "erase"):
    for _slug, _points in (("hackney", _SENDER), ("enfield", _RECEIVER)):
        scenarios.all.append(
            Scenario(
                f"order/{_kind}-{_slug}",
                f"SIGKILL to {_slug} between any two steps of an order to {_kind}",
                "restarted, all is destroyed, told and confirmed",
                functools.partial(_between_steps, _kind, _slug, _points),
            )
        )
