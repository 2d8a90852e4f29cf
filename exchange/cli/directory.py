"""`exchange directory`: for the body that runs one (on files, without a node), and for a node that joins one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import INVALID, TRUST_REFUSED, CommandFailed, Node
from exchange.cli.directory_body import (
    add,
    collect,
    discard,
    init,
    keys,
    publish,
    remove,
    renew,
    sign,
    status,
)
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group()
def directory() -> None:
    """A directory of boroughs: run one, or join one."""


for command in (init, keys, add, remove, renew, sign, collect, discard, publish, status):
    directory.add_command(command)

_STATES = {
    "fresh": "It is fresh.",
    "unreachable": "It cannot be reached now. What it said last holds until it expires.",
    "refused": "Nothing is taken from it. Peers go on as before.",
}


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    for key in ("url", "policy", "state", "detail", "problem_since", "refreshed_at", "checked_at"):
        if document[key] is not None:
            click.echo(f"{key.replace('_', ' ') + ':':16} {document[key]}")
    if document["next_expiry"]:
        click.echo(f"{'next expiry:':16} {document['next_expiry']['at']} ({document['next_expiry']['role']})")
    click.echo(f"{'this node:':16} {document['own']}")
    rows = [
        (row["area"], row["name"], row["origin"], row["trust"], (row["fingerprint"] or "")[:16], row["note"])
        for row in document["items"]
    ]
    click.echo()
    print_table(("area", "name", "origin", "trust here", "fingerprint", "not taken because"), rows)
    click.echo(_STATES[document["state"]], err=True)
    if document["own"] == "differs":
        click.echo("Somebody else is listed in the place of this node: telephone the body at once.", err=True)
    elif document["own"] == "missing":
        click.echo("This node is not listed: send its card to the body (exchange card export FILE).", err=True)


@directory.command("join")
@click.argument("url")
@click.option(
    "--root",
    "root_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The directory's root file, which the body gave you by a way that you trust.",
)
@click.option("--root-fingerprint", help="What the body told you of the root file; refused where it is another.")
@click.option("--ca-file", help="Trust only this CA for the directory's TLS certificate.")
@click.option("--allow-network", "networks", multiple=True, help="A network that the directory's address may lie in.")
@click.option("--peer-ca-file", help="Trust only this CA for the TLS certificates of boroughs that come from it.")
@click.option(
    "--peer-network",
    "peer_networks",
    multiple=True,
    help="A network that the addresses of boroughs that come from it may lie in.",
)
@config_option
@json_option
def join(
    url: str,
    root_file: Path,
    root_fingerprint: str | None,
    ca_file: str | None,
    networks: tuple[str, ...],
    peer_ca_file: str | None,
    peer_networks: tuple[str, ...],
    config: Path,
    as_json: bool,
) -> None:
    """Join the directory at URL, and apply what it lists."""
    from exchange.crypto.signing import format_fingerprint, parse_fingerprint
    from exchange.node.directory_client import read_root
    from exchange.node.directory_client import root_fingerprint as fingerprint_of

    data = root_file.read_bytes()
    try:
        read_root(data)
        root = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"{root_file}: {error}", INVALID, "Ask the body for its root file.") from None
    found = fingerprint_of(data)
    if root_fingerprint is not None and parse_fingerprint(root_fingerprint) != found:
        raise CommandFailed(
            f"{root_file} is not the root that the body told you of; nothing was joined",
            TRUST_REFUSED,
            "Do not go on: get the root file again, and compare by telephone.",
            "fingerprint-mismatch",
        )
    body = {
        "url": url,
        "root": root,
        "ca_file": str(Path(ca_file).absolute()) if ca_file else None,
        "networks": networks,
        "peer_ca_file": str(Path(peer_ca_file).absolute()) if peer_ca_file else None,
        "peer_networks": peer_networks,
    }
    document = Node(config).request("POST", "/v1/directory", body, wait_s=300)
    if root_fingerprint is None:
        click.echo(f"The root's fingerprint: {format_fingerprint(found)}", err=True)
        click.echo("Compare it with what the body tells by telephone or prints, if you have not yet.", err=True)
    _show(document, as_json)


@directory.command("leave")
@config_option
@json_option
def leave(config: Path, as_json: bool) -> None:
    """Forget the directory. Peers stay as they are."""
    document = Node(config).request("DELETE", "/v1/directory")
    if as_json:
        print_json(document)
        return
    click.echo(f"Left {document['url']}. Peers stay as they are.")
    if document["verified_by_it"]:
        click.echo("Nobody but the directory verified these; suspend those that you do not want to hear:")
        for origin in document["verified_by_it"]:
            click.echo(f"  {origin}")


@directory.command("show")
@config_option
@json_option
def show(config: Path, as_json: bool) -> None:
    """What the directory says of each borough, how fresh that is, and what of it is not taken."""
    _show(Node(config).request("GET", "/v1/directory"), as_json)


@directory.command("refresh")
@config_option
@json_option
def refresh(config: Path, as_json: bool) -> None:
    """Ask the directory now."""
    _show(Node(config).request("POST", "/v1/directory/refresh", wait_s=600), as_json)
