"""A store of the time when a kind had one agency becomes one of named agencies; nothing that waited in it is lost."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from exchange.store.migrate import migrate_sqlite
from exchange.store.postgresql import migrate_postgresql
from tests import databases

READERS = {"subject": ["housing", "police"], "subject.nino": ["dwp"], "housing": ["housing"], "contacts": ["housing"]}


def migrate(url: str, revision: str) -> None:
    if url.startswith("sqlite:///"):
        migrate_sqlite(Path(url.removeprefix("sqlite:///")), revision)
    else:
        asyncio.run(migrate_postgresql(url, revision))


def insert(url: str, table: str, /, **row: object) -> None:
    marks = ", ".join("?" * len(row))
    databases.execute(url, f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", *row.values())


def add_message(url: str, number: int, direction: str) -> None:
    body = msgspec.msgpack.encode({"sections": [{"name": name, "readers": kinds} for name, kinds in READERS.items()]})
    insert(
        url,
        "messages",
        number=number,
        origin="a.example",
        message_id=f"id-{number}",
        direction=direction,
        peer="a.example",
        leaf_hash=b"leaf",
        statement=b"exchange/1 8 manifest %d %s" % (len(body), body),
        urgent=0,
        created_at_ms=1,
        expires_at_ms=2,
        stored_at_ms=3,
    )


def add_agency(url: str, kind: str) -> None:
    insert(
        url,
        "agencies",
        id=f"agency-{kind}",
        kind=kind,
        url="https://a.example/hook",
        wrapped_secret=b"secret",
        networks="[]",
        added_at_ms=1,
    )
    insert(url, "endpoints", agency=f"agency-{kind}", state="active", since_ms=1, stage="single")


def place(url: str, number: int, section: str, kind: str, rung: str) -> None:
    insert(url, "placements", message=number, section=section, agency=kind, rung=rung, at_ms=4)


def deliver(url: str, message: int, kind: str, state: str, reason: str | None = None) -> None:
    insert(
        url,
        "outbox",
        lane=f"agency:{kind}",
        state=state,
        rank=1,
        kind="webhook",
        message=message,
        agency=kind,
        attempts=0,
        lease_until_ms=0,
        deadline_ms=9,
        created_at_ms=3,
        reason=reason,
    )


def test_an_agency_keeps_what_it_had_and_what_had_none_waits_to_be_routed(new_url: Callable[[], str]) -> None:
    url = new_url()
    migrate(url, "0009")
    add_agency(url, "housing")
    add_message(url, 1, "in")
    # Registered after the message had come: it has accepted one section, and two that were never routed wait.
    place(url, 1, "subject", "housing", "delivered")
    deliver(url, 1, "housing", "due")
    # The police were removed when they had been routed to; the jobcentre was never there.
    place(url, 1, "subject", "police", "routed")
    deliver(url, 1, "police", "held", "no agency of kind police is registered")
    deliver(url, 1, "dwp", "held", "no agency of kind dwp is registered")
    add_message(url, 2, "out")
    place(url, 2, "subject", "housing", "delivered")

    migrate(url, "0010")

    assert databases.rows(url, "SELECT id, name FROM agencies") == [("agency-housing", "housing")]
    assert databases.rows(url, "SELECT agency FROM endpoints") == [("agency-housing",)]
    placed = "SELECT message, section, agency, rung, given_to FROM placements ORDER BY message, section, agency"
    assert databases.rows(url, placed) == [
        (1, "contacts", "housing", "received", "housing"),
        (1, "housing", "housing", "received", "housing"),
        (1, "subject", "housing", "delivered", "housing"),
        (1, "subject", "police", "routed", None),
        (2, "subject", "housing", "delivered", None),
    ]
    waiting = "SELECT lane, kind, agency, state, reason FROM outbox ORDER BY lane"
    assert databases.rows(url, waiting) == [
        ("agency:housing", "webhook", "housing", "due", None),
        ("route:dwp", "route", "dwp", "held", "no agency of kind dwp is registered"),
        ("route:police", "route", "police", "held", "no agency of kind police is registered"),
    ]
