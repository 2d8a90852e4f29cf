"""Signing keys pass on: peers follow by themselves, a crash is harmless, and without proof nobody follows."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exchange.crypto.keystore import Argon2Parameters, unlock_keystore
from exchange.crypto.secret import Secret
from exchange.crypto.signing import fingerprint
from exchange.node.keyring import new_keystore, open_keystore_file
from exchange.node.peering import move
from exchange.node.rotation import rotate_keys, settle_rotation
from exchange.node.services import Services
from exchange.node.trust import Standing
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, Pair, running, serving, until

LATER_MS = 60_000


async def rotated(node: Node) -> str:
    """Rotate a node's keys, a while after whatever was before; its new fingerprint."""
    node.clock.now_ms += LATER_MS
    status, document = await node.local("POST", "/v1/keys/rotate", {})
    assert status == 200, document
    return str(document["fingerprint"])


async def known(node: Node, other: Node) -> dict[str, Any]:
    return dict((await node.local("GET", f"/v1/peers/{other.origin}"))[1])


async def follows(node: Node, other: Node, identity: str) -> dict[str, Any]:
    """Wait until a node holds an identity of another."""

    async def there() -> dict[str, Any] | None:
        found = await known(node, other)
        return found if found["fingerprint"] == identity else None

    return await until(f"{node.origin} follows {other.origin}", there)


async def test_peers_follow_by_themselves_and_messages_go_both_ways(pair: Pair) -> None:
    first = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(first, "received")
    old = fingerprint(pair.hackney.services.configuration.origin, pair.hackney.services.keyring.verifiers)

    new = await rotated(pair.hackney)

    found = await follows(pair.enfield, pair.hackney, new)
    assert new != old
    assert found["trust"] == "verified"
    assert [(entry["how"], entry["fingerprint"]) for entry in found["verifications"]][-1] == ("rotation", new)
    second = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(second, "received")
    assert await pair.enfield.alarms(pair.hackney.origin) == []


async def test_whoever_sends_while_the_news_of_a_rotation_spreads_gets_its_receipt(pair: Pair) -> None:
    await rotated(pair.enfield)
    # The clock runs, since a sender that was refused waits for a while.
    pair.enfield.clock.run()

    message = await pair.hackney.send(ENFIELD)

    await pair.hackney.reached(message, "received")


async def test_a_peer_that_was_away_follows_several_rotations(tmp_path: Path, clock: Clock, lines: io.StringIO) -> None:
    async with running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney:
        async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield:
            await hackney.know(enfield)
            await enfield.know(hackney)
            configuration, keyring = enfield.services.configuration, enfield.services.keyring
        await rotated(hackney)
        newest = await rotated(hackney)
        clock.run()
        async with serving(configuration, clock, keyring) as enfield:
            found = await follows(enfield, hackney, newest)
            assert [entry["how"] for entry in found["verifications"]] == ["fingerprint", "rotation", "rotation"]
            message = await hackney.send(ENFIELD)
            await hackney.reached(message, "received")


async def test_receipts_from_before_a_rotation_are_exported_with_what_proves_them(pair: Pair) -> None:
    message = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(message, "received")
    new = await rotated(pair.enfield)
    await follows(pair.hackney, pair.enfield, new)

    for node in (pair.hackney, pair.enfield):
        _, document = await node.local("GET", f"/v1/messages/{message}/receipts")
        assert len(document["receipts"]) >= 1
        assert len(document["card"]["rotations"]) == 1


async def test_a_quarantined_peer_is_not_followed(pair: Pair) -> None:
    await pair.enfield.services.store.write(lambda tx: move(tx, pair.hackney.origin, Standing.fork))
    before = await known(pair.enfield, pair.hackney)
    await rotated(pair.hackney)
    async with pair.hackney.http.get(f"{pair.hackney.url}/v1/card") as answer:
        card = await answer.json()

    status, document = await pair.enfield.local("POST", "/v1/peers", {"card": card})

    assert status == 201, document
    after = await known(pair.enfield, pair.hackney)
    assert (after["trust"], after["fingerprint"]) == ("quarantined", before["fingerprint"])
    assert after["candidate"] is not None


async def test_another_identity_whose_rotations_do_not_lead_to_it_blocks_the_peer(
    pair: Pair, tmp_path: Path, clock: Clock
) -> None:
    await rotated(pair.hackney)
    async with pair.hackney.http.get(f"{pair.hackney.url}/v1/card") as answer:
        genuine = await answer.json()
    async with running(tmp_path / "false", HACKNEY, pair.hackney.origin, clock) as impostor:
        async with impostor.http.get(f"{impostor.url}/v1/card") as answer:
            false = await answer.json()

        status, _ = await pair.enfield.local("POST", "/v1/peers", {"card": false | {"rotations": genuine["rotations"]}})

    assert status == 201
    found = await known(pair.enfield, pair.hackney)
    assert found["trust"] == "blocked"
    (alarm,) = await pair.enfield.alarms(pair.hackney.origin)
    assert alarm["kind"] == "identity-changed"


# What a crash leaves behind.


@dataclasses.dataclass
class Kept:
    """A keystore file, and whoever opens it anew."""

    path: Path
    passphrase: Secret

    def open(self, services: Services) -> Services:
        keyring = open_keystore_file(self.path, self.passphrase, services.configuration.origin)
        return dataclasses.replace(services, keyring=keyring)


@pytest.fixture
def kept(tmp_path: Path, cheap_keystore: bytes) -> Kept:
    path = tmp_path / "keystore.json"
    path.write_bytes(cheap_keystore)
    return Kept(path, Secret(b"plainly fictitious"))


@pytest.fixture(scope="module")
def cheap_keystore() -> bytes:
    return new_keystore(Secret(b"plainly fictitious"), Argon2Parameters(1, 8192))


def names(services: Services) -> tuple[str, ...]:
    return tuple(key.text() for key in services.keyring.verifiers)


async def test_a_rotation_that_never_came_to_the_log_is_dropped_at_the_next_start(
    services: Services, kept: Kept
) -> None:
    running_node = kept.open(services)
    before = names(running_node)
    running_node.keyring.begin_rotation()

    started = kept.open(services)
    assert started.keyring.following is not None
    await settle_rotation(started)

    assert names(started) == names(kept.open(services)) == before
    assert kept.open(services).keyring.following is None


async def test_a_rotation_that_is_in_the_log_is_finished_at_the_next_start(services: Services, kept: Kept) -> None:
    running_node = kept.open(services)
    before = names(running_node)
    # The disk is full when the old keys are to be wiped.
    rewrite, writes = running_node.keyring.rewrite, []
    assert rewrite is not None

    def full(entries: Mapping[str, bytes]) -> None:
        writes.append(entries)
        if len(writes) > 1:
            raise OSError("no space left on device")
        rewrite(entries)

    running_node.keyring.rewrite = full
    with pytest.raises(OSError, match="no space"):
        await rotate_keys(running_node, None)

    started = kept.open(services)
    assert names(started) == before
    await settle_rotation(started)

    assert names(started) == names(kept.open(services)) == names(running_node) != before
    assert kept.open(services).keyring.following is None


async def test_the_old_keys_are_not_in_the_keystore_any_more(services: Services, kept: Kept) -> None:
    running_node = kept.open(services)
    old = [seed.reveal() for seed in running_node.keyring.signing.seeds()]

    await rotate_keys(running_node, None)

    entries = b"".join(unlock_keystore(kept.path.read_bytes(), kept.passphrase).values())
    assert all(seed not in entries for seed in old)
    assert all(seed.reveal() in entries for seed in running_node.keyring.signing.seeds())
