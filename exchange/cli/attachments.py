"""Attachments: files that go with a section of a form, and what becomes of them."""

import base64
import json
import mimetypes
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from exchange.cli.client import FAILURE, INVALID, TRY_LATER, CommandFailed, Node
from exchange.cli.output import check_free, config_option, json_option, new_file, print_json, print_table
from exchange.cli.progress import progress

_HEADER: Final = "exchange-attachment"
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")
_THERE: Final = frozenset({"ready", "stored"})
_NOT_GIVEN_OUT: Final = frozenset({"quarantined", "damaged"})
_ASK_EVERY_S: Final = 0.5
#: How long a scanner may take after the last byte.
_SCAN_S: Final = 3600.0


@dataclass(frozen=True)
class FileToAttach:
    """A file that goes with a section, and what people call it."""

    section: str
    path: Path
    title: str


class AttachOption(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """SECTION=PATH[,TITLE]."""

    name = "SECTION=PATH[,TITLE]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> FileToAttach:
        """Read one; a path with a comma in it is taken as it is where there is such a file."""
        if isinstance(value, FileToAttach):
            return value
        section, given, rest = str(value).partition("=")
        if not section or not given:
            self.fail(f"{value!r} is not SECTION=PATH[,TITLE]", param, ctx)
        path, _, title = (rest, "", "") if Path(rest).is_file() else rest.partition(",")
        if not Path(path).is_file():
            self.fail(f"there is no file {path!r}", param, ctx)
        return FileToAttach(section, Path(path), title.strip() or Path(path).name)


def check_sections(form: bytes, files: Sequence[FileToAttach]) -> None:
    """Refuse files for parts that the form does not have, before anything is uploaded.

    Raises:
        CommandFailed: there is one.
        FormInvalid: the form cannot be read.
    """
    from exchange.schema.catalogue import default_catalogue
    from exchange.schema.form import decode_form
    from exchange.schema.split import split

    names = [str(part.name) for part in split(decode_form(form), default_catalogue())]
    for file in files:
        if file.section not in names:
            hint = f"It has {', '.join(names)}."
            raise CommandFailed(f"this form has no part {file.section} to attach a file to", INVALID, hint)


def upload(node: Node, message_id: str, area: str, files: Sequence[FileToAttach], *, quiet: bool) -> None:
    """Hand files to the node for a message that is yet to be sent; the same under the same id again changes nothing.

    Raises:
        CommandFailed: one was not taken.
    """
    counts: dict[str, int] = {}
    for file in files:
        number = counts[file.section] = counts.get(file.section, 0) + 1
        kind = mimetypes.guess_type(file.path.name)[0] or ""
        names = {
            "title": file.title,
            "file_name": file.path.name,
            "media_type": kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream",
        }
        header = {_HEADER: base64.urlsafe_b64encode(json.dumps(names).encode()).decode()}
        path = f"/v1/messages/{message_id}/attachments/{file.section}/{number}?to={area}"
        size_bytes = file.path.stat().st_size
        with file.path.open("rb") as content, progress(file.path.name, size_bytes, quiet=quiet) as done:
            node.upload(path, content, size_bytes, header, done, wait_s=_SCAN_S)


def await_attachments(node: Node, document: dict[str, Any], timeout_s: float, *, quiet: bool) -> dict[str, Any]:
    """Wait until the other node has said of each attachment what it is, or so long; the message's status then."""
    deadline = time.monotonic() + timeout_s
    total = sum(item["size_bytes"] for item in document["attachments"])
    with progress("attachments", total, quiet=quiet) as done:
        while True:
            done(sum(item["done_bytes"] for item in document["attachments"]))
            told = all(item["state"] in _THERE | _NOT_GIVEN_OUT for item in document["attachments"])
            left_s = deadline - time.monotonic()
            if told or left_s <= 0:
                return document
            time.sleep(min(_ASK_EVERY_S, left_s))
            document = {**document, **node.request("GET", f"/v1/messages/{document['id']}")}


def check_there(document: dict[str, Any], *, told: bool) -> None:
    """Say plainly where an attachment is not where it should be.

    Raises:
        CommandFailed: one is not there (yet).
    """
    states = {item["state"] for item in document["attachments"]}
    hint = f"Look again with: exchange status {document['id']}"
    if states & _NOT_GIVEN_OUT:
        raise CommandFailed(
            "the message arrived, and an attachment did not: the other node gives it to nobody",
            FAILURE,
            hint,
            told=told,
        )
    if states - _THERE:
        raise CommandFailed(
            "not every attachment is there yet; the message is safe, and they go on", TRY_LATER, hint, told=told
        )


def print_attachments(document: dict[str, Any]) -> None:
    """How far each attachment has come, if there are any."""
    items = document.get("attachments", ())
    if not items:
        return
    click.echo()
    print_table(("section", "attachment", "state", "of it", "scanned", "at"), [_row(item) for item in items])
    if document.get("attachments_held"):
        click.echo(f"Held: {document['attachments_held']}. See `exchange held list`.", err=True)


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    whole = item["size_bytes"]
    percent = f"{100 * item['done_bytes'] // whole} %" if whole and item["state"] not in _THERE else ""
    return item["section"], item["number"], item["state"], percent, "yes" if item["scanned"] else "no", item["at"]


@click.group()
def attachment() -> None:
    """Files that came or went with a section of a form."""


@attachment.command("list")
@click.argument("message_id")
@config_option
@json_option
def attachment_list(message_id: str, config: Path, as_json: bool) -> None:
    """How far the attachments of a message have come."""
    document = Node(config).request("GET", f"/v1/messages/{message_id}/attachments")
    if as_json:
        print_json(document)
    else:
        print_table(
            ("section", "attachment", "state", "of it", "scanned", "at"), [_row(item) for item in document["items"]]
        )


@attachment.command("get")
@click.argument("message_id")
@click.argument("section")
@click.argument("number", type=int)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@json_option
def attachment_get(message_id: str, section: str, number: int, file: Path, config: Path, as_json: bool) -> None:
    """Write attachment NUMBER of a section to FILE, a new one; that you did is written into the message's timeline."""
    check_free(file)
    with new_file(file) as content:
        path = f"/v1/messages/{message_id}/attachments/{section}/{number}"
        headers = Node(config).download(
            path, content, lambda total: progress(file.name, total, quiet=as_json), wait_s=60
        )
    names = json.loads(base64.urlsafe_b64decode(headers.get(_HEADER, "e30=")))
    size_bytes = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "size_bytes": size_bytes, **names})
    else:
        click.echo(f"Wrote {size_bytes} bytes to {file}: {names.get('title')} ({names.get('file_name')})")


@attachment.command("release")
@click.argument("message_id")
@click.argument("section")
@click.argument("number", type=int)
@config_option
@json_option
def attachment_release(message_id: str, section: str, number: int, config: Path, as_json: bool) -> None:
    """Ask that an attachment in quarantine be given out after all; it is when a second person asks too."""
    document = Node(config).request("POST", f"/v1/messages/{message_id}/attachments/{section}/{number}/release")
    if as_json:
        print_json(document)
    elif document["released"]:
        click.echo(f"Attachment {number} of {section} is released, and its sender is told.")
    else:
        click.echo(f"Noted for {document['by']}. It is released when another person runs this from their own account.")
