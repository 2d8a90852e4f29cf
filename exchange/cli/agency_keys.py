"""An agency's own keys. These need no node: the file stays with the agency."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exchange.cli.client import INVALID, TRUST_REFUSED, USAGE, CommandFailed
from exchange.cli.output import check_free, json_option, print_json, write_file

if TYPE_CHECKING:
    from exchange.agency.keys import AgencyKeys
    from exchange.crypto.secret import Secret

_File = click.Path(path_type=Path, dir_okay=False)
_Existing = click.Path(path_type=Path, dir_okay=False, exists=True)
_MOST_BYTES = 256 * 1024

key_passphrase_option = click.option(
    "--passphrase-file", type=_File, help="The file that holds the key file's passphrase. [default: ask]"
)


@click.group("agency-key")
def agency_key() -> None:
    """An agency's own key: what is sealed to it, no node opens."""


def open_keys(key_file: Path, passphrase_file: Path | None) -> tuple[AgencyKeys, Secret]:
    """The keys in a key file, and its passphrase."""
    from exchange.agency.keys import open_agency_keys
    from exchange.cli.passphrase import ask
    from exchange.crypto.errors import KeystoreError
    from exchange.node.hardening import harden
    from exchange.node.logs import configure_logs
    from exchange.node.passphrase import read_passphrase

    harden()
    configure_logs("warning")
    with key_file.open("rb") as file:
        data = file.read(_MOST_BYTES)
    passphrase = read_passphrase(passphrase_file) if passphrase_file else ask(str(key_file))
    try:
        return open_agency_keys(data, passphrase), passphrase
    except KeystoreError as error:
        raise CommandFailed(f"{key_file}: {error}; nothing was changed", INVALID, error.hint, error.code) from None


def _describe(keys: AgencyKeys) -> dict[str, Any]:
    return {
        "name": keys.name,
        "key_id": keys.sealing[0].public.key_id.hex(),
        "older_key_ids": [key.public.key_id.hex() for key in keys.sealing[1:]],
        "signing_keys": list(keys.public().signing_keys),
    }


