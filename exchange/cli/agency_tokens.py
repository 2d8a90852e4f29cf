"""Tokens of agencies that ask the node: new, list, revoke."""

from pathlib import Path

import click

from exchange.cli.client import Node
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group("token")
def agency_token() -> None:
    """Tokens with which an agency asks this node, at the address of [agencies] in the configuration."""


@agency_token.command("new")
@click.argument("agency_id")
@click.option("--days", type=int, help="How long it is good. [default: until it is revoked]")
@config_option
@json_option
def token_new(agency_id: str, days: int | None, config: Path, as_json: bool) -> None:
    """Make a token for an agency; it is shown once. For a change: make one, have the agency use it, revoke the old."""
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/tokens", {"days": days})
    if as_json:
        print_json(document)
    else:
        click.echo(document["token"])
        tell_where(document["url"])


@agency_token.command("list")
@click.argument("agency_id")
@config_option
@json_option
def token_list(agency_id: str, config: Path, as_json: bool) -> None:
    """The tokens of an agency, and when each was last used, to the hour."""
    document = Node(config).request("GET", f"/v1/agencies/{agency_id}/tokens")
    if as_json:
        print_json(document)
        return
    rows = [(row["id"], row["created_at"], row["expires_at"], row["used_at"]) for row in document["items"]]
    print_table(("id", "made", "expires", "last used"), rows)


@agency_token.command("revoke")
@click.argument("agency_id")
@click.argument("token_id")
@config_option
@json_option
def token_revoke(agency_id: str, token_id: str, config: Path, as_json: bool) -> None:
    """End a token at once."""
    document = Node(config).request("DELETE", f"/v1/agencies/{agency_id}/tokens/{token_id}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"Revoked {token_id}.")


def tell_where(url: str | None) -> None:
    """Say where an agency uses its token."""
    if url is None:
        click.echo("The configuration does not say where agencies reach this node: set [agencies] url.", err=True)
    else:
        click.echo(f"The agency asks at {url}", err=True)
