"""A node in several processes: what each must know of what the others did, and how it hears of it.

* Every batch of a process is told to the others by the database (NOTIFY). A look every two seconds does without.
* Whoever finds in the store that another process passed the node's signing keys on signs nothing more, and stops.
* A process that starts gives back what the one before it in its directory had in hand. The lock file names that one.
"""

import asyncio
import contextlib
import os
import platform
import time
from typing import IO, Final, cast

from exchange.crypto.signing import SigningKeys, fingerprint
from exchange.node.delivery import Dispatcher
from exchange.node.epochs import load_sealing_keys
from exchange.node.errors import KeysSuperseded
from exchange.node.revocation import published_revocation
from exchange.node.services import Services
from exchange.store.errors import StoreUnavailable
from exchange.store.replicas import arrive, be_seen, leave
from exchange.store.transaction import SharedStore, Transaction
from exchange.store.trust import rotation_from

_LOOK_EVERY_S: Final = 2.0
#: However much the others write, a process does not look all the time.
_LOOK_AT_MOST_EVERY_S: Final = 0.05
_FORGET_AFTER_MS: Final = 86_400_000


class InForce:
    """Whether the signing keys that a process holds are still the node's."""

    def __init__(self, services: Services) -> None:
        self._keyring = services.keyring
        self._of: SigningKeys | None = None
        self._fingerprint = ""

    async def check(self, tx: Transaction) -> None:
        """Check it in the store.

        Raises:
            KeysSuperseded: another process has passed them on.
        """
        keyring = self._keyring
        if self._of is not keyring.signing:
            self._of = keyring.signing
            self._fingerprint = fingerprint(keyring.origin, keyring.verifiers)
        row = await rotation_from(tx, self._fingerprint)
        if row is None:
            return
        following = keyring.following
        if following is None or fingerprint(keyring.origin, following.verifiers(keyring.origin)) != row.new_fingerprint:
            raise KeysSuperseded("another replica has rotated the node's signing keys, and this one has the old ones")


async def join(services: Services, lock: IO[str]) -> None:
    """Begin as one of the processes on the store; `lock` is the lock file of this one's directory.

    Raises:
        KeysSuperseded: the keystore holds signing keys of before.
    """
    store, keyring = cast("SharedStore", services.store), services.keyring
    in_force = InForce(services)
    await store.read(in_force.check)
    store.may_sign = in_force.check

    def went_back(size: int) -> None:
        services.log.error("the database lost what it confirmed", reason=f"checkpoint {size} is not there any more")
        keyring.require_store(size)

    store.went_back = went_back
    former = os.pread(lock.fileno(), 64, 0).decode("ascii", "replace").strip()
    now_ms, name = services.now_ms(), f"{platform.node()}:{services.configuration.tables.listen.address}"
    ended = await store.write(lambda tx: arrive(tx, store.replica, name, now_ms, former))
    if ended:
        services.log.info("took back what was in hand when the node was killed", item_count=ended)
    os.ftruncate(lock.fileno(), 0)
    os.pwrite(lock.fileno(), store.replica.encode(), 0)


async def part(services: Services) -> None:
    """End, and leave to the others what was not finished."""
    with contextlib.suppress(StoreUnavailable):
        await services.store.write(lambda tx: leave(tx, services.store.replica))


class Replicas:
    """Follows what the other processes do."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._in_force = InForce(services)
        self._told = asyncio.Event()

    async def run(self, stop: asyncio.Event, every_s: float = _LOOK_EVERY_S) -> None:
        """Follow until `stop`.

        Raises:
            KeysSuperseded: this process has the signing keys of before.
        """
        if not self._services.store.shared:
            return
        cast("SharedStore", self._services.store).changed = self._told.set
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow()), group.create_task(self._look_again(every_s))]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _follow(self) -> None:
        """Look at once where another process has written."""
        while True:
            await self._told.wait()
            self._told.clear()
            began_s = time.monotonic()
            try:
                await self._see_changes()
            except StoreUnavailable as error:
                self._services.log.error("store unavailable", error=str(error))
            # With much in the outbox a look takes longer; it must not be most of what the database does.
            await asyncio.sleep(max(_LOOK_AT_MOST_EVERY_S, 4 * (time.monotonic() - began_s)))

    async def _look_again(self, every_s: float) -> None:
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                self._services.log.error("store unavailable", error=str(error))
            await asyncio.sleep(every_s)

    async def _see_changes(self) -> None:
        await self._dispatcher.look()
        self._services.changes.notify()

    async def look(self) -> None:
        """Take up whatever the others did, and be seen.

        Raises:
            KeysSuperseded: this process has the signing keys of before.
            StoreUnavailable: the store cannot be read or written.
        """
        services = self._services
        await services.store.read(self._in_force.check)
        await load_sealing_keys(services)
        await published_revocation(services)
        await self._see_changes()
        now_ms = services.now_ms()
        await services.store.write(lambda tx: be_seen(tx, services.store.replica, now_ms, now_ms - _FORGET_AFTER_MS))
