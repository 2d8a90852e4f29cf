"""Peers: add, list, show, verify, suspend, remove."""

import json
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import INVALID, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group()
def peer() -> None:
    """Counterpart boroughs' nodes."""


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    from exchange.crypto.signing import format_fingerprint

    for key in ("origin", "area", "name", "url", "trust", "serial", "verified_at", "last_error"):
        if document[key] is not None:
            click.echo(f"{key + ':':12} {document[key]}")
    click.echo(f"{'fingerprint:':12} {format_fingerprint(document['fingerprint'])}")
    if document["trust"] == "unverified":
        click.echo(
            "Nothing is sent to an unverified peer or heard from it. Compare the fingerprint with the other borough "
            f"by telephone, then run: exchange peer verify {document['origin']} --fingerprint ...",
            err=True,
        )


@peer.command("add")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--fingerprint", help="The fingerprint that the other admin told you; verifies the peer if it matches.")
@click.option("--ca-file", help="Trust only this CA for the peer's TLS certificate.")
@config_option
@json_option
def peer_add(file: Path, fingerprint: str | None, ca_file: str | None, config: Path, as_json: bool) -> None:
    """Register the peer whose card is in FILE."""
    try:
        card = json.loads(file.read_bytes())
    except ValueError:
        raise CommandFailed(f"{file} is not a card file", INVALID) from None
    body = {"card": card, "fingerprint": fingerprint, "ca_file": str(Path(ca_file).absolute()) if ca_file else None}
    _show(Node(config).request("POST", "/v1/peers", body), as_json)


@peer.command("list")
@config_option
@json_option
def peer_list(config: Path, as_json: bool) -> None:
    """All registered peers."""
    document = Node(config).request("GET", "/v1/peers")
    if as_json:
        print_json(document)
        return
    rows = [(row["origin"], row["area"], row["trust"], row["last_error"]) for row in document["items"]]
    print_table(("origin", "area", "trust", "last error"), rows)


@peer.command("show")
@click.argument("origin")
@config_option
@json_option
def peer_show(origin: str, config: Path, as_json: bool) -> None:
    """One peer."""
    _show(Node(config).request("GET", f"/v1/peers/{origin}"), as_json)


@peer.command("verify")
@click.argument("origin")
@click.option("--fingerprint", required=True, help="The fingerprint that the other admin told you.")
@config_option
@json_option
def peer_verify(origin: str, fingerprint: str, config: Path, as_json: bool) -> None:
    """Trust a peer after comparing its fingerprint out of band."""
    _show(Node(config).request("POST", f"/v1/peers/verify/{origin}", {"fingerprint": fingerprint}), as_json)


@peer.command("suspend")
@click.argument("origin")
@config_option
@json_option
def peer_suspend(origin: str, config: Path, as_json: bool) -> None:
    """Send a peer nothing and hear nothing of it, until it is verified again."""
    _show(Node(config).request("POST", f"/v1/peers/suspend/{origin}"), as_json)


@peer.command("remove")
@click.argument("origin")
@config_option
@json_option
def peer_remove(origin: str, config: Path, as_json: bool) -> None:
    """Forget a peer that nothing waits for."""
    document = Node(config).request("DELETE", f"/v1/peers/{origin}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"Removed {origin}.")
