"""Form messages, in both directions: the manifest as signed, sealed sections, placements, receipts, timeline.

`messages (message_id, origin)` is unique and makes a message arrive once. Section secrets are sealed under the
message's own key, which stands wrapped in `message_keys`: deleting that one row erases the content.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, func, insert, or_, select, text, update

from exchange.handover.rungs import LADDER, below
from exchange.store.errors import NotFound
from exchange.store.tables import alarms, contents, message_keys, messages, placements, receipts, timeline
from exchange.store.transaction import Sql, Transaction

_DAY_MS: Final = 86_400_000
OUTBOUND: Final = "out"
INBOUND: Final = "in"
#: How many alarms of a kind about a peer are looked at.
MOST_ALARMS_ABOUT: Final = 20


class MessageRow(NamedTuple):
    """A message; `statement` is its manifest as signed, `proof` is kept for the ones of other nodes' logs."""

    number: int
    origin: str
    message_id: str
    direction: str
    peer: str
    leaf_hash: bytes
    statement: bytes
    proof: str | None
    position: int | None
    received_position: int | None
    urgent: int
    created_at_ms: int
    expires_at_ms: int
    stored_at_ms: int


class KeysRow(NamedTuple):
    """A message's own key, wrapped by the store key, and the secrets of its sections, sealed under it."""

    wrapped: bytes
    secrets: bytes


class SectionRow(NamedTuple):
    """A sealed section."""

    section: str
    ciphertext: bytes


class PlacementRow(NamedTuple):
    """How far one section has come for one kind of agency; here, `given_to` is the agency that it was given to."""

    section: str
    agency: str
    rung: str
    at_ms: int
    given_to: str | None = None


class ReceiptRow(NamedTuple):
    """A receipt; `proof` stands for those of other nodes' logs, `position` for our own."""

    rung: str
    statement: bytes
    proof: str | None
    position: int | None


class EventRow(NamedTuple):
    """One line of a message's timeline."""

    at_ms: int
    event: str
    agency: str | None
    detail: str | None


_encode_sections = msgspec.msgpack.Encoder().encode
_decode_sections = msgspec.msgpack.Decoder(dict[str, bytes]).decode

_COLUMNS = tuple(messages.c)
_ADDED = tuple(column.name for column in messages.c if column.name != "number")
_add = Sql(insert(messages).values({name: bindparam(name) for name in _ADDED}).returning(messages.c.number))
_by_id = Sql(
    select(*_COLUMNS).where(messages.c.message_id == bindparam("message_id")).order_by(messages.c.number).limit(1)
)
_all_by_id = Sql(select(*_COLUMNS).where(messages.c.message_id == bindparam("message_id")).order_by(messages.c.number))
_by_origin = Sql(
    select(*_COLUMNS).where(messages.c.origin == bindparam("origin"), messages.c.message_id == bindparam("message_id"))
)
_by_number = Sql(select(*_COLUMNS).where(messages.c.number == bindparam("number")))
_list = Sql(
    select(*_COLUMNS)
    .where(messages.c.direction == bindparam("direction"))
    .order_by(messages.c.number.desc())
    .limit(bindparam("most"))
)
_arrived = Sql(
    select(messages.c.number)
    .where(messages.c.direction == INBOUND, messages.c.stored_at_ms >= bindparam("since_ms"))
    .order_by(messages.c.number.desc())
    .limit(bindparam("most"))
)
_add_key = Sql(
    insert(message_keys).values(
        message=bindparam("message"), wrapped=bindparam("wrapped"), secrets=bindparam("secrets")
    )
)
_key = Sql(select(message_keys.c.wrapped, message_keys.c.secrets).where(message_keys.c.message == bindparam("message")))
_add_content = Sql(insert(contents).values(message=bindparam("message"), sections=bindparam("sections")))
_content = Sql(select(contents.c.sections).where(contents.c.message == bindparam("message")))
_placements = Sql(
    select(*(placements.c[name] for name in PlacementRow._fields))
    .where(placements.c.message == bindparam("message"))
    .order_by(placements.c.section, placements.c.agency)
)


