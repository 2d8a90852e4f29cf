"""A directory as a client sees it: a TUF repository whose targets are cards, one for an area.

* python-tuf decides what is believed (`tuf.ngclient`); this gives it the files, the time and the network.
* What is read is bounded: each file, their number, and the time for all of them.
* The time is the caller's, and never before that of the last refresh: a clock that was set back revives nothing.
* What the client has verified comes back even where something later fails: else a rollback would be forgotten.
* Nothing that a server says is repeated to people: each refusal has words of its own.

Source: The Update Framework specification, 1.0.31, section 5.
"""

import asyncio
import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from exchange.node.errors import NotNow
from exchange.node.peer_client import AnswerTooLarge

ROLES: Final = ("root", "timestamp", "snapshot", "targets")
METADATA: Final = "metadata"
TARGETS: Final = "targets"
MOST_CARD_BYTES: Final = 256 * 1024
MOST_CARDS: Final = 1000
MOST_FILE_BYTES: Final = 1024 * 1024
LIMITS: Final = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=1,
    root_max_length=128 * 1024,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=64 * 1024,
    targets_max_length=MOST_FILE_BYTES,
)
_CARD: Final = re.compile(r"([EWSN][0-9]{8})\.json")

#: Fetches the file at a URL: status and bytes.
Fetch = Callable[[str], Awaitable[tuple[int, bytes]]]

