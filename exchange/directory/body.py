"""The working directory of the body: what is published, what is staged, and a journal of who was compared and how.

    directory.json          what the body decided
    repository/             what was published last, as clients get it: metadata/ and targets/
    staged/                 the next root and targets, with the signatures so far, and the cards that are new
    online-key*.json        what signs snapshot and timestamp; it stays on the machine that publishes
    journal.jsonl           what was done here, by whom

* Each file is written whole or not at all. What is done can be done again.
* A copy of the directory can be signed elsewhere; signatures are collected from it.
"""

import fcntl
import json
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from exchange.directory.errors import DirectoryError, DirectoryUnreadable
from exchange.directory.metadata import Settings, T, parse, target_path
from exchange.node.cards import parse_card_file
from exchange.node.errors import RequestInvalid
from exchange.schema.card_file import VerifiedCard

_ROOT: Final = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
#: What an area may look like in a file name.
_KINDS: Final = {"root": Root, "targets": Targets}


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, durably.

    Raises:
        OSError: it could not be written; what was there stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@dataclass(frozen=True, slots=True)
class Published:
    """What was published last; nothing, where nothing was."""

    roots: tuple[Metadata[Root], ...]
    targets: Metadata[Targets] | None
    snapshot: Metadata[Snapshot] | None
    timestamp: Metadata[Timestamp] | None

    @property
    def root(self) -> Root | None:
        """The latest root."""
        return self.roots[-1].signed if self.roots else None


class Publishing(msgspec.Struct, frozen=True, kw_only=True):
    """What a publishing puts in place: its timestamp's version, and what it takes of what is staged."""

    timestamp: int
    root: int | None
    targets: bool


