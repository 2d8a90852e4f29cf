"""`exchange agency selftest`: a signed sample for an agency's receiver, and why what it got does not verify."""

import base64
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from exchange.cli.client import INVALID, USAGE, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json

_File = click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True)
_MOST_BYTES = 1024 * 1024


@click.command("selftest")
@click.argument("name")
@click.option("--headers", "headers_file", type=_File, help="A file with the headers that came, one a line.")
@click.option("--body", "body_file", type=_File, help="A file with the bytes of the body that came.")
@click.option("--request", "request_file", type=_File, help="Both in one file: headers, an empty line, the body.")
@click.option("--secret-file", type=_File, help="A file with what the receiver takes for the secret.")
@click.option("--computed", help="The signature that the receiver computed.")
@click.option("--clock", help="What the receiver's clock showed when it came: a time, or seconds since 1970.")
@config_option
@json_option
def agency_selftest(
    name: str,
    headers_file: Path | None,
    body_file: Path | None,
    request_file: Path | None,
    secret_file: Path | None,
    computed: str | None,
    clock: str | None,
    config: Path,
    as_json: bool,
) -> None:
    """Sign a sample for the agency of that id or name; or say what is wrong with what its receiver got.

    Of the files one may be -, standard input. Nothing is kept.
    """
    place = f"/v1/agencies/{quote(name, safe='')}/selftest"
    if headers_file is None and body_file is None and request_file is None:
        if secret_file is not None or computed is not None or clock is not None:
            raise CommandFailed("what came is missing", USAGE, "Give --headers and --body, or --request.")
        sample = Node(config).request("GET", place)
        if as_json:
            print_json(sample)
        else:
            _show(sample)
        return
    files = [headers_file, body_file, request_file, secret_file]
    if [str(file) for file in files].count("-") > 1:
        raise CommandFailed("only one of the files can be standard input", USAGE)
    if (headers_file is None) == (request_file is None) or (body_file is None) == (request_file is None):
        raise CommandFailed("what came is given twice, or in part", USAGE, "Give --headers and --body, or --request.")
    if request_file is not None:
        head, body = _parted(_read(request_file))
    else:
        head, body = _read(headers_file), _read(body_file)
    given: dict[str, Any] = {"headers": head.decode(errors="replace"), "body": base64.b64encode(body).decode()}
    if secret_file is not None:
        # As it is: a line end in the file may be what is wrong, and a node says so.
        given["secret"] = _read(secret_file).decode(errors="replace")
    given |= {key: value for key, value in (("computed", computed), ("clock", clock)) if value is not None}
    diagnosis = Node(config).request("POST", place, given)
    if as_json:
        print_json(diagnosis)
    for found in [] if as_json else diagnosis["findings"]:
        click.echo(f"{found['kind']}: {found['message']}\n    {found['hint']}")
    if not diagnosis["ok"]:
        raise CommandFailed("a verifier does not take this", INVALID, "The findings say why.", told=as_json)


def _read(file: Path | None) -> bytes:
    if file is None:
        return b""
    if str(file) == "-":
        data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    else:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise CommandFailed(f"{file} is larger than 1 MiB", INVALID, "Check with the sample.")
    return data


def _parted(request: bytes) -> tuple[bytes, bytes]:
    """Headers and body of a request as it was on the wire, or of a file of the same shape with other line ends."""
    ends = [(at, len(blank)) for blank in (b"\r\n\r\n", b"\n\n") if (at := request.find(blank)) >= 0]
    if not ends:
        return request, b""
    at, size = min(ends)
    return request[:at], request[at + size :]


def _show(sample: dict[str, Any]) -> None:
    click.echo(
        f"A synthetic event for {sample['agency']}, about nobody. A receiver takes it until {sample['expires_at']}."
    )
    click.echo("\nHeaders:")
    for name, value in sample["headers"].items():
        click.echo(f"    {name}: {value}")
    click.echo("\nThe bytes that are signed (id, full stop, timestamp, full stop, body; no line end):\n")
    click.echo(sample["signed"])
    click.echo(f"\n{sample['signed_hex']}")
    click.echo("\nSend it to your receiver:\n")
    click.echo(sample["curl"])
    click.echo("\nIf it is refused, give what came: --headers FILE --body FILE.", err=True)
