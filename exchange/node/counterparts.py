"""Which agency here is asked what another borough's asks of a section: the one of the same kind.

* Of several of a kind it is the one that is named by the kind alone, which may have a key; else the first by name.
* Where there is none that takes it, the question waits in the lane `route:KIND`, until one is registered.
"""

from exchange.node.agency_standing import is_available
from exchange.node.services import Services
from exchange.schema.agency_names import kind_of
from exchange.store.agencies import Standing, standing_agencies
from exchange.store.messages import MessageRow
from exchange.store.outbox import QUESTION, enqueue, new_delivery
from exchange.store.transaction import Transaction


def counterpart(agencies: list[Standing], kind: str) -> str | None:
    """The agency that is asked, if there is one."""
    names = [agency.name for agency in agencies if kind_of(agency.name) == kind and is_available(agency)]
    return min(names, key=lambda name: (name != kind, name), default=None)


async def queue_question(
    services: Services, tx: Transaction, message: MessageRow, kind: str, number: int, *, deadline_ms: int
) -> str:
    """Queue a question about a message, by its number, for the agency of that kind; return the lane."""
    name = counterpart(await standing_agencies(tx), kind)
    lane = f"route:{kind}" if name is None else f"agency:{name}"
    delivery = new_delivery(
        lane,
        QUESTION,
        now_ms=services.now_ms(),
        deadline_ms=deadline_ms,
        urgent=bool(message.urgent),
        position=number,
        message=message.number,
        agency=name or kind,
        held=f"no agency of kind {kind} is here to be asked" if name is None else None,
    )
    await enqueue(tx, [delivery])
    return lane
