"""Cards are fetched in good time and before sending; what is older, expired or another's is refused or blocks."""

import asyncio
import io
import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from exchange.node.card_refresh import Attempt, CardRefresh, is_due, is_near_its_end
from exchange.node.cards import NO_CURRENT_KEY
from exchange.node.continuity import Continuity
from exchange.node.epochs import renew_card, turn_epoch
from exchange.node.inbound import Inbound
from exchange.node.outbound import Outbound
from exchange.node.peer_client import PeerClient
from exchange.node.peering import move
from exchange.node.trust import Standing
from exchange.schema.wire import CARD, CardSealingKey, ProvenStatement
from exchange.store.outbox import claim
from exchange.store.peers import PeerRow, set_peer_card
from tests.node.handmade import Borough, Desk, read_reply
from tests.node.pair import ENFIELD, NOW_MS, Clock, Node, Pair, form, until

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
CAMDEN = "E09000007"


def refresh_of(node: Node, woken: list[str] | None = None) -> CardRefresh:
    """What the node itself uses, on its store, for a test to drive."""
    services = node.services
    client, continuity = PeerClient(services), Continuity(services.store, services.now_ms)
    inbound = Inbound(services, continuity, client.fetch_consistency)
    return CardRefresh(services, continuity, inbound, client, (woken if woken is not None else []).append)


async def known(node: Node, camden: Borough) -> dict[str, Any]:
    found = (await node.local("GET", f"/v1/peers/{camden.origin}"))[1]
    return {key: found[key] for key in ("serial", "name", "area", "fingerprint", "trust", "candidate")}


def events(lines: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == event]


def key(camden: Borough, start_ms: int, end_ms: int) -> CardSealingKey:
    """The borough's sealing key, in force from one time from now to another."""
    return CardSealingKey(
        key=camden.sealing.public.raw,
        not_before=camden.now + timedelta(milliseconds=start_ms),
        not_after=camden.now + timedelta(milliseconds=end_ms),
        opens_until=camden.now + timedelta(milliseconds=end_ms + 14 * DAY_MS),
    )


# When to ask.


def row(ends_in_ms: int, life_ms: int = 7 * DAY_MS) -> PeerRow:
    camden = Borough("exchange.camden.example", CAMDEN, lambda: NOW_MS)
    card = camden.card(sealing_keys=(key(camden, ends_in_ms - life_ms, ends_in_ms),))
    return PeerRow(camden.origin, "verified", camden.fingerprint, 1, card.statement, card.proof, None, NOW_MS)


FRESH, NEAR, OVER = row(7 * DAY_MS), row(DAY_MS), row(0)


@pytest.mark.parametrize(
    ("ends_in_ms", "near"),
    [(7 * DAY_MS, False), (42 * HOUR_MS + 1, False), (42 * HOUR_MS, True), (1, True), (0, True), (-DAY_MS, True)],
)
def test_a_key_in_the_last_quarter_of_its_life_is_near_its_end(ends_in_ms: int, near: bool) -> None:
    assert is_near_its_end(row(ends_in_ms), NOW_MS, HOUR_MS) is near


def test_a_short_lived_key_is_near_its_end_two_intervals_before_it() -> None:
    assert is_near_its_end(row(2 * HOUR_MS, 3 * HOUR_MS), NOW_MS, HOUR_MS)
    assert not is_near_its_end(row(2 * HOUR_MS + 1, 3 * HOUR_MS), NOW_MS, HOUR_MS)


def test_a_card_is_asked_for_after_an_interval_and_one_near_its_end_after_a_sixth() -> None:
    for share in (0.75, 1.0, 1.25):
        last = Attempt(NOW_MS, share)
        wait_ms = round(HOUR_MS * share)
        assert [is_due(FRESH, last, NOW_MS + ms, HOUR_MS) for ms in (0, wait_ms - 1, wait_ms)] == [False, False, True]
        sixth_ms = wait_ms // 6
        assert [is_due(OVER, last, NOW_MS + ms, HOUR_MS) for ms in (0, sixth_ms - 1, sixth_ms)] == [False, False, True]
        assert is_due(NEAR, last, NOW_MS + sixth_ms, HOUR_MS)


