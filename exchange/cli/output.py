"""How commands take their options and print: data on standard output, the rest on standard error."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from exchange.cli.client import USAGE, CommandFailed

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """`--config`, or the variable EXCHANGE_CONFIG."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="EXCHANGE_CONFIG",
        default=Path("exchange.toml"),
        show_default=True,
        help="The node's configuration file.",
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def check_free(path: Path, nothing: str = "nothing was written") -> None:
    """Refuse a file that is there already, before anything is done.

    Raises:
        CommandFailed: it is there.
    """
    if path.exists() or path.is_symlink():
        raise CommandFailed(f"{path} is there already; {nothing}", USAGE, "Name another file.")


def write_file(path: Path, data: bytes) -> None:
    """Write what everybody may read to a file that is not there yet, or to a device such as /dev/stdout.

    Raises:
        CommandFailed: the file is there already.
        OSError: it cannot be written.
    """
    is_device = path.exists() and not path.is_file()
    try:
        with path.open("wb" if is_device else "xb") as file:
            file.write(data)
    except FileExistsError:
        raise CommandFailed(f"{path} is there already; nothing was written", USAGE, "Name another file.") from None


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file for its owner alone that is there only once it is whole, and in place of no other.

    Raises:
        CommandFailed: the file is there already.
        OSError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            raise CommandFailed(f"{path} is there already; nothing was written", USAGE, "Name another file.") from None
    finally:
        part.unlink(missing_ok=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table on standard output."""
    cells = [[("" if value is None else str(value)) for value in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(headings), *cells]) for at in range(len(headings))]
    for row in [list(headings), *cells]:
        click.echo("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
