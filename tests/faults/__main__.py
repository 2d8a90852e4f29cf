"""Runs scenarios and prints a table: `make faults`, and `make soak HOURS=n` for random ones until the time is up.

    python -m tests.faults [--only NAME ...] [--seed N] [--store KIND] [--soak HOURS]

A scenario that fails keeps its directory, and the last lines say how to run it again.
"""

import argparse
import fnmatch
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import databases
from tests.faults.scenario import Scenario
from tests.faults.scenarios import ALL
from tests.faults.world import Ports, World, make_pair


@dataclass
class Row:
    """A scenario's line of the table."""

    scenario: Scenario
    times: int = 0
    failures: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--only", nargs="*", default=["*"], metavar="NAME", help="names, or patterns such as 'disk/*'")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--store", choices=databases.KINDS, default="sqlite", help="where nodes keep their stores")
    parser.add_argument("--soak", type=float, metavar="HOURS")
    wanted = parser.parse_args()
    chosen = [scenario for scenario in ALL if any(fnmatch.fnmatch(scenario.name, name) for name in wanted.only)]
    chosen = [scenario for scenario in chosen if scenario.store in (None, wanted.store)]
    if not chosen:
        parser.error("no scenario has that name; there are: " + ", ".join(scenario.name for scenario in ALL))
    if os.geteuid() != 0 and (left := [scenario.name for scenario in chosen if scenario.needs_root]):
        print("left out, since they need root: " + ", ".join(left))
        chosen = [scenario for scenario in chosen if not scenario.needs_root]
    base = Path(tempfile.mkdtemp(prefix="exchange-faults-"))
    print(f"seed {wanted.seed}, directory {base}", flush=True)
    if wanted.store == "postgresql":
        base.chmod(0o755)  # as root, the server runs as another user
        databases.server = databases.start_server(base / "postgresql")
    rows = {scenario.name: Row(scenario) for scenario in chosen}
    failed: list[str] = []
    ports = make_pair(base)
    for number, scenario in enumerate(_order(chosen, wanted.seed, wanted.soak)):
        # The first run of a scenario in a soak is the one of the seed, so that one seed repeats it.
        seed = wanted.seed if not wanted.soak else random.Random(f"{wanted.seed}/{number}").randrange(2**32)
        directory = base / f"{number:04d}-{scenario.name.replace('/', '-')}"
        store = "" if wanted.store == "sqlite" else f" --store {wanted.store}"
        if not _run(scenario, seed, ports, directory, rows[scenario.name]):
            failed.append(f"python -m tests.faults --only {scenario.name} --seed {seed}{store}   # kept: {directory}")
    print(_table([row for row in rows.values() if row.times]))
    if failed:
        print("\nBroken. Run again:\n  " + "\n  ".join(failed))
        return 1
    shutil.rmtree(base)
    return 0


def _order(chosen: Sequence[Scenario], seed: int, hours: float | None) -> Iterator[Scenario]:
    if hours is None:
        yield from chosen
        return
    chance, end_s = random.Random(seed), time.monotonic() + hours * 3600
    while time.monotonic() < end_s:
        yield chance.choice(chosen)


def _run(scenario: Scenario, seed: int, ports: Ports, directory: Path, row: Row) -> bool:
    begun_s = time.monotonic()
    world = World(ports, directory, random.Random(f"{seed}/{scenario.name}"))
    held = True
    try:
        scenario.run(world)
    except (Exception, KeyboardInterrupt) as error:
        held = False
        (directory / "failure.txt").write_text(traceback.format_exc())
        print(f"BROKEN {scenario.name}: {error}", flush=True)
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        world.end()
    row.times += 1
    row.failures += not held
    row.seconds += time.monotonic() - begun_s
    row.counts.update(world.counts)
    if held:
        print(f"held   {scenario.name} ({time.monotonic() - begun_s:.1f} s)", flush=True)
        shutil.rmtree(directory)
    return held


_COLUMNS = ("scenario", "injected", "times", "messages", "calls", "checkpoints", "what held")


def _table(rows: Sequence[Row]) -> str:
    lines = [_COLUMNS]
    for row in rows:
        faults = sum(row.counts[name] for name in row.counts if name not in ("messages", "calls", "checkpoints"))
        lines.append(
            (
                row.scenario.name,
                row.scenario.injected,
                str(max(faults, row.times)),
                *(str(row.counts[name]) for name in ("messages", "calls", "checkpoints")),
                f"BROKEN {row.failures} of {row.times}" if row.failures else row.scenario.held,
            )
        )
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    text = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    totals = Counter[str]()
    for row in rows:
        totals.update(row.counts)
    seconds = sum(row.seconds for row in rows)
    return (
        f"\n{text}\n\n{sum(row.times for row in rows)} runs in {seconds:.0f} s; checked: {totals['messages']} messages,"
        f" {totals['calls']} calls to agencies, {totals['checkpoints']} checkpoints"
    )


if __name__ == "__main__":
    sys.exit(main())
