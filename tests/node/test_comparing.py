"""Peers tell each other which checkpoints they have seen: who keeps two logs is found, and nobody can be slandered."""

import asyncio
import copy
import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from exchange.crypto.statement import parse_statement
from exchange.node.comparing import Comparing
from exchange.node.continuity import Continuity
from exchange.node.inbound import Inbound
from exchange.node.peer_client import PeerClient
from exchange.node.services import moment
from exchange.node.telling import Telling
from exchange.schema.wire import CARD, SIGHTINGS, VERSION, Sightings, decode_wire, encode_wire, sightings_decoder
from tests.node.handmade import Borough, Desk, read_card, read_reply
from tests.node.pair import HACKNEY, Clock, Node, Pair, running, running_pair, until
from tests.node.test_forks import CAMDEN, restore, say

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SUTTON = "exchange.sutton.example"
OFTEN = "[trust]\ncompare_logs_hours = 0.0001\n"


def another_past(camden: Borough, after: int = 1) -> Borough:
    """The same keys and place, and another log after some statements."""
    other = copy.copy(camden)
    other.statements = camden.statements[:after]
    other.log(CARD, b"another past")
    return other


@dataclass
class Compared:
    """What a node uses to compare, for a test to drive."""

    comparing: Comparing
    inbound: Inbound

    async def told(self, by: str, *texts: str) -> None:
        await self.comparing.take(by, texts)
        await self.comparing.look()


@asynccontextmanager
async def compared(node: Node) -> AsyncIterator[Compared]:
    services = node.services
    client, continuity = PeerClient(services), Continuity(services.store, services.now_ms)
    inbound = Inbound(services, continuity, client.fetch_consistency)
    try:
        yield Compared(Comparing(services, continuity, inbound, client), inbound)
    finally:
        await client.close()


async def kinds(node: Node, origin: str) -> list[str]:
    return [alarm["kind"] for alarm in await node.alarms(origin)]


# Two whole nodes, and a borough between them.


@pytest.fixture
async def pair(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Pair]:
    """Two nodes that have verified each other, and compare often."""
    async with running_pair(tmp_path, clock, OFTEN) as nodes:
        yield nodes


@pytest.fixture
async def hackney(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Node]:
    """A node that tells its peers often."""
    async with running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock, OFTEN) as node:
        yield node


async def test_who_shows_two_peers_two_histories_is_found_by_both_when_they_compare(
    pair: Pair, desk: Desk, clock: Clock
) -> None:
    camden = desk.borough
    await pair.hackney.know(camden)
    await pair.enfield.know(camden)
    other = another_past(camden, after=2)
    assert await say(pair.hackney, camden) == 200
    assert await say(pair.enfield, other) == 200
    assert [await node.trust(camden.origin) for node in (pair.hackney, pair.enfield)] == ["verified", "verified"]

    clock.run()
    clock.now_ms += HOUR_MS

    for node, by in ((pair.hackney, pair.enfield), (pair.enfield, pair.hackney)):

        async def quarantined(node: Node = node) -> bool:
            return await node.trust(camden.origin) == "quarantined"

        await until(f"{node.origin} has seen the other history", quarantined)
        (alarm,) = await node.alarms(camden.origin)
        assert (alarm["kind"], by.origin in alarm["detail"]) == ("fork", True)
        (fork,) = (await node.local("GET", f"/v1/peers/explain/{camden.origin}"))[1]["forks"]
        assert fork["held"]["root"] != fork["shown"]["root"]


async def test_one_log_seen_by_two_peers_at_two_sizes_is_one_log(pair: Pair, desk: Desk, clock: Clock) -> None:
    camden = desk.borough
    await pair.hackney.know(camden)
    await pair.enfield.know(camden)
    camden.shown = 0
    assert await say(pair.hackney, camden) == 200
    for _ in range(3):
        assert await say(pair.enfield, camden) == 200

    clock.run()
    clock.now_ms += HOUR_MS

    async def agreed() -> Any:
        found = [
            (await node.local("GET", f"/v1/peers/explain/{camden.origin}"))[1]["compared"]
            for node in (pair.hackney, pair.enfield)
        ]
        return found if all(found) else None

    ours, theirs = await until("both have compared", agreed)
    assert {one["with"] for one in ours} == {pair.enfield.origin}
    assert {one["with"] for one in theirs} == {pair.hackney.origin}
    assert await kinds(pair.hackney, camden.origin) == await kinds(pair.enfield, camden.origin) == []
    assert (await say(pair.hackney, camden), await say(pair.enfield, camden)) == (200, 200)


