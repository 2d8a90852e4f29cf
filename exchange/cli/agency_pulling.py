"""What an agency that fetches runs: ask its borough's node, keep what comes, acknowledge it. This needs no node."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from exchange.cli.agency_keys import key_passphrase_option, open_keys
from exchange.cli.agency_receiving import known_senders
from exchange.cli.client import TRUST_REFUSED, TRY_LATER, USAGE, CommandFailed
from exchange.cli.output import json_option, print_json

if TYPE_CHECKING:
    from exchange.agency.pulling import Keeper

_Existing = click.Path(path_type=Path, dir_okay=False, exists=True)
_Directory = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command("agency-pull")
@click.option("--url", required=True, help="Where the borough's node listens to agencies.")
@click.option("--token-file", type=_Existing, required=True, help="A file with the agency's token.")
@click.option("--key", "key_file", type=_Existing, help="The agency's key file, for what is sealed to it.")
@click.option("--to", "directory", type=_Directory, help="A directory for a JSON file of each section, in clear.")
@click.option("--inbox", type=_Directory, help="The store of agency-serve, whose files are sealed to --key.")
@click.option("--cards", type=_Directory, help="A directory with the cards (*.json) of boroughs that you compared.")
@click.option("--known-only", is_flag=True, help="Refuse senders of whom there is no card in --cards.")
@click.option("--sealed-only", is_flag=True, help="Refuse sections that the borough's node has opened.")
@click.option("--ca-file", type=_Existing, help="Trust only this CA for the node's TLS certificate.")
@click.option("--once", is_flag=True, help="Take what waits, then end.")
@key_passphrase_option
@json_option
def agency_pull(
    url: str,
    token_file: Path,
    key_file: Path | None,
    directory: Path | None,
    inbox: Path | None,
    cards: Path | None,
    known_only: bool,
    sealed_only: bool,
    ca_file: Path | None,
    once: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Fetch an agency's sections from its borough's node, keep them, and acknowledge them; until it is told to stop."""
    from exchange.agency.errors import FetchRefused, NotNow
    from exchange.agency.fetching import Node
    from exchange.agency.pulling import Files, Puller, Sealed
    from exchange.agency.receiving import Agency, Inbox

    if (directory is None) == (inbox is None):
        raise CommandFailed("give one of --to and --inbox", USAGE)
    if key_file is None and (inbox is not None or known_only or sealed_only or cards is not None):
        raise CommandFailed("--inbox, --cards, --known-only and --sealed-only need --key", USAGE)
    senders = known_senders(cards)
    keys = open_keys(key_file, passphrase_file)[0] if key_file is not None else None
    signal.signal(signal.SIGTERM, _stop)
    puller: Puller | None = None
    try:
        node = Node(url, token_file.read_text().strip(), str(ca_file) if ca_file else None)
        who = node.who()
        agency = None if keys is None else Agency(who.kind, who.origin, keys, (), senders, sealed_only, known_only)
        keeper: Keeper
        if inbox is not None and agency is not None:
            keeper = Sealed(agency, Inbox(inbox))
        else:
            keeper = Files(directory or Path(), who.origin, agency)
        puller = Puller(node, keeper, lambda text: click.echo(text, err=True))
        click.echo(f"Fetching for {who.kind} from {who.origin}.", err=True)
        if once:
            puller.until_empty()
        else:
            puller.run()
    except NotNow as error:
        raise CommandFailed(str(error), TRY_LATER, error.hint, error.code) from None
    except FetchRefused as error:
        raise CommandFailed(str(error), TRUST_REFUSED, error.hint, error.code) from None
    finally:
        if as_json and puller is not None:
            print_json({"kept": puller.kept, "refused": puller.refused})


def _stop(_: int, __: object) -> NoReturn:
    # Nothing is acknowledged before it is kept, and what was kept and not acknowledged is known by its name.
    sys.exit(0)
