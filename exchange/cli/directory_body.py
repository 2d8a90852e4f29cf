"""The verbs of the body that runs a directory. They work on files in its working directory, without a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exchange.cli.asking import confirm, hear
from exchange.cli.client import INVALID, USAGE, CommandFailed
from exchange.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from securesystemslib.signer import CryptoSigner, Key

    from exchange.crypto.secret import Secret
    from exchange.directory.body import Body
    from exchange.directory.keyfile import KeyFile
    from exchange.directory.metadata import Signed
    from exchange.directory.review import Line

_File = click.Path(path_type=Path, dir_okay=False)
_Present = click.Path(path_type=Path, dir_okay=False, exists=True)
_MOST_BYTES = 256 * 1024
_ONLINE = "online-key.json"

work_option = click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EXCHANGE_DIRECTORY",
    default=Path(),
    help="The body's working directory. [default: the current one]",
)


def passphrase_option(what: str) -> Callable[[Any], Any]:
    """`--passphrase-file`, of something."""
    return click.option(
        "--passphrase-file", type=_File, help=f"The file that holds the passphrase of {what}. [default: ask]"
    )


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise CommandFailed(f"{file} is too large to be what it should be; nothing was changed", INVALID)
    return data


def _body(work: Path) -> Body:
    from exchange.directory.body import Body

    return Body(work)


def _key_file(file: Path) -> KeyFile:
    from exchange.directory.keyfile import parse_key_file

    return parse_key_file(_read(file))


def _public_key(file: Path) -> Key:
    """The key whose public half is in FILE; the private half has no business on the machine of the body."""
    found = _key_file(file)
    if found.keystore is not None:
        raise CommandFailed(f"{file} is the private half; give {file}.pub", USAGE, "Nothing was changed.")
    return found.key()


def _new_passphrase(what: str, file: Path | None) -> Secret:
    from exchange.cli.passphrase import ask_new
    from exchange.node.hardening import harden
    from exchange.node.passphrase import check_new, read_passphrase

    harden()
    return check_new(read_passphrase(file) if file else ask_new(what, "--passphrase-file"))


def _open(file: KeyFile, what: str, passphrase_file: Path | None, option: str = "--passphrase-file") -> CryptoSigner:
    from exchange.cli.passphrase import ask
    from exchange.node.hardening import harden
    from exchange.node.passphrase import read_passphrase

    harden()
    return file.signer(read_passphrase(passphrase_file) if passphrase_file else ask(what, option))


def _write_key(file: Path, holder: str, passphrase: Secret) -> KeyFile:
    """A new key in FILE, and its public half in FILE.pub."""
    from exchange.directory.body import write_file
    from exchange.directory.keyfile import new_key, parse_key_file

    private, public = new_key(holder, passphrase)
    write_file(file, private, 0o600)
    write_file(file.with_name(f"{file.name}.pub"), public)
    return parse_key_file(private)


def _free(*files: Path) -> None:
    for file in files:
        if file.exists() or file.is_symlink():
            raise CommandFailed(f"{file} is there already; nothing was made", USAGE, "Name another file.")


def _told(document: dict[str, Any], as_json: bool, *lines: str) -> None:
    if as_json:
        print_json(document)
    else:
        for line in lines:
            click.echo(line)


# Keys


@click.group()
def keys() -> None:
    """Who holds keys of the directory."""


@keys.command("new")
@click.argument("file", type=_File)
@click.option("--holder", required=True, help="Whose key it is, such as a name or an office; everybody can read it.")
@passphrase_option("the new key")
@json_option
def keys_new(file: Path, holder: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a keyholder's key in FILE, under a passphrase, and its public half in FILE.pub."""
    public = file.with_name(f"{file.name}.pub")
    _free(file, public)
    made = _write_key(file, holder, _new_passphrase(f"the key of {holder}", passphrase_file))
    _told(
        {"file": str(file), "public": str(public), "holder": holder, "key_id": made.key().keyid},
        as_json,
        f"The key of {holder} is in {file}. Keep it, and its passphrase, apart from each other and from other keys.",
        f"Give {public} to the body: it is not secret. The key's id begins with {made.key().keyid[:8]}.",
    )


_role_option = click.option(
    "--role", type=click.Choice(("root", "targets")), required=True, help="Which keys: of the root, or of the listing."
)


