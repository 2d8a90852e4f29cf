"""A real store in a file of its own, and what a test needs to check what it signed."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from exchange.crypto.names import Origin
from exchange.crypto.note import VerifierKey
from exchange.crypto.signing import SigningKeys
from exchange.store.messages import INBOUND, KeysRow, MessageRow, SectionRow, add_message
from exchange.store.opening import open_store as open_at
from exchange.store.transaction import Store, Transaction
from tests import databases

ORIGIN = Origin("exchange.hackney.example")
NOW_MS = 1_795_468_800_000  # 2026-11-23 16:00 UTC

_KEYS = SigningKeys.generate()


@dataclass
class Clock:
    """Time that only a test moves."""

    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Signer:
    """Signs checkpoints, and remembers the size and root of each by its text."""

    signed: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def __call__(self, size: int, root: bytes, timestamp_s: int) -> str:
        text = _KEYS.sign_checkpoint(ORIGIN, size, root, timestamp_s)
        self.signed[text] = (size, root)
        return text

    def roots(self) -> dict[int, bytes]:
        return dict(self.signed.values())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="session")
def verifiers() -> tuple[VerifierKey, VerifierKey]:
    return _KEYS.verifiers(ORIGIN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture(scope="session", params=databases.KINDS)
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes the URL of a database that is not there yet; each test runs on both kinds."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        return lambda: databases.make(server)
    directory = tmp_path_factory.mktemp("sqlite")
    numbers = itertools.count()
    return lambda: f"sqlite:///{directory}/{next(numbers)}.db"


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


@pytest.fixture
async def store(url: str, signer: Signer, clock: Clock) -> AsyncIterator[Store]:
    store = await open_at(url, signer, clock)
    yield store
    await store.close()


#: Runs a scenario with a store of its own, once per example that Hypothesis draws.
OpenStore: TypeAlias = Callable[[Callable[[Store], Awaitable[Any]]], Any]


@pytest.fixture(scope="session")
def open_store(new_url: Callable[[], str]) -> OpenStore:
    shared = new_url()

    def run(scenario: Callable[[Store], Awaitable[Any]]) -> Any:
        if shared.startswith("postgresql"):
            databases.empty(shared)
            url = shared
        else:
            url = new_url()

        async def opened() -> Any:
            store = await open_at(url, Signer(), Clock())
            try:
                return await scenario(store)
            finally:
                await store.close()

        return asyncio.run(opened())

    return run


def call(function: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Callable[[Transaction], Any]:
    """An operation that does one call of `function`."""

    async def operation(tx: Transaction) -> Any:
        return await function(tx, *arguments, **named)

    return operation


def message_row(message_id: str = "00000000-0000-4000-8000-000000000001", **changes: Any) -> MessageRow:
    """An inbound message; `changes` replace its fields."""
    values: dict[str, Any] = {
        "number": 0,
        "origin": ORIGIN,
        "message_id": message_id,
        "direction": INBOUND,
        "peer": ORIGIN,
        "leaf_hash": message_id.encode().ljust(32, b"\0")[:32],
        "statement": b"statement",
        "proof": "proof",
        "position": None,
        "received_position": None,
        "urgent": 0,
        "created_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + 1,
        "stored_at_ms": NOW_MS,
    }
    return MessageRow(**(values | changes))


async def add_one(tx: Transaction, message_id: str = "00000000-0000-4000-8000-000000000001", **changes: Any) -> int:
    """Store a message with two sections."""
    sealed = [SectionRow("subject", b"ciphertext"), SectionRow("housing", b"other")]
    return await add_message(tx, message_row(message_id, **changes), KeysRow(b"wrapped", b"secrets"), sealed)
