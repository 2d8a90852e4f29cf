"""Receipts that a peer sends by itself: which are taken, what they move, and which are refused."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.schema.wire import RECEIPT, Placement, ProvenStatement, Receipt, Rung, encode_wire
from tests.node.handmade import Borough, Desk, is_manifest, read_reply
from tests.node.pair import Clock, Node, form

CAMDEN, BRENT = "E09000007", "E09000005"
HOUSING = Placement(section="housing", agency="housing")
POLICE = Placement(section="police", agency="police")


@pytest.fixture
async def sent(hackney: Node, desk: Desk, clock: Clock) -> ProvenStatement:
    """The manifest of a message that the hand-made borough has received."""
    clock.run()
    await hackney.know(desk.borough)
    await hackney.reached(await hackney.send(CAMDEN), "received")
    desk.borough.shown = len(desk.borough.statements)
    return next(item for item in desk.opened[0].items if is_manifest(item))


async def say(hackney: Node, camden: Borough, *items: ProvenStatement) -> list[str | None]:
    """Send statements; return the code of each that was refused."""
    status, body = await hackney.post(camden.envelope(await hackney.card(), camden.latest(*items)))
    assert status == 200
    return [result.problem.code if result.problem else None for result in read_reply(body).results]


async def rungs(hackney: Node) -> dict[tuple[str, str], str]:
    """The rung of each section that has moved by itself."""
    rows = hackney.rows("SELECT section, agency, rung FROM placements")
    return {(section, agency): rung for section, agency, rung in rows}


async def test_a_receipt_moves_the_sections_that_it_names(hackney: Node, desk: Desk, sent: ProvenStatement) -> None:
    receipt = desk.borough.sign_receipt(sent, Rung.ROUTED, placements=(HOUSING,))
    assert await say(hackney, desk.borough, receipt) == [None]
    assert await rungs(hackney) == {("housing", "housing"): "routed"}
    (message,) = (await hackney.local("GET", "/v1/outbox"))[1]["items"]
    found = {
        (section["section"], section["agency"]): section["rung"]
        for section in (await hackney.status(message["id"]))["sections"]
    }
    assert found.pop(("housing", "housing")) == "routed"
    assert set(found.values()) == {"received"}


async def test_a_late_receipt_of_a_lower_rung_moves_nothing_back(
    hackney: Node, desk: Desk, sent: ProvenStatement
) -> None:
    camden = desk.borough
    delivered = camden.sign_receipt(sent, Rung.DELIVERED, placements=(HOUSING,))
    routed = camden.sign_receipt(sent, Rung.ROUTED, placements=(HOUSING, POLICE))
    assert await say(hackney, camden, delivered, routed) == [None, None]
    assert await rungs(hackney) == {("housing", "housing"): "delivered", ("police", "police"): "routed"}


async def test_a_receipt_that_comes_twice_is_kept_once(hackney: Node, desk: Desk, sent: ProvenStatement) -> None:
    receipt = desk.borough.sign_receipt(sent, Rung.ROUTED, placements=(HOUSING,))
    assert await say(hackney, desk.borough, receipt, receipt) == [None, None]
    kept = hackney.kept()
    assert await say(hackney, desk.borough, receipt) == [None]
    assert hackney.kept() == kept
    assert kept["receipts"] == 2


async def test_what_can_be_checked_by_an_outsider_is_what_the_peer_signed(
    hackney: Node, desk: Desk, sent: ProvenStatement
) -> None:
    receipt = desk.borough.sign_receipt(sent, Rung.DELIVERED, placements=(HOUSING,))
    await say(hackney, desk.borough, receipt)
    (message,) = (await hackney.local("GET", "/v1/outbox"))[1]["items"]
    _, document = await hackney.local("GET", f"/v1/messages/{message['id']}/receipts")
    statements = [msgspec.convert(item["statement"], bytes) for item in document["receipts"]]
    assert receipt.statement in statements
    assert len(statements) == 2


Bend = Callable[[Node, Borough, ProvenStatement], Awaitable[ProvenStatement]]


def changed(rung: Rung = Rung.ROUTED, **changes: Any) -> Bend:
    async def make(hackney: Node, camden: Borough, sent: ProvenStatement) -> ProvenStatement:
        return camden.sign_receipt(sent, rung, **changes)

    return make


def raw(**changes: Any) -> Bend:
    async def make(hackney: Node, camden: Borough, sent: ProvenStatement) -> ProvenStatement:
        body = camden.sign_receipt(sent, Rung.ROUTED).statement.split(b" ", 4)[4]
        return camden.sign(RECEIPT, msgspec.msgpack.encode(msgspec.msgpack.decode(body) | changes))

    return make


async def of_what_was_sent_elsewhere(hackney: Node, camden: Borough, sent: ProvenStatement) -> ProvenStatement:
    """A receipt for a message that another borough was sent."""
    brent = Borough("exchange.brent.example", BRENT, camden._now_ms)
    await hackney.know(brent)
    status, _ = await hackney.local("POST", f"/v1/messages/to/{BRENT}", data=form(BRENT))
    assert status == 201
    ((statement,),) = hackney.rows("SELECT statement FROM messages WHERE peer = ?", brent.origin)
    return camden.sign_receipt(ProvenStatement(statement=statement, proof=""))


async def of_its_own_message(hackney: Node, camden: Borough, sent: ProvenStatement) -> ProvenStatement:
    """A receipt of the sender for what it sent itself."""
    card = await hackney.card()
    made = camden.message(card)
    manifest = camden.sign_manifest(made)
    await hackney.post(camden.envelope(card, [manifest], made.ciphertexts))
    return camden.sign_receipt(manifest, recipient=hackney.origin)


EAST = timezone(timedelta(hours=14))
REFUSED: dict[str, tuple[Bend, str]] = {
    "of a message that was never sent": (
        changed(message_id="0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"),
        "receipt-unknown",
    ),
    "of a message to another borough": (of_what_was_sent_elsewhere, "receipt-unknown"),
    "of a message that came in": (of_its_own_message, "receipt-unknown"),
    "of another content": (changed(leaf_hash=bytes(32)), "receipt-hash"),
    "of another node": (changed(origin="exchange.brent.example"), "receipt-origin"),
    "for another node": (changed(recipient="exchange.brent.example"), "receipt-origin"),
    "in the name of the sender": (changed(origin="exchange.hackney.example"), "receipt-origin"),
    "a section that was not sent": (
        changed(placements=(Placement(section="gossip", agency="police"),)),
        "receipt-placements",
    ),
    "an agency that was not sent to": (
        changed(placements=(HOUSING, Placement(section="police", agency="housing"))),
        "receipt-placements",
    ),
    "received, with placements of nothing": (
        changed(Rung.RECEIVED, placements=(Placement(section="gossip", agency="police"),)),
        "receipt-placements",
    ),
    "a rung that does not exist": (raw(rung="understood"), "wire-invalid"),
    "an unknown version": (raw(version=2), "wire-invalid"),
    "an unknown member": (raw(more=1), "wire-invalid"),
    "a time without a zone": (raw(at="2026-11-23T16:00:00"), "wire-invalid"),
    "a time in another zone": (raw(at="2026-11-23T16:00:00+14:00"), "wire-invalid"),
    "a time before all times": (raw(at="0001-01-01T00:00:00+14:00"), "wire-invalid"),
    "the first time of all": (raw(at="0001-01-01T00:00:00Z"), "wire-invalid"),
    "a time after all times": (raw(at="9999-12-31T23:59:59.999999Z"), "wire-invalid"),
    "a target that is no kind of agency": (raw(to="Housing/South"), "wire-invalid"),
    "owned, and nothing said of who holds it": (changed(Rung.OWNED, placements=(HOUSING,)), "words-invalid"),
    "owned, of two sections at once": (changed(Rung.OWNED, placements=(HOUSING, POLICE)), "receipt-placements"),
    "queried, of nothing": (changed(Rung.QUERIED), "receipt-placements"),
    "delivered, and something said": (changed(Rung.DELIVERED, placements=(HOUSING,), to="police"), "words-not-there"),
    "too many placements": (raw(placements=[{"section": "a", "agency": "b"}] * 4097), "wire-invalid"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_receipt_that_does_not_fit_is_refused_and_moves_nothing(
    hackney: Node, desk: Desk, sent: ProvenStatement, name: str
) -> None:
    bend, code = REFUSED[name]
    receipt = await bend(hackney, desk.borough, sent)
    kept = hackney.kept()
    assert await say(hackney, desk.borough, receipt) == [code]
    after = hackney.kept()
    assert {table for table in after if after[table] != kept[table]} == set()
    assert hackney.count(f"items_refused_{code}") == 1
    assert (await hackney.local("GET", "/v1/outbox"))[0] == 200
    for item in (await hackney.local("GET", "/v1/outbox"))[1]["items"]:
        assert (await hackney.local("GET", f"/v1/messages/{item['id']}"))[0] == 200


@given(st.datetimes(timezones=st.just(UTC) | st.timezones() | st.just(EAST)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_time_is_utc_and_far_from_the_ends_of_the_calendar_or_refused(at: datetime) -> None:
    whole = at.utcoffset() == timedelta() and 1970 <= at.year <= 9998
    try:
        made = Receipt(
            version=1,
            message_id="0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10",
            leaf_hash=bytes(32),
            rung=Rung.RECEIVED,
            origin="a.example",
            recipient="b.example",
            at=at,
        )
    except ValueError:
        assert not whole
    else:
        assert whole
        assert msgspec.msgpack.decode(encode_wire(made), type=Receipt) == made
