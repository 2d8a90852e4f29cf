"""What one agency is still to have of one message, and the events that it gets it in.

* It is what was given to the agency and its kind may read, by the manifest and by the catalogue: never anything else.
  What was given to it before the catalogue denied it that is named, so that it can be held.
* A section that the agency has accepted is not among it, unless it is replayed.
* What is sealed to a key of the agency's own goes on as it came, with what proves its sender; the node opens none.
* Where the node opens a section, plaintext exists from the making of its event until that has left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from exchange.crypto.errors import SectionError
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.handover.holding import is_over
from exchange.handover.overdue import Open, late_for
from exchange.handover.rungs import has_reached
from exchange.node.agency_keys import is_for_others, own_parcel
from exchange.node.agency_orders import PassedOn, order_event, order_for
from exchange.node.cards import as_items
from exchange.node.cases import read_handover
from exchange.node.compose import recall_secrets
from exchange.node.event_links import event_links
from exchange.node.said import open_said
from exchange.node.services import Services, moment
from exchange.node.webhook import event_body
from exchange.schema.acknowledgement import words_of
from exchange.schema.agency_names import kind_of
from exchange.schema.attachments import FIELD, attachments_of
from exchange.schema.card_file import MOST_ROTATIONS, CardFile
from exchange.schema.errors import AttachmentInvalid
from exchange.schema.events import (
    HANDOVER_OVERDUE,
    SECTION_DELIVERED,
    SECTION_QUERIED,
    order_event_id,
    overdue_event_id,
    question_event_id,
    section_event_id,
)
from exchange.schema.wire import Manifest, SectionEntry, decode_wire, manifest_decoder, receipt_decoder
from exchange.store.acknowledgements import AcknowledgementRow, acknowledgement
from exchange.store.agency_keys import all_agency_keys, kinds_by_key
from exchange.store.attempts import accepted_in
from exchange.store.endpoints import wants_links
from exchange.store.errors import NotFound
from exchange.store.messages import (
    KeysRow,
    MessageRow,
    SectionRow,
    keys_of,
    message_by_number,
    placements_of,
    receipt_by_hash,
    sections_of,
)
from exchange.store.outbox import OVERDUE, PASSED_ON, QUESTION, REPLAY, Delivery
from exchange.store.peers import peer
from exchange.store.transaction import Transaction
from exchange.store.trust import proven_rotations

#: What stands for the section where an event is about the whole handover.
_HANDOVER: Final = "handover"


@dataclass(frozen=True, slots=True)
class AgencyParcel:
    """What one agency is still to have of one message."""

    message: MessageRow
    manifest: Manifest
    secrets: dict[str, Secret]
    sections: list[tuple[SectionEntry, SectionRow]]
    #: What goes with each section where the agency opens it itself.
    sealed: dict[str, bytes] | None = None
    #: Sections that it was given, and may not read any more.
    denied: tuple[str, ...] = ()
    #: In place of a section, a question about it.
    question: "Question | None" = None
    #: In place of a section, what is late of the handover.
    late: "Late | None" = None
    #: In place of a section, an order about it.
    passed: PassedOn | None = None
    #: Addresses by which to take sections on, by section, where the agency wants them.
    links: Mapping[str, str] = field(default_factory=dict)

    def event_id(self, section: str, kind: str) -> str:
        """The id of the event of a section."""
        if self.late is not None:
            return overdue_event_id(self.message.leaf_hash, self.late.delivery, kind)
        if self.passed is not None:
            return order_event_id(self.passed.row.leaf_hash, section, kind)
        if self.question is not None:
            return question_event_id(self.question.row.leaf_hash, section, kind)
        return self.section_id(section, kind)

    def section_id(self, section: str, kind: str) -> str:
        """The id under which a section itself came, or would have."""
        return section_event_id(self.message.leaf_hash, section, kind)


@dataclass(frozen=True, slots=True)
class Late:
    """What an agency is to see to, told by a delivery of that number."""

    delivery: int
    steps: tuple[Open, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Question:
    """A question of an agency elsewhere about a section that was sent there; `text` where the node can read it."""

    row: AcknowledgementRow
    text: str | None


async def collect(services: Services, delivery: Delivery, name: str) -> AgencyParcel:
    """What an agency is still to have of the message of a delivery; of a replay, what it had.

    Raises:
        NotFound: the message is not there any more.
        RestError: its secrets cannot be unwrapped.
    """
    if delivery.kind == QUESTION:
        return await _collect_question(services, delivery)
    if delivery.kind == OVERDUE:
        return await services.store.read(lambda tx: _collect_late(services, tx, delivery, name))
    if delivery.kind == PASSED_ON:
        return await services.store.read(lambda tx: _collect_order(tx, delivery, name))
    number, kind = delivery.message or 0, kind_of(name)

    async def view(
        tx: Transaction,
    ) -> tuple[
        MessageRow,
        Manifest,
        KeysRow | None,
        list[tuple[SectionEntry, SectionRow]],
        dict[str, bytes] | None,
        set[str],
        bool,
    ]:
        message = await message_by_number(tx, number)
        manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
        given = [row for row in await placements_of(tx, number) if row.given_to == name and not is_over(row.rung)]
        wanted = {row.section for row in given if not has_reached(row.rung, "delivered")}
        if delivery.kind == REPLAY:
            accepted = {row.section for row in given} - wanted
            wanted = accepted - await accepted_in(tx, number, name, delivery.number, delivery.created_at_ms)
        rows = {row.section: row for row in await sections_of(tx, number)}
        waiting = [
            (entry, rows[entry.name])
            for entry in manifest.sections
            if entry.name in wanted and kind in services.catalogue.allowed(entry.name).intersection(entry.readers)
        ]
        return (
            message,
            manifest,
            await keys_of(tx, number) if waiting else None,
            waiting,
            await _sealed(services, tx, message, manifest, name),
            wanted - {entry.name for entry, _ in waiting},
            await wants_links(tx, name),
        )

    message, manifest, keys, waiting, sealed, denied, wants = await services.store.read(view, brief=True)
    if keys is None:
        return AgencyParcel(message, manifest, {}, [])
    secrets = recall_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, keys)
    links: dict[str, str] = {}
    # What is sealed goes to an agency with a program of its own, whose word the sender may want signed.
    if wants and sealed is None:
        links = await event_links(services, number, name, [entry.name for entry, _ in waiting])
    return AgencyParcel(message, manifest, secrets, waiting, sealed, tuple(sorted(denied)), links=links)


async def _collect_order(tx: Transaction, delivery: Delivery, name: str) -> AgencyParcel:
    """An order of the sender, about each section of which the agency has not been told."""
    message, order, wanted = await order_for(tx, delivery.position or 0, name)
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    told = [(entry, SectionRow(entry.name, b"")) for entry in manifest.sections if entry.name in wanted]
    return AgencyParcel(message, manifest, {}, told, passed=PassedOn(order, await card_file_of(tx, message.peer)))


async def _sealed(
    services: Services, tx: Transaction, message: MessageRow, manifest: Manifest, name: str
) -> dict[str, bytes] | None:
    """What an agency needs to open by itself what is sealed to a key of its own; None where the node opens it."""
    if not is_for_others(services, manifest):
        return None
    # Only of the agency that is named by its kind alone can there be keys, and so parcels.
    parcel = own_parcel(manifest, kinds_by_key(await all_agency_keys(tx)), name)
    if parcel is None:
        return None
    return {
        "manifest": message.statement,
        "proof": (message.proof or "").encode(),
        "card": await card_file_of(tx, message.peer),
        "parcel": parcel.parcel,
        "key_id": parcel.key_id,
    }


async def card_file_of(tx: Transaction, origin: str) -> bytes:
    """A peer's card file, with what leads to its present keys."""
    row = await peer(tx, origin)
    rotations = (await proven_rotations(tx, origin))[-MOST_ROTATIONS:]
    return msgspec.json.encode(CardFile(row.card, row.proof, as_items(rotations)))


