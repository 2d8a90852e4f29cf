"""A person's file becomes an attachment: sealed chunk by chunk as it comes in, before its message exists.

* Only sealed chunks are stored. The plaintext of one chunk at a time is in memory, on its way through scan and seal.
* The secret of the section is made with its first attachment; it and what the file is wait beside the chunks, sealed,
  until the message is signed. From then on they are in the message alone.
* What nobody sends within a day is removed.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from exchange import crash_points
from exchange.crypto.attachment import AttachmentContext, AttachmentSealer, chunk_hash
from exchange.crypto.names import LeafHash, MessageId, Origin, SectionName, context
from exchange.crypto.rest import MessageKey, open_at_rest, seal_at_rest, unwrap_message_key, wrap_message_key
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext
from exchange.handover.attachments import Stage, Step, after
from exchange.node.errors import AttachmentRefused, RequestInvalid
from exchange.node.repeats import is_known
from exchange.node.scanning import Scan, Verdict, scanning
from exchange.node.services import Services
from exchange.schema.attachments import ATTACHMENT, Attachment, Described, with_attachments
from exchange.schema.errors import Finding, FormInvalid
from exchange.schema.split import FormPart
from exchange.schema.wire import VERSION, encode_wire
from exchange.store.attachments import (
    AttachmentRow,
    add_attachment,
    add_chunk,
    attachment_by_number,
    attachments_sent_as,
    find_attachment,
    move_attachment,
    note_progress,
    note_sealed,
    note_signed,
    remove_attachment,
    remove_chunks,
    stale_attachments,
)
from exchange.store.errors import Conflict, StoreError
from exchange.store.messages import add_alarm
from exchange.store.transaction import Transaction

_DAY_MS: Final = 86_400_000
_REMOVED_AT_ONCE: Final = 16
#: Chunks that share one commit.
_KEPT_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Upload:
    """What a person says of a file; `repr` shows no name."""

    message_id: MessageId
    section: SectionName
    number: int
    recipient: Origin
    title: str
    file_name: str
    media_type: str

    def __repr__(self) -> str:
        return f"Upload({self.message_id}, {self.section}, {self.number})"

    def bound_to(self, sender: Origin) -> AttachmentContext:
        """What its chunks are bound to."""
        return AttachmentContext(SectionContext(self.message_id, sender, self.recipient, self.section), self.number)


class _About(msgspec.Struct, frozen=True):
    """What waits beside a staged attachment, sealed."""

    secret: bytes
    described: Described | None = None


class AttachedSection:
    """The staged attachments of one section, and the secret under which they were sealed."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret
        self.rows: list[AttachmentRow] = []
        self.described: list[Described] = []


Attached = Mapping[SectionName, AttachedSection]


def _name(row: AttachmentRow) -> bytes:
    return context("staged-attachment", row.message_id.encode(), row.section.encode(), row.place.to_bytes(4, "big"))


def described_staged(services: Services, row: AttachmentRow) -> Described | None:
    """What a staged file is; None where it was not uploaded whole."""
    return _recall_about(services, row).described


def _keep_about(services: Services, row: AttachmentRow, about: _About) -> tuple[bytes, bytes]:
    key, name = MessageKey.random(), _name(row)
    sealed = seal_at_rest(key, name, msgspec.msgpack.encode(about))
    return wrap_message_key(services.keyring.store_key, key, name), sealed


def _recall_about(services: Services, row: AttachmentRow) -> _About:
    name = _name(row)
    key = unwrap_message_key(services.keyring.store_key, row.wrapped or b"", name)
    return msgspec.msgpack.decode(open_at_rest(key, name, row.about or b""), type=_About)


