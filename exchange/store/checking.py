"""Is the log in a store whole? Computed anew from every statement, and held against every checkpoint (RFC 6962).

* Each leaf is the hash of its statement, but where the statement was forgotten on purpose.
* The root at each checkpoint's size is the one that was signed; whether the signatures hold is for who knows the keys.
* The stored subtrees and the head are what follows from the leaves.
"""

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table

from exchange.crypto.merkle import Frontier
from exchange.crypto.names import LeafHash
from exchange.crypto.statement import leaf_hash
from exchange.schema.identity import ROTATION
from exchange.schema.wire import CARD
from exchange.store.errors import StoreDamaged
from exchange.store.tables import checkpoints, log_head, log_nodes, statements
from exchange.store.transaction import Row

#: Reads a table in the order of its primary key, some rows at a time.
Rows = Callable[[Table], AsyncIterator[list[Row]]]

_EMPTY: Final = Frontier.from_bytes(0, b"")


@dataclass(frozen=True, slots=True)
class LogReport:
    """A log that is whole: how many statements and checkpoints it has, its root, and its last checkpoint."""

    size: int
    checkpoints: int
    root: bytes
    head: str | None
    #: The last statement that names the node's signing keys: a card, or a rotation.
    identity: bytes | None


async def check_log(rows: Rows) -> LogReport:
    """Compute the log anew, and compare.

    Raises:
        StoreDamaged: it is not what was signed.
    """
    signed = [row async for chunk in rows(checkpoints) for row in chunk]
    sizes = {int(row[0]): str(row[1]) for row in signed}
    frontier, found, identity = _EMPTY, 0, None
    nodes: dict[tuple[int, int], bytes] = {}
    async for chunk in rows(statements):
        for position, leaf, kind, statement in chunk:
            if position != frontier.size:
                raise StoreDamaged(f"statement {frontier.size} of the log is missing")
            if not isinstance(statement, bytes) or not isinstance(leaf, bytes):
                raise StoreDamaged(f"statement {position} of the log is not made of bytes")
            if statement and leaf_hash(statement) != leaf:
                raise StoreDamaged(f"statement {position} of the log is not the one that was signed")
            if kind in (CARD, ROTATION):
                identity = statement
            frontier, new = frontier.append([LeafHash(leaf)])
            nodes.update(((node.level, node.position), value) for node, value in new)
            if frontier.size in sizes:
                found += 1
                _compare(sizes[frontier.size], frontier)
    if found != len(sizes):
        raise StoreDamaged(f"a checkpoint is of more than the {frontier.size} statements that are there")
    if sizes and max(sizes) != frontier.size:
        raise StoreDamaged(f"no checkpoint covers the last of the {frontier.size} statements")
    await _check_derived(rows, frontier, nodes)
    return LogReport(frontier.size, len(sizes), frontier.root(), sizes.get(frontier.size), identity)


def _compare(text: str, frontier: Frontier) -> None:
    lines = text.split("\n")
    if lines[1:3] != [str(frontier.size), base64.b64encode(frontier.root()).decode()]:
        raise StoreDamaged(f"the log of {frontier.size} statements is not the one that was signed")


async def _check_derived(rows: Rows, frontier: Frontier, nodes: dict[tuple[int, int], bytes]) -> None:
    async for chunk in rows(log_nodes):
        for level, position, value in chunk:
            if nodes.pop((level, position), None) != bytes(value):
                raise StoreDamaged(f"node {level}/{position} of the log does not follow from its statements")
    if nodes:
        raise StoreDamaged(f"the log lacks node {'/'.join(map(str, min(nodes)))}")
    heads = [row async for chunk in rows(log_head) for row in chunk]
    if frontier.size and [(row[1], bytes(row[2])) for row in heads] != [(frontier.size, frontier.to_bytes())]:
        raise StoreDamaged("the head of the log does not follow from its statements")
