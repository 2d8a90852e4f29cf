"""How a node that was restored from a backup stands with its peers, and an admin's decision to go on."""

from pathlib import Path
from typing import Any

import click

from exchange.cli.client import TRY_LATER, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json


@click.command()
@click.option("--go-on", is_flag=True, help="Continue with what the peers have returned: the others see a fork.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def rejoin(go_on: bool, yes: bool, config: Path, as_json: bool) -> None:
    """What peers return to a node that was restored from a backup, and what came of it."""
    node = Node(config)
    document = node.request("GET", "/v1/rejoin")
    if go_on:
        if not yes:
            for line in _lines(document):
                click.echo(line, err=True)
            click.echo("Peers that have seen more than was returned will see a fork. Telephone them first.", err=True)
            click.confirm("Go on?", abort=True, err=True)
        document = node.request("POST", "/v1/rejoin", {"go_on": True})
    if as_json:
        print_json(document)
    else:
        for line in _lines(document):
            click.echo(line)
    if document["state"] == "rejoining" and not go_on:
        raise CommandFailed(
            "the node has not rejoined its peers yet",
            TRY_LATER,
            "Wait until each has answered. See docs/backup.md.",
            told=as_json,
        )


def _lines(document: Any) -> list[str]:
    if document["state"] == "rejoining":
        lines = [f"The node is asking its peers. Its store has {document['size']} statements."]
        return lines + _peers(document["peers"], document["forks_at"])
    last = document["last"]
    if last is None:
        return ["The node has joined its peers. It was never restored from a backup."]
    back = last["size"] - last["size_before"]
    lines = [
        f"The node rejoined its peers at {last['at']}.",
        f"It continued its log from {last['size_before']} statements to {last['size']}.",
        f"{last['returned']} of the {back} came back whole, the others by their hash.",
        *_peers(last["peers"], last["forks_at"]),
    ]
    lost = [one for one in last["messages"] if one["direction"] == "in" and not one["delivered"]]
    lines += [f"Ask {one['peer']} to send again: {one['id']}" for one in lost]
    lines += [f"Add the agency again: {kind}" for kind in last["agencies_missing"]]
    return lines


def _peers(peers: Any, forks_at: Any) -> list[str]:
    lines = []
    for one in peers:
        seen = f"has seen {one['size']} statements" if one["size"] is not None else "has seen nothing of the log"
        lines.append(f"{one['origin']}: {seen if one['answered'] else 'has not answered: ' + str(one['reason'])}")
    return [*lines, *(f"{origin} has seen more than was returned: it would see a fork" for origin in forks_at)]
