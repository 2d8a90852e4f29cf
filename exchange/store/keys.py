"""The node's own sealing keys (wrapped) and the cards that it has signed."""

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.store.errors import NotFound
from exchange.store.log import ProvenEntry, proven_at
from exchange.store.tables import cards, sealing_keys
from exchange.store.transaction import LogEntry, Sql, Transaction


@dataclass(frozen=True, slots=True)
class SealingKeyRow:
    """A sealing key whose seed is wrapped by the key of its epoch.

    Cards name it until `not_after_ms`; it opens what comes late until `opens_until_ms`, and is then destroyed.
    """

    key_id: bytes
    epoch: int
    wrapped_seed: bytes
    not_before_ms: int
    not_after_ms: int
    opens_until_ms: int


_COLUMNS = tuple(sealing_keys.c)
_all = Sql(select(*_COLUMNS).order_by(sealing_keys.c.not_before_ms))
_add = Sql(insert(sealing_keys).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_blank = Sql(
    update(sealing_keys).where(sealing_keys.c.key_id == bindparam("key")).values(wrapped_seed=bindparam("zeros"))
)
_destroy = Sql(delete(sealing_keys).where(sealing_keys.c.key_id == bindparam("key_id")))
_add_card = Sql(insert(cards).values(serial=bindparam("serial"), position=bindparam("position")))
_last_card = Sql(select(cards.c.serial, cards.c.position).order_by(cards.c.serial.desc()).limit(1))


async def all_sealing_keys(tx: Transaction) -> list[SealingKeyRow]:
    """Every sealing key that still exists, oldest first."""
    return [SealingKeyRow(*row) for row in await tx.fetch_all(_all, {})]


async def add_sealing_key(tx: Transaction, row: SealingKeyRow) -> None:
    """Keep a new sealing key."""
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def destroy_sealing_key(tx: Transaction, row: SealingKeyRow) -> None:
    """Overwrite a sealing key in its place, and delete the row; `Store.scrub` then sees to older copies of the page."""
    await tx.execute(_blank, {"key": row.key_id, "zeros": bytes(len(row.wrapped_seed))})
    await tx.execute(_destroy, {"key_id": row.key_id})


async def keep_card(tx: Transaction, serial: int, entry: LogEntry) -> None:
    """Note where in the log the card of that serial stands."""
    await tx.execute(_add_card, {"serial": serial, "position": entry.position})


async def keep_card_at(tx: Transaction, serial: int, position: int) -> None:
    """Note where in the log a card stands that came back from a peer."""
    await tx.execute(_add_card, {"serial": serial, "position": position})


async def last_card(tx: Transaction) -> tuple[int, int]:
    """Serial and log position of the node's latest card.

    Raises:
        NotFound: the node has not signed one yet.
    """
    row = await tx.fetch_one(_last_card, {})
    if row is None:
        raise NotFound("the node has no card yet")
    return int(row[0]), int(row[1])


async def proven_card(tx: Transaction) -> ProvenEntry:
    """The node's latest card and its proof.

    Raises:
        NotFound: the node has not signed one yet.
    """
    _, position = await last_card(tx)
    return await proven_at(tx, position)