@given(st.integers(-(10**12), 10**12), st.floats(0.75, 1.25))
def test_wherever_the_clock_goes_no_card_waits_for_longer_than_an_interval_and_a_quarter(
    moved_ms: int, share: float
) -> None:
    last = Attempt(NOW_MS + moved_ms, share)
    first_due_ms = next(ms for ms in (0, HOUR_MS * 5 // 4) if is_due(FRESH, last, NOW_MS + ms, HOUR_MS))
    assert first_due_ms <= HOUR_MS * 5 // 4 or moved_ms > 0
    if moved_ms > 0 or moved_ms < -HOUR_MS * 5 // 4:
        assert is_due(FRESH, last, NOW_MS, HOUR_MS)


# What is fetched.


async def test_a_newer_card_is_fetched_after_an_interval_and_not_before(
    enfield: Node, desk: Desk, clock: Clock, lines: io.StringIO
) -> None:
    camden, woken = desk.borough, list[str]()
    await enfield.know(camden)
    camden.served = camden.card(name="A new name")
    refresh = refresh_of(enfield, woken)
    await refresh.look()
    assert camden.card_was_asked_for == 0
    clock.now_ms += HOUR_MS
    await refresh.look()
    assert (await known(enfield, camden))["name"] == "A new name"
    assert (await known(enfield, camden))["trust"] == "verified"
    assert [line["serial"] for line in events(lines, "card renewed")] == [2]
    assert woken == [f"peer:{camden.origin}"]
    await refresh.look()
    assert camden.card_was_asked_for == 1


async def test_while_the_node_runs_cards_are_fetched_until_it_stops(
    enfield: Node, desk: Desk, clock: Clock, lines: io.StringIO
) -> None:
    camden, stop = desk.borough, asyncio.Event()
    await enfield.know(camden)
    camden.served = camden.card()
    keeping = asyncio.create_task(refresh_of(enfield).run(stop, every_s=0.01))

    async def fetched() -> bool:
        clock.now_ms += HOUR_MS
        return (await known(enfield, camden))["serial"] == 2

    await until("the newer card is there", fetched)
    stop.set()
    await keeping


async def test_a_peer_that_does_not_answer_does_not_hold_up_the_end(
    enfield: Node, camden: Borough, clock: Clock, lines: io.StringIO
) -> None:
    asked, stop = asyncio.Event(), asyncio.Event()

    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        asked.set()
        await stop.wait()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    camden.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await enfield.know(camden)
    refresh = refresh_of(enfield)
    await refresh.look()
    clock.now_ms += HOUR_MS
    ended = asyncio.Event()
    keeping = asyncio.create_task(refresh.run(ended, every_s=0.01))
    await asked.wait()
    ended.set()
    await keeping
    assert events(lines, "card not fetched") == [], "it was given up, not waited for until it timed out"
    stop.set()
    server.close()


async def test_one_peer_that_does_not_answer_holds_up_no_other(
    enfield: Node, desk: Desk, clock: Clock, lines: io.StringIO
) -> None:
    away = [Borough(f"exchange.away{number}.example", f"E0600000{number}", clock) for number in range(6)]
    for borough in [desk.borough, *away]:
        await enfield.know(borough)
    desk.borough.served = desk.borough.card()
    refresh = refresh_of(enfield)
    await refresh.look()
    clock.now_ms += HOUR_MS
    await refresh.look()
    assert (await known(enfield, desk.borough))["serial"] == 2
    assert {line["peer"] for line in events(lines, "card not fetched")} == {borough.origin for borough in away}


async def test_who_is_not_verified_is_not_asked(enfield: Node, desk: Desk, clock: Clock) -> None:
    camden = desk.borough
    await enfield.know(camden, verified=False)
    camden.served = camden.card()
    refresh = refresh_of(enfield)
    await refresh.look()
    clock.now_ms += HOUR_MS
    await refresh.look()
    await refresh.refresh(camden.origin)
    assert camden.card_was_asked_for == 0
    assert (await known(enfield, camden))["serial"] == 1


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda camden, _: camden.card(serial=1), "card-rolled-back"),
        (lambda camden, _: camden.card(expires_at=camden.now), "card-expired"),
        (lambda camden, _: camden.card(area="E09000005"), "card-identity"),
        (lambda _, other: other.card(serial=9), "card-identity"),
    ],
    ids=["rolled back", "expired", "of another area", "of another origin"],
)
async def test_a_card_that_does_not_follow_the_one_in_force_is_refused(
    enfield: Node, desk: Desk, clock: Clock, lines: io.StringIO, make: Any, code: str
) -> None:
    camden = desk.borough
    camden.card()
    await enfield.know(camden)
    before, kept = await known(enfield, camden), enfield.kept()
    camden.served = make(camden, Borough("exchange.brent.example", "E09000005", clock))
    await refresh_of(enfield).refresh(camden.origin)
    assert camden.card_was_asked_for == 1
    assert await known(enfield, camden) == before
    assert enfield.kept() == kept
    assert [(line["peer"], line["code"]) for line in events(lines, "card refused")] == [(camden.origin, code)]


