"""When an attachment may go: once the peer has signed for its message. Before that it would be of nothing."""

from typing import Final

from exchange.handover.attachments import Stage, Step, after
from exchange.store.attachments import attachments_of_message, move_attachment
from exchange.store.messages import MessageRow
from exchange.store.outbox import ATTACHMENT, enqueue, new_delivery
from exchange.store.transaction import Transaction

#: What the receiver says where it lacks a chunk that came before: it was restored from a backup.
GAP: Final = "attachment-gap"


def attachment_lane(origin: str) -> str:
    """The lane of attachments to a peer: beside that of messages, which they must not hold up."""
    return f"attachment:{origin}"


async def begin_sending(tx: Transaction, message: MessageRow, now_ms: int) -> bool:
    """Queue the attachments of a message that the peer has signed for; whether there are any."""
    rows = []
    for row in await attachments_of_message(tx, message.number):
        stage = after(Stage(row.state), Step.RECEIVED)
        if stage is None:
            continue
        await move_attachment(tx, row, stage.value, now_ms)
        rows.append(
            new_delivery(
                attachment_lane(message.peer),
                ATTACHMENT,
                now_ms=now_ms,
                deadline_ms=message.expires_at_ms,
                urgent=bool(message.urgent),
                position=row.position,
                message=message.number,
            )
        )
    await enqueue(tx, rows)
    return bool(rows)
