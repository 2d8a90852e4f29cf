"""Destroy what opens sections of a message, and the sections: the rows are overwritten in their place before they go.

`secure_delete` zeroes what SQLite frees; `Store.scrub` then sees to older copies of the pages.
"""

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import bindparam, delete, or_, select, update

from exchange.store.messages import KeysRow, keys_of, sections_of
from exchange.store.outbox import MANIFEST, REPLAY, ROUTE, WEBHOOK
from exchange.store.tables import acknowledgements, contents, message_keys, outbox
from exchange.store.transaction import Sql, Transaction

_put_keys = Sql(
    update(message_keys)
    .where(message_keys.c.message == bindparam("key"))
    .values(wrapped=bindparam("new_wrapped"), secrets=bindparam("new_secrets"))
)
_drop_keys = Sql(delete(message_keys).where(message_keys.c.message == bindparam("key")))
_put_content = Sql(
    update(contents).where(contents.c.message == bindparam("key")).values(sections=bindparam("new_sections"))
)
_drop_content = Sql(delete(contents).where(contents.c.message == bindparam("key")))
_put_word = Sql(
    update(acknowledgements).where(acknowledgements.c.number == bindparam("key")).values(sealed=bindparam("new_sealed"))
)
_waiting = Sql(
    select(outbox.c.number, outbox.c.kind, outbox.c.agency, outbox.c.lease_until_ms, outbox.c.attempts).where(
        outbox.c.message == bindparam("message"),
        or_(*(outbox.c.kind == kind for kind in (MANIFEST, WEBHOOK, ROUTE, REPLAY))),
    )
)


async def replace_keys(tx: Transaction, number: int, keys: KeysRow | None) -> None:
    """Overwrite the keys of a message, and put others in their place, or nothing.

    Raises:
        NotFound: they were erased before.
    """
    old = await keys_of(tx, number)
    zeros = {"key": number, "new_wrapped": bytes(len(old.wrapped)), "new_secrets": bytes(len(old.secrets))}
    await tx.execute(_put_keys, zeros)
    if keys is None:
        await tx.execute(_drop_keys, {"key": number})
    else:
        await tx.execute(_put_keys, {"key": number, "new_wrapped": keys.wrapped, "new_secrets": keys.secrets})


async def drop_sections(tx: Transaction, number: int, names: Collection[str]) -> None:
    """Forget the ciphertexts of sections."""
    rows = await sections_of(tx, number)
    left = {row.section: row.ciphertext for row in rows if row.section not in names}
    if len(left) == len(rows):
        return
    zeros = {row.section: bytes(len(row.ciphertext)) for row in rows if row.section in names}
    await tx.execute(_put_content, {"key": number, "new_sections": msgspec.msgpack.encode({**left, **zeros})})
    if left:
        await tx.execute(_put_content, {"key": number, "new_sections": msgspec.msgpack.encode(left)})
    else:
        await tx.execute(_drop_content, {"key": number})


async def replace_words(tx: Transaction, sealed: Iterable[tuple[int, bytes | None]]) -> None:
    """Put other bytes in the place of what agencies said, by its number."""
    await tx.execute_many(_put_word, [{"key": number, "new_sealed": data} for number, data in sealed])


async def waiting_sections(tx: Transaction, message: int) -> list[tuple[int, str, str | None, int, int]]:
    """What of a message waits to be delivered: number, kind, agency, until when somebody has it, attempts."""
    rows = await tx.fetch_all(_waiting, {"message": message})
    return [(int(row[0]), str(row[1]), row[2], int(row[3]), int(row[4])) for row in rows]