UNREACHABLE: Final = "unreachable"
EXPIRED: Final = "expired"
#: Code and words of each refusal; the first that fits.
_REFUSALS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (exceptions.DownloadLengthMismatchError, "too-large", "a file is larger than it may be"),
    (exceptions.ExpiredMetadataError, EXPIRED, "what it serves has expired: it was not renewed, or news are kept back"),
    (exceptions.BadVersionNumberError, "rolled-back", "it serves an older state than before, or parts of several"),
    (exceptions.UnsignedMetadataError, "not-signed", "too few of its keyholders have signed what it serves"),
    (exceptions.LengthOrHashMismatchError, "altered", "a file is not the one that its keyholders signed for"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why nothing was taken from a directory: `unreachable` where it may be well, else why it is refused."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a directory says now: cards by area, what is in it that is none, and how long each part holds."""

    cards: Mapping[str, bytes]
    ignored: tuple[str, ...]
    versions: Mapping[str, int]
    expiries: Mapping[str, datetime]

    def first_expiry(self) -> datetime:
        """When the first part expires."""
        return min(self.expiries.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a refresh: the metadata that is trusted from now on, and what is listed or why nothing is."""

    files: Mapping[str, bytes]
    listing: Listing | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a directory: its URL, trusted metadata by role (the root at least), cards that were fetched."""

    url: str
    files: Mapping[str, bytes]
    cards: Mapping[str, bytes] = field(default_factory=dict)


class _Files(FetcherInterface):
    """Fetches for the updater's thread, in the node's event loop."""

    def __init__(self, fetch: Fetch, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self._get = fetch
        self._loop = loop
        self._deadline = deadline
        self._lock = threading.Lock()
        self._stopped = False
        self._pending: Future[tuple[int, bytes]] | None = None

    def stop(self) -> None:
        """Fetch nothing more, and give up what is being fetched: the thread must not outlive the node."""
        with self._lock:
            self._stopped = True
            if self._pending is not None:
                self._pending.cancel()

    def _fetch(self, url: str) -> Iterator[bytes]:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise exceptions.SlowRetrievalError("the directory takes too long")
        with self._lock:
            if self._stopped:
                raise exceptions.DownloadError("stopped")
            pending = asyncio.run_coroutine_threadsafe(self._within(url, left_s), self._loop)
            self._pending = pending
        status, data = pending.result()
        if status != 200:
            raise exceptions.DownloadHTTPError(f"it answered {status}", status)
        return iter((data,))

    async def _within(self, url: str, left_s: float) -> tuple[int, bytes]:
        async with asyncio.timeout(left_s):
            return await self._get(url)


async def refresh(known: Known, fetch: Fetch, now: datetime, timeout_s: float) -> Outcome:
    """Ask a directory what it says now. `fetch` says by exceptions of `tuf` what cannot be had."""
    files = _Files(fetch, asyncio.get_running_loop(), time.monotonic() + timeout_s)
    try:
        return await asyncio.to_thread(look, known, files, now)
    finally:
        files.stop()


def look(known: Known, fetcher: Any, now: datetime) -> Outcome:
    """The whole of a client's work, in a private directory that is gone afterwards; blocks."""
    with tempfile.TemporaryDirectory(prefix="exchange-directory-") as name:
        directory = Path(name)
        for role in ROLES[1:]:
            if role in known.files:
                (directory / f"{role}.json").write_bytes(known.files[role])
        cards = directory / "cards"
        cards.mkdir()
        for area, data in known.cards.items():
            (cards / f"{area}.json").write_bytes(data)
        try:
            listing = _listing(known, fetcher, now, directory)
        except Exception as error:  # noqa: BLE001 - nothing that a server says may stop the node
            return Outcome(_trusted(known, directory), None, _problem(error))
        return Outcome(_trusted(known, directory), listing, None)


def _listing(known: Known, fetcher: Any, now: datetime, directory: Path) -> Listing:
    updater = Updater(
        metadata_dir=str(directory),
        metadata_base_url=f"{known.url}/{METADATA}/",
        target_dir=str(directory / "cards"),
        target_base_url=f"{known.url}/{TARGETS}/",
        fetcher=fetcher,
        config=LIMITS,
        bootstrap=known.files["root"],
    )
    # There is no public way to tell the updater the time; tests hold us to it.
    updater._trusted_set.reference_time = now
    updater.refresh()
    targets = Metadata[Targets].from_bytes((directory / "targets.json").read_bytes()).signed
    wanted = [(match[1], info) for path, info in targets.targets.items() if (match := _CARD.fullmatch(path))]
    if len(wanted) > MOST_CARDS:
        raise exceptions.DownloadLengthMismatchError("too many cards")
    cards = {area: _card(updater, info) for area, info in wanted}
    ignored = tuple(sorted({_plain(path) for path in targets.targets if not _CARD.fullmatch(path)}))
    signed = {role: read(role, (directory / f"{role}.json").read_bytes()) for role in ROLES}
    versions = {role: part.version for role, part in signed.items()}
    return Listing(cards, ignored, versions, {role: part.expires for role, part in signed.items()})


def _plain(name: str) -> str:
    """A name as it can be stored and shown, whatever is in it."""
    return re.sub(r"[^ -~]", "?", name)[:100]


def _card(updater: Updater, info: TargetFile) -> bytes:
    if info.length > MOST_CARD_BYTES:
        raise exceptions.DownloadLengthMismatchError("a card is too large")
    found = updater.find_cached_target(info) or updater.download_target(info)
    return Path(found).read_bytes()


def read(role: str, data: bytes) -> Root | Timestamp | Snapshot | Targets:
    """The content of a metadata file that was verified before."""
    found = Metadata.from_bytes(data).signed
    if found.type != role:
        raise exceptions.RepositoryError("that is another part of the metadata")
    return found


def _trusted(known: Known, directory: Path) -> dict[str, bytes]:
    """What the updater holds to be verified: it writes a file only then."""
    files = dict(known.files)
    for role in ROLES:
        path = directory / f"{role}.json"
        if path.exists():
            files[role] = path.read_bytes()
    return files


def _problem(error: Exception) -> Problem:
    for kind, code, words in _REFUSALS:
        if isinstance(error, kind):
            return Problem(code, words)
    cause = error.__cause__
    if isinstance(cause, AnswerTooLarge):
        return Problem(_REFUSALS[0][1], _REFUSALS[0][2])
    if isinstance(error, exceptions.SlowRetrievalError) or isinstance(cause, TimeoutError):
        return Problem(UNREACHABLE, "it takes too long to answer")
    if isinstance(error, exceptions.DownloadHTTPError):
        return Problem(UNREACHABLE, f"it answered {error.status_code} for a file that it should have")
    if isinstance(error, exceptions.DownloadError):
        return Problem(UNREACHABLE, str(cause) if isinstance(cause, NotNow) else "it cannot be reached")
    return Problem("unreadable", "what it serves cannot be read")


def read_root(data: bytes) -> Root:
    """A root file that an admin gave, if it is signed by its own keyholders.

    Raises:
        ValueError: it is not.
    """
    try:
        found = Metadata[Root].from_bytes(data)
        root = found.signed
        if not isinstance(root, Root):
            raise ValueError("that is not a root file")
        root.verify_delegate("root", found.signed_bytes, found.signatures)
    except (exceptions.RepositoryError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("that is not a directory's root file, or too few of its keyholders have signed it") from None
    return root


def as_text(expiries: Mapping[str, datetime]) -> str:
    """When each part expires, as the store keeps it."""
    return json.dumps({role: at.isoformat() for role, at in expiries.items()})


def root_fingerprint(data: bytes) -> str:
    """What two admins compare of a root file: SHA-256 over what its keyholders signed."""
    return hashlib.sha256(Metadata.from_bytes(data).signed_bytes).hexdigest()
