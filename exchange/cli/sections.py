"""Sections at the node: what the borough's people say of one for an agency, and the questions that came."""

from pathlib import Path
from typing import Any

import click

from exchange.cli.client import Node
from exchange.cli.links import COMMANDS
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group()
def section() -> None:
    """Say what becomes of a section, on behalf of the agency that has it."""


_agency_option = click.option("--agency", required=True, help="The agency for which you speak, such as housing/south.")


def _say(verb: str, message_id: str, section: str, config: Path, as_json: bool, **body: Any) -> None:
    given = {name: value for name, value in body.items() if value is not None}
    document = Node(config).request("POST", f"/v1/sections/{message_id}/{section}/{verb}", given)
    if as_json:
        print_json(document)
    else:
        click.echo(f"Section {section} is {document['rung']}. The sending borough is told that it is your word.")


@section.command("own")
@click.argument("message_id")
@click.argument("section")
@_agency_option
@click.option("--name", required=True, help="Who holds the section from now on.")
@click.option("--role", required=True, help="Their role.")
@click.option("--contact", required=True, help="How to reach them.")
@click.option("--note", help="A note for the agency's counterpart at the sending borough.")
@config_option
@json_option
def section_own(message_id: str, section: str, config: Path, as_json: bool, **body: Any) -> None:
    """Record that a named holder of an agency has taken a section on."""
    _say("own", message_id, section, config, as_json, **body)


@section.command("query")
@click.argument("message_id")
@click.argument("section")
@_agency_option
@click.option("--question", required=True, help="The question to the agency's counterpart at the sending borough.")
@config_option
@json_option
def section_query(message_id: str, section: str, config: Path, as_json: bool, **body: Any) -> None:
    """Ask the sending borough about a section for an agency."""
    _say("query", message_id, section, config, as_json, **body)


@section.command("redirect")
@click.argument("message_id")
@click.argument("section")
@_agency_option
@click.option("--reason", required=True, help="Why it is not theirs.")
@click.option("--to", help="An agency of this borough to which it goes at once.")
@click.option("--whose", help="Whose it may be elsewhere.")
@config_option
@json_option
def section_redirect(message_id: str, section: str, config: Path, as_json: bool, **body: Any) -> None:
    """Say that a section is not an agency's."""
    _say("redirect", message_id, section, config, as_json, **body)


@click.group()
def questions() -> None:
    """What agencies of other boroughs ask about sections that were sent."""


@questions.command("list")
@config_option
@json_option
def questions_list(config: Path, as_json: bool) -> None:
    """The latest questions, newest first, and whether your agency has each."""
    document = Node(config).request("GET", "/v1/questions")
    if as_json:
        print_json(document)
        return
    rows = [
        (row["at"], row["from"], row["agency"], f"{row['id']}/{row['section']}", _told(row), _question(row))
        for row in document["items"]
    ]
    print_table(("asked", "by", "agency", "section", "your agency", "question"), rows)
    if rows:
        click.echo("Reply by telephone: the exchange carries no replies yet.", err=True)


def _told(row: dict[str, Any]) -> str:
    return "has it" if row["delivered"] else (f"held: {row['held']}" if row["held"] else "is being told")


def _question(row: dict[str, Any]) -> str:
    if row["erased"]:
        return "(erased)"
    return "(sealed to your agency's key)" if row["sealed"] else str(row["question"])


for _verb in COMMANDS:
    section.add_command(_verb)
