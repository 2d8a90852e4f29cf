"""The node itself: init, run, card, token, health, alarms."""

import asyncio
import textwrap
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import TRY_LATER, USAGE, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table, write_file


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--area", required=True, help="ONS/GSS code of the local authority, such as E09000012.")
@click.option("--name", required=True, help="The authority's name.")
@click.option("--url", required=True, help="Where peers reach this node.")
@click.option("--origin", help="The node's lasting name. [default: the host of --url]")
@click.option("--listen", default="127.0.0.1:7400", show_default=True, help="The public listener.")
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The file that holds the keystore's passphrase. [default: a new one in DIRECTORY]",
)
@click.option(
    "--store",
    default="sqlite:///exchange.db",
    show_default=True,
    help="The database: sqlite:///FILE, or postgresql://HOST/DATABASE.",
)
@json_option
def init(
    directory: Path,
    area: str,
    name: str,
    url: str,
    origin: str | None,
    listen: str,
    passphrase_file: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Make a new node in DIRECTORY: configuration, keystore, store, first card, and a revocation to keep offline."""
    from exchange.node.hardening import harden
    from exchange.node.setup import NewNode, make_node

    harden()
    path = asyncio.run(make_node(NewNode(directory, area, name, url, origin, listen, passphrase_file, store)))
    if as_json:
        print_json({"config": str(path), "directory": str(directory)})
        return
    click.echo(f"Made a node in {directory}.")
    click.echo(f"Start it with: exchange run --config {path}")
    if passphrase_file is None:
        click.echo(f"Its passphrase is in {directory / 'passphrase'}: keep a copy elsewhere, or its keys are lost.")
    click.echo(
        f"The revocation of its keys is in {directory / 'revocation.json'}: move it off this machine, to where you "
        "can get it when the machine is lost."
    )


@click.command()
@config_option
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option(
    "--old-store", is_flag=True, help="Start though the store is older than the restored keys: peers see a fork."
)
@click.option("--rejoin", is_flag=True, help="The store is a copy: ask the peers for what it lacks, then continue.")
def run(config: Path, log_level: str, old_store: bool, rejoin: bool) -> None:
    """Run the node until it is stopped."""
    import uvloop

    from exchange.cli.passphrase import asker
    from exchange.errors import ExchangeError
    from exchange.node.app import run_node, unlock
    from exchange.node.config import load_configuration
    from exchange.node.hardening import harden
    from exchange.node.logs import configure_logs

    if old_store and rejoin:
        raise CommandFailed("--rejoin and --old-store do not go together; nothing was started", USAGE)
    configure_logs(log_level)
    configuration = load_configuration(config)
    protection = harden()
    keyring = unlock(configuration, asker())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_node(configuration, keyring, protection, old_store=old_store, ask_peers=rejoin))
    except* ExchangeError as group:
        raise group.exceptions[0] from None


@click.group()
def card() -> None:
    """The node's card: what a peer's admin needs."""


@card.command("show")
@config_option
@json_option
def card_show(config: Path, as_json: bool) -> None:
    """Show the card and its fingerprint."""
    from exchange.crypto.signing import format_fingerprint

    document = _card(config)
    if as_json:
        print_json(document)
        return
    for key in ("origin", "area", "name", "url", "serial", "expires_at"):
        click.echo(f"{key + ':':12} {document[key]}")
    agencies = f"{'agencies:':12} {', '.join(document['agencies']) or 'none'}"
    click.echo(textwrap.fill(agencies, 79, subsequent_indent=" " * 13))
    groups = format_fingerprint(document["fingerprint"]).split()
    for start in range(0, len(groups), 4):
        click.echo(f"{'' if start else 'fingerprint:':12} {'  '.join(groups[start : start + 4])}")


def _card(config: Path) -> dict[str, Any]:
    """The card of the running node, or the copy that it left beside its configuration."""
    try:
        document = Node(config).request("GET", "/v1/card")
        assert isinstance(document, dict)  # noqa: S101 - the local API's shape
        return document
    except CommandFailed as error:
        path = config.parent / "card.json"
        if error.exit_code != TRY_LATER or not path.is_file():
            raise
    import json

    import msgspec

    from exchange.node.cards import describe_card, parse_card_file

    data = path.read_bytes()
    described = msgspec.to_builtins(describe_card(parse_card_file(data)))
    return {**described, "card": json.loads(data)}


@card.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@json_option
def card_export(file: Path, config: Path, as_json: bool) -> None:
    """Write the card to FILE, a new one, for a peer's admin."""
    import json

    document = _card(config)
    write_file(file, json.dumps(document["card"], indent=2).encode() + b"\n")
    if as_json:
        print_json({"file": str(file), "fingerprint": document["fingerprint"], "serial": document["serial"]})
    else:
        click.echo(f"Wrote {file}. Tell the other admin the fingerprint by telephone: exchange card show")


@click.group()
def token() -> None:
    """Bearer tokens for the local API on TCP."""


@token.command("new")
@click.argument("name")
@click.option("--expires-in-days", type=int)
@config_option
@json_option
def token_new(name: str, expires_in_days: int | None, config: Path, as_json: bool) -> None:
    """Make a token called NAME; it is shown once."""
    document = Node(config).request("POST", "/v1/tokens", {"name": name, "expires_in_days": expires_in_days})
    if as_json:
        print_json(document)
    else:
        click.echo(document["token"])


@click.command()
@config_option
@json_option
def health(config: Path, as_json: bool) -> None:
    """How the node and its lanes are doing."""
    document = Node(config).request("GET", "/v1/health")
    if as_json:
        print_json(document)
        return
    click.echo(f"{document['origin']}: {document['status']}")
    if document["protection"]["reason"]:
        click.echo(f"Warning: {document['protection']['reason']}. See docs/keys.md.", err=True)
    backup = document.get("backup")
    if backup is not None:
        click.echo(f"backup: the whole node at {backup['at']}, {backup['age_hours']:g} hours ago")
    tls = document["tls"]
    if tls is not None:
        admits = f"admits the {tls['admitted']} verified peers alone" if tls["mutual"] else "open to everybody"
        click.echo(f"TLS: {admits}; the certificate ends at {tls['certificate_ends_at']}")
    for row in document["replicas"]:
        answers = ", which answers here" if row["answers"] else ""
        click.echo(f"Replica {row['name']}{answers}: last seen at {row['seen_at']}")
    _tell_gate(document["gate"])
    _tell_limits(document["limits"])
    print_table(
        ("lane", "state", "count", "failures", "last error"),
        [(row["lane"], row["state"], row["count"], row["failures"], row["last_error"]) for row in document["lanes"]],
    )


def _tell_gate(gate: dict[str, Any]) -> None:
    click.echo(
        f"gate: agreements are {gate['agreements']}; {gate['in_force']} in force, {gate['ending']} of them ending, "
        f"{gate['expired']} expired"
    )
    if gate["agreements"] == "advised":
        click.echo(
            'Warning: forms leave without a sharing agreement too. Set agreements = "required" under [gate] before the '
            "first real form: docs/gate.md.",
            err=True,
        )
    if gate["awaiting_approval"]:
        click.echo(f"{gate['awaiting_approval']} await a second person, {gate['approvals_overdue']} of them too long.")


def _tell_limits(limits: dict[str, Any]) -> None:
    if limits["disk_full"]:
        click.echo("The disk is nearly full: no new messages are taken or sent.")
    for peer in limits["peers"]:
        click.echo(f"{peer['origin']} is at a limit ({peer['limit']}), last at {peer['last_at']}")
    for origin in limits["queues"]:
        click.echo(f"As much waits for {origin} as may: nothing more is sent to it.")


@click.command()
@config_option
@json_option
def alarms(config: Path, as_json: bool) -> None:
    """What an admin must look at: forks and conflicts."""
    document = Node(config).request("GET", "/v1/alarms")
    if as_json:
        print_json(document)
        return
    rows = [(row["at"], row["kind"], row["origin"], row["detail"]) for row in document["items"]]
    print_table(("at", "kind", "peer", "what happened"), rows)
