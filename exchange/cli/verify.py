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


class NothingToCheck(ValueError):
    """A file that holds neither receipts nor a proven statement, or no card."""


def read_document(data: bytes) -> _Document:
    """What is in a file with receipts, a card or another proven statement; whether it is true is another matter.

    Raises:
        NothingToCheck: there is none of these.
    """
    try:
        return msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise NothingToCheck("neither receipts nor a proven statement") from None


def check_document(document: _Document, card: bytes | None) -> tuple[Any, list[dict[str, Any]]]:
    """Check receipts or a statement against a card, or the one in the document; the signer, and what was signed.

    Raises:
        NothingToCheck: there is no card, or nothing else.
        CryptoError, NodeError, SchemaError: it does not hold.
    """
    from exchange.crypto.names import Origin
    from exchange.node.cards import parse_card_file
    from exchange.schema.card_file import VerifiedCard
    from exchange.schema.succession import all_keys, verify_by_any

    items = list(document.receipts)
    embedded = document.card
    if document.statement is not None and document.proof is not None:
        items.append(_Proven(document.statement, document.proof))
        embedded = embedded or _Card(document.statement, document.proof, document.rotations)
    if card is None and embedded is None:
        raise NothingToCheck("there is no card in the file; name one with --card")
    signer: VerifiedCard = parse_card_file(card if card is not None else msgspec.json.encode(embedded))
    if not items:
        raise NothingToCheck("there is nothing to check")
    origin = Origin(signer.card.origin)
    rotations = (*signer.rotations, *(_items(embedded.rotations) if embedded is not None else ()))
    pairs = all_keys(signer.keys, origin, rotations)
    return signer, [_describe(verify_by_any(item, origin, pairs)) for item in _items(items)]


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
    from exchange.node.errors import NodeError
    from exchange.schema.errors import SchemaError

    try:
        card = card_file.read_bytes() if card_file is not None else None
        signer, receipts = check_document(read_document(file.read_bytes()), card)
    except NothingToCheck as error:
        raise CommandFailed(f"{file}: {error}", INVALID) from None
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
        signed = entry.get("agency_signed")
        if signed is not None:
            click.echo(f"    signed by the agency itself: {signed['name']}, fingerprint {signed['fingerprint']}")
        elif entry["rung"] in ("owned", "queried", "redirected"):
            whose = "the borough's word" if entry["by_borough"] else "the agency's, as the borough says"
            click.echo(f"    {whose}: the agency has not signed it itself")
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


def _signed_by(receipt: Any) -> dict[str, str] | None:
    """Which agency has signed what a receipt says, by its own keys; None where it rests on the node's word.

    Raises:
        AcknowledgementInvalid: the agency's signature does not hold, or is of something else.
    """
    from exchange.schema.acknowledgement import check_is_of, prove_acknowledgement

    if receipt.acknowledgement is None:
        return None
    proven = prove_acknowledgement(receipt.acknowledgement)
    check_is_of(proven, receipt)
    return {"name": proven.name, "fingerprint": proven.signer.hex(), "at": proven.said.at.isoformat()}


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
            "redirected_to": receipt.to,
            "by_borough": receipt.by_borough,
            "agency_signed": _signed_by(receipt),
        }
    elif statement.type == MANIFEST:
        manifest = decode_wire(manifest_decoder, statement.body)
        found |= {"message_id": manifest.message_id, "at": manifest.created_at.isoformat(), "to": manifest.recipient}
    elif statement.type == CARD:
        found |= {"at": decode_wire(card_decoder, statement.body).issued_at.isoformat()}
    return {**found, "origin": verified.checkpoint.origin, "index": verified.index}
