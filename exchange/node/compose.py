"""Make a form message: seal each part, compute who may read it, and write the manifest. No I/O.

* Recipients come from the catalogue (through the parts' readers) and the receiver's card; nobody adds one by hand.
* An agency that has a key in the card gets its own parcel; the node gets the secrets for the others alone.
"""

import functools
from collections.abc import Mapping, Sequence
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
from exchange.schema.card_file import usable_key
from exchange.schema.split import FormPart
from exchange.schema.wire import VERSION, Card, CardSealingKey, Manifest, ParcelEntry, SectionEntry, encode_wire
from exchange.store.messages import KeysRow, SectionRow

_encode_content = msgspec.msgpack.Encoder().encode
_decode_secrets = msgspec.msgpack.Decoder(dict[str, bytes]).decode


@dataclass(frozen=True, slots=True, repr=False)
class Composed:
    """A message that is ready to be signed and stored."""

    manifest: Manifest
    body: bytes
    keys: KeysRow
    sections: tuple[SectionRow, ...]


def current_key(card: Card, now: datetime) -> CardSealingKey:
    """The key to seal to.

    Raises:
        NoCurrentKey: none is in force, or the card itself is not.
    """
    key = usable_key(card, now)
    if key is None:
        raise NoCurrentKey(f"the card of {card.origin} holds no sealing key that is in force")
    return key


def current_sealing_key(card: Card, now: datetime) -> SealingPublicKey:
    """What `current_key` gives, for sealing.

    Raises:
        NoCurrentKey: none is in force.
    """
    return _public_key(current_key(card, now).key)


@functools.lru_cache(maxsize=256)
def _public_key(raw: bytes) -> SealingPublicKey:
    return SealingPublicKey(raw)


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
    given: Mapping[SectionName, Secret] | None = None,
) -> Composed:
    """Seal `parts` to the node of `card` and its agencies; `given` are the secrets of those with attachments."""
    recipient = Origin(card.origin)
    own_keys = {agency.kind: _public_key(agency.key) for agency in card.agencies if agency.key is not None}
    secrets: dict[SectionName, Secret] = {}
    parcels: dict[bytes, tuple[SealingPublicKey, dict[SectionName, Secret]]] = {}
    entries: list[SectionEntry] = []
    rows: list[SectionRow] = []
    for part in parts:
        bound_to = SectionContext(message_id, sender, recipient, part.name)
        sealed = seal_section(_encode_content(part.content), bound_to, (given or {}).get(part.name))
        entries.append(
            SectionEntry(name=part.name, readers=part.readers, sha256=sealed.sha256, commitment=sealed.commitment)
        )
        rows.append(SectionRow(part.name, sealed.ciphertext))
        secrets[part.name] = sealed.secret
        for key in dict.fromkeys(own_keys.get(kind, node_key) for kind in part.readers) if own_keys else (node_key,):
            parcels.setdefault(key.raw, (key, {}))[1][part.name] = sealed.secret
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
        parcels=tuple(
            ParcelEntry(key_id=key.key_id, parcel=seal_parcel(names, key, sender, recipient, message_id))
            for key, names in parcels.values()
        ),
    )
    keys = keep_secrets(store_key, sender, message_id, secrets)
    return Composed(manifest, encode_wire(manifest), keys, tuple(rows))


def message_name(sender: str, message_id: str) -> bytes:
    """What names a message where something is sealed under its key."""
    return context("message", sender.encode(), message_id.encode())


def keep_secrets(store_key: StoreKey, sender: str, message_id: str, secrets: Mapping[SectionName, Secret]) -> KeysRow:
    """The secrets of a message's sections for the store, under a fresh key of the message."""
    key, name = MessageKey.random(), message_name(sender, message_id)
    content = _encode_content({section: secret.reveal() for section, secret in secrets.items()})
    return KeysRow(wrap_message_key(store_key, key, name), seal_at_rest(key, context("section-secrets", name), content))


def message_key(store_key: StoreKey, sender: str, message_id: str, keys: KeysRow) -> MessageKey:
    """The key of a message, for what is erased with it.

    Raises:
        RestError: the row does not belong to that message.
    """
    return unwrap_message_key(store_key, keys.wrapped, message_name(sender, message_id))


def recall_secrets(store_key: StoreKey, sender: str, message_id: str, keys: KeysRow) -> dict[str, Secret]:
    """The secrets of a message's sections from the store.

    Raises:
        RestError: the row does not belong to that message.
    """
    name = message_name(sender, message_id)
    key = message_key(store_key, sender, message_id, keys)
    content = _decode_secrets(open_at_rest(key, context("section-secrets", name), keys.secrets))
    return {section: Secret(value) for section, value in content.items()}
