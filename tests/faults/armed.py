"""Runs the program with a crash armed, a clock of the test's own, or marks for a recording: the one way to arm them.

    python -m tests.faults.armed [--die-at POINT [--nth N] [--once FILE]] [--clock FILE] [--marks FILE] -- run ...

It puts a function of its own in the place of `exchange.crash_points.reached` before the program runs.
"""

import argparse
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from exchange import crash_points
from exchange.crash_points import Point
from exchange.node import app

POINTS: tuple[Point, ...] = get_args(Point)


def main() -> None:
    """Arm what is asked for, then be the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-at", choices=POINTS)
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--once", type=Path)
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--marks", type=Path)
    own, theirs = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    wanted = parser.parse_args(own)
    if wanted.die_at:
        crash_points.reached = die_at(wanted.die_at, wanted.nth, wanted.once)
    if wanted.marks:
        crash_points.reached = mark_commits(wanted.marks)
    if wanted.clock:
        app.wall_clock_ms = clock_of(wanted.clock)
    from exchange.cli.main import main as program

    program(theirs)


def die_at(point: Point, nth: int, once: Path | None = None) -> Callable[[Point], None]:
    """End the process, as a power cut would, at the nth time at a point; where a file is named, once that is there."""
    left = [nth]

    def reached(at: Point) -> None:
        if at == point and (once is None or once.exists()):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    return reached


def mark_commits(file: Path) -> Callable[[Point], None]:
    """Write a line into a file that is being recorded, each time that a commit is said to be durable."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def reached(at: Point) -> None:
        if at == "batch.committed":
            os.write(descriptor, b"committed\n")

    return reached


CLOCK = struct.Struct("=dd")


def set_clock(file: Path, offset_s: float, rate: float = 1.0) -> None:
    """Tell a node's clock how far it is ahead from now on, and how many seconds it makes of one."""
    if not file.exists():
        file.write_bytes(bytes(CLOCK.size))
    with file.open("r+b") as opened:
        opened.write(CLOCK.pack(offset_s, rate))


def clock_of(file: Path) -> Callable[[], int]:
    """A clock whose offset and rate are in a file that the harness writes."""
    shared = mmap.mmap(os.open(file, os.O_RDONLY), CLOCK.size, prot=mmap.PROT_READ)
    begun_s = time.time()

    def now_ms() -> int:
        offset_s, rate = CLOCK.unpack(shared[: CLOCK.size])
        return round((begun_s + (time.time() - begun_s) * rate + offset_s) * 1000)

    return now_ms


if __name__ == "__main__":
    main()