def _again(rung: str) -> str:
    """What was redirected is delivered once more, to another: later than it was redirected."""
    return " OR placements.rung = 'redirected' AND placements.at_ms <= excluded.at_ms" if rung == "delivered" else ""


#: Text that both databases know, since SQLAlchemy's upserts are each dialect's own; every name in it is a constant.
_RAISE: Final = {
    rung: Sql(
        text(
            f"""
            INSERT INTO placements (message, section, agency, rung, at_ms)
            VALUES (:message, :section, :agency, '{rung}', :at_ms)
            ON CONFLICT (message, section, agency) DO UPDATE SET rung = excluded.rung, at_ms = excluded.at_ms
            WHERE placements.rung IN ({", ".join(repr(low) for low in below(rung)) or "NULL"}){_again(rung)}
            """  # noqa: S608
        ).bindparams(*(bindparam(name, required=True) for name in ("message", "section", "agency", "at_ms")))
    )
    for rung in LADDER
}
_stand = Sql(
    text(
        """
        INSERT INTO placements (message, section, agency, rung, at_ms)
        VALUES (:message, :section, :agency, :rung, :at_ms)
        ON CONFLICT (message, section, agency) DO UPDATE SET rung = excluded.rung, at_ms = excluded.at_ms
        """
    ).bindparams(*(bindparam(name, required=True) for name in ("message", "section", "agency", "rung", "at_ms")))
)
#: Whoever had it before has it no more: it begins anew at the agency that it is given to.
_GIVE: Final = Sql(
    text(
        """
        INSERT INTO placements (message, section, agency, rung, at_ms, given_to)
        VALUES (:message, :section, :agency, 'routed', :at_ms, :given_to)
        ON CONFLICT (message, section, agency) DO UPDATE
        SET rung = excluded.rung, at_ms = excluded.at_ms, given_to = excluded.given_to
        """
    ).bindparams(*(bindparam(name, required=True) for name in ("message", "section", "agency", "at_ms", "given_to")))
)
_take_back = Sql(
    update(placements)
    .where(
        placements.c.message == bindparam("key"),
        placements.c.given_to == bindparam("name"),
        or_(*(placements.c.rung == rung for rung in below("delivered"))),
    )
    .values(given_to=None)
)
_delivered = (
    select(placements.c.message, func.count(placements.c.section.distinct()), func.max(message_keys.c.message))
    .select_from(
        placements.join(messages, messages.c.number == placements.c.message).outerjoin(
            message_keys, message_keys.c.message == placements.c.message
        )
    )
    .where(
        messages.c.direction == INBOUND,
        placements.c.given_to == bindparam("agency"),
        or_(*(placements.c.rung == rung for rung in ("delivered", "queried", "owned"))),
        placements.c.at_ms >= bindparam("since_ms"),
    )
    .group_by(placements.c.message)
    .order_by(placements.c.message)
)
_delivered_to = Sql(_delivered)
_delivered_of = Sql(_delivered.where(placements.c.message == bindparam("message")))
_add_receipt = Sql(
    insert(receipts).values(
        leaf_hash=bindparam("leaf_hash"),
        message=bindparam("message"),
        rung=bindparam("rung"),
        statement=bindparam("statement"),
        proof=bindparam("proof"),
        position=bindparam("position"),
        at_ms=bindparam("at_ms"),
    )
)
_receipt = Sql(
    select(receipts.c.rung).where(
        receipts.c.message == bindparam("message"), receipts.c.leaf_hash == bindparam("leaf_hash")
    )
)
_receipt_by_hash = Sql(
    select(receipts.c.rung, receipts.c.statement, receipts.c.proof, receipts.c.position).where(
        receipts.c.message == bindparam("message"), receipts.c.leaf_hash == bindparam("leaf_hash")
    )
)
_count_receipts = Sql(
    select(func.count())
    .select_from(receipts)
    .where(
        receipts.c.message == bindparam("message"),
        *(receipts.c.rung != rung for rung in ("owned", "queried", "redirected")),
    )
)
_received_at = Sql(
    select(receipts.c.at_ms).where(receipts.c.message == bindparam("message"), receipts.c.rung == "received").limit(1)
)
_receipts = Sql(
    select(receipts.c.rung, receipts.c.statement, receipts.c.proof, receipts.c.position)
    .where(receipts.c.message == bindparam("message"))
    .order_by(receipts.c.at_ms, receipts.c.leaf_hash)
)
_add_event = Sql(
    insert(timeline).values(
        message=bindparam("message"),
        at_ms=bindparam("at_ms"),
        event=bindparam("event"),
        agency=bindparam("agency"),
        detail=bindparam("detail"),
    )
)
_events = Sql(
    select(timeline.c.at_ms, timeline.c.event, timeline.c.agency, timeline.c.detail)
    .where(timeline.c.message == bindparam("message"))
    .order_by(timeline.c.number)
)
_add_alarm = Sql(
    insert(alarms).values(
        at_ms=bindparam("at_ms"),
        kind=bindparam("kind"),
        origin=bindparam("origin"),
        detail=bindparam("detail"),
        evidence=bindparam("evidence"),
    )
)
_alarm = Sql(
    select(alarms.c.number)
    .where(
        alarms.c.kind == bindparam("kind"),
        alarms.c.origin == bindparam("origin"),
        alarms.c.detail == bindparam("detail"),
    )
    .limit(1)
)
_alarms_about = Sql(
    select(alarms.c.at_ms, alarms.c.detail, alarms.c.evidence)
    .where(alarms.c.kind == bindparam("kind"), alarms.c.origin == bindparam("origin"))
    .order_by(alarms.c.number.desc())
    .limit(MOST_ALARMS_ABOUT)
)
_alarms = Sql(
    select(alarms.c.at_ms, alarms.c.kind, alarms.c.origin, alarms.c.detail)
    .order_by(alarms.c.number.desc())
    .limit(bindparam("most"))
)