@keys.command("add")
@click.argument("file", type=_Present)
@_role_option
@work_option
@json_option
def keys_add(file: Path, role: str, work: Path, as_json: bool) -> None:
    """Stage that the keyholder whose public half is in FILE holds a key; it takes a new root."""
    from exchange.directory.changes import add_key, change_root
    from exchange.directory.keyfile import holder_of

    key = _public_key(file)
    with _body(work).held() as body:
        root = change_root(body, _now(), "key added", lambda root: add_key(root, role, key), key=holder_of(key))
    _told_of_root(body, root.version, as_json)


@keys.command("remove")
@click.argument("holder")
@_role_option
@work_option
@json_option
def keys_remove(holder: str, role: str, work: Path, as_json: bool) -> None:
    """Stage that HOLDER, a name or the beginning of a key's id, holds no key any more; it takes a new root."""
    from exchange.directory.changes import change_root, remove_key

    def change(root: Any) -> None:
        remove_key(root, role, holder)

    with _body(work).held() as body:
        root = change_root(body, _now(), "key removed", change, key=holder, role=role)
    _told_of_root(body, root.version, as_json)


@keys.command("replace")
@click.argument("holder")
@click.argument("file", type=_Present)
@_role_option
@work_option
@json_option
def keys_replace(holder: str, file: Path, role: str, work: Path, as_json: bool) -> None:
    """Stage that the key in FILE takes the place of HOLDER's; it takes a new root."""
    from exchange.directory.changes import add_key, change_root, remove_key
    from exchange.directory.keyfile import holder_of

    key = _public_key(file)

    def change(root: Any) -> None:
        remove_key(root, role, holder)
        add_key(root, role, key)

    with _body(work).held() as body:
        root = change_root(body, _now(), "key replaced", change, old=holder, key=holder_of(key), role=role)
    _told_of_root(body, root.version, as_json)


@keys.command("threshold")
@click.argument("number", type=click.IntRange(1, 100))
@_role_option
@work_option
@json_option
def keys_threshold(number: int, role: str, work: Path, as_json: bool) -> None:
    """Stage that NUMBER keyholders must sign; it takes a new root."""
    from exchange.directory.changes import change_root

    def change(root: Any) -> None:
        root.roles[role].threshold = number

    with _body(work).held() as body:
        root = change_root(body, _now(), "threshold", change, role=role, threshold=number)
    _told_of_root(body, root.version, as_json)


@keys.command("online")
@click.argument("file", type=_File)
@passphrase_option("the new online key")
@work_option
@json_option
def keys_online(file: Path, passphrase_file: Path | None, work: Path, as_json: bool) -> None:
    """Make another key in FILE for the machine that publishes, and stage that it takes the old one's place."""
    from exchange.directory.changes import change_root, replace_online_key

    with _body(work).held() as body:
        if not file.exists():
            made = _write_key(file, "online", _new_passphrase("the new online key", passphrase_file))
        else:
            # This stopped after the key was made, or the same key is to be staged anew.
            made = _key_file(file)
        root = change_root(body, _now(), "online key replaced", lambda root: replace_online_key(root, made.key()))
    _told_of_root(body, root.version, as_json)


def _told_of_root(body: Body, version: int, as_json: bool) -> None:
    document = {"staged": "root", "version": version}
    if as_json:
        print_json(document)
        return
    click.echo(f"Root {version} is staged. It takes signatures of the keyholders of the root in force, and of its own:")
    _print_missing(body)


def _print_missing(body: Body) -> None:
    from exchange.directory.review import signatures

    for signed in signatures(body, body.published()).values():
        for line in _lacks(signed):
            click.echo(f"  {line}", err=True)


def _lacks(signed: Signed) -> Sequence[str]:
    return [
        f"{signed.role}: {len(have)} of {threshold} signed; missing: {', '.join(lack)}"
        for threshold, have, lack in signed.needs
        if len(have) < threshold
    ]


# The listing


