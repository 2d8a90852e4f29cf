"""Messages: send, status, explain, inbox, outbox, held, receipt."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from exchange.cli.attachments import (
    AttachOption,
    FileToAttach,
    await_attachments,
    check_sections,
    check_there,
    print_attachments,
    upload,
)
from exchange.cli.client import FAILURE, TRY_LATER, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table, write_file
from exchange.crypto.names import new_message_id

_RUNGS = click.Choice(["received", "routed", "delivered", "owned"])


_sections_option = click.option("--sections", "each", is_flag=True, help="A row for each section and agency.")


def _print_sections(document: dict[str, Any], *, each: bool) -> None:
    rows = [
        (row["section"], row["agency"], row["rung"] or "waiting", row.get("at"), _holder(row), row.get("held"))
        for row in document["sections"]
    ]
    if each:
        bases = [_basis(row.get("basis")) for row in document["sections"]]
        table = [(*row, basis) for row, basis in zip(rows, bases, strict=True)]
        print_table(("section", "agency", "rung", "at", "holder", "held because", "legal basis"), table)
    else:
        print_table(("agency", "sections", "rung", "at", "holder", "held because"), _by_agency(rows))
    for row in document["sections"]:
        if row.get("word"):
            _tell_word(row)
    _tell_orders(document["sections"])
    told = document.get("disclosure")
    awaits = document.get("awaits_approval") or (told and told["state"] == "awaiting")
    if document.get("held") and not (told and told["state"] == "refused"):
        see = "exchange approvals list" if awaits else "exchange held list"
        click.echo(f"Held: {document['held']}. See `{see}`.", err=True)
    if told and told["decided_by"]:
        click.echo(
            f"Sent by {told['sent_by']}; {told['state']} by {told['decided_by']} at {told['decided_at']}.", err=True
        )
    if told and told["overrode"]:
        click.echo(f"Sent by {told['sent_by']} by an override, without {', '.join(told['overrode'])}.", err=True)
    if document.get("next_attempt_at"):
        click.echo(f"Next attempt at {document['next_attempt_at']}: {document['last_error']}", err=True)


def _basis(ground: dict[str, Any] | None) -> str:
    """The ground on which an agency reads a section, in a few words."""
    words = [ground["regime"], ground["gateway"], ground["agreement"]] if ground else []
    return " ".join(word for word in words if word)


def _tell_orders(rows: Sequence[dict[str, Any]]) -> None:
    """What was ordered, since when, and who has not confirmed."""
    said: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if order := row.get("order"):
            key = (row["agency"], order["kind"], order["ordered_at"], order["reason"], order["text"])
            said.setdefault(key, []).append(row["section"])
    for (agency, kind, at, reason, text), sections in said.items():
        names = ", ".join(sections)
        click.echo(f"{kind.capitalize()} ordered at {at} ({reason}), for {agency}: {names}. {text}", err=True)


def _holder(row: dict[str, Any]) -> str | None:
    """Who holds a section, and how to reach them."""
    word = row.get("word")
    if row["rung"] != "owned" or not word:
        return None
    if word["name"] is None:
        return "(erased)" if word["erased"] else "(sealed for the sender)"
    return f"{word['name']}, {word['role']}, {word['contact']}"


def _tell_word(row: dict[str, Any]) -> None:
    """What an agency said of a section, beside who holds it."""
    word, place = row["word"], f"{row['agency']} of {row['section']}"
    if row["rung"] == "redirected":
        where = f"it went to {word['to']} there" if word["to"] else "the sender is responsible for it"
        click.echo(f"Not theirs, says {place}; {where}.", err=True)
    for name in ("note", "question", "reason", "whose"):
        if word[name]:
            click.echo(f"{name.capitalize()}, says {place}: {word[name]}", err=True)
    if word["sealed"] and row["rung"] != "owned":
        click.echo(f"What {place} says is sealed: the agency's counterpart reads it.", err=True)
    if word["by"] == "borough":
        click.echo(f"That is the borough's word for {place}.", err=True)


def _by_agency(
    rows: Sequence[tuple[str, str, str, str | None, str | None, str | None]],
) -> list[tuple[object, ...]]:
    """How many sections of each agency stand alike, and since when the last of them does."""
    found: dict[tuple[str, str, str | None, str | None], list[str]] = {}
    for _, agency, rung, at, holder, held in rows:
        found.setdefault((agency, rung, holder, held), []).append(at or "")
    return [
        (agency, len(times), rung, max(times), holder, held) for (agency, rung, holder, held), times in found.items()
    ]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--to", "area", required=True, help="ONS/GSS code of the receiving borough.")
@click.option("--wait", "rung", type=_RUNGS, help="Wait until every section has come this far.")
@click.option("--timeout", "timeout_s", type=float, default=60, show_default=True, help="Seconds to wait.")
@click.option(
    "--override",
    metavar="REASON",
    help="In an emergency: pass the gate in your name. The admins are told. With -, read from standard input.",
)
@click.option("--dry-run", is_flag=True, help="Send nothing: show who would read what on what ground.")
@click.option("--id", "message_id", help="The message's id, a UUID: give it again to send once. [default: a new one]")
@click.option("--attach", "files", multiple=True, type=AttachOption(), help="A file for a section; several times.")
@_sections_option
@config_option
@json_option
def send(
    file: Path,
    area: str,
    rung: str | None,
    timeout_s: float,
    override: str | None,
    dry_run: bool,
    message_id: str | None,
    files: tuple[FileToAttach, ...],
    each: bool,
    config: Path,
    as_json: bool,
) -> None:
    """Send the form in FILE to the borough of an area, with files that go with its sections."""
    if override == "-":  # what stands on a command line, every account on the machine may read
        override = sys.stdin.read().strip()
    if dry_run:
        from exchange.cli.gate import preview

        preview(config, file.read_bytes(), area, override, as_json)
        return
    node, form = Node(config), file.read_bytes()
    message_id = message_id or new_message_id(time.time_ns() // 1_000_000)
    if files:
        check_sections(form, files)
        _upload(node, message_id, area, files, quiet=as_json)
    try:
        sent = node.request(
            "POST",
            f"/v1/messages/to/{area}",
            raw=form,
            idempotency_key=message_id,
            override=override,
        )
    except CommandFailed as error:
        if error.code != "answer-lost":
            raise
        raise CommandFailed(
            "the node stopped before it answered: the form may have been sent",
            TRY_LATER,
            f"Once it runs, repeat the command with --id {message_id}: then the form is sent once.",
            error.code,
        ) from None
    document = {**sent, **_wait(node, sent["id"], rung, timeout_s)} if rung else sent
    if rung and document["attachments"]:
        document = await_attachments(node, document, timeout_s, quiet=as_json)
    if as_json:
        print_json(document)
    else:
        click.echo(f"Message {sent['id']} to {sent['peer']}")
        for warning in sent["warnings"]:
            click.echo(f"Warning: {warning['path']}: {warning['message']}. {warning['hint']}".rstrip(), err=True)
        _print_sections(document, each=each)
        print_attachments(document)
        click.echo(f"To see how far it has come: exchange status {sent['id']}", err=True)
    if rung and not document["reached"]:
        raise CommandFailed(
            f"not every section is {rung} after {timeout_s:g} seconds; the message is safe and goes on",
            TRY_LATER,
            f"Look again with: exchange status {sent['id']}",
            told=as_json,
        )
    if rung:
        check_there(document, told=as_json)


def _upload(node: Node, message_id: str, area: str, files: Sequence[FileToAttach], *, quiet: bool) -> None:
    again = f"Repeat the command with --id {message_id}: what is there already is not sent twice."
    try:
        upload(node, message_id, area, files, quiet=quiet)
    except KeyboardInterrupt:
        raise CommandFailed("stopped; nothing was sent", FAILURE, again) from None
    except CommandFailed as error:
        if error.code == "answer-lost":
            raise CommandFailed(
                "the node stopped before it had the files; nothing was sent", TRY_LATER, again, error.code
            ) from None
        raise


def _wait(node: Node, message_id: str, rung: str, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        wait_s = min(30, int(left_s) + 1) if left_s > 0 else 0
        path = f"/v1/messages/{message_id}?wait={rung}&timeout_s={wait_s}"
        document: dict[str, Any] = node.request("GET", path, wait_s=wait_s)
        if document["reached"] or time.monotonic() >= deadline:
            return document


@click.command()
@click.argument("message_id")
@_sections_option
@config_option
@json_option
def status(message_id: str, each: bool, config: Path, as_json: bool) -> None:
    """How far the sections of a message have come, agency by agency."""
    document = Node(config).request("GET", f"/v1/messages/{message_id}")
    if as_json:
        print_json(document)
    else:
        _print_sections(document, each=each)
        print_attachments(document)


@click.command()
@click.argument("message_id")
@config_option
@json_option
def explain(message_id: str, config: Path, as_json: bool) -> None:
    """What happened to a message, in plain English."""
    document = Node(config).request("GET", f"/v1/messages/{message_id}/timeline")
    if as_json:
        print_json(document)
        return
    for event in document["events"]:
        click.echo(f"{event['at']}  {event['text']}")
    if document["next_attempt_at"]:
        click.echo(
            f"{document['next_attempt_at']}  The next attempt is made; the last one failed: {document['last_error']}."
        )


def _list(path: str, config: Path, as_json: bool) -> None:
    document = Node(config).request("GET", path)
    if as_json:
        print_json(document)
        return
    rows = [(row["id"], row["peer"], "urgent" if row["urgent"] else "", row["created_at"]) for row in document["items"]]
    print_table(("id", "peer", "", "created"), rows)


@click.command()
@config_option
@json_option
def inbox(config: Path, as_json: bool) -> None:
    """Messages that arrived, newest first."""
    _list("/v1/inbox", config, as_json)


@click.command()
@config_option
@json_option
def outbox(config: Path, as_json: bool) -> None:
    """Messages that were sent, newest first."""
    _list("/v1/outbox", config, as_json)


@click.group()
def held() -> None:
    """What waits for a person to decide."""


@held.command("list")
@config_option
@json_option
def held_list(config: Path, as_json: bool) -> None:
    """Everything that is held, with its reason."""
    document = Node(config).request("GET", "/v1/held")
    if as_json:
        print_json(document)
        return
    rows = [(row["number"], row["id"], row["lane"], row["since"], row["reason"]) for row in document["items"]]
    print_table(("number", "message", "lane", "since", "reason"), rows)


@held.command("release")
@click.argument("number", type=int)
@config_option
@json_option
def held_release(number: int, config: Path, as_json: bool) -> None:
    """Try the held delivery of that number again."""
    document = Node(config).request("POST", f"/v1/held/{number}/release")
    if as_json:
        print_json(document)
    else:
        click.echo(f"Released {number} into {document['lane']}.")


@click.group()
def receipt() -> None:
    """Signed receipts."""


@receipt.command("export")
@click.argument("message_id")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@json_option
def receipt_export(message_id: str, file: Path, config: Path, as_json: bool) -> None:
    """Write a message's receipts to FILE, a new one; `exchange verify` checks them anywhere."""
    import json

    document = Node(config).request("GET", f"/v1/messages/{message_id}/receipts")
    write_file(file, json.dumps(document, indent=2).encode() + b"\n")
    if as_json:
        print_json({"file": str(file), "receipts": len(document["receipts"])})
    else:
        click.echo(f"Wrote {len(document['receipts'])} receipts to {file}. Check them with: exchange verify {file}")
