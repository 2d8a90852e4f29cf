"""The store: move it to another database, and check its log."""

import asyncio
from pathlib import Path

import click

from exchange.cli.output import config_option, json_option, print_json


@click.group()
def store() -> None:
    """The node's store: move it to another database, check it."""


@store.command()
@click.option("--to", "target", required=True, help="Where it is to be: sqlite:///FILE, or postgresql://HOST/DATABASE.")
@click.option("--from", "source", help="Where it is. [default: store.url of the configuration]")
@config_option
@json_option
def migrate(target: str, source: str | None, config: Path, as_json: bool) -> None:
    """Move the store of a node that does not run. Every row is read back and compared."""
    from exchange.node.config import check_store_url, load_configuration
    from exchange.node.store_check import verify_head
    from exchange.store.moving import move_store

    configuration = load_configuration(config)
    for url in (target, source):
        if url is not None:
            check_store_url(url)
    old = configuration.resolve_store(source) if source else configuration.store_url
    new = configuration.resolve_store(target)
    report = asyncio.run(move_store(old, new, configuration.lock_path, verify_head))
    count = sum(report.rows.values())
    if as_json:
        log = {"size": report.log.size, "root": report.log.root.hex()}
        print_json({"from": old, "to": new, "rows": count, "tables": report.rows, "log": log})
        return
    click.echo(f"Moved {count} rows. The log of {report.log.size} statements has the root {report.log.root.hex()}.")
    click.echo(f"Now set this under [store] in {config}, and start the node:")
    click.echo(f'url = "{target}"')


@store.command()
@click.option("--url", help="Where it is. [default: store.url of the configuration]")
@config_option
@json_option
def check(url: str | None, config: Path, as_json: bool) -> None:
    """Compute the log anew from every statement, and compare it with what the node signed. The node may run."""
    from exchange.node.config import check_store_url, load_configuration
    from exchange.node.store_check import verify_head
    from exchange.store.moving import check_store

    configuration = load_configuration(config)
    if url is not None:
        check_store_url(url)
    report = asyncio.run(check_store(configuration.resolve_store(url) if url else configuration.store_url))
    origin = verify_head(report)
    if as_json:
        found = {"size": report.size, "checkpoints": report.checkpoints, "root": report.root.hex()}
        print_json({"ok": True, "origin": origin, **found})
        return
    click.echo(f"The log of {origin} is whole: {report.size} statements, {report.checkpoints} checkpoints.")
    click.echo(f"Root: {report.root.hex()}. The last checkpoint is signed by the node's keys.")
