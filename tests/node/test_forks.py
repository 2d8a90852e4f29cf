"""A log that does not go on from what was seen of it: quarantine, an alarm, evidence, and silence from then on."""

import io
import json
from typing import Any

import msgspec
import pytest
from aiohttp import web

from exchange.crypto.names import context
from exchange.crypto.rest import open_at_rest
from exchange.node.forks import Evidence
from exchange.schema.wire import CARD, Consistency, ProvenStatement
from tests.node.handmade import CONTENT, Borough, Desk, read_reply
from tests.node.pair import Clock, Node, form, until

CAMDEN = "E09000007"
UNACCEPTABLE = {"title": "unacceptable", "status": 403, "code": "unacceptable", "message": "unacceptable", "hint": ""}


async def say(node: Node, camden: Borough, **changes: Any) -> int:
    """Send a message; return the HTTP status."""
    card = await node.card()
    made = camden.message(card)
    status, body = await node.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts, **changes))
    assert status != 200 or read_reply(body).results[0].receipt is not None
    return status


def restore(camden: Borough, size: int) -> None:
    """Set a borough back to an old backup of its log."""
    del camden.statements[size:]


async def forked(node: Node, camden: Borough, lines: io.StringIO, envelope: bytes) -> None:
    """Post what shows a fork, and look at everything that must come of it."""
    card = await node.card()
    kept = node.kept()
    status, body = await node.post(envelope)
    assert (status, json.loads(body)) == (403, UNACCEPTABLE)
    assert node.kept() == kept | {"alarms": kept["alarms"] + 1, "stops": kept["stops"] + 1}
    assert await node.trust(camden.origin) == "quarantined"
    (alarm,) = await node.alarms(camden.origin)
    assert alarm["kind"] == "fork"
    assert camden.origin in alarm["detail"]
    assert node.count("alarms_fork") == 1
    told = [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "alarm"]
    assert [(line["level"], line["code"], line["peer"]) for line in told] == [("error", "fork", camden.origin)]
    assert CONTENT not in lines.getvalue()
    # From here on nothing is heard, and nothing more is made of it.
    made = camden.message(card)
    status, body = await node.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    assert (status, json.loads(body)) == (403, UNACCEPTABLE)
    assert node.kept() == kept | {"alarms": kept["alarms"] + 1, "stops": kept["stops"] + 1}


async def evidence(node: Node) -> Evidence:
    ((sealed,),) = node.rows("SELECT evidence FROM alarms")
    opened = open_at_rest(node.services.keyring.store_key, context("evidence"), sealed)
    return msgspec.msgpack.decode(opened, type=Evidence)


async def test_two_logs_of_one_size_are_a_fork(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    held = camden.checkpoint()
    restore(camden, 1)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    envelope = camden.envelope(card, [item], made.ciphertexts)
    await forked(enfield, camden, lines, envelope)
    assert "two different logs of 2 statements" in (await enfield.alarms(camden.origin))[0]["detail"]
    kept = await evidence(enfield)
    assert kept.held.partition("\n\n")[0] == held.partition("\n\n")[0], "the signed text; signatures are made anew"
    assert item.statement in kept.shown
    assert item.proof.encode() in kept.shown


async def test_a_longer_log_with_another_past_is_a_fork(enfield: Node, desk: Desk, lines: io.StringIO) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    restore(camden, 1)
    card = await enfield.card()
    items = []
    for _ in range(4):
        made = camden.message(card)
        items.append(camden.sign_manifest(made))
    await forked(enfield, camden, lines, camden.envelope(card, camden.latest(*items), ()))


async def test_a_shorter_log_with_another_past_is_a_fork(enfield: Node, desk: Desk, lines: io.StringIO) -> None:
    camden = desk.borough
    await enfield.know(camden)
    for _ in range(4):
        assert await say(enfield, camden) == 200
    restore(camden, 1)
    card = await enfield.card()
    made = camden.message(card)
    envelope = camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)
    await forked(enfield, camden, lines, envelope)


