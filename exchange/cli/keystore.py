"""The keystore itself: its state, and its passphrase."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exchange.cli.client import TRY_LATER, USAGE, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exchange.crypto.secret import Secret
    from exchange.node.config import Configuration
    from exchange.node.relocking import Found, Relocking

_File = click.Path(path_type=Path, dir_okay=False)

passphrase_option = click.option(
    "--passphrase-file",
    type=_File,
    help="The file that holds the keystore's passphrase. [default: what the configuration names, or ask]",
)


def open_with_passphrase(configuration: Configuration, passphrase_file: Path | None) -> Found:
    """The key of the keystore: from a file that was named, from where the node has it, or from the person who asks."""
    from exchange.cli.passphrase import ask
    from exchange.node.hardening import harden
    from exchange.node.relocking import find_key

    harden()
    if passphrase_file is None and configuration.passphrase_path is None and configuration.credentials is None:
        # What systemd gives to the service it does not give to this command.
        return _asked(configuration, ask(configuration.origin))
    return find_key(configuration, ask, passphrase_file)


def _asked(configuration: Configuration, passphrase: Secret) -> Found:
    from exchange.node.relocking import Found, key_of

    return Found(key_of(configuration.keystore_path, passphrase), passphrase, None)


@click.command()
@config_option
@json_option
def status(config: Path, as_json: bool) -> None:
    """How the node's keys stand, and what to see to; tells less where the node does not run."""
    document = node_document(Node(config), "/v1/keys")
    if document is None:
        from datetime import UTC, datetime

        import msgspec

        from exchange.node.config import load_configuration
        from exchange.node.key_status import stopped_state

        document = msgspec.to_builtins(stopped_state(load_configuration(config), datetime.now(UTC)))
    if as_json:
        print_json(document)
        return
    for name, text in _lines(document):
        click.echo(f"{name + ':':14} {text}")
    for advice in document["advice"]:
        click.echo(f"To do: {advice['message']}", err=True)


def _lines(document: Any) -> Iterator[tuple[str, str]]:
    from exchange.crypto.signing import format_fingerprint

    yield "origin", document["origin"]
    yield "node", "running" if document["running"] else "not running: what follows is from its files"
    signing, keystore, passphrase = document["signing"], document["keystore"], document["passphrase"]
    if signing is not None:
        yield "signing keys", format_fingerprint(signing["fingerprint"])
        if signing["since"] is not None:
            yield "", f"in force since {signing['since']}"
    for epoch in document["sealing"]:
        yield (
            "sealing key",
            f"from {epoch['not_before']}, for peers until {epoch['not_after']}, destroyed after {epoch['opens_until']}",
        )
    current = "no less than today's" if keystore["current"] else "less than today's"
    yield "keystore", keystore["file"]
    yield "", f"a guess costs {keystore['opslimit']} passes over {keystore['memlimit_bytes'] // 2**20} MiB, {current}"
    sources = {"file": "in the file", "credential": "the credential", "prompt": "typed at each start"}
    yield "passphrase", f"{sources[passphrase['source']]} {passphrase['place']}".rstrip()
    backup, revocation, protection = document["backup"], document["revocation"], document["protection"]
    if backup is not None:
        how = "a passphrase" if backup["by"] == "passphrase" else f"{backup['threshold']} of {backup['count']} shares"
        yield "backed up", f"{backup['at']}, opens with {how}"
    whole = document["node_backup"]
    if whole is not None:
        yield "whole node", f"backed up {whole['at']}, for the key {whole['key_id']}"
    if revocation is not None:
        yield "revocation", f"prepared {revocation['prepared_at']}"
    if protection is not None:
        dumps = "no core dumps" if protection["dumps_off"] else "core dumps may be made"
        yield "memory", f"{'locked' if protection['memory_locked'] else 'not locked'}, {dumps}"


@click.command()
@passphrase_option
@click.option("--new-passphrase-file", type=_File, help="The file that holds the new passphrase. [default: ask]")
@click.option("--same", is_flag=True, help="Keep the passphrase, and raise the cost of guessing it to today's.")
@config_option
@json_option
def passwd(
    passphrase_file: Path | None, new_passphrase_file: Path | None, same: bool, config: Path, as_json: bool
) -> None:
    """Change the keystore's passphrase; the node may run."""
    from exchange.cli.passphrase import ask_new
    from exchange.node.config import load_configuration
    from exchange.node.passphrase import read_passphrase
    from exchange.node.relocking import Relocking

    if same and new_passphrase_file is not None:
        raise CommandFailed("--same and --new-passphrase-file do not go together; nothing was changed", USAGE)
    configuration = load_configuration(config)
    found = open_with_passphrase(configuration, passphrase_file)
    if same:
        new = None
    elif new_passphrase_file is not None:
        new = read_passphrase(new_passphrase_file)
    else:
        new = ask_new(configuration.origin, "--new-passphrase-file")
    change = Relocking.plan(configuration, found, new)
    change.announce()
    told = _perform(change, Node(config))
    change.complete()
    cost = change.new.cost
    file = None if change.file is None else str(change.file)
    if as_json:
        document = {"opslimit": cost.opslimit, "memlimit_bytes": cost.memlimit_bytes, "same": same}
        print_json({**document, "running": told, "passphrase_file": file})
        return
    if same:
        click.echo("The keystore is locked with the same passphrase, at today's cost of guessing it.")
        return
    click.echo("The keystore has a new passphrase. Nothing needs to be restarted.")
    if file is not None:
        click.echo(f"It is in {file}: keep a copy elsewhere, or the keys are lost with the file.")
    elif configuration.tables.keystore.passphrase_credential or configuration.passphrase_path:
        click.echo("Put it where the node gets it before the node starts again:")
        credential = configuration.tables.keystore.passphrase_credential
        click.echo(f"the credential {credential!r}." if credential else f"{configuration.passphrase_path}.")


def _perform(change: Relocking, node: Node) -> bool:
    """Have the keystore locked anew, by the node if it runs; whether it does."""
    try:
        node.request("POST", "/v1/keys/passphrase", change.request())
        return True
    except CommandFailed as error:
        if change.is_done():
            return True
        if error.code == "answer-lost":
            raise CommandFailed(
                "the node stopped before it answered",
                TRY_LATER,
                "The keystore opens with the present passphrase or with the new one. Run this again.",
                error.code,
            ) from None
        if error.code != "node-not-running":
            change.withdraw()
            raise
    _perform_here(change)
    return False


def _perform_here(change: Relocking) -> None:
    from exchange.errors import ExchangeError
    from exchange.store.errors import StoreInUse

    try:
        change.perform()
    except StoreInUse:
        change.withdraw()
        raise CommandFailed(
            "the node is starting or stopping; nothing was changed", TRY_LATER, "Run this again."
        ) from None
    except (ExchangeError, OSError):
        change.withdraw()
        raise


def node_document(node: Node, path: str) -> Any:
    """What a running node says, or None where it does not run."""
    try:
        return node.request("GET", path)
    except CommandFailed as error:
        if error.code != "node-not-running":
            raise
    return None
