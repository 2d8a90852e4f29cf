"""Agencies: registered, tested, removed; each gets its own sections, once accepted never again, and nothing else."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from exchange.crypto.statement import parse_statement
from exchange.schema.wire import RECEIPT, Receipt, decode_wire, receipt_decoder
from tests.node.agency import LOOPBACK, Agency
from tests.node.handmade import CONTENT, Borough, Desk, read_reply
from tests.node.pair import Clock, Node, until

PARTS = (("housing", ("housing",)), ("police", ("police",)), ("subject", ("housing", "police", "dwp")))


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


@pytest.fixture
async def agencies() -> AsyncIterator[dict[str, Agency]]:
    """Agencies that listen; none is registered yet."""
    async with AsyncExitStack() as stack:
        yield {kind: await stack.enter_async_context(Agency(kind).listening()) for kind in ("housing", "police", "dwp")}


async def send(node: Node, camden: Borough, **options: Any) -> str:
    """Send a message with a section for each agency and one for all; return its id."""
    card = await node.card()
    made = camden.message(card, PARTS, **options)
    status, body = await node.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    assert status == 200
    assert read_reply(body).results[0].receipt is not None
    return made.manifest.message_id


async def delivered(node: Node, message_id: str, *kinds: str) -> Any:
    """Wait until all sections for some agencies are delivered."""

    async def done() -> Any:
        found = await node.status(message_id)
        rungs = {section["rung"] for section in found["sections"] if section["agency"] in kinds}
        return found if rungs == {"delivered"} else None

    return await until(f"{kinds} have {message_id}", done)


def sections(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["data"]["section"] for event in events)


async def test_each_agency_gets_its_own_sections_and_no_other(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    await enfield.know(desk.borough)
    for agency in agencies.values():
        await agency.register(enfield)
    sent = await send(enfield, desk.borough)
    await delivered(enfield, sent, "housing", "police", "dwp")
    assert {kind: sections(agency.accepted) for kind, agency in agencies.items()} == {
        "housing": ["housing", "subject"],
        "police": ["police", "subject"],
        "dwp": ["subject"],
    }
    (event,) = agencies["dwp"].accepted
    assert event["specversion"] == "1.0"
    assert event["type"] == "exchange.section.delivered.v1"
    assert event["source"] == f"https://{enfield.origin}"
    assert event["subject"] == f"{sent}/subject"
    assert event["data"] == {
        "message_id": sent,
        "section": "subject",
        "from": "E09000007",
        "to": "E09000010",
        "urgent": False,
        "content": {"text": CONTENT},
    }
    ids = [event["id"] for agency in agencies.values() for event in agency.accepted]
    assert len(set(ids)) == len(ids)


async def test_the_sender_is_told_by_receipt_what_was_delivered(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    await enfield.know(desk.borough)
    receipts: list[Receipt] = []
    original = desk.results

    def keep(opened: Any) -> Any:
        receipts.extend(
            decode_wire(receipt_decoder, statement.body)
            for statement in (parse_statement(item.statement) for item in opened.items)
            if statement.type == RECEIPT
        )
        return original(opened)

    desk.results = keep  # type: ignore[method-assign]
    await agencies["housing"].register(enfield)
    sent = await send(enfield, desk.borough)

    async def told() -> bool:
        return any(receipt.rung.value == "delivered" for receipt in receipts)

    await until("the sender has the receipt", told)
    assert {receipt.message_id for receipt in receipts} == {sent}
    by_rung = {receipt.rung.value: {(p.section, p.agency) for p in receipt.placements} for receipt in receipts}
    pairs = {("housing", "housing"), ("subject", "housing")}
    assert by_rung == {"routed": pairs, "delivered": pairs}


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_what_an_agency_does_not_accept_is_sent_again_under_the_same_id(
    enfield: Node, desk: Desk, agencies: dict[str, Agency], lines: io.StringIO, status: int
) -> None:
    housing = agencies["housing"]
    housing.status, housing.headers = status, {"retry-after": "0"}
    await enfield.know(desk.borough)
    await housing.register(enfield)
    sent = await send(enfield, desk.borough)

    async def tried_twice() -> bool:
        return len(housing.events) >= 3

    await until("it was tried again", tried_twice)
    found = await enfield.status(sent)
    assert found["last_error"] == f"agency housing answered {status}"
    housing.status = 204
    await delivered(enfield, sent, "housing")
    assert sections(housing.accepted) == ["housing", "subject"]
    assert len({event["id"] for event in housing.events}) == 2
    assert "said" not in {line.get("reason") for line in map(json.loads, lines.getvalue().splitlines())}


async def held(enfield: Node, *messages: str) -> list[str]:
    """Wait until messages are held; the reasons."""

    async def all_held() -> list[str] | None:
        items = (await enfield.local("GET", "/v1/held"))[1]["items"]
        reasons = [item["reason"] for item in items if item["agency"] == "housing"]
        return reasons if {item["id"] for item in items if item["agency"] == "housing"} == set(messages) else None

    return await until("the messages are held", all_held)


async def test_an_agency_that_is_gone_is_not_asked_again_until_a_person_says_so(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    housing = agencies["housing"]
    await enfield.know(desk.borough)
    messages = [await send(enfield, desk.borough) for _ in range(3)]
    housing.status = 410
    await housing.register(enfield)
    reasons = await held(enfield, *messages)
    assert set(reasons) == {"agency housing is disabled: it answered 410"}
    asked = len(housing.events)
    assert asked <= 2 * 2  # at most two attempts are under way at once, of two sections each
    assert (await enfield.local("GET", "/v1/agencies"))[1]["items"][0]["failures"] == 0
    (alarm,) = await enfield.alarms(enfield.origin)
    assert (alarm["kind"], "410" in alarm["detail"]) == ("agency-disabled", True)
    later = await send(enfield, desk.borough)
    await held(enfield, *messages, later)
    assert len(housing.events) == asked
    housing.status = 204
    status, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/enable")
    assert (status, document["state"], document["released"]) == (200, "active", 4)
    for message in [*messages, later]:
        await delivered(enfield, message, "housing")


async def test_what_an_agency_finds_too_large_is_held_and_the_rest_is_delivered(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    housing = agencies["housing"]
    original, too_large = housing._answer, ""

    async def all_but_one(request: web.Request) -> web.Response:
        data = json.loads(await request.read())["data"]
        housing.status = 413 if (data["message_id"], data["section"]) == (too_large, "subject") else 204
        return await original(request)

    housing._answer = all_but_one  # type: ignore[method-assign]
    await enfield.know(desk.borough)
    too_large, other = [await send(enfield, desk.borough) for _ in range(2)]
    async with housing.listening():
        await housing.register(enfield)
        assert await held(enfield, too_large) == ["agency housing finds it too large"]
        await delivered(enfield, other, "housing")
    found = (await enfield.status(too_large))["sections"]
    by_name = {item["section"]: item["rung"] for item in found if item["agency"] == "housing"}
    assert by_name == {"housing": "delivered", "subject": "routed"}
    assert sections(housing.events).count("subject") == 2


async def test_a_section_that_was_accepted_is_not_sent_again_for_the_sake_of_another(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    housing = agencies["housing"]
    original, refused = housing._answer, "subject"

    async def all_but_one(request: web.Request) -> web.Response:
        housing.status = 503 if json.loads(await request.read())["data"]["section"] == refused else 204
        return await original(request)

    housing._answer = all_but_one  # type: ignore[method-assign]
    async with housing.listening():
        await enfield.know(desk.borough)
        await housing.register(enfield)
        sent = await send(enfield, desk.borough)

        async def tried_twice() -> bool:
            return sections(housing.events).count("subject") >= 2

        await until("it was tried again", tried_twice)
        refused = ""
        await delivered(enfield, sent, "housing")
    assert sections(housing.events).count("housing") == 1
    assert sections(housing.accepted) == ["housing", "subject"]


async def test_an_agency_that_fails_holds_up_no_other(enfield: Node, desk: Desk, agencies: dict[str, Agency]) -> None:
    agencies["housing"].status = 500
    await enfield.know(desk.borough)
    for agency in agencies.values():
        await agency.register(enfield)
    sent = await send(enfield, desk.borough)
    await delivered(enfield, sent, "police", "dwp")
    assert agencies["housing"].accepted == []


async def test_a_redirect_is_not_followed(enfield: Node, desk: Desk, agencies: dict[str, Agency]) -> None:
    housing, police = agencies["housing"], agencies["police"]
    housing.status, housing.headers = 307, {"location": police.url}
    await enfield.know(desk.borough)
    await housing.register(enfield)
    sent = await send(enfield, desk.borough)

    async def failed() -> Any:
        return (await enfield.status(sent))["last_error"]

    assert await until("a try has failed", failed) == ("agency housing answered 307: redirects are not followed")
    assert police.events == police.unproven == []


async def test_without_an_agency_a_section_is_held_and_registering_one_releases_it(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    await enfield.know(desk.borough)
    await agencies["housing"].register(enfield)
    sent = await send(enfield, desk.borough)
    found = await delivered(enfield, sent, "housing")
    held = {section["agency"]: section["held"] for section in found["sections"]}
    assert held == {
        "housing": None,
        "police": "no agency of kind police is registered",
        "dwp": "no agency of kind dwp is registered",
    }
    items = (await enfield.local("GET", "/v1/held"))[1]["items"]
    assert {(item["id"], item["agency"]) for item in items} == {(sent, "police"), (sent, "dwp")}
    await agencies["police"].register(enfield)
    await delivered(enfield, sent, "police")
    assert sections(agencies["police"].accepted) == ["police", "subject"]


async def test_what_is_held_goes_nowhere_by_being_released_too_early(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    await enfield.know(desk.borough)
    sent = await send(enfield, desk.borough)
    (item, *_) = (await enfield.local("GET", "/v1/held"))[1]["items"]
    assert (await enfield.local("POST", f"/v1/held/{item['number']}/release"))[0] == 200

    async def held_again() -> bool:
        return len((await enfield.local("GET", "/v1/held"))[1]["items"]) == 3

    await until("it is held again", held_again)
    for kind in ("housing", "police", "dwp"):
        await agencies[kind].register(enfield)
    await delivered(enfield, sent, "housing", "police", "dwp")


async def test_what_is_released_twice_is_not_there_the_second_time(enfield: Node, desk: Desk) -> None:
    await enfield.know(desk.borough)
    await send(enfield, desk.borough)
    (item, *_) = (await enfield.local("GET", "/v1/held"))[1]["items"]
    first, _ = await enfield.local("POST", f"/v1/held/{item['number']}/release")
    assert first == 200
    assert (await enfield.local("POST", "/v1/held/99/release"))[0] == 404


async def test_an_agency_that_is_removed_gets_nothing_more_and_its_sections_wait(
    enfield: Node, desk: Desk, agencies: dict[str, Agency]
) -> None:
    housing = agencies["housing"]
    await enfield.know(desk.borough)
    await housing.register(enfield)
    status, document = await enfield.local("DELETE", f"/v1/agencies/{housing.id}")
    assert (status, document["removed"]) == (200, True)
    sent = await send(enfield, desk.borough)
    found = await enfield.status(sent)
    assert found["sections"][0]["held"] == "no agency of kind housing is registered"
    assert housing.events == []
    assert (await enfield.local("GET", "/v1/agencies"))[1]["items"] == []
    # Its successor gets what waited, under a secret of its own.
    old = housing.secret
    await housing.register(enfield)
    await delivered(enfield, sent, "housing")
    assert housing.secret != old
    assert housing.unproven == []


async def test_there_is_one_agency_of_a_kind(enfield: Node, agencies: dict[str, Agency]) -> None:
    housing = agencies["housing"]
    await housing.register(enfield)
    body = {"kind": "housing", "url": housing.url, "networks": LOOPBACK}
    status, document = await enfield.local("POST", "/v1/agencies", body)
    assert (status, document["code"]) == (409, "already-there")
    assert housing.id in document["message"]


@pytest.mark.sqlite
async def test_the_secret_is_told_once_and_kept_sealed(
    enfield: Node, agencies: dict[str, Agency], lines: io.StringIO
) -> None:
    housing = agencies["housing"]
    await housing.register(enfield)
    listed = (await enfield.local("GET", "/v1/agencies"))[1]["items"]
    assert [item["id"] for item in listed] == [housing.id]
    path = enfield.services.configuration.store_file
    stored = path.read_bytes() + path.with_name("exchange.db-wal").read_bytes()
    told = json.dumps(listed).encode() + lines.getvalue().encode()
    for secret in (housing.secret.encode(), housing.secret.removeprefix("whsec_").encode()):
        assert secret not in stored + told


async def test_a_test_event_shows_whether_an_agency_takes_webhooks(enfield: Node, agencies: dict[str, Agency]) -> None:
    housing = agencies["housing"]
    await housing.register(enfield)
    status, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/test")
    took_ms = document.pop("duration_ms")
    assert (status, document) == (200, {"id": housing.id, "ok": True, "status": 204})
    assert 0 <= took_ms < 5000
    (event,) = housing.accepted
    assert event["type"] == "exchange.agency.test.v1"
    data = event["data"]
    assert (data["test"], data["agency"], data["section"]) == (True, "housing", "test")
    assert data.keys() == {"test", "agency", "message_id", "section", "from", "to", "urgent", "content"}
    housing.status = 500
    _, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/test")
    del document["duration_ms"]
    assert document == {"id": housing.id, "ok": False, "status": 500}


async def test_a_test_event_says_why_an_agency_is_not_reached(enfield: Node) -> None:
    agency = Agency("housing")
    async with agency.listening():
        await agency.register(enfield)
    _, document = await enfield.local("POST", f"/v1/agencies/{agency.id}/test")
    assert document["ok"] is False
    assert document["error"].startswith("cannot be reached: ")


@pytest.mark.parametrize("networks", [[], ["10.0.0.0/8"], ["127.0.0.2/32"], ["::1/128"]])
async def test_an_address_inside_is_not_connected_to_unless_its_network_was_named(
    enfield: Node, desk: Desk, networks: list[str]
) -> None:
    agency = Agency("housing")
    async with agency.listening():
        await enfield.know(desk.borough)
        url = agency.url.replace("http:", "https:") if not networks else agency.url
        body = {"kind": "housing", "url": url, "networks": networks}
        status, document = await enfield.local("POST", "/v1/agencies", body)
        assert status == 201
        agency.secret = document["secret"]
        _, document = await enfield.local("POST", f"/v1/agencies/{document['id']}/test")
        assert "connections to 127.0.0.1 are not allowed" in document["error"]
        sent = await send(enfield, desk.borough)

        async def failed() -> Any:
            return (await enfield.status(sent))["last_error"]

        assert "connections to 127.0.0.1 are not allowed" in await until("a try has failed", failed)
    assert agency.events == agency.unproven == []


@pytest.mark.parametrize("answer", ["", "x" * 100_000])
async def test_what_an_agency_answers_is_not_kept_nor_waited_for(
    enfield: Node, desk: Desk, lines: io.StringIO, answer: str
) -> None:
    agency = Agency("housing")
    original = agency._answer

    async def talk(request: web.Request) -> web.Response:
        await original(request)
        return web.Response(text=answer + CONTENT)

    agency._answer = talk  # type: ignore[method-assign]
    async with agency.listening():
        await enfield.know(desk.borough)
        await agency.register(enfield)
        sent = await send(enfield, desk.borough)
        await delivered(enfield, sent, "housing")
    assert CONTENT not in lines.getvalue()
