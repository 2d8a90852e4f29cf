"""Forms before they are sent: check, an example, and the schema. These need no running node."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from exchange.cli.client import INVALID, CommandFailed
from exchange.cli.output import config_option, json_option, print_json, write_file
from exchange.schema.examples import NAMES, example_form


@click.group()
def form() -> None:
    """Notification forms."""


@form.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--card",
    "card_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The receiving node's card: show also which sections that node could open.",
)
@click.option("--ask-node", is_flag=True, help="Ask the node too: under which agreement, and on what legal basis.")
@config_option
@json_option
@click.pass_context
def form_check(
    context: click.Context, file: Path, card_file: Path | None, ask_node: bool, config: Path, as_json: bool
) -> None:
    """Check the form in FILE, and show who would read what of it."""
    if ask_node:
        _ask_node(config, file.read_bytes(), as_json)
        return
    from dataclasses import asdict

    from exchange.schema.catalogue import default_catalogue
    from exchange.schema.errors import FormInvalid
    from exchange.schema.form import decode_form
    from exchange.schema.quality import check_form
    from exchange.schema.split import opened_by_node, preview, split

    own = _with_own_key(card_file) if card_file is not None else None
    opened: list[str] | None = None
    catalogue = default_catalogue()
    try:
        decoded = decode_form(file.read_bytes())
        findings = check_form(decoded, catalogue, datetime.now(UTC).date())
        parts = split(decoded, catalogue)
        readers = {kind: list(names) for kind, names in preview(parts).items()}
        opened = list(opened_by_node(parts, own)) if own is not None else None
    except FormInvalid as error:
        findings, readers = list(error.findings), {}
    ok = not any(finding.severity == "error" for finding in findings)
    if as_json:
        told = [asdict(finding) for finding in findings]
        print_json({"ok": ok, "findings": told, "readers": readers, "opened_by_node": opened})
    else:
        for finding in findings:
            click.echo(f"{finding.severity}: {finding.path}: {finding.message}")
        for kind, names in readers.items():
            click.echo(f"{kind} would read: {', '.join(names)}")
        if opened is not None:
            click.echo(f"the receiving node could open: {', '.join(opened) or 'nothing'}")
        click.echo("The form can be sent." if ok else "The form cannot be sent.", err=True)
    if not ok:
        context.exit(INVALID)


def _ask_node(config: Path, data: bytes, as_json: bool) -> None:
    from exchange.cli.gate import preview
    from exchange.schema.errors import FormInvalid
    from exchange.schema.form import decode_form

    try:
        area = decode_form(data).referral.to_area
    except FormInvalid as error:
        findings = [{"severity": item.severity, "path": item.path, "message": item.message} for item in error.findings]
        raise CommandFailed(str(error), INVALID, "Nothing was sent.", error.code, findings=findings) from None
    preview(config, data, area, None, as_json)


def _with_own_key(card_file: Path) -> frozenset[str]:
    """The kinds of agency that have a key of their own, by a node's card."""
    from exchange.schema.card_file import read_card_file
    from exchange.schema.errors import CardInvalid

    try:
        card = read_card_file(card_file.read_bytes()).card
    except CardInvalid as error:
        raise CommandFailed(f"{card_file}: {error}", INVALID, error.hint, error.code) from None
    return frozenset(agency.kind for agency in card.agencies if agency.key is not None)


@form.command("example")
@click.argument("name", type=click.Choice(NAMES))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--json", "_as_json", is_flag=True, help="The form is JSON in any case.")
def form_example(name: str, file: Path | None, _as_json: bool) -> None:
    """Write a form of an invented person to FILE, a new one, or to standard output, with dates as of today."""
    data = example_form(name, datetime.now(UTC).date())
    if file is None:
        click.echo(data, nl=False)
    else:
        write_file(file, data)


@click.group()
def schema() -> None:
    """The form's schema."""


@schema.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--json", "_as_json", is_flag=True, help="The schema is JSON in any case.")
def schema_export(file: Path | None, _as_json: bool) -> None:
    """Write the form's JSON Schema to FILE, a new one, or to standard output."""
    from exchange.schema.json_schema import form_json_schema

    text = json.dumps(form_json_schema(), indent=2) + "\n"
    if file is None:
        click.echo(text, nl=False)
    else:
        write_file(file, text.encode())
