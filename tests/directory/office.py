"""A body that runs a directory: its keyholders with real keys, its working directory, and a web server for what it
publishes, which a test can bend."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from exchange.crypto.keystore import Argon2Parameters
from exchange.crypto.secret import Secret
from exchange.directory.body import Body
from exchange.directory.changes import add, change_root, look_at, make, remove, renew, replace_online_key
from exchange.directory.keyfile import KeyFile, new_key, parse_key_file
from exchange.directory.metadata import Settings
from exchange.directory.publishing import prepare, publish
from exchange.schema.card_file import CardFile, card_file
from exchange.schema.wire import ProvenStatement

CHEAP = Argon2Parameters(1, 8192)
PASSPHRASE = Secret(b"a fictitious passphrase")
DAY_MS = 86_400_000

#: What the server answers to a path instead of the file, where it answers anything.
Bend = Callable[[str], Awaitable[web.StreamResponse | None]]


@dataclass(frozen=True)
class Holder:
    """Somebody who holds a key."""

    file: KeyFile
    signer: CryptoSigner


def holder(name: str) -> Holder:
    """A new key of somebody."""
    file = parse_key_file(new_key(name, PASSPHRASE, CHEAP)[0])
    return Holder(file, file.signer(PASSPHRASE))


def card_bytes(card: ProvenStatement, rotations: tuple[ProvenStatement, ...] = ()) -> bytes:
    """A card as the file that a borough sends in."""
    return card_file(CardFile(card.statement, card.proof, rotations))


class Office:
    """The body."""

    def __init__(self, path: Path, now_ms: Callable[[], int], threshold: int = 2) -> None:
        self._now_ms = now_ms
        self.root_holders = [holder(name) for name in ("anna-root", "ben-root", "cora-root")]
        self.targets_holders = [holder(name) for name in ("anna", "ben", "cora")]
        self.online = holder("online")
        self.out = path / "out"
        online = [self.online.file.key()]
        keys = {
            "root": [one.file.key() for one in self.root_holders],
            "targets": [one.file.key() for one in self.targets_holders],
            "snapshot": online,
            "timestamp": online,
        }
        thresholds = {"root": threshold, "targets": threshold}
        self.body: Body = make(path / "work", Settings(name="Fictitious"), keys, thresholds, self.now)

    @property
    def now(self) -> datetime:
        """The time of the test."""
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    def list(self, *cards: ProvenStatement | bytes, replace: bool = False) -> None:
        """Stage cards."""
        for card in cards:
            data = card if isinstance(card, bytes) else card_bytes(card)
            add(self.body, look_at(self.body, data, self.now), "in a test", self.now, replace=replace)

    def remove(self, area: str) -> None:
        """Stage that an area is listed no more."""
        remove(self.body, area, "in a test", self.now)

    def sign(self, *holders: Holder) -> None:
        """Sign what is staged; unless others are named, by two of the three who hold each kind of key."""
        root, targets = self.body.staged_root(), self.body.staged_targets()
        for part, usual in ((root, self.root_holders[:2]), (targets, self.targets_holders[:2])):
            if part is None:
                continue
            for one in holders or usual:
                part.sign(one.signer, append=True)
            self.body.stage(part)

    def publish(self, *, renew_only: bool = False) -> None:
        """Publish what is signed."""
        release = prepare(self.body, [self.online.signer], self.now, renew_only=renew_only)
        publish(self.body, release, self.out, self.now)

    def release(self, *cards: ProvenStatement | bytes, replace: bool = False) -> None:
        """List cards, sign and publish."""
        self.list(*cards, replace=replace)
        self.sign()
        self.publish()

    def new_online_key(self) -> None:
        """Replace the online key, sign and publish."""
        self.online = holder("online")
        change_root(self.body, self.now, "online", lambda root: replace_online_key(root, self.online.file.key()))
        self.sign()
        self.publish()

    def renew(self, part: str) -> None:
        """Stage a part anew."""
        renew(self.body, part, self.now)

    def root(self, version: int = 1) -> bytes:
        """A root file."""
        return (self.out / "metadata" / f"{version}.root.json").read_bytes()

    def files(self) -> dict[str, bytes]:
        """Everything that is served now."""
        return {
            str(path.relative_to(self.out)): path.read_bytes() for path in sorted(self.out.rglob("*")) if path.is_file()
        }

    def part(self, role: str) -> Metadata[Any]:
        """A part of what is published."""
        published = self.body.published()
        parts: dict[str, Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp] | None] = {
            "root": published.roots[-1],
            "targets": published.targets,
            "snapshot": published.snapshot,
            "timestamp": published.timestamp,
        }
        found = parts[role]
        assert found is not None
        return found


class Web:
    """A web server for the files of a body."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.url = ""
        #: Files that are served in place of those that were published; None for one that is not there.
        self.instead: dict[str, bytes | None] = {}
        self.bend: Bend | None = None
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a GET."""
        path = request.match_info["path"]
        self.asked.append(path)
        if self.bend is not None and (bent := await self.bend(path)) is not None:
            return bent
        if path in self.instead:
            data = self.instead[path]
            return web.Response(body=data) if data is not None else web.Response(status=404)
        file = self._office.out / path
        there = await asyncio.to_thread(file.is_file)
        return web.Response(body=await asyncio.to_thread(file.read_bytes)) if there else web.Response(status=404)


@asynccontextmanager
async def served(office: Office) -> AsyncIterator[Web]:
    """Serve what a body publishes, on loopback."""
    made = Web(office)
    application = web.Application()
    application.router.add_get("/{path:.+}", made.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
