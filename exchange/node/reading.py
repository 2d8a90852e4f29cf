"""What the local API tells of messages: status by section, timeline in plain English, receipts. Never the payload."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from exchange.crypto.names import Origin
from exchange.crypto.statement import parse_statement
from exchange.handover.holding import is_over
from exchange.handover.rungs import BESIDE, LADDER, has_reached
from exchange.node.cards import as_items
from exchange.node.delivery import Dispatcher
from exchange.node.disclosing import decode_grounds, describe_ground, reason_of
from exchange.node.orders_shown import orders_by_place
from exchange.node.services import Services, moment
from exchange.node.words_shown import Place, words_of_message
from exchange.schema.card_file import CardFile
from exchange.schema.wire import decode_wire, manifest_decoder
from exchange.store.attachments import AttachmentRow, attachments_of_message
from exchange.store.disclosures import REFUSED, DisclosureRow, disclosure_of
from exchange.store.errors import NotFound
from exchange.store.keys import proven_card
from exchange.store.log import ProvenEntry, proven_at
from exchange.store.messages import (
    OUTBOUND,
    EventRow,
    MessageRow,
    PlacementRow,
    events_of,
    list_messages,
    message_by_id,
    placements_of,
    receipts_of,
    received_at_ms,
)
from exchange.store.outbox import ATTACHMENT, OPENING, QUESTION, Waiting, waiting_of
from exchange.store.peers import peer
from exchange.store.transaction import Transaction
from exchange.store.trust import proven_rotations
from exchange.store.waiting import WaitingForm, all_waiting_forms, waiting_form

Words = dict[Place, dict[str, Any]]
decode_sections: Final = msgspec.msgpack.Decoder(list[tuple[str, list[str]]]).decode


async def describe_message(services: Services, dispatcher: Dispatcher, message_id: str) -> dict[str, Any]:
    """A message's status: a rung for each section at each agency, what is held, and when the next attempt is."""

    async def collect(
        tx: Transaction,
    ) -> (
        _Unsigned
        | tuple[
            MessageRow,
            list[PlacementRow],
            list[Waiting],
            int | None,
            DisclosureRow | None,
            Words,
            Words,
            list[AttachmentRow],
        ]
    ):
        try:
            message = await message_by_id(tx, message_id)
        except NotFound:
            return await _unsigned(tx, message_id)
        number = message.number
        placements = await placements_of(tx, number)
        return (
            message,
            placements,
            await waiting_of(tx, number),
            await received_at_ms(tx, number),
            await disclosure_of(tx, message_id) if message.direction == OUTBOUND else None,
            await words_of_message(services, tx, message, placements),
            await orders_by_place(tx, number),
            await attachments_of_message(tx, number),
        )

    found = await services.store.read(collect, brief=True)
    if isinstance(found, _Unsigned):
        return _describe_unsigned(services, found)
    message, placements, everything, received_ms, disclosure, words, orders, attached = found
    waiting = [item for item in everything if item.kind not in (ATTACHMENT, OPENING)]
    stopped = [item.reason for item in everything if item not in waiting and item.state == "held"]
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    grounds = decode_grounds(disclosure.grounds) if disclosure is not None else {}
    climbed = {(row.section, row.agency): row for row in placements}
    held = {item.lane: item.reason for item in waiting if item.state == "held" and item.kind != QUESTION}
    tries = [dispatcher.state(item.lane) for item in waiting if item.state == "due"]
    attempts = [state.next_attempt_ms for state in tries if state.failures]
    errors = [state.last_error for state in tries if state.last_error]
    return {
        "id": message.message_id,
        "direction": message.direction,
        "peer": message.peer,
        "urgent": bool(message.urgent),
        "created_at": moment(message.created_at_ms),
        "sections": [
            _describe_section(
                entry.name,
                kind,
                climbed.get((entry.name, kind)),
                received_ms,
                held,
                words.get((entry.name, kind)),
                orders.get((entry.name, kind)),
            )
            | {"basis": describe_ground(grounds.get((entry.name, kind)))}
            for entry in manifest.sections
            for kind in entry.readers
        ],
        "attachments": [describe_attachment(row) for row in attached],
        "attachments_held": stopped[0] if stopped else None,
        "disclosure": _describe_disclosure(disclosure),
        "held": held.get(f"peer:{message.peer}"),
        "next_attempt_at": moment(min(attempts)) if attempts else None,
        "last_error": errors[0] if errors else None,
    }


@dataclass(frozen=True, slots=True)
class _Unsigned:
    """A form that is no message: it waits, or was refused and is not kept."""

    disclosure: DisclosureRow | None
    form: WaitingForm | None


async def _unsigned(tx: Transaction, message_id: str) -> _Unsigned:
    """A form that is no message.

    Raises:
        NotFound: there is none of that id.
    """
    disclosure = await disclosure_of(tx, message_id)
    if disclosure is not None and disclosure.state == REFUSED:
        return _Unsigned(disclosure, None)
    return _Unsigned(disclosure, await waiting_form(tx, message_id))


