"""Handovers to the end: each section at its agencies, each agency's 2xx signed for and the receipt back at the sender.

Ten agencies are registered at the receiving borough, one of each kind. A form of eight sections is then many webhooks.
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
from benchmarks.processes import cpu_s
from benchmarks.report import Found, Table
from benchmarks.throughput import Effort
from benchmarks.webhook_receiver import Receiver, receiver
from exchange.cli.boroughs import ENFIELD
from exchange.schema.catalogue import default_catalogue

_KINDS = tuple(agency.kind for agency in default_catalogue().agencies)


@dataclass(frozen=True)
class Spread:
    """How long it took, in milliseconds: half of the messages at most so long, and 99 of 100."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> "Spread":
        """That of latencies."""
        ordered = sorted(values_ms)
        return cls(percentile(ordered, 0.5), percentile(ordered, 0.99))


@dataclass(frozen=True)
class Delivered:
    """What was measured in one setting."""

    setting: Setting
    per_s: float
    webhooks_per_handover: int
    sender_cpu_ms: float
    receiver_cpu_ms: float
    database_cpu_ms: float
    peak_mib: float
    #: At one a second, and at half of full speed: until the last agency's 2xx, and until the sender has all receipts.
    alone: tuple[Spread, Spread]
    half: tuple[Spread, Spread]


def measure(setting: Setting, effort: Effort, load: Load, server: Server | None, root: Path) -> Delivered:
    """Measure a setting: full speed, then one at a time, then half of full speed with arrivals at random."""
    with (
        tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory,
        two_boroughs(Path(directory), setting, server) as (hackney, enfield),
        receiver() as agencies,
    ):
        register(enfield, agencies)
        form = post_form(ENFIELD.area, eight_sections())
        _send(hackney, enfield, load, form, 20)
        agencies.taken()
        sides = (hackney, enfield)
        for side in sides:
            side.forget_peak()
        count, database = max(50, effort.count // 20), server.pids() if server else []
        before_s, database_s = [side.cpu_s() for side in sides], cpu_s(database)
        started_s = time.perf_counter()
        _send(hackney, enfield, load, form, count)
        took_s = time.perf_counter() - started_s
        sender_s, receiver_s = (side.cpu_s() - before for side, before in zip(sides, before_s, strict=True))
        database_s = cpu_s(database) - database_s
        taken = agencies.taken()
        webhooks = set(taken.count.values())
        if len(taken.count) != count or len(webhooks) != 1:
            raise RuntimeError(f"of {count} messages, {len(taken.count)} came to agencies, by {webhooks} webhooks each")
        return Delivered(
            setting=setting,
            per_s=count / took_s,
            webhooks_per_handover=webhooks.pop(),
            sender_cpu_ms=sender_s * 1000 / count,
            receiver_cpu_ms=receiver_s * 1000 / count,
            database_cpu_ms=database_s * 1000 / count,
            peak_mib=max(side.peak_mib() for side in sides),
            alone=_latency(hackney, agencies, load, 1, effort.seconds * 2),
            half=_latency(hackney, agencies, load, count / took_s / 2, effort.seconds * 2),
        )


def register(side: Side, agencies: Receiver) -> None:
    """Register an agency of each kind, at the same receiver."""
    for kind in _KINDS:
        wanted = {"kind": kind, "url": agencies.url(kind), "networks": ["127.0.0.0/8"]}
        agencies.know(kind, side.ask("POST", "/v1/agencies", wanted)["secret"])
    until("the sender has the card that names the agencies", lambda: has_sent_all(side))


def _send(hackney: Side, enfield: Side, load: Load, form: bytes, count: int) -> None:
    load.closed(hackney.sockets, [form], count)
    # Of each message the receiver queues deliveries before the sender has its receipt, and receipts before they end.
    for side in (hackney, enfield):
        until(f"the outbox of {side.borough.name} is empty", lambda side=side: has_sent_all(side))  # type: ignore[misc]


def _latency(hackney: Side, agencies: Receiver, load: Load, per_s: float, seconds: float) -> tuple[Spread, Spread]:
    readers = {kind for part in _sections(hackney) for kind in part}
    flow = Flow(post_form(ENFIELD.area, eight_sections()), per_s)
    agencies.taken()
    found = load.open_loop(hackney.sockets, [flow], seconds, Goal(hackney.store, "delivered", len(readers)))
    last_s = agencies.taken().last_s
    accepted = Spread.of([(last_s[message_id] - due_s) * 1000 for message_id, due_s in found.due_s.items()])
    return accepted, Spread.of(found.reached_ms[0])


def _sections(hackney: Side) -> list[list[str]]:
    """Who reads each section of the form that is sent, as the node itself says of the last one."""
    found = hackney.ask("GET", "/v1/outbox")["items"][0]
    sections: dict[str, list[str]] = {}
    for place in hackney.ask("GET", f"/v1/messages/{found['id']}")["sections"]:
        sections.setdefault(place["section"], []).append(place["agency"])
    return list(sections.values())


def report(found: Sequence[Delivered]) -> Found:
    """The table of all settings."""
    table = Table(
        "Handovers to the agencies' 2xx",
        f"The same form to ten agencies, in {found[0].webhooks_per_handover} webhooks. Milliseconds from the request "
        "until the last agency has answered 2xx, and until the sender has every receipt.",
        (
            *("store", "per second", "webhooks per second", "p50 to 2xx", "p99 to 2xx", "p50 to receipts"),
            *("p99 to receipts", "p50 to 2xx at half", "p99 to 2xx at half", "CPU sender", "CPU receiver"),
            *("CPU database", "memory, MiB"),
        ),
        [
            (
                *(one.setting.name, one.per_s, one.per_s * one.webhooks_per_handover),
                *(one.alone[0].p50_ms, one.alone[0].p99_ms, one.alone[1].p50_ms, one.alone[1].p99_ms),
                *(one.half[0].p50_ms, one.half[0].p99_ms),
                *(one.sender_cpu_ms, one.receiver_cpu_ms, one.database_cpu_ms, one.peak_mib),
            )
            for one in found
        ],
    )
    figures = {f"delivered.per_s.{one.setting.key}": one.per_s for one in found}
    figures |= {f"delivered.p99.{one.setting.key}": one.alone[0].p99_ms for one in found}
    return Found([table], figures)
