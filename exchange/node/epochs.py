"""The node's card and sealing-key epochs over time: sign a new card where something changed, and tell the peers.

* There is always a sealing key in force, whatever the clock does.
* A key opens for as long as any card has promised, even where the configuration has changed since.
* A key whose time is over is destroyed: its row is overwritten and deleted, what holds older copies of the page is
  emptied, and the keystore lets go of the key that wrapped it. What a fault interrupts, the next turn completes.
"""

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exchange import crash_points
from exchange.crypto.errors import KeystoreError
from exchange.node.cards import announced_agencies, own_card, own_card_file, sign_card, verify_card
from exchange.node.delivery import Dispatcher
from exchange.node.durable import replace_file
from exchange.node.services import Services, milliseconds
from exchange.schema.card_file import card_file
from exchange.store.errors import NotFound, StoreUnavailable
from exchange.store.keys import SealingKeyRow, add_sealing_key, all_sealing_keys, destroy_sealing_key
from exchange.store.outbox import enqueue_card
from exchange.store.peers import all_peers
from exchange.store.transaction import LogEntry, Transaction

_DAY_MS: Final = 86_400_000
_CHECK_EVERY_S: Final = 600


@dataclass(frozen=True, slots=True)
class Turn:
    """What is due: whether to make a key, and which to destroy."""

    make: bool
    destroy: tuple[SealingKeyRow, ...]


def plan_turn(rows: Sequence[SealingKeyRow], now_ms: int, lifetime_ms: int) -> Turn:
    """What is due at a time. A key is made when the youngest in force has passed half of its life.

    A clock that went back leaves keys that are not in force yet: they do not count.
    """
    in_force = [row for row in rows if row.not_before_ms <= now_ms < row.not_after_ms]
    youngest = max(in_force, key=lambda row: (row.not_before_ms, row.epoch), default=None)
    make = (
        youngest is None or min(youngest.not_after_ms, youngest.not_before_ms + lifetime_ms) - now_ms < lifetime_ms / 2
    )
    return Turn(make, tuple(row for row in rows if row.opens_until_ms <= now_ms))


async def turn_epoch(services: Services) -> bool:
    """Make the sealing key that is due and destroy those whose time is over; whether there was any."""
    keys = services.configuration.tables.keys
    lifetime_ms = round(keys.sealing_lifetime_days * _DAY_MS)
    grace_ms = round(keys.sealing_grace_days * _DAY_MS)
    turned = False
    while True:
        keyring, now_ms = services.keyring, services.now_ms()
        stored = await services.store.read(all_sealing_keys)
        keyring.load_sealing_keys(stored)
        turn = plan_turn(keyring.epochs, now_ms, lifetime_ms)
        # Out of reach are those that an old copy of the store has brought back.
        dead = [*turn.destroy, *(row for row in stored if row.epoch < keyring.chain.epoch)]
        fresh = keyring.new_sealing_key(now_ms, lifetime_ms, grace_ms) if turn.make else None
        if fresh is None and not dead:
            break
        crash_points.reached("epoch.before-store")
        turned |= await services.store.write(functools.partial(_turn, stored=stored, fresh=fresh, dead=dead))
        crash_points.reached("epoch.stored")
    await _destroy_for_good(services)
    return turned


async def _turn(
    tx: Transaction, stored: list[SealingKeyRow], fresh: SealingKeyRow | None, dead: list[SealingKeyRow]
) -> bool:
    """Do what is due; False where another replica has changed the keys since that was planned."""
    if await all_sealing_keys(tx) != stored:
        return False
    if fresh is not None:
        await add_sealing_key(tx, fresh)
    for row in dead:
        await destroy_sealing_key(tx, row)
    return True


async def _destroy_for_good(services: Services) -> None:
    """Leave nothing that opens a key whose row is gone. A fault must not stop the node: the next turn tries again."""
    keyring = services.keyring
    oldest = min(row.epoch for row in keyring.epochs)
    if keyring.chain.epoch == oldest:
        return
    try:
        crash_points.reached("epoch.before-scrub")
        await services.store.scrub()
        crash_points.reached("epoch.scrubbed")
        await asyncio.to_thread(keyring.destroy_before, oldest)
    except (StoreUnavailable, KeystoreError, OSError) as error:
        services.log.error("sealing keys are not destroyed yet", error=type(error).__name__, reason=str(error))
    else:
        crash_points.reached("epoch.destroyed")
        services.log.info("sealing keys destroyed")


async def load_sealing_keys(services: Services) -> None:
    """Take the stored sealing keys in hand."""
    services.keyring.load_sealing_keys(await services.store.read(all_sealing_keys))


async def renew_card(services: Services, dispatcher: Dispatcher | None) -> None:
    """Sign a card of the node as it now is, keep a copy beside the configuration, and queue it for every peer."""
    lanes: list[str] = []

    async def operation(tx: Transaction) -> LogEntry:
        entry = await sign_card(tx, services)
        now_ms = services.now_ms()
        for row in await all_peers(tx):
            if row.state == "verified":
                lane = f"peer:{row.origin}"
                await enqueue_card(tx, lane, entry.position, now_ms, now_ms + 30 * _DAY_MS)
                lanes.append(lane)
        return entry

    await services.store.write(operation)
    crash_points.reached("card.signed")
    await write_card_file(services)
    if dispatcher is not None:
        for lane in lanes:
            dispatcher.wake(lane)


async def write_card_file(services: Services) -> None:
    """Keep a copy of the card for an admin to hand over."""
    data = card_file(await own_card_file(services))
    await asyncio.to_thread(replace_file, services.configuration.card_path, data)


async def card_is_current(services: Services) -> bool:
    """Whether the latest card still says what is so, and for long enough."""
    try:
        entry = await own_card(services)
    except NotFound:
        return False
    card = verify_card(entry.statement, entry.proof, services.checkpoints).card
    node, certificates = services.configuration.tables.node, services.certificates
    now_ms = services.now_ms()
    stays_ms = milliseconds(card.expires_at) - now_ms
    return (
        stays_ms > 30 * _DAY_MS
        and (card.area, card.name, card.url) == (node.area, node.name, node.url.rstrip("/"))
        and card.signing_keys == tuple(key.text() for key in services.keyring.verifiers)
        and card.sealing_keys == services.keyring.card_sealing_keys(now_ms)
        and card.tls_spki_sha256 == certificates.pins
        and card.tls_client_certificates == (certificates.client.certificate,)
        and card.agencies == await services.store.read(announced_agencies)
    )


async def keep_current(
    services: Services, dispatcher: Dispatcher, stop: asyncio.Event, every_s: float | None = None
) -> None:
    """Turn epochs and renew the card until `stop`."""
    lifetime_s = services.configuration.tables.keys.sealing_lifetime_days * _DAY_MS / 1000
    every_s = every_s or min(_CHECK_EVERY_S, lifetime_s / 10)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await stop.wait()
                return
        try:
            if await turn_epoch(services) or not await card_is_current(services):
                await renew_card(services, dispatcher)
            elif services.store.shared:
                await write_card_file(services)  # another replica may have renewed it
        except (StoreUnavailable, OSError) as error:
            # A full disk must not stop the node; the next turn tries again.
            services.log.error("the card was not renewed", error=type(error).__name__)
