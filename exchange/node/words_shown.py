"""What agencies said of a message's sections, for whoever may ask the node: as much of it as the node can read."""

from typing import Any

from exchange.node.said import open_said
from exchange.node.services import Services
from exchange.store.acknowledgements import AcknowledgementRow, acknowledgements_of
from exchange.store.messages import OUTBOUND, MessageRow, PlacementRow
from exchange.store.transaction import Transaction

Place = tuple[str, str]


async def words_of_message(
    services: Services, tx: Transaction, message: MessageRow, placements: list[PlacementRow]
) -> dict[Place, dict[str, Any]]:
    """What puts each section at each agency where it stands, where that is an agency's word."""
    latest: dict[tuple[str, str, str], AcknowledgementRow] = {}
    for row in await acknowledgements_of(tx, message.number):
        latest[row.section, row.agency, row.rung] = row
    found: dict[Place, dict[str, Any]] = {}
    for placed in placements:
        said = latest.get((placed.section, placed.agency, placed.rung))
        if said is not None:
            found[placed.section, placed.agency] = await _describe(services, tx, message, said)
    return found


async def _describe(
    services: Services, tx: Transaction, message: MessageRow, row: AcknowledgementRow
) -> dict[str, Any]:
    kept = await open_said(services, tx, message, row)
    word: dict[str, Any] = {
        "by": row.by,
        "signed": row.word_hash is not None,
        "to": row.target,
        # Here the agency has sealed it for the sender; there a part of it is for the counterpart.
        "sealed": bool(kept and kept.ciphertexts) if message.direction == OUTBOUND else row.word_hash is not None,
        "erased": kept is None,
        "name": None,
        "role": None,
        "contact": None,
        "note": None,
        "question": None,
        "reason": None,
        "whose": None,
    }
    if kept is None:
        return word
    said, holder = kept.said, kept.said.holder
    if holder is not None:
        word |= {"name": holder.name, "role": holder.role, "contact": holder.contact}
    return word | {"note": said.note, "question": said.question, "reason": said.reason, "whose": said.whose}
