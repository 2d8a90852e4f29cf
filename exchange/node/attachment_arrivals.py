"""Attachments as they come from peers: chunk by chunk, each checked against the statement that names its attachment.

* A chunk that is not the one of its place in the signed tree is refused before it is stored; so is one too many.
* Chunks come in order, and a repeated one changes nothing: where a transfer was cut, it goes on.
* Whether a section's attachment is for this node to open is whether it has the section's secret.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from exchange import crash_points
from exchange.crypto.attachment import chunk_sizes, verify_chunk
from exchange.crypto.errors import AttachmentError
from exchange.crypto.names import LeafHash
from exchange.crypto.proof import VerifiedStatement
from exchange.crypto.statement import parse_statement
from exchange.handover.attachments import Stage, Step, after
from exchange.node.attachment_lanes import GAP
from exchange.node.attachment_reports import settle
from exchange.node.compose import recall_secrets
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.services import Services
from exchange.schema.attachments import Attachment, AttachmentState, Chunk, chunk_decoder
from exchange.schema.wire import ProvenStatement, decode_wire, manifest_decoder
from exchange.store.attachments import (
    AttachmentRow,
    add_attachment,
    add_chunk,
    attachment_bytes_of,
    find_attachment,
    move_attachment,
    note_progress,
)
from exchange.store.messages import INBOUND, MessageRow, find_message, keys_of
from exchange.store.outbox import OPENING, enqueue, new_delivery
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction

#: What one envelope brings at most; one holds 16 MiB.
_MOST_CHUNKS: Final = 16
#: Where attachments that have come wait to be opened and scanned.
OPENING_LANE: Final = "opening:here"
#: How long it is tried to open what has come, whatever the message's own end.
_OPENED_FOR_MS: Final = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class _Taken:
    """A chunk that was checked."""

    index: int
    leaf: LeafHash
    data: bytes


class AttachmentArrivals:
    """Takes attachments of peers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        #: Told of lanes with something new in them.
        self.wake: Callable[[str], None] = lambda lane: None

    async def take(
        self,
        row: PeerRow,
        said: Attachment,
        verified: VerifiedStatement,
        item: ProvenStatement,
        ciphertexts: Mapping[bytes, bytes],
    ) -> bool:
        """Take the chunks that came beside the statement; whether any of them was new.

        Raises:
            ItemRefused: the statement or a chunk is not what it must be.
            PeerAtQuota: the store holds as much of the peer's attachments as it may.
            Unacceptable: the peer is not verified any more.
        """
        services = self._services
        size_bytes = sum(len(data) for data in ciphertexts.values())
        if said.recipient != services.configuration.origin:
            raise ItemRefused("recipient-wrong", "the attachment is for another borough")
        try:
            sizes = chunk_sizes(said.size_bytes)
            taken = await _check(said, sizes, ciphertexts)
        except AttachmentError as error:
            raise ItemRefused(error.code, str(error)) from None

        async def operation(tx: Transaction) -> tuple[int, bool]:
            await still_heard(tx, row)
            message = await find_message(tx, row.origin, said.message_id)
            if message is None or message.direction != INBOUND or message.leaf_hash != said.leaf_hash:
                raise ItemRefused("attachment-unknown", "this node has no such message of you")
            found = await find_attachment(tx, row.origin, said.message_id, said.section, said.number)
            if found is None:
                found = await self._begin(tx, message, said, verified.leaf_hash, item, len(sizes))
            if found.leaf_hash != verified.leaf_hash:
                raise ItemRefused("attachment-doubled", "another attachment has that number")
            next_index, new = found.done, 0
            for chunk in taken:
                if chunk.index > next_index:
                    raise ItemRefused(GAP, "a chunk before this one is not here")
                if chunk.index == next_index:
                    await add_chunk(tx, found.number, chunk.index, chunk.leaf, chunk.data)
                    next_index, new = next_index + 1, new + 1
            if new:
                await note_progress(tx, found.number, next_index)
            is_whole = bool(new) and next_index == len(sizes)
            if is_whole:
                await self._finish(tx, message, found)
            return new, is_whole

        new, is_whole = await services.store.write(operation)
        if new:
            services.admission.count_chunks(row.origin, size_bytes, services.now_ms())
            services.counters.add("attachment_chunks_received", new)
        if is_whole:
            crash_points.reached("attachment.all-taken")
            services.counters.add("attachments_received")
            self.wake(OPENING_LANE)
            self.wake(f"peer:{row.origin}")
        return new > 0

    async def _begin(
        self,
        tx: Transaction,
        message: MessageRow,
        said: Attachment,
        leaf: LeafHash,
        item: ProvenStatement,
        chunks: int,
    ) -> AttachmentRow:
        manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
        if said.section not in {entry.name for entry in manifest.sections}:
            raise ItemRefused("attachment-section", "the message has no such section")
        held_bytes = await attachment_bytes_of(tx, message.peer)
        self._services.admission.check_attachment(message.peer, held_bytes, said.size_bytes)
        new = AttachmentRow(
            origin=message.origin,
            message_id=said.message_id,
            section=said.section,
            place=said.number,
            recipient=said.recipient,
            message=message.number,
            state=Stage.ARRIVING.value,
            chunks=chunks,
            size_bytes=said.size_bytes,
            root=said.root,
            leaf_hash=leaf,
            statement=item.statement,
            proof=item.proof,
            at_ms=self._services.now_ms(),
        )
        await add_attachment(tx, new)
        found = await find_attachment(tx, message.origin, said.message_id, said.section, said.number)
        return found or new

    async def _finish(self, tx: Transaction, message: MessageRow, row: AttachmentRow) -> None:
        """All of it is here: it goes on to be opened, or waits for its agency as it is."""
        services, now_ms = self._services, self._services.now_ms()
        stage = after(Stage(row.state), Step.ALL_TAKEN)
        if stage is None:
            return
        await move_attachment(tx, row, stage.value, now_ms)
        keys = await keys_of(tx, message.number)
        secrets = recall_secrets(services.keyring.store_key, message.origin, message.message_id, keys)
        if row.section in secrets:
            delivery = new_delivery(
                OPENING_LANE,
                OPENING,
                now_ms=now_ms,
                deadline_ms=now_ms + _OPENED_FOR_MS,
                urgent=bool(message.urgent),
                position=row.number,
                message=message.number,
            )
            await enqueue(tx, [delivery])
        else:
            whole = await find_attachment(tx, row.origin, row.message_id, row.section, row.place)
            if whole is not None:
                await settle(services, tx, message, whole, AttachmentState.STORED, scanned=False)


async def _check(said: Attachment, sizes: list[int], ciphertexts: Mapping[bytes, bytes]) -> list[_Taken]:
    """The chunks of an envelope, in their order.

    Raises:
        AttachmentError: one is not of this attachment.
        WireInvalid: one is no chunk.
    """
    if len(ciphertexts) > _MOST_CHUNKS:
        raise AttachmentError("an envelope brings 16 chunks at most")
    taken = []
    for data in ciphertexts.values():
        chunk: Chunk = decode_wire(chunk_decoder, data)
        leaf = verify_chunk(chunk.data, chunk.index, sizes, chunk.path, said.root)
        taken.append(_Taken(chunk.index, leaf, chunk.data))
        await asyncio.sleep(0)
    return sorted(taken, key=lambda one: one.index)
