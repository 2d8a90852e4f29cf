"""Forms before they are sent: check, an example, and the schema. These need no running node."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from exchange.cli.client import INVALID
from exchange.cli.output import json_option, print_json, write_file
from exchange.schema.examples import NAMES, example_form


@click.group()
def form() -> None:
    """Notification forms."""


@form.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@json_option
@click.pass_context
def form_check(context: click.Context, file: Path, as_json: bool) -> None:
    """Check the form in FILE, and show who would read what of it."""
    from dataclasses import asdict

    from exchange.schema.catalogue import default_catalogue
    from exchange.schema.errors import FormInvalid
    from exchange.schema.form import decode_form
    from exchange.schema.quality import check_form
    from exchange.schema.split import preview, split

    catalogue = default_catalogue()
    try:
        decoded = decode_form(file.read_bytes())
        findings = check_form(decoded, catalogue, datetime.now(UTC).date())
        readers = {kind: list(names) for kind, names in preview(split(decoded, catalogue)).items()}
    except FormInvalid as error:
        findings, readers = list(error.findings), {}
    ok = not any(finding.severity == "error" for finding in findings)
    if as_json:
        print_json({"ok": ok, "findings": [asdict(finding) for finding in findings], "readers": readers})
    else:
        for finding in findings:
            click.echo(f"{finding.severity}: {finding.path}: {finding.message}")
        for kind, names in readers.items():
            click.echo(f"{kind} would read: {', '.join(names)}")
        click.echo("The form can be sent." if ok else "The form cannot be sent.", err=True)
    if not ok:
        context.exit(INVALID)


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
