"""Where an agency's own borough's node is, for commands that tell it something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from exchange.cli.client import INVALID, USAGE, CommandFailed

if TYPE_CHECKING:
    from exchange.agency.asking import Node

F = TypeVar("F", bound=Callable[..., object])
_Existing = click.Path(path_type=Path, dir_okay=False, exists=True)


def _options(required: bool) -> Callable[[F], F]:
    options = (
        click.option("--node", "node_url", required=required, help="Where the borough's node listens to agencies."),
        click.option(
            "--token-file", type=_Existing, required=required, help="A file with the agency's token, from the borough."
        ),
        click.option("--ca-file", type=_Existing, help="The authority of the node's certificate, in PEM."),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


node_options = _options(required=True)
optional_node_options = _options(required=False)


def open_node(url: str, token_file: Path | None, ca_file: Path | None) -> Node:
    """The node at a URL.

    Raises:
        CommandFailed: there is no token, or the URL is none to which one may be sent.
    """
    from exchange.agency.asking import Node
    from exchange.agency.errors import NodeUnreachable

    if token_file is None:
        raise CommandFailed("--node needs --token-file", USAGE, "Your borough makes one: exchange agency token new.")
    try:
        return Node(url, token_file.read_text().strip(), ca_file)
    except NodeUnreachable as error:
        raise CommandFailed(str(error), USAGE, code=error.code) from None
    except OSError:
        raise CommandFailed(f"{ca_file or token_file} cannot be read", INVALID) from None