async def test_what_is_no_card_changes_nothing(enfield: Node, desk: Desk, lines: io.StringIO) -> None:
    camden = desk.borough
    await enfield.know(camden)
    before = await known(enfield, camden)
    newer = camden.card(name="A new name")
    for statement, proof in ((newer.statement + b" ", newer.proof), (newer.statement, ""), (b"", newer.proof)):
        camden.served = ProvenStatement(statement=statement, proof=proof)
        await refresh_of(enfield).refresh(camden.origin)
    assert await known(enfield, camden) == before
    assert len(events(lines, "card not fetched")) == 3


@pytest.mark.parametrize("url", ["http://[", "ftp://exchange.camden.example", "http://a..b/", "x", "//"])
async def test_no_url_of_a_peer_stops_the_node(enfield: Node, camden: Borough, lines: io.StringIO, url: str) -> None:
    camden.url = url
    await enfield.know(camden)
    await refresh_of(enfield).refresh(camden.origin)
    assert len(events(lines, "card not fetched")) == 1
    assert await enfield.trust(camden.origin) == "verified"


async def test_another_identity_at_the_peers_url_blocks_the_peer(
    enfield: Node, desk: Desk, clock: Clock, lines: io.StringIO
) -> None:
    camden = desk.borough
    await enfield.know(camden)
    other = Borough(camden.origin, camden.area, clock)
    camden.served = other.card(serial=9)
    await refresh_of(enfield).refresh(camden.origin)
    found = await known(enfield, camden)
    assert (found["trust"], found["fingerprint"], found["candidate"]) == (
        "blocked",
        camden.fingerprint,
        other.fingerprint,
    )
    assert [alarm["kind"] for alarm in await enfield.alarms(camden.origin)] == ["identity-changed"]
    assert [line["code"] for line in events(lines, "alarm")] == ["identity-changed"]
    await refresh_of(enfield).refresh(camden.origin)
    assert camden.card_was_asked_for == 1


async def test_a_card_in_a_log_with_another_past_is_a_fork(enfield: Node, desk: Desk, lines: io.StringIO) -> None:
    camden = desk.borough
    await enfield.know(camden)
    del camden.statements[:]
    camden.log(CARD, b"another past")
    camden.served = camden.card()
    await refresh_of(enfield).refresh(camden.origin)
    assert await enfield.trust(camden.origin) == "quarantined"
    assert [alarm["kind"] for alarm in await enfield.alarms(camden.origin)] == ["fork"]
    assert (await known(enfield, camden))["serial"] == 1


async def test_two_cards_of_one_serial_in_two_logs_are_a_fork(enfield: Node, desk: Desk, lines: io.StringIO) -> None:
    camden = desk.borough
    await enfield.know(camden)
    del camden.statements[:]
    camden.serial = 0
    camden.served = camden.card(name="Another")
    await refresh_of(enfield).refresh(camden.origin)
    assert await enfield.trust(camden.origin) == "quarantined"