async def stage(services: Services, upload: Upload, stream: AsyncIterator[bytes]) -> tuple[Described, bool]:
    """Seal and keep a file; what it is, and whether somebody looked into it.

    An attachment of that number that was staged before is replaced.

    Raises:
        AttachmentRefused: the scan found something, or could not say; nothing was kept.
        AttachmentError: it is larger than 2 GiB.
        Conflict: its message is signed already, or somebody else uploads the same.
        StoreFull: the disk is nearly full.
    """
    row, secret = await _begin(services, upload)
    try:
        sealer = AttachmentSealer(secret, upload.bound_to(services.configuration.origin))
        async with scanning(services.configuration.tables.scan) as scan:
            full: list[bytes] = []
            async for data in stream:
                if scan is not None:
                    await scan.feed(data)
                full += sealer.update(data)
                if len(full) >= _KEPT_AT_ONCE:
                    row, full = await _keep_chunks(services, row, full), []
            for chunk in sealer.finish():
                row, full = await _keep_chunks(services, row, [*full, chunk]), []
            await _heed(services, upload, scan)
            scanned = scan is not None
        whole = sealer.whole()
        described = Described(
            number=upload.number,
            title=upload.title,
            file_name=upload.file_name,
            media_type=upload.media_type,
            size_bytes=whole.size_bytes,
            sha256=whole.sha256.hex(),
            root=whole.root.hex(),
        )
        wrapped, about = _keep_about(services, row, _About(secret.reveal(), described))
        row = replace(row, chunks=row.done, root=whole.root, scanned=int(scanned))

        async def finish(tx: Transaction) -> None:
            await note_sealed(tx, row, wrapped=wrapped, about=about)
            if not await move_attachment(tx, row, _after(row, Step.UPLOADED), services.now_ms()):
                raise _taken(upload)

        crash_points.reached("staging.sealed")
        await services.store.write(finish)
    except BaseException:
        # A person who stops, and a node that does: what is left then goes with the stale ones.
        with suppress(StoreError):
            await forget(services, row)
        raise
    services.counters.add("attachments_staged")
    return described, scanned


async def _heed(services: Services, upload: Upload, scan: Scan | None) -> None:
    if scan is None:
        return
    verdict, why = await scan.verdict()
    if verdict is Verdict.CLEAN:
        return
    services.counters.add(f"attachment_scans_{verdict.value}")
    if verdict is Verdict.UNKNOWN:
        raise AttachmentRefused(f"the file was not attached: {why}")
    origin, now_ms = services.configuration.origin, services.now_ms()
    detail = f"a file for message {upload.message_id} was not attached: {why}"
    await services.store.write(lambda tx: add_alarm(tx, "attachment-found", origin, detail, now_ms))
    services.log.error("alarm", code="attachment-found", reason=why)
    raise AttachmentRefused("the file was not attached: the virus scan found something in it")


def _after(row: AttachmentRow, step: Step) -> str:
    stage_after = after(Stage(row.state), step)
    return row.state if stage_after is None else stage_after.value


def _taken(upload: Upload) -> Conflict:
    return Conflict(f"attachment {upload.number} of {upload.section} was replaced or removed meanwhile")


async def _begin(services: Services, upload: Upload) -> tuple[AttachmentRow, Secret]:
    """Make room for an attachment; the section's secret is that of its other attachments."""
    origin = services.configuration.origin
    new = AttachmentRow(
        origin=origin,
        message_id=upload.message_id,
        section=upload.section,
        place=upload.number,
        recipient=upload.recipient,
        message=None,
        state=Stage.STAGING.value,
        at_ms=services.now_ms(),
    )

    async def look(tx: Transaction) -> AttachmentRow | None:
        found = await find_attachment(tx, origin, upload.message_id, upload.section, upload.number)
        return None if await is_known(tx, origin, upload.message_id) else found

    before = await services.store.read(look)
    if before is not None:
        await forget(services, before)

    async def operation(tx: Transaction) -> tuple[int, Secret]:
        if await is_known(tx, origin, upload.message_id):
            raise Conflict(f"message {upload.message_id} is sent already: nothing more can be attached to it")
        if await find_attachment(tx, origin, upload.message_id, upload.section, upload.number) is not None:
            raise _taken(upload)
        others = await attachments_sent_as(tx, origin, upload.message_id)
        if any(row.recipient != upload.recipient for row in others):
            raise Conflict(f"files were attached to message {upload.message_id} for another borough")
        beside = [row for row in others if row.section == upload.section]
        secret = Secret(_recall_about(services, beside[0]).secret) if beside else Secret.random()
        wrapped, about = _keep_about(services, new, _About(secret.reveal()))
        return await add_attachment(tx, replace(new, wrapped=wrapped, about=about)), secret

    number, secret = await services.store.write(operation)
    return replace(new, number=number), secret


