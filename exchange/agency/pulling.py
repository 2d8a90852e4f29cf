"""Fetch sections from a borough's node, open and check them, keep them, and only then say so; again and again.

* A section is acknowledged once it is on the disk. What does not open is refused: the node holds it.
* The cursor is kept in memory alone. Whoever starts again begins at what was not acknowledged, and keeps each once: a
  file has the event's id for its name.
* What cannot be kept ends the program: nothing is acknowledged, and nothing is lost.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from exchange.agency.asked import read_question
from exchange.agency.errors import NotNow, OtherBorough
from exchange.agency.event import OverdueEvent, QuestionEvent, SectionEvent, parse_event
from exchange.agency.fetching import Fetched, Node
from exchange.agency.receiving import Agency, Inbox, Kept, check_overdue, open_event
from exchange.errors import ExchangeError

WAIT_S: Final = 30
_AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


Takeable = SectionEvent | QuestionEvent | OverdueEvent


class Keeper(Protocol):
    """Where sections are kept."""

    def keep(self, event: Takeable, body: bytes) -> bool:
        """Check and keep one; on return it is on the disk. False where it was there already.

        Raises:
            ExchangeError: it cannot be taken.
            OSError: it cannot be kept.
        """


@dataclass(frozen=True, slots=True)
class Sealed:
    """An inbox whose files are sealed to the agency's key: that of `agency-serve`, which shows it."""

    agency: Agency
    inbox: Inbox

    def keep(self, event: Takeable, body: bytes) -> bool:
        """Keep it as it came."""
        _check(self.agency, event)
        return self.inbox.keep(self.agency, event.id, body)


@dataclass(frozen=True, slots=True)
class Files:
    """A directory with a JSON file for each section, in clear where it could be opened: the event, and who sent it.

    Without a key of the agency's, what is sealed is kept as it came.
    """

    directory: Path
    borough: str
    agency: Agency | None = None

    def keep(self, event: Takeable, body: bytes) -> bool:
        """Keep what a program of the agency's can read."""
        if event.node != self.borough:
            raise OtherBorough("the event is of another borough's node")
        found = None if self.agency is None else _check(self.agency, event)
        data = body if found is None else _opened(body, found)
        return _write(self.directory, f"{event.id}.json", data)


def _check(agency: Agency, event: Takeable) -> Kept | None:
    """Check what came, and open it; a question is kept as it came, and `agency-serve` shows it."""
    if isinstance(event, SectionEvent):
        return open_event(agency, event)
    if isinstance(event, OverdueEvent):
        check_overdue(agency, event)
        return None
    if event.node != agency.borough:
        raise OtherBorough("the event is of another borough's node")
    read_question(event, agency.keys, agency.senders)
    return None


def _opened(body: bytes, kept: Kept) -> bytes:
    if kept.opened is None:
        return body
    document: dict[str, Any] = msgspec.json.decode(body)
    del document["data"]["sealed"]
    opened = kept.opened
    document["data"] |= {
        "content": kept.content,
        "sender": opened.sender,
        "fingerprint": opened.fingerprint,
        "known": opened.known,
    }
    return msgspec.json.encode(document)


def _write(directory: Path, name: str, data: bytes) -> bool:
    if (directory / name).exists():
        return False
    temporary = directory / f".{name}.{secrets.token_hex(8)}.new"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / name)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


@dataclass(slots=True)
class Puller:
    """Fetches, keeps and acknowledges."""

    node: Node
    keeper: Keeper
    #: Told what became of each section, and why the node could not be asked.
    tell: Callable[[str], None] = lambda text: None
    kept: int = 0
    refused: int = 0
    _after: str = field(default="", init=False)

    def once(self, wait_s: int = 0) -> Fetched:
        """Take what there is now, or comes within a time.

        Raises:
            NotNow: the node cannot be reached, or asks to come later.
            FetchRefused: the token is not good, or that is no node.
            OSError: something cannot be kept; it was not acknowledged.
        """
        fetched = self.node.fetch(self._after, wait_s)
        for item in fetched.items:
            self._take(bytes(item))
        self._after = fetched.after
        return fetched

    def _take(self, body: bytes) -> None:
        event_id = msgspec.json.decode(body, type=_Named).id
        try:
            event = parse_event(body)
            if not isinstance(event, SectionEvent | QuestionEvent | OverdueEvent):
                raise OtherBorough("that is no section, no question, and nothing that is late")
            new = self.keeper.keep(event, body)
        except ExchangeError as error:
            self.node.says(event_id, "refused")
            self.refused += 1
            self.tell(f"{event_id} was refused: {error}")
            return
        self.node.says(event_id, "delivered")
        self.kept += new
        self.tell(f"{event_id}: {_what(event)} {event.data.message_id}")

    def until_empty(self) -> None:
        """Take everything that waits.

        Raises:
            NotNow: the node cannot be reached, or asks to come later.
            FetchRefused: the token is not good, or that is no node.
            OSError: something cannot be kept; it was not acknowledged.
        """
        while self.once().items:
            pass

    def run(self) -> None:
        """Go on for ever; what the node cannot do now is asked again.

        Raises:
            FetchRefused: the token is not good, or that is no node.
            OSError: something cannot be kept; it was not acknowledged.
        """
        failures = 0
        while True:
            try:
                self.once(WAIT_S)
                failures = 0
            except NotNow as error:
                wait_s = max(_AGAIN_S[min(failures, len(_AGAIN_S) - 1)], error.asked_s)
                failures, self._after = failures + 1, ""
                self.tell(f"{error}; asking again in {wait_s:g} s")
                time.sleep(wait_s)


def _what(event: Takeable) -> str:
    if isinstance(event, OverdueEvent):
        return "something is late of"
    return f"{'section' if isinstance(event, SectionEvent) else 'a question about'} {event.data.section} of"


class _Named(msgspec.Struct, frozen=True):
    id: str
