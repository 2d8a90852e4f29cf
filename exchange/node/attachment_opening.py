"""An attachment that has come is opened once, whole, before anybody is given it: that it is what its section says, and
that the scan finds nothing in it. Afterwards it is opened anew for each who may have it, from the same stored chunks.

* Plaintext exists one chunk at a time.
* What the scanner cannot say is asked again, and after some attempts waits for a person: it is not given out meanwhile.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from exchange import crash_points
from exchange.crypto.attachment import AttachmentContext, AttachmentOpener
from exchange.crypto.errors import AttachmentError, CryptoError
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.node.attachment_reports import settle
from exchange.node.compose import recall_secrets
from exchange.node.delivery import Outcome, finish
from exchange.node.errors import AttachmentNotReady
from exchange.node.scanning import Verdict, scanning
from exchange.node.services import Services
from exchange.schema.attachments import AttachmentState, Described, attachments_of
from exchange.schema.errors import SchemaError
from exchange.schema.section_content import read_content
from exchange.schema.wire import decode_wire, manifest_decoder
from exchange.store.attachments import AttachmentRow, attachment_by_number, chunks_of
from exchange.store.errors import NotFound
from exchange.store.messages import MessageRow, keys_of, message_by_number, sections_of
from exchange.store.outbox import Delivery, done_if_claimed
from exchange.store.transaction import Transaction

#: So often a scanner that cannot say is asked, before a person is.
_ATTEMPTS: Final = 5


class Opening:
    """One attachment that this node can open: what its section says of it, and its content."""

    def __init__(self, services: Services, row: AttachmentRow, secret: Secret, described: Described) -> None:
        self._services = services
        self._row = row
        self._secret = secret
        self.described = described

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, a part at a time; it is whole and right only if this comes to its end.

        Raises:
            AttachmentError: it does not open, or is not what its section says.
        """
        row = self._row
        section = SectionContext(
            MessageId(row.message_id), Origin(row.origin), Origin(row.recipient), SectionName(row.section)
        )
        opener = AttachmentOpener(self._secret, AttachmentContext(section, row.place), self.described.whole())
        for index in range(row.chunks):
            found = await self._services.store.read(_chunk(row.number, index))
            if not found:
                raise AttachmentError("a chunk of the attachment is not here any more")
            # Not wiped: whoever it is given to may still be writing it out.
            yield opener.open(found[0]).reveal()
        opener.finish()


def _chunk(number: int, index: int) -> Any:
    return lambda tx: chunks_of(tx, number, index)


async def open_attachment(services: Services, row: AttachmentRow) -> Opening:
    """Open an attachment, which must be of a section that this node can open.

    Raises:
        NotFound: its content was erased.
        AttachmentNotReady: only its agency can open it.
        CryptoError: its section does not open.
        SchemaError: its section says nothing of it that can be.
    """
    message_number = row.message or 0

    async def view(tx: Transaction) -> tuple[MessageRow, Any, bytes | None]:
        rows = {section.section: section.ciphertext for section in await sections_of(tx, message_number)}
        return await message_by_number(tx, message_number), await keys_of(tx, message_number), rows.get(row.section)

    message, keys, ciphertext = await services.store.read(view)
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    secret = recall_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, keys).get(row.section)
    if secret is None or ciphertext is None:
        raise AttachmentNotReady(
            "this attachment is sealed to its agency: the node cannot open it",
            hint="The agency fetches it, and opens it with `exchange agency-open`.",
        )
    name = SectionName(row.section)
    bound_to = SectionContext(MessageId(manifest.message_id), Origin(manifest.sender), Origin(manifest.recipient), name)
    commitment = next(entry.commitment for entry in manifest.sections if entry.name == name)
    content = read_content(open_section(ciphertext, secret, bound_to, commitment))
    for described in attachments_of(content):
        if described.number == row.place:
            if described.whole().root != row.root:
                raise AttachmentError("the section speaks of another file than the one that came")
            return Opening(services, row, secret, described)
    raise AttachmentError(f"section {row.section} speaks of no attachment {row.place}")


class AttachmentOpenings:
    """Opens and scans what has come."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def perform(self, _: str, rows: list[Delivery]) -> Outcome:
        """Open the first of the attachments that wait."""
        services = self._services
        delivery, others = rows[0], rows[1:]
        number = delivery.position or 0
        row = await services.store.read(lambda tx: attachment_by_number(tx, number))
        if row is None or row.message is None:
            await finish(services, [delivery])
            return Outcome(again=others)
        try:
            state, scanned, why = await self._look(row)
        except NotFound:
            await finish(services, [delivery])  # it was erased meanwhile
            return Outcome(again=others)
        if state is None:
            if delivery.attempts >= _ATTEMPTS:
                return Outcome(again=others, held=[(delivery, f"not scanned: {why}")])
            return Outcome(again=rows, error=why)
        crash_points.reached("attachment.opened")
        await services.store.write(_settled(services, delivery, row, state, scanned=scanned))
        services.counters.add(f"attachments_{state.value}")
        services.changes.notify()
        message = row.message
        peer = await services.store.read(lambda tx: message_by_number(tx, message))
        return Outcome(again=others, wake={f"peer:{peer.peer}"})

    async def _look(self, row: AttachmentRow) -> tuple[AttachmentState | None, bool, str]:
        """What an attachment is, whether a scanner looked at it, and why it cannot be said.

        Raises:
            NotFound: its content was erased.
        """
        services = self._services
        try:
            opening = await open_attachment(services, row)
            async with scanning(services.configuration.tables.scan) as scan:
                async for data in opening.chunks():
                    if scan is not None:
                        await scan.feed(data)
                verdict, why = await scan.verdict() if scan is not None else (None, "")
        except (CryptoError, SchemaError) as error:
            services.log.warning("attachment damaged", code=error.code, reason=str(error))
            return AttachmentState.DAMAGED, False, str(error)
        if verdict is Verdict.FOUND:
            services.counters.add("attachment_scans_found")
            services.log.error("alarm", code="attachment-quarantined", peer=row.origin, reason=why)
            return AttachmentState.QUARANTINED, True, why
        if verdict is Verdict.UNKNOWN:
            services.counters.add("attachment_scans_unknown")
            return None, False, why
        return AttachmentState.READY, verdict is not None, ""


def _settled(
    services: Services, delivery: Delivery, row: AttachmentRow, state: AttachmentState, *, scanned: bool
) -> Any:
    async def operation(tx: Transaction) -> None:
        if await done_if_claimed(tx, delivery):
            message = await message_by_number(tx, row.message or 0)
            await settle(services, tx, message, row, state, scanned=scanned)

    return operation
