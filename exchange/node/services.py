"""What the parts of a node share; built once, in `app.py`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from exchange.crypto.checkpoint import CheckpointCache
from exchange.node.admission import Admission
from exchange.node.config import Configuration
from exchange.node.durable import replace_file
from exchange.node.hardening import Protection
from exchange.node.keyring import Keyring
from exchange.node.tls import Certificates
from exchange.schema.catalogue import Catalogue
from exchange.schema.deadlines import Deadlines
from exchange.store.transaction import Store


@dataclass(slots=True)
class Counters:
    """What the node counts; served by `GET /v1/health` on the local API."""

    values: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        self.values[name] = self.values.get(name, 0) + count


class Revoked:
    """Whether the node's own identity is revoked; if so, `file` is what says so, to be shown in place of its card."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.file = path.read_bytes() if path.exists() else None

    def keep(self, data: bytes) -> None:
        """The identity is revoked from now on, and stays so after a power cut.

        Raises:
            OSError: it could not be kept; the identity is not revoked here.
        """
        replace_file(self._path, data)
        self.file = data


class Changes:
    """Wakes those who wait for something in the store to change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake everybody who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Set at the next change; take it before looking at the store."""
        return self._event


@dataclass(frozen=True, slots=True)
class Services:
    """A running node's parts."""

    configuration: Configuration
    now_ms: Callable[[], int]
    store: Store
    keyring: Keyring
    certificates: Certificates
    catalogue: Catalogue
    deadlines: Deadlines
    log: structlog.typing.FilteringBoundLogger
    checkpoints: CheckpointCache
    changes: Changes
    counters: Counters
    revoked: Revoked
    protection: Protection
    admission: Admission

    def now(self) -> datetime:
        """The time as an aware datetime."""
        return moment(self.now_ms())


def moment(at_ms: int) -> datetime:
    """Milliseconds since 1970 as an aware datetime in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def milliseconds(at: datetime) -> int:
    """An aware datetime as milliseconds since 1970."""
    return round(at.timestamp() * 1000)
