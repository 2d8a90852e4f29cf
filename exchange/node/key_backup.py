"""Back up a node's keys, and restore them to another directory.

* A backup holds no key that opens a sealing key, and is good until the signing keys change.
* Nothing that is there is written over.
* A restored keystore begins a chain of its own: the sealing keys of before are gone with the keystore of before.
* It knows how much the node had signed when it was backed up: on an older store the node does not start by itself,
  since its peers would take it for a thief.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

from exchange.crypto.backup import About, Backup
from exchange.crypto.errors import CryptoError
from exchange.crypto.keystore import Argon2Parameters, KeystoreKey, open_with
from exchange.crypto.names import Origin
from exchange.crypto.secret import Secret
from exchange.crypto.signing import fingerprint
from exchange.node.cards import parse_card_file, stored_card
from exchange.node.config import Configuration, load_configuration
from exchange.node.errors import BackupOutdated, NodeError, RequestInvalid
from exchange.node.keyring import entries_to_back_up, fingerprint_of, restored_keystore
from exchange.schema.card_file import card_keys
from exchange.schema.errors import SchemaError
from exchange.store.errors import NotFound
from exchange.store.keys import proven_card
from exchange.store.log import log_size
from exchange.store.opening import SQLITE, open_store, store_exists
from exchange.store.trust import rotations_of

_CONFIGURATION: Final = "exchange.toml"


def back_up(
    configuration: Configuration, key: KeystoreKey, now: datetime, signed: int | None
) -> tuple[About, dict[str, bytes]]:
    """What a backup says of itself, and what it holds; `signed` is how many statements the running node has signed.

    Raises:
        OSError: the keystore cannot be read.
        KeystoreError: it does not open, or a key is missing.
    """
    entries = open_with(configuration.keystore_path.read_bytes(), key)
    about = About(
        origin=configuration.origin,
        fingerprint=fingerprint_of(entries, configuration.origin),
        made_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        log_size=_signed_for_card(configuration) if signed is None else signed,
    )
    return about, entries_to_back_up(entries)


def _signed_for_card(configuration: Configuration) -> int:
    """How many statements the node had signed when it signed its latest card."""
    try:
        return parse_card_file(configuration.card_path.read_bytes()).checkpoint.size
    except (OSError, NodeError, CryptoError, SchemaError):
        return 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys are restored to, and what lies there already."""

    keystore: Path
    #: Its URL.
    store: str
    configuration: Configuration | None
    #: How many statements the store holds; None where there is no store.
    store_size: int | None

    def state(self, about: About) -> str:
        """How the store stands to the backup: `none`, `older`, or `current` where it may be the one that ran last."""
        if self.store_size is None:
            return "none"
        return "older" if self.store_size < about.log_size else "current"


def place_for(directory: Path, backup: Backup) -> Place:
    """Look at a directory that keys are to be restored to.

    Raises:
        RequestInvalid: there is a keystore already, or the directory is another node's.
        BackupOutdated: the node in the store has changed its signing keys since.
        ConfigurationInvalid: the configuration there cannot be used.
        StoreError: the store there cannot be opened.
    """
    path, origin = directory / _CONFIGURATION, backup.about.origin
    configuration = load_configuration(path) if path.exists() else None
    if configuration is not None and configuration.origin != origin:
        raise RequestInvalid(f"{path} is of {configuration.origin}, and the backup of {origin}; nothing was changed")
    keystore = configuration.keystore_path if configuration else directory.absolute() / "keystore.json"
    store = configuration.store_url if configuration else f"{SQLITE}{directory.absolute() / 'exchange.db'}"
    if os.path.lexists(keystore):
        raise RequestInvalid(
            f"{keystore} is there already; nothing was changed",
            hint="If it is of no use any more, move it away first.",
        )
    size = asyncio.run(_look_into(store, backup.about))
    return Place(keystore, store, configuration, size)


async def _look_into(url: str, about: About) -> int | None:
    if not await store_exists(url):
        return None
    async with AsyncExitStack() as stack:
        store = await open_store(url, _sign_nothing, lambda: time.time_ns() // 1_000_000)
        stack.push_async_callback(store.close)
        rotations = await store.read(lambda tx: rotations_of(tx, about.origin))
        size = await store.read(log_size)
        try:
            card = stored_card((await store.read(proven_card)).statement)
        except NotFound:
            return size
    if card.origin != about.origin:
        raise RequestInvalid(f"the store is of {card.origin}, and the backup of {about.origin}; nothing was changed")
    in_force = rotations[-1].new_fingerprint if rotations else fingerprint(Origin(card.origin), card_keys(card))
    if in_force != about.fingerprint:
        raise BackupOutdated(
            f"the node's signing keys were changed after this backup was made, on {about.made_at[:10]}"
        )
    return size


def _sign_nothing(_size: int, _root: bytes, _timestamp_s: int) -> NoReturn:
    raise AssertionError("to look into a store signs nothing")


def restore(
    place: Place, backup: Backup, kept: Mapping[str, bytes], passphrase: Secret, cost: Argon2Parameters | None = None
) -> None:
    """Write the keystore of what a backup held.

    Raises:
        KeystoreCorrupt: it lacks a key, or they are not those that it speaks of.
        OSError: it cannot be written; nothing was changed.
    """
    data = restored_keystore(kept, backup.about.log_size, passphrase, cost)
    place.keystore.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(place.keystore, data)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, durably, for its owner alone.

    Raises:
        OSError: it is there, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
