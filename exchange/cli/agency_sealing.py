"""Agencies with a key of their own, at the node: give it, get the challenge, prove it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import FAILURE, INVALID, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, write_file

_File = click.Path(path_type=Path, dir_okay=False)
_Existing = click.Path(path_type=Path, dir_okay=False, exists=True)

sealed_key_option = click.option(
    "--sealed-key", "key_file", type=_Existing, help="The public half of the agency's own key."
)


def checked(file: Path, read: Callable[[bytes], object]) -> Any:
    """The JSON of a file that the node is to look at, which `read` can read.

    Raises:
        CommandFailed: it cannot.
    """
    from exchange.schema.errors import AgencyKeyInvalid

    data = file.read_bytes()
    try:
        read(data)
    except AgencyKeyInvalid as error:
        raise CommandFailed(f"{file}: {error}; nothing was changed", INVALID, error.hint, error.code) from None
    return json.loads(data)


def read_key(file: Path) -> Any:
    """The public half of an agency's key.

    Raises:
        CommandFailed: it is none.
    """
    from exchange.schema.agency_keys import read_key_file

    return checked(file, read_key_file)


def tell_challenge(agency_id: str) -> None:
    """What is next, after a key was given."""
    click.echo("Nothing is sealed to the key before the agency has proven it. Where its receiver runs:", err=True)
    click.echo(f"  exchange agency prove {agency_id}", err=True)
    click.echo(f"Otherwise give it the challenge: exchange agency challenge {agency_id} FILE", err=True)


def own_key(document: dict[str, Any]) -> str:
    """Which key of its own an agency has, and which it is yet to prove."""
    waiting = f"{document['pending_key_id']} is not proven" if document["pending_key_id"] else ""
    return ", ".join(text for text in (document["key_id"], waiting) if text)


@click.command("rekey")
@click.argument("agency_id")
@click.option("--sealed-key", "key_file", type=_Existing, required=True, help="The public half of the agency's key.")
@config_option
@json_option
def agency_rekey(agency_id: str, key_file: Path, config: Path, as_json: bool) -> None:
    """Give an agency a key of its own, or another one; it counts once the agency has proven it."""
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/key", {"key": read_key(key_file)})
    if as_json:
        print_json(document)
        return
    click.echo(f"Noted the key {document['pending_key_id']}.")
    tell_challenge(agency_id)


@click.command("challenge")
@click.argument("agency_id")
@click.argument("file", type=_File)
@config_option
@json_option
def agency_challenge(agency_id: str, file: Path, config: Path, as_json: bool) -> None:
    """Write the challenge for the key that an agency is to prove to FILE, a new one."""
    document = Node(config).request("GET", f"/v1/agencies/{agency_id}/challenge")
    write_file(file, json.dumps(document, indent=2).encode() + b"\n")
    if as_json:
        print_json(document)
    else:
        click.echo(f"The agency answers it: exchange agency-key answer KEYFILE {file.name}", err=True)


@click.command("prove")
@click.argument("agency_id")
@click.option("--answer", "answer_file", type=_Existing, help="What the agency answered. [default: ask its endpoint]")
@config_option
@json_option
def agency_prove(agency_id: str, answer_file: Path | None, config: Path, as_json: bool) -> None:
    """Have an agency prove its key; from then on senders seal to it."""
    from exchange.schema.agency_keys import read_answer

    body = {"answer": checked(answer_file, read_answer)} if answer_file is not None else {}
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/prove", body)
    if as_json:
        print_json(document)
    elif document["ok"]:
        click.echo(f"OK: the agency holds the key {document['key_id']}. It is in the node's card now.")
        if document["released"]:
            click.echo(f"{document['released']} held sections are now being delivered to it.", err=True)
    if not document["ok"]:
        raise CommandFailed(
            f"the key is not proven: {document['error']}",
            FAILURE,
            "Check the agency's receiver, or have it answer by file: exchange agency challenge ID FILE",
            told=as_json,
        )