def _describe_unsigned(services: Services, found: _Unsigned) -> dict[str, Any]:
    form, disclosure = found.form, found.disclosure
    grounds = decode_grounds(disclosure.grounds) if disclosure is not None else {}
    if form is not None:
        pairs = [(section, kind) for section, kinds in decode_sections(form.sections) for kind in kinds]
        known = {"id": form.message_id, "peer": form.peer, "urgent": bool(form.urgent)}
        at_ms, held = form.created_at_ms, form.reason
    else:
        assert disclosure is not None  # noqa: S101 - one of them is there
        pairs, at_ms, held = [], disclosure.at_ms, f"refused by {disclosure.decided_by}"
        known = {"id": disclosure.message_id, "peer": None, "urgent": False}
    return {
        **known,
        "direction": OUTBOUND,
        "created_at": moment(at_ms),
        "sections": [
            _describe_section(section, kind, None, None, {}) | {"basis": describe_ground(grounds.get((section, kind)))}
            for section, kind in pairs
        ],
        "disclosure": _describe_disclosure(disclosure),
        "attachments": [],
        "attachments_held": None,
        "held": held,
        "next_attempt_at": None,
        "last_error": None,
    }


def _describe_disclosure(row: DisclosureRow | None) -> dict[str, Any] | None:
    """What the gate said of a form that was sent from here; None for what came."""
    if row is None:
        return None
    return {
        "state": row.state,
        "sent_by": row.sent_by,
        "decided_by": row.decided_by,
        "decided_at": moment(row.decided_at_ms) if row.decided_at_ms is not None else None,
        "overrode": row.lifted.split(", ") if row.lifted else [],
    }


