"""Make a form message: seal each part, compute who may read it, and write the manifest. No I/O.

* Recipients come from the catalogue (through the parts' readers) and the receiver's card; nobody adds one by hand.
* An agency that has a key in the card gets its own parcel; the node gets the secrets for the others alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from exchange.crypto.names import MessageId, Origin, SectionName, context
from exchange.crypto.parcel import seal_parcel
from exchange.crypto.rest import MessageKey, StoreKey, open_at_rest, seal_at_rest, unwrap_message_key, wrap_message_key
from exchange.crypto.sealing import SealingPublicKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, seal_section
from exchange.node.errors import NoCurrentKey
from exchange.schema.split import FormPart
from exchange.schema.wire import VERSION, Card, Manifest, ParcelEntry, SectionEntry, encode_wire
from exchange.store.messages import SectionRow

_encode_content = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, repr=False)
class Composed:
    """A message that is ready to be signed and stored."""

    manifest: Manifest
    body: bytes
    wrapped_key: bytes
    sections: tuple[SectionRow, ...]


def current_sealing_key(card: Card, now: datetime) -> SealingPublicKey:
    """The key to seal to: of those in force, the one that lives longest.

    Raises:
        NoCurrentKey: none is in force.
    """
    usable = [key for key in card.sealing_keys if key.not_before <= now < key.not_after]
    if not usable:
        raise NoCurrentKey(f"the card of {card.origin} holds no sealing key that is in force")
    return SealingPublicKey(max(usable, key=lambda key: key.not_after).key)


def compose_message(
    parts: Sequence[FormPart],
    *,
    message_id: MessageId,
    sender: Origin,
    from_area: str,
    card: Card,
    node_key: SealingPublicKey,
    store_key: StoreKey,
    created_at: datetime,
    expires_at: datetime,
    urgent: bool,
) -> Composed:
    """Seal `parts` to the node of `card` and its agencies."""
    recipient = Origin(card.origin)
    own_keys = {agency.kind: SealingPublicKey(agency.key) for agency in card.agencies if agency.key is not None}
    message_key = MessageKey.random()
    secrets: dict[bytes, tuple[SealingPublicKey, dict[SectionName, Secret]]] = {}
    entries: list[SectionEntry] = []
    rows: list[SectionRow] = []
    for part in parts:
        bound_to = SectionContext(message_id, sender, recipient, part.name)
        sealed = seal_section(_encode_content(part.content), bound_to)
        entries.append(
            SectionEntry(name=part.name, readers=part.readers, sha256=sealed.sha256, commitment=sealed.commitment)
        )
        rows.append(
            SectionRow(part.name, seal_secret(message_key, message_id, part.name, sealed.secret), sealed.ciphertext)
        )
        for kind in part.readers:
            key = own_keys.get(kind, node_key)
            secrets.setdefault(key.raw, (key, {}))[1][part.name] = sealed.secret
    parcels = tuple(
        ParcelEntry(key_id=key.key_id, parcel=seal_parcel(names, key, sender, recipient, message_id))
        for key, names in secrets.values()
    )
    manifest = Manifest(
        version=VERSION,
        message_id=message_id,
        sender=sender,
        recipient=recipient,
        from_area=from_area,
        to_area=card.area,
        created_at=created_at,
        expires_at=expires_at,
        urgent=urgent,
        card_serial=card.serial,
        sections=tuple(entries),
        parcels=parcels,
    )
    wrapped = wrap_message_key(store_key, message_key, _message_name(sender, message_id))
    return Composed(manifest, encode_wire(manifest), wrapped, tuple(rows))


def _message_name(sender: str, message_id: str) -> bytes:
    return context("message", sender.encode(), message_id.encode())


def seal_secret(key: MessageKey, message_id: str, section: str, secret: Secret) -> bytes:
    """A section's secret for the store."""
    return seal_at_rest(key, context("section-secret", message_id.encode(), section.encode()), secret.reveal())


def open_secret(store_key: StoreKey, wrapped_key: bytes, sender: str, message_id: str, row: SectionRow) -> Secret:
    """A section's secret from the store.

    Raises:
        RestError: the row does not belong there.
    """
    key = unwrap_message_key(store_key, wrapped_key, _message_name(sender, message_id))
    associated = context("section-secret", message_id.encode(), row.section.encode())
    return Secret(open_at_rest(key, associated, row.sealed_secret or b""))


def new_wrapped_key(store_key: StoreKey, sender: str, message_id: str) -> tuple[MessageKey, bytes]:
    """A fresh message key for a message that arrives, and its wrapped form."""
    key = MessageKey.random()
    return key, wrap_message_key(store_key, key, _message_name(sender, message_id))
