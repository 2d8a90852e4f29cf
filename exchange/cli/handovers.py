"""`exchange handover`: who is responsible for each section, what is overdue, and what people record of the whole."""

from pathlib import Path
from typing import Any

import click

from exchange.cli.client import Node
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group()
def handover() -> None:
    """Who is responsible for the sections of a form, until when, and what is missing."""


@handover.command("list")
@click.option("--overdue", is_flag=True, help="Only those with something overdue, the longest overdue first.")
@config_option
@json_option
def handover_list(overdue: bool, config: Path, as_json: bool) -> None:
    """Handovers, the newest first, with what is due next."""
    document = Node(config).request("GET", f"/v1/handovers?overdue={str(overdue).lower()}")
    if as_json:
        print_json(document)
        return
    rows = [
        (
            item["id"],
            item["direction"],
            item["peer"],
            "urgent" if item["urgent"] else "",
            f"{item['held']} of {item['sections']}",
            _next(item),
        )
        for item in document["items"]
    ]
    print_table(("id", "", "peer", "", "owned", "next"), rows)


def _next(item: dict[str, Any]) -> str:
    if item["complete_at"] is not None:
        return f"complete since {item['complete_at']}"
    if item["next"] is None:
        return "nothing is due"
    step = item["next"]
    whose = f" by {step['agency']}" if step["agency"] else ""
    return f"{'OVERDUE: ' if step['overdue'] else ''}{step['step']}{whose}, due {step['due_at']}"


@handover.command("show")
@click.argument("message_id")
@config_option
@json_option
def handover_show(message_id: str, config: Path, as_json: bool) -> None:
    """Who is responsible for each section, since when, what is due, and what is missing."""
    document = Node(config).request("GET", f"/v1/handovers/{message_id}")
    _print(document, as_json=as_json)


@handover.command("met")
@click.argument("message_id")
@config_option
@json_option
def handover_met(message_id: str, config: Path, as_json: bool) -> None:
    """Record that the agencies of both boroughs have met about it."""
    _print(Node(config).request("POST", f"/v1/handovers/{message_id}/met"), as_json=as_json)


@handover.command("complete")
@click.argument("message_id")
@config_option
@json_option
def handover_complete(message_id: str, config: Path, as_json: bool) -> None:
    """Record that nothing is left to hand over; refused while a section has no holder."""
    _print(Node(config).request("POST", f"/v1/handovers/{message_id}/complete"), as_json=as_json)


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in document["sections"]:
        due = _due(item["due_at"], item["overdue"], item["missing"])
        key = (item["agency"], _responsible(item), item["since"], due)
        groups.setdefault(key, []).append(item["section"])
    rows = [(agency, who, since, due, ", ".join(sections)) for (agency, who, since, due), sections in groups.items()]
    print_table(("agency", "responsible", "since", "due", "sections"), rows)
    for step in document["due"]:
        if step["agency"] is None:
            click.echo(f"{step['step']}: {_due(step['due_at'], step['overdue'], step['missing'])}")
    for what in ("met", "complete"):
        if document[f"{what}_at"] is not None:
            click.echo(f"{what}: {document[f'{what}_at']}, recorded by {document[f'{what}_by']}")


def _responsible(item: dict[str, Any]) -> str:
    if item["responsible"] == "nobody":
        return "nobody: it is over"
    if item["responsible"] == "sender":
        return f"{item['borough']} still (the sender)"
    return f"{item['borough']}: {item['holder'] or 'a holder whose name is sealed'}"


def _due(due_at: str | None, overdue: bool, missing: str | None) -> str:
    return "" if due_at is None else f"{'OVERDUE since' if overdue else 'by'} {due_at}: {missing}"
