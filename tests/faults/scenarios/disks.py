"""Disks that are full, read-only or broken; databases that are damaged or gone."""

import contextlib
import errno
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.faults.disk import MODES, read_recording, write_image
from tests.faults.scenario import Scenarios
from tests.faults.scenarios.power import record_from, try_images
from tests.faults.shim import Shim
from tests.faults.world import Broken, Load, World
from tests.processes.harness import Borough, until

scenarios: Final = Scenarios("disk", "sqlite")
_PAGE: Final = 4096


def _mounted(world: World, borough: Borough, *options: str) -> None:
    """Move a node's directory to a file system of its own."""
    kept = borough.directory.rename(borough.directory.with_name(borough.directory.name + "-was"))
    borough.directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(borough.directory)], check=True)
    world.afterwards(lambda: subprocess.run(["umount", str(borough.directory)], check=True))
    shutil.copytree(kept, borough.directory, dirs_exist_ok=True)


def _full(world: World, borough: Borough) -> None:
    _mounted(world, borough, "-o", "size=24m")
    with borough.config.open("a") as file:
        file.write("\n[limits]\nleast_free_mib = 0\n")  # else it takes nothing long before the disk is full
    world.start()
    world.sender.send(world.form())
    world.settle()
    filler = borough.directory / "filler"
    for _ in range(2):
        with filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(world.chance.choice((512, 4096, 65536))))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        world.counts["times full"] += 1
        for _ in range(3):
            world.sender.send(world.form())
        time.sleep(world.chance.uniform(0.2, 1))
        if world.chance.random() < 0.5:
            borough.kill()
            filler.unlink()
            world.start(borough)
        else:
            filler.unlink()
    world.check()


@scenarios.add(
    "full-at-receiver",
    "file system full, sometimes killed while it is",
    "refused with 503, then all arrives",
    needs_root=True,
)
def _full_at_receiver(world: World) -> None:
    _full(world, world.enfield)


@scenarios.add("full-at-sender", "the same at the sender", "people are told, then all arrives", needs_root=True)
def _full_at_sender(world: World) -> None:
    _full(world, world.hackney)
    if not world.sender.refusals:
        raise Broken("nobody was told that the disk was full")


def _failing(world: World, **errors: int) -> None:
    """Calls to the disk fail for a time, twice."""
    shim = Shim.before(world.enfield, world.root)
    world.start()
    with Load(world):
        for _ in range(2):
            time.sleep(world.chance.uniform(0.1, 0.5))
            shim.fail(**errors)
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0.3, 1))
            shim.mend()
    world.check()


@scenarios.add("read-only", "every write gives EROFS for a time", "refused with 503, then all arrives")
def _read_only(world: World) -> None:
    _failing(world, write=errno.EROFS)


@scenarios.add("write-error", "every write gives EIO for a time", "refused with 503, then all arrives")
def _write_error(world: World) -> None:
    _failing(world, write=errno.EIO)


@scenarios.add("read-error", "every read gives EIO for a time", "refused with 503, then all arrives")
def _read_error(world: World) -> None:
    _failing(world, read=errno.EIO)


@scenarios.add("sync-error", "fsync gives EIO for a time, and then the power goes", "no commit lost, all goes on")
def _sync_error(world: World) -> None:
    borough = world.enfield
    shim, disk = record_from(world, borough)
    world.start()
    with Load(world):
        for _ in range(2):
            time.sleep(world.chance.uniform(0.2, 0.5))
            shim.fail(sync=errno.EIO)
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0.1, 0.6))
            shim.mend()
        time.sleep(world.chance.uniform(0.1, 0.5))
        borough.kill()
    try_images(world, disk, read_recording(shim.recording))
    write_image(disk.image(world.chance.choice(MODES), world.chance), borough.directory)
    Shim.away(borough)
    world.disarm(borough)
    world.start(borough)
    world.check()


@scenarios.add(
    "read-only-start", "a node is started on a read-only mount", "it does not start, and says why", needs_root=True
)
def _read_only_start(world: World) -> None:
    borough = world.enfield
    place = str(borough.directory)
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    try:
        borough.start(wait=False)
        if not world.died(borough):
            raise Broken("the node started on a read-only disk")
    finally:
        borough.kill()
        subprocess.run(["umount", place], check=True)
    said = borough.log.read_text()
    if "Traceback" in said or "Read-only file system" not in said:
        raise Broken(f"it said: {said[-500:]}")
    world.start()
    world.sender.send(world.form())
    world.check()


@scenarios.add(
    "gone", "the database is deleted under a running node, then restored", "nothing is signed that is not kept"
)
def _gone(world: World) -> None:
    _away(world, lambda path: path.unlink())


@scenarios.add("moved", "the database is moved away under a running node, then back", "nothing is signed meanwhile")
def _moved(world: World) -> None:
    _away(world, lambda path: path.rename(path.with_name("away")))


def _away(world: World, take: object) -> None:
    borough = world.enfield
    world.start()
    for _ in range(2):
        world.sender.send(world.form())
    world.settle()
    borough.stop()
    database = borough.directory / "exchange.db"
    saved = Path(shutil.copy2(database, world.root / "saved.db"))
    world.start(borough)
    until("Enfield has greeted", borough.is_idle)
    borough.stop()
    shutil.copy2(database, saved)
    world.start(borough)
    assert callable(take)
    take(database)
    world.counts["times"] += 1
    world.sender.send(world.form())
    time.sleep(world.chance.uniform(0.5, 1.5))
    borough.kill()
    for path in borough.directory.glob("exchange.db*"):
        path.unlink()
    shutil.copy2(saved, database)
    world.start(borough)
    world.check()


@scenarios.add("gone-at-start", "a node is started without its database", "it does not start, and says why")
def _gone_at_start(world: World) -> None:
    borough = world.enfield
    database = borough.directory / "exchange.db"
    away = database.rename(database.with_name("away"))
    borough.start(wait=False)
    if not world.died(borough):
        raise Broken("the node made a new database, and with it a second log")
    if "there is no store" not in borough.log.read_text():
        raise Broken(f"it said: {borough.log.read_text()[-500:]}")
    away.rename(database)
    world.start()
    world.sender.send(world.form())
    world.check()


@scenarios.add("damaged", "random bytes in random pages of the database", "it does not start, and says why")
def _damaged(world: World) -> None:
    borough = world.enfield
    world.start()
    for _ in range(2):
        world.sender.send(world.form())
    world.settle()
    for _ in range(4):
        borough.stop()
        database = borough.directory / "exchange.db"
        whole = database.read_bytes()
        page = world.chance.randrange(len(whole) // _PAGE)
        damaged = bytearray(whole)
        damaged[page * _PAGE : (page + 1) * _PAGE] = world.chance.randbytes(_PAGE)
        database.write_bytes(damaged)
        world.counts["pages"] += 1
        begun = borough.log.stat().st_size
        borough.start(wait=False)
        assert borough.process is not None
        until("it starts or ends", lambda: borough.process.poll() is not None or _answers(borough))  # type: ignore[union-attr]
        said = borough.log.read_text()[begun:]
        if "Traceback" in said:
            raise Broken(f"page {page}: {said[-2000:]}")
        if borough.process.poll() is None:
            continue  # a page that holds nothing
        world.counts["refused"] += 1
        if "Error: " not in said or not ("damaged" in said or "cannot open the store" in said):
            raise Broken(f"page {page}: it said {said[-500:]}")
        database.write_bytes(whole)
        world.sender.send(world.form())
        world.start(borough)
    world.check()


def _answers(borough: Borough) -> bool:
    with contextlib.suppress(AssertionError):
        return borough.answers()
    return False
