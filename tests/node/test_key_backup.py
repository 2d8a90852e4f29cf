"""What a backup of keys holds and what comes of it: what a node cannot do without, and nothing that opens a seal."""

from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exchange.crypto.chain import WrappingChain
from exchange.crypto.errors import KeystoreCorrupt
from exchange.crypto.keystore import Argon2Parameters, keystore_key, lock_keystore, unlock_keystore
from exchange.crypto.names import Origin
from exchange.crypto.secret import Secret
from exchange.node.app import open_services, prepare
from exchange.node.config import load_configuration
from exchange.node.epochs import turn_epoch
from exchange.node.errors import StoreOlder
from exchange.node.key_backup import back_up
from exchange.node.keyring import (
    Keyring,
    entries_to_back_up,
    fingerprint_of,
    new_keystore,
    open_keystore_file,
    restored_keystore,
)
from tests.node.pair import HACKNEY, Clock, configure

ORIGIN = Origin("exchange.hackney.example")
CHEAP = Argon2Parameters(opslimit=1, memlimit_bytes=8192)
WORDS = Secret(b"correct horse battery staple")


def made() -> dict[str, bytes]:
    return unlock_keystore(new_keystore(WORDS, CHEAP), WORDS)


def test_a_backup_holds_signing_keys_and_store_key_and_of_the_chain_its_place_alone() -> None:
    entries = made() | {"signing/next": bytes(64)}
    entries["sealing-chain"] = WrappingChain.parse(entries["sealing-chain"]).advance(7).encode()
    kept = entries_to_back_up(entries)
    assert kept.keys() == {"signing/ed25519", "signing/ml-dsa-44", "store", "sealing-epoch"}
    assert kept["sealing-epoch"] == (7).to_bytes(8, "big")
    assert entries["sealing-chain"][8:] not in b"".join(kept.values())
    assert fingerprint_of(kept, ORIGIN) == fingerprint_of(entries, ORIGIN)


@pytest.mark.parametrize("lacking", ["signing/ed25519", "signing/ml-dsa-44", "store"])
def test_what_lacks_a_key_is_neither_backed_up_nor_restored(lacking: str) -> None:
    entries = made()
    kept = entries_to_back_up(entries)
    del entries[lacking], kept[lacking]
    with pytest.raises(KeystoreCorrupt):
        entries_to_back_up(entries)
    with pytest.raises(KeystoreCorrupt):
        restored_keystore(kept, 0, WORDS, CHEAP)


def test_a_restored_chain_shares_no_epoch_with_the_one_before_however_long_that_went_on() -> None:
    entries = made()
    before = WrappingChain.parse(entries["sealing-chain"])
    found = unlock_keystore(restored_keystore(entries_to_back_up(entries), 0, WORDS, CHEAP), WORDS)
    after = WrappingChain.parse(found["sealing-chain"])
    # Two hundred years, with four keys a day, made after the backup.
    assert after.epoch > before.epoch + 4 * 365 * 60
    assert after.wrapping_key(after.epoch) != before.wrapping_key(after.epoch)


async def signed(directory: Path, keyring: Keyring, clock: Clock, *, old_store: bool = False) -> int:
    """Start a node on a store and stop it; how many sealing keys it holds."""
    async with AsyncExitStack() as stack:
        opened = await open_services(stack, load_configuration(directory / "exchange.toml"), keyring)
        services = replace(opened, now_ms=clock)
        await prepare(services, old_store=old_store)
        await turn_epoch(services)
        return len(services.keyring.sealing)


async def test_restored_keys_go_on_with_the_store_and_destroy_the_sealing_keys_of_before(tmp_path: Path) -> None:
    clock, directory = Clock(), tmp_path / "hackney"
    configuration = configure(directory, HACKNEY, ORIGIN)
    path = configuration.keystore_path
    path.write_bytes(new_keystore(WORDS, CHEAP))
    first = open_keystore_file(path, WORDS, ORIGIN)
    await signed(directory, first, clock)
    about, kept = back_up(
        configuration, keystore_key(path.read_bytes(), WORDS), datetime(2026, 11, 24, tzinfo=UTC), None
    )
    assert about.log_size > 0, "the copy of the card says how much was signed at least"
    path.write_bytes(restored_keystore(kept, about.log_size, WORDS, CHEAP))
    path.chmod(0o600)
    second = open_keystore_file(path, WORDS, ORIGIN)
    assert second.least_log_size == about.log_size
    assert await signed(directory, second, clock) == 1
    assert second.verifiers == first.verifiers
    assert second.store_key == first.store_key
    assert not second.sealing.keys() & first.sealing.keys()
    assert open_keystore_file(path, WORDS, ORIGIN).least_log_size == 0, "it has accepted its store"


async def test_restored_keys_refuse_an_older_store_until_somebody_says_so(tmp_path: Path) -> None:
    clock, directory = Clock(), tmp_path / "hackney"
    path = configure(directory, HACKNEY, ORIGIN).keystore_path
    path.write_bytes(restored_keystore(entries_to_back_up(made()), 41, WORDS, CHEAP))
    path.chmod(0o600)
    for _ in range(2):
        with pytest.raises(StoreOlder, match="0 statements, and the node had signed 41"):
            await signed(directory, open_keystore_file(path, WORDS, ORIGIN), clock)
    assert await signed(directory, open_keystore_file(path, WORDS, ORIGIN), clock, old_store=True) == 1
    assert await signed(directory, open_keystore_file(path, WORDS, ORIGIN), clock) == 1


def test_a_keystore_that_was_never_restored_asks_nothing_of_its_store(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    path.write_bytes(lock_keystore(made(), WORDS, CHEAP))
    assert open_keystore_file(path, WORDS, ORIGIN).least_log_size == 0
