"""Attachments on their way to a peer: in lanes of their own, so that they hold no message up.

* Chunks go in envelopes like all else, beside the statement that names their attachment: a proxy sees no difference,
  and the peer takes them from a proven, verified sender alone.
* How far it has come is stored with each envelope that the peer has taken: after a cut it goes on there.
* A claim carries a few envelopes and is given back: whatever is urgent passes between two of them.
* Where the line is quick an envelope carries more: few round trips there, and little to send again after a cut here.
"""

import functools
import time
from dataclasses import replace
from typing import Final

from exchange.crypto.attachment import ChunkTree
from exchange.crypto.names import LeafHash
from exchange.handover.attachments import Stage, Step, after
from exchange.node.attachment_lanes import GAP
from exchange.node.delivery import Outcome, finish
from exchange.node.outbound import Outbound
from exchange.node.services import Services
from exchange.schema.attachments import Chunk
from exchange.schema.wire import encode_wire
from exchange.store.attachments import (
    AttachmentRow,
    attachments_of_message,
    chunk_hashes,
    chunks_of,
    move_attachment,
    note_progress,
)
from exchange.store.messages import add_event
from exchange.store.outbox import Delivery, done
from exchange.store.transaction import Transaction

_ENVELOPES: Final = 16
_MOST_CHUNKS: Final = 4
_QUICK_S: Final = 1.0


class Attaching:
    """Delivers attachments to peers."""

    def __init__(self, services: Services, outbound: Outbound) -> None:
        self._services = services
        self._outbound = outbound
        #: How many chunks the next envelope to a peer carries.
        self._waves: dict[str, int] = {}

    async def perform(self, origin: str, rows: list[Delivery]) -> Outcome:
        """Send some of the first attachment of a peer's lane.

        Raises:
            NotNow: the peer cannot be reached, or its reply does not hold.
        """
        services = self._services
        delivery, others = rows[0], rows[1:]
        row, hashes = await services.store.read(lambda tx: _find(tx, delivery))
        if row is None or row.state != Stage.SENDING.value:
            await finish(services, [delivery])  # the peer has said already what became of it
            return Outcome(again=others)
        if len(hashes) != row.chunks:
            return Outcome(again=others, held=[(delivery, "its content is not here any more")])
        number, tree = row.number, ChunkTree([LeafHash(leaf) for leaf in hashes])
        for _ in range(_ENVELOPES):
            wave = self._waves.pop(origin, 1)
            read = functools.partial(chunks_of, attachment=number, first=row.done, most=wave)
            chunks = await services.store.read(read)
            beside = [
                encode_wire(Chunk(index=index, path=tree.path(index), data=chunk))
                for index, chunk in enumerate(chunks, start=row.done)
            ]
            began_s = time.monotonic()
            outcome = await self._outbound.perform(origin, [delivery], beside)
            if any(reason.endswith(GAP) for _, reason in outcome.held) and row.done:
                await services.store.write(lambda tx: note_progress(tx, number, 0))
                return Outcome(again=rows)
            if outcome.again or outcome.held or outcome.error is not None:
                outcome.again += others
                return outcome
            quick = time.monotonic() - began_s < _QUICK_S
            self._waves[origin] = min(_MOST_CHUNKS, 2 * wave) if quick else 1
            row = await self._advance(delivery, row, len(chunks))
            services.counters.add("attachment_chunks_sent", len(chunks))
            services.changes.notify()
            if row.done == row.chunks:
                return Outcome(again=others)
        return Outcome(again=rows)

    async def _advance(self, delivery: Delivery, row: AttachmentRow, count: int) -> AttachmentRow:
        now_ms, last = self._services.now_ms(), row.done + count == row.chunks

        async def operation(tx: Transaction) -> None:
            await note_progress(tx, row.number, row.done + count)
            stage = after(Stage.SENDING, Step.ALL_TAKEN)
            if last:
                await done(tx, [delivery])
                # A report may have come before this.
                if stage is not None and await move_attachment(tx, row, stage.value, now_ms) and row.message:
                    detail = f"attachment {row.place} of {row.section}"
                    await add_event(tx, row.message, "attachment-sent", now_ms, detail=detail)

        await self._services.store.write(operation)
        return replace(row, done=row.done + count)


async def _find(tx: Transaction, delivery: Delivery) -> tuple[AttachmentRow | None, list[bytes]]:
    for row in await attachments_of_message(tx, delivery.message or 0):
        if row.position == delivery.position:
            return row, await chunk_hashes(tx, row.number)
    return None, []
