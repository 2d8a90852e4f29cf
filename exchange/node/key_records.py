"""When the keys were last backed up, and a revocation of them last prepared: two small files beside the configuration.

They hold nothing secret. Who backs up may be a command without a node; so they are not in the store.
"""

from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from exchange.node.durable import replace_file

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, with which signing keys, and when."""

    at: datetime
    fingerprint: str


class BackupRecord(Record, frozen=True, kw_only=True):
    """A backup of the keys was made, which `by` opens: a passphrase, or `threshold` of `count` shares."""

    by: str
    threshold: int | None = None
    count: int | None = None


class RevocationRecord(Record, frozen=True, kw_only=True):
    """A revocation was prepared."""


class NodeBackupRecord(Record, frozen=True, kw_only=True):
    """A backup of the whole node was made, for the holder of a key."""

    key_id: str
    log_size: int


class RejoinPeer(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer said; `size` is of this node's log that it has seen."""

    origin: str
    answered: bool
    size: int | None = None
    reason: str | None = None


class LostMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message whose content is not here any more; `delivered` where every section had reached its agency."""

    id: str
    peer: str
    direction: str
    delivered: bool


class RejoinRecord(Record, frozen=True, kw_only=True):
    """The node rejoined its peers: from how many statements to how many, and what is lost."""

    size_before: int
    size: int
    returned: int
    peers: tuple[RejoinPeer, ...]
    forks_at: tuple[str, ...]
    messages: tuple[LostMessage, ...]
    agencies_missing: tuple[str, ...] = ()


_NAMES: dict[type[Record], str] = {
    BackupRecord: "last-backup.json",
    NodeBackupRecord: "last-node-backup.json",
    RejoinRecord: "last-rejoin.json",
    RevocationRecord: "last-revocation.json",
}


def keep_record(directory: Path, record: Record) -> None:
    """Note what was done, in place of the time before.

    Raises:
        OSError: it cannot be written.
    """
    path = directory / _NAMES[type(record)]
    replace_file(path, msgspec.json.encode(record) + b"\n")


def last_record(directory: Path, kind: type[R]) -> R | None:
    """What was done last; None where nothing was, or nothing can be read."""
    try:
        return msgspec.json.decode((directory / _NAMES[kind]).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, ValueError):
        return None
