"""The node's card and sealing-key epochs over time: sign a new card where something changed, and tell the peers."""

import asyncio
import contextlib
import os
from typing import Final

from exchange.node.cards import card_file, own_card, sign_card, verify_card
from exchange.node.delivery import Dispatcher
from exchange.node.services import Services, milliseconds
from exchange.store.errors import NotFound, StoreUnavailable
from exchange.store.keys import add_sealing_key, all_sealing_keys, destroy_sealing_key
from exchange.store.outbox import enqueue_card
from exchange.store.peers import all_peers
from exchange.store.transaction import LogEntry, Transaction

_DAY_MS: Final = 86_400_000
_CHECK_EVERY_S: Final = 600


async def turn_epoch(services: Services) -> bool:
    """Make a sealing key where the newest has passed half its life; destroy those whose grace has passed."""
    keys = services.configuration.tables.keys
    lifetime_ms = round(keys.sealing_lifetime_days * _DAY_MS)
    grace_ms = round(keys.sealing_grace_days * _DAY_MS)
    now_ms = services.now_ms()
    newest_ms = max((row.not_after_ms for row in services.keyring.epochs), default=0)
    fresh = services.keyring.new_sealing_key(now_ms, lifetime_ms) if newest_ms - now_ms < lifetime_ms / 2 else None
    dead = [row for row in services.keyring.epochs if row.not_after_ms + grace_ms <= now_ms]
    if fresh is None and not dead:
        return False

    async def operation(tx: Transaction) -> None:
        if fresh is not None:
            await add_sealing_key(tx, fresh)
        for row in dead:
            await destroy_sealing_key(tx, row.key_id)

    await services.store.write(operation)
    await load_sealing_keys(services)
    return True


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
    await write_card_file(services)
    if dispatcher is not None:
        for lane in lanes:
            dispatcher.wake(lane)


async def write_card_file(services: Services) -> None:
    """Keep a copy of the card for an admin to hand over."""
    data = card_file(await own_card(services))
    path = services.configuration.card_path
    temporary = path.with_suffix(".new")
    await asyncio.to_thread(temporary.write_bytes, data)
    await asyncio.to_thread(os.replace, temporary, path)


async def card_is_current(services: Services) -> bool:
    """Whether the latest card still says what is so, and for long enough."""
    try:
        entry = await own_card(services)
    except NotFound:
        return False
    card = verify_card(entry.statement, entry.proof, services.checkpoints).card
    node = services.configuration.tables.node
    now_ms = services.now_ms()
    stays_ms = milliseconds(card.expires_at) - now_ms
    return (
        stays_ms > 30 * _DAY_MS
        and (card.area, card.name, card.url) == (node.area, node.name, node.url.rstrip("/"))
        and card.sealing_keys == services.keyring.card_sealing_keys(now_ms)
    )


async def keep_current(
    services: Services, dispatcher: Dispatcher, stop: asyncio.Event, every_s: float = _CHECK_EVERY_S
) -> None:
    """Turn epochs and renew the card until `stop`."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await stop.wait()
                return
        try:
            if await turn_epoch(services) or not await card_is_current(services):
                await renew_card(services, dispatcher)
        except (StoreUnavailable, OSError) as error:
            # A full disk must not stop the node; the next turn tries again.
            services.log.error("the card was not renewed", error=type(error).__name__)
