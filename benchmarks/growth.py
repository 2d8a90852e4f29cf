"""What a handover costs where the node has stored many: CPU, rate, latency, memory, and the time of a start.

One node grows; the other, with which it exchanges, begins anew with it and has what was measured alone. Of the node
that grows both halves of its work are measured: sending, and receiving.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pysqlite3 import dbapi2 as sqlite

from benchmarks import filling
from benchmarks.load import Load
from benchmarks.nodes import Side, keep_apart, running
from benchmarks.report import Found, Table
from benchmarks.throughput import Effort, Latency, Rate, at_rate, full_speed, warm_up
from exchange.cli.boroughs import ENFIELD, HACKNEY, register

#: How many are stored before the first is measured, by itself the least.
_SMALLEST = 1000


@dataclass(frozen=True)
class Grown:
    """What was measured where so many messages were stored."""

    how: str
    stored: int
    start_s: float
    sending: Rate
    receiving: Rate
    half: Latency
    store_mib: float

    @property
    def cpu_ms(self) -> float:
        """CPU of the node that has grown, for a handover that it sends and one that it receives."""
        return self.sending.sender_cpu_ms + self.receiving.receiver_cpu_ms

    @property
    def peak_mib(self) -> float:
        """The most memory of the node that has grown."""
        return max(self.sending.sender_peak_mib, self.receiving.receiver_peak_mib)


def measure(largest: int, effort: Effort, load: Load, root: Path) -> list[Grown]:
    """Measure at each power of ten from a thousand to `largest` messages."""
    found = []
    with tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory:
        place = Path(directory)
        _begin(place, load)
        size = _SMALLEST
        while size <= largest:
            found.append(_measure_at(place, size, "copies", effort, load))
            size *= 10
    return found


def compare(size: int, effort: Effort, load: Load, root: Path) -> list[Grown]:
    """The same at one size, in a store that was grown by copies and in one whose messages were all sent: they agree.

    Both hold what waits too, since every message that was sent leaves that behind.
    """
    found = []
    for how in ("copies", "sent"):
        with tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory:
            place = Path(directory)
            _begin(place, load)
            if how == "sent":
                with _both(place) as (hackney, enfield):
                    for sender, receiver in ((hackney, enfield), (enfield, hackney)):
                        full_speed(sender, receiver, (size - _stored(place)) // 2, load)
            found.append(_measure_at(place, size, f"{how}, all waiting", effort, load, waiting=True))
    return found


@contextlib.contextmanager
def _both(place: Path) -> Iterator[tuple[Side, Side]]:
    with running(place, HACKNEY) as hackney, running(place, ENFIELD) as enfield:
        keep_apart(hackney, enfield)
        yield hackney, enfield


def _begin(place: Path, load: Load) -> None:
    """Make both nodes, and have each send the other what is then copied."""
    with _both(place) as (hackney, enfield):
        register(hackney.processes[0], enfield.processes[0])
        warm_up(hackney, enfield, load, 20)
        warm_up(enfield, hackney, load, 20)


def _measure_at(place: Path, size: int, how: str, effort: Effort, load: Load, *, waiting: bool = False) -> Grown:
    config = place / HACKNEY.slug / "exchange.toml"
    filling.fill(config, size - _stored(place), waiting=waiting)
    filling.check(config)
    stored = _stored(place)
    started_s = time.perf_counter()
    with running(place, HACKNEY) as hackney:
        start_s = time.perf_counter() - started_s
        with running(place, ENFIELD) as enfield:
            keep_apart(hackney, enfield)
            warm_up(hackney, enfield, load)
            warm_up(enfield, hackney, load)
            sending = full_speed(hackney, enfield, effort.count, load)
            receiving = full_speed(enfield, hackney, effort.count, load)
            half = at_rate(hackney, enfield, sending.per_s / 2, effort.seconds, load)
    return Grown(how, stored, start_s, sending, receiving, half, _store_mib(place))


def _stored(place: Path) -> int:
    with contextlib.closing(sqlite.connect(str(_store(place)))) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])


def _store_mib(place: Path) -> float:
    return _store(place).stat().st_size / 2**20


def _store(place: Path) -> Path:
    return place / HACKNEY.slug / "exchange.db"


def report(found: Sequence[Grown], compared: Sequence[Grown]) -> Found:
    """The table of all sizes."""
    columns = (
        *("messages stored", "how", "sent per second", "received per second", "CPU to send", "CPU to receive"),
        *("p50 at half", "p99 at half", "memory, MiB", "start, s", "store, MiB"),
    )
    rows = [
        (
            *(one.stored, one.how, one.sending.per_s, one.receiving.per_s),
            *(one.sending.sender_cpu_ms, one.receiving.receiver_cpu_ms, one.half.p50_ms, one.half.p99_ms),
            *(one.peak_mib, one.start_s, one.store_mib),
        )
        for one in (*found, *compared)
    ]
    note = (
        "CPU, in milliseconds, is that of the node that has grown, for each message that it sends or receives. Copies: "
        "rows made by the node's own functions, under a log that `exchange store check` finds whole. Sent: every "
        "message was really handed over."
    )
    first, last = found[0], found[-1]
    figures = {
        "growth.cpu_ratio": last.cpu_ms / first.cpu_ms,
        "growth.memory_ratio": last.peak_mib / first.peak_mib,
        "growth.largest": last.stored,
    }
    figures |= {f"growth.cpu.{one.stored}": one.cpu_ms for one in found}
    return Found([Table("Messages stored", note, columns, rows)], figures)
