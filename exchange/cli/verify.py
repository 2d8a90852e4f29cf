"""Check receipts, or any proven statement, offline: no node, no store, no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from exchange.cli.client import INVALID, TRUST_REFUSED, CommandFailed
from exchange.cli.output import json_option, print_json


class _Proven(msgspec.Struct, frozen=True):
    statement: bytes
    proof: str


class _Card(msgspec.Struct, frozen=True, omit_defaults=True):
    statement: bytes
    proof: str
    rotations: tuple[_Proven, ...] = ()


class _Document(msgspec.Struct, frozen=True):
    receipts: tuple[_Proven, ...] = ()
    card: _Card | None = None
    statement: bytes | None = None
    proof: str | None = None
    rotations: tuple[_Proven, ...] = ()


def _read(path: Path) -> _Document:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Document)
    except (msgspec.DecodeError, ValueError):
        raise CommandFailed(f"{path} is neither receipts nor a proven statement", INVALID) from None


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--card",
    "card_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The signer's card, got from somewhere that you trust.",
)
@json_option
def verify(file: Path, card_file: Path | None, as_json: bool) -> None:
    """Check the receipts or the statement in FILE."""
    from exchange.crypto.errors import CryptoError
    from exchange.crypto.names import Origin
    from exchange.node.cards import VerifiedCard, parse_card_file
    from exchange.node.errors import NodeError
    from exchange.node.succession import all_keys, verify_by_any
    from exchange.schema.errors import SchemaError

    document = _read(file)
    items = list(document.receipts)
    if document.statement is not None and document.proof is not None:
        items.append(_Proven(document.statement, document.proof))
    embedded = document.card
    if embedded is None and document.statement is not None and document.proof is not None:
        embedded = _Card(document.statement, document.proof, document.rotations)
    try:
        if card_file is not None:
            signer: VerifiedCard = parse_card_file(card_file.read_bytes())
        elif embedded is not None:
            signer = parse_card_file(msgspec.json.encode(embedded))
        else:
            raise CommandFailed("there is no card in the file; name one with --card", INVALID)
        if not items:
            raise CommandFailed(f"there is nothing to check in {file}", INVALID)
        rotations = (*signer.rotations, *(_items(embedded.rotations) if embedded is not None else ()))
        pairs = all_keys(signer.keys, Origin(signer.card.origin), rotations)
        receipts = [_describe(verify_by_any(item, Origin(signer.card.origin), pairs)) for item in _items(items)]
    except (CryptoError, NodeError, SchemaError) as error:
        if as_json:
            print_json({"ok": False, "receipts": [], "message": str(error)})
        raise SystemExit(_refused(str(error), as_json)) from None
    result = {"ok": True, "fingerprint": signer.fingerprint, "origin": signer.card.origin, "receipts": receipts}
    if as_json:
        print_json(result)
        return
    for entry in receipts:
        click.echo(
            f"OK  {entry['at'] or ''}  {entry['origin']}  {entry['rung'] or entry['type']}  {entry['message_id']}"
        )
    if card_file is None:
        from exchange.crypto.signing import format_fingerprint

        click.echo(
            "The card came with the file. Compare its fingerprint with the one that you know of "
            f"{signer.card.origin}:\n{format_fingerprint(signer.fingerprint)}",
            err=True,
        )


def _items(found: Sequence[_Proven]) -> tuple[Any, ...]:
    from exchange.schema.wire import ProvenStatement

    return tuple(ProvenStatement(statement=item.statement, proof=item.proof) for item in found)


def _refused(message: str, as_json: bool) -> int:
    if not as_json:
        click.echo(f"NOT OK: {message}")
    click.echo("Do not rely on this file.", err=True)
    return TRUST_REFUSED


def _describe(verified: Any) -> dict[str, Any]:
    from exchange.schema.wire import (
        CARD,
        MANIFEST,
        RECEIPT,
        card_decoder,
        decode_wire,
        manifest_decoder,
        receipt_decoder,
    )

    statement = verified.statement
    found: dict[str, Any] = {"type": statement.type, "rung": None, "message_id": None, "at": None, "sections": []}
    if statement.type == RECEIPT:
        receipt = decode_wire(receipt_decoder, statement.body)
        found |= {
            "rung": receipt.rung.value,
            "message_id": receipt.message_id,
            "leaf_hash": receipt.leaf_hash.hex(),
            "at": receipt.at.isoformat(),
            "to": receipt.recipient,
            "sections": [{"section": place.section, "agency": place.agency} for place in receipt.placements],
        }
    elif statement.type == MANIFEST:
        manifest = decode_wire(manifest_decoder, statement.body)
        found |= {"message_id": manifest.message_id, "at": manifest.created_at.isoformat(), "to": manifest.recipient}
    elif statement.type == CARD:
        found |= {"at": decode_wire(card_decoder, statement.body).issued_at.isoformat()}
    return {**found, "origin": verified.checkpoint.origin, "index": verified.index}