@agency_key.command("new")
@click.argument("file", type=_File)
@click.option("--name", required=True, help="The agency's name, like a host name: housing.enfield.example.")
@key_passphrase_option
@json_option
def key_new(file: Path, name: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Make an agency's keys: FILE holds them under a passphrase, and FILE.pub is for the borough's admin."""
    from exchange.agency.keys import AgencyKeys, lock_agency_keys
    from exchange.cli.passphrase import ask_new
    from exchange.crypto.names import parse_origin
    from exchange.node.hardening import harden
    from exchange.node.key_backup import write_new
    from exchange.node.logs import configure_logs
    from exchange.node.passphrase import check_new, read_passphrase
    from exchange.schema.agency_keys import file_bytes

    harden()
    configure_logs("warning")
    public_file = file.with_name(f"{file.name}.pub")
    for path in (file, public_file):
        check_free(path, "nothing was made")
    keys = AgencyKeys.generate(parse_origin(name))
    given = read_passphrase(passphrase_file) if passphrase_file else ask_new("the new key", "--passphrase-file")
    write_new(file, lock_agency_keys(keys, check_new(given)))
    write_new(public_file, file_bytes(keys.public()))
    if as_json:
        print_json({"file": str(file), "public": str(public_file), **_describe(keys)})
        return
    click.echo(f"The keys of {keys.name} are in {file}. Keep a copy of it, and its passphrase, elsewhere.")
    click.echo(f"Give {public_file} to your borough's admin.")


@agency_key.command("rotate")
@click.argument("file", type=_Existing)
@click.argument("public_file", metavar="PUBLIC", type=_File)
@key_passphrase_option
@json_option
def key_rotate(file: Path, public_file: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Put a fresh sealing key into FILE before those that it has, and write the new public half to PUBLIC."""
    from exchange.agency.keys import lock_agency_keys
    from exchange.node.key_backup import write_new
    from exchange.schema.agency_keys import file_bytes

    check_free(public_file, "nothing was changed")
    keys, passphrase = open_keys(file, passphrase_file)
    rotated = keys.rotated()
    # Whatever a crash leaves, one of the two is whole.
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    write_new(beside, lock_agency_keys(rotated, passphrase))
    beside.replace(file)
    write_new(public_file, file_bytes(rotated.public()))
    if as_json:
        print_json({"file": str(file), "public": str(public_file), **_describe(rotated)})
        return
    click.echo(f"The new key is {rotated.sealing[0].public.key_id.hex()}; the older ones stay in {file}.")
    click.echo(f"Give {public_file} to your borough's admin: exchange agency rekey ID --sealed-key {public_file}")


@agency_key.command("show")
@click.argument("file", type=_Existing)
@key_passphrase_option
@json_option
def key_show(file: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Which keys are in FILE."""
    keys, _ = open_keys(file, passphrase_file)
    described = _describe(keys)
    if as_json:
        print_json(described)
        return
    click.echo(f"{keys.name}\nkey in use: {described['key_id']}")
    for key_id in described["older_key_ids"]:
        click.echo(f"older key:  {key_id}")


@agency_key.command("public")
@click.argument("file", type=_Existing)
@click.argument("public_file", metavar="PUBLIC", type=_File)
@key_passphrase_option
@json_option
def key_public(file: Path, public_file: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Write the public half of the keys in FILE to PUBLIC, a new file."""
    from exchange.schema.agency_keys import file_bytes

    keys, _ = open_keys(file, passphrase_file)
    write_file(public_file, file_bytes(keys.public()))
    if as_json:
        print_json({"public": str(public_file), **_describe(keys)})


@agency_key.command("answer")
@click.argument("file", type=_Existing)
@click.argument("challenge_file", metavar="CHALLENGE", type=_Existing)
@click.argument("answer_file", metavar="ANSWER", type=_File)
@click.option("--borough", required=True, help="The origin of the agency's own borough's node.")
@click.option("--kind", required=True, help="Which agency this is, as in the catalogue.")
@key_passphrase_option
@json_option
def key_answer(
    file: Path,
    challenge_file: Path,
    answer_file: Path,
    borough: str,
    kind: str,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Answer the borough's challenge, which shows that the agency holds the keys in FILE."""
    from datetime import UTC, datetime

    from exchange.schema.agency_keys import file_bytes, read_challenge

    challenge = read_challenge(challenge_file.read_bytes()[:_MOST_BYTES])
    if (challenge.origin, challenge.kind) != (borough, kind):
        raise CommandFailed(
            "the challenge is for another borough or another kind of agency; nothing was answered",
            TRUST_REFUSED,
            "Ask whoever gave it to you. Answer for your own borough and agency alone.",
        )
    keys, _ = open_keys(file, passphrase_file)
    answer = keys.answer(challenge, int(datetime.now(UTC).timestamp()))
    write_file(answer_file, file_bytes(answer))
    if as_json:
        print_json({"answer": str(answer_file), "key_id": challenge.key_id.hex()})
    else:
        click.echo(f"Give {answer_file} to the admin: exchange agency prove ID --answer {answer_file}", err=True)


@agency_key.command("check")
@click.argument("file", type=_Existing)
@click.argument("card_file", metavar="CARD", type=_Existing)
@click.option("--kind", required=True, help="Which agency this is, as in the catalogue.")
@key_passphrase_option
@json_option
def key_check(file: Path, card_file: Path, kind: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Check that the borough's card announces the key in FILE, and no other, for this agency."""
    from exchange.crypto.sealing import SealingPublicKey
    from exchange.schema.acknowledgement import signer_of
    from exchange.schema.card_file import read_card_file
    from exchange.schema.errors import CardInvalid

    try:
        verified = read_card_file(card_file.read_bytes())
    except CardInvalid as error:
        raise CommandFailed(f"{card_file}: {error}", INVALID, error.hint, error.code) from None
    keys, _ = open_keys(file, passphrase_file)
    announced = next((entry for entry in verified.card.agencies if entry.kind == kind), None)
    key_id = None if announced is None or announced.key is None else SealingPublicKey(announced.key).key_id
    mine = [key.public.key_id for key in keys.sealing]
    state = "current" if key_id == mine[0] else "older" if key_id in mine else "none" if key_id is None else "foreign"
    if announced is not None and announced.signer not in (None, signer_of(keys.vkeys())):
        state = "foreign-signer"
    document = {
        "ok": state == "current",
        "state": state,
        "key_id": None if key_id is None else key_id.hex(),
        "origin": verified.card.origin,
        "serial": verified.card.serial,
        "fingerprint": verified.fingerprint,
    }
    if as_json:
        print_json(document)
    elif document["ok"]:
        click.echo(f"OK: card {verified.card.serial} of {verified.card.origin} announces this key.")
    if not document["ok"]:
        said = {
            "older": "the card announces an older key of yours",
            "none": f"the card announces no key for {kind}: its node opens what is for you",
            "foreign": "the card announces a key that is NOT yours: whoever holds it reads what is sealed for you",
            "foreign-signer": "the card announces signing keys that are NOT yours: whoever holds them speaks for you",
        }[state]
        raise CommandFailed(said, TRUST_REFUSED if "foreign" in state else USAGE, "Ask the admin.", told=as_json)
