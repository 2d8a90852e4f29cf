"""What people ask of handovers, and record of them: who is responsible, since when, what is due and what is missing."""

from dataclasses import replace
from typing import Any, Final, Literal

from exchange.handover.overdue import Open, may_complete, open_steps, review
from exchange.handover.responsibility import Facts, Party, Responsibility, responsibility
from exchange.node.cases import Handover, read_handover
from exchange.node.deadline_watch import noted
from exchange.node.errors import HandoverOpen
from exchange.node.services import Services, moment
from exchange.node.words_shown import words_of_message
from exchange.schema.deadlines import Step
from exchange.store.handovers import (
    HandoverRow,
    adopt,
    handover_of,
    keep_handover,
    latest_handovers,
    overdue_handovers,
)
from exchange.store.messages import add_event, message_by_id, message_by_number
from exchange.store.transaction import Transaction

_MOST: Final = 1000
_MISSING: Final = {
    Step.RECEIVED: "the other borough's node has not signed for it",
    Step.OWNED: "nobody has taken it on",
    Step.ANSWERED: "a question waits for an answer",
    Step.MET: "the agencies have not met",
    Step.COMPLETE: "it is not recorded as complete",
}


async def describe_handover(services: Services, message_id: str) -> dict[str, Any]:
    """A handover, section by section.

    Raises:
        NotFound: there is no such message.
    """

    async def view(tx: Transaction) -> dict[str, Any]:
        message = await message_by_id(tx, message_id)
        handover = await read_handover(tx, message)
        words = await words_of_message(services, tx, message, list(handover.placements.values()))
        holders = {place: word["name"] for place, word in words.items()}
        return {
            **_head(services, handover),
            "sections": [
                _section(services, handover, section, facts, holders.get((section, facts.kind)))
                for section, facts in handover.case.places
            ],
            "due": [_step(services, step) for step in open_steps(handover.case, services.deadlines)],
        }

    return await services.store.read(view)


async def list_handovers(services: Services, *, overdue: bool) -> dict[str, Any]:
    """The latest thousand handovers, or those with something overdue, the longest overdue first."""

    async def view(tx: Transaction) -> list[dict[str, Any]]:
        rows = await (overdue_handovers if overdue else latest_handovers)(tx, _MOST)
        return [await _line(services, tx, row) for row in rows]

    items = await services.store.read(view)
    return {"items": [item for item in items if item["overdue"] or not overdue]}


async def record(services: Services, message_id: str, what: Literal["met", "complete"], who: str) -> dict[str, Any]:
    """Record that the agencies have met about a handover, or that nothing of it is left to do; the first word stays.

    Raises:
        NotFound: there is no such message.
        HandoverOpen: it cannot be complete, as sections are without a holder.
    """

    async def operation(tx: Transaction) -> None:
        message, now_ms = await message_by_id(tx, message_id), services.now_ms()
        while (await handover_of(tx, message.number)).look_at_ms is None and await adopt(tx, _MOST):
            pass
        handover = await read_handover(tx, message)
        row = handover.row
        if row.complete_at_ms is not None or (what == "met" and row.met_at_ms is not None):
            return
        if what == "complete" and not may_complete(handover.case.places):
            raise HandoverOpen("some sections have no holder yet; nothing was recorded")
        if what == "met":
            row = replace(row, met_at_ms=now_ms, met_by=who)
        else:
            row = replace(row, complete_at_ms=now_ms, complete_by=who)
        case = replace(handover.case, met=row.met_at_ms is not None, complete=row.complete_at_ms is not None)
        handover = replace(handover, row=row, case=case)
        looked_at = None if row.looked_at_ms is None else moment(row.looked_at_ms)
        found = review(handover.case, services.deadlines, looked_at, moment(now_ms))
        await keep_handover(tx, replace(noted(handover, found, now_ms), looked_at_ms=row.looked_at_ms))
        await add_event(tx, message.number, what, now_ms, detail=who)

    await services.store.write(operation, long=True)
    services.counters.add(f"handovers_{what}")
    services.changes.notify()
    return await describe_handover(services, message_id)


async def _line(services: Services, tx: Transaction, row: HandoverRow) -> dict[str, Any]:
    handover = await read_handover(tx, await message_by_number(tx, row.message))
    steps = open_steps(handover.case, services.deadlines)
    held = [facts.rung == "owned" for _, facts in handover.case.places]
    return {
        **_head(services, handover),
        "sections": len(held),
        "held": sum(held),
        "next": _step(services, steps[0]) if steps else None,
    }


def _head(services: Services, handover: Handover) -> dict[str, Any]:
    message, row = handover.message, handover.row
    steps = open_steps(handover.case, services.deadlines)
    return {
        "id": message.message_id,
        "direction": message.direction,
        "peer": message.peer,
        "urgent": handover.case.urgent,
        "sent_at": handover.case.sent_at,
        "overdue": bool(steps) and steps[0].due.at <= services.now(),
        "met_at": None if row.met_at_ms is None else moment(row.met_at_ms),
        "met_by": row.met_by,
        "complete_at": None if row.complete_at_ms is None else moment(row.complete_at_ms),
        "complete_by": row.complete_by,
    }


def _step(services: Services, step: Open) -> dict[str, Any]:
    return {
        "step": step.due.step,
        "agency": step.kind,
        "sections": step.sections,
        "due_at": step.due.at,
        "overdue": step.due.at <= services.now(),
        "missing": _MISSING[step.due.step],
    }


def _section(services: Services, handover: Handover, section: str, facts: Facts, holder: str | None) -> dict[str, Any]:
    found = responsibility(facts, services.deadlines)
    return {
        "section": section,
        "agency": facts.kind,
        "rung": facts.rung,
        "responsible": found.party,
        "borough": _borough(handover, found),
        "holder": holder if found.party is Party.HOLDER else None,
        "since": found.since,
        "due_at": found.due[0].at if found.due else None,
        "overdue": bool(found.due) and found.due[0].at <= services.now(),
        "missing": _MISSING[found.due[0].step] if found.due else None,
    }


def _borough(handover: Handover, found: Responsibility) -> str | None:
    """The area of the borough whose agency is responsible."""
    if found.party is Party.NOBODY:
        return None
    return handover.manifest.from_area if found.party is Party.SENDER else handover.manifest.to_area