async def _collect_question(services: Services, delivery: Delivery) -> AgencyParcel:
    """A question, and what its counterpart needs to read it."""

    async def view(tx: Transaction) -> AgencyParcel:
        message = await message_by_number(tx, delivery.message or 0)
        manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
        row = await acknowledgement(tx, delivery.position or 0)
        kept = None if row is None else await open_said(services, tx, message, row)
        if row is None or kept is None:
            raise NotFound("the content of this message was erased")
        sealed = None
        if kept.said.question is None:
            receipt = await receipt_by_hash(tx, message.number, row.leaf_hash)
            words = words_of(decode_wire(receipt_decoder, parse_statement(receipt.statement).body))
            kinds = kinds_by_key(await all_agency_keys(tx))
            parcels = () if words is None else words.parcels
            parcel = next((parcel for parcel in parcels if kinds.get(parcel.key_id) == row.agency), None)
            if parcel is None:
                raise NotFound(f"it is sealed to a key that agency {row.agency} does not have")
            sealed = {
                "receipt": receipt.statement,
                "proof": (receipt.proof or "").encode(),
                "card": await card_file_of(tx, message.peer),
                "ciphertext": kept.ciphertexts[0],
                "parcel": parcel.parcel,
                "key_id": parcel.key_id,
            }
        section = next(entry for entry in manifest.sections if entry.name == row.section)
        asked = Question(row, kept.said.question)
        return AgencyParcel(message, manifest, {}, [(section, SectionRow(section.name, b""))], sealed, question=asked)

    return await services.store.read(view)