async def test_a_fork_that_one_peer_sees_is_told_to_the_others_at_once(pair: Pair, desk: Desk, clock: Clock) -> None:
    camden = desk.borough
    await pair.hackney.know(camden)
    await pair.enfield.know(camden)
    assert await say(pair.hackney, camden) == 200
    assert await say(pair.enfield, camden) == 200
    clock.run()
    restore(camden, 1)
    camden.log(CARD, b"another past")
    card = await pair.hackney.card()
    made = camden.message(card)
    status, _ = await pair.hackney.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    assert status == 403

    async def quarantined() -> bool:
        return await pair.enfield.trust(camden.origin) == "quarantined"

    await until("Enfield knows too", quarantined)


# One node, told by hand.


async def test_what_no_key_of_the_peer_signed_is_passed_over(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden)
    stranger = Borough(camden.origin, CAMDEN, enfield.clock)
    stranger.log(CARD, b"a stranger's")
    kept = enfield.kept()
    texts = (
        "",
        "\n",
        f"{camden.origin}\n",
        f"{camden.origin}\n1\n\n",
        camden.origin + "\n" + "\ud7ff" * 100,
        stranger.checkpoint(),
        stranger.checkpoint().replace(camden.origin, "exchange.nobody.example"),
        camden.checkpoint().replace(f"\n{len(camden.statements)}\n", "\n99\n", 1),
    )
    async with compared(enfield) as tools:
        await tools.told(SUTTON, *texts)
        assert tools.comparing.describe(camden.origin) == {"compared": [], "unproven": []}
    assert enfield.kept() == kept
    assert await enfield.trust(camden.origin) == "verified"


async def test_nobody_is_believed_about_their_own_log_here(enfield: Node, desk: Desk) -> None:
    """What a peer says of itself comes with a proof, or is asked for; this is about what others saw."""
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    async with compared(enfield) as tools:
        await tools.told(camden.origin, another_past(camden).checkpoint())
    assert await enfield.trust(camden.origin) == "verified"


async def test_who_does_not_show_for_a_day_that_it_keeps_one_log_is_told_of_once_a_day(
    enfield: Node, camden: Borough, clock: Clock, lines: io.StringIO
) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with camden.listening(silent, consistency=silent), compared(enfield) as tools:
        await enfield.know(camden)
        assert await say(enfield, camden) == 200
        other = another_past(camden)
        for _ in range(3):
            other.log(CARD, b"more")
        await tools.told(SUTTON, other.checkpoint())
        assert tools.comparing.describe(camden.origin)["unproven"][0]["with"] == SUTTON
        assert await kinds(enfield, camden.origin) == []
        for expected in (1, 1, 2):
            clock.now_ms += DAY_MS if expected == 1 else DAY_MS + 1
            await tools.comparing.look()
            await tools.comparing.look()
            if expected == 1:
                clock.now_ms -= DAY_MS // 2
            assert len(await kinds(enfield, camden.origin)) == expected
        (alarm, _) = await enfield.alarms(camden.origin)
        assert alarm["kind"] == "history-not-shown"
        assert SUTTON in alarm["detail"]
        assert await enfield.trust(camden.origin) == "verified"


async def test_a_silent_signer_hides_no_contradiction_that_needs_no_answer(enfield: Node, camden: Borough) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with camden.listening(silent, consistency=silent), compared(enfield) as tools:
        await enfield.know(camden)
        assert await say(enfield, camden) == 200
        other = another_past(camden)
        same_size = other.checkpoint()
        other.log(CARD, b"more")
        await tools.told(SUTTON, other.checkpoint(), same_size)
        assert await enfield.trust(camden.origin) == "quarantined"


