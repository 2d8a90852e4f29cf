"""What the exchange is to reach on two cores, with both nodes on the one machine, and whether it did in this run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.report import Table


@dataclass(frozen=True)
class Target:
    """A figure of the run, and the bound that it is to keep."""

    what: str
    figure: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def bound(self) -> str:
        """The bound, for people."""
        return (
            f"at least {self.at_least:,g} {self.unit}".rstrip()
            if self.at_least is not None
            else f"at most {self.at_most:,g} {self.unit}".rstrip()
        )


TARGETS = (
    Target("handovers of eight sections, node to node", "rate.sqlite", "a second", at_least=1000),
    Target("CPU of a handover, in sums of its primitives", "primitives.ratio", "", at_most=2),
    Target("p99 at half of full speed", "half.p99.sqlite", "ms", at_most=50),
    Target("p99 of urgent forms beside a backlog, in p99 without", "backlog.urgent_ratio", "", at_most=1.5),
    Target("memory at the largest store, in memory at the smallest", "growth.memory_ratio", "", at_most=1.1),
    Target("CPU of a handover at the largest store, in that at the smallest", "growth.cpu_ratio", "", at_most=1.2),
    Target("handovers a second, in those of pyas2lib", "comparison.pyas2lib_ratio", "", at_least=10),
)


def judge(figures: Mapping[str, float], targets: tuple[Target, ...] = TARGETS) -> Table:
    """Each target, what was measured, and whether it is met."""
    figures = {**figures, **_ratios(figures)}
    rows = [
        (target.what, target.bound, figures.get(target.figure), _verdict(target, figures.get)) for target in targets
    ]
    return Table("Targets", "", ("target", "bound", "measured", ""), rows)


def _ratios(figures: Mapping[str, float]) -> dict[str, float]:
    """What takes figures of two parts."""
    others = [value for name, value in figures.items() if name.startswith("comparison.") and "pyas2lib" in name]
    own = figures.get("rate.sqlite")
    return {"comparison.pyas2lib_ratio": own / max(others)} if own and others else {}


def _verdict(target: Target, figure: Callable[[str], float | None]) -> str:
    value = figure(target.figure)
    if value is None:
        return "not measured"
    return "met" if target.is_met(value) else "not met"
