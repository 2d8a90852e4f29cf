"""The process ends: at each named point, and at random moments."""

import contextlib
import functools
import itertools
from collections.abc import Sequence
from typing import Final

from pysqlite3 import dbapi2 as sqlite

from exchange.cli.client import CommandFailed, Node
from exchange.crash_points import Point
from tests.faults.armed import POINTS
from tests.faults.attaching import check_attached, send_attached
from tests.faults.other_ways import reach_otherwise
from tests.faults.scenario import Scenario, Scenarios
from tests.faults.world import Broken, Load, World, kill_at_random
from tests.processes.harness import Borough, until

scenarios: Final = Scenarios("crash")
_DAY_S: Final = 86_400
#: What was said when the node ended; it is said again once that runs.
_OPEN: Final[list[str]] = []

#: At which node a group of points is tried, and at which of the times that it comes there: with something in hand.
_WHERE: Final = {
    "send": ("hackney", 2),
    "peer": ("hackney", 2),
    "envelope": ("enfield", 2),
    "webhook": ("enfield", 7),
    "pull": ("enfield", 1),
    "drop": ("enfield", 3),
    "staging": ("hackney", 1),
    "attachment": ("enfield", 1),
    "batch": ("enfield", 6),
    "word": ("enfield", 1),
    "order": ("hackney", 1),
    "destroy": ("enfield", 1),
    "rotation": ("hackney", 1),
    "keystore": ("enfield", 1),
}


def _at_points(group: str, points: Sequence[Point], world: World) -> None:
    """One crash after the other at the points of a group, in one pair of nodes."""
    slug, nth = _WHERE.get(group, ("enfield", 1))
    victim = world.enfield if slug == "enfield" else world.hackney
    at_start = group in ("epoch", "card", "file")
    if group == "epoch":
        # Keys of seconds, so that each start finds one whose time is over.
        victim.configure("keys", sealing_lifetime_days=60 / _DAY_S, sealing_grace_days=30 / _DAY_S)
    world.start(*(borough for borough in world.boroughs if borough is not victim))
    if group in ("pull", "drop"):
        reach_otherwise(world, victim, group)
    for point in points:
        if group == "epoch":
            _age_sealing_keys(victim)
        elif group == "card":
            _rename(victim, point)
        world.arm(victim, "--die-at", point, "--nth", nth)
        victim.start(wait=False)
        if not at_start:
            until(f"{victim.origin} answers", victim.answers)
            _trigger(world, victim, group)
        if not world.died(victim):
            raise Broken(f"the node never came to {point}")
        world.counts["kills"] += 1
        world.disarm(victim)
        # What the crash left must do for a start and a message.
        world.start(victim)
        world.sender.again()
        while _OPEN:
            _own_again(world, _OPEN.pop())
        if group == "epoch":
            # What is sealed to a key that was destroyed cannot be opened: the sender needs the new card.
            until("the peer has the new card", victim.is_idle)
        last = world.sender.send(world.form())
        world.observe()
        if point is not points[-1]:
            victim.kill()
    if group == "epoch":
        until("keys are destroyed for good", lambda: "sealing keys destroyed" in victim.log.read_text())
    if group in ("staging", "attachment"):
        check_attached(world)
    world.settle()
    if not world.hackney.status(last, "delivered", 5)["reached"]:
        raise Broken(f"message {last} was sent after all crashes, and not delivered")
    world.export(last)
    world.check()


def _own_again(world: World, message_id: str) -> None:
    """The same word once more: it was taken before, and is answered as it would have been."""
    before = len(world.enfield.api("GET", f"/v1/messages/{message_id}/receipts")["receipts"])
    known = len(world.said)
    world.own(message_id)
    if len(world.said) != known + 1:
        raise Broken("the word was not taken a second time")
    if len(world.enfield.api("GET", f"/v1/messages/{message_id}/receipts")["receipts"]) != before:
        raise Broken("what was stored when the node ended was signed twice")
    if not any(row["rung"] == "owned" for row in world.enfield.api("GET", f"/v1/messages/{message_id}")["sections"]):
        raise Broken("what was said when the node ended is lost")


def _trigger(world: World, victim: Borough, group: str) -> None:
    if group in ("order", "destroy"):
        ordered = world.sender.send(world.form())
        if not world.hackney.status(ordered, "delivered", 30)["reached"]:
            raise Broken(f"message {ordered} was not delivered")
        with contextlib.suppress(CommandFailed):
            world.hackney.api("POST", f"/v1/messages/{ordered}/recall", {"reason": "other"})
        return
    if group == "word":
        sent = world.sender.send(world.form())
        if not world.hackney.status(sent, "delivered", 30)["reached"]:
            raise Broken(f"message {sent} was not delivered")
        world.own(sent)
        world.counts["words"] += 1
        _OPEN.append(sent)
        return
    if group in ("rotation", "keystore"):
        with contextlib.suppress(CommandFailed):
            Node(victim.config).request("POST", "/v1/keys/rotate", wait_s=30)
        return
    if group in ("staging", "attachment"):
        send_attached(world)
        return
    for _ in range(3):
        world.sender.send(world.form())


def _age_sealing_keys(borough: Borough) -> None:
    """Have the times of all sealing keys be over."""
    with contextlib.closing(sqlite.connect(str(borough.directory / "exchange.db"))) as database:
        database.execute("UPDATE sealing_keys SET not_before_ms = 1, not_after_ms = 2, opens_until_ms = 3")
        database.commit()


def _rename(borough: Borough, name: str) -> None:
    """Have the node find at its start that its card does not say what is so."""
    lines = borough.config.read_text().splitlines()
    borough.config.write_text("\n".join(f'name = "{name}"' if line.startswith("name =") else line for line in lines))


for _group, _points in itertools.groupby(POINTS, lambda point: point.partition(".")[0]):
    _names = tuple(_points)
    scenarios.all.append(
        Scenario(
            f"crash/{_group}",
            "SIGKILL " + ", ".join(name.partition(".")[2] for name in _names),
            "restarted, all arrives once",
            functools.partial(_at_points, _group, _names),
            # This one looks into the database to make keys old.
            store="sqlite" if _group == "epoch" else None,
        )
    )


@scenarios.add("random", "SIGKILL to either node at random moments, under load", "restarted, all arrives once")
def _random(world: World) -> None:
    world.start()
    with Load(world):
        for _ in range(4):
            kill_at_random(world, world.chance.sample(world.boroughs, world.chance.randint(1, 2)))
    world.settle()
    for message_id in world.sender.told[:3]:
        world.export(message_id)
    world.check()