async def _keep_chunks(services: Services, row: AttachmentRow, chunks: Sequence[bytes]) -> AttachmentRow:
    services.admission.check_room()
    kept = [(place, chunk_hash(chunk), chunk) for place, chunk in enumerate(chunks, start=row.done)]
    done = row.done + len(kept)

    async def operation(tx: Transaction) -> None:
        if await attachment_by_number(tx, row.number) is None:
            raise Conflict("the attachment was replaced or removed meanwhile")
        for place, leaf, chunk in kept:
            await add_chunk(tx, row.number, place, leaf, chunk)
        await note_progress(tx, row.number, done)

    await services.store.write(operation)
    return replace(row, done=done, size_bytes=row.size_bytes + sum(map(len, chunks)))


async def forget(services: Services, row: AttachmentRow) -> None:
    """Remove an attachment that is not signed, its chunks a few in each batch: what is deleted is also overwritten."""
    # From here on nothing signs it.
    if not await services.store.write(lambda tx: move_attachment(tx, row, Stage.STAGING.value, services.now_ms())):
        return

    def remove(first: int) -> Any:
        return lambda tx: remove_chunks(tx, row.number, first)

    last = max(row.done, row.chunks)
    for first in range(last - last % _REMOVED_AT_ONCE, -1, -_REMOVED_AT_ONCE):
        await services.store.write(remove(first), long=True)
    await services.store.write(lambda tx: remove_attachment(tx, row.number))


async def forget_stale(services: Services) -> None:
    """Remove what was attached to messages that nobody sent within a day."""
    before_ms = services.now_ms() - _DAY_MS
    for number in await services.store.read(lambda tx: stale_attachments(tx, before_ms)):
        row = await services.store.read(lambda tx, number=number: attachment_by_number(tx, number))  # type: ignore[misc]
        if row is not None:
            await forget(services, row)


async def staged_for(services: Services, message_id: MessageId) -> Attached:
    """What is attached to a message that is not signed yet, by section.

    Raises:
        RequestInvalid: one was not uploaded whole.
    """
    origin = services.configuration.origin
    found: dict[SectionName, AttachedSection] = {}
    for row in await services.store.read(lambda tx: attachments_sent_as(tx, origin, message_id)):
        if row.message is not None:
            continue  # it is signed: the form comes again
        if row.state != Stage.STAGED.value:
            raise RequestInvalid(f"attachment {row.place} of {row.section} was not uploaded whole; nothing was sent")
        about = _recall_about(services, row)
        section = found.setdefault(SectionName(row.section), AttachedSection(Secret(about.secret)))
        section.rows.append(row)
        section.described += [about.described] if about.described else []
    return found


def attach(parts: Sequence[FormPart], attached: Attached, recipient: str) -> tuple[FormPart, ...]:
    """The parts of a form, with what is attached to each.

    Raises:
        FormInvalid: something is attached to a part that the form does not have.
        Conflict: it was sealed for another borough.
    """
    names = {part.name for part in parts}
    wrong = tuple(
        Finding("error", name, f"has no part in this form to attach a file to; it has {', '.join(sorted(names))}")
        for name in attached
        if name not in names
    )
    if wrong:
        raise FormInvalid(wrong)
    if any(row.recipient != recipient for section in attached.values() for row in section.rows):
        raise Conflict("the files were attached for another borough; nothing was sent")
    return tuple(
        replace(part, content=with_attachments(part.content, attached[part.name].described))
        if part.name in attached
        else part
        for part in parts
    )


async def sign_attached(
    services: Services, tx: Transaction, attached: Attached, message: int, leaf: LeafHash, recipient: str
) -> None:
    """Sign for each attachment of a message, in the transaction that signs the message.

    Raises:
        Conflict: one was replaced meanwhile.
    """
    for section in attached.values():
        for row in section.rows:
            statement = Attachment(
                version=VERSION,
                message_id=row.message_id,
                leaf_hash=leaf,
                recipient=recipient,
                section=row.section,
                number=row.place,
                size_bytes=row.size_bytes,
                root=row.root,
            )
            if not await move_attachment(tx, row, _after(row, Step.SIGNED), services.now_ms()):
                raise Conflict(f"attachment {row.place} of {row.section} was replaced meanwhile; nothing was sent")
            entry = await tx.sign(ATTACHMENT, encode_wire(statement))
            await note_signed(tx, row.number, message, entry.position, entry.leaf_hash)


async def digest_of(stream: AsyncIterator[bytes]) -> tuple[int, str]:
    """The size and SHA-256 of a file, which is not kept."""
    digest, size_bytes = hashlib.sha256(), 0
    async for data in stream:
        digest.update(data)
        size_bytes += len(data)
    return size_bytes, digest.hexdigest()
