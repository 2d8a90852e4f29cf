"""What a node posts to an agency, as typed values. Signed bytes alone are given to this; all the same it is strict.

* What is not known is refused: an event that is passed over in silence is lost.
* `content` and `sealed` exclude one another: one says that the node has opened the section, the other that it has not.

Source: docs/protocol.md, "Webhooks".
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from exchange.agency.errors import EventInvalid
from exchange.schema.agency_keys import ChallengeFile
from exchange.schema.agency_names import AgencyName
from exchange.schema.events import (
    CHALLENGE,
    HANDOVER_OVERDUE,
    SECTION_DELIVERED,
    SECTION_ERASED,
    SECTION_QUERIED,
    SECTION_RECALLED,
    TEST,
)
from exchange.schema.wire import AreaText, KeyIdBytes, KindText, MessageText, SectionText

#: A manifest of 4 MiB and a section of 1 MiB, in base64.
MOST_BYTES: Final = 16 * 1024 * 1024
_SOURCE: Final = "https://"

EventId = Annotated[str, Meta(pattern=r"^evt_[0-9a-f]{32}\Z")]


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section that the node has not opened; `key_id` says to which of the agency's keys the parcel is sealed."""

    manifest: bytes
    proof: bytes
    card: bytes
    ciphertext: bytes
    parcel: bytes
    key_id: KeyIdBytes


class EventLinks(msgspec.Struct, frozen=True):
    """Addresses for people: by `acknowledge` somebody takes the section on, once."""

    acknowledge: str | None = None


class SectionData(msgspec.Struct, frozen=True):
    """A section: `content` where the node has opened it, else `sealed`."""

    message_id: MessageText
    section: SectionText
    sender_area: AreaText = msgspec.field(name="from")
    recipient_area: AreaText = msgspec.field(name="to")
    urgent: bool
    content: dict[str, Any] | None = None
    sealed: Sealed | None = None
    links: EventLinks | None = None


class SealedQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question that the node cannot read: the receipt in which the other borough has signed it, and what opens it."""

    receipt: bytes
    proof: bytes
    card: bytes
    ciphertext: bytes
    parcel: bytes
    key_id: KeyIdBytes


class QuestionContent(msgspec.Struct, frozen=True):
    """A question as the node has opened it."""

    question: str


class QuestionData(msgspec.Struct, frozen=True):
    """A question about a section that this agency's borough sent; `agency` is the kind that asks."""

    message_id: MessageText
    section: SectionText
    sender_area: AreaText = msgspec.field(name="from")
    recipient_area: AreaText = msgspec.field(name="to")
    urgent: bool
    agency: KindText
    content: QuestionContent | None = None
    sealed: SealedQuestion | None = None


class SignedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sender has signed, and its card."""

    statement: bytes
    proof: bytes
    card: bytes


class OrderData(msgspec.Struct, frozen=True):
    """An order about a section that this agency may have; `event` is the id under which the section came."""

    message_id: MessageText
    section: SectionText
    sender_area: AreaText = msgspec.field(name="from")
    recipient_area: AreaText = msgspec.field(name="to")
    agency: AgencyName
    reason: str
    event: EventId
    order: SignedOrder


class OverdueStep(msgspec.Struct, frozen=True):
    """A step that is late; without `agency`, the agencies do it together."""

    step: str
    agency: KindText | None
    sections: tuple[SectionText, ...]
    due_at: Annotated[datetime, Meta(tz=True)]


class OverdueData(msgspec.Struct, frozen=True):
    """What of a handover is late, and for this agency to see to."""

    message_id: MessageText
    sender_area: AreaText = msgspec.field(name="from")
    recipient_area: AreaText = msgspec.field(name="to")
    urgent: bool
    overdue: Annotated[tuple[OverdueStep, ...], Meta(min_length=1)]


class ChallengeData(msgspec.Struct, frozen=True):
    """A challenge to prove the agency's key."""

    challenge: ChallengeFile


class _Event(msgspec.Struct, frozen=True):
    specversion: Literal["1.0"]
    id: EventId
    type: str
    source: str
    time: str
    data: msgspec.Raw


class SectionEvent(msgspec.Struct, frozen=True):
    """A section was delivered; `node` is the origin of the agency's own borough."""

    id: str
    node: str
    at: str
    data: SectionData


class QuestionEvent(msgspec.Struct, frozen=True):
    """An agency of another borough asks about a section; `node` is the origin of the agency's own borough."""

    id: str
    node: str
    at: str
    data: QuestionData


class OrderEvent(msgspec.Struct, frozen=True):
    """The sender has recalled or erased a section; `node` is the origin of the agency's own borough."""

    id: str
    type: str
    node: str
    at: str
    data: OrderData


class OverdueEvent(msgspec.Struct, frozen=True):
    """Something of a handover is late; `node` is the origin of the agency's own borough."""

    id: str
    node: str
    at: str
    data: OverdueData


class ChallengeEvent(msgspec.Struct, frozen=True):
    """The node asks the agency to prove its key."""

    id: str
    node: str
    challenge: ChallengeFile


class TestEvent(msgspec.Struct, frozen=True):
    """An event without personal data."""

    id: str
    node: str


Event = SectionEvent | QuestionEvent | OrderEvent | OverdueEvent | ChallengeEvent | TestEvent


def parse_event(body: bytes, event_id: str | None = None) -> Event:
    """Read a body; `event_id` is what the headers said.

    Raises:
        EventInvalid: it is no event, of a type that is not known, or has another id than its headers.
    """
    if len(body) > MOST_BYTES:
        raise EventInvalid("the event is too large")
    try:
        event = msgspec.json.decode(body, type=_Event)
        if not event.source.startswith(_SOURCE) or event_id not in (None, event.id):
            raise EventInvalid("the event names another sender or id than it came with")
        node = event.source.removeprefix(_SOURCE)
        if event.type == SECTION_DELIVERED:
            data = msgspec.json.decode(event.data, type=SectionData)
            if (data.content is None) == (data.sealed is None):
                raise EventInvalid("a section is either opened or sealed")
            return SectionEvent(event.id, node, event.time, data)
        if event.type == SECTION_QUERIED:
            asked = msgspec.json.decode(event.data, type=QuestionData)
            if (asked.content is None) == (asked.sealed is None):
                raise EventInvalid("a question is either opened or sealed")
            return QuestionEvent(event.id, node, event.time, asked)
        if event.type in (SECTION_RECALLED, SECTION_ERASED):
            return OrderEvent(event.id, event.type, node, event.time, msgspec.json.decode(event.data, type=OrderData))
        if event.type == HANDOVER_OVERDUE:
            return OverdueEvent(event.id, node, event.time, msgspec.json.decode(event.data, type=OverdueData))
        if event.type == CHALLENGE:
            return ChallengeEvent(event.id, node, msgspec.json.decode(event.data, type=ChallengeData).challenge)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise EventInvalid("the body is not an event of the exchange") from None
    if event.type == TEST:
        return TestEvent(event.id, node)
    raise EventInvalid("this release does not know events of that type")
