"""Change the node's own keys, and take its identity back."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from exchange.cli.asking import confirm
from exchange.cli.client import FAILURE, TRY_LATER, USAGE, CommandFailed, Node
from exchange.cli.key_backups import backup, restore
from exchange.cli.keystore import passwd, status
from exchange.cli.output import check_free, config_option, json_option, print_json

_ROTATING: Final = """\
The node gets new signing keys, and with them another identity and fingerprint. This cannot be undone.
  * Peers that have it verified follow by themselves. A directory needs its new card.
  * Backups of the keys that were made before, and open invitations, are worth nothing any more.
  * If somebody may have used the keys, stop here and revoke them: exchange keys revoke FILE"""


@click.group()
def keys() -> None:
    """The node's own keys."""


for _command in (status, passwd, backup, restore):
    keys.add_command(_command)


def _write_new(path: Path, document: dict[str, Any]) -> None:
    """Write a revocation to a file that is not there yet, for its owner alone."""
    try:
        with open(path, "x", opener=_private) as file:
            file.write(json.dumps(document, indent=2) + "\n")
    except FileExistsError:
        raise CommandFailed(f"{path} is there already; nothing was changed", USAGE, "Name another file.") from None
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}", FAILURE) from None


def _private(name: str, flags: int) -> int:
    import os

    return os.open(name, flags, 0o600)


def _keep_offline(path: Path) -> None:
    click.echo(f"The revocation of these keys is in {path}.")
    click.echo("Move it off this machine, to where you can get it when the machine is lost. Delete it here.")
    click.echo("Whoever has it can make every peer refuse this node, and nothing else.")


_revocation_option = click.option(
    "--revocation",
    "revocation_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("revocation.json"),
    show_default=True,
    help="The file for the revocation of the keys in force.",
)


@keys.command()
@_revocation_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def rotate(revocation_file: Path, yes: bool, config: Path, as_json: bool) -> None:
    """Pass on to new signing keys. Peers follow by themselves."""
    check_free(revocation_file, "nothing was changed")
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("give --yes, or run this in a terminal")
        click.echo(_ROTATING, err=True)
        confirm("Is that what you want?")
    found = Node(config).request("POST", "/v1/keys/rotate", {})
    _write_new(revocation_file, found.pop("revocation"))
    if as_json:
        print_json({**found, "revocation": str(revocation_file)})
        return
    from exchange.crypto.signing import format_fingerprint

    click.echo("The node has new signing keys. Its fingerprint is now:")
    click.echo(format_fingerprint(found["fingerprint"]))
    click.echo("Its peers follow by themselves. There is nothing to compare anew.")
    click.echo("The last backup of the keys holds the old ones. Make another: exchange keys backup FILE")
    _keep_offline(revocation_file)


@keys.command()
@_revocation_option
@config_option
@json_option
def revocation(revocation_file: Path, config: Path, as_json: bool) -> None:
    """Prepare another revocation of the keys in force, to be kept offline."""
    check_free(revocation_file, "nothing was changed")
    found = Node(config).request("POST", "/v1/keys/revocation", {})
    _write_new(revocation_file, found["revocation"])
    if as_json:
        print_json({"revocation": str(revocation_file)})
        return
    _keep_offline(revocation_file)


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--peer", "peers", multiple=True, metavar="URL", help="A peer to tell directly, without a node.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --peer: the authority that signs its certificate.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def revoke(file: Path, peers: tuple[str, ...], ca_file: Path | None, yes: bool, config: Path, as_json: bool) -> None:
    """Revoke the keys that FILE, a revocation, speaks of. Peers refuse the node from then on, for good.

    With a running node, it tells all its peers. Where the machine is lost, name them with --peer.
    """
    from exchange.node.revocation import parse_revocation

    data = file.read_bytes()
    _, body, _ = parse_revocation(data)
    if not peers and not config.is_file():
        raise CommandFailed(
            "there is nobody to tell", USAGE, "Name the node with --config, or each peer with --peer https://..."
        )
    if not yes:
        click.echo(f"This revokes the identity of {body.origin}. Its peers will refuse it for good.", err=True)
        confirm("Is that what you want?")
    told: list[dict[str, Any]] = []
    if peers:
        told = _tell(peers, data, ca_file)
    else:
        document = msgspec.json.decode(data)
        told = Node(config).request("POST", "/v1/keys/revoke", {"revocation": document})["peers"]
    if as_json:
        print_json({"origin": body.origin, "peers": told})
    else:
        for entry in told:
            outcome = "told" if entry["told"] else f"not told: {entry['reason']}"
            click.echo(f"{entry['origin']}: {outcome}")
        if not told:
            click.echo("The node has no peers.")
    if any(not entry["told"] for entry in told):
        raise CommandFailed(
            "not every peer was told",
            TRY_LATER,
            "Run this again. A peer also learns of it when it next asks the node for its card.",
            told=True,
        )


def _tell(urls: tuple[str, ...], data: bytes, ca_file: Path | None) -> list[dict[str, Any]]:
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # No proxies from the environment, and no redirects: the admin named where to go.
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=context))
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    told = []
    for url in urls:
        if not url.startswith(("https://", "http://")):
            raise CommandFailed(f"{url} is not a URL", USAGE)
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            url.rstrip("/") + "/v1/revocations", data, {"content-type": "application/json"}
        )
        try:
            with opener.open(request, timeout=30):
                told.append({"origin": url, "told": True, "reason": None})
        except urllib.error.HTTPError as error:
            told.append({"origin": url, "told": False, "reason": f"answered {error.code}"})
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            told.append({"origin": url, "told": False, "reason": f"cannot be reached: {reason}"})
    return told
