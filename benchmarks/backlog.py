"""After an outage: the receiver is down while forms are sent, and comes back.

How fast what waits is delivered, and whether an urgent form that is sent meanwhile waits for any of it. To compare,
urgent forms are timed on the same nodes before: with nothing else to do, and beside usual forms at half of full speed.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import Server
from benchmarks.forms import eight_sections, urgent_sections
from benchmarks.load import Flow, Goal, Load, percentile, post_form
from benchmarks.nodes import Setting, Side, has_sent_all, keep_apart, running, until
from benchmarks.report import Cell, Found, Table
from benchmarks.throughput import full_speed, warm_up
from exchange.cli.boroughs import ENFIELD, HACKNEY, register

_URGENT_PER_S = 10.0
#: Urgent forms come for this share of the time that the drain is expected to take, so that all of them come during it.
_SHARE = 0.6


@dataclass(frozen=True)
class Drain:
    """What was measured with one backlog."""

    setting: Setting
    waiting: int
    rate_per_s: float
    drain_per_s: float
    sender_peak_mib: float
    #: Of urgent forms, in milliseconds, sorted: alone, beside usual ones at half of full speed, during the drain.
    idle_ms: Sequence[float]
    half_ms: Sequence[float]
    drain_ms: Sequence[float]


def measure(
    setting: Setting, waiting: int, count: int, seconds: float, load: Load, server: Server | None, root: Path
) -> Drain:
    """Measure with so many messages waiting; `count` and `seconds` are for what it is compared with."""
    database = server if setting.store == "postgresql" else None
    with (
        tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory,
        running(Path(directory), HACKNEY, database) as hackney,
    ):
        place = Path(directory)
        with running(place, ENFIELD, database) as enfield:
            register(hackney.processes[0], enfield.processes[0])
            keep_apart(hackney, enfield)
            warm_up(hackney, enfield, load)
            rate_per_s = full_speed(hackney, enfield, count, load).per_s
            idle_ms, half_ms = (_urgent(hackney, load, usual, seconds) for usual in (0.0, rate_per_s / 2))
        load.closed(hackney.sockets, [post_form(ENFIELD.area, eight_sections())], waiting)
        hackney.forget_peak()
        with running(place, ENFIELD) as enfield:
            keep_apart(hackney, enfield)
            started_s = time.perf_counter()
            goal = Goal(hackney.store)
            urgent = load.begin_open_loop(
                hackney.sockets, [_urgent_flow()], max(2.0, _SHARE * waiting / rate_per_s), goal
            )
            # With much in the outbox the question what waits costs the node, so it is not asked often.
            until("what waited is delivered", lambda: has_sent_all(hackney), timeout_s=3600, every_s=0.5)
            took_s = time.perf_counter() - started_s
            if not urgent.done():
                raise RuntimeError(f"{waiting} messages were delivered before the urgent ones: take more")
            found = urgent.result()
            return Drain(
                setting,
                waiting,
                rate_per_s,
                (waiting + len(found.due_s)) / took_s,
                hackney.peak_mib(),
                idle_ms,
                half_ms,
                found.reached_ms[0],
            )


def _urgent_flow() -> Flow:
    return Flow(post_form(ENFIELD.area, urgent_sections()), _URGENT_PER_S)


def _urgent(hackney: Side, load: Load, usual_per_s: float, seconds: float) -> Sequence[float]:
    """Latencies of urgent forms, beside so many usual ones a second."""
    usual = [Flow(post_form(ENFIELD.area, eight_sections()), usual_per_s)] if usual_per_s else []
    found = load.open_loop(hackney.sockets, [_urgent_flow(), *usual], seconds, Goal(hackney.store))
    return found.reached_ms[0]


def report(found: Sequence[Drain]) -> Found:
    """The table of all settings."""
    columns = (
        *("store", "waiting", "drained per second", "full speed", "memory of sender, MiB", "p50 alone", "p99 alone"),
        *("p50 at half", "p99 at half", "p50 in the drain", "p99 in the drain"),
    )
    rows: list[tuple[Cell, ...]] = []
    figures: dict[str, float] = {}
    for one in found:
        spread = [
            percentile(values, share) for values in (one.idle_ms, one.half_ms, one.drain_ms) for share in (0.5, 0.99)
        ]
        rows.append(
            (one.setting.name, one.waiting, one.drain_per_s, one.rate_per_s, one.sender_peak_mib, *spread),
        )
        figures[f"backlog.per_s.{one.setting.key}"] = one.drain_per_s
        if one is found[0]:
            figures |= {"backlog.urgent_p99": spread[5], "backlog.urgent_ratio": spread[5] / spread[3]}
    note = (
        f"The receiver was down while the forms were sent. Milliseconds are those of urgent forms, {_URGENT_PER_S:g} a "
        "second, from when each was due to its verified receipt: alone, beside usual forms at half of full speed "
        "without a backlog, and while the backlog drained."
    )
    return Found([Table("After an outage", note, columns, rows)], figures)
