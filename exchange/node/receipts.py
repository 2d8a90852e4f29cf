"""Receipts that this node signs for what arrived: in the transaction that stores what they say."""

from collections.abc import Sequence

from exchange.crypto.names import LeafHash
from exchange.node.services import Services, milliseconds
from exchange.schema.wire import RECEIPT, VERSION, Manifest, Placement, Receipt, Rung, encode_wire
from exchange.store.messages import add_receipt, add_rung_events, raise_rung
from exchange.store.outbox import STATEMENT, enqueue, new_delivery
from exchange.store.transaction import LogEntry, Transaction


async def sign_receipt(
    services: Services,
    tx: Transaction,
    manifest: Manifest,
    leaf: LeafHash,
    rung: Rung,
    placements: tuple[Placement, ...],
) -> LogEntry:
    """Sign a receipt for a message that arrived, in the transaction that stores what it says."""
    receipt = Receipt(
        version=VERSION,
        message_id=manifest.message_id,
        leaf_hash=leaf,
        rung=rung,
        origin=services.configuration.origin,
        recipient=manifest.sender,
        at=services.now(),
        placements=placements,
    )
    return await tx.sign(RECEIPT, encode_wire(receipt))


async def climb(
    services: Services,
    tx: Transaction,
    origin: str,
    manifest: Manifest,
    leaf: LeafHash,
    number: int,
    rung: Rung,
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Move sections of a message that arrived up to a rung; sign a receipt for it and queue that for the sender."""
    await raise_rung(tx, number, rung.value, pairs, services.now_ms())
    await tell(services, tx, origin, manifest, leaf, number, rung, pairs)


async def tell(
    services: Services,
    tx: Transaction,
    origin: str,
    manifest: Manifest,
    leaf: LeafHash,
    number: int,
    rung: Rung,
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Sign a receipt that sections of a message that arrived stand on a rung, and queue it for the sender."""
    now_ms = services.now_ms()
    placements = tuple(Placement(section=section, agency=kind) for section, kind in pairs)
    entry = await sign_receipt(services, tx, manifest, leaf, rung, placements)
    await add_receipt(tx, number, rung.value, entry.leaf_hash, entry.statement, now_ms, position=entry.position)
    await add_rung_events(tx, number, rung.value, pairs, now_ms)
    delivery = new_delivery(
        f"peer:{origin}",
        STATEMENT,
        now_ms=now_ms,
        deadline_ms=milliseconds(manifest.expires_at),
        urgent=manifest.urgent,
        position=entry.position,
        message=number,
    )
    await enqueue(tx, [delivery])
