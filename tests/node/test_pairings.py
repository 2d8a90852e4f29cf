"""Pairings between nodes: at most one at a time, windows that end, and what a confirmed one may change."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from exchange.crypto.pairing import commitment
from exchange.node.cards import own_card_file
from exchange.node.pairing import WINDOW_MS
from exchange.node.revocation import prepare_revocation, publish_revocation
from exchange.schema.card_file import card_file
from exchange.schema.registration import PAIRING_TYPE, PairingOffer
from exchange.schema.wire import VERSION, encode_wire
from tests.node.handmade import Borough
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, running, until
from tests.node.pair import card_file as card_file_of
from tests.node.test_invitations import TWO_PEOPLE, peers, person, post

NOWHERE = "http://127.0.0.1:9"


async def start(node: Node, other: Node | str, **more: Any) -> Any:
    url = other if isinstance(other, str) else other.url
    status, document = await node.local("POST", "/v1/pairings", {"url": url, **more})
    assert status == 201, document
    return document


async def look(node: Node, session: Any, timeout_s: int = 0) -> Any:
    return (await node.local("GET", f"/v1/pairings/{session['id']}?timeout_s={timeout_s}"))[1]


async def confirm(node: Node, session: Any, **body: Any) -> tuple[int, Any]:
    return await node.local("POST", f"/v1/pairings/{session['id']}/confirm", body)


async def show_words(hackney: Node, enfield: Node) -> tuple[Any, Any]:
    """Both start; what each sees once there are words."""
    sessions = [(node, await start(node, other)) for node, other in ((hackney, enfield), (enfield, hackney))]
    found = [await look(node, session, 30) for node, session in sessions]
    assert [one["state"] for one in found] == ["words", "words"], found
    return found[0], found[1]


async def test_both_see_the_same_words_and_each_admin_confirms_for_themselves(hackney: Node, enfield: Node) -> None:
    one, other = await show_words(hackney, enfield)
    assert one["words"] == other["words"]
    assert (one["origin"], other["origin"]) == (enfield.origin, hackney.origin)
    assert await peers(hackney) == await peers(enfield) == {}, "nothing is kept before"
    status, document = await confirm(hackney, one, same=True)
    assert (status, document["trust"]) == (200, "verified")
    assert await peers(enfield) == {}
    status, document = await confirm(enfield, other, words="  " + "-".join(other["words"]).upper())
    assert (status, document["trust"]) == (200, "verified")
    shown = (await hackney.local("GET", f"/v1/peers/{enfield.origin}"))[1]
    (record,) = shown["verifications"]
    assert (record["how"], shown["verified_how"]) == ("words", "words")
    await hackney.reached(await hackney.send(ENFIELD), "received")


@pytest.mark.parametrize("first", [0, 1])
async def test_it_does_not_matter_who_starts_first(hackney: Node, enfield: Node, first: int) -> None:
    nodes = [hackney, enfield]
    waits = await start(nodes[first], nodes[1 - first])
    waiting = asyncio.create_task(look(nodes[first], waits, 30))
    await start(nodes[1 - first], nodes[first])
    assert (await waiting)["state"] == "words"


async def test_the_words_are_others_each_time(hackney: Node, enfield: Node) -> None:
    seen = set()
    for _ in range(3):
        one, other = await show_words(hackney, enfield)
        seen.add(tuple(one["words"]))
        for node, session in ((hackney, one), (enfield, other)):
            assert (await node.local("DELETE", f"/v1/pairings/{session['id']}"))[1]["state"] == "failed"
    assert len(seen) == 3


@pytest.mark.parametrize("starts", ["hackney", "enfield"])
async def test_who_waits_in_vain_is_told_when_the_time_is_over(
    hackney: Node, enfield: Node, clock: Clock, starts: str
) -> None:
    here, there = (hackney, enfield) if starts == "hackney" else (enfield, hackney)
    session = await start(here, there)
    assert (await look(here, session))["state"] == "waiting"
    clock.now_ms += WINDOW_MS
    found = await look(here, session, 30)
    assert (found["state"], found["words"]) == ("failed", None)
    assert "did not start in time" in found["reason"]
    status, document = await confirm(here, session, same=True)
    assert (status, document["code"]) == (400, "request-invalid")
    assert await peers(here) == {}
    await start(here, there)


async def test_words_that_nobody_confirms_in_time_are_worth_nothing(hackney: Node, enfield: Node, clock: Clock) -> None:
    one, _ = await show_words(hackney, enfield)
    clock.now_ms += WINDOW_MS
    assert (await confirm(hackney, one, same=True))[0] == 400
    assert await peers(hackney) == {}


async def test_there_is_one_at_a_time(hackney: Node, enfield: Node) -> None:
    first = await start(hackney, enfield)
    status, document = await hackney.local("POST", "/v1/pairings", {"url": enfield.url})
    assert (status, document["code"]) == (409, "already-there")
    assert "--stop" in document["hint"]
    assert (await hackney.local("GET", "/v1/pairings"))[1]["items"][0]["id"] == first["id"]
    await hackney.local("DELETE", f"/v1/pairings/{first['id']}")
    second = await start(hackney, enfield)
    assert (await hackney.local("GET", f"/v1/pairings/{first['id']}"))[0] == 404
    assert second["id"] != first["id"]


async def test_a_no_is_kept_as_an_alarm_and_ends_it(hackney: Node, enfield: Node) -> None:
    one, other = await show_words(hackney, enfield)
    status, document = await confirm(hackney, one, same=False)
    assert (status, document["code"]) == (403, "fingerprint-mismatch")
    (alarm,) = await hackney.alarms(enfield.origin)
    assert alarm["kind"] == "pairing-words-differ"
    assert one["fingerprint"] in alarm["detail"]
    assert (await confirm(hackney, one, same=True))[0] == 400, "there is no second thought"
    assert await peers(hackney) == {}
    status, _ = await confirm(enfield, other, words=" ".join(reversed(other["words"])))
    assert status == 403
    assert len(await enfield.alarms(hackney.origin)) == 1


@pytest.mark.parametrize("body", [{}, {"same": True, "words": "a b c d"}, {"same": "yes"}, {"words": "x" * 201}])
async def test_an_answer_that_is_none_is_refused_and_ends_nothing(hackney: Node, enfield: Node, body: Any) -> None:
    one, _ = await show_words(hackney, enfield)
    assert (await confirm(hackney, one, **body))[0] == 400
    assert (await look(hackney, one))["state"] == "words"


async def test_two_answers_at_the_same_time_are_one(hackney: Node, enfield: Node) -> None:
    one, _ = await show_words(hackney, enfield)
    answers = await asyncio.gather(*(confirm(hackney, one, same=same) for same in (False, True, True, False)))
    (won,) = [number for number, (status, _) in enumerate(answers) if status != 400]
    assert await peers(hackney) == ({enfield.origin: "verified"} if won in (1, 2) else {})


async def test_where_two_must_confirm_each_person_pairs(tmp_path: Path, clock: Clock, lines: io.StringIO) -> None:
    async with (
        running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock, TWO_PEOPLE) as hackney,
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield,
    ):
        one, other = await show_words(hackney, enfield)
        assert (await confirm(hackney, one, same=True))[1]["trust"] == "confirming"
        assert (await confirm(enfield, other, same=True))[1]["trust"] == "verified"
        one, other = await show_words(hackney, enfield)
        assert (await confirm(hackney, one, same=True))[1]["code"] == "peer-untrusted", "the same person again"
        async with person(hackney, "Bela") as bela:
            answer = await bela.post(f"/v1/pairings/{one['id']}/confirm", json={"same": True})
            assert (await answer.json())["trust"] == "verified"


async def test_a_peer_that_was_revoked_comes_back_under_new_keys(tmp_path: Path, hackney: Node, clock: Clock) -> None:
    origin = "exchange.enfield.example"
    async with running(tmp_path / "lost", ENFIELD, origin, clock) as lost:
        await hackney.know(lost)
        await lost.know(hackney)
        await publish_revocation(lost.services, revocation := await prepare_revocation(lost.services))
        async with hackney.http.post(f"{hackney.url}/v1/revocations", data=revocation) as answer:
            assert answer.status == 200
        assert await peers(hackney) == {origin: "revoked"}
        status, document = await hackney.local("POST", "/v1/pairings", {"url": lost.url})
        assert (status, document["code"]) == (403, "identity-revoked")
    async with running(tmp_path / "new", ENFIELD, origin, clock) as new:
        one, other = await show_words(hackney, new)
        assert await peers(hackney) == {origin: "revoked"}
        assert (await confirm(hackney, one, same=True))[1]["trust"] == "verified"
        assert (await confirm(new, other, same=True))[1]["trust"] == "verified"
        await hackney.reached(await hackney.send(ENFIELD), "received")


async def test_a_peer_that_was_blocked_is_verified_anew_once_its_identity_was_compared(
    tmp_path: Path, hackney: Node, clock: Clock
) -> None:
    origin = "exchange.enfield.example"
    async with running(tmp_path / "old", ENFIELD, origin, clock) as old:
        await hackney.know(old)
    async with running(tmp_path / "new", ENFIELD, origin, clock) as new:
        one, _ = await show_words(hackney, new)
        assert await peers(hackney) == {origin: "verified"}, "a card that is merely shown blocks nobody"
        await hackney.local("DELETE", f"/v1/pairings/{one['id']}")
        card = json.loads(card_file(await own_card_file(new.services)))
        await hackney.local("POST", "/v1/peers", {"card": card})
        assert await peers(hackney) == {origin: "blocked"}
        await new.local("DELETE", f"/v1/pairings/{(await new.local('GET', '/v1/pairings'))[1]['items'][0]['id']}")
        one, _ = await show_words(hackney, new)
        document = (await confirm(hackney, one, same=True))[1]
        assert (document["trust"], document["candidate"]) == ("verified", None)
        assert document["fingerprint"] == one["fingerprint"]


async def test_a_peer_that_a_false_card_has_blocked_is_verified_again_under_the_keys_it_has(
    hackney: Node, enfield: Node, clock: Clock
) -> None:
    await hackney.know(enfield)
    await hackney.know(Borough(enfield.origin, ENFIELD, clock), verified=False)
    shown = (await hackney.local("GET", f"/v1/peers/{enfield.origin}"))[1]
    assert shown["trust"] == "blocked"
    assert shown["candidate"]
    one, _ = await show_words(hackney, enfield)
    assert one["fingerprint"] == shown["fingerprint"]
    document = (await confirm(hackney, one, same=True))[1]
    assert (document["trust"], document["candidate"], document["fingerprint"]) == (
        "verified",
        None,
        shown["fingerprint"],
    )


async def test_a_peer_that_is_suspended_is_verified_by_it_and_a_verified_one_stays_so(
    hackney: Node, enfield: Node
) -> None:
    await hackney.know(enfield)
    await hackney.local("POST", f"/v1/peers/suspend/{enfield.origin}")
    for count in (2, 3):
        one, other = await show_words(hackney, enfield)
        assert (await confirm(hackney, one, same=True))[1]["trust"] == "verified"
        await enfield.local("DELETE", f"/v1/pairings/{other['id']}")
        records = (await hackney.local("GET", f"/v1/peers/{enfield.origin}"))[1]["verifications"]
        assert [record["how"] for record in records] == ["fingerprint", *["words"] * (count - 1)]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 400, "url"),
        ({"url": "http://exchange.enfield.example"}, 400, "https://HOST"),
        ({"url": "https://user@exchange.enfield.example"}, 400, "https://HOST"),
        ({"url": "https://a", "networks": ["x"]}, 400, "--allow-network"),
        ({"url": "https://a", "ca_file": "/nowhere"}, 400, "CA file"),
        ({"url": NOWHERE}, 503, "cannot be reached"),
    ],
)
async def test_a_pairing_that_cannot_begin_says_why(hackney: Node, body: Any, status: int, word: str) -> None:
    got, document = await hackney.local("POST", "/v1/pairings", body)
    assert got == status
    assert word in document["message"]
    assert (await hackney.local("GET", "/v1/pairings"))[1]["items"] == []


async def test_a_node_does_not_pair_with_itself_nor_once_it_is_revoked(hackney: Node, enfield: Node) -> None:
    status, document = await hackney.local("POST", "/v1/pairings", {"url": hackney.url})
    assert (status, "own card" in document["message"]) == (400, True)
    await start(hackney, enfield)
    await publish_revocation(hackney.services, await prepare_revocation(hackney.services))
    assert (await offer(hackney, enfield))[0] == 403
    assert (await enfield.local("POST", "/v1/pairings", {"url": hackney.url}))[0] == 403


async def offer(node: Node, as_if: Node | Borough) -> tuple[int, bytes]:
    """Offer a pairing to a node, in another's name, with a nonce that nobody knows."""
    if isinstance(as_if, Borough):
        identity = as_if.fingerprint
    else:
        identity = (await as_if.local("GET", "/v1/card"))[1]["fingerprint"]
    made = PairingOffer(
        version=VERSION, fingerprint=bytes.fromhex(identity), commitment=commitment(identity, bytes(32))
    )
    return await post(node, encode_wire(made), PAIRING_TYPE, "/v1/pairings")


