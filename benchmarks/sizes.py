"""Handovers of larger forms: one section, that on risk, grows; the other seven stay as they are.

A form is 1 MiB at most, so a section of 1 MB is nearly all of it, and only one can be so large.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.forms import with_a_section_of
from benchmarks.load import Load
from benchmarks.nodes import Setting, two_boroughs
from benchmarks.report import Found, Table
from benchmarks.throughput import Effort, Rate, full_speed, warm_up

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
#: So much is sent of a size, and no more.
_MOST_BYTES = 50_000_000


@dataclass(frozen=True)
class Sized:
    """What was measured with a form."""

    section_bytes: int
    form_bytes: int
    rate: Rate


def measure(effort: Effort, load: Load, root: Path) -> list[Sized]:
    """Measure each size at full speed."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory,
        two_boroughs(Path(directory), Setting(), None) as (hackney, enfield),
    ):
        warm_up(hackney, enfield, load)
        for size in _SIZES:
            form = with_a_section_of(size)
            count = max(20, min(effort.count, _MOST_BYTES // len(form)))
            found.append(Sized(size, len(form), full_speed(hackney, enfield, count, load, form=form)))
    return found


def report(found: Sequence[Sized]) -> Found:
    """The table of all sizes."""
    columns = (
        *("section, bytes", "form, bytes", "per second", "MB per second", "CPU", "CPU sender", "CPU receiver"),
        *("in an envelope", "memory, MiB"),
    )
    rows = [
        (
            *(one.section_bytes, one.form_bytes, one.rate.per_s, one.rate.per_s * one.form_bytes / 1e6),
            *(one.rate.cpu_ms, one.rate.sender_cpu_ms, one.rate.receiver_cpu_ms, one.rate.batch),
            max(one.rate.sender_peak_mib, one.rate.receiver_peak_mib),
        )
        for one in found
    ]
    note = (
        "One of eight sections grows. A form is 1 MiB at most, so one section of 1 MB is nearly all of it. CPU in "
        "milliseconds for each handover."
    )
    return Found(
        [Table("Size of a section", note, columns, rows)],
        {f"sizes.cpu.{one.section_bytes}": one.rate.cpu_ms for one in found},
    )
