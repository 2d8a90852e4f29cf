"""Back up the whole node, and restore it, to a directory of its own or as a rehearsal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exchange.cli.client import INVALID, USAGE, CommandFailed
from exchange.cli.keystore import open_with_passphrase, passphrase_option
from exchange.cli.output import config_option, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey
    from exchange.crypto.secret import Secret
    from exchange.node.archive_file import ArchiveFile

_File = click.Path(path_type=Path, dir_okay=False)
_MOST_KEY_BYTES = 16_384


@click.group()
def backup() -> None:
    """The whole node in a file, sealed to a key that the node does not have."""


@backup.group()
def key() -> None:
    """The key that opens backups: its private half stays with an admin."""


_key_option = click.option(
    "--key", "key_file", type=_File, required=True, help="The file with the private half of the backup's key."
)
_key_passphrase_option = click.option(
    "--key-passphrase-file", type=_File, help="The file that holds the passphrase of that key. [default: ask]"
)


@key.command("new")
@click.argument("file", type=_File)
@_key_passphrase_option
@json_option
def key_new(file: Path, key_passphrase_file: Path | None, as_json: bool) -> None:
    """Make a key: FILE holds its private half, under a passphrase, and FILE.pub the half for the node."""
    from exchange.cli.passphrase import ask_new
    from exchange.crypto.archive import new_backup_key, parse_public_key
    from exchange.node.hardening import harden
    from exchange.node.key_backup import write_new
    from exchange.node.passphrase import check_new, read_passphrase

    harden()
    public_file = file.with_name(f"{file.name}.pub")
    for path in (file, public_file):
        if path.exists() or path.is_symlink():
            raise CommandFailed(f"{path} is there already; nothing was made", USAGE, "Name another file.")
    what = "the new key"
    passphrase = check_new(
        read_passphrase(key_passphrase_file) if key_passphrase_file else ask_new(what, "--key-passphrase-file")
    )
    private, public = new_backup_key(passphrase)
    write_new(file, private)
    write_new(public_file, public)
    key_id = parse_public_key(public).key_id.hex()
    if as_json:
        print_json({"file": str(file), "public": str(public_file), "key_id": key_id})
        return
    click.echo(f"The private half of the key {key_id} is in {file}. Keep it and its passphrase away from the node.")
    click.echo(f"Give {public_file} to the node: it makes backups with it, and opens none.")


@backup.command()
@click.argument("file", type=_File)
@click.option(
    "--to",
    "recipients",
    type=_File,
    multiple=True,
    required=True,
    help="The file with the public half of a key that is to open the backup.",
)
@passphrase_option
@config_option
@json_option
def create(file: Path, recipients: tuple[Path, ...], passphrase_file: Path | None, config: Path, as_json: bool) -> None:
    """Write the whole node to FILE; the node may run."""
    from datetime import UTC, datetime

    from exchange.node.config import load_configuration
    from exchange.node.node_backup import create_backup

    keys = [_public(path) for path in recipients]
    if len(keys) > 8 or len({one.key_id for one in keys}) != len(keys):
        raise CommandFailed("name each key once, and 8 at most; nothing was made", USAGE)
    configuration = load_configuration(config)
    found = open_with_passphrase(configuration, passphrase_file)
    made = asyncio.run(create_backup(configuration, found.key, keys, file, datetime.now(UTC)))
    if as_json:
        about = made.about
        print_json(
            {
                "file": str(file),
                "origin": about.origin,
                "made_at": about.made_at,
                "log_size": about.log_size,
                "size_bytes": made.size_bytes,
                "key_ids": [one.key_id.hex() for one in keys],
            }
        )
        return
    click.echo(f"{made.about.origin} is in {file}: {made.size_bytes} bytes, {made.about.log_size} statements.")
    click.echo("Move it off this machine. It holds nothing that opens recorded traffic.")


def _public(path: Path) -> SealingPublicKey:
    from exchange.crypto.archive import parse_public_key
    from exchange.crypto.errors import ArchiveError

    try:
        return parse_public_key(_read(path))
    except ArchiveError as error:
        raise CommandFailed(
            f"{path}: {error}; nothing was made", INVALID, "Give the file that ends in .pub.", error.code
        ) from None


def _read(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(_MOST_KEY_BYTES)


def _private(key_file: Path, passphrase_file: Path | None) -> SealingPrivateKey:
    from exchange.cli.passphrase import ask
    from exchange.crypto.archive import open_backup_key
    from exchange.crypto.errors import KeystoreError
    from exchange.node.hardening import harden
    from exchange.node.passphrase import read_passphrase

    harden()
    data = _read(key_file)
    passphrase = read_passphrase(passphrase_file) if passphrase_file else ask(str(key_file), "--key-passphrase-file")
    try:
        return open_backup_key(data, passphrase)
    except KeystoreError as error:
        raise CommandFailed(f"{key_file}: {error}; nothing was changed", INVALID, error.hint, error.code) from None


def _archive(file: Path) -> ArchiveFile:
    from exchange.crypto.errors import ArchiveError
    from exchange.node.archive_file import ArchiveFile

    try:
        return ArchiveFile(file)
    except ArchiveError as error:
        raise CommandFailed(f"{file}: {error}", INVALID, error.hint, error.code) from None


@backup.command()
@click.argument("file", type=_File)
@_key_option
@_key_passphrase_option
@json_option
def verify(file: Path, key_file: Path, key_passphrase_file: Path | None, as_json: bool) -> None:
    """Read FILE to its end: whether it is whole, and its log the one that the node signed."""
    from exchange.crypto.errors import ArchiveError
    from exchange.node.node_backup import describe_rows, read_backup

    archive = _archive(file)
    private = _private(key_file, key_passphrase_file)
    try:
        found = asyncio.run(read_backup(archive, private))
    except ArchiveError as error:
        raise CommandFailed(f"{file}: {error}", INVALID, error.hint, error.code) from None
    about = found.about
    rows = describe_rows(found.rows, ("statements", "messages", "receipts", "peers", "agencies", "outbox"))
    if as_json:
        facts = {"origin": about.origin, "fingerprint": about.fingerprint, "made_at": about.made_at}
        signed_at = found.signed_at.isoformat() if found.signed_at else None
        print_json({"ok": True, **facts, "log_size": about.log_size, "signed_at": signed_at, "rows": rows})
        return
    from exchange.crypto.signing import format_fingerprint

    click.echo(f"{file} is whole. It is {about.origin}, as it was at {about.made_at}.")
    click.echo(f"Signing keys: {format_fingerprint(about.fingerprint)}")
    click.echo(f"Its log of {about.log_size} statements has the root that these keys have signed.")
    for name, count in rows.items():
        click.echo(f"{name + ':':12} {count}")


@backup.command()
@click.argument("file", type=_File)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@_key_option
@_key_passphrase_option
@click.option(
    "--new-passphrase-file", type=_File, help="The file that holds the passphrase of the new keystore. [default: ask]"
)
@click.option(
    "--store",
    default="sqlite:///exchange.db",
    show_default=True,
    help="The database, new or empty: sqlite:///FILE, or postgresql://HOST/DATABASE.",
)
@json_option
def restore(
    file: Path,
    directory: Path,
    key_file: Path,
    key_passphrase_file: Path | None,
    new_passphrase_file: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Make a node of FILE in DIRECTORY. When it starts, it first asks its peers for what it lacks."""
    from exchange.crypto.errors import ArchiveError
    from exchange.node.config import load_configuration
    from exchange.node.node_backup import Plan, restore_backup

    archive = _archive(file)
    private = _private(key_file, key_passphrase_file)
    passphrase = _new_passphrase(archive.about.origin, new_passphrase_file)
    try:
        path, found = asyncio.run(restore_backup(archive, private, Plan(directory, passphrase, store)))
    except ArchiveError as error:
        raise CommandFailed(f"{file}: {error}", INVALID, error.hint, error.code) from None
    about = found.about
    if as_json:
        facts = {"origin": about.origin, "fingerprint": about.fingerprint, "made_at": about.made_at}
        print_json({"config": str(path), **facts, "log_size": about.log_size})
        return
    configuration = load_configuration(path)
    file_named, credential = configuration.passphrase_path, configuration.tables.keystore.passphrase_credential
    click.echo(f"{about.origin} is in {directory}, as it was at {about.made_at}.")
    click.echo(f"Look through {path}. Make sure that the old node does not run anywhere, and will not.")
    if credential or (file_named is not None and not file_named.is_relative_to(directory.resolve())):
        place = f"the credential {credential!r}" if credential else str(file_named)
        click.echo(f"The node gets the passphrase of its keystore from {place}: put the new one there.")
    click.echo(f"Then start it: exchange run --config {path}")
    click.echo("It asks its peers what they have seen since, and signs nothing before that.")
    click.echo("To see how that stands: exchange rejoin")


