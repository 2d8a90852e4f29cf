"""Back up the node's keys, whole or split among people, and restore them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exchange.cli.client import FAILURE, INVALID, USAGE, CommandFailed, Node
from exchange.cli.keystore import node_document, open_with_passphrase, passphrase_option
from exchange.cli.output import config_option, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exchange.crypto.backup import About, Backup, ByShares
    from exchange.crypto.secret import Secret
    from exchange.crypto.shares import KeyShare
    from exchange.node.key_backup import Place

_File = click.Path(path_type=Path, dir_okay=False)
_MOST_SHARE_BYTES = 4096


class _KOfN(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs alone
    name = "K/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        threshold, _, count = str(value).partition("/")
        if not (threshold.isascii() and threshold.isdigit() and count.isascii() and count.isdigit()):
            self.fail(f"{value!r} is not such as 3/5: any 3 of 5 shares", param, ctx)
        return int(threshold[:3]), int(count[:3])


backup_passphrase_option = click.option(
    "--backup-passphrase-file", type=_File, help="The file that holds the backup's own passphrase. [default: ask]"
)


@click.command()
@click.argument("file", type=_File)
@click.option(
    "--split", type=_KOfN(), metavar="K/N", help="Split what opens it into N shares, of which any K do, such as 3/5."
)
@backup_passphrase_option
@passphrase_option
@config_option
@json_option
def backup(
    file: Path,
    split: tuple[int, int] | None,
    backup_passphrase_file: Path | None,
    passphrase_file: Path | None,
    config: Path,
    as_json: bool,
) -> None:
    """Back up the signing keys and the store key to FILE, under a passphrase of its own or split among people."""
    from datetime import UTC, datetime

    from exchange.crypto.backup import lock_backup
    from exchange.node.config import load_configuration
    from exchange.node.key_backup import back_up, write_new
    from exchange.node.key_records import BackupRecord, keep_record

    if split is not None and backup_passphrase_file is not None:
        raise CommandFailed("--split and --backup-passphrase-file do not go together; nothing was made", USAGE)
    shares = [file.with_name(f"{file.name}.share-{number + 1}") for number in range(min(split[1], 16) if split else 0)]
    _check_free(file, *shares)
    configuration = load_configuration(config)
    found = open_with_passphrase(configuration, passphrase_file)
    running, now = node_document(Node(config), "/v1/keys"), datetime.now(UTC)
    words: tuple[KeyShare, ...] = ()
    about, entries = back_up(configuration, found.key, now, running["log_size"] if running else None)
    if split is None:
        passphrase = _new_passphrase(about.origin, backup_passphrase_file, found.passphrase)
        data = lock_backup(about, entries, passphrase)
    else:
        data, words = _split_among(about, entries, split)
    write_new(file, data)
    for path, share in zip(shares, words, strict=True):
        write_new(path, _share_text(about, file, share, len(words)))
    _check_what_was_written(file, data, shares, words)
    threshold, count = split or (None, None)
    by = "shares" if split else "passphrase"
    record = BackupRecord(at=now, fingerprint=about.fingerprint, by=by, threshold=threshold, count=count)
    keep_record(configuration.directory, record)
    if as_json:
        facts = {"origin": about.origin, "fingerprint": about.fingerprint, "made_at": about.made_at}
        names = [str(path) for path in shares]
        print_json({"file": str(file), **facts, "by": by, "threshold": threshold, "count": count, "shares": names})
        return
    click.echo(f"The keys of {about.origin} are in {file}. Move it off this machine.")
    if split is None:
        click.echo("Keep its passphrase apart from it: who has both has the keys.")
    else:
        click.echo(f"It opens with any {threshold} of the {count} shares in {file}.share-1 to {file}.share-{count}.")
        click.echo("Give each to another person, on paper or on a medium of their own. Then delete them here.")
    click.echo("It holds no key that opens recorded traffic. It is good until the next exchange keys rotate.")


def _split_among(about: About, entries: dict[str, bytes], split: tuple[int, int]) -> tuple[bytes, tuple[KeyShare, ...]]:
    from exchange.crypto.backup import split_backup
    from exchange.crypto.errors import ShareError

    try:
        return split_backup(about, entries, *split)
    except ShareError as error:
        raise CommandFailed(f"{error}; nothing was made", USAGE, "", error.code) from None


def _check_free(*paths: Path) -> None:
    for path in paths:
        if path.exists() or path.is_symlink():
            raise CommandFailed(f"{path} is there already; nothing was made", USAGE, "Name another file.")


def _new_passphrase(origin: str, file: Path | None, present: Secret) -> Secret:
    from exchange.cli.passphrase import ask_new
    from exchange.node.passphrase import check_new, read_passphrase

    what = f"the backup of {origin}"
    passphrase = check_new(read_passphrase(file) if file else ask_new(what, "--backup-passphrase-file"))
    if passphrase == present:
        raise CommandFailed(
            "that is the passphrase of the node itself; nothing was made",
            USAGE,
            "A backup needs one of its own: else it is lost and stolen together with the node's.",
        )
    return passphrase


def _share_text(about: About, file: Path, share: KeyShare, count: int) -> bytes:
    lines = [
        f"# Share {share.index + 1} of {count} of the backup {file.name} of the keys of {about.origin}.",
        f"# Made on {about.made_at[:10]}. Any {share.threshold} of the {count} open it; fewer say nothing.",
    ]
    words = share.words.split()
    lines += [" ".join(words[at : at + 6]) for at in range(0, len(words), 6)]
    return ("\n".join(lines) + "\n").encode()


def _check_what_was_written(file: Path, data: bytes, paths: Sequence[Path], shares: Sequence[KeyShare]) -> None:
    """Open it as at a restore: a backup that nobody has tried is none."""
    from exchange.crypto.backup import join_backup, parse_backup

    if file.read_bytes() != data:
        raise CommandFailed(f"{file} is not as it was written", FAILURE, "Use another medium.")
    if shares:
        held = [_read_share(path) for path in paths]
        for some in (held[: held[0].threshold], held[-held[0].threshold :]):
            join_backup(parse_backup(file.read_bytes()), some)


@click.command()
@click.argument("files", type=_File, nargs=-1, required=True, metavar="FILE...")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@backup_passphrase_option
@click.option(
    "--new-passphrase-file",
    type=_File,
    help="The file that holds the passphrase of the keystore. [default: what the configuration names, or ask]",
)
@json_option
def restore(
    files: tuple[Path, ...],
    directory: Path,
    backup_passphrase_file: Path | None,
    new_passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Restore the keys from FILE, a backup, to DIRECTORY; further FILEs are its shares.

    Shares that are missing are asked for.
    """
    from exchange.crypto.backup import MOST_BYTES, parse_backup
    from exchange.crypto.errors import BackupError
    from exchange.node.hardening import harden
    from exchange.node.key_backup import place_for
    from exchange.node.key_backup import restore as write_keystore

    harden()
    file, *share_files = files
    try:
        found = parse_backup(_read(file, MOST_BYTES))
        place = place_for(directory, found)
        kept = _open(found, share_files, backup_passphrase_file)
    except BackupError as error:
        raise CommandFailed(f"{file}: {error}", INVALID, error.hint, error.code) from None
    write_keystore(place, found, kept, _keystore_passphrase(place, found, new_passphrase_file))
    state = place.state(found.about)
    if as_json:
        about = found.about
        facts = {"origin": about.origin, "fingerprint": about.fingerprint, "made_at": about.made_at}
        print_json({"keystore": str(place.keystore), **facts, "store": state})
    else:
        from exchange.crypto.signing import format_fingerprint

        click.echo(f"The keys of {found.about.origin} are in {place.keystore}. Their fingerprint:")
        click.echo(format_fingerprint(found.about.fingerprint))
        for line in _what_to_do(place, found.about, state):
            click.echo(line)


