"""What is printed: tables of figures, as plain text, as Markdown, and as JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Figures under a title; `note` says what was done, in a sentence or two."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Found:
    """What a part of the run found: tables for people, and figures by name for targets and the plot."""

    tables: Sequence[Table]
    figures: dict[str, float] = field(default_factory=dict)


def figure(value: Cell) -> str:
    """A figure as people read it: three digits that count, none that chance made."""
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return "-"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_text(table: Table) -> str:
    """For a terminal."""
    rows = [[figure(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.columns, *rows, strict=True)]
    lines = [table.title, *([table.note] if table.note else [])]
    for row in [list(table.columns), *rows]:
        first, *others = (
            cell.ljust(width) if number == 0 or not _is_number(table, number) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join([first, *others]).rstrip())
    return "\n".join(lines) + "\n"


def as_markdown(table: Table) -> str:
    """For a page."""
    marks = ["---:" if _is_number(table, number) else "---" for number in range(len(table.columns))]
    body = [[figure(cell) for cell in row] for row in table.rows]
    lines = ["| " + " | ".join(row) + " |" for row in (list(table.columns), marks, *body)]
    return "\n".join([f"### {table.title}", "", *([table.note, ""] if table.note else []), *lines]) + "\n"


def _is_number(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows]
    return bool(cells) and not any(isinstance(cell, str) for cell in cells)


def figures_of(parts: Iterable[Found]) -> dict[str, float]:
    """The figures of all parts together."""
    return {name: value for part in parts for name, value in part.figures.items()}
