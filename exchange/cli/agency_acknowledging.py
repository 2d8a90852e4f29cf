"""What an agency says of a section: own it, ask, redirect it; signed with its own key where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exchange.cli.agency_keys import key_passphrase_option, open_keys
from exchange.cli.agency_node import node_options, open_node
from exchange.cli.agency_receiving import known_senders
from exchange.cli.client import INVALID, TRUST_REFUSED, CommandFailed
from exchange.cli.output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

_Existing = click.Path(path_type=Path, dir_okay=False, exists=True)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        json_option,
        key_passphrase_option,
        click.option("--cards", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Known cards."),
        click.option("--key", "key_file", type=_Existing, help="The agency's key file, for what came sealed."),
        node_options,
        click.argument("file", type=_Existing),
    ):
        command = option(command)
    return command


@click.command("agency-own")
@click.option("--name", required=True, help="Who holds the section from now on.")
@click.option("--role", required=True, help="Their role.")
@click.option("--contact", required=True, help="How to reach them.")
@click.option("--note", help="A note for your counterpart at the sending borough.")
@_common
def agency_own(name: str, role: str, contact: str, note: str | None, **common: Any) -> None:
    """Take on the section in FILE, the body of a webhook."""
    _say("owned", {"holder": {"name": name, "role": role, "contact": contact}, "note": note}, None, **common)


@click.command("agency-query")
@click.option("--question", required=True, help="The question.")
@_common
def agency_query(question: str, **common: Any) -> None:
    """Ask your counterpart at the sending borough about the section in FILE, the body of a webhook."""
    _say("queried", {"question": question}, None, **common)


@click.command("agency-redirect")
@click.option("--reason", required=True, help="Why it is not yours.")
@click.option("--to", help="An agency of this borough, such as housing/south, to which it goes at once.")
@click.option("--whose", help="Whose it may be elsewhere.")
@_common
def agency_redirect(reason: str, to: str | None, whose: str | None, **common: Any) -> None:
    """Say that the section in FILE, the body of a webhook, is not yours."""
    _say("redirected", {"reason": reason, "whose": whose}, to, **common)


def _say(
    rung: str,
    said: dict[str, Any],
    to: str | None,
    *,
    file: Path,
    node_url: str,
    token_file: Path,
    ca_file: Path | None,
    key_file: Path | None,
    cards: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    import msgspec

    from exchange.agency.acknowledging import Word, say
    from exchange.agency.errors import AgencyError, SenderChanged
    from exchange.agency.event import MOST_BYTES, SectionEvent, parse_event
    from exchange.schema.errors import SchemaError
    from exchange.schema.wire import Rung
    from exchange.schema.words import Said

    with file.open("rb") as opened_file:
        data = opened_file.read(MOST_BYTES + 1)
    try:
        word = Word(Rung(rung), msgspec.convert({key: value for key, value in said.items() if value}, Said), to)
    except msgspec.ValidationError as error:
        raise CommandFailed(f"this does not fit: {str(error).rpartition('$.')[2].strip('`')}", INVALID) from None
    node, senders = open_node(node_url, token_file, ca_file), known_senders(cards)
    keys = open_keys(key_file, passphrase_file)[0] if key_file is not None else None
    try:
        event = parse_event(data)
        if not isinstance(event, SectionEvent):
            raise CommandFailed(f"{file}: that is not a section", INVALID)
        answer = say(node, event, word, keys, senders)
    except (AgencyError, SchemaError) as error:
        code = TRUST_REFUSED if isinstance(error, SenderChanged) else INVALID
        raise CommandFailed(str(error), code, error.hint, getattr(error, "refusal", error.code)) from None
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['id']} is {answer['rung']}. The sending borough is told.")