def _open(found: Backup, share_files: Sequence[Path], passphrase_file: Path | None) -> dict[str, bytes]:
    """What the backup holds, by shares or by its passphrase."""
    from exchange.cli.passphrase import ask
    from exchange.crypto.backup import ByShares, join_backup, open_backup
    from exchange.node.passphrase import read_passphrase

    if isinstance(found.lock, ByShares):
        return join_backup(found, _shares(found.lock, share_files))
    if share_files:
        raise CommandFailed("this backup opens with a passphrase, not with shares; nothing was changed", USAGE)
    if passphrase_file is not None:
        return open_backup(found, read_passphrase(passphrase_file))
    return open_backup(found, ask(f"the backup of {found.about.origin}", "--backup-passphrase-file"))


def _read(file: Path, most_bytes: int) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise CommandFailed(f"{file} is too large to be what it should be; nothing was changed", INVALID)
    return data


def _read_share(file: Path) -> KeyShare:
    from exchange.crypto.errors import ShareError
    from exchange.crypto.shares import parse_share

    try:
        return parse_share(_read(file, _MOST_SHARE_BYTES).decode("utf-8", "replace"))
    except ShareError as error:
        raise CommandFailed(f"{file}: {error}; nothing was changed", INVALID, error.hint, error.code) from None