async def _collect_late(services: Services, tx: Transaction, delivery: Delivery, name: str) -> AgencyParcel:
    """What is late still, and an agency's to see to; nothing where that was done meanwhile."""
    handover = await read_handover(tx, await message_by_number(tx, delivery.message or 0))
    steps = late_for(handover.case, services.deadlines, services.now(), kind_of(name))
    whole = msgspec.structs.replace(handover.manifest.sections[0], name=_HANDOVER)
    told = [(whole, SectionRow(_HANDOVER, b""))] if steps else []
    late = Late(delivery.number, tuple(steps))
    return AgencyParcel(handover.message, handover.manifest, {}, told, late=late)


def _overdue_event(services: Services, parcel: AgencyParcel, late: Late, agency: str) -> bytes:
    manifest = parcel.manifest
    return event_body(
        parcel.event_id(_HANDOVER, agency),
        HANDOVER_OVERDUE,
        services.configuration.origin,
        manifest.message_id,
        services.now(),
        {
            "message_id": manifest.message_id,
            "from": manifest.from_area,
            "to": manifest.to_area,
            "urgent": manifest.urgent,
            "agency": agency,
            "overdue": [
                {"step": step.due.step, "agency": step.kind, "sections": step.sections, "due_at": step.due.at}
                for step in late.steps
            ],
        },
    )


def _question_event(services: Services, parcel: AgencyParcel, question: Question, section: str) -> bytes:
    manifest, row = parcel.manifest, question.row
    asked = {"sealed": parcel.sealed} if parcel.sealed is not None else {"content": {"question": question.text}}
    return event_body(
        parcel.event_id(section, row.agency),
        SECTION_QUERIED,
        services.configuration.origin,
        f"{manifest.message_id}/{section}",
        moment(row.at_ms),
        {
            "message_id": manifest.message_id,
            "section": section,
            "from": manifest.to_area,
            "to": manifest.from_area,
            "urgent": manifest.urgent,
            "agency": row.agency,
            **asked,
        },
    )


def section_event(services: Services, parcel: AgencyParcel, agency: str, entry: SectionEntry, row: SectionRow) -> bytes:
    """The event of a section; where the node opens it, plaintext exists from here until it is sent.

    Raises:
        CryptoError: the section cannot be opened.
    """
    if parcel.late is not None:
        return _overdue_event(services, parcel, parcel.late, agency)
    if parcel.passed is not None:
        return order_event(services, parcel.message, parcel.manifest, parcel.passed, entry.name, agency)
    if parcel.question is not None:
        return _question_event(services, parcel, parcel.question, entry.name)
    manifest = parcel.manifest
    name = SectionName(entry.name)
    content: dict[str, Any]
    if parcel.sealed is not None:
        content = {"sealed": {**parcel.sealed, "ciphertext": row.ciphertext}}
    else:
        opened = open_content(manifest, parcel.secrets, entry, row)
        content = {"content": _with_places(services, manifest, name, opened)}
    return event_body(
        section_event_id(parcel.message.leaf_hash, name, agency),
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
            **({"links": {"acknowledge": parcel.links[name]}} if name in parcel.links else {}),
        },
    )


def _with_places(services: Services, manifest: Manifest, section: SectionName, content: dict[str, Any]) -> Any:
    """A section's content, with where the agency fetches each of its attachments, if it has any."""
    base = services.configuration.tables.agencies.url.rstrip("/")
    if FIELD not in content or not base:
        return content
    try:
        listed = attachments_of(content)
    except AttachmentInvalid:
        return content  # its attachments will be found to be damaged
    place = f"{base}/v1/agency/attachments/{manifest.message_id}/{section}"
    return {**content, FIELD: [{**msgspec.to_builtins(one), "url": f"{place}/{one.number}"} for one in listed]}


def open_content(manifest: Manifest, secrets: Mapping[str, Secret], entry: SectionEntry, row: SectionRow) -> Any:
    """The content of a section that the node opens.

    Raises:
        CryptoError: it cannot be opened.
    """
    name = SectionName(entry.name)
    secret = secrets.get(name)
    if secret is None:
        raise SectionError("the node has no secret of this section")
    bound_to = SectionContext(MessageId(manifest.message_id), Origin(manifest.sender), Origin(manifest.recipient), name)
    return msgspec.msgpack.decode(open_section(row.ciphertext, secret, bound_to, entry.commitment).reveal())
