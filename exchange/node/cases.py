"""A handover as this node knows it: its message, where each section stands, and what people recorded of the whole."""

from dataclasses import dataclass

from exchange.crypto.statement import parse_statement
from exchange.handover.overdue import Case
from exchange.handover.responsibility import Facts
from exchange.node.services import moment
from exchange.schema.wire import Manifest, decode_wire, manifest_decoder
from exchange.store.handovers import HandoverRow, handover_of
from exchange.store.messages import INBOUND, MessageRow, PlacementRow, placements_of, received_at_ms
from exchange.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Handover:
    """A message, the case that it opened, and the rows that both were read from."""

    message: MessageRow
    manifest: Manifest
    case: Case
    row: HandoverRow
    placements: dict[tuple[str, str], PlacementRow]

    @property
    def arrived(self) -> bool:
        """Whether it came from a peer."""
        return self.message.direction == INBOUND


async def read_handover(tx: Transaction, message: MessageRow) -> Handover:
    """Read the handover of a message."""
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    placed = {(row.section, row.agency): row for row in await placements_of(tx, message.number)}
    row = await handover_of(tx, message.number)
    received_ms = message.stored_at_ms if message.direction == INBOUND else await received_at_ms(tx, message.number)
    sent_at, urgent = moment(message.created_at_ms), bool(message.urgent)

    def facts(section: str, kind: str) -> Facts:
        found = placed.get((section, kind))
        if found is None:
            at_ms = message.created_at_ms if received_ms is None else received_ms
            return Facts(kind, None if received_ms is None else "received", moment(at_ms), sent_at, urgent)
        at = moment(found.at_ms)
        return Facts(kind, found.rung, at, sent_at, urgent, asked_at=at if found.rung == "queried" else None)

    places = tuple((entry.name, facts(entry.name, kind)) for entry in manifest.sections for kind in entry.readers)
    case = Case(sent_at, urgent, places, row.met_at_ms is not None, row.complete_at_ms is not None)
    return Handover(message, manifest, case, row, placed)
