"""Take what a node posts: prove it, open it, keep it, and only then say so.

* A section, a question about one that the borough sent, or word of what is late is acknowledged (204) once it is on the
  disk. What does not open is refused (422): the node then holds it, and its admin hears.
* What is kept is sealed to the agency's own key as it came. No content is on the disk in clear.
* A section that comes again, under the same id, is kept once.
* What its sender recalls or erases is deleted, and does not come back: a line stays that says so, without content. That
  is confirmed in the answer, signed with the agency's own keys.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.agency.asked import Question, read_question
from exchange.agency.errors import EventInvalid, NotOpened, OtherBorough, SenderUnknown, WebhookRefused
from exchange.agency.event import (
    ChallengeEvent,
    OrderEvent,
    OverdueEvent,
    QuestionEvent,
    SectionEvent,
    parse_event,
)
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import OpenedSection, open_section_event
from exchange.agency.ordered import read_order, sign_confirmation
from exchange.agency.senders import KnownSenders
from exchange.agency.webhook import WebhookKey, verify_webhook
from exchange.crypto.errors import SealError
from exchange.crypto.names import context
from exchange.crypto.sealing import open_sealed, seal
from exchange.errors import ExchangeError

_SUFFIX: Final = ".sealed"
_WITHDRAWN: Final = ".withdrawn"


@dataclass(frozen=True, slots=True)
class Agency:
    """Which agency this is, and what it takes."""

    kind: str
    borough: str
    keys: AgencyKeys
    webhook_keys: Sequence[WebhookKey]
    senders: KnownSenders
    #: Refuse what the borough's node has opened, or what is of a sender that the agency does not know.
    sealed_only: bool = False
    known_only: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What a node is answered."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True, repr=False)
class Kept:
    """A section as a person sees it; `opened` where it came sealed, else the node has opened it."""

    event: SectionEvent
    content: dict[str, Any]
    opened: OpenedSection | None


class Withdrawn(msgspec.Struct, frozen=True):
    """What stays of a section that its sender recalled or erased."""

    message_id: str
    section: str
    kind: str
    reason: str
    sender: str
    at: str


class Inbox:
    """Sections in a directory: one file for each, named by the event's id and sealed to the agency's key."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, agency: Agency, event_id: str, body: bytes) -> bool:
        """Keep an event; on return it is on the disk. False where it was here already.

        Raises:
            OSError: it could not be kept.
        """
        path = self._directory / f"{event_id}{_SUFFIX}"
        if path.exists() or path.with_suffix(_WITHDRAWN).exists():
            return False
        key = agency.keys.sealing[0].public
        data = key.key_id + seal(key, _place(event_id, key.key_id), body)
        self._write(path, data)
        if path.with_suffix(_WITHDRAWN).exists():
            path.unlink(missing_ok=True)  # an order came at the same time
            return False
        return True

    def withdraw(self, event_id: str, withdrawn: Withdrawn) -> None:
        """Delete a section, if it is here, for good; on return it is gone, and stays so.

        Raises:
            OSError: it could not be deleted.
        """
        path = self._directory / f"{event_id}{_SUFFIX}"
        self._write(path.with_suffix(_WITHDRAWN), msgspec.json.encode(withdrawn))
        with contextlib.suppress(FileNotFoundError):
            # It is sealed, and the key stays; so its bytes are overwritten where the file system writes in place.
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        self._sync()

    def withdrawn(self, most: int) -> list[Withdrawn]:
        """What was recalled or erased, the latest first."""
        paths = sorted(self._directory.glob(f"evt_*{_WITHDRAWN}"), key=lambda path: -path.stat().st_mtime_ns)
        return [msgspec.json.decode(path.read_bytes(), type=Withdrawn) for path in paths[:most]]

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file, whole, to the disk."""
        # Two requests may bring it at the same time.
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._sync()

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def ids(self) -> list[str]:
        """The ids of what is here, the latest first."""
        found = [(path.stat().st_mtime_ns, path.stem) for path in self._directory.glob(f"evt_*{_SUFFIX}")]
        return [name for _, name in sorted(found, reverse=True)]

    def read(self, agency: Agency, event_id: str) -> Kept:
        """A section that is here.

        Raises:
            OSError: it is not.
            ExchangeError: it does not open any more.
        """
        event = self._event(agency, event_id)
        if not isinstance(event, SectionEvent):
            raise EventInvalid("that is not a section")
        return open_event(agency, event)

    def _event(self, agency: Agency, event_id: str) -> object:
        data = (self._directory / f"{event_id}{_SUFFIX}").read_bytes()
        key = agency.keys.private(data[:16])
        try:
            body = open_sealed(key, _place(event_id, key.public.key_id), data[16:])
        except SealError:
            raise NotOpened("the file was altered") from None
        return parse_event(body, event_id)

    def questions(self, agency: Agency, most: int) -> Iterator[Question]:
        """The latest questions that are here and open."""
        for event_id in self.ids()[:most]:
            with contextlib.suppress(OSError, ExchangeError):
                event = self._event(agency, event_id)
                if isinstance(event, QuestionEvent):
                    yield read_question(event, agency.keys, agency.senders)

    def overdue(self, agency: Agency, most: int) -> Iterator[OverdueEvent]:
        """The latest words here of what is late."""
        for event_id in self.ids()[:most]:
            with contextlib.suppress(OSError, ExchangeError):
                event = self._event(agency, event_id)
                if isinstance(event, OverdueEvent):
                    yield event

    def sections(self, agency: Agency, most: int) -> Iterator[Kept]:
        """The latest sections that are here and open."""
        for event_id in self.ids()[:most]:
            with contextlib.suppress(OSError, ExchangeError):
                yield self.read(agency, event_id)


def _place(event_id: str, key_id: bytes) -> bytes:
    return context("agency-inbox", event_id.encode(), key_id)


def open_event(agency: Agency, event: SectionEvent) -> Kept:
    """What a person of this agency may see of an event.

    Raises:
        ExchangeError: it is not for this agency, does not open, or is not what the agency takes.
    """
    if event.node != agency.borough:
        raise OtherBorough("the event is of another borough's node")
    if event.data.content is not None:
        if agency.sealed_only:
            raise NotOpened("the borough's node has opened this section, and this agency takes sealed ones alone")
        return Kept(event, event.data.content, None)
    opened = open_section_event(event, agency.keys, agency.senders, agency.kind)
    if agency.known_only and not opened.known:
        raise SenderUnknown(f"this agency has no card of {opened.sender}")
    return Kept(event, opened.content, opened)


def carry_out(agency: Agency, inbox: Inbox, event: OrderEvent, now_s: float) -> dict[str, Any]:
    """Delete what the sender has recalled or erased; return the agency's signed confirmation.

    Raises:
        ExchangeError: the order is not proven, or of another borough than the section.
        OSError: it could not be deleted.
    """
    if event.node != agency.borough:
        raise OtherBorough("the event is of another borough's node")
    proven = read_order(event, agency.senders)
    if agency.known_only and not proven.known:
        raise SenderUnknown(f"this agency has no card of {proven.order.origin}")
    with contextlib.suppress(OSError, NotOpened):
        kept = inbox.read(agency, proven.section_event)
        if kept.opened is not None and kept.opened.sender != proven.order.origin:
            raise OtherBorough("the section is of another borough than the order")
    order = proven.order
    line = Withdrawn(
        order.message_id, proven.section, order.kind.value, order.reason.value, order.origin, order.at.isoformat()
    )
    inbox.withdraw(proven.section_event, line)
    return sign_confirmation(proven, agency.kind, agency.keys, datetime.fromtimestamp(now_s, UTC))


def check_overdue(agency: Agency, event: OverdueEvent) -> None:
    """Check that what is late is this borough's own node's word.

    Raises:
        OtherBorough: it is another's.
    """
    if event.node != agency.borough:
        raise OtherBorough("the event is of another borough's node")


def receive(agency: Agency, inbox: Inbox, headers: Mapping[str, str], body: bytes, now_s: float) -> Response:
    """Take one request; `headers` has its names in lower case.

    Raises:
        OSError: it could not be kept; nothing must be answered but an error.
    """
    try:
        event_id = verify_webhook(headers, body, agency.webhook_keys, now_s)
    except WebhookRefused as error:
        return _refusal(401, error)
    try:
        event = parse_event(body, event_id)
        if isinstance(event, SectionEvent):
            open_event(agency, event)
            inbox.keep(agency, event.id, body)
            return Response(204)
        if isinstance(event, QuestionEvent):
            if event.node != agency.borough:
                raise OtherBorough("the event is of another borough's node")
            read_question(event, agency.keys, agency.senders)
            inbox.keep(agency, event.id, body)
            return Response(204)
        if isinstance(event, OrderEvent):
            return Response(200, msgspec.json.encode(carry_out(agency, inbox, event, now_s)))
        if isinstance(event, OverdueEvent):
            check_overdue(agency, event)
            inbox.keep(agency, event.id, body)
            return Response(204)
        if isinstance(event, ChallengeEvent):
            wanted = (agency.borough, agency.borough, agency.kind)
            if (event.node, event.challenge.origin, event.challenge.kind) != wanted:
                raise OtherBorough("the challenge is for another borough or another kind of agency")
            return Response(200, msgspec.json.encode(agency.keys.answer(event.challenge, int(now_s))))
    except ExchangeError as error:
        return _refusal(422, error)
    return Response(204)


def _refusal(status: int, error: ExchangeError) -> Response:
    return Response(status, msgspec.json.encode({"code": error.code, "message": str(error), "hint": error.hint}))
