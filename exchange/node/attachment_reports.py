"""The receiving node's signed word for an attachment, and what its sender makes of it."""

from typing import Final

from exchange.handover.attachments import Stage, Step, after
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.services import Services
from exchange.schema.attachments import ATTACHMENT_REPORT, AttachmentReport, AttachmentState
from exchange.schema.wire import VERSION, encode_wire
from exchange.store.attachments import AttachmentRow, find_attachment, move_attachment, note_scanned
from exchange.store.messages import OUTBOUND, MessageRow, add_alarm, add_event, find_message
from exchange.store.outbox import STATEMENT, enqueue, new_delivery
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction

#: A report of a scan that took long is told all the same.
_TOLD_FOR_MS: Final = 7 * 86_400_000


async def settle(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    row: AttachmentRow,
    state: AttachmentState,
    *,
    scanned: bool,
) -> bool:
    """An attachment that came is what it is: keep that, sign for it, and tell its sender.

    False where it does not stand where `row` says any more: another replica was first.
    """
    now_ms = services.now_ms()
    stage = after(Stage(row.state), Step(state.value))
    if stage is None or not await move_attachment(tx, row, stage.value, now_ms):
        return False
    await note_scanned(tx, row.number, scanned=scanned)
    report = AttachmentReport(
        version=VERSION,
        message_id=row.message_id,
        leaf_hash=row.leaf_hash,
        recipient=row.origin,
        section=row.section,
        number=row.place,
        state=state,
        scanned=scanned,
        at=services.now(),
    )
    entry = await tx.sign(ATTACHMENT_REPORT, encode_wire(report))
    detail = f"attachment {row.place} of {row.section}"
    await add_event(tx, message.number, f"attachment-{state.value}", now_ms, detail=detail)
    if state is AttachmentState.QUARANTINED:
        found = f"the scan found something in {detail}, message {row.message_id}: nobody is given it"
        await add_alarm(tx, "attachment-quarantined", row.origin, found, now_ms)
    delivery = new_delivery(
        f"peer:{message.peer}",
        STATEMENT,
        now_ms=now_ms,
        deadline_ms=max(message.expires_at_ms, now_ms + _TOLD_FOR_MS),
        urgent=bool(message.urgent),
        position=entry.position,
        message=message.number,
    )
    await enqueue(tx, [delivery])
    return True


async def take_report(services: Services, row: PeerRow, report: AttachmentReport) -> bool:
    """Keep what a peer says of an attachment that this node sent; False where that changes nothing.

    Raises:
        ItemRefused: this node sent it no such attachment.
        Unacceptable: the peer is not verified any more.
    """
    own = services.configuration.origin
    if report.recipient != own:
        raise ItemRefused("report-origin", "the report is for another node")

    async def operation(tx: Transaction) -> bool:
        await still_heard(tx, row)
        message = await find_message(tx, own, report.message_id)
        found = await find_attachment(tx, own, report.message_id, report.section, report.number)
        if message is None or message.direction != OUTBOUND or message.peer != row.origin or found is None:
            raise ItemRefused("report-unknown", "this node has sent you no such attachment")
        if found.leaf_hash != report.leaf_hash:
            raise ItemRefused("report-hash", "the report is for another attachment")
        stage, now_ms = after(Stage(found.state), Step(report.state.value)), services.now_ms()
        if stage is None or not await move_attachment(tx, found, stage.value, now_ms):
            return False
        await note_scanned(tx, found.number, scanned=report.scanned)
        detail = f"attachment {report.number} of {report.section}"
        await add_event(tx, message.number, f"attachment-{report.state.value}", now_ms, detail=detail)
        told = f"{row.origin} says that {detail}, message {report.message_id}, is {report.state.value}"
        if report.state is AttachmentState.QUARANTINED:
            await add_alarm(tx, "attachment-quarantined", row.origin, told, now_ms)
        if report.state is AttachmentState.DAMAGED:
            await add_alarm(tx, "attachment-damaged", row.origin, told, now_ms)
        return True

    new = await services.store.write(operation)
    if new:
        services.counters.add(f"attachment_reports_{report.state.value}")
    return new
