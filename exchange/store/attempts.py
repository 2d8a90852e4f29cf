"""What became of each request to an agency: when, how long, the status, and a little about the answer.

* Never the body of an answer: it may repeat the section. Its kind, length and a keyed digest tell answers apart.
* The rows of a message and an agency are bounded in number and in age, and go with the message.

`attempts_by_message (message, agency, number)` serves every question; `attempts_by_time (at_ms)` the end of old ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from exchange.store.tables import attempts
from exchange.store.transaction import Sql, Transaction

#: Of a message and an agency.
MOST: Final = 200


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One request. `error` is in the node's words; `code` is that of a problem document."""

    message: int
    delivery: int
    agency: str
    section: str
    at_ms: int
    duration_ms: int
    replay: int
    accepted: int
    status: int | None
    error: str | None
    content_type: str | None
    size_bytes: int | None
    digest: str | None
    code: str | None


_ADDED = tuple(column.name for column in attempts.c if column.name != "number")
_add = Sql(insert(attempts).values({name: bindparam(name) for name in _ADDED}))
_of_message = Sql(
    select(*(attempts.c[name] for name in _ADDED))
    .where(attempts.c.message == bindparam("message"))
    .order_by(attempts.c.number)
)
_accepted_of = Sql(
    select(attempts.c.section)
    .where(
        attempts.c.message == bindparam("message"),
        attempts.c.agency == bindparam("agency"),
        attempts.c.delivery == bindparam("delivery"),
        attempts.c.at_ms >= bindparam("since_ms"),
        attempts.c.replay == 1,
        attempts.c.accepted == 1,
    )
    .distinct()
)
_oldest_kept = Sql(
    select(attempts.c.number)
    .where(attempts.c.message == bindparam("message"), attempts.c.agency == bindparam("agency"))
    .where(attempts.c.accepted == 0)
    .order_by(attempts.c.number.desc())
    .offset(MOST)
    .limit(1)
)
_drop_until = Sql(
    delete(attempts).where(
        attempts.c.message == bindparam("message"),
        attempts.c.agency == bindparam("agency"),
        attempts.c.accepted == 0,
        attempts.c.number <= bindparam("until"),
    )
)
_drop_before = Sql(delete(attempts).where(attempts.c.at_ms < bindparam("before_ms")))
_any_before = Sql(select(attempts.c.number).where(attempts.c.at_ms < bindparam("before_ms")).limit(1))


async def add_attempts(tx: Transaction, rows: Sequence[AttemptRow], *, prune: bool) -> None:
    """Keep what became of requests; where `prune`, of those that failed the latest alone."""
    await tx.execute_many(_add, [{name: getattr(row, name) for name in _ADDED} for row in rows])
    if prune:
        for message, agency in {(row.message, row.agency) for row in rows}:
            where = {"message": message, "agency": agency}
            found = await tx.fetch_one(_oldest_kept, where)
            if found is not None:
                await tx.execute(_drop_until, {**where, "until": found[0]})


async def attempts_of(tx: Transaction, message: int) -> list[AttemptRow]:
    """The requests about a message, oldest first."""
    return [AttemptRow(*row) for row in await tx.fetch_all(_of_message, {"message": message})]


async def accepted_in(tx: Transaction, message: int, agency: str, delivery: int, since_ms: int) -> set[str]:
    """The sections that an agency accepted in one delivery again, which was made at `since_ms`.

    The time counts too: SQLite gives the number of a delivery that is done to the next one.
    """
    where = {"message": message, "agency": agency, "delivery": delivery, "since_ms": since_ms}
    rows = await tx.fetch_all(_accepted_of, where)
    return {str(row[0]) for row in rows}


async def drop_attempts_before(tx: Transaction, before_ms: int) -> int:
    """Forget old requests; return how many."""
    return await tx.execute(_drop_before, {"before_ms": before_ms})


async def has_attempts_before(tx: Transaction, before_ms: int) -> bool:
    """Whether there are old requests to forget."""
    return await tx.fetch_one(_any_before, {"before_ms": before_ms}) is not None
