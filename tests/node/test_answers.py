"""What a peer answers to an envelope: nothing but a fitting receipt ends a delivery, and no message is lost."""

import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from exchange.crypto.envelope import MAX_ENVELOPE_BYTES, seal_reply
from exchange.crypto.secret import Secret
from exchange.crypto.statement import encode_statement, leaf_hash
from exchange.schema.wire import (
    RECEIPT,
    EnvelopePayload,
    ProblemDetails,
    ProvenStatement,
    Result,
    Rung,
    encode_wire,
)
from tests.node.handmade import Bend, Borough, Desk, is_manifest, message_id
from tests.node.pair import Clock, Node, until

CAMDEN = "E09000007"


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


async def introduce(hackney: Node, camden: Borough) -> None:
    """Register the borough, and wait until the greeting has gone."""
    await hackney.know(camden)

    async def quiet() -> bool:
        return not hackney.rows("SELECT 1 FROM outbox")

    await until("the greeting has been answered", quiet)


async def attempts(desk: Desk, count: int) -> None:
    """Wait until messages were sent `count` times more."""
    wanted = len(desk.opened) + count

    async def enough() -> bool:
        return len(desk.opened) >= wanted

    await until(f"{wanted} envelopes with messages came", enough)


def status(code: int, **headers: str) -> Bend:
    return lambda desk, opened: web.Response(status=code, headers=headers, text="something that it said")


def problem(code: str) -> Bend:
    body = json.dumps({"code": code}).encode()
    return lambda desk, opened: web.Response(status=403, body=body, content_type="application/problem+json")


def body(data: bytes) -> Bend:
    return lambda desk, opened: web.Response(body=data)


def sealed(payload: bytes) -> Bend:
    return lambda desk, opened: web.Response(body=seal_reply(Secret(opened.reply_secret), payload))


def reply(**changes: Any) -> Bend:
    return lambda desk, opened: desk.borough.reply(opened, desk.results(opened), **changes)


def results(change: Callable[[Desk, EnvelopePayload, list[Result]], list[Result]]) -> Bend:
    return lambda desk, opened: desk.borough.reply(opened, change(desk, opened, desk.results(opened)))


def receipt(rung: Rung = Rung.RECEIVED, **changes: Any) -> Bend:
    """A receipt that is not the one that is due."""

    def change(desk: Desk, opened: EnvelopePayload, _: list[Result]) -> list[Result]:
        proven = desk.borough.sign_receipt(opened.items[0], rung, **changes)
        return [Result(leaf_hash=leaf_hash(opened.items[0].statement), receipt=proven)]

    return results(change)


def other(change: Callable[[ProvenStatement], ProvenStatement]) -> Bend:
    """The receipt that is due, with something else in it."""
    return results(
        lambda desk, opened, found: [msgspec.structs.replace(found[0], receipt=change(found[0].receipt))]  # type: ignore[arg-type]
    )


def of_another_type(desk: Desk, opened: EnvelopePayload, _: list[Result]) -> list[Result]:
    return [Result(leaf_hash=leaf_hash(opened.items[0].statement), receipt=desk.borough.card())]


def of_another_borough(desk: Desk, opened: EnvelopePayload, _: list[Result]) -> list[Result]:
    thief = Borough(desk.borough.origin, CAMDEN, desk.borough._now_ms)
    item = opened.items[0]
    return [Result(leaf_hash=leaf_hash(item.statement), receipt=thief.sign_receipt(item))]