async def add_message(tx: Transaction, row: MessageRow, keys: KeysRow, sealed: Iterable[SectionRow]) -> int:
    """Store a message with its key and sections; return its number (`row.number` is not used)."""
    number = await add_empty_message(tx, row)
    await tx.execute(_add_key, {"message": number, "wrapped": keys.wrapped, "secrets": keys.secrets})
    packed = _encode_sections({section.section: section.ciphertext for section in sealed})
    await tx.execute(_add_content, {"message": number, "sections": packed})
    return number


async def add_empty_message(tx: Transaction, row: MessageRow) -> int:
    """Store a message of which the content is not here; return its number (`row.number` is not used)."""
    return await tx.insert(_add, {name: getattr(row, name) for name in _ADDED})


async def find_message(tx: Transaction, origin: str, message_id: str) -> MessageRow | None:
    """The message that `origin` sent under that id, if it is here."""
    row = await tx.fetch_one(_by_origin, {"origin": origin, "message_id": message_id})
    return MessageRow(*row) if row else None


async def message_by_id(tx: Transaction, message_id: str) -> MessageRow:
    """The message with that id, whoever sent it.

    Raises:
        NotFound: there is none.
    """
    row = await tx.fetch_one(_by_id, {"message_id": message_id})
    if row is None:
        raise NotFound(f"there is no message {message_id}")
    return MessageRow(*row)


async def messages_by_id(tx: Transaction, message_id: str) -> list[MessageRow]:
    """The messages with that id: it is its sender that makes it unique."""
    return [MessageRow(*row) for row in await tx.fetch_all(_all_by_id, {"message_id": message_id})]


async def message_by_number(tx: Transaction, number: int) -> MessageRow:
    """The message with that number.

    Raises:
        NotFound: there is none.
    """
    row = await tx.fetch_one(_by_number, {"number": number})
    if row is None:
        raise NotFound(f"there is no message number {number}")
    return MessageRow(*row)


class Delivered(NamedTuple):
    """A message of which an agency accepted sections; without content where that was erased."""

    message: int
    sections: int
    has_content: bool