def _new_passphrase(origin: str, file: Path | None) -> Secret:
    from exchange.cli.passphrase import ask_new
    from exchange.node.passphrase import check_new, read_passphrase

    return check_new(read_passphrase(file) if file else ask_new(origin, "--new-passphrase-file"))


@backup.command()
@click.argument("file", type=_File)
@_key_option
@_key_passphrase_option
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where to restore to for the while. [default: the directory for temporary files]",
)
@json_option
def rehearse(
    file: Path, key_file: Path, key_passphrase_file: Path | None, directory: Path | None, as_json: bool
) -> None:
    """Restore FILE where it can reach nobody, let the node run, and say whether all is there. Nothing is kept."""
    from datetime import UTC, datetime

    import msgspec

    from exchange.crypto.errors import ArchiveError
    from exchange.node.rehearsal import rehearse as perform

    _archive(file).close()
    private = _private(key_file, key_passphrase_file)
    try:
        report = perform(file, private, datetime.now(UTC), directory)
    except ArchiveError as error:
        raise CommandFailed(f"{file}: {error}", INVALID, error.hint, error.code) from None
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        for line in _report(report):
            click.echo(line)
    if not report.ok:
        raise CommandFailed("the node that was restored is not as it should be", INVALID, told=as_json)


def _report(report: object) -> Sequence[str]:
    from exchange.node.rehearsal import Rehearsed

    assert isinstance(report, Rehearsed)  # noqa: S101 - what `rehearse` gives
    found = report.found
    return [
        f"{report.origin}, as it was at {report.made_at}: {report.age_hours:g} hours ago.",
        f"Restored and looked through in {report.restored_in_s:g} seconds; the node starts in {found.started_in_s:g}.",
        f"The log has {report.log_size} statements and holds.",
        f"Peers: {found.peers}. Agencies: {found.agencies}.",
        f"Messages: {found.messages_in} received, {found.messages_out} sent; the content of {found.contents} opens.",
        f"Outbox: {found.waiting} wait, {found.held} are held. Nothing was sent: the copy had no network.",
        *(f"Problem: {problem}" for problem in found.problems),
        "All is there." if report.ok else "Do not rely on this backup.",
    ]