async def test_a_signer_that_leaves_one_unanswered_hides_no_other(enfield: Node, camden: Borough) -> None:
    async def unused(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async def answers_what_suits_it(request: web.Request) -> web.StreamResponse:
        if request.query["second"] == "4":
            return web.Response(status=503)
        return web.json_response({"first": 0, "second": 0, "path": []})

    async with camden.listening(unused, consistency=answers_what_suits_it), compared(enfield) as tools:
        await enfield.know(camden)
        assert await say(enfield, camden) == 200
        other = another_past(camden)
        texts = [other.checkpoint() for _ in range(3) if other.log(CARD, b"more")][1:]
        await tools.told(SUTTON, *texts)
        assert await enfield.trust(camden.origin) == "verified"
        await tools.comparing.look()
        assert await enfield.trust(camden.origin) == "quarantined"


async def test_who_tells_much_crowds_out_nobody_and_the_first_that_was_told_stays(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    async with compared(enfield) as tools:
        await tools.comparing.take("exchange.barnet.example", [camden.checkpoint()])
        first = clock.now_ms
        for _ in range(20):
            camden.log(CARD, b"more")
            await tools.comparing.take(SUTTON, [camden.checkpoint()])
            clock.now_ms += HOUR_MS
        waiting = tools.comparing.describe(camden.origin)["unproven"]
        assert sorted(one["with"] for one in waiting) == ["exchange.barnet.example", *[SUTTON] * 4]
        assert min(one["since"] for one in waiting if one["with"] == SUTTON) == moment(first)


@pytest.mark.parametrize("number", ["\xb2", "9" * 5000], ids=["superscript", "long"])
async def test_an_odd_answer_is_no_answer_and_hides_nothing(enfield: Node, camden: Borough, number: str) -> None:
    async def odd(_: web.Request) -> web.StreamResponse:
        headers = {"content-type": f"application/problem+json; a*{number}*=1"}
        return web.Response(status=403, headers=headers, body=b"{}")

    async with camden.listening(odd, consistency=odd), compared(enfield) as tools:
        await enfield.know(camden)
        assert await say(enfield, camden) == 200
        other = another_past(camden)
        same_size = other.checkpoint()
        other.log(CARD, b"more")
        await tools.told(SUTTON, other.checkpoint(), same_size)
        assert await enfield.trust(camden.origin) == "quarantined"


async def test_of_a_peer_that_is_not_verified_nothing_is_compared(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden, verified=False)
    async with compared(enfield) as tools:
        await tools.told(SUTTON, another_past(camden).checkpoint())
    assert await kinds(enfield, camden.origin) == []


async def test_what_admins_have_explained_to_each_other_raises_no_second_alarm(
    enfield: Node, desk: Desk, clock: Clock
) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    before = camden.checkpoint()
    restore(camden, 1)
    camden.log(CARD, b"after the old backup")
    assert await say(enfield, camden) == 403
    clock.now_ms += HOUR_MS
    verified = await enfield.local("POST", f"/v1/peers/verify/{camden.origin}", {"fingerprint": camden.fingerprint})
    assert verified[0] == 200
    camden.shown = 0
    assert await say(enfield, camden) == 200
    async with compared(enfield) as tools:
        await tools.told(SUTTON, before)
        assert await enfield.trust(camden.origin) == "verified"
        clock.now_ms += HOUR_MS
        other = another_past(camden)
        other.log(CARD, b"a thief goes on")
        await tools.told(SUTTON, other.checkpoint())
        assert await enfield.trust(camden.origin) == "quarantined"


# What is said of this node's own log.


def thief_of(node: Node) -> Borough:
    """Somebody with the node's keys and a log of their own."""
    thief = Borough(node.origin, CAMDEN, node.clock)
    thief.signing = node.services.keyring.signing
    thief.log(CARD, b"in its name")
    return thief


async def test_a_node_learns_that_its_keys_are_in_use_elsewhere(enfield: Node, lines: io.StringIO) -> None:
    thief = thief_of(enfield)
    longer = thief_of(enfield)
    for _ in range(20):
        longer.log(CARD, b"in its name")
    async with compared(enfield) as tools:
        await tools.told(SUTTON, thief.checkpoint(), longer.checkpoint())
        await tools.told(SUTTON, longer.checkpoint())
    (alarm,) = await enfield.alarms(enfield.origin)
    assert (alarm["kind"], SUTTON in alarm["detail"]) == ("own-log", True)
    told = [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "alarm"]
    assert [(line["level"], line["code"]) for line in told] == [("error", "own-log")]


async def test_a_node_knows_its_own_log_at_every_size(pair: Pair, clock: Clock) -> None:
    async with pair.hackney.http.get(f"{pair.hackney.url}/v1/log/checkpoint") as answer:
        early = await answer.text()
    clock.run()
    await pair.hackney.reached(await pair.hackney.send("E09000010"), "received")
    async with pair.hackney.http.get(f"{pair.hackney.url}/v1/log/checkpoint") as answer:
        late = await answer.text()
    assert early != late
    async with compared(pair.hackney) as tools:
        await tools.told(SUTTON, early, late)
        seen = tools.comparing.describe(pair.hackney.origin)["compared"]
    assert [one["with"] for one in seen] == [SUTTON]
    assert await kinds(pair.hackney, pair.hackney.origin) == []


# What is told, and to whom.


def told(node: Node) -> list[tuple[int, int]]:
    return [(row[0], row[1]) for row in node.rows("SELECT position, at_ms FROM sightings")]


async def test_peers_are_told_what_is_new_in_an_interval_and_everything_once_a_day(
    enfield: Node, desk: Desk, clock: Clock
) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await say(enfield, camden) == 200
    woken: list[str] = []
    telling = Telling(enfield.services, woken.append)
    await telling.look()
    assert woken == [], "not at once"
    clock.now_ms += HOUR_MS
    await telling.look()
    assert woken == [f"peer:{camden.origin}"]
    first = told(enfield)
    assert await say(enfield, camden) == 200
    await telling.look()
    assert told(enfield) == first, "not before the interval has passed"
    telling.soon()
    await telling.look()
    second = told(enfield)
    assert second[0][0] > first[0][0]
    clock.now_ms += HOUR_MS
    await telling.look()
    assert told(enfield) == second, "nothing is new"
    clock.now_ms += DAY_MS
    await telling.look()
    assert told(enfield) != second


@pytest.mark.parametrize("state", ["unverified", "suspended"])
async def test_who_is_not_verified_is_neither_told_nor_told_of(enfield: Node, desk: Desk, state: str) -> None:
    camden = desk.borough
    await enfield.know(camden, verified=state != "unverified")
    if state == "suspended":
        assert (await enfield.local("POST", f"/v1/peers/suspend/{camden.origin}"))[0] == 200
    woken: list[str] = []
    telling = Telling(enfield.services, woken.append)
    telling.soon()
    await telling.look()
    assert woken == []
    assert told(enfield) == []


async def test_what_is_told_travels_beside_a_statement_that_binds_it(hackney: Node, desk: Desk, clock: Clock) -> None:
    camden = desk.borough
    clock.run()
    seen: list[tuple[tuple[str, ...], list[bytes]]] = []
    answer = desk.answer

    async def listen(request: web.Request) -> web.StreamResponse:
        opened = camden.open(await request.read())
        statements = [parse_statement(item.statement) for item in opened.items]
        words = [decode_wire(sightings_decoder, one.body).seen_sha256 for one in statements if one.type == SIGHTINGS]
        seen.append((opened.seen, words))
        return await answer(request)

    async with camden.listening(listen):
        await hackney.know(camden)
        assert await say(hackney, camden) == 200

        async def arrived() -> Any:
            return next((one for one in seen if one[0] and one[1]), None)

        texts, words = await until("Camden is told what Hackney saw of it", arrived)
    assert [text.partition("\n")[0] for text in texts] == [camden.origin]
    assert words == [hashlib.sha256(msgspec.msgpack.encode(texts)).digest()]
    assert all(not texts or words for texts, words in seen)


async def test_what_stands_beside_a_public_card_is_nobodys_word(pair: Pair, desk: Desk) -> None:
    """Anybody may put a peer's public card into an envelope, and more beside it."""
    camden = desk.borough
    await pair.enfield.know(camden)
    assert await say(pair.enfield, camden) == 200
    other = another_past(camden)
    other.log(CARD, b"more")
    card, stranger = await pair.hackney.proven_card(), Borough(pair.hackney.origin, CAMDEN, pair.hackney.clock)
    envelope = stranger.envelope(
        await pair.enfield.card(), [card], consistency=stranger.consistency(0), seen=(other.checkpoint(),)
    )
    assert (await pair.enfield.post(envelope))[0] == 200
    await asyncio.sleep(0)
    explained = (await pair.enfield.local("GET", f"/v1/peers/explain/{camden.origin}"))[1]
    assert (explained["trust"], explained["compared"], explained["unproven"]) == ("verified", [], [])


async def test_a_statement_binds_no_other_checkpoints(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden)
    sutton = Borough(SUTTON, "E09000029", enfield.clock)
    await enfield.know(sutton)
    other = another_past(camden)
    body = Sightings(version=VERSION, at=sutton.now, seen_sha256=bytes(32))
    item = sutton.sign(SIGHTINGS, encode_wire(body))
    envelope = sutton.envelope(await enfield.card(), [item], seen=(other.checkpoint(),))
    assert (await enfield.post(envelope))[0] == 200
    explained = (await enfield.local("GET", f"/v1/peers/explain/{camden.origin}"))[1]
    assert explained["unproven"] == []


async def test_a_reply_tells_a_stranger_nothing_of_other_peers(pair: Pair, desk: Desk) -> None:
    """Anybody may put a peer's public card into an envelope, and gets a reply to it."""
    await pair.enfield.know(desk.borough)
    assert await say(pair.enfield, desk.borough) == 200
    stranger = Borough(pair.hackney.origin, CAMDEN, pair.hackney.clock)
    card = await pair.hackney.proven_card()
    envelope = stranger.envelope(await pair.enfield.card(), [card], consistency=stranger.consistency(0))
    status, body = await pair.enfield.post(envelope)
    assert status == 200
    assert desk.borough.origin not in str(read_reply(body))
    assert read_card(card).origin == pair.hackney.origin
