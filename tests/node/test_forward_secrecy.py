"""Who records everything and later has the whole disk and the passphrase opens nothing of a past epoch."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from exchange.crypto.errors import ArchiveRefused
from exchange.crypto.keystore import Argon2Parameters, keystore_key, unlock_keystore
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.node.app import unlock
from exchange.node.archive_file import ArchiveFile
from exchange.node.config import load_configuration
from exchange.node.epochs import renew_card, turn_epoch
from exchange.node.keyring import entries_to_back_up, new_keystore, restored_keystore
from exchange.node.node_backup import Plan, create_backup, restore_backup
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, configure, reserved_port, serving
from tests.node.thief import Disk, Recording, Thief

DAY_MS = 86_400_000
CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
PASSPHRASE = b"correct horse battery staple"
ORIGINS = ("exchange.hackney.example", "exchange.enfield.example")


@dataclass
class Wire:
    """A recorder in front of a node's listener."""

    port: int
    streams: list[bytearray]


@asynccontextmanager
async def recorded(target_port: int) -> AsyncIterator[Wire]:
    """Pass connections on to a port, and keep every byte."""
    streams: list[bytearray] = []
    passing: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        streams.append(kept)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                kept += data
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target_port)
        for task in (
            asyncio.create_task(pass_on(reader, target_writer)),
            asyncio.create_task(pass_on(target_reader, writer)),
        ):
            passing.add(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield Wire(server.sockets[0].getsockname()[1], streams)
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


@asynccontextmanager
async def borough(directory: Path, area: str, origin: str, clock: Clock) -> AsyncIterator[tuple[Node, Wire]]:
    """A node whose keys are in a keystore on its disk, behind a recorder."""
    with reserved_port() as port, reserved_port() as local_port:
        async with recorded(port) as wire:
            configure(directory, area, origin, (port, local_port))
            path = directory / "exchange.toml"
            text = path.read_text().replace(f'url = "http://127.0.0.1:{port}"', f'url = "http://127.0.0.1:{wire.port}"')
            path.write_text(text + '[keystore]\npassphrase_file = "../passphrase"\n')
            (directory.parent / "passphrase").write_bytes(PASSPHRASE)
            (directory.parent / "passphrase").chmod(0o600)
            (directory / "keystore.json").write_bytes(new_keystore(Secret(PASSPHRASE), CHEAP))
            configuration = load_configuration(path)
            async with serving(configuration, clock, unlock(configuration)) as node:
                yield node, wire


@dataclass
class Story:
    """What was recorded, and each borough's disk before and after its keys of that time were destroyed."""

    recording: Recording
    before: dict[str, Disk]
    after: dict[str, Disk]
    seeds: list[bytes]
    #: A backup of each whole node, made before, and the key that opens them.
    backups: dict[str, Path]
    admin: SealingPrivateKey


@pytest.fixture
async def story(tmp_path: Path) -> Story:
    """A handover is sent, received and acknowledged; then the epoch passes."""
    clock, recording = Clock(), Recording()
    async with (
        borough(tmp_path / "hackney", HACKNEY, ORIGINS[0], clock) as (hackney, to_hackney),
        borough(tmp_path / "enfield", ENFIELD, ORIGINS[1], clock) as (enfield, to_enfield),
    ):
        await hackney.know(enfield)
        await enfield.know(hackney)
        sent = await hackney.send(ENFIELD)
        await hackney.reached(sent, "received")
        for stream in [*to_hackney.streams, *to_enfield.streams]:
            recording.take(bytes(stream))
        nodes = {ORIGINS[0]: hackney, ORIGINS[1]: enfield}
        before = {origin: Disk.image(node.directory) for origin, node in nodes.items()}
        admin, backups = SealingPrivateKey.generate(), {}
        for origin, node in nodes.items():
            backups[origin] = tmp_path / f"{origin}.backup"
            configuration = node.services.configuration
            key = keystore_key(configuration.keystore_path.read_bytes(), Secret(PASSPHRASE))
            await create_backup(configuration, key, [admin.public], backups[origin], node.services.now())
        seeds = [key.seed().reveal() for node in nodes.values() for key in node.services.keyring.sealing.values()]
        # Half a life at a time, as the nodes do by themselves, until the grace of the first key has passed.
        for _ in range(7):
            clock.now_ms += 4 * DAY_MS
            for node in nodes.values():
                if await turn_epoch(node.services):
                    await renew_card(node.services, None)
        after = {origin: Disk.image(node.directory) for origin, node in nodes.items()}
    return Story(recording, before, after, seeds, backups, admin)


def found(story: Story, disks: dict[str, Disk]) -> list[bytes]:
    thief = Thief(story.recording, ORIGINS)
    return [text for disk in disks.values() for text in thief.search(disk, PASSPHRASE)]


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_after_the_epoch_nothing_that_was_recorded_opens_with_the_whole_disk_and_the_passphrase(
    story: Story,
) -> None:
    manifests = [text for text in found(story, story.before) if b"exchange/1 8 manifest" in text]
    assert manifests, "before the keys are destroyed, the same search opens the handover"
    assert {*story.after} == {*ORIGINS}
    assert found(story, story.after) == []


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_an_old_copy_of_the_store_alone_does_not_bring_the_keys_back(story: Story) -> None:
    """A thief who has a backup of the database, and the keystore and passphrase of today."""
    thief = Thief(story.recording, ORIGINS)
    for origin in ORIGINS:
        old, new = story.before[origin].files, story.after[origin].files
        both = Disk({"keystore.json": old["keystore.json"], **_database(old)})
        assert list(thief.seeds(both, PASSPHRASE)), "with the keystore of that time it does"
        assert not list(thief.seeds(Disk({"keystore.json": new["keystore.json"], **_database(old)}), PASSPHRASE))
        assert not list(thief.seeds(Disk({"keystore.json": old["keystore.json"], **_database(new)}), PASSPHRASE))


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_backup_of_the_keys_opens_nothing_even_with_the_store_of_its_time(story: Story) -> None:
    """A thief who has a backup of the keys and its passphrase, the database of that time, and all traffic."""
    thief = Thief(story.recording, ORIGINS)
    for origin in ORIGINS:
        files = story.before[origin].files
        kept = entries_to_back_up(unlock_keystore(files["keystore.json"], Secret(PASSPHRASE)))
        held = {f"held-{number}": value for number, value in enumerate(kept.values())}
        restored = restored_keystore(kept, 0, Secret(PASSPHRASE), CHEAP)
        whole = Disk({"keystore.json": files["keystore.json"], **_database(files)})
        assert list(thief.seeds(whole, PASSPHRASE)), "with the keystore itself it does"
        assert not list(thief.seeds(Disk({"keystore.json": restored, **held, **_database(files)}), PASSPHRASE))


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_backup_of_the_node_opens_no_recording_even_to_who_has_its_key(story: Story, tmp_path: Path) -> None:
    """A thief who has the backup, the admin's key and passphrase, and all traffic from before it was made."""
    for origin, path in story.backups.items():
        records = ArchiveFile(path)
        content = b"".join(msgspec.msgpack.encode(record) for record in records.records(story.admin))
        records.close()
        archive = ArchiveFile(path)
        config, _ = await restore_backup(archive, story.admin, Plan(tmp_path / origin, Secret(PASSPHRASE), cost=CHEAP))
        archive.close()
        disk = Disk({**Disk.image(config.parent).files, "backup": content})
        assert b"exchange/1 8 manifest" in content, "it is the content of the store"
        assert Thief(story.recording, ORIGINS).search(disk, PASSPHRASE) == []
        assert all(seed not in content for seed in story.seeds)


@pytest.mark.sqlite
async def test_a_backup_that_is_stolen_says_nothing_without_its_key(story: Story) -> None:
    for path in story.backups.values():
        data = path.read_bytes()
        for known in (b"manifest", b"exchange/1 ", b"E09000012", b"-----BEGIN", b"passphrase", *story.seeds):
            assert known not in data
        archive = ArchiveFile(path)
        with pytest.raises(ArchiveRefused):
            next(archive.records(SealingPrivateKey.generate()))
        archive.close()


def _database(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith("exchange.db")}


async def test_the_search_finds_a_key_that_lies_in_any_file(story: Story) -> None:
    thief = Thief(story.recording, ORIGINS)
    for seed in story.seeds:
        for lies in (os.urandom(500) + seed + os.urandom(500), seed, base64.b64encode(seed)):
            assert thief.search(Disk({"swap": lies}), b""), "as it is, among other bytes, and in base64"
    assert thief.search(Disk({"swap": os.urandom(1000)}), b"") == []


async def test_the_recording_holds_the_traffic_of_both_directions(story: Story) -> None:
    assert len(story.recording.envelopes) >= len(story.recording.replies) >= 2, "one each way at least"
    assert len({bytes(envelope[20:36]) for envelope in story.recording.envelopes}) == 2
