"""Agencies: add, list, test, remove; what concerns their endpoints is in `endpoints`."""

from pathlib import Path
from typing import Any

import click

from exchange.cli.agency_sealing import (
    agency_challenge,
    agency_prove,
    agency_rekey,
    own_key,
    read_key,
    sealed_key_option,
    tell_challenge,
)
from exchange.cli.agency_tokens import agency_token, tell_where
from exchange.cli.client import FAILURE, USAGE, CommandFailed, Node
from exchange.cli.endpoints import COMMANDS, place_of, settings_of, settings_options
from exchange.cli.output import config_option, json_option, print_json, print_table
from exchange.cli.selftest import agency_selftest


@click.group()
def agency() -> None:
    """The borough's agencies, which get their sections by webhook, fetch them, or find them in a folder."""


@agency.command("add")
@click.argument("name", metavar="KIND[/LABEL]")
@click.option("--url", help="Where the agency receives webhooks.")
@click.option("--pull", is_flag=True, help="The agency fetches its sections, with a token that is shown once.")
@click.option("--days", "token_days", type=int, help="How long that token is good. [default: until it is revoked]")
@click.option("--drop", "folder", help="A folder on the node's machine into which sections are put, one file each.")
@click.option("--drop-group", help="The group whose accounts may read the files.")
@click.option("--drop-shared", is_flag=True, help="Use the folder though others may see into it.")
@click.option("--allow-network", "networks", multiple=True, help="A network that the URL's address may lie in.")
@click.option("--ca-file", help="Trust only this CA for the agency's TLS certificate.")
@settings_options
@click.option("--no-handshake", is_flag=True, help="Do not ask the endpoint whether it wants webhooks of this node.")
@sealed_key_option
@config_option
@json_option
def agency_add(
    name: str,
    url: str | None,
    pull: bool,
    token_days: int | None,
    folder: str | None,
    drop_group: str | None,
    drop_shared: bool,
    networks: tuple[str, ...],
    ca_file: str | None,
    timeout_s: float | None,
    retry: str | None,
    certificate: str | None,
    proxy: str | None,
    links: bool | None,
    no_handshake: bool,
    key_file: Path | None,
    config: Path,
    as_json: bool,
) -> None:
    """Register an agency of a kind, with a label where there are several; its secret or token is shown once."""
    if (url is not None) + pull + (folder is not None) != 1:
        raise CommandFailed("give one of --url, --pull and --drop", USAGE, "docs/agencies.md says which suits whom.")
    if (token_days is not None and not pull) or (folder is None and (drop_group is not None or drop_shared)):
        raise CommandFailed("--days goes with --pull, and --drop-group and --drop-shared with --drop", USAGE)
    kind, slash, label = name.partition("/")
    ca_path = str(Path(ca_file).absolute()) if ca_file else None
    body = {
        "kind": kind,
        "url": url,
        "networks": networks,
        "ca_file": ca_path,
        "handshake": not no_handshake,
        **settings_of(timeout_s, retry, certificate, proxy, links),
    }
    if pull:
        body |= {"pull": True, "token_days": token_days}
    if folder is not None:
        body["folder"] = {"directory": folder, "group": drop_group, "shared": drop_shared}
    if slash:
        body["label"] = label
    if key_file is not None:
        body["key"] = read_key(key_file)
    document = Node(config).request("POST", "/v1/agencies", body)
    if as_json:
        print_json(document)
        return
    _tell_added(document)
    if document["challenge"]:
        tell_challenge(document["id"])
    if document["released"]:
        click.echo(f"{document['released']} held sections are now being delivered to it.", err=True)


def _tell_added(document: dict[str, Any]) -> None:
    """What the agency needs, by the way in which it gets its sections."""
    if document["way"] == "pull":
        click.echo(f"Registered {document['id']}. Give the agency its token; it is not shown again:")
        click.echo(document["token"])
        tell_where(document["asks_at"])
        return
    if document["way"] == "drop":
        click.echo(f"Registered {document['id']}. Its sections are put into {document['folder']}.")
        return
    click.echo(f"Registered {document['id']}. Give the agency its webhook secret; it is not shown again:")
    click.echo(document["secret"])
    click.echo(
        f"The secret's name is {document['secret_id']}; the node's public key is {document['public_key']}.", err=True
    )
    handshake = document["handshake"]
    if handshake["state"] in ("unsupported", "unreachable"):
        click.echo(f"The endpoint did not say whether it wants webhooks: {handshake['why']}.", err=True)


@agency.command("list")
@config_option
@json_option
def agency_list(config: Path, as_json: bool) -> None:
    """All registered agencies."""
    document = Node(config).request("GET", "/v1/agencies")
    if as_json:
        print_json(document)
        return
    rows = [
        (row["id"], row["name"], place_of(row), row["state"], own_key(row), row["last_error"])
        for row in document["items"]
    ]
    print_table(("id", "name", "where", "state", "own key", "last error"), rows)


@agency.command("test")
@click.argument("agency_id")
@config_option
@json_option
def agency_test(agency_id: str, config: Path, as_json: bool) -> None:
    """Send an agency a synthetic section, signed, without personal data."""
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/test")
    if as_json:
        print_json(document)
    elif document["ok"]:
        name = f", and verified with {document['secret_id']}" if document.get("secret_id") else ""
        did = f"it answered {document['status']}" if "status" in document else "the file is in its folder"
        click.echo(f"OK: {did}{name}.")
    if not document["ok"]:
        raise CommandFailed(
            f"the agency's endpoint failed: {document.get('error') or document.get('status')}",
            FAILURE,
            "Check the URL, the network and the receiver's log.",
            told=as_json,
        )


@agency.command("remove")
@click.argument("agency_id")
@config_option
@json_option
def agency_remove(agency_id: str, config: Path, as_json: bool) -> None:
    """Forget an agency; what waits for it is held."""
    document = Node(config).request("DELETE", f"/v1/agencies/{agency_id}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"Removed {agency_id}.")


for _verb in (*COMMANDS, agency_token, agency_rekey, agency_challenge, agency_prove, agency_selftest):
    agency.add_command(_verb)