def _describe_section(
    section: str,
    kind: str,
    row: PlacementRow | None,
    received_ms: int | None,
    held: dict[str, str | None],
    word: dict[str, Any] | None = None,
    order: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One section at one agency; before it has climbed by itself it stands where the whole message does."""
    rung, at_ms = (row.rung, row.at_ms) if row else ("received" if received_ms is not None else None, received_ms)
    return {
        "section": section,
        "agency": kind,
        "rung": rung,
        "at": moment(at_ms) if at_ms is not None else None,
        "holder": word["name"] if word else None,
        "word": word,
        "order": order,
        "given_to": row.given_to if row else None,
        "held": held.get(f"agency:{row.given_to}" if row and row.given_to else f"route:{kind}")
        if not has_reached(rung, "delivered") and not is_over(rung)
        else None,
    }


def describe_attachment(row: AttachmentRow) -> dict[str, Any]:
    """How far an attachment has come; nothing of what it is. Sizes are of what is sealed."""
    share = row.done / row.chunks if row.chunks else 0
    return {
        "section": row.section,
        "number": row.place,
        "state": row.state,
        "size_bytes": row.size_bytes,
        "done_bytes": round(row.size_bytes * share),
        "scanned": bool(row.scanned),
        "released_by": row.released_by,
        "at": moment(row.at_ms),
    }


async def list_direction(services: Services, direction: str) -> dict[str, Any]:
    """The latest thousand messages of a direction."""
    rows = await services.store.read(lambda tx: list_messages(tx, direction, 1000))
    forms = await services.store.read(all_waiting_forms) if direction == OUTBOUND else []
    listed: list[MessageRow | WaitingForm] = [*forms, *rows]
    return {
        "items": [
            {
                "id": row.message_id,
                "peer": row.peer,
                "urgent": bool(row.urgent),
                "created_at": moment(row.created_at_ms),
                "stored_at": moment(row.created_at_ms if isinstance(row, WaitingForm) else row.stored_at_ms),
            }
            for row in listed
        ]
    }


#: Their detail is a list of sections.
_OF_SECTIONS: Final = {
    *LADDER,
    *BESIDE,
    "given",
    "order-recall",
    "order-erase",
    "recalled",
    "erased",
    "order-confirmed",
}
_SENTENCES = {
    "waited": "The form was taken in, and waited for a current sealing key of {detail}.",
    "signed": "This node signed and sealed the message {detail}.",
    "received": "{detail} received the message and signed for it.",
    "routed": "On its way to {agency}: {detail}.",
    "delivered": "{agency} accepted: {detail}.",
    "owned": "A named holder at {agency} took on: {detail}.",
    "awaited": "{detail} sent the form, and it awaited a second person.",
    "approved": "{detail} approved it.",
    "overridden": "{detail}.",
    "queried": "{agency} has a question about: {detail}. See `exchange questions list`.",
    "redirected": "{agency} says that this is not theirs: {detail}.",
    "returned": "This node was restored from a backup. {detail} returned what was signed; the content is lost here.",
    "lost": "{detail} was restored from a backup and lost the content: what was not delivered must be sent again.",
    "order-recall": "The sender has recalled what {agency} was sent: {detail}.",
    "order-erase": "The sender has ordered what {agency} was sent to be erased: {detail}.",
    "recalled": "The receiving node destroyed what it had for {agency}: {detail}.",
    "erased": "The receiving node erased what it had for {agency}: {detail}.",
    "order-confirmed": "{agency} has confirmed that it has it no more: {detail}. A person may have read it before.",
    "never-left": "It had not left this node, and does not any more.",
    "not-there": "{detail} says that it does not have the message.",
    "given": "Given to {agency}: {detail}.",
    "overdue": "Overdue at {agency}: {detail}.",
    "met": "The agencies have met about it; {detail} recorded that.",
    "complete": "The handover is complete; {detail} recorded that.",
    "attachment-sent": "The other node has all of {detail}.",
    "attachment-stored": "All of {detail} is at the receiving node, for its agency to open.",
    "attachment-ready": "The receiving node has opened {detail}, and gives it to its readers.",
    "attachment-quarantined": "The virus scan found something in {detail}: nobody is given it.",
    "attachment-damaged": "What came as {detail} does not open: it must be sent again, with a new message.",
    "attachment-release": "Asked to be released from quarantine: {detail}.",
    "attachment-read": "Given out: {detail}.",
    "replayed": "An admin had it sent to {agency} again.",
    "held": "Held for a person to decide: {detail}.",
}


def _sentence(message: MessageRow, event: EventRow) -> str:
    if event.event == "received" and message.direction != OUTBOUND:
        return f"This node received the message from {event.detail} and signed for it."
    template = _SENTENCES.get(event.event, "{event}: {detail}")
    return template.format(event=event.event, detail=event.detail or "", agency=event.agency or "")


def _events_unsigned(services: Services, found: _Unsigned) -> Iterator[dict[str, Any]]:
    """What happened to a form that is no message."""
    row, form = found.disclosure, found.form
    if row is not None and row.due_ms is not None:
        yield _event(row.at_ms, "awaited", _SENTENCES["awaited"].format(detail=row.sent_by))
    if row is not None and row.decided_by is not None and row.decided_at_ms is not None:
        origin = services.configuration.origin
        reason = reason_of(services.keyring.store_key, row, origin, None) if row.state == REFUSED else None
        yield _event(row.decided_at_ms, row.state, f"{row.decided_by} {row.state} it{f': {reason}' if reason else ''}.")
    if form is not None:
        text = f"The form is not signed and sealed yet: {form.reason or 'that is about to happen'}."
        yield _event(form.created_at_ms, "held", text)


def _event(at_ms: int, event: str, text: str) -> dict[str, Any]:
    return {"at": moment(at_ms), "event": event, "agency": None, "sections": [], "text": text}


async def timeline_document(services: Services, message_id: str) -> dict[str, Any]:
    """A message's timeline."""

    async def collect(tx: Transaction) -> _Unsigned | tuple[MessageRow, list[EventRow]]:
        try:
            message = await message_by_id(tx, message_id)
        except NotFound:
            return await _unsigned(tx, message_id)
        return message, await events_of(tx, message.number)

    found = await services.store.read(collect, brief=True)
    if isinstance(found, _Unsigned):
        return {"id": message_id, "direction": OUTBOUND, "events": list(_events_unsigned(services, found))}
    message, events = found
    return {
        "id": message.message_id,
        "direction": message.direction,
        "events": [
            {
                "at": moment(event.at_ms),
                "event": event.event,
                "agency": event.agency,
                "sections": (event.detail or "").split(", ") if event.event in _OF_SECTIONS and event.agency else [],
                "text": _sentence(message, event),
            }
            for event in events
        ],
    }


async def receipts_document(services: Services, message_id: str) -> dict[str, Any]:
    """A message's receipts with the card of the node that signed them: all that an outsider needs to check them."""

    async def collect(tx: Transaction) -> tuple[list[CardFile], CardFile]:
        message = await message_by_id(tx, message_id)
        found = []
        for row in await receipts_of(tx, message.number):
            if row.proof is not None:
                found.append(CardFile(row.statement, row.proof))
            elif row.position is not None:
                proven = await proven_at(tx, row.position)
                found.append(CardFile(proven.statement, proven.proof))
        if message.direction == OUTBOUND:
            signer = await peer(tx, Origin(message.peer))
            card = ProvenEntry(signer.card, signer.proof)
        else:
            card = await proven_card(tx)
        origin = message.peer if message.direction == OUTBOUND else services.configuration.origin
        rotations = as_items(await proven_rotations(tx, origin))
        return found, CardFile(card.statement, card.proof, rotations)

    found, card = await services.store.read(collect)
    return {"id": message_id, "receipts": found, "card": card}