async def test_where_nobody_waits_a_stranger_hears_one_word_and_it_is_counted(
    hackney: Node, enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    for stranger in (enfield, camden):
        status, body = await offer(hackney, stranger)
        assert (status, json.loads(body)["message"]) == (403, "unacceptable")
    await start(hackney, enfield)
    status, body = await offer(hackney, camden)
    assert (status, json.loads(body)["message"]) == (403, "unacceptable")
    assert hackney.count("pairings_refused") == 3
    assert lines.getvalue().count("pairing refused") == 3


async def test_the_node_stops_while_a_pairing_waits(hackney: Node, enfield: Node) -> None:
    session = await start(enfield, hackney)
    waiting = asyncio.create_task(look(enfield, session, 1))
    await until("it has asked", lambda: _asked(hackney))
    await waiting


async def _asked(node: Node) -> bool:
    return node.count("pairings_refused") > 0


@pytest.mark.parametrize("number", ["\xb2", "9" * 5000], ids=["superscript", "long"])
async def test_whatever_answers_at_the_url_does_not_stop_the_node(enfield: Node, clock: Clock, number: str) -> None:
    other = Borough("exchange.sutton.example", "E09000029", clock)  # sorts behind: Enfield begins

    async def card(_: web.Request) -> web.Response:
        return web.json_response(card_file_of(other.card()))

    async def odd(_: web.Request) -> web.Response:
        return web.Response(status=403, headers={"content-type": f"application/problem+json; a*{number}*=1"})

    application = web.Application()
    application.router.add_get("/v1/card", card)
    application.router.add_post("/v1/pairings", odd)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    session = await start(enfield, f"http://127.0.0.1:{runner.addresses[0][1]}")

    async def told() -> Any:
        return (await look(enfield, session))["problem"]

    assert "cannot be read" in await until("the admin is told", told)
    assert (await enfield.local("DELETE", f"/v1/pairings/{session['id']}"))[0] == 200
    assert (await enfield.local("GET", "/v1/health"))[0] == 200
    await runner.cleanup()