async def delivered_to(tx: Transaction, agency: str, since_ms: int, number: int | None) -> list[Delivered]:
    """What an agency accepted since a time, of one message or of all, oldest first."""
    if number is None:
        rows = await tx.fetch_all(_delivered_to, {"agency": agency, "since_ms": since_ms})
    else:
        rows = await tx.fetch_all(_delivered_of, {"agency": agency, "since_ms": since_ms, "message": number})
    return [Delivered(int(row[0]), int(row[1]), row[2] is not None) for row in rows]


async def list_messages(tx: Transaction, direction: str, most: int) -> list[MessageRow]:
    """The latest messages of a direction, newest first."""
    return [MessageRow(*row) for row in await tx.fetch_all(_list, {"direction": direction, "most": most})]


async def arrived_since(tx: Transaction, since_ms: int, most: int) -> list[int]:
    """The numbers of the messages that arrived since a time, the latest first."""
    return [int(row[0]) for row in await tx.fetch_all(_arrived, {"since_ms": since_ms, "most": most})]


async def keys_of(tx: Transaction, number: int) -> KeysRow:
    """The keys to a message's content.

    Raises:
        NotFound: it was erased.
    """
    row = await tx.fetch_one(_key, {"message": number})
    if row is None:
        raise NotFound("the content of this message was erased")
    return KeysRow(*row)


async def sections_of(tx: Transaction, number: int) -> list[SectionRow]:
    """The sealed sections of a message, in the order of its manifest."""
    row = await tx.fetch_one(_content, {"message": number})
    return [SectionRow(*pair) for pair in _decode_sections(row[0]).items()] if row else []


async def placements_of(tx: Transaction, number: int) -> list[PlacementRow]:
    """How far each section of a message has come at each agency; those not yet past `received` have no row."""
    return [PlacementRow(*row) for row in await tx.fetch_all(_placements, {"message": number})]


async def raise_rung(tx: Transaction, number: int, rung: str, pairs: Iterable[tuple[str, str]], at_ms: int) -> None:
    """Move sections at agencies up to `rung`; what stands there or higher already stays."""
    await tx.execute_many(
        _RAISE[rung],
        [{"message": number, "section": section, "agency": kind, "at_ms": at_ms} for section, kind in pairs],
    )


async def stand(tx: Transaction, number: int, rung: str, pairs: Iterable[tuple[str, str]], at_ms: int) -> None:
    """Let sections at agencies stand at `rung` from now on, wherever they stood."""
    rows = [
        {"message": number, "section": section, "agency": kind, "rung": rung, "at_ms": at_ms} for section, kind in pairs
    ]
    await tx.execute_many(_stand, rows)


async def give_sections(tx: Transaction, number: int, given: Iterable[tuple[str, str, str]], at_ms: int) -> None:
    """Give sections of a message that arrived to local agencies: section, kind of reader, and the agency's name."""
    await tx.execute_many(
        _GIVE,
        [
            {"message": number, "section": section, "agency": kind, "at_ms": at_ms, "given_to": name}
            for section, kind, name in given
        ],
    )


async def take_back(tx: Transaction, number: int, name: str) -> None:
    """Take the sections of a message that an agency was given, and has not accepted, from it."""
    await tx.execute(_take_back, {"key": number, "name": name})


async def received_at_ms(tx: Transaction, number: int) -> int | None:
    """When the receiving node signed for the message, if it has."""
    row = await tx.fetch_one(_received_at, {"message": number})
    return int(row[0]) if row else None


async def add_receipt(
    tx: Transaction,
    number: int,
    rung: str,
    leaf_hash: bytes,
    statement: bytes,
    now_ms: int,
    *,
    proof: str | None = None,
    position: int | None = None,
) -> bool:
    """Keep a receipt; False where it was here already."""
    if await has_receipt(tx, number, leaf_hash):
        return False
    await tx.execute(
        _add_receipt,
        {
            "leaf_hash": leaf_hash,
            "message": number,
            "rung": rung,
            "statement": statement,
            "proof": proof,
            "position": position,
            "at_ms": now_ms,
        },
    )
    return True


