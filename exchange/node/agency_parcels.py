"""What one agency is still to have of one message, and the events that it gets it in.

* A section that the agency has accepted is not among it, unless it is replayed.
* What is sealed to a key of the agency's own goes on as it came, with what proves its sender; the node opens none.
* Where the node opens a section, plaintext exists from the making of its event until that has left.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from exchange.crypto.errors import SectionError
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.handover.rungs import has_reached
from exchange.node.agency_keys import is_for_others, own_parcel
from exchange.node.cards import as_items
from exchange.node.compose import recall_secrets
from exchange.node.services import Services, moment
from exchange.node.webhook import event_body
from exchange.schema.card_file import MOST_ROTATIONS, CardFile
from exchange.schema.events import SECTION_DELIVERED, section_event_id
from exchange.schema.wire import Manifest, SectionEntry, decode_wire, manifest_decoder
from exchange.store.agency_keys import all_agency_keys, kinds_by_key
from exchange.store.attempts import accepted_in
from exchange.store.messages import (
    KeysRow,
    MessageRow,
    SectionRow,
    keys_of,
    message_by_number,
    placements_of,
    sections_of,
)
from exchange.store.outbox import REPLAY, Delivery
from exchange.store.peers import peer
from exchange.store.transaction import Transaction
from exchange.store.trust import proven_rotations


@dataclass(frozen=True, slots=True)
class AgencyParcel:
    """What one agency is still to have of one message."""

    message: MessageRow
    manifest: Manifest
    secrets: dict[str, Secret]
    sections: list[tuple[SectionEntry, SectionRow]]
    #: What goes with each section where the agency opens it itself.
    sealed: dict[str, bytes] | None = None


async def collect(services: Services, delivery: Delivery, kind: str) -> AgencyParcel:
    """What an agency is still to have of the message of a delivery; of a replay, what it had.

    Raises:
        NotFound: the message is not there any more.
        RestError: its secrets cannot be unwrapped.
    """
    number = delivery.message or 0

    async def view(
        tx: Transaction,
    ) -> tuple[MessageRow, Manifest, KeysRow, list[tuple[SectionEntry, SectionRow]], dict[str, bytes] | None]:
        message = await message_by_number(tx, number)
        manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
        accepted = {
            row.section
            for row in await placements_of(tx, number)
            if row.agency == kind and has_reached(row.rung, "delivered")
        }
        rows = {row.section: row for row in await sections_of(tx, number)}
        wanted = {entry.name for entry in manifest.sections} - accepted
        if delivery.kind == REPLAY:
            wanted = accepted - await accepted_in(tx, number, kind, delivery.number, delivery.created_at_ms)
        waiting = [
            (entry, rows[entry.name]) for entry in manifest.sections if kind in entry.readers and entry.name in wanted
        ]
        return (
            message,
            manifest,
            await keys_of(tx, number),
            waiting,
            await _sealed(services, tx, message, manifest, kind),
        )

    message, manifest, keys, waiting, sealed = await services.store.read(view)
    secrets = recall_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, keys)
    return AgencyParcel(message, manifest, secrets, waiting, sealed)


async def _sealed(
    services: Services, tx: Transaction, message: MessageRow, manifest: Manifest, kind: str
) -> dict[str, bytes] | None:
    """What an agency needs to open by itself what is sealed to a key of its own; None where the node opens it."""
    if not is_for_others(services, manifest):
        return None
    parcel = own_parcel(manifest, kinds_by_key(await all_agency_keys(tx)), kind)
    if parcel is None:
        return None
    sender = await peer(tx, message.peer)
    rotations = (await proven_rotations(tx, message.peer))[-MOST_ROTATIONS:]
    card = CardFile(sender.card, sender.proof, as_items(rotations))
    return {
        "manifest": message.statement,
        "proof": (message.proof or "").encode(),
        "card": msgspec.json.encode(card),
        "parcel": parcel.parcel,
        "key_id": parcel.key_id,
    }


def section_event(services: Services, parcel: AgencyParcel, kind: str, entry: SectionEntry, row: SectionRow) -> bytes:
    """The event of a section; where the node opens it, plaintext exists from here until it is sent.

    Raises:
        CryptoError: the section cannot be opened.
    """
    manifest = parcel.manifest
    name = SectionName(entry.name)
    content: dict[str, Any]
    if parcel.sealed is not None:
        content = {"sealed": {**parcel.sealed, "ciphertext": row.ciphertext}}
    else:
        content = {"content": _open(parcel, entry, row)}
    return event_body(
        section_event_id(parcel.message.leaf_hash, name, kind),
        SECTION_DELIVERED,
        services.configuration.origin,
        f"{manifest.message_id}/{name}",
        moment(parcel.message.stored_at_ms),
        {
            "message_id": manifest.message_id,
            "section": name,
            "from": manifest.from_area,
            "to": manifest.to_area,
            "urgent": manifest.urgent,
            **content,
        },
    )


def _open(parcel: AgencyParcel, entry: SectionEntry, row: SectionRow) -> Any:
    """The content of a section that the node opens.

    Raises:
        CryptoError: it cannot be opened.
    """
    manifest, name = parcel.manifest, SectionName(entry.name)
    secret = parcel.secrets.get(name)
    if secret is None:
        raise SectionError("the node has no secret of this section")
    bound_to = SectionContext(MessageId(manifest.message_id), Origin(manifest.sender), Origin(manifest.recipient), name)
    return msgspec.msgpack.decode(open_section(row.ciphertext, secret, bound_to, entry.commitment).reveal())
