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


_NAMES: dict[type[Record], str] = {BackupRecord: "last-backup.json", RevocationRecord: "last-revocation.json"}


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
