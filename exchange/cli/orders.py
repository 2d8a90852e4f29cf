"""`exchange recall`, `erase` and `orders`: order back what was sent, and see who has not confirmed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import Node
from exchange.cli.output import config_option, json_option, print_json, print_table

_REASONS = click.Choice(
    ["wrong-person", "wrong-borough", "inaccurate", "out-of-date", "retention-ended", "court-order", "other"]
)


def _order_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        json_option,
        config_option,
        click.option("--reason", type=_REASONS, required=True, help="Why; the rest is for the telephone."),
        click.option("--section", "sections", multiple=True, help="Only this section; give it again for more."),
        click.argument("message_id"),
    ):
        command = option(command)
    return command


@click.command()
@_order_options
def recall(message_id: str, sections: tuple[str, ...], reason: str, config: Path, as_json: bool) -> None:
    """Have what was sent destroyed there; your own copy stays, and what a person has read cannot be recalled."""
    _order("recall", message_id, sections, reason, config, as_json)


@click.command()
@_order_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(message_id: str, sections: tuple[str, ...], reason: str, yes: bool, config: Path, as_json: bool) -> None:
    """Have what was sent destroyed there and here, for good; what a person has read cannot be erased."""
    if not yes:
        what = f"{len(sections)} sections" if sections else "all sections"
        click.confirm(f"Destroy {what} of {message_id} here and there, for good?", abort=True, err=True)
    _order("erase", message_id, sections, reason, config, as_json)


def _order(kind: str, message_id: str, sections: tuple[str, ...], reason: str, config: Path, as_json: bool) -> None:
    body = {"reason": reason, "sections": list(sections)}
    document = Node(config).request("POST", f"/v1/messages/{message_id}/{kind}", body)
    if as_json:
        print_json(document)
        return
    if document["outcome"] == "never-left":
        click.echo(f"Message {message_id} had not left this node, and does not any more.")
        return
    again = " That was ordered before." if document["repeated"] else ""
    names = ", ".join(document["sections"])
    click.echo(f"Ordered {document['peer']} to {kind} of {message_id}: {names}.{again}")
    click.echo(f"To see who has confirmed: exchange status {message_id}", err=True)


@click.group()
def orders() -> None:
    """What was ordered to be recalled or erased, by this borough and by others."""


@orders.command("list")
@click.option("--unconfirmed", is_flag=True, help="Only those that somebody has not confirmed, the oldest first.")
@config_option
@json_option
def orders_list(unconfirmed: bool, config: Path, as_json: bool) -> None:
    """Orders, the newest first, and who has not confirmed."""
    document = Node(config).request("GET", f"/v1/orders?unconfirmed={str(unconfirmed).lower()}")
    if as_json:
        print_json(document)
        return
    rows = [
        (
            item["id"],
            item["direction"],
            item["peer"],
            item["kind"],
            item["reason"],
            item["ordered_at"],
            _missing(item),
        )
        for item in document["items"]
    ]
    print_table(("id", "", "peer", "order", "reason", "ordered", "has not confirmed"), rows)


def _missing(item: dict[str, Any]) -> str:
    if item["outcome"] is not None:
        return {"never-left": "(it had not left)", "not-there": "(it was not there)"}[item["outcome"]]
    names = {place["name"] or place["agency"] for place in item["places"] if place["confirmed_at"] is None}
    return ", ".join(sorted(names))
