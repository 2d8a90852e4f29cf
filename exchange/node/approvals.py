"""A second person approves a form, or refuses it; until then it waits, sealed at rest and unsigned."""

import hashlib
from dataclasses import replace
from typing import Any, Final

from exchange.handover.gate import Effect
from exchange.node.disclosing import describe_grounds, reason_of, with_reason
from exchange.node.errors import RequestInvalid, SecondPersonNeeded
from exchange.node.gate import is_overdue, refuse_if_closed
from exchange.node.reading import decode_sections
from exchange.node.services import Services, moment
from exchange.node.waiting_forms import Opened, open_waiting
from exchange.store.disclosures import (
    APPROVED,
    AWAITING,
    REFUSED,
    DisclosureRow,
    awaiting_approval,
    disclosure_of,
    keep_disclosure,
    overridden,
)
from exchange.store.errors import NotFound
from exchange.store.messages import KeysRow, find_message, keys_of
from exchange.store.outbox import release_one
from exchange.store.transaction import Transaction
from exchange.store.waiting import WaitingForm, drop_waiting_form, waiting_form

_RELEASED_FOR_MS: Final = 13 * 86_400_000
_MOST_LISTED: Final = 1000


async def approve(services: Services, message_id: str, who: str, sha256: str | None) -> tuple[str, dict[str, Any]]:
    """Approve a form; returns the lane in which it goes on, and the approval.

    Raises:
        NotFound: no such form awaits a second person.
        SecondPersonNeeded: who approves is who sent it.
        RequestInvalid: the form is another than the one that was read.
        GateClosed: something else is missing by now.
    """
    opened = await _opened(services, message_id, who)
    if who in (opened.disclosure.sent_by, "unknown"):
        raise SecondPersonNeeded(f"{who} sent the form and cannot approve it; it waits on")
    if sha256 is not None and sha256 != _digest(opened):
        raise RequestInvalid("the form that waits is not that file; nothing was approved")
    refuse_if_closed(opened.decision)
    now_ms = services.now_ms()

    async def operation(tx: Transaction) -> tuple[str, DisclosureRow]:
        row, kept = await _awaiting(tx, message_id)
        approved = replace(row, state=APPROVED, decided_by=who, decided_at_ms=now_ms)
        await keep_disclosure(tx, approved)
        await release_one(tx, kept.delivery, now_ms + _RELEASED_FOR_MS)
        return f"peer:{kept.peer}", approved

    lane, row = await services.store.write(operation)
    services.counters.add("approvals_given")
    services.log.info("form approved", message_id=message_id, area=row.area)
    services.changes.notify()
    return lane, describe_decided(row)


async def refuse(services: Services, message_id: str, who: str, reason: str) -> dict[str, Any]:
    """Refuse a form, which is then kept no longer; whoever sent it may take it back so.

    Raises:
        NotFound: no such form awaits a second person.
    """
    now_ms, store_key = services.now_ms(), services.keyring.store_key

    async def operation(tx: Transaction) -> DisclosureRow:
        row, _ = await _awaiting(tx, message_id)
        decided = replace(row, state=REFUSED, decided_by=who, decided_at_ms=now_ms)
        refused = with_reason(store_key, decided, reason)
        await keep_disclosure(tx, refused)
        await drop_waiting_form(tx, message_id)
        return refused

    row = await services.store.write(operation)
    services.counters.add("approvals_refused")
    services.log.info("form refused", message_id=message_id, area=row.area)
    services.changes.notify()
    return describe_decided(row)


async def list_approvals(services: Services) -> dict[str, Any]:
    """The forms that await a second person, oldest first."""
    items = []
    for row in await services.store.read(awaiting_approval):
        try:
            items.append(_describe(services, await _opened(services, row.message_id, None)))
        except NotFound:
            continue  # somebody has decided meanwhile
    return {"items": items}


async def show_approval(services: Services, message_id: str) -> dict[str, Any]:
    """A form that awaits a second person: who would read what on what ground, and the hash of its file.

    Raises:
        NotFound: no such form awaits a second person.
    """
    opened = await _opened(services, message_id, None)
    sections = describe_grounds(decode_sections(opened.kept.sections), opened.decision.grounds)
    return {**_describe(services, opened), "sha256": _digest(opened), "sections": sections}


async def list_overrides(services: Services) -> dict[str, Any]:
    """The latest forms that passed by an override, newest first; a reason that was erased is null."""
    origin = services.configuration.origin

    async def view(tx: Transaction) -> list[tuple[DisclosureRow, KeysRow | None]]:
        return [(row, await _keys(tx, origin, row.message_id)) for row in await overridden(tx, _MOST_LISTED)]

    return {
        "items": [
            {
                "id": row.message_id,
                "to": row.area,
                "by": row.sent_by,
                "at": moment(row.at_ms),
                "lifted": (row.lifted or "").split(", "),
                "reason": reason_of(services.keyring.store_key, row, origin, keys),
            }
            for row, keys in await services.store.read(view)
        ]
    }


async def _keys(tx: Transaction, origin: str, message_id: str) -> KeysRow | None:
    message = await find_message(tx, origin, message_id)
    try:
        return await keys_of(tx, message.number) if message is not None else None
    except NotFound:
        return None


async def _awaiting(tx: Transaction, message_id: str) -> tuple[DisclosureRow, WaitingForm]:
    """The form of that id, while it awaits a second person.

    Raises:
        NotFound: it does not.
    """
    row = await disclosure_of(tx, message_id)
    if row is None or row.state != AWAITING:
        told = f": {row.decided_by} has {row.state} it" if row is not None and row.decided_by else ""
        hint = "`exchange approvals list` lists those that do."
        raise NotFound(f"no form {message_id} awaits a second person{told}", hint=hint)
    return row, await waiting_form(tx, message_id)


async def _opened(services: Services, message_id: str, approver: str | None) -> Opened:
    async def find(tx: Transaction) -> WaitingForm:
        return (await _awaiting(tx, message_id))[1]

    opened = await open_waiting(services, find, approver)
    assert opened is not None  # noqa: S101 - it was found, or NotFound was raised
    return opened


def _digest(opened: Opened) -> str:
    return hashlib.sha256(opened.data).hexdigest()


def _describe(services: Services, opened: Opened) -> dict[str, Any]:
    row = opened.disclosure
    return {
        "id": row.message_id,
        "to": row.area,
        "sent_by": row.sent_by,
        "at": moment(row.at_ms),
        "why": "; ".join(item.message for item in opened.decision.of(Effect.WAIT)),
        "due_at": moment(row.due_ms or row.at_ms),
        "overdue": is_overdue(row, services.now_ms()),
    }


def describe_decided(row: DisclosureRow) -> dict[str, Any]:
    """Who approved or refused a form, and when."""
    return {
        "id": row.message_id,
        "to": row.area,
        "state": row.state,
        "sent_by": row.sent_by,
        "decided_by": row.decided_by,
        "decided_at": moment(row.decided_at_ms or row.at_ms),
    }