class Body:
    """A working directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repository = path / "repository"
        self.staged = path / "staged"

    @contextmanager
    def held(self) -> Iterator["Body"]:
        """Nobody else changes the directory meanwhile.

        Raises:
            DirectoryUnreadable: there is none.
            DirectoryError: somebody else does.
        """
        self.settings()
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DirectoryError("another command works on this directory", hint="Wait until it ends.") from None
            self._settle()
            yield self

    def _settle(self) -> None:
        """Finish a publishing that was stopped half-way, or undo it: clients see what the timestamp leads to."""
        try:
            begun = msgspec.json.decode((self.staged / "publishing").read_bytes(), type=Publishing)
        except (OSError, msgspec.DecodeError):
            return
        path = self.repository / "metadata" / "timestamp.json"
        version = self._read(path, Timestamp).signed.version if path.exists() else 0
        if version >= begun.timestamp:
            self.unstage(root=begun.root is not None, targets=begun.targets)
        elif begun.root is not None:
            (self.repository / "metadata" / f"{begun.root}.root.json").unlink(missing_ok=True)
        self.end_publishing()

    def begin_publishing(self, begun: "Publishing") -> None:
        """Note what is about to be put in place."""
        write_file(self.staged / "publishing", msgspec.json.encode(begun))

    def end_publishing(self) -> None:
        """It is in place, or given up."""
        (self.staged / "publishing").unlink(missing_ok=True)

    def settings(self) -> Settings:
        """What the body decided.

        Raises:
            DirectoryUnreadable: this is no working directory.
        """
        try:
            return msgspec.json.decode((self.path / "directory.json").read_bytes(), type=Settings)
        except OSError:
            raise DirectoryUnreadable(
                f"{self.path} is not the working directory of a directory",
                hint="Name it with --work, or make one with: exchange directory init DIR",
            ) from None
        except (msgspec.DecodeError, ValueError):
            raise DirectoryUnreadable(f"{self.path / 'directory.json'} cannot be read") from None

    # What is published

    def published(self) -> Published:
        """What was published last, as it lies here; whether it is signed is checked where that matters.

        Raises:
            DirectoryUnreadable: a file is missing or cannot be read.
        """
        metadata = self.repository / "metadata"
        names = [path.name for path in metadata.iterdir()] if metadata.is_dir() else []
        versions = sorted(int(match[1]) for name in names if (match := _ROOT.fullmatch(name)))
        if not versions or not (metadata / "timestamp.json").exists():
            return Published((), None, None, None)
        roots = tuple(self._read(metadata / f"{version}.root.json", Root) for version in versions)
        timestamp = self._read(metadata / "timestamp.json", Timestamp)
        version = timestamp.signed.snapshot_meta.version
        snapshot = self._read(metadata / f"{version}.snapshot.json", Snapshot)
        targets_version = snapshot.signed.meta["targets.json"].version
        targets = self._read(metadata / f"{targets_version}.targets.json", Targets)
        return Published(roots, targets, snapshot, timestamp)

    def _read(self, path: Path, kind: type[T]) -> Metadata[T]:
        try:
            return parse(kind, path.read_bytes(), str(path))
        except OSError:
            raise DirectoryUnreadable(f"{path} is missing") from None

    # What is staged

    def staged_root(self) -> Metadata[Root] | None:
        """The root that waits for signatures."""
        path = self.staged / "root.json"
        return self._read(path, Root) if path.exists() else None

    def staged_targets(self) -> Metadata[Targets] | None:
        """The targets that wait for signatures."""
        path = self.staged / "targets.json"
        return self._read(path, Targets) if path.exists() else None

    def stage(self, staged: Metadata[Root] | Metadata[Targets]) -> None:
        """Keep a part that is staged, with its signatures."""
        write_file(self.staged / f"{staged.signed.type}.json", staged.to_bytes())

    def stage_card(self, area: str, data: bytes) -> None:
        """Keep a card that is staged."""
        write_file(self.staged / "cards" / target_path(area), data)

    def unstage(self, *, root: bool = True, targets: bool = True) -> None:
        """Drop what is staged."""
        names = [name for name, wanted in (("root", root), ("targets", targets)) if wanted]
        for name in names:
            (self.staged / f"{name}.json").unlink(missing_ok=True)
        if targets and (self.staged / "cards").is_dir():
            for path in (self.staged / "cards").iterdir():
                path.unlink()

    def card(self, targets: Targets, area: str) -> bytes:
        """The card that targets list for an area, staged or published.

        Raises:
            DirectoryUnreadable: there is none that is the one listed.
        """
        from exchange.directory.metadata import is_listed

        info = targets.targets[target_path(area)]
        prefixed = f"{info.hashes['sha256']}.{target_path(area)}"
        for path in (self.staged / "cards" / target_path(area), self.repository / "targets" / prefixed):
            if path.exists():
                data = path.read_bytes()
                if is_listed(targets, area, data):
                    return data
        raise DirectoryUnreadable(f"the card of {area} is not in this directory, or is not the one that is listed")

    def verified_card(self, targets: Targets, area: str) -> VerifiedCard:
        """The card that targets list for an area, checked.

        Raises:
            DirectoryUnreadable: there is none, or it is not a card of that area.
        """
        try:
            verified = parse_card_file(self.card(targets, area))
        except RequestInvalid as error:
            raise DirectoryUnreadable(f"the card of {area}: {error}") from None
        if verified.card.area != area:
            raise DirectoryUnreadable(f"the card that is listed for {area} is of {verified.card.area}")
        return verified

    # The journal

    def note(self, now: datetime, what: str, **more: object) -> None:
        """Write down what was done here."""
        line = {"at": now.isoformat(timespec="seconds"), "by": _who(), "what": what, **more}
        with (self.path / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def notes_on(self, fingerprint: str) -> list[dict[str, Any]]:
        """What the journal says of an identity, oldest first."""
        try:
            lines = (self.path / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with suppress(ValueError):
                note = json.loads(line)
                if isinstance(note, dict) and note.get("fingerprint") == fingerprint:
                    found.append(note)
        return found


def _who() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