async def has_receipt(tx: Transaction, number: int, leaf_hash: bytes) -> bool:
    """Whether a receipt of a message is kept."""
    return await tx.fetch_one(_receipt, {"message": number, "leaf_hash": leaf_hash}) is not None


async def receipt_by_hash(tx: Transaction, number: int, leaf_hash: bytes) -> ReceiptRow:
    """A receipt of a message.

    Raises:
        NotFound: it is not kept.
    """
    row = await tx.fetch_one(_receipt_by_hash, {"message": number, "leaf_hash": leaf_hash})
    if row is None:
        raise NotFound("the receipt is not here")
    return ReceiptRow(*row)


async def count_receipts(tx: Transaction, number: int) -> int:
    """How many receipts of a message are kept, but for those with an agency's words."""
    row = await tx.fetch_one(_count_receipts, {"message": number})
    return int(row[0]) if row else 0


async def receipts_of(tx: Transaction, number: int) -> list[ReceiptRow]:
    """The receipts of a message, oldest first."""
    return [ReceiptRow(*row) for row in await tx.fetch_all(_receipts, {"message": number})]


async def add_event(
    tx: Transaction,
    number: int,
    event: str,
    now_ms: int,
    *,
    agency: str | None = None,
    detail: str | None = None,
) -> None:
    """Add a line to a message's timeline; `detail` never holds content of a form."""
    await tx.execute(
        _add_event,
        {
            "message": number,
            "at_ms": now_ms,
            "event": event,
            "agency": agency,
            "detail": detail,
        },
    )


async def add_rung_events(
    tx: Transaction, number: int, rung: str, pairs: Iterable[tuple[str, str]], now_ms: int
) -> None:
    """Add a line to a message's timeline for each agency whose sections have come to `rung`."""
    sections_by_agency: dict[str, list[str]] = {}
    for section, kind in pairs:
        sections_by_agency.setdefault(kind, []).append(section)
    for kind, names in sections_by_agency.items():
        await add_event(tx, number, rung, now_ms, agency=kind, detail=", ".join(names))


async def events_of(tx: Transaction, number: int) -> list[EventRow]:
    """The timeline of a message."""
    return [EventRow(*row) for row in await tx.fetch_all(_events, {"message": number})]


async def add_alarm(
    tx: Transaction, kind: str, origin: str, detail: str, now_ms: int, evidence: bytes | None = None
) -> None:
    """Tell the admins; `evidence` is sealed by the store key."""
    await tx.execute(
        _add_alarm, {"at_ms": now_ms, "kind": kind, "origin": origin, "detail": detail, "evidence": evidence}
    )


async def has_alarm(tx: Transaction, kind: str, origin: str, detail: str) -> bool:
    """Whether the admins were told that already; the list is short."""
    return await tx.fetch_one(_alarm, {"kind": kind, "origin": origin, "detail": detail}) is not None


async def alarms_about(tx: Transaction, kind: str, origin: str) -> list[tuple[int, str, bytes | None]]:
    """The alarms of a kind about a peer, newest first: time, detail, sealed evidence."""
    return [
        (int(row[0]), str(row[1]), None if row[2] is None else bytes(row[2]))
        for row in await tx.fetch_all(_alarms_about, {"kind": kind, "origin": origin})
    ]


async def add_alarm_once_a_day(tx: Transaction, kind: str, origin: str, detail: str, now_ms: int) -> bool:
    """Add an alarm that says what none of the last day said; whether it was added."""
    told = await alarms_about(tx, kind, origin)
    if any(earlier == detail and now_ms - at_ms < _DAY_MS for at_ms, earlier, _ in told):
        return False
    await add_alarm(tx, kind, origin, detail, now_ms)
    return True


async def list_alarms(tx: Transaction, most: int) -> list[tuple[int, str, str, str]]:
    """The latest alarms, newest first: time, kind, origin, detail."""
    rows = await tx.fetch_all(_alarms, {"most": most})
    return [(int(row[0]), str(row[1]), str(row[2]), str(row[3])) for row in rows]
