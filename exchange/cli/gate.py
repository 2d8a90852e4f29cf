"""The gate: sharing agreements, approvals by a second person, and what passed by an override."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import INVALID, USAGE, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table


@click.group()
def agreement() -> None:
    """Sharing agreements with other boroughs."""


_day = click.DateTime(["%Y-%m-%d"])


def _basis(text: str) -> dict[str, str | None]:
    """`[KIND=]REGIME/GATEWAY` as the node takes it."""
    from exchange.schema.legal import Gateway, Regime

    kind, _, words = text.rpartition("=")
    regime, _, gateway = words.partition("/")
    regimes, gateways = [one.value for one in Regime], [one.value for one in Gateway]
    if regime not in regimes or gateway not in gateways:
        raise CommandFailed(
            f"{text!r} is no legal basis",
            USAGE,
            f"It is REGIME/GATEWAY. Regimes: {', '.join(regimes)}. Gateways: {', '.join(gateways)}.",
        )
    return {"agency": kind or None, "regime": regime, "gateway": gateway}


def _iso(day: datetime | None) -> str | None:
    return day.date().isoformat() if day is not None else None


@agreement.command("add")
@click.option("--with", "area", required=True, help="ONS/GSS code of the other borough.")
@click.option("--agencies", help="The kinds of agency that it covers, with commas between. [default: all]")
@click.option("--title", required=True, help="What it is called.")
@click.option("--reference", required=True, help="Where its document is kept.")
@click.option("--from", "starts_on", type=_day, required=True, help="Its first day.")
@click.option("--until", "ends_on", type=_day, required=True, help="Its last day.")
@click.option("--review", "review_on", type=_day, help="When it is to be reviewed.")
@click.option(
    "--basis",
    "bases",
    multiple=True,
    required=True,
    help="The legal basis, as REGIME/GATEWAY; as KIND=REGIME/GATEWAY for one kind of agency. See docs/gate.md.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its document, of which the SHA-256 is kept, and nothing else.",
)
@config_option
@json_option
def agreement_add(
    area: str,
    agencies: str | None,
    title: str,
    reference: str,
    starts_on: datetime,
    ends_on: datetime,
    review_on: datetime | None,
    bases: tuple[str, ...],
    file: Path | None,
    config: Path,
    as_json: bool,
) -> None:
    """Put a sharing agreement on file."""
    body = {
        "area": area,
        "kinds": [kind.strip() for kind in agencies.split(",")] if agencies else [],
        "title": title,
        "reference": reference,
        "starts_on": _iso(starts_on),
        "ends_on": _iso(ends_on),
        "review_on": _iso(review_on),
        "bases": [_basis(text) for text in bases],
        "sha256": _digest(file),
    }
    _show_agreement(Node(config).request("POST", "/v1/agreements", body), as_json)


def _digest(file: Path | None) -> str | None:
    if file is None:
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@agreement.command("list")
@config_option
@json_option
def agreement_list(config: Path, as_json: bool) -> None:
    """All sharing agreements, those that have ended too."""
    document = Node(config).request("GET", "/v1/agreements")
    if as_json:
        print_json(document)
        return
    rows = [
        (
            row["id"],
            row["area"],
            ", ".join(row["kinds"]) or "all",
            row["starts_on"],
            row["ends_on"],
            f"{row['state']}, review due" if row["review_due"] else row["state"],
            row["title"],
        )
        for row in document["items"]
    ]
    print_table(("id", "with", "agencies", "from", "until", "state", "title"), rows)


@agreement.command("show")
@click.argument("agreement_id")
@config_option
@json_option
def agreement_show(agreement_id: str, config: Path, as_json: bool) -> None:
    """One sharing agreement."""
    _show_agreement(Node(config).request("GET", f"/v1/agreements/{agreement_id}"), as_json)


@agreement.command("expire")
@click.argument("agreement_id")
@click.option("--reason", required=True, help="Why it ends now.")
@config_option
@json_option
def agreement_expire(agreement_id: str, reason: str, config: Path, as_json: bool) -> None:
    """End a sharing agreement before its last day."""
    document = Node(config).request("POST", f"/v1/agreements/{agreement_id}/expire", {"reason": reason})
    _show_agreement(document, as_json)


def _show_agreement(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    shown = {
        "id": document["id"],
        "with": document["area"],
        "agencies": ", ".join(document["kinds"]) or "all",
        "title": document["title"],
        "reference": document["reference"],
        "from": document["starts_on"],
        "until": document["ends_on"],
        "review": document["review_on"],
        "state": document["state"],
        "sha256": document["sha256"],
        "added": f"{document['added_at']} by {document['added_by']}",
    }
    if document["ended_by"]:
        shown["ended"] = f"{document['ended_at']} by {document['ended_by']}: {document['ended_reason']}"
    for key, value in shown.items():
        if value is not None:
            click.echo(f"{key + ':':12} {value}")
    for basis in document["bases"]:
        click.echo(f"{'basis:':12} {basis['agency'] or 'all others'}: {basis['regime']}/{basis['gateway']}")


@click.command()
@click.argument("message_id")
@click.option(
    "--form",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The form that you have read: approve it and no other.",
)
@config_option
@json_option
def approve(message_id: str, file: Path | None, config: Path, as_json: bool) -> None:
    """Approve a form that somebody else sent; it then goes on."""
    body = {"sha256": _digest(file)}
    document = Node(config).request("POST", f"/v1/approvals/{message_id}/approve", body)
    if as_json:
        print_json(document)
    else:
        click.echo(f"Approved by {document['decided_by']}; it goes on to {document['to']}.")


@click.group()
def approvals() -> None:
    """Forms that await a second person."""


@approvals.command("list")
@config_option
@json_option
def approvals_list(config: Path, as_json: bool) -> None:
    """Every form that awaits a second person, and why."""
    document = Node(config).request("GET", "/v1/approvals")
    if as_json:
        print_json(document)
        return
    rows = [
        (row["id"], row["to"], row["sent_by"], row["at"], "overdue" if row["overdue"] else row["due_at"], row["why"])
        for row in document["items"]
    ]
    print_table(("id", "to", "sent by", "sent", "due", "why"), rows)


@approvals.command("show")
@click.argument("message_id")
@config_option
@json_option
def approvals_show(message_id: str, config: Path, as_json: bool) -> None:
    """Who would read what of a form on what ground, and the SHA-256 of its file."""
    document = Node(config).request("GET", f"/v1/approvals/{message_id}")
    if as_json:
        print_json(document)
        return
    for key in ("to", "sent_by", "at", "why", "due_at", "sha256"):
        click.echo(f"{key.replace('_', ' ') + ':':12} {document[key]}")
    print_disclosed(document["sections"])


@approvals.command("refuse")
@click.argument("message_id")
@click.option("--reason", required=True, help="Why it must not go; kept sealed.")
@config_option
@json_option
def approvals_refuse(message_id: str, reason: str, config: Path, as_json: bool) -> None:
    """Refuse a form, which the node then keeps no longer; whoever sent it may take it back so."""
    document = Node(config).request("POST", f"/v1/approvals/{message_id}/refuse", {"reason": reason})
    if as_json:
        print_json(document)
    else:
        click.echo(f"Refused by {document['decided_by']}. The form is not kept; it can be mended and sent anew.")


@click.group()
def overrides() -> None:
    """Forms that passed the gate by an override."""


@overrides.command("list")
@config_option
@json_option
def overrides_list(config: Path, as_json: bool) -> None:
    """Every form that passed by an override: who, when, without what, and why."""
    document = Node(config).request("GET", "/v1/overrides")
    if as_json:
        print_json(document)
        return
    rows = [
        (row["at"], row["id"], row["to"], row["by"], ", ".join(row["lifted"]), row["reason"] or "(erased)")
        for row in document["items"]
    ]
    print_table(("at", "id", "to", "by", "without", "why"), rows)


# What `send` and `form check` show


def print_disclosed(sections: list[dict[str, Any]]) -> None:
    """Who reads what on what ground: a row for each agency, agreement and basis."""
    found: dict[tuple[str, str | None, str | None], list[str]] = {}
    for row in sections:
        ground = row["basis"] or {"agreement": None, "regime": None, "gateway": None}
        basis = f"{ground['regime']}/{ground['gateway']}" if ground["regime"] else None
        found.setdefault((row["agency"], ground["agreement"], basis), []).append(row["section"])
    rows = [
        (agency, agreed or "none", basis or "none", ", ".join(names))
        for (agency, agreed, basis), names in found.items()
    ]
    print_table(("agency", "agreement", "legal basis", "sections"), sorted(rows))


def preview(config: Path, data: bytes, area: str, override: str | None, as_json: bool) -> None:
    """Ask the node what its gate would say of a form, and print it.

    Raises:
        CommandFailed: it would not let the form leave.
    """
    document = Node(config).request("POST", f"/v1/forms/preview/{area}", raw=data, override=override)
    if as_json:
        print_json(document)
    else:
        for finding in document["findings"]:
            click.echo(f"{finding['severity']}: {finding['path']}: {finding['message']}")
            if finding["hint"]:
                click.echo(f"       {finding['hint']}")
        print_disclosed(document["sections"])
    if not document["ok"]:
        raise CommandFailed("the form could not leave", INVALID, "Nothing was sent or stored.", told=as_json)
    if not as_json:
        click.echo(
            "A second person would have to approve the form."
            if document["awaits_approval"]
            else "The form can be sent.",
            err=True,
        )
