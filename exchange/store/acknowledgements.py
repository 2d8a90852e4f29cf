"""What agencies have said of sections: of what arrived here, and of what this node sent.

* Who holds a section is the latest that was said to own it, while it stands as owned.
* The words are sealed under the message's own key: with that they are erased.

`acknowledgements_by_message (message, number)` serves what is asked of one message.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, func, insert, select, text

from exchange.store.tables import acknowledgements, messages, signers
from exchange.store.transaction import Sql, Transaction

BY_AGENCY = "agency"
BY_BOROUGH = "borough"


@dataclass(frozen=True, slots=True)
class AcknowledgementRow:
    """What was said of one section at one agency, with one receipt."""

    number: int
    message: int
    section: str
    agency: str
    rung: str
    name: str | None
    by: str
    target: str | None
    leaf_hash: bytes
    word_hash: bytes | None
    position: int | None
    at_ms: int
    sealed: bytes | None


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question, with the message that it is about."""

    said: AcknowledgementRow
    origin: str
    message_id: str
    peer: str


_COLUMNS = tuple(acknowledgements.c)
_ADDED = tuple(column.name for column in _COLUMNS if column.name != "number")
_add = Sql(
    insert(acknowledgements).values({name: bindparam(name) for name in _ADDED}).returning(acknowledgements.c.number)
)
_of_message = Sql(
    select(*_COLUMNS).where(acknowledgements.c.message == bindparam("message")).order_by(acknowledgements.c.number)
)
_one = Sql(select(*_COLUMNS).where(acknowledgements.c.number == bindparam("number")))
_at_position = Sql(
    select(*_COLUMNS)
    .where(acknowledgements.c.message == bindparam("message"), acknowledgements.c.position == bindparam("position"))
    .order_by(acknowledgements.c.number)
    .limit(1)
)
_count = Sql(
    select(func.count())
    .select_from(acknowledgements)
    .where(acknowledgements.c.message == bindparam("message"), acknowledgements.c.section == bindparam("section"))
)
_questions = Sql(
    select(*_COLUMNS, messages.c.origin, messages.c.message_id, messages.c.peer)
    .select_from(acknowledgements.join(messages, messages.c.number == acknowledgements.c.message))
    .where(acknowledgements.c.rung == text("'queried'"), messages.c.direction == bindparam("direction"))
    .order_by(acknowledgements.c.number.desc())
    .limit(bindparam("most"))
)
_add_signer = Sql(
    insert(signers).values(
        message=bindparam("message"), agency=bindparam("agency"), fingerprint=bindparam("fingerprint")
    )
)
_signers = Sql(select(signers.c.agency, signers.c.fingerprint).where(signers.c.message == bindparam("message")))


async def add_acknowledgement(tx: Transaction, row: AcknowledgementRow) -> int:
    """Keep what was said; return its number (`row.number` is not used)."""
    return await tx.insert(_add, {name: getattr(row, name) for name in _ADDED})


async def acknowledgements_of(tx: Transaction, message: int) -> list[AcknowledgementRow]:
    """What was said of a message's sections, oldest first."""
    return [AcknowledgementRow(*row) for row in await tx.fetch_all(_of_message, {"message": message})]


async def acknowledgement(tx: Transaction, number: int) -> AcknowledgementRow | None:
    """What was said under a number, if it is here still."""
    row = await tx.fetch_one(_one, {"number": number})
    return AcknowledgementRow(*row) if row else None


async def acknowledgement_at(tx: Transaction, message: int, position: int) -> AcknowledgementRow | None:
    """What was said with the receipt at a position of this node's log, if that is such a receipt."""
    row = await tx.fetch_one(_at_position, {"message": message, "position": position})
    return AcknowledgementRow(*row) if row else None


async def count_acknowledgements(tx: Transaction, message: int, section: str) -> int:
    """How much was said of a section of a message."""
    row = await tx.fetch_one(_count, {"message": message, "section": section})
    return int(row[0]) if row else 0


async def questions(tx: Transaction, direction: str, most: int) -> list[QuestionRow]:
    """The latest questions about messages of a direction, newest first; `acknowledgements_queried` serves it."""
    rows = await tx.fetch_all(_questions, {"direction": direction, "most": most})
    return [QuestionRow(AcknowledgementRow(*row[:-3]), *row[-3:]) for row in rows]


async def add_signers(tx: Transaction, message: int, fingerprints: dict[str, bytes]) -> None:
    """Note who signs for the agencies to whose own keys a message is sealed."""
    await tx.execute_many(
        _add_signer,
        [{"message": message, "agency": kind, "fingerprint": value} for kind, value in fingerprints.items()],
    )


async def signers_of(tx: Transaction, message: int) -> dict[str, bytes]:
    """Who signs for which agency of a message that this node sent."""
    return {str(row[0]): bytes(row[1]) for row in await tx.fetch_all(_signers, {"message": message})}
