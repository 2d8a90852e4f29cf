"""Sections that arrived here, as the agencies see them that have them: which, how each stands, what was said of it."""

from dataclasses import dataclass
from typing import Any

from exchange.crypto.names import MessageId, Origin
from exchange.crypto.statement import parse_statement
from exchange.handover.holding import By, State
from exchange.handover.rungs import has_reached
from exchange.node.said import open_said
from exchange.node.services import Services
from exchange.schema.agency_names import kind_of
from exchange.schema.wire import Manifest, Rung, decode_wire, manifest_decoder
from exchange.schema.words import Bond, Said
from exchange.store.acknowledgements import AcknowledgementRow, acknowledgements_of
from exchange.store.errors import Conflict, NotFound
from exchange.store.messages import INBOUND, MessageRow, PlacementRow, messages_by_id, placements_of
from exchange.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Speaker:
    """Which agency speaks, or is spoken for; `who` is the person at the borough who speaks for it."""

    name: str
    by: By
    who: str | None = None

    @property
    def kind(self) -> str:
        """The agency's kind."""
        return kind_of(self.name)


@dataclass(frozen=True, slots=True)
class SectionHere:
    """A section that an agency has, or that it was the last to redirect."""

    message: MessageRow
    manifest: Manifest
    name: str
    places: tuple[PlacementRow, ...]
    said: tuple[AcknowledgementRow, ...]
    is_theirs: bool

    @property
    def state(self) -> State:
        """How it stands."""
        rung = self.places[0].rung
        return State(rung) if rung in set(State) else State.ROUTED

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The section, with each kind of reader as which the agency has it."""
        return [(self.name, place.agency) for place in self.places]

    def latest(self, rung: Rung) -> AcknowledgementRow | None:
        """What was said last of that kind."""
        return next((row for row in reversed(self.said) if row.rung == rung.value), None)

    def bond(self, origin: Origin) -> Bond:
        """What words about it are bound to; `origin` is this node."""
        return Bond(MessageId(self.message.message_id), origin, Origin(self.message.origin))


async def find_section(tx: Transaction, speaker: Speaker, message_id: str, section: str) -> SectionHere:
    """A section as an agency sees it.

    Raises:
        NotFound: there is none by that name that it has, or was the last to redirect.
        Conflict: two boroughs have sent it a section by one name.
    """
    found = [
        one
        for message in await messages_by_id(tx, message_id)
        if message.direction == INBOUND
        if (one := await _seen_by(tx, speaker, message, section)) is not None
    ]
    if not found:
        raise NotFound(f"agency {speaker.name} has no section {message_id}/{section}")
    if len(found) > 1:
        raise Conflict("two boroughs have sent a message under this id", hint="Telephone your borough's admins.")
    return found[0]


async def _seen_by(tx: Transaction, speaker: Speaker, message: MessageRow, section: str) -> SectionHere | None:
    rows = [row for row in await placements_of(tx, message.number) if row.section == section]
    theirs = [row for row in rows if has_it(row, speaker)]
    said = [row for row in await acknowledgements_of(tx, message.number) if row.section == section]
    places = theirs
    if not theirs:
        last = next((row for row in reversed(said) if row.rung == Rung.REDIRECTED.value), None)
        places = [row for row in rows if last and last.name == speaker.name and row.agency == last.agency]
    if not places:
        return None
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    of_place = tuple(row for row in said if row.agency == places[0].agency)
    return SectionHere(message, manifest, section, tuple(places), of_place, bool(theirs))


def has_it(row: PlacementRow, speaker: Speaker) -> bool:
    """Whether an agency was given a section; after a restore nobody knows which of a kind has what was delivered."""
    if row.given_to is None:
        return row.agency == speaker.name and has_reached(row.rung, "delivered")
    return row.given_to == speaker.name


async def said_before(
    services: Services, tx: Transaction, found: SectionHere, speaker: Speaker, rung: Rung, said: Said, to: str | None
) -> AcknowledgementRow | None:
    """The same word of the same agency, where it was the last of its kind and still stands; in clear."""
    latest = found.latest(rung)
    if latest is None or (latest.name, latest.by, latest.target) != (speaker.name, speaker.by.value, to):
        return None
    if not _stands(found, latest):
        return None
    kept = await open_said(services, tx, found.message, latest)
    return latest if kept is not None and latest.word_hash is None and kept.said == said else None


def signed_before(found: SectionHere, word_hash: bytes) -> AcknowledgementRow | None:
    """What an agency signed, where it was said before."""
    return next((row for row in found.said if row.word_hash == word_hash), None)


def still_stands(found: SectionHere, row: AcknowledgementRow) -> bool:
    """Whether nothing was said since that takes a word back."""
    return row is found.latest(Rung(row.rung)) and _stands(found, row)


def _stands(found: SectionHere, row: AcknowledgementRow) -> bool:
    if row.rung == Rung.OWNED.value:
        return found.state is State.OWNED
    if row.rung == Rung.REDIRECTED.value:
        return not found.is_theirs or found.state is State.REDIRECTED
    since = found.said[found.said.index(row) + 1 :]
    return not any(later.rung == Rung.REDIRECTED.value for later in since)


def describe_section(found: SectionHere) -> dict[str, Any]:
    """How a section stands."""
    return {
        "id": f"{found.message.message_id}/{found.name}",
        "message_id": found.message.message_id,
        "section": found.name,
        "agencies": [place.agency for place in found.places],
        "rung": found.places[0].rung,
    }
