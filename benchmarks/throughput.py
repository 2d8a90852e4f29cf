"""Handovers from node to node: durable at both ends, post-quantum, every receipt verified and stored by the sender.

The receiving borough has no agency registered, so its sections wait in `held` and no webhook is measured.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import Server
from benchmarks.forms import eight_sections
from benchmarks.load import Flow, Goal, Load, percentile, post_form
from benchmarks.nodes import Setting, Side, has_sent_all, two_boroughs, until
from benchmarks.primitives import Primitive
from benchmarks.processes import cpu_s
from benchmarks.report import Found, Table

_AT_ONCE = 32


@dataclass(frozen=True)
class Effort:
    """How much to measure."""

    count: int
    timed: int
    seconds: float


@dataclass(frozen=True)
class Rate:
    """Handovers at full speed: how many a second, and the CPU of each, in milliseconds."""

    count: int
    per_s: float
    sender_cpu_ms: float
    receiver_cpu_ms: float
    database_cpu_ms: float
    load_cpu_ms: float
    sender_peak_mib: float
    receiver_peak_mib: float
    #: Handovers that share an envelope, a checkpoint and a commit.
    batch: float

    @property
    def cpu_ms(self) -> float:
        """CPU of both boroughs, with their databases; that of the program that sends is nobody's."""
        return self.sender_cpu_ms + self.receiver_cpu_ms + self.database_cpu_ms


@dataclass(frozen=True)
class Latency:
    """How long handovers take, in milliseconds, and how many a second there were of them (0: one at a time)."""

    per_s: float
    p50_ms: float
    p99_ms: float
    samples: int


@dataclass(frozen=True)
class Throughput:
    """What was measured in one setting."""

    setting: Setting
    rate: Rate
    alone: Latency
    half: Latency


def measure(setting: Setting, effort: Effort, load: Load, server: Server | None, root: Path) -> Throughput:
    """Measure a setting: full speed, one at a time, then half of full speed with arrivals at random."""
    with (
        tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory,
        two_boroughs(Path(directory), setting, server) as (hackney, enfield),
    ):
        warm_up(hackney, enfield, load)
        rate = full_speed(hackney, enfield, effort.count, load, server)
        return Throughput(
            setting,
            rate,
            one_at_a_time(hackney, enfield, effort.timed, load),
            at_rate(hackney, enfield, rate.per_s / 2, effort.seconds, load),
        )


def request(sender: Side, receiver: Side) -> bytes:
    """The request that sends the form of eight sections from one to the other."""
    area = receiver.borough.area
    return post_form(area, eight_sections(sender.borough.area, area))


def warm_up(sender: Side, receiver: Side, load: Load, count: int = 200) -> None:
    """Send some forms that are not counted: connections are made, statements compiled, continuity begun."""
    load.closed(sender.sockets, [request(sender, receiver)], count, _AT_ONCE)
    until("the outbox is empty", lambda: has_sent_all(sender))


def full_speed(
    sender: Side, receiver: Side, count: int, load: Load, server: Server | None = None, form: bytes | None = None
) -> Rate:
    """Send `count` forms as fast as the node takes them, until the last receipt is verified and stored."""
    sides = (sender, receiver)
    for side in sides:
        side.forget_peak()
    envelopes = receiver.counter("envelopes_accepted")
    database = server.pids() if server else []
    before_s = [side.cpu_s() for side in sides]
    database_s = cpu_s(database)
    started_s = time.perf_counter()
    wanted = request(sender, receiver) if form is None else post_form(receiver.borough.area, form)
    sent = load.closed(sender.sockets, [wanted], count, _AT_ONCE)
    until("the outbox is empty", lambda: has_sent_all(sender))
    took_s = time.perf_counter() - started_s
    sender_s, receiver_s = (side.cpu_s() - before for side, before in zip(sides, before_s, strict=True))
    return Rate(
        count=count,
        per_s=count / took_s,
        sender_cpu_ms=sender_s * 1000 / count,
        receiver_cpu_ms=receiver_s * 1000 / count,
        database_cpu_ms=(cpu_s(database) - database_s) * 1000 / count,
        load_cpu_ms=sent.cpu_s * 1000 / count,
        sender_peak_mib=sender.peak_mib(),
        receiver_peak_mib=receiver.peak_mib(),
        batch=count / max(1, receiver.counter("envelopes_accepted") - envelopes),
    )


def one_at_a_time(sender: Side, receiver: Side, count: int, load: Load) -> Latency:
    """Time forms one after the other, from the form to the verified and stored receipt."""
    found = load.one_by_one(sender.sockets[0], request(sender, receiver), count)
    return Latency(0, percentile(found, 0.5), percentile(found, 0.99), len(found))


def at_rate(sender: Side, receiver: Side, per_s: float, seconds: float, load: Load) -> Latency:
    """Time forms that arrive at random, so many a second, each from when it was due."""
    flow = Flow(request(sender, receiver), per_s)
    found = load.open_loop(sender.sockets, [flow], seconds, Goal(sender.store)).reached_ms[0]
    return Latency(per_s, percentile(found, 0.5), percentile(found, 0.99), len(found))


def report(found: Sequence[Throughput], sums: Sequence[Primitive]) -> Found:
    """The tables of all settings, and the floor that the primitives are."""
    columns = (
        "store",
        *("per second", "p50 alone", "p99 alone", "p50 at half", "p99 at half", "CPU", "sender", "receiver"),
        *("database", "in an envelope", "memory"),
    )
    table = Table(
        "Handovers, node to node",
        "A form of eight sections, from the request to the verified and stored receipt. Latencies and CPU in "
        "milliseconds, memory of the larger node in MiB. Alone: one at a time; at half: arrivals at random, at half of "
        "the rate of full speed, each counted from when it was due.",
        columns,
        [
            (
                *(one.setting.name, one.rate.per_s, one.alone.p50_ms, one.alone.p99_ms),
                *(one.half.p50_ms, one.half.p99_ms, one.rate.cpu_ms, one.rate.sender_cpu_ms),
                *(one.rate.receiver_cpu_ms, one.rate.database_cpu_ms, one.rate.batch),
                max(one.rate.sender_peak_mib, one.rate.receiver_peak_mib),
            )
            for one in found
        ],
    )
    figures: dict[str, float] = {}
    for one in found:
        name = one.setting.key
        figures |= {f"rate.{name}": one.rate.per_s, f"cpu.{name}": one.rate.cpu_ms}
        figures |= {f"half.p99.{name}": one.half.p99_ms, f"alone.p50.{name}": one.alone.p50_ms}
    first = found[0].rate
    floor_ms = sum(primitive.total_us for primitive in sums) / 1000
    figures["primitives.ratio"] = first.cpu_ms / floor_ms
    primitives = Table(
        "The same handover in primitives alone",
        f"CPU of the same calls on the same sizes with nothing between them; {first.batch:.0f} handovers share an "
        f"envelope. A handover takes {first.cpu_ms:.2f} ms: {first.cpu_ms / floor_ms:.1f} times the sum.",
        ("primitive", "each, us", "times", "total, us"),
        [
            *((primitive.name, primitive.each_us, primitive.times, primitive.total_us) for primitive in sums),
            ("sum", None, None, floor_ms * 1000),
        ],
    )
    return Found([table, primitives], figures)
