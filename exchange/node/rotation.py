"""The node's own signing keys pass on to new ones: by a statement in the log whose checkpoint both sign.

The order makes every crash harmless: the new keys are in the keystore before the statement is in the log, and the old
ones are wiped after it. What a crash left is finished, or dropped, at the next start.
"""

import asyncio
from typing import Final

from exchange import crash_points
from exchange.crypto.signing import fingerprint
from exchange.node.delivery import Dispatcher
from exchange.node.epochs import renew_card
from exchange.node.errors import RequestInvalid
from exchange.node.services import Services
from exchange.schema.identity import ROTATION, Rotation
from exchange.schema.wire import VERSION, encode_wire
from exchange.store.transaction import LogEntry, Transaction
from exchange.store.trust import RotationRow, add_rotation, rotations_of

#: One at a time.
_lock: Final = asyncio.Lock()


async def rotate_keys(services: Services, dispatcher: Dispatcher | None) -> None:
    """Pass on to new signing keys, and tell every peer.

    Raises:
        RequestInvalid: another rotation is under way.
        KeystoreError: the keystore could not be rewritten.
        OSError: so too.
    """
    if _lock.locked():
        raise RequestInvalid("the keys are being rotated already")
    async with _lock:
        keyring, origin = services.keyring, services.configuration.origin
        old = keyring.verifiers
        new = (await asyncio.to_thread(keyring.begin_rotation)).verifiers(origin)
        crash_points.reached("rotation.begun")
        now_ms = services.now_ms()
        body = encode_wire(
            Rotation(
                version=VERSION,
                origin=origin,
                old=tuple(key.text() for key in old),
                new=tuple(key.text() for key in new),
                at=services.now(),
            )
        )

        async def operation(tx: Transaction) -> LogEntry:
            entry = await tx.sign(ROTATION, body)
            row = RotationRow(
                old_fingerprint=fingerprint(origin, old),
                origin=origin,
                new_fingerprint=fingerprint(origin, new),
                statement=entry.statement,
                proof=None,
                position=entry.position,
                at_ms=now_ms,
            )
            await add_rotation(tx, row)
            return entry

        try:
            await services.store.write(operation)
        except BaseException:
            # Whether it was stored is for the next start to find out, where the store cannot say so now.
            await settle_rotation(services)
            raise
        crash_points.reached("rotation.logged")
        await asyncio.to_thread(keyring.finish_rotation)
        crash_points.reached("rotation.finished")
        services.log.info("signing keys rotated", origin=origin)
        await renew_card(services, dispatcher)


async def settle_rotation(services: Services) -> None:
    """Finish a rotation that came to stand in the log, and drop one that did not."""
    keyring, origin = services.keyring, services.configuration.origin
    if keyring.following is None:
        return
    following = fingerprint(origin, keyring.following.verifiers(origin))
    rows = await services.store.read(lambda tx: rotations_of(tx, origin))
    if any(row.new_fingerprint == following for row in rows):
        await asyncio.to_thread(keyring.finish_rotation)
        services.log.info("signing keys rotated", origin=origin)
    else:
        await asyncio.to_thread(keyring.drop_rotation)
        services.log.warning("a rotation of the signing keys was not finished; the old ones stay", origin=origin)
