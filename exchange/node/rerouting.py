"""Routing again: what no agency was given, when one may be there; and what waits for an agency that does not take it.

* One delivery at a time, each in a transaction of its own: a section is given to an agency or waits, never both.
* What somebody has in hand stays with the agency until that attempt has ended; what it has accepted stays for good.
"""

from collections.abc import Iterable, Sequence

from exchange.crypto.errors import CryptoError
from exchange.crypto.statement import parse_statement
from exchange.handover.routing import Facts
from exchange.node.agency_keys import sealed_kinds
from exchange.node.agency_parcels import open_content
from exchange.node.compose import recall_secrets
from exchange.node.counterparts import queue_question
from exchange.node.delivery import Outcome
from exchange.node.routing import route
from exchange.node.routing_facts import REFERRAL, facts_of
from exchange.node.services import Services
from exchange.schema.agency_names import kind_of
from exchange.schema.wire import Manifest, decode_wire, manifest_decoder
from exchange.store.acknowledgements import acknowledgement
from exchange.store.errors import NotFound
from exchange.store.messages import (
    KeysRow,
    MessageRow,
    SectionRow,
    keys_of,
    message_by_number,
    placements_of,
    sections_of,
    take_back,
)
from exchange.store.outbox import (
    QUESTION,
    ROUTE,
    Delivery,
    done_if_claimed,
    enqueue,
    new_delivery,
    release_lane,
    remove_delivery,
    webhooks_in,
)
from exchange.store.transaction import Transaction


class Rerouting:
    """Works on the lanes `route:KIND`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def perform(self, kind: str, rows: Sequence[Delivery]) -> Outcome:
        """Route what waits for an agency of a kind; what still has none is held again."""
        outcome = Outcome()
        for delivery in rows:
            outcome.wake |= await self._again(delivery, kind)
        self._services.changes.notify()
        return outcome

    async def _again(self, delivery: Delivery, kind: str) -> set[str]:
        services, number = self._services, delivery.message or 0
        if delivery.kind == QUESTION:
            return await turn_away(services, kind, [delivery])
        _, facts = await recall(services, number)

        async def operation(tx: Transaction) -> set[str]:
            if not await done_if_claimed(tx, delivery):
                return set()
            message = await message_by_number(tx, number)
            manifest = manifest_of(message)
            only = await _without_agency(tx, message, manifest, {kind})
            since_ms, deadline_ms = delivery.created_at_ms, delivery.deadline_ms
            return await route(
                services, tx, message, manifest, facts, only=only, since_ms=since_ms, deadline_ms=deadline_ms
            )

        return await services.store.write(operation)


def manifest_of(message: MessageRow) -> Manifest:
    """The manifest of a message; it was verified before it was stored."""
    return decode_wire(manifest_decoder, parse_statement(message.statement).body)


async def _without_agency(
    tx: Transaction, message: MessageRow, manifest: Manifest, kinds: Iterable[str]
) -> set[tuple[str, str]]:
    """The sections of a message that no agency has, with the kinds, of some, for whose readers they wait."""
    given = {(row.section, row.agency) for row in await placements_of(tx, message.number) if row.given_to is not None}
    wanted = set(kinds)
    return {(entry.name, kind) for entry in manifest.sections for kind in wanted.intersection(entry.readers)} - given


async def turn_away(services: Services, name: str, rows: Sequence[Delivery]) -> set[str]:
    """Have what an agency was to get routed again, where it has not accepted it; the lanes to wake."""

    async def operation(tx: Transaction) -> set[str]:
        lanes: set[str] = set()
        for row in rows:
            if await done_if_claimed(tx, row):
                lanes |= await (_ask_another(services, tx, row) if row.kind == QUESTION else _send_back(tx, name, row))
        return lanes

    return await services.store.write(operation)


async def _ask_another(services: Services, tx: Transaction, row: Delivery) -> set[str]:
    """Have a question asked of another agency of the kind, or wait for one."""
    asked = await acknowledgement(tx, row.position or 0)
    if asked is None:
        return set()
    message = await message_by_number(tx, asked.message)
    lane = await queue_question(services, tx, message, asked.agency, asked.number, deadline_ms=row.deadline_ms)
    return {lane}


async def route_again(tx: Transaction, name: str, deadline_ms: int) -> tuple[int, set[str]]:
    """Have all that waits for an agency, or for agencies of a kind, routed again; how much, and the lanes to wake."""
    lanes, waiting = {f"route:{kind_of(name)}"}, await webhooks_in(tx, f"agency:{name}")
    for row in waiting:
        await remove_delivery(tx, row.number)
        lanes |= await _send_back(tx, name, row)
    return len(waiting) + await release_lane(tx, f"route:{kind_of(name)}", deadline_ms), lanes


async def _send_back(tx: Transaction, name: str, row: Delivery) -> set[str]:
    """Put what an agency has not accepted of a message before the rules again."""
    message = await message_by_number(tx, row.message or 0)
    before = [placed for placed in await placements_of(tx, message.number) if placed.given_to == name]
    await take_back(tx, message.number, name)
    kinds = {placed.agency for placed in before} | {kind_of(name)}
    kinds = {kind for _, kind in await _without_agency(tx, message, manifest_of(message), kinds)}
    deliveries = [
        new_delivery(
            f"route:{kind}",
            ROUTE,
            now_ms=row.created_at_ms,
            deadline_ms=row.deadline_ms,
            urgent=bool(message.urgent),
            message=message.number,
            agency=kind,
        )
        for kind in sorted(kinds)
    ]
    await enqueue(tx, deliveries)
    return {f"route:{kind}" for kind in kinds}


async def recall(services: Services, number: int) -> tuple[Manifest, Facts]:
    """The manifest of a message in the store, and what rules ask: its referral is opened again, where the node may."""

    async def view(tx: Transaction) -> tuple[MessageRow, frozenset[str], KeysRow | None, list[SectionRow]]:
        message = await message_by_number(tx, number)
        sealed = await sealed_kinds(services, tx, manifest_of(message))
        try:
            return message, sealed, await keys_of(tx, number), await sections_of(tx, number)
        except NotFound:
            return message, sealed, None, []

    message, sealed, keys, rows = await services.store.read(view)
    manifest = manifest_of(message)
    entry = next((entry for entry in manifest.sections if entry.name == REFERRAL), None)
    row = next((row for row in rows if row.section == REFERRAL), None)
    if entry is None or row is None or keys is None:
        return manifest, facts_of(manifest, sealed, None)
    try:
        secrets = recall_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, keys)
        return manifest, facts_of(manifest, sealed, open_content(manifest, secrets, entry, row))
    except CryptoError:
        return manifest, facts_of(manifest, sealed, None)
