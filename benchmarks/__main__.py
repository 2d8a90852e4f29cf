"""Measure the exchange on this machine, and print what was found: `python -m benchmarks`."""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from benchmarks import agencies, backlog, comparison, growth, machine, peers, primitives, sizes, steps, throughput
from benchmarks.databases import Server, server
from benchmarks.forms import eight_sections
from benchmarks.load import Load, load
from benchmarks.nodes import Setting
from benchmarks.plot import plot
from benchmarks.report import Found, Table, as_markdown, as_text, figures_of
from benchmarks.targets import judge

_QUICK = throughput.Effort(count=2000, timed=200, seconds=10)
_FULL = throughput.Effort(count=10_000, timed=1000, seconds=30)


@dataclass(frozen=True)
class Run:
    """What the parts of a run share."""

    full: bool
    load: Load
    #: Where no part needs it, it is not started.
    server: Server | None
    #: Where stores are put.
    root: Path
    settings: Sequence[Setting]
    #: How many messages wait after the outage.
    backlog: int
    #: The power of ten of the largest store.
    growth: int

    @property
    def effort(self) -> throughput.Effort:
        """How much to measure."""
        return _FULL if self.full else _QUICK


def _throughput(run: Run) -> Found:
    found = [throughput.measure(one, run.effort, run.load, run.server, run.root) for one in run.settings]
    return throughput.report(found, primitives.measure(found[0].rate.batch))


def _agencies(run: Run) -> Found:
    return agencies.report([agencies.measure(one, run.effort, run.load, run.server, run.root) for one in run.settings])


def _backlog(run: Run) -> Found:
    settings = run.settings[:2] if run.full else run.settings[:1]
    count, seconds = run.effort.count, run.effort.seconds
    found = [
        backlog.measure(one, run.backlog, count, seconds, run.load, run.server, run.root)
        for one in settings
        if one.replicas == 1
    ]
    return backlog.report(found)


def _growth(run: Run) -> Found:
    found = growth.measure(10**run.growth, run.effort, run.load, run.root)
    return growth.report(found, growth.compare(10_000, run.effort, run.load, run.root) if run.full else [])


def _steps(run: Run) -> Found:
    return steps.report(steps.measure(5 * run.effort.count // 2, run.load, run.root))


def _sizes(run: Run) -> Found:
    return sizes.report(sizes.measure(run.effort, run.load, run.root))


def _peers(run: Run) -> Found:
    return peers.report(peers.measure(run.effort, run.load, run.root))


def _comparison(run: Run) -> Found:
    """The same form on other programs."""
    found = comparison.measure(eight_sections())
    columns = ("program", "what it does", "per second", "CPU, ms", "p50, ms", "p99, ms")
    rows = [(one.name, one.does, one.per_s, one.cpu_ms, one.p50_ms, one.p99_ms) for one in found]
    note = "The same form on other programs, on this machine, in this run."
    return Found(
        [Table("The same work elsewhere", note, columns, rows)],
        {f"comparison.per_s.{one.name}": one.per_s for one in found if one.per_s is not None},
    )


PARTS: dict[str, Callable[[Run], Found]] = {
    "throughput": _throughput,
    "agencies": _agencies,
    "backlog": _backlog,
    "steps": _steps,
    "sizes": _sizes,
    "peers": _peers,
    "growth": _growth,
    "comparison": _comparison,
}


def main() -> None:
    """Measure the parts that were asked for, and print each as it is found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="measure for longer, and every setting: about an hour")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone; may be repeated")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), help="measure throughput on this store alone")
    parser.add_argument("--replicas", type=int, choices=range(1, 5), help="... and with so many processes for a node")
    parser.add_argument("--backlog", type=int, help="how many messages wait after the outage")
    parser.add_argument("--growth", type=int, choices=range(3, 7), help="the power of ten of the largest store")
    parser.add_argument("--dir", type=Path, help="where to put the stores; the disk there is what is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into FILE as SVG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE as Markdown")
    options = parser.parse_args()
    with _running(options) as run:
        tables = [machine.describe(run.root, run.server)]
        print(as_text(tables[0]), flush=True)
        parts = []
        for name in options.only or PARTS:
            started_s = time.perf_counter()
            parts.append(PARTS[name](run))
            for table in parts[-1].tables:
                print(as_text(table), flush=True)
            print(f"({name}: {time.perf_counter() - started_s:.0f} s)\n", flush=True)
            tables += parts[-1].tables
    tables.append(judge(figures_of(parts)))
    print(as_text(tables[-1]))
    _write(options, tables, parts)


@contextlib.contextmanager
def _running(options: argparse.Namespace) -> Iterator[Run]:
    settings = _settings(options)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=options.dir))
        root = Path(directory)
        root.chmod(0o755)  # PostgreSQL runs under an account of its own where this runs as root
        needed = any(setting.store == "postgresql" for setting in settings)
        yield Run(
            full=options.full,
            load=stack.enter_context(load()),
            server=stack.enter_context(server(root / "postgresql")) if needed else None,
            root=root,
            settings=settings,
            backlog=options.backlog or (100_000 if options.full else 5_000),
            growth=options.growth or (5 if options.full else 4),
        )


def _settings(options: argparse.Namespace) -> list[Setting]:
    if options.store or options.replicas:
        return [Setting(options.store or ("postgresql" if options.replicas > 1 else "sqlite"), options.replicas or 1)]
    several = (2, 3, 4) if options.full else (2,)
    return [Setting(), Setting("postgresql"), *(Setting("postgresql", count) for count in several)]


def _write(options: argparse.Namespace, tables: Sequence[Table], parts: Sequence[Found]) -> None:
    if options.markdown:
        options.markdown.write_text("\n".join(map(as_markdown, tables)))
    if options.plot:
        options.plot.write_text(plot(figures_of(parts)))
    if options.json:
        document = {"figures": figures_of(parts), "tables": [asdict(table) for table in tables]}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


if __name__ == "__main__":
    main()
