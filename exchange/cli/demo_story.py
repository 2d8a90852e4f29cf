"""A story that real nodes play: what somebody tells, the commands that people type, what comes of them, and whether it
was as it must be. It fits a terminal of 80 columns.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from exchange.cli.client import CommandFailed

_COLUMNS: Final = 80
_DEADLINE_S: Final = 60.0
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)(\.\d+)?Z")
_TABLES: Final = ("id  ", "at  ", "section  ")


@dataclass(frozen=True)
class Typed:
    """What came of a command."""

    code: int
    output: str
    error: str


@dataclass
class Story:
    """Tells, types and checks; `quiet` leaves the telling to standard error."""

    root: Path
    quiet: bool
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_as_it_must_be(self) -> bool:
        """Whether everything that was checked came out as it must."""
        return all(step["ok"] for step in self.steps)

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._print(f"\n{text}\n{'-' * len(text)}")

    def tell(self, text: str) -> None:
        """A paragraph."""
        self._print("\n" + textwrap.fill(text, _COLUMNS, break_on_hyphens=False, break_long_words=False))

    def type(
        self,
        who: str,
        *words: str,
        directory: str | None = None,
        shown: Callable[[str], str] | None = None,
        expect: int = 0,
    ) -> Typed:
        """Type `exchange WORDS` at the machine of `who`, and print what comes of it, or what `shown` keeps of that.

        Raises:
            CommandFailed: it ends with another code than is expected.
        """
        place = self.root / (directory or who)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EXCHANGE_")}
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "exchange.cli.main", *words],
            cwd=place,
            env={**environment, "EXCHANGE_CONFIG": str(place / "exchange.toml")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self._print("")
        command = ["exchange", *map(shlex.quote, words)]
        for line in _broken([f"{who}$", *command]):
            self._print(line)
        for line in _shortened((shown or str)(done.stdout) + done.stderr).rstrip().splitlines():
            self._print(_fitted(line))
        if done.returncode != expect:
            raise CommandFailed(
                f"`{' '.join(command)}` ended with {done.returncode}, not {expect}", 1, f"It ran in {place}."
            )
        return Typed(done.returncode, done.stdout, done.stderr)

    def check(self, name: str, ok: bool, text: str, **saw: Any) -> None:
        """Record whether something is as it must be; say `text`, which tells what it is."""
        self.steps.append({"step": name, "ok": bool(ok), **saw})
        mark = "[ok] " if ok else "[WRONG] "
        self._print(
            "\n" + textwrap.fill(mark + text, _COLUMNS, break_on_hyphens=False, subsequent_indent=" " * len(mark))
        )

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait.

        Raises:
            CommandFailed: for too long.
        """
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                raise CommandFailed(f"after {_DEADLINE_S:g} seconds it is not so that {what}", 1)
            time.sleep(0.05)

    def document(self, fault: str) -> dict[str, Any]:
        """For a script."""
        return {"ok": self.is_as_it_must_be, "fault": fault, "dir": str(self.root), "steps": self.steps}

    def _print(self, text: str) -> None:
        click.echo(text, err=self.quiet)


def _broken(words: Sequence[str]) -> list[str]:
    """A command in lines that a shell takes for one, broken between words alone."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > _COLUMNS:
            lines[-1] += " \\"
            lines.append("    " + word)
        else:
            lines[-1] += " " + word
    return lines


def _shortened(output: str) -> str:
    """Without dates and fractions of seconds; the columns of a table as wide as they then need to be."""
    lines = _TIME.sub(r"\1", output).splitlines()
    at = next((at for at, line in enumerate(lines) if line.startswith(_TABLES)), None)
    if at is None:
        return "\n".join(lines)
    rows = [re.split(r" {2,}", line) for line in lines[at:]]
    widths = [max((len(row[at]) for row in rows if len(row) > at), default=0) for at in range(max(map(len, rows)))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join(lines[:at] + table)


def _fitted(line: str) -> str:
    """A line of output that fits, broken where it must be."""
    start = re.match(r" *(\d+\. |\* )?", line)
    indent = len(start[0]) if start else 0
    return textwrap.fill(
        line, _COLUMNS, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=len(line) > _COLUMNS
    )


def first(lines: int) -> Callable[[str], str]:
    """Keep the first lines of an output, and say how many there are more."""

    def keep(output: str) -> str:
        found = output.splitlines()
        left = len(found) - lines
        return "\n".join(found[:lines]) + (f"\n... and {left} more line{'s' * (left > 1)}\n" if left > 0 else "\n")

    return keep


def with_words(*words: str) -> Callable[[str], str]:
    """Keep the lines of an output that begin with one of the words."""
    return lambda output: "".join(f"{line}\n" for line in output.splitlines() if line.lstrip().startswith(tuple(words)))


def events_of(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The alarms of a kind."""
    return [row for row in rows if row["kind"] == kind]