AGAIN: dict[str, Bend] = {
    "a 500": status(500),
    "a 404": status(404),
    "a 503 that says when": status(503, **{"retry-after": "0"}),
    "a 503 that says when in no number": status(503, **{"retry-after": "²"}),
    "a 503 that says when as a date": status(503, **{"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    "a redirect": status(307, location="http://127.0.0.1:9/"),
    "unacceptable": problem("unacceptable"),
    "a problem with a very long code": problem("x" * 100_000),
    "a 201": status(201),
    "nothing": body(b""),
    "noise": body(bytes(20_000)),
    "more than 16 MiB": body(bytes(MAX_ENVELOPE_BYTES + 1)),
    "the reply to another envelope": lambda desk, opened: desk.borough.reply(
        msgspec.structs.replace(opened, reply_secret=bytes(32)), desk.results(opened)
    ),
    "a reply that is not MessagePack": sealed(b"\xc1"),
    "an unknown version": reply(version=2),
    "no results": reply(results=()),
    "a result too many": results(lambda desk, opened, found: [*found, *found]),
    "a result for another statement": results(
        lambda desk, opened, found: [msgspec.structs.replace(found[0], leaf_hash=bytes(32))]
    ),
    "a refusal of another statement": results(
        lambda desk, opened, found: [Result(leaf_hash=bytes(32), problem=ProblemDetails(code="expired", detail=""))]
    ),
    "acceptance without a receipt": results(
        lambda desk, opened, found: [msgspec.structs.replace(found[0], receipt=None)]
    ),
    "a receipt with half a proof": other(lambda r: msgspec.structs.replace(r, proof=r.proof[: len(r.proof) // 2])),
    "a receipt with another statement": other(
        lambda r: msgspec.structs.replace(r, statement=encode_statement(RECEIPT, b"\x80"))
    ),
    "a card as receipt": results(of_another_type),
    "a receipt signed by somebody else": results(of_another_borough),
    "a receipt of another rung": receipt(Rung.DELIVERED),
    "a receipt for another message": receipt(message_id="0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"),
    "a receipt for another content": receipt(leaf_hash=bytes(32)),
    "a receipt of another node": receipt(origin="exchange.brent.example"),
    "a receipt for another node": receipt(recipient="exchange.brent.example"),
}


@pytest.mark.parametrize("name", AGAIN)
async def test_a_message_is_sent_again_until_a_fitting_receipt_comes(
    hackney: Node, desk: Desk, lines: io.StringIO, name: str
) -> None:
    await introduce(hackney, desk.borough)
    desk.bend = AGAIN[name]
    sent = await hackney.send(CAMDEN)
    await attempts(desk, 2)
    found = await hackney.status(sent)
    assert {section["rung"] for section in found["sections"]} == {None}
    assert found["held"] is None
    assert found["last_error"]
    assert "internal error" not in found["last_error"]
    assert "something that it said" not in found["last_error"] + lines.getvalue()
    assert len(found["last_error"]) < 300
    assert hackney.rows("SELECT count(*) FROM receipts") == [(0,)]
    desk.bend = None
    await hackney.reached(sent, "received")
    assert hackney.rows("SELECT 1 FROM outbox") == []
    assert (await hackney.status(sent))["last_error"] is None


async def test_an_old_receipt_does_not_end_the_delivery_of_a_new_message(hackney: Node, desk: Desk) -> None:
    await introduce(hackney, desk.borough)
    first = await hackney.send(CAMDEN)
    await hackney.reached(first, "received")
    old = desk.opened[0].items[0]

    def replay(_: Desk, opened: EnvelopePayload, found: list[Result]) -> list[Result]:
        return [Result(leaf_hash=found[0].leaf_hash, receipt=desk.borough.sign_receipt(old))]

    desk.bend = results(replay)
    second = await hackney.send(CAMDEN)
    await attempts(desk, 2)
    assert {section["rung"] for section in (await hackney.status(second))["sections"]} == {None}
    desk.bend = None
    await hackney.reached(second, "received")
    assert desk.received.count(second) >= 1


async def test_swapped_receipts_end_no_delivery(hackney: Node, desk: Desk, clock: Clock) -> None:
    await introduce(hackney, desk.borough)
    desk.bend = lambda desk, opened: web.Response(status=500) if len(opened.items) < 2 else swapped(desk, opened)
    swapped = results(
        lambda desk, opened, found: [
            msgspec.structs.replace(found[0], receipt=found[1].receipt),
            msgspec.structs.replace(found[1], receipt=found[0].receipt),
        ]
    )
    ids = [await hackney.send(CAMDEN), await hackney.send(CAMDEN)]
    await attempts(desk, 2)
    desk.bend = None
    for sent in ids:
        await hackney.reached(sent, "received")
    assert hackney.rows("SELECT count(*) FROM receipts") == [(2,)]


async def test_what_a_peer_refuses_is_held_with_its_code_and_can_be_released(
    hackney: Node, desk: Desk, lines: io.StringIO
) -> None:
    await introduce(hackney, desk.borough)
    refusal = ProblemDetails(code="recipient-wrong", detail="something that it said")
    desk.bend = results(lambda desk, opened, found: [Result(leaf_hash=found[0].leaf_hash, problem=refusal)])
    sent = await hackney.send(CAMDEN)

    async def held() -> Any:
        return (await hackney.status(sent))["held"]

    assert await until("the message is held", held) == "refused by exchange.camden.example: recipient-wrong"
    assert "something that it said" not in lines.getvalue()
    (item,) = (await hackney.local("GET", "/v1/held"))[1]["items"]
    assert (item["id"], item["kind"]) == (sent, "manifest")
    desk.bend = None
    assert (await hackney.local("POST", f"/v1/held/{item['number']}/release"))[0] == 200
    await hackney.reached(sent, "received")
    assert (await hackney.local("GET", "/v1/held"))[1]["items"] == []


async def test_of_a_refusal_only_a_code_is_shown_and_logged(hackney: Node, desk: Desk, lines: io.StringIO) -> None:
    await introduce(hackney, desk.borough)
    refusal = ProblemDetails(code="something that it said", detail="")
    desk.bend = results(lambda desk, opened, found: [Result(leaf_hash=found[0].leaf_hash, problem=refusal)])
    sent = await hackney.send(CAMDEN)

    async def held() -> Any:
        return (await hackney.status(sent))["held"]

    assert await until("the message is held", held) == "refused by exchange.camden.example: no code"
    assert "something that it said" not in lines.getvalue()


async def test_one_refused_message_does_not_hold_up_the_one_beside_it(hackney: Node, desk: Desk) -> None:
    await introduce(hackney, desk.borough)
    refused: set[str] = set()

    def refuse(desk: Desk, opened: EnvelopePayload, found: list[Result]) -> list[Result]:
        return [
            Result(leaf_hash=one.leaf_hash, problem=ProblemDetails(code="expired", detail=""))
            if is_manifest(item) and message_id(item) in refused
            else one
            for item, one in zip(opened.items, found, strict=True)
        ]

    desk.bend = lambda desk, opened: results(refuse)(desk, opened) if refused else web.Response(status=500)
    sent, beside = await hackney.send(CAMDEN), await hackney.send(CAMDEN)
    refused.add(sent)
    await hackney.reached(beside, "received")

    async def held() -> Any:
        return (await hackney.status(sent))["held"]

    assert await until("the message is held", held) == "refused by exchange.camden.example: expired"


async def test_what_is_too_large_together_is_tried_one_message_at_a_time(hackney: Node, desk: Desk) -> None:
    await introduce(hackney, desk.borough)
    desk.bend = status(500)
    ids = [await hackney.send(CAMDEN) for _ in range(5)]
    desk.bend = lambda desk, opened: web.Response(status=413) if len(opened.items) > 1 else None
    for sent in ids:
        await hackney.reached(sent, "received")
    assert (await hackney.local("GET", "/v1/held"))[1]["items"] == []
    assert max(len(opened.items) for opened in desk.opened) > 1


async def test_many_messages_go_in_large_envelopes(hackney: Node, desk: Desk) -> None:
    await introduce(hackney, desk.borough)
    desk.bend = status(500)
    ids = [await hackney.send(CAMDEN) for _ in range(60)]
    desk.bend = None
    for sent in ids:
        await hackney.reached(sent, "received")
    assert sorted(set(desk.received)) == sorted(ids)
    assert max(sum(map(len, opened.ciphertexts)) for opened in desk.opened) > 256 * 1024


async def test_cookies_are_not_kept(hackney: Node, desk: Desk) -> None:
    cookies: list[str | None] = []
    original = desk.answer

    async def answer(request: web.Request) -> web.StreamResponse:
        cookies.append(request.headers.get("cookie"))
        response = await original(request)
        response.set_cookie("tracked", "yes")
        return response

    camden = desk.borough
    async with camden.listening(answer):
        # By name, since cookies of bare addresses are not kept anyway.
        camden.url = camden.url.replace("127.0.0.1", "localhost")
        await introduce(hackney, camden)
        await hackney.reached(await hackney.send(CAMDEN), "received")
    assert len(cookies) >= 2
    assert set(cookies) == {None}


async def test_what_by_itself_is_too_large_for_the_peer_is_held(hackney: Node, desk: Desk) -> None:
    await introduce(hackney, desk.borough)
    desk.bend = status(413)
    sent = await hackney.send(CAMDEN)

    async def held() -> Any:
        return (await hackney.status(sent))["held"]

    assert await until("the message is held", held) == "the peer finds it too large"


async def test_a_message_waits_for_a_peer_that_does_not_listen_and_goes_when_it_does(
    hackney: Node, camden: Borough
) -> None:
    desk = Desk(camden)
    async with camden.listening(desk.answer):
        await introduce(hackney, camden)
        url = camden.url
    sent = await hackney.send(CAMDEN)

    async def failed() -> Any:
        return (await hackney.status(sent))["last_error"]

    assert "exchange.camden.example" in await until("a try has failed", failed)
    assert (await hackney.status(sent))["next_attempt_at"] is not None
    async with camden.listening(desk.answer, port=int(url.rpartition(":")[2])):
        await hackney.reached(sent, "received")


async def test_what_is_sent_goes_sealed_and_to_the_peer_alone(hackney: Node, desk: Desk) -> None:
    await introduce(hackney, desk.borough)
    sent = await hackney.send(CAMDEN)
    await hackney.reached(sent, "received")
    (opened,) = desk.opened
    assert (opened.sender, len(opened.items)) == (hackney.origin, 1)
    assert all(b"Hackney" not in ciphertext for ciphertext in opened.ciphertexts)
    assert encode_wire(opened).count(desk.borough.origin.encode()) >= 1