async def test_two_pasts_in_one_envelope_are_a_fork(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    first = camden.message(card)
    item = camden.sign_manifest(first)
    consistency = camden.consistency(1)
    restore(camden, 1)
    second = camden.message(card)
    items = [item, camden.sign_manifest(second)]
    ciphertexts = [*first.ciphertexts, *second.ciphertexts]
    envelope = camden.envelope(card, items, ciphertexts, consistency=consistency)
    await forked(enfield, camden, lines, envelope)


@pytest.mark.sqlite
async def test_the_evidence_is_sealed(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    restore(camden, 1)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    await forked(enfield, camden, lines, camden.envelope(card, [item], made.ciphertexts))
    path = enfield.services.configuration.store_file
    stored = path.read_bytes() + path.with_name("exchange.db-wal").read_bytes()
    assert item.statement not in stored
    assert made.ciphertexts[0] not in stored


async def test_a_fork_in_a_reply_stops_the_peer_and_holds_what_waits(
    hackney: Node, desk: Desk, clock: Clock, lines: io.StringIO
) -> None:
    clock.run()
    camden = desk.borough
    await hackney.know(camden)
    sent = await hackney.send(CAMDEN)
    await hackney.reached(sent, "received")
    restore(camden, 1)
    camden.log(CARD, b"another past")
    second = await hackney.send(CAMDEN)

    async def held() -> Any:
        return (await hackney.status(second))["held"]

    assert await until("the message is held", held) == "the peer is quarantined"
    assert await hackney.trust(camden.origin) == "quarantined"
    assert [alarm["kind"] for alarm in await hackney.alarms(camden.origin)] == ["fork"]
    assert (await evidence(hackney)).held != ""
    assert {section["rung"] for section in (await hackney.status(second))["sections"]} == {None}
    status, problem = await hackney.local("POST", f"/v1/messages/to/{CAMDEN}", data=form(CAMDEN))
    assert (status, problem["code"]) == (403, "peer-untrusted")
    assert "quarantined" in problem["message"]
    envelopes = len(desk.opened)
    number = (await hackney.local("GET", "/v1/held"))[1]["items"][0]["number"]
    await hackney.local("POST", f"/v1/held/{number}/release")
    assert await until("it is held again", held) == "the peer is quarantined"
    assert len(desk.opened) == envelopes


# What looks like a fork and is none.


async def test_the_proof_is_asked_for_where_the_sender_believes_another_size(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    camden.shown = 0
    assert await say(enfield, camden) == 200
    camden.shown = 2
    assert await say(enfield, camden) == 200
    assert await enfield.trust(camden.origin) == "verified"
    assert enfield.kept()["messages"] == 3


async def test_the_proof_is_asked_for_where_the_one_that_came_is_wrong(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    held = len(camden.statements)
    wrong = Consistency(first=held, path=(bytes(32),))
    assert await say(enfield, camden, consistency=wrong) == 200
    assert await enfield.trust(camden.origin) == "verified"


@pytest.mark.parametrize("first", [0, 1, 2, 3, 2**53])
async def test_no_claim_of_what_was_seen_before_does_harm(enfield: Node, desk: Desk, first: int) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    assert await say(enfield, camden, consistency=Consistency(first=first, path=(bytes(32),) * 64)) == 200
    assert await enfield.trust(camden.origin) == "verified"


async def test_envelopes_may_arrive_in_another_order(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden)
    card = await enfield.card()
    envelopes = []
    for _ in range(4):
        made = camden.message(card)
        envelopes.append(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    for envelope in reversed(envelopes):
        status, body = await enfield.post(envelope)
        assert status == 200
        assert read_reply(body).results[0].receipt is not None
    assert await enfield.trust(camden.origin) == "verified"


async def test_a_peer_that_cannot_be_asked_is_heard_later(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    camden.shown = 0
    kept = enfield.kept()
    assert await say(enfield, camden) == 503
    assert enfield.kept() == kept
    assert await enfield.trust(camden.origin) == "verified"
    assert await enfield.alarms(camden.origin) == []
    assert CONTENT not in lines.getvalue()
    camden.shown = 2
    assert await say(enfield, camden) == 200


def _proxy(status: int, body: bytes, content_type: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=content_type)

    return answer


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (404, b"<h1>Not found</h1>", "text/html"),
        (404, b'{"code":"no-such-service"}', "application/problem+json"),
        (500, b"", "text/plain"),
        (302, b"", "text/plain"),
        (200, b"<h1>Welcome</h1>", "text/html"),
        (200, b'{"first":0,"second":1}', "application/json"),
        (200, b'{"first":1,"second":3,"path":["short"]}', "application/json"),
        (200, b"[" * 100_000, "application/json"),
    ],
)
async def test_what_a_proxy_answers_is_no_fork(
    enfield: Node, camden: Borough, status: int, body: bytes, content_type: str
) -> None:
    async def unused(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async with camden.listening(unused, consistency=_proxy(status, body, content_type)):
        await enfield.know(camden)
        assert await say(enfield, camden) == 200
        camden.shown = 0
        assert await say(enfield, camden) == 503
    assert await enfield.trust(camden.origin) == "verified"
    assert await enfield.alarms(camden.origin) == []


async def test_a_checkpoint_that_was_seen_needs_no_proof_again(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item: ProvenStatement = camden.sign_manifest(made)
    for _ in range(3):
        status, _ = await enfield.post(
            camden.envelope(card, [item], made.ciphertexts, consistency=Consistency(first=0, path=()))
            if camden.shown > 1
            else camden.envelope(card, [item], made.ciphertexts)
        )
        assert status == 200
