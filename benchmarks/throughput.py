"""Handovers from node to node: durable at both ends, post-quantum, every receipt verified and stored by the sender.

The receiving borough has no agency registered, so its sections wait in `held` and no webhook is measured.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import Server
from benchmarks.forms import eight_sections
from benchmarks.load import Flow, Load, percentile, post_form
from benchmarks.nodes import Setting, Side, has_sent_all, two_boroughs, until
from benchmarks.processes import cpu_s
from exchange.cli.boroughs import ENFIELD

_AT_ONCE = 32
#: Of how many messages of an open flow one is watched: whoever watches is told of every change, and that costs CPU.
_WATCH_EVERY = 5


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


def measure(setting: Setting, effort: Effort, load: Load, server: Server | None, root: Path | None = None) -> Throughput:
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
            one_at_a_time(hackney, effort.timed, load),
            at_rate(hackney, rate.per_s / 2, effort.seconds, load),
        )


def warm_up(hackney: Side, enfield: Side, load: Load, count: int = 200) -> None:
    """Send some forms that are not counted: connections are made, statements compiled, continuity begun."""
    load.closed(hackney.sockets, [post_form(enfield.borough.area, eight_sections())], count, _AT_ONCE)
    until("the outbox is empty", lambda: has_sent_all(hackney))


def full_speed(
    hackney: Side, enfield: Side, count: int, load: Load, server: Server | None = None, form: bytes | None = None
) -> Rate:
    """Send `count` forms as fast as the node takes them, until the last receipt is verified and stored."""
    sides = (hackney, enfield)
    for side in sides:
        side.forget_peak()
    envelopes = enfield.counter("envelopes_accepted")
    database = server.pids() if server else []
    before_s = [side.cpu_s() for side in sides]
    database_s = cpu_s(database)
    started_s = time.perf_counter()
    sent = load.closed(hackney.sockets, [post_form(enfield.borough.area, form or eight_sections())], count, _AT_ONCE)
    until("the outbox is empty", lambda: has_sent_all(hackney))
    took_s = time.perf_counter() - started_s
    sender_s, receiver_s = (side.cpu_s() - before for side, before in zip(sides, before_s, strict=True))
    return Rate(
        count=count,
        per_s=count / took_s,
        sender_cpu_ms=sender_s * 1000 / count,
        receiver_cpu_ms=receiver_s * 1000 / count,
        database_cpu_ms=(cpu_s(database) - database_s) * 1000 / count,
        load_cpu_ms=sent.cpu_s * 1000 / count,
        sender_peak_mib=hackney.peak_mib(),
        receiver_peak_mib=enfield.peak_mib(),
        batch=count / max(1, enfield.counter("envelopes_accepted") - envelopes),
    )


def one_at_a_time(hackney: Side, count: int, load: Load, rung: str = "received") -> Latency:
    """Time forms one after the other, from the form to the verified and stored receipt."""
    found = load.one_by_one(hackney.sockets[0], post_form(ENFIELD.area, eight_sections()), count, rung)
    return Latency(0, percentile(found, 0.5), percentile(found, 0.99), len(found))


def at_rate(hackney: Side, per_s: float, seconds: float, load: Load, rung: str = "received") -> Latency:
    """Time forms that arrive at random, so many a second, each from when it was due."""
    flow = Flow(post_form(ENFIELD.area, eight_sections()), per_s, _WATCH_EVERY)
    found = load.open_loop(hackney.sockets, [flow], seconds, rung).reached_ms[0]
    return Latency(per_s, percentile(found, 0.5), percentile(found, 0.99), len(found))
