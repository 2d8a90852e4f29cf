"""Attachments and their sealed chunks, in both directions.

`attachments (message_id, origin, section, place)` is unique. Chunks are read and written one by one, never all at once.
The keys are the message's: what erases those erases the attachments, and `remove_content` then frees the room.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from exchange.store.tables import attachment_chunks, attachments, messages, waiting_forms
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentRow:
    """An attachment; `place` is its number in its section, `done` how many chunks were sent, or have come.

    `position` stands for this node's statement of it, `statement` and `proof` for another's. `wrapped` and `about` are
    there only while it is staged.
    """

    number: int = 0
    origin: str
    message_id: str
    section: str
    place: int
    recipient: str
    message: int | None
    state: str
    chunks: int = 0
    size_bytes: int = 0
    done: int = 0
    root: bytes = b""
    leaf_hash: bytes = b""
    position: int | None = None
    statement: bytes | None = None
    proof: str | None = None
    wrapped: bytes | None = None
    about: bytes | None = None
    scanned: int = 0
    released_by: str | None = None
    at_ms: int


_ALL: Final = tuple(attachments.c)
_NAMES: Final = tuple(f"{column.name}" for column in _ALL)
_ADDED: Final = tuple(name for name in _NAMES if name != "number")
_this = attachments.c.number == bindparam("key")

_add = Sql(insert(attachments).values({name: bindparam(name) for name in _ADDED}).returning(attachments.c.number))
_find = Sql(
    select(*_ALL).where(
        attachments.c.message_id == bindparam("message_id"),
        attachments.c.origin == bindparam("origin"),
        attachments.c.section == bindparam("section"),
        attachments.c.place == bindparam("place"),
    )
)
_by_number = Sql(select(*_ALL).where(attachments.c.number == bindparam("number")))
_of_message_id = Sql(
    select(*_ALL)
    .where(attachments.c.message_id == bindparam("message_id"), attachments.c.origin == bindparam("origin"))
    .order_by(attachments.c.section, attachments.c.place)
)
_of_message = Sql(
    select(*_ALL)
    .where(attachments.c.message == bindparam("message"))
    .order_by(attachments.c.section, attachments.c.place)
)
_stale = Sql(
    select(attachments.c.number).where(
        or_(attachments.c.state == "staging", attachments.c.state == "staged"),
        attachments.c.at_ms < bindparam("before_ms"),
        ~select(waiting_forms.c.message_id).where(waiting_forms.c.message_id == attachments.c.message_id).exists(),
    )
)
_held_of = Sql(
    select(func.coalesce(func.sum(attachments.c.size_bytes), 0))
    .select_from(attachments.join(messages, messages.c.number == attachments.c.message))
    .where(attachments.c.origin == bindparam("origin"), messages.c.direction == "in")
)
_move = Sql(
    update(attachments)
    .where(_this, attachments.c.state == bindparam("before"))
    .values(state=bindparam("after"), at_ms=bindparam("at_ms"))
)
_scanned = Sql(update(attachments).where(_this).values(scanned=bindparam("scanned")))
_released = Sql(update(attachments).where(_this).values(released_by=bindparam("released_by")))
_progress = Sql(update(attachments).where(_this).values(done=bindparam("done")))
_sealed = Sql(
    update(attachments)
    .where(_this)
    .values({name: bindparam(name) for name in ("chunks", "size_bytes", "root", "wrapped", "about", "scanned")})
)
_signed = Sql(
    update(attachments)
    .where(_this)
    .values(
        message=bindparam("message"),
        position=bindparam("position"),
        leaf_hash=bindparam("leaf_hash"),
        done=0,
        wrapped=None,
        about=None,
    )
)
_remove = Sql(delete(attachments).where(attachments.c.number == bindparam("number")))
_remove_chunks = Sql(
    delete(attachment_chunks).where(
        attachment_chunks.c.attachment == bindparam("attachment"), attachment_chunks.c.place >= bindparam("first")
    )
)
_add_chunk = Sql(
    insert(attachment_chunks).values({name: bindparam(name) for name in ("attachment", "place", "hash", "data")})
)
_chunks = Sql(
    select(attachment_chunks.c.data)
    .where(
        attachment_chunks.c.attachment == bindparam("attachment"),
        attachment_chunks.c.place >= bindparam("first"),
        attachment_chunks.c.place < bindparam("end"),
    )
    .order_by(attachment_chunks.c.place)
)
_hashes = Sql(
    select(attachment_chunks.c.hash)
    .where(attachment_chunks.c.attachment == bindparam("attachment"))
    .order_by(attachment_chunks.c.place)
)


def _row(found: tuple[Any, ...]) -> AttachmentRow:
    return AttachmentRow(**dict(zip(_NAMES, found, strict=True)))


async def add_attachment(tx: Transaction, row: AttachmentRow) -> int:
    """Keep an attachment; return its number (`row.number` is not used)."""
    return await tx.insert(_add, {name: getattr(row, name) for name in _ADDED})


async def find_attachment(
    tx: Transaction, origin: str, message_id: str, section: str, place: int
) -> AttachmentRow | None:
    """The attachment that `origin` sent, or sends, under that number of a section."""
    names = {"origin": origin, "message_id": message_id, "section": section, "place": place}
    found = await tx.fetch_one(_find, names)
    return _row(found) if found else None


async def attachment_by_number(tx: Transaction, number: int) -> AttachmentRow | None:
    """The attachment of that number, if it is still there."""
    found = await tx.fetch_one(_by_number, {"number": number})
    return _row(found) if found else None


async def attachments_sent_as(tx: Transaction, origin: str, message_id: str) -> list[AttachmentRow]:
    """The attachments of a message, be it signed or not."""
    return [_row(found) for found in await tx.fetch_all(_of_message_id, {"origin": origin, "message_id": message_id})]


async def attachments_of_message(tx: Transaction, message: int) -> list[AttachmentRow]:
    """The attachments of a signed message."""
    return [_row(found) for found in await tx.fetch_all(_of_message, {"message": message})]


async def stale_attachments(tx: Transaction, before_ms: int) -> list[int]:
    """Those that were staged before a time, for a message that nobody has sent."""
    return [int(found[0]) for found in await tx.fetch_all(_stale, {"before_ms": before_ms})]


async def attachment_bytes_of(tx: Transaction, origin: str) -> int:
    """How much the attachments take that a peer has sent, or has begun to."""
    found = await tx.fetch_one(_held_of, {"origin": origin})
    return int(found[0]) if found else 0


async def move_attachment(tx: Transaction, row: AttachmentRow, state: str, now_ms: int) -> bool:
    """Move an attachment to another stage; False where it does not stand where `row` says any more."""
    return await tx.execute(_move, {"key": row.number, "before": row.state, "after": state, "at_ms": now_ms}) > 0


async def note_scanned(tx: Transaction, number: int, *, scanned: bool) -> None:
    """A scanner has looked at it, here or at the other node."""
    await tx.execute(_scanned, {"key": number, "scanned": int(scanned)})


async def note_released(tx: Transaction, number: int, who: str | None) -> None:
    """The first of two people wants it released from quarantine."""
    await tx.execute(_released, {"key": number, "released_by": who})


async def note_progress(tx: Transaction, number: int, done: int) -> None:
    """So many chunks were sent, or have come."""
    await tx.execute(_progress, {"key": number, "done": done})


async def note_sealed(tx: Transaction, row: AttachmentRow, *, wrapped: bytes, about: bytes) -> None:
    """A file is sealed whole."""
    await tx.execute(
        _sealed,
        {
            "key": row.number,
            "chunks": row.chunks,
            "size_bytes": row.size_bytes,
            "root": row.root,
            "wrapped": wrapped,
            "about": about,
            "scanned": row.scanned,
        },
    )


async def note_signed(tx: Transaction, number: int, message: int, position: int, leaf_hash: bytes) -> None:
    """Its message was signed: what was kept beside it is in the message now."""
    await tx.execute(_signed, {"key": number, "message": message, "position": position, "leaf_hash": leaf_hash})


async def remove_attachment(tx: Transaction, number: int) -> None:
    """Delete an attachment; its chunks go first, a few at a time, by `remove_chunks`."""
    await tx.execute(_remove, {"number": number})


async def remove_chunks(tx: Transaction, attachment: int, first: int) -> int:
    """Delete the chunks from `first` on; return how many there were."""
    return await tx.execute(_remove_chunks, {"attachment": attachment, "first": first})


async def add_chunk(tx: Transaction, attachment: int, place: int, leaf: bytes, data: bytes) -> None:
    """Keep a sealed chunk."""
    await tx.execute(_add_chunk, {"attachment": attachment, "place": place, "hash": leaf, "data": data})


async def chunks_of(tx: Transaction, attachment: int, first: int, most: int = 1) -> list[bytes]:
    """Sealed chunks from `first` on."""
    names = {"attachment": attachment, "first": first, "end": first + most}
    return [bytes(found[0]) for found in await tx.fetch_all(_chunks, names)]


async def chunk_hashes(tx: Transaction, attachment: int) -> list[bytes]:
    """The hashes of all chunks."""
    return [bytes(found[0]) for found in await tx.fetch_all(_hashes, {"attachment": attachment})]