@click.command()
@click.argument("path", type=click.Path(path_type=Path, file_okay=False), metavar="DIRECTORY")
@click.option("--name", required=True, help="What the directory is called, for people.")
@click.option("--root-key", "root_keys", type=_Present, multiple=True, required=True, help="A FILE.pub of a root key.")
@click.option("--root-threshold", type=int, required=True, help="How many root keys must sign a new root.")
@click.option(
    "--targets-key", "targets_keys", type=_Present, multiple=True, required=True, help="A FILE.pub of a targets key."
)
@click.option("--targets-threshold", type=int, required=True, help="How many targets keys must sign what is listed.")
@click.option("--root-days", type=int, default=365, show_default=True, help="How long a root holds.")
@click.option("--targets-days", type=int, default=180, show_default=True, help="How long what is listed holds.")
@click.option("--timestamp-days", type=int, default=7, show_default=True, help="How long it holds without publishing.")
@passphrase_option("the online key")
@json_option
def init(
    path: Path,
    name: str,
    root_keys: tuple[Path, ...],
    root_threshold: int,
    targets_keys: tuple[Path, ...],
    targets_threshold: int,
    root_days: int,
    targets_days: int,
    timestamp_days: int,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a directory of boroughs in DIRECTORY, with the online key of the machine that publishes."""
    import msgspec

    from exchange.directory.changes import make
    from exchange.directory.metadata import Settings, check_root, new_root

    try:
        settings = msgspec.convert(
            {"name": name, "root_days": root_days, "targets_days": targets_days, "timestamp_days": timestamp_days},
            type=Settings,
        )
    except msgspec.ValidationError:
        raise CommandFailed("a name has 1 to 200 characters, and days are 1 to 3650; nothing was made", USAGE) from None
    if (path / "directory.json").exists():
        raise CommandFailed(f"{path} is the working directory of a directory already; nothing was made", USAGE)
    held: dict[str, Sequence[Key]] = {
        "root": [_public_key(file) for file in root_keys],
        "targets": [_public_key(file) for file in targets_keys],
    }
    thresholds = {"root": root_threshold, "targets": targets_threshold}
    _check_holders(held, thresholds)
    path.mkdir(parents=True, exist_ok=True)
    file = path / _ONLINE
    online = _key_file(file) if file.exists() else _online_key(file, passphrase_file)
    every: dict[str, Sequence[Key]] = {**held, "snapshot": [online.key()], "timestamp": [online.key()]}
    check_root(new_root(every, thresholds, settings.expiry("root", _now())))
    body = make(path, settings, every, thresholds, _now())
    if as_json:
        print_json({"directory": str(path), "name": name, "online_key": str(file)})
        return
    click.echo(f"The directory is in {path}, with its online key in {file}. Nothing is listed or published yet.")
    click.echo("Add boroughs (exchange directory add CARDFILE), then have it signed:")
    _print_missing(body)
    if root_threshold == 1 or targets_threshold == 1:
        click.echo("One keyholder alone can sign: a single stolen key is enough to list anybody.", err=True)


def _check_holders(held: dict[str, Sequence[Key]], thresholds: dict[str, int]) -> None:
    for role, found in held.items():
        if len({key.keyid for key in found}) < len(found):
            raise CommandFailed(f"one key is named twice among the {role} keys; nothing was made", USAGE)
        if not 1 <= thresholds[role] <= len(found):
            raise CommandFailed(f"{role}: {thresholds[role]} of {len(found)} keys cannot be; nothing was made", USAGE)


def _online_key(file: Path, passphrase_file: Path | None) -> KeyFile:
    return _write_key(file, "online", _new_passphrase("the online key", passphrase_file))


@click.command()
@click.argument("card", type=_Present, metavar="CARDFILE")
@click.option(
    "--compared", help='How the fingerprint was compared with the borough, such as "telephone, by A. Reader".'
)
@click.option("--replace", is_flag=True, help="List it in the place of another identity.")
@work_option
@json_option
def add(card: Path, compared: str | None, replace: bool, work: Path, as_json: bool) -> None:
    """Stage the borough whose card is in CARDFILE, once its fingerprint was compared."""
    from exchange.crypto.signing import format_fingerprint
    from exchange.directory.changes import add as stage
    from exchange.directory.changes import look_at
    from exchange.schema.areas import area_name

    with _body(work).held() as body:
        found = look_at(body, _read(card), _now())
        verified = found.verified
        facts = {
            "area": verified.card.area,
            "origin": verified.card.origin,
            "fingerprint": verified.fingerprint,
            "expires_at": verified.card.expires_at.isoformat(),
        }
        click.echo(f"{area_name(verified.card.area)}: {verified.card.origin}, {verified.card.name}", err=True)
        click.echo(f"  {format_fingerprint(verified.fingerprint)}", err=True)
        if found.is_same_identity:
            compared = "proven by the identity that was listed" if found.is_proven else "the identity is listed already"
        elif compared is None:
            compared = _ask_how()
        if not compared.strip():
            raise CommandFailed("it was not said how the fingerprint was compared; nothing was staged", USAGE)
        staged = stage(body, found, compared, _now(), replace=replace)
    words = "is staged" if staged else "is listed already, with this very card"
    _told({**facts, "staged": staged}, as_json, f"{verified.card.origin} {words}.")


def _ask_how() -> str:
    import sys

    if not sys.stdin.isatty():
        raise click.UsageError("say with --compared how the fingerprint was compared, or run this in a terminal")
    click.echo(
        "Telephone the borough's admin on a number that you know already; they run `exchange card show`.", err=True
    )
    confirm("Have you compared all 64 digits?")
    return hear("How, and who with")


@click.command()
@click.argument("area")
@click.option("--because", required=True, help="Why, for the journal.")
@work_option
@json_option
def remove(area: str, because: str, work: Path, as_json: bool) -> None:
    """Stage that the borough of AREA is listed no more."""
    from exchange.directory.changes import remove as stage

    with _body(work).held() as body:
        stage(body, area, because, _now())
    _told({"area": area, "staged": True}, as_json, f"That {area} is listed no more is staged.")


@click.command()
@click.argument("part", type=click.Choice(("root", "targets")))
@work_option
@json_option
def renew(part: str, work: Path, as_json: bool) -> None:
    """Stage the root or the listing as it is, to hold for longer."""
    from exchange.directory.changes import renew as stage

    with _body(work).held() as body:
        stage(body, part, _now())
    _told({"staged": part}, as_json, f"The {part} is staged anew. Have it signed: exchange directory sign KEYFILE")


@click.command()
@work_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def discard(work: Path, yes: bool, as_json: bool) -> None:
    """Drop what is staged, with its signatures. What is published stays."""
    with _body(work).held() as body:
        if not body.published().roots:
            raise CommandFailed("nothing was published yet: without what is staged there is no directory", USAGE)
        if not yes:
            confirm("Drop what is staged, with its signatures?")
        body.unstage()
        body.note(_now(), "discarded")
    _told({"discarded": True}, as_json, "What was staged is dropped.")


# Signing and publishing


def _many(count: int) -> str:
    return "1 borough" if count == 1 else f"{count} boroughs"


@click.command()
@click.argument("key", type=_Present, metavar="KEYFILE")
@click.option("--root", "root_file", type=_Present, help="Your own copy of a root, to check this directory against.")
@click.option("--yes", is_flag=True, help="Do not ask: you have seen with `status` what you sign.")
@passphrase_option("the key")
@work_option
@json_option
def sign(key: Path, root_file: Path | None, yes: bool, passphrase_file: Path | None, work: Path, as_json: bool) -> None:
    """Show what is staged, and sign it with the key in KEYFILE."""
    from exchange.directory.metadata import check_root, may_sign
    from exchange.directory.review import check_published, signatures

    file = _key_file(key)
    if file.keystore is None:
        hint = "Name the file without .pub, on the machine where it is kept."
        raise CommandFailed(f"{key} is the public half of a key: it signs nothing", USAGE, hint)
    with _body(work).held() as body:
        published, root, targets = body.published(), body.staged_root(), body.staged_targets()
        check_published(body, published, _read(root_file) if root_file else None)
        wanted = may_sign(file.key().keyid, root.signed if root else None, published.root)
        parts = [part for part in (root, targets) if part is not None and part.signed.type in wanted]
        if not parts:
            raise CommandFailed(
                f"nothing is staged that the key of {file.holder} signs; nothing was signed",
                USAGE,
                "See what is staged, and who must sign it: exchange directory status",
            )
        if root is not None and root in parts:
            check_root(root.signed)
            _show_root(published.root, root.signed)
        if targets is not None and targets in parts:
            _show_targets(body, targets.signed)
        if not yes:
            confirm(f"Sign this as {file.holder}?")
        signer = _open(file, f"the key of {file.holder}", passphrase_file)
        for part in parts:
            part.sign(signer, append=True)
            body.stage(part)
        body.note(_now(), "signed", key=file.holder, parts=[part.signed.type for part in parts])
        states = signatures(body, published)
    names = [part.signed.type for part in parts]
    document = {"holder": file.holder, "signed": names, "enough": all(found.is_enough for found in states.values())}
    _told(document, as_json, f"Signed as {file.holder}: {', '.join(names)}.")
    for state in states.values():
        for line in _lacks(state):
            click.echo(f"  {line}", err=True)


def _show_root(before: Any, root: Any) -> None:
    from exchange.directory.review import review_root

    click.echo(f"Root {root.version}:", err=True)
    for line in review_root(before, root):
        click.echo(f"  {line}", err=True)


_MARKS = {"added": "NEW", "changed": "CHANGED", "removed": "REMOVED", "unchanged": "as before"}


def _show_targets(body: Body, targets: Any) -> None:
    from exchange.directory.review import review_targets

    lines = review_targets(body, body.published(), targets)
    click.echo(f"Listing {targets.version}, {_many(len(targets.targets))}, until {targets.expires:%Y-%m-%d}:", err=True)
    for line in lines:
        _show_line(line)


def _show_line(line: Line) -> None:
    from exchange.crypto.signing import format_fingerprint
    from exchange.schema.areas import area_name

    click.echo(f"  {_MARKS[line.change]:9} {area_name(line.area)} ({line.area}): {line.origin}", err=True)
    click.echo(f"            {format_fingerprint(line.fingerprint)}", err=True)
    if line.was is not None and line.was != line.fingerprint:
        click.echo(f"            it was {format_fingerprint(line.was)}", err=True)
    if line.change in ("added", "changed"):
        for note in line.notes or ("nobody wrote down how it was compared",):
            click.echo(f"            {note}", err=True)


@click.command()
@click.argument("other", type=click.Path(path_type=Path, file_okay=False, exists=True))
@work_option
@json_option
def collect(other: Path, work: Path, as_json: bool) -> None:
    """Take over the signatures from OTHER, a copy of the working directory that was signed elsewhere."""
    from exchange.directory.metadata import copy_signatures

    there = _body(other)
    there.settings()
    with _body(work).held() as body:
        published, root, targets = body.published(), body.staged_root(), body.staged_targets()
        known = [found for found in (published.root, root.signed if root else None) if found is not None]
        held = [key for found in known for key in found.keys.values()]
        taken = []
        other_root, other_targets = there.staged_root(), there.staged_targets()
        if root is not None and other_root is not None:
            taken += copy_signatures(root, other_root, held)
            body.stage(root)
        if targets is not None and other_targets is not None:
            taken += copy_signatures(targets, other_targets, held)
            body.stage(targets)
        if taken:
            body.note(_now(), "collected", keys=taken)
    _told({"taken": taken}, as_json, f"Taken over: {', '.join(taken) or 'nothing new'}.")
    if not as_json:
        _print_missing(body)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--renew", "renew_only", is_flag=True, help="Publish once more what is published; leave what is staged.")
@click.option("--online-key", type=_Present, help=f"The online key. [default: {_ONLINE} in the working directory]")
@click.option("--online-passphrase-file", type=_File, help="The file that holds its passphrase. [default: ask]")
@work_option
@json_option
def publish(
    out: Path,
    renew_only: bool,
    online_key: Path | None,
    online_passphrase_file: Path | None,
    work: Path,
    as_json: bool,
) -> None:
    """Publish to OUT, a directory that a web server serves, once enough keyholders have signed."""
    from exchange.directory.publishing import prepare
    from exchange.directory.publishing import publish as put
    from exchange.directory.review import signatures

    with _body(work).held() as body:
        if not renew_only:
            for state in signatures(body, body.published()).values():
                state.check()
        key = online_key or body.path / _ONLINE
        signer = _open(_key_file(key), "the online key", online_passphrase_file, "--online-passphrase-file")
        now = _now()
        release = prepare(body, [signer], now, renew_only=renew_only)
        count = put(body, release, out, now)
        body.note(now, "published", timestamp=release.timestamp.version, targets=release.targets.version)
    until = release.timestamp.expires
    document = {
        "out": str(out),
        "boroughs": count,
        "versions": {
            "root": release.root.version,
            "targets": release.targets.version,
            "timestamp": release.timestamp.version,
        },
        "until": until.isoformat(),
    }
    _told(
        document,
        as_json,
        f"Published to {out}: {_many(count)}. A client was tried on it, from the first root on.",
        f"Publish again before {until:%Y-%m-%d %H:%M} UTC, or boroughs take nothing from it.",
    )


@click.command()
@work_option
@json_option
def status(work: Path, as_json: bool) -> None:
    """What is published and staged, who must still sign, and what is to be done."""
    from exchange.directory.review import status as state

    with _body(work).held() as body:
        document = state(body, _now())
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(document))
        return
    click.echo(document["name"])
    if document["root_fingerprint"]:
        from exchange.crypto.signing import format_fingerprint

        click.echo(f"fingerprint of the first root: {format_fingerprint(document['root_fingerprint'])}")
    for role, part in document["published"].items():
        click.echo(f"{role + ':':12} version {part['version']}, until {part['expires_at']:%Y-%m-%d %H:%M} UTC")
    for role, held in document["keyholders"].items():
        click.echo(f"{role} keys: {held['threshold']} of {', '.join(held['holders'])}")
    click.echo()
    rows = [
        (_MARKS[row["change"]], row["area"], row["name"], row["origin"], row["fingerprint"][:16])
        for row in document["items"]
    ]
    print_table(("", "area", "name", "origin", "fingerprint"), rows)
    for item in document["advice"]:
        click.echo(f"To do: {item['message']}", err=True)
