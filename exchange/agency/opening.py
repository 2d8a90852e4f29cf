"""Open a section that was sealed to the agency's own key. Pure; in this order, and nothing is taken if one step fails:

1. the sender's card holds under its own keys; where the agency knows that borough, the keys are those that it knows;
2. the manifest stands in the sender's log, under the card's keys or those before them;
3. the event says what the manifest says, and is for this agency: message, section, areas, reader;
4. the parcel is the one in the manifest, and opens with a key of the agency's, for these boroughs and this message;
5. the ciphertext is the one in the manifest, opens, and is what the sender committed to.

What the node says beside that, such as when it came, is the node's word.

Source: docs/protocol.md, "Sealed sections".
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from exchange.agency.errors import EventInvalid, KeyNotHere, NotOpened, OtherBorough
from exchange.agency.event import Sealed, SectionEvent
from exchange.agency.keys import AgencyKeys
from exchange.agency.senders import KnownSenders
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.parcel import open_parcel
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.schema.card_file import VerifiedCard, read_card_file
from exchange.schema.errors import SchemaError
from exchange.schema.events import section_event_id
from exchange.schema.section_content import read_content
from exchange.schema.succession import all_keys, verify_by_any
from exchange.schema.wire import MANIFEST, Manifest, ProvenStatement, SectionEntry, decode_wire, manifest_decoder


@dataclass(frozen=True, slots=True, repr=False)
class OpenedSection:
    """A section as its sender wrote it, and what was proven on the way.

    `alone`: the sender named no other reader, so that nobody else had the means to open it. Where there are `others`,
    each could read it too; and so could the borough's node, for each of them that has no key of its own.
    """

    event_id: str
    message_id: str
    section: str
    kind: str
    sender: str
    sender_area: str
    recipient: str
    fingerprint: str
    known: bool
    created_at: str
    urgent: bool
    key_id: bytes
    leaf_hash: bytes
    others: tuple[str, ...]
    content: dict[str, Any]
    #: What opens the section's attachments too.
    secret: Secret

    @property
    def alone(self) -> bool:
        """Whether it was sealed to this agency's key and to no other."""
        return not self.others


@dataclass(frozen=True, slots=True)
class ProvenManifest:
    """A sender's manifest, proven by the card beside it."""

    manifest: Manifest
    leaf_hash: bytes
    card: VerifiedCard


def open_section_event(
    event: SectionEvent, keys: AgencyKeys, senders: KnownSenders | None = None, kind: str | None = None
) -> OpenedSection:
    """Open the sealed section in an event; `kind` is which agency this is, where it is more than one.

    Raises:
        NotOpened: a step failed; KeyNotHere and OtherBorough are such.
        SenderChanged: the sender is known here by other keys.
        EventInvalid: the node has opened the section: there is nothing to open.
    """
    sealed = event.data.sealed
    if sealed is None:
        raise EventInvalid(
            "the borough's node has opened this section", hint="Its content is in the event. See docs/agencies.md."
        )
    proven = prove_manifest(sealed)
    known = (senders or KnownSenders()).knows(proven.card)
    manifest = proven.manifest
    entry, reader = _entry(event, proven, kind)
    content, secret = _content(sealed, keys, manifest, entry)
    return OpenedSection(
        event_id=event.id,
        message_id=manifest.message_id,
        section=entry.name,
        kind=reader,
        sender=manifest.sender,
        sender_area=manifest.from_area,
        recipient=manifest.recipient,
        fingerprint=proven.card.fingerprint,
        known=known,
        created_at=manifest.created_at.isoformat(),
        urgent=manifest.urgent,
        key_id=sealed.key_id,
        leaf_hash=proven.leaf_hash,
        others=tuple(name for name in entry.readers if name != reader),
        content=content,
        secret=secret,
    )


def prove_manifest(sealed: Sealed) -> ProvenManifest:
    """Check who sent a sealed section.

    Raises:
        NotOpened: card or manifest do not hold.
    """
    try:
        card = read_card_file(sealed.card)
        origin = Origin(card.card.origin)
        item = ProvenStatement(statement=sealed.manifest, proof=sealed.proof.decode())
        verified = verify_by_any(item, origin, all_keys(card.keys, origin, card.rotations))
        if verified.statement.type != MANIFEST:
            raise NotOpened("what the sender signed is no manifest")
        manifest = decode_wire(manifest_decoder, verified.statement.body)
    except (CryptoError, SchemaError, UnicodeDecodeError) as error:
        raise NotOpened(f"the sender is not proven: {error}") from None
    if (manifest.sender, manifest.from_area) != (card.card.origin, card.card.area):
        raise OtherBorough("the manifest is of another borough than the card")
    return ProvenManifest(manifest, verified.leaf_hash, card)


def _entry(event: SectionEvent, proven: ProvenManifest, kind: str | None) -> tuple[SectionEntry, str]:
    """The section of an event in its manifest, and as which of its readers the agency gets it."""
    manifest, data = proven.manifest, event.data
    said = (data.message_id, data.sender_area, data.recipient_area, data.urgent, event.node)
    signed = (manifest.message_id, manifest.from_area, manifest.to_area, manifest.urgent, manifest.recipient)
    if said != signed:
        raise OtherBorough("the event says something else than what the sender signed")
    entry = next((entry for entry in manifest.sections if entry.name == data.section), None)
    if entry is None:
        raise NotOpened("the message has no such section")
    for reader in entry.readers:
        if event.id == section_event_id(proven.leaf_hash, entry.name, reader) and kind in (None, reader):
            return entry, reader
    raise OtherBorough("the section is not for this agency")


def _content(
    sealed: Sealed, keys: AgencyKeys, manifest: Manifest, entry: SectionEntry
) -> tuple[dict[str, Any], Secret]:
    if all((parcel.key_id, parcel.parcel) != (sealed.key_id, sealed.parcel) for parcel in manifest.parcels):
        raise NotOpened("the parcel is not in the manifest")
    if hashlib.sha256(sealed.ciphertext).digest() != entry.sha256:
        raise NotOpened("the ciphertext is not the one in the manifest")
    name, message_id = SectionName(entry.name), MessageId(manifest.message_id)
    sender, recipient = Origin(manifest.sender), Origin(manifest.recipient)
    try:
        secrets = open_parcel(sealed.parcel, keys.private(sealed.key_id), sender, recipient, message_id)
        if name not in secrets:
            raise KeyNotHere("the sender has not sealed this section to the agency's key")
        bound_to = SectionContext(message_id, sender, recipient, name)
        opened = open_section(sealed.ciphertext, secrets[name], bound_to, entry.commitment)
        return read_content(opened), secrets[name]
    except (CryptoError, SchemaError) as error:
        raise NotOpened(f"the section does not open: {error}") from None
