"""A form that is sent again, because its sender did not hear the answer, is one message.

The caller chooses the message's id and gives it again. What is compared is the content: an id is no proof that the
second form is the first.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from exchange.crypto.names import MessageId, Origin, SectionName, context
from exchange.crypto.rest import open_at_rest, unwrap_message_key
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.node.compose import recall_secrets
from exchange.node.services import Services
from exchange.schema.attachments import FIELD
from exchange.schema.section_content import read_content
from exchange.schema.split import FormPart
from exchange.schema.wire import decode_wire, manifest_decoder
from exchange.store.disclosures import disclosure_of
from exchange.store.errors import Conflict, NotFound
from exchange.store.messages import KeysRow, MessageRow, SectionRow, find_message, keys_of, sections_of
from exchange.store.transaction import Transaction
from exchange.store.waiting import WaitingForm, waiting_form

REFUSED_HINT: Final = "`exchange explain ID` says why. Mend the form, and send it under another id."


async def is_known(tx: Transaction, origin: Origin, message_id: MessageId) -> bool:
    """Whether a form was sent from here under that id."""
    if await find_message(tx, origin, message_id) is not None or await disclosure_of(tx, message_id) is not None:
        return True
    try:
        await waiting_form(tx, message_id)
    except NotFound:
        return False
    return True


async def sent_before(
    services: Services, message_id: MessageId, data: bytes, parts: Sequence[FormPart]
) -> dict[str, Any] | None:
    """To whom a form was sent under that id before, if it was: `peer`, and why it is `held`.

    Raises:
        Conflict: another form was, or one whose content was erased, or that a second person refused.
    """
    origin = services.configuration.origin

    async def collect(
        tx: Transaction,
    ) -> tuple[MessageRow, KeysRow, list[SectionRow]] | WaitingForm | None:
        message = await find_message(tx, origin, message_id)
        if message is not None:
            return message, await keys_of(tx, message.number), await sections_of(tx, message.number)
        try:
            return await waiting_form(tx, message_id)
        except NotFound:
            refused = await disclosure_of(tx, message_id)
        if refused is not None:
            raise Conflict(f"the form {message_id} was refused by {refused.decided_by}", hint=REFUSED_HINT)
        return None

    try:
        found = await services.store.read(collect, brief=True)
    except NotFound as error:
        raise Conflict(f"message {message_id} was sent before: {error}") from None
    if found is None:
        return None
    if isinstance(found, WaitingForm):
        name = context("waiting-form", message_id.encode())
        key = unwrap_message_key(services.keyring.store_key, found.wrapped, name)
        same, peer, held = open_at_rest(key, name, found.sealed) == data, found.peer, found.reason
    else:
        same, peer, held = _holds(services, *found, parts), found[0].peer, None
    if not same:
        raise Conflict(f"message {message_id} was sent before with another content; nothing was sent now")
    return {"peer": peer, "held": held}


def _holds(
    services: Services, message: MessageRow, keys: KeysRow, rows: list[SectionRow], parts: Sequence[FormPart]
) -> bool:
    """Whether a message consists of exactly these parts, for exactly these readers."""
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    entries = {entry.name: entry for entry in manifest.sections}
    ciphertexts = {row.section: row.ciphertext for row in rows}
    secrets = recall_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, keys)
    if {part.name: tuple(part.readers) for part in parts} != {name: tuple(e.readers) for name, e in entries.items()}:
        return False
    sender, recipient = Origin(manifest.sender), Origin(manifest.recipient)
    for part in parts:
        bound_to = SectionContext(MessageId(manifest.message_id), sender, recipient, SectionName(part.name))
        kept = open_section(ciphertexts[part.name], secrets[part.name], bound_to, entries[part.name].commitment)
        # What was attached to it was compared when it was uploaded again, if it was.
        content = {name: value for name, value in read_content(kept).items() if name != FIELD}
        if msgspec.msgpack.encode(content) != msgspec.msgpack.encode(part.content):
            return False
    return True
