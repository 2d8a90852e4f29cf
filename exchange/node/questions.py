"""Questions of agencies in other boroughs about sections that this node sent, for whoever is to see to them.

A reply is given by telephone: the exchange does not carry one yet.
"""

from typing import Any, Final

from exchange.node.said import open_said
from exchange.node.services import Services, moment
from exchange.store.acknowledgements import BY_BOROUGH, QuestionRow, questions
from exchange.store.messages import OUTBOUND, message_by_number
from exchange.store.outbox import Waiting, waiting_question
from exchange.store.transaction import Transaction

_MOST: Final = 200


async def list_questions(services: Services) -> dict[str, Any]:
    """The latest questions, newest first."""

    async def view(tx: Transaction) -> list[dict[str, Any]]:
        return [await _describe(services, tx, row) for row in await questions(tx, OUTBOUND, _MOST)]

    return {"items": await services.store.read(view)}


async def _describe(services: Services, tx: Transaction, row: QuestionRow) -> dict[str, Any]:
    said = row.said
    kept = await open_said(services, tx, await message_by_number(tx, said.message), said)
    waiting = await waiting_question(tx, said.message, said.number)
    return {
        "number": said.number,
        "id": row.message_id,
        "section": said.section,
        "agency": said.agency,
        "from": row.peer,
        "at": moment(said.at_ms),
        "by_borough": said.by == BY_BOROUGH,
        "question": None if kept is None else kept.said.question,
        "sealed": kept is not None and kept.said.question is None,
        "erased": kept is None,
        **_stands(waiting),
    }


def _stands(waiting: Waiting | None) -> dict[str, Any]:
    """Whether the counterpart has it, and why not."""
    if waiting is None:
        return {"delivered": True, "held": None}
    return {"delivered": False, "held": waiting.reason if waiting.state == "held" else None}
