"""How an agency stands: whether it takes what it is given, and why that waits if it does not."""

from dataclasses import dataclass

from exchange.handover.endpoint import State
from exchange.store.agencies import AgencyRow, Standing, agency_named
from exchange.store.agency_keys import AgencyKeyRow, all_agency_keys
from exchange.store.endpoints import EndpointRow, endpoint_of
from exchange.store.transaction import Transaction


def held_reason(name: str, state: str, reason: str | None) -> str:
    """Why what is for an agency waits, where its endpoint is not active."""
    return f"agency {name} is {state}" + (f": {reason}" if reason else "")


def held_because(agency: Standing) -> str | None:
    """Why what is given to an agency waits; None where it is delivered."""
    if agency.state != State.ACTIVE:
        return held_reason(agency.name, agency.state, agency.reason)
    return f"agency {agency.name} has not proven its key yet" if agency.waits else None


def is_available(agency: Standing) -> bool:
    """Whether an agency keeps what it is given; one that is paused does, since it is to go on soon."""
    return agency.state != State.DISABLED and not agency.waits


@dataclass(frozen=True, slots=True)
class NotHere:
    """Why nothing can be delivered to an agency; `state` is that of its endpoint, if it is registered."""

    reason: str
    state: str | None


async def find_agency(tx: Transaction, name: str) -> tuple[AgencyRow, EndpointRow, list[AgencyKeyRow]] | NotHere:
    """An agency, its endpoint and everybody's keys; or why it gets nothing."""
    row = await agency_named(tx, name)
    if row is None:
        return NotHere(f"no agency {name} is registered", None)
    endpoint, keys = await endpoint_of(tx, row.id), await all_agency_keys(tx)
    waits = any(key.agency == row.id and key.is_pending and key.holds for key in keys)
    why = held_because(Standing(name, endpoint.state, endpoint.reason, waits))
    return (row, endpoint, keys) if why is None else NotHere(why, endpoint.state)
