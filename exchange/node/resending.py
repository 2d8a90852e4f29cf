"""Send an agency again what it accepted before, since a time or of one message, because it has lost it.

* Only what was delivered to that agency, and may be read by its kind: the manifest that was signed says so.
* Under the same ids, as new deliveries behind everything urgent; no receipt is signed for them.
* What was erased since is not sent, and counted.
"""

from dataclasses import dataclass

from exchange.node.services import Services
from exchange.store.agencies import AgencyRow
from exchange.store.messages import add_event, delivered_to, message_by_id
from exchange.store.outbox import REPLAY, enqueue, new_delivery, waiting_replays
from exchange.store.transaction import Transaction

_DAY_MS = 86_400_000
_FOR_MS = 13 * _DAY_MS


@dataclass(frozen=True, slots=True)
class Resent:
    """How much is, or would be, sent again."""

    messages: int
    sections: int
    #: Messages whose content was erased.
    erased: int
    #: Messages that wait to be sent again already.
    waiting: int


async def resend(
    services: Services, agency: AgencyRow, *, since_ms: int | None, message_id: str | None, dry_run: bool
) -> Resent:
    """Queue again what an agency accepted since a time, or of one message.

    Raises:
        NotFound: there is no such message.
    """
    lane = f"agency:{agency.name}"

    async def operation(tx: Transaction) -> Resent:
        number = None if message_id is None else (await message_by_id(tx, message_id)).number
        found = await delivered_to(tx, agency.name, since_ms or 0, number)
        waiting = await waiting_replays(tx, lane)
        fresh = [item for item in found if item.has_content and item.message not in waiting]
        now_ms = services.now_ms()
        if not dry_run:
            rows = [
                new_delivery(
                    lane,
                    REPLAY,
                    now_ms=now_ms,
                    deadline_ms=now_ms + _FOR_MS,
                    message=item.message,
                    agency=agency.name,
                )
                for item in fresh
            ]
            await enqueue(tx, rows)
            for item in fresh:
                await add_event(tx, item.message, "replayed", now_ms, agency=agency.name)
        erased = sum(not item.has_content for item in found)
        return Resent(len(fresh), sum(item.sections for item in fresh), erased, len(found) - len(fresh) - erased)

    store = services.store
    return await store.read(operation) if dry_run else await store.write(operation, long=True)
