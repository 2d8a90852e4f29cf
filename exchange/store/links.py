"""One-time links by which an agency takes a section on: the SHA-256 of each, for one section at one agency.

A link goes with its message and with its agency. `links_by_message (message)` serves what is asked of one message.
"""

import hmac
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from exchange.store.errors import NotFound
from exchange.store.tables import links
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link; `made_by` is who asked for it, None where it went to the agency with the section."""

    id: str
    hash: bytes
    message: int
    section: str
    agency: str
    made_by: str | None
    made_at_ms: int
    expires_at_ms: int
    used_at_ms: int | None = None
    withdrawn_at_ms: int | None = None


_COLUMNS = tuple(links.c)
_add = Sql(insert(links).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_by_hash = Sql(select(*_COLUMNS).where(links.c.hash == bindparam("hash")))
_of_message = Sql(
    select(*_COLUMNS).where(links.c.message == bindparam("message")).order_by(links.c.made_at_ms, links.c.id)
)
_use = Sql(
    update(links)
    .where(links.c.id == bindparam("key"), links.c.used_at_ms.is_(None), links.c.withdrawn_at_ms.is_(None))
    .values(used_at_ms=bindparam("now_ms"))
)
_withdraw = Sql(
    update(links)
    .where(links.c.id == bindparam("key"), links.c.used_at_ms.is_(None), links.c.withdrawn_at_ms.is_(None))
    .values(withdrawn_at_ms=bindparam("now_ms"))
)


async def add_link(tx: Transaction, row: LinkRow) -> None:
    """Keep a link."""
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def find_link(tx: Transaction, digest: bytes) -> LinkRow | None:
    """The link of that SHA-256, however it stands.

    How long the index takes says something of a digest alone, and a digest leads to no token.
    """
    found = await tx.fetch_one(_by_hash, {"hash": digest})
    row = None if found is None else LinkRow(*found)
    return row if row is not None and hmac.compare_digest(row.hash, digest) else None


async def links_of(tx: Transaction, message: int) -> list[LinkRow]:
    """The links for a message's sections, oldest first."""
    return [LinkRow(*row) for row in await tx.fetch_all(_of_message, {"message": message})]


async def use_link(tx: Transaction, link_id: str, now_ms: int) -> bool:
    """Use a link; False where it was used or withdrawn: of two at the same time one has it."""
    return await tx.execute(_use, {"key": link_id, "now_ms": now_ms}) == 1


async def withdraw_link(tx: Transaction, link_id: str, now_ms: int) -> None:
    """Make a link useless.

    Raises:
        NotFound: there is none of that id that could be used.
    """
    if await tx.execute(_withdraw, {"key": link_id, "now_ms": now_ms}) == 0:
        raise NotFound(
            f"there is no link {link_id} that is not used or withdrawn",
            hint="`exchange section links` lists those of a section.",
        )