def _shares(lock: ByShares, files: Sequence[Path]) -> list[KeyShare]:
    """The shares in the files, and those that somebody types."""
    from exchange.crypto.errors import ShareError
    from exchange.crypto.shares import parse_share

    held = {share.index: share for share in map(_read_share, files)}
    while len(held) < lock.threshold and sys.stdin.isatty():
        words = click.prompt(f"Words of a share ({len(held)} of {lock.threshold} given)", err=True)
        try:
            share = parse_share(words)
        except ShareError as error:
            click.echo(f"{error}. Type them again.", err=True)
            continue
        if share.index in held:
            click.echo("That share was given already.", err=True)
        held[share.index] = share
    return list(held.values())


def _keystore_passphrase(place: Place, found: Backup, file: Path | None) -> Secret:
    from exchange.cli.passphrase import ask_new
    from exchange.node.passphrase import check_new, passphrase_of, read_passphrase

    if file is not None:
        return check_new(read_passphrase(file))
    configuration = place.configuration
    if configuration is not None:
        path, credential = configuration.passphrase_path, configuration.tables.keystore.passphrase_credential
        if (path is not None and path.exists()) or (credential and configuration.credentials is not None):
            return passphrase_of(configuration)
    return check_new(ask_new(found.about.origin, "--new-passphrase-file"))


def _what_to_do(place: Place, about: About, state: str) -> list[str]:
    day = about.made_at[:10]
    if state == "none":
        return [
            f"There is no store at {place.store.removeprefix('sqlite:///')}, and the node does not start without one.",
            "Put there the store that ran last (exchange.db, and exchange.db-wal if there is one), and exchange.toml.",
            "If it is lost, do not use these keys: make a new node, and register it anew with each peer.",
            "See docs/keys.md, Restore the keys.",
        ]
    if state == "older":
        return [
            f"The store has {place.store_size} statements, and the node had signed {about.log_size} on {day}.",
            "Its peers know more than this store, and will take the node for a thief's. Find the store that ran last.",
            "If it is lost, have the node ask its peers for what it lacks: exchange run --rejoin",
            "If they cannot return it, telephone every peer first, then: exchange run --old-store",
            "See docs/keys.md, Restore the keys.",
        ]
    return [
        "If this is the very store that ran last, start the node: its peers go on as before.",
        "If it is a copy, and the node has run since, telephone every peer first: they will see a fork.",
        "What peers had sealed to the node and it had not received yet must be sent again.",
        "See docs/keys.md, Restore the keys.",
    ]
