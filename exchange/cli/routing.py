"""Routing: show the rules in force, try others on what has arrived, and route again what waits."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import INVALID, CommandFailed, Node
from exchange.cli.endpoints import since_when
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group()
def route() -> None:
    """Which of the borough's agencies gets what."""


@route.command("show")
@config_option
@json_option
def show(config: Path, as_json: bool) -> None:
    """The rules in force, the agencies, and what is doubtful about them."""
    document = Node(config).request("GET", "/v1/routing")
    if as_json:
        print_json(document)
        return
    if document["single_point_of_contact"]:
        click.echo(f"Single point of contact: {document['single_point_of_contact']}, for what its kind may read.\n")
    names = ("sections", "moves", "age_bands", "areas", "to")
    rows = [(at, *(", ".join(rule.get(name, ())) for name in names)) for at, rule in enumerate(document["rules"], 1)]
    rows += [("", "where nobody else can", "", "", "", name) for name in document["fallback"]]
    print_table(("rule", "sections", "moves", "age bands", "from areas", "to"), rows)
    click.echo("")
    print_table(("agency", "takes sections"), [(row["name"], row["waits"] or "yes") for row in document["agencies"]])
    _tell(document["findings"])


def _tell(findings: list[dict[str, str]]) -> None:
    for finding in findings:
        click.echo(f"{finding['severity']}: routing.{finding['path']}: {finding['message']}", err=True)


def _rules_in(file: Path) -> Any:
    """The table `routing` of a configuration file.

    Raises:
        CommandFailed: it has none.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))["routing"]
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"{file} is not TOML: {error}", INVALID) from None
    except KeyError:
        hint = "The rules stand in it as they will in the configuration: [[routing.rule]]"
        raise CommandFailed(f"{file} has no table `routing`", INVALID, hint) from None


@route.command("dry-run")
@click.option(
    "--rules",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A TOML file with the table `routing` to try. [default: the rules in force]",
)
@click.option("--since", default="7d", show_default=True, help="A time with its zone, or 90m, 6h, 7d.")
@config_option
@json_option
def dry_run(file: Path | None, since: str, config: Path, as_json: bool) -> None:
    """What would go where of the messages that arrived, and what would change. Nothing is routed by this."""
    body: dict[str, Any] = {"since": since_when(since, datetime.now(UTC))}
    if file is not None:
        body["rules"] = _rules_in(file)
    document = Node(config).request("POST", "/v1/routing/trial", body)
    if as_json:
        print_json(document)
        return
    click.echo(f"{document['sections']} sections of {document['messages']} messages since {document['since']}.\n")
    rows = [(row["agency"], row["sections"], row["now"]) for row in document["agencies"]]
    rows += [(f"held: {row['reason']}", row["sections"], row["now"]) for row in document["held"]]
    print_table(("goes to", "sections", "now"), rows)
    if document["changes"]:
        click.echo("")
        print_table(
            ("now", "would be", "sections"), [(row["now"], row["then"], row["sections"]) for row in document["changes"]]
        )
    elif file is not None:
        click.echo("\nNothing would change.")
    if document["unread"]:
        click.echo(
            f"\nOf {document['unread']} messages this node cannot read the move and the age band: rules that ask "
            "for them do not fit.",
            err=True,
        )
    if document["left_off"]:
        click.echo("There are more messages: only the latest were looked at.", err=True)
    _tell(document["findings"])


@route.command("again")
@click.argument("agency")
@config_option
@json_option
def again(agency: str, config: Path, as_json: bool) -> None:
    """Route again by the rules in force what waits for AGENCY, and what is held for its kind."""
    document = Node(config).request("POST", "/v1/routing/again", {"agency": agency})
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document['deliveries']} deliveries are routed again.")
