"""The power goes: nodes are started on what may then be on the disk."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Final

from pysqlite3 import dbapi2 as sqlite

from exchange.cli.client import CommandFailed, Node
from exchange.crypto.keystore import unlock_keystore
from exchange.crypto.secret import Secret
from tests.faults.checker.collect import read_node, rows_of_file
from tests.faults.checker.history import History
from tests.faults.checker.rules import check
from tests.faults.disk import MODES, Disk, Record, read_recording, write_image
from tests.faults.scenario import Scenarios
from tests.faults.shim import Shim
from tests.faults.world import Broken, Load, World
from tests.processes.harness import Borough, until

scenarios: Final = Scenarios("power", "sqlite")
_IMAGES: Final = 16


def record_from(world: World, borough: Borough) -> tuple[Shim, Disk]:
    """Have a node start so that all that it writes is recorded, with a mark after each commit."""
    marks = borough.directory / "marks"
    marks.touch()
    shim = Shim.before(borough, world.root, record=True)
    world.arm(borough, "--marks", marks)
    return shim, Disk.of(borough.directory)


def is_mark(record: Record) -> bool:
    return record.operation == "W" and record.data == b"committed\n"


def try_images(world: World, disk: Disk, records: list[Record]) -> None:
    """Look at what may be on the disk at moments that chance gives: all that was committed by then must be there."""
    chance, place = world.chance, world.root / "image"
    moments = set(chance.sample(range(len(records)), min(_IMAGES, len(records))))
    promised: dict[int, bytes] = {}
    mark: dict[str, bytes] | None = None
    for number, record in enumerate(records):
        disk.apply(record, chance)
        if is_mark(record):
            # Nothing else writes to the database at this moment: what is in it now is what was committed.
            mark = disk.image("kept", chance)
        if number in moments:
            if mark is not None:
                promised, mark = _leaves(mark, place), None
            for mode in MODES:
                _look(disk.image(mode, chance), place, promised, f"{mode}, after {number} of {len(records)} steps")
                world.counts["power cuts"] += 1


def _leaves(image: dict[str, bytes], place: Path) -> dict[int, bytes]:
    write_image(image, place)
    return {position: bytes(leaf) for position, leaf in _rows(place, "SELECT position, leaf_hash FROM statements")}


def _rows(place: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite.connect(str(place / "exchange.db"))) as database:
        return list(database.execute(query).fetchall())


def _look(image: dict[str, bytes], place: Path, promised: dict[int, bytes], what: str) -> None:
    write_image(image, place)
    found = _rows(place, "PRAGMA integrity_check")
    if found != [("ok",)]:
        raise Broken(f"{what}: the database is damaged: {found[:3]}")
    leaves = {position: bytes(leaf) for position, leaf in _rows(place, "SELECT position, leaf_hash FROM statements")}
    lost = [position for position, leaf in promised.items() if leaves.get(position) != leaf]
    if lost:
        raise Broken(f"{what}: statements {lost[:5]} were committed, and are gone")
    entries = unlock_keystore(image["keystore.json"], Secret(image["passphrase"].strip()))
    if not {"signing/ed25519", "signing/ml-dsa-44", "store", "sealing-chain"} <= set(entries):
        raise Broken(f"{what}: the keystore lacks a key")
    for name in ("card.json", "revoked.json"):
        if name in image:
            json.loads(image[name])


def _power_cut(world: World, borough: Borough) -> None:
    """The last thing that the node hears of is a power cut; it starts on what may then be on the disk."""
    shim, disk = record_from(world, borough)
    world.start()
    with Load(world, pause_s=0.2):
        time.sleep(world.chance.uniform(0.5, 2))
        borough.kill()
    records = read_recording(shim.recording)
    try_images(world, disk, records)
    mode = world.chance.choice(MODES)
    write_image(disk.image(mode, world.chance), borough.directory)
    Shim.away(borough)
    world.disarm(borough)
    world.start(borough)
    world.sender.send(world.form())
    world.settle()
    world.check()


@scenarios.add(
    "receiver", "power cut under load: unsynced writes dropped, torn, reordered", "no commit lost, all goes on"
)
def _receiver(world: World) -> None:
    _power_cut(world, world.enfield)


@scenarios.add("sender", "the same at the sender", "no commit lost, all goes on")
def _sender(world: World) -> None:
    _power_cut(world, world.hackney)


@scenarios.add("keys", "power cut while signing and sealing keys change", "each image starts, its keys fit its log")
def _keys(world: World) -> None:
    borough = world.hackney
    shim, disk = record_from(world, borough)
    world.start(borough)
    for _ in range(2):
        with contextlib.suppress(CommandFailed):
            Node(borough.config).request("POST", "/v1/keys/rotate", wait_s=30)
    borough.kill()
    Shim.away(borough)
    world.disarm(borough)
    records = read_recording(shim.recording)
    rewrites = [number for number, record in enumerate(records) if record.operation in "RUCD"]
    moments = sorted(world.chance.sample(rewrites, 5))
    for number, record in enumerate(records):
        disk.apply(record, world.chance)
        if number not in moments:
            continue
        write_image(disk.image(world.chance.choice(MODES), world.chance), borough.directory)
        world.counts["power cuts"] += 1
        borough.start(wait=False)
        until(f"the node starts on the image after {number} of {len(records)} steps", borough.answers)
        card = borough.api("GET", "/v1/card")
        borough.stop()
        node = read_node(borough.origin, rows_of_file(borough.directory / "exchange.db"))
        findings = check(History(nodes={borough.origin: node}))
        if findings:
            raise Broken(f"after {number} of {len(records)} steps: {findings[:5]}")
        world.counts["checkpoints"] += len(node.checkpoints)
        assert card["origin"] == borough.origin