async def test_a_log_that_cannot_be_asked_for_its_proof_is_no_fork_and_its_card_waits(
    enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    async def away(_: Any) -> Any:
        return web.Response(status=503)

    async with camden.listening(away, consistency=away):
        await enfield.know(camden)
        camden.served = camden.card()
        await refresh_of(enfield).refresh(camden.origin)
    assert (await known(enfield, camden))["serial"] == 1
    assert await enfield.trust(camden.origin) == "verified"
    assert len(events(lines, "card not fetched")) == 1


# Cards that come by other ways.


async def test_an_expired_card_is_refused_from_a_file_and_from_the_wire(enfield: Node, camden: Borough) -> None:
    expired = camden.card(expires_at=camden.now)
    body = {"card": json.loads(msgspec.json.encode({"statement": expired.statement, "proof": expired.proof}))}
    status, problem = await enfield.local("POST", "/v1/peers", body)
    assert (status, problem["code"]) == (400, "request-invalid")
    assert "expired" in problem["message"]
    await enfield.know(camden)
    envelope = camden.envelope(await enfield.card(), camden.latest(camden.card(expires_at=camden.now)))
    status, reply = await enfield.post(envelope)
    assert status == 200
    problem = read_reply(reply).results[0].problem
    assert problem is not None
    assert problem.code == "card-expired"


async def test_an_older_card_is_refused_from_a_file(enfield: Node, camden: Borough) -> None:
    older = camden.card()
    await enfield.know(camden)
    body = {"card": json.loads(msgspec.json.encode({"statement": older.statement, "proof": older.proof}))}
    status, problem = await enfield.local("POST", "/v1/peers", body)
    assert (status, problem["code"]) == (400, "request-invalid")
    assert "older" in problem["message"]
    assert (await known(enfield, camden))["serial"] == 2


async def test_a_peer_whose_card_has_expired_is_heard_and_sends_a_new_one(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    clock.now_ms += 100 * DAY_MS
    envelope = camden.envelope(await enfield.card(), camden.latest(camden.card()))
    status, reply = await enfield.post(envelope)
    assert status == 200
    assert read_reply(reply).results[0].problem is None
    assert (await known(enfield, camden))["serial"] == 2


async def test_a_peer_that_was_restored_and_verified_anew_may_show_a_lower_serial(
    enfield: Node, desk: Desk, lines: io.StringIO
) -> None:
    camden = desk.borough
    for _ in range(4):
        camden.card()
    await enfield.know(camden)
    del camden.statements[1:]
    camden.serial = 1
    camden.served = camden.card()
    await enfield.services.store.write(lambda tx: move(tx, camden.origin, Standing.fork))
    body = {"fingerprint": camden.fingerprint}
    status, _ = await enfield.local("POST", f"/v1/peers/verify/{camden.origin}", body)
    assert status == 200
    await refresh_of(enfield).refresh(camden.origin)
    found = await known(enfield, camden)
    assert (found["trust"], found["serial"]) == ("verified", 2)


# Sending where the key at hand is dead.


def dies_soon(camden: Borough, end_ms: int = DAY_MS) -> ProvenStatement:
    return camden.card(sealing_keys=(key(camden, end_ms - 7 * DAY_MS, end_ms),))


async def register(node: Node, card: ProvenStatement, camden: Borough) -> None:
    body = {"card": json.loads(msgspec.json.encode({"statement": card.statement, "proof": card.proof}))}
    status, document = await node.local("POST", "/v1/peers", body | {"fingerprint": camden.fingerprint})
    assert status == 201, document
    camden.shown = len(camden.statements)


async def held_reason(node: Node, message_id: str) -> Any:
    return (await node.status(message_id))["held"]


async def test_a_message_that_waits_for_a_peer_longer_than_its_keys_lived_is_held_and_goes_on_by_itself(
    hackney: Node, camden: Borough, clock: Clock
) -> None:
    await register(hackney, dies_soon(camden), camden)
    sent = await hackney.send(CAMDEN)

    async def failed() -> bool:
        return (await hackney.status(sent))["last_error"] is not None

    await until("it could not be delivered", failed)
    clock.run()
    clock.now_ms += 2 * DAY_MS

    async def held() -> bool:
        return await held_reason(hackney, sent) == NO_CURRENT_KEY

    await until("it is held", held)
    desk = Desk(camden)
    async with camden.listening(desk.answer):
        # The peer is up again and says so, as every node does at its start.
        fresh = camden.card()
        status, _ = await hackney.post(camden.envelope(await hackney.card(), camden.latest(fresh)))
        assert status == 200
        await hackney.reached(sent, "received")
    assert [payload.items for payload in desk.opened] != []
    assert await held_reason(hackney, sent) is None


async def test_before_sending_to_a_peer_without_a_current_key_its_card_is_fetched(
    hackney: Node, desk: Desk, clock: Clock
) -> None:
    camden = desk.borough
    await register(hackney, dies_soon(camden), camden)
    clock.run()
    clock.now_ms += 2 * DAY_MS
    camden.served = camden.card()
    sent = await hackney.send(CAMDEN)
    await hackney.reached(sent, "received")
    assert camden.card_was_asked_for == 1


async def test_two_real_nodes_go_on_after_one_was_away_for_longer_than_its_keys_lived(pair: Pair, clock: Clock) -> None:
    clock.run()
    clock.now_ms += 30 * DAY_MS
    for node in (pair.enfield, pair.hackney):
        await turn_epoch(node.services)
        await renew_card(node.services, None)
    sent = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(sent, "received")


async def test_no_message_outlives_the_key_that_opens_it(hackney: Node, desk: Desk, clock: Clock) -> None:
    camden = desk.borough
    ends = key(camden, -DAY_MS, DAY_MS)
    short = msgspec.structs.replace(ends, opens_until=ends.not_after + timedelta(hours=1))
    await register(hackney, camden.card(sealing_keys=(short,)), camden)
    await hackney.send(CAMDEN)
    ((expires_at_ms,),) = hackney.rows("SELECT expires_at_ms FROM messages")
    assert expires_at_ms == NOW_MS + DAY_MS + HOUR_MS


async def test_a_peer_that_finds_a_message_unacceptable_is_asked_for_its_card(
    hackney: Node, camden: Borough, clock: Clock
) -> None:
    async def lost(_: web.Request) -> web.StreamResponse:
        body = msgspec.json.encode({"code": "unacceptable"})
        return web.Response(status=403, body=body, content_type="application/problem+json")

    async with camden.listening(lost):
        await hackney.know(camden)
        camden.served = camden.card(name="After the loss")
        services, refresh = hackney.services, refresh_of(hackney)
        client, continuity = PeerClient(services), Continuity(services.store, services.now_ms)
        inbound = Inbound(services, continuity, client.fetch_consistency)
        outbound = Outbound(services, continuity, inbound, client, refresh)
        await refresh.look()
        assert camden.card_was_asked_for == 0
        sent = await hackney.send(CAMDEN)
        rows = await services.store.write(lambda tx: claim(tx, f"peer:{camden.origin}", 9, clock.now_ms, 0))
        outcome = await outbound.perform(camden.origin, rows)
        assert outcome.again == rows
        await refresh.look()
        assert (await known(hackney, camden))["name"] == "After the loss"
        assert (await hackney.status(sent))["held"] is None


# A form for which there is no key at all.


async def waits(node: Node, camden: Borough, clock: Clock) -> Any:
    """Send to a peer that is away, and whose key is dead."""
    await register(node, dies_soon(camden), camden)
    clock.run()
    clock.now_ms += 2 * DAY_MS
    status, document = await node.local("POST", f"/v1/messages/to/{CAMDEN}", data=form(CAMDEN))
    assert status == 201, document
    return document


async def test_a_form_for_a_peer_without_a_current_key_is_held_and_not_signed(
    hackney: Node, camden: Borough, clock: Clock
) -> None:
    signed = hackney.rows("SELECT count(*) FROM statements")
    sent = await waits(hackney, camden, clock)
    assert sent["held"] == NO_CURRENT_KEY
    assert hackney.rows("SELECT count(*) FROM statements") == signed
    assert hackney.rows("SELECT count(*) FROM messages") == [(0,)]
    status = await hackney.status(sent["id"])
    assert status["held"] == NO_CURRENT_KEY
    assert [(item["section"], item["agency"], item["rung"]) for item in status["sections"]] == [
        (item["section"], item["agency"], None) for item in sent["sections"]
    ]
    held = next(item for item in (await hackney.local("GET", "/v1/held"))[1]["items"] if item["kind"] == "form")
    assert (held["id"], held["kind"], held["reason"]) == (sent["id"], "form", NO_CURRENT_KEY)
    (listed,) = (await hackney.local("GET", "/v1/outbox"))[1]["items"]
    assert (listed["id"], listed["peer"]) == (sent["id"], camden.origin)
    (event,) = (await hackney.local("GET", f"/v1/messages/{sent['id']}/timeline"))[1]["events"]
    assert event["event"] == "held"
    assert NO_CURRENT_KEY in event["text"]
    status, problem = await hackney.local("DELETE", f"/v1/peers/{camden.origin}")
    assert (status, problem["code"]) == (409, "already-there")


async def test_a_form_that_waits_is_in_no_file_as_it_is(hackney: Node, camden: Borough, clock: Clock) -> None:
    document = json.loads(form(CAMDEN))
    await waits(hackney, camden, clock)
    files = {path.name: path.read_bytes() for path in hackney.directory.iterdir() if path.is_file()}
    secret = document["subject"]["name"].encode()
    assert secret in form(CAMDEN)
    assert [name for name, data in files.items() if secret in data] == []


@pytest.mark.parametrize("arrives", ["from the wire", "from a file", "by a refresh"])
async def test_a_form_that_waited_goes_on_under_its_id_as_soon_as_a_card_arrives(
    hackney: Node, camden: Borough, clock: Clock, arrives: str
) -> None:
    sent = await waits(hackney, camden, clock)
    desk = Desk(camden)
    async with camden.listening(desk.answer):
        camden.served = camden.card()
        if arrives == "from the wire":
            envelope = camden.envelope(await hackney.card(), camden.latest(camden.served))
            assert (await hackney.post(envelope))[0] == 200
        elif arrives == "from a file":
            await register(hackney, camden.served, camden)
        else:
            # Nobody listens at the URL of the card at hand: one that is as dead names the new one.
            dead = dies_soon(camden, -HOUR_MS)
            await hackney.services.store.write(
                lambda tx: set_peer_card(tx, camden.origin, 9, dead.statement, dead.proof)
            )
            camden.serial, woken = 9, list[str]()
            camden.served = camden.card()
            await refresh_of(hackney, woken).refresh(camden.origin)
            assert woken == [f"peer:{camden.origin}"]
            assert hackney.rows("SELECT state FROM outbox WHERE kind = 'form'") == [("due",)]
            await register(hackney, camden.served, camden)  # the refresh of this test wakes no lane of the node
        status = await hackney.reached(sent["id"], "received")
    assert status["held"] is None
    assert desk.received == [sent["id"]]
    assert hackney.rows("SELECT count(*) FROM waiting_forms") == [(0,)]
    events = (await hackney.local("GET", f"/v1/messages/{sent['id']}/timeline"))[1]["events"]
    assert [event["event"] for event in events] == ["waited", "signed", "received"]
    assert events[0]["at"] < events[1]["at"]


async def test_a_form_that_waits_for_a_peer_that_is_then_blocked_is_not_sent(
    hackney: Node, camden: Borough, clock: Clock
) -> None:
    sent = await waits(hackney, camden, clock)
    await hackney.services.store.write(lambda tx: move(tx, camden.origin, Standing.fork))
    desk = Desk(camden)
    async with camden.listening(desk.answer):
        held = next(item for item in (await hackney.local("GET", "/v1/held"))[1]["items"] if item["kind"] == "form")
        await hackney.local("POST", f"/v1/held/{held['number']}/release")

        async def refused() -> bool:
            return (await hackney.status(sent["id"]))["held"] == "the peer is quarantined"

        await until("it is held for another reason", refused)
    assert desk.opened == []
    assert hackney.rows("SELECT count(*) FROM messages") == [(0,)]
