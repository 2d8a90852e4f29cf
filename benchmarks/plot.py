"""A plot of a run as SVG: panels of bars, one for each family of figures that the run found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.report import figure

_WIDTH: Final = 820
_LABEL: Final = 250
_BAR: Final = 20
_GAP: Final = 6
_HEAD: Final = 46
_STYLE: Final = (
    "text{font:14px system-ui,sans-serif;fill:#0b0c0c}.title{font-weight:bold;font-size:16px}"
    ".bar{fill:#1d70b8}svg{background:#fff}"
)


@dataclass(frozen=True)
class Panel:
    """Figures whose names begin alike."""

    title: str
    prefix: str
    unit: str


PANELS: Final = (
    Panel("Handovers a second, node to node", "rate.", "a second"),
    Panel("Handovers a second, to the agencies' 2xx", "delivered.per_s.", "a second"),
    Panel("p99 at half of full speed", "half.p99.", "ms"),
    Panel("CPU of a handover by step, both nodes", "steps.", "ms"),
    Panel("CPU of a handover, by messages stored", "growth.cpu.", "ms"),
    Panel("CPU of the sender, by registered peers", "peers.cpu.", "ms"),
    Panel("CPU of a handover, by bytes of a section", "sizes.cpu.", "ms"),
    Panel("The same work elsewhere, a second", "comparison.per_s.", "a second"),
)


def plot(figures: Mapping[str, float]) -> str:
    """The SVG; a panel of which nothing was measured is left out."""
    parts, top = [], 10
    for panel in PANELS:
        values = [
            (name.removeprefix(panel.prefix), value) for name, value in figures.items() if name.startswith(panel.prefix)
        ]
        if values:
            parts.append(_panel(panel, values, top))
            top += _HEAD + len(values) * (_BAR + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}" '
        f'role="img" aria-label="What the benchmarks found"><style>{_STYLE}</style>\n' + "".join(parts) + "</svg>\n"
    )


def _panel(panel: Panel, values: Sequence[tuple[str, float]], top: int) -> str:
    most = max(value for _, value in values) or 1.0
    lines = [f'<text class="title" x="0" y="{top + 24}">{escape(panel.title)}</text>\n']
    for number, (label, value) in enumerate(values):
        y = top + _HEAD - 10 + number * (_BAR + _GAP)
        width = (_WIDTH - _LABEL - 130) * value / most
        name = f"{int(label):,}" if label.isdigit() else label
        lines.append(
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="bar" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 15}">{figure(value)} {escape(panel.unit)}</text>\n'
        )
    return "".join(lines)
