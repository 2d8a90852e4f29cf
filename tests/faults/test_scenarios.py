"""The harness finds what it is there to find: in real runs whose promises are broken on purpose."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from exchange import crash_points
from tests.faults.armed import POINTS
from tests.faults.disk import read_recording
from tests.faults.scenarios import ALL
from tests.faults.scenarios.power import record_from, try_images
from tests.faults.world import Broken, Load, Ports, World, make_pair

pytestmark = [pytest.mark.slow, pytest.mark.sqlite, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Ports:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def world(ports: Ports, tmp_path: Path) -> Iterator[World]:
    made = World(ports, tmp_path / "world", random.Random(7))
    yield made
    made.end()


def handed_over(world: World) -> None:
    world.start()
    world.sender.send(world.form())
    world.settle()
    for borough in world.boroughs:
        borough.stop()


@pytest.mark.parametrize(
    ("slug", "change", "words"),
    [
        ("enfield", "DELETE FROM messages", "and does not have it"),
        ("enfield", "DELETE FROM statements WHERE position = (SELECT max(position) FROM statements)", "whose log has"),
        ("enfield", "UPDATE log_nodes SET hash = zeroblob(32) WHERE level = 1 AND position = 0", "the tree that"),
        ("enfield", "UPDATE placements SET given_to = agency", "took section housing of message .*, which housing has"),
        ("hackney", "DELETE FROM receipts WHERE rung = 'delivered'", "never reached the sender"),
        ("hackney", "DELETE FROM messages", "said that it took message"),
    ],
)
def test_the_checker_reads_real_stores_and_finds_what_is_taken_out_of_them(
    world: World, slug: str, change: str, words: str
) -> None:
    handed_over(world)
    database = sqlite.connect(str(getattr(world, slug).directory / "exchange.db"))
    database.execute("PRAGMA foreign_keys = ON")
    database.execute(change)
    database.commit()
    database.close()
    with pytest.raises(Broken, match=words):
        world.check(settled=False)


def test_a_disk_that_lies_about_syncs_is_found(world: World) -> None:
    shim, disk = record_from(world, world.enfield)
    world.start()
    shim.fail(lie=True)
    with Load(world):
        time.sleep(2)
        world.enfield.kill()
    with pytest.raises(Broken, match=r"are gone|is damaged"):
        try_images(world, disk, read_recording(shim.recording))


def test_an_armed_node_dies_where_it_is_told_to_and_an_unarmed_one_does_nothing(world: World) -> None:
    world.arm(world.hackney, "--die-at", "send.before-answer")
    world.start()
    world.sender.send(world.form())
    assert world.died(world.hackney)
    assert world.hackney.process is not None
    assert world.hackney.process.returncode == -9
    assert all(crash_points.reached(point) is None for point in POINTS)  # type: ignore[func-returns-value]


def test_every_crash_point_has_a_scenario_and_every_scenario_a_name_of_its_own() -> None:
    names = [scenario.name for scenario in ALL]
    assert len(set(names)) == len(names)
    assert {f"crash/{point.partition('.')[0]}" for point in POINTS} <= set(names)
