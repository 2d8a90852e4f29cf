"""`exchange section link`: one-time links by which somebody at an agency without an API takes a section on."""

from pathlib import Path

import click

from exchange.cli.client import Node
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.command("link")
@click.argument("message_id")
@click.argument("section")
@click.option("--agency", "name", help="Which agency's, where several have it.")
@click.option("--days", type=int, default=7, show_default=True, help="How long it is good.")
@config_option
@json_option
def section_link(message_id: str, section: str, name: str | None, days: int, config: Path, as_json: bool) -> None:
    """Make a link by which somebody at the agency takes SECTION of a message on; it is shown once and works once."""
    body = {"days": days, **({"agency": name} if name else {})}
    made = Node(config).request("POST", f"/v1/sections/{message_id}/{section}/links", body)
    if as_json:
        print_json(made)
        return
    click.echo(made["url"])
    click.echo(
        f"Give it to one person at {made['agency']}, by a safe way: whoever has it can use it, once, until "
        f"{made['expires_at']}.\nWithdraw it with: exchange section unlink {made['id']}",
        err=True,
    )


@click.command("links")
@click.argument("message_id")
@click.argument("section")
@config_option
@json_option
def section_links(message_id: str, section: str, config: Path, as_json: bool) -> None:
    """The links for SECTION of a message, and what became of each."""
    document = Node(config).request("GET", f"/v1/sections/{message_id}/{section}/links")
    if as_json:
        print_json(document)
        return
    rows = [
        (
            row["id"],
            row["agency"],
            row["made_by"] or "(with the section)",
            row["expires_at"],
            row["used_at"],
            row["withdrawn_at"],
        )
        for row in document["items"]
    ]
    print_table(("id", "agency", "made by", "expires", "used", "withdrawn"), rows)


@click.command("unlink")
@click.argument("link_id")
@config_option
@json_option
def section_unlink(link_id: str, config: Path, as_json: bool) -> None:
    """Withdraw a link that nobody has used."""
    document = Node(config).request("DELETE", f"/v1/links/{link_id}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"Withdrew {link_id}.")


COMMANDS = (section_link, section_links, section_unlink)
