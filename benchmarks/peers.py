"""What a handover costs where the node has registered many peers: forms to one of them, and forms to all in turn."""

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.forms import eight_sections
from benchmarks.load import Load, post_form
from benchmarks.nodes import Setting, Side, has_sent_all, two_boroughs, until
from benchmarks.played import Described, played
from benchmarks.report import Found, Table
from benchmarks.throughput import Effort, Rate, full_speed, warm_up

_COUNTS = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Peered:
    """What was measured with so many peers."""

    peers: int
    #: All to one peer, a real node.
    to_one: Rate
    #: To every played peer in turn: how many a second, and the sender's CPU in milliseconds.
    in_turn_per_s: float
    in_turn_cpu_ms: float


def measure(effort: Effort, load: Load, root: Path) -> list[Peered]:
    """Measure with one peer, then with ever more; the first is a real node, and the others are played."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory,
        two_boroughs(Path(directory), Setting(), None) as (hackney, enfield),
        contextlib.ExitStack() as stack,
    ):
        warm_up(hackney, enfield, load)
        others = stack.enter_context(played(max(_COUNTS)))
        registered = 0
        for count in _COUNTS:
            for other in others[registered : count - 1]:
                hackney.ask("POST", "/v1/peers", {"card": other.card, "fingerprint": other.fingerprint})
            registered = max(registered, count - 1)
            until("each peer has been greeted", lambda: has_sent_all(hackney), every_s=0.2)
            to_one = full_speed(hackney, enfield, effort.count // 2, load)
            found.append(Peered(count, to_one, *_in_turn(hackney, others[:registered], effort.count // 4, load)))
    return found


def _in_turn(hackney: Side, others: Sequence[Described], count: int, load: Load) -> tuple[float, float]:
    if not others:
        return float("nan"), float("nan")
    own = hackney.borough.area
    requests = [post_form(other.area, eight_sections(own, other.area)) for other in others]
    before_s, started_s = hackney.cpu_s(), time.perf_counter()
    load.closed(hackney.sockets, requests, count)
    until("the outbox is empty", lambda: has_sent_all(hackney))
    return count / (time.perf_counter() - started_s), (hackney.cpu_s() - before_s) * 1000 / count


def report(found: Sequence[Peered]) -> Found:
    """The table of all numbers of peers."""
    columns = (
        *("peers", "per second to one", "CPU sender", "CPU receiver", "per second in turn", "CPU sender in turn"),
        "memory of sender, MiB",
    )
    rows = [
        (
            *(one.peers, one.to_one.per_s, one.to_one.sender_cpu_ms, one.to_one.receiver_cpu_ms),
            *(one.in_turn_per_s, one.in_turn_cpu_ms, one.to_one.sender_peak_mib),
        )
        for one in found
    ]
    note = (
        "All forms to one peer while so many are registered; then to each of the others in turn, where each envelope "
        "holds few. CPU in milliseconds for each handover."
    )
    return Found(
        [Table("Registered peers", note, columns, rows)],
        {f"peers.cpu.{one.peers}": one.to_one.sender_cpu_ms for one in found},
    )
