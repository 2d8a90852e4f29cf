"""Reads a history from stores, by plain SQL, and from the catalogue's file."""

import contextlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.faults.checker.history import Given, HeldReceipt, Leaf, Message, Node, PeerView, Waiting

#: Runs a query on a store and returns all its rows.
Rows = Callable[[str], list[tuple[Any, ...]]]

_MESSAGES: Final = """SELECT origin, message_id, direction, peer, leaf_hash, statement, proof, position,
    received_position FROM messages ORDER BY number"""
_RECEIPTS: Final = """SELECT message_id, rung, receipts.leaf_hash, receipts.statement, receipts.proof,
    receipts.position FROM receipts JOIN messages ON messages.number = receipts.message ORDER BY at_ms"""
_OUTBOX: Final = """SELECT coalesce(messages.message_id, waiting_forms.message_id, ''), lane, kind, state, agency,
    outbox.position, reason FROM outbox LEFT JOIN messages ON messages.number = outbox.message
    LEFT JOIN waiting_forms ON waiting_forms.delivery = outbox.number ORDER BY outbox.number"""
_GIVEN: Final = """SELECT message_id, section, agency, given_to FROM placements
    JOIN messages ON messages.number = placements.message WHERE direction = 'in'"""


def read_node(origin: str, rows: Rows) -> Node:
    """Read a store."""
    heads: dict[str, list[str]] = {}
    for peer, text in rows("SELECT origin, checkpoint FROM peer_heads ORDER BY size"):
        heads.setdefault(peer, []).append(text)
    return Node(
        origin=origin,
        leaves=tuple(
            Leaf(position, bytes(leaf), kind, bytes(statement))
            for position, leaf, kind, statement in rows(
                "SELECT position, leaf_hash, type, statement FROM statements ORDER BY position"
            )
        ),
        head_size=next((row[0] for row in rows("SELECT size FROM log_head")), 0),
        tree_nodes={
            (level, place): bytes(value) for level, place, value in rows("SELECT level, position, hash FROM log_nodes")
        },
        checkpoints=tuple(row[0] for row in rows("SELECT text FROM checkpoints ORDER BY size")),
        messages=tuple(Message(*map(_plain, row)) for row in rows(_MESSAGES)),
        receipts=tuple(HeldReceipt(*map(_plain, row)) for row in rows(_RECEIPTS)),
        given=tuple(Given(*row) for row in rows(_GIVEN)),
        waiting=tuple(Waiting(*row) for row in rows(_OUTBOX)),
        waiting_forms=tuple(row[0] for row in rows("SELECT message_id FROM waiting_forms")),
        peers=tuple(
            PeerView(peer, bytes(card), proof, tuple(heads.get(peer, ())))
            for peer, card, proof in rows("SELECT origin, card, proof FROM peers")
        ),
    )


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview | bytearray) else value


def rows_of_file(path: Path) -> Rows:
    """Queries on a SQLite file that no node has open."""
    from pysqlite3 import dbapi2 as sqlite

    def rows(query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite.connect(str(path))) as connection:
            return list(connection.execute(query).fetchall())

    return rows


def read_catalogue(path: Path) -> Mapping[str, frozenset[str]]:
    """Which agencies may read each part; a part of which there is one for each entry of a list stands as `name-`."""
    parts = tomllib.loads(path.read_text(encoding="utf-8"))["part"]
    return {part["name"] + ("-" if "each" in part else ""): frozenset(part["readers"]) for part in parts}
