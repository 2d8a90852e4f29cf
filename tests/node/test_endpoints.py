"""Endpoints of a running node: pause, secrets, the handshake, attempts, replay, settings."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from exchange.node.endpoints import FAILING_MS, Endpoints
from exchange.node.webhook import secret_id
from exchange.store.attempts import AttemptRow, add_attempts
from tests import databases
from tests.node.agency import LOOPBACK, Agency
from tests.node.handmade import CONTENT, Desk
from tests.node.pair import Clock, Node, until
from tests.node.test_agencies import delivered, held, sections, send

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


@pytest.fixture
async def housing(enfield: Node, desk: Desk) -> AsyncIterator[Agency]:
    """A housing agency, registered at a node that knows a borough."""
    async with Agency("housing").listening() as agency:
        await enfield.know(desk.borough)
        await agency.register(enfield)
        yield agency


async def ask(node: Node, agency: Agency, verb: str, body: Any = None) -> Any:
    """Ask about an agency, and have it done."""
    method = "GET" if not verb else "POST"
    status, document = await node.local(method, f"/v1/agencies/{agency.id}{verb}", body)
    assert status == 200, document
    return document


async def stands_at(node: Node, agency: Agency, stage: str) -> None:
    """Wait until the rotation of an agency's secret stands there."""

    async def stands() -> bool:
        return bool((await ask(node, agency, ""))["rotation"] == stage)

    await until(f"the rotation is at {stage}", stands)


async def attempts(node: Node, message_id: str) -> list[dict[str, Any]]:
    found = (await node.local("GET", f"/v1/messages/{message_id}/attempts"))[1]["items"]
    return [item for item in found if item["agency"] == "housing"]


async def test_what_is_for_a_paused_agency_is_held_and_goes_on_when_it_is_resumed(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    paused = await ask(enfield, housing, "/pause", {"reason": "moving"})
    assert (paused["state"], paused["reason"], paused["held"]) == ("paused", "moving", 0)
    sent = await send(enfield, desk.borough)
    assert await held(enfield, sent) == ["agency housing is paused: moving"]
    status = await enfield.status(sent)
    assert {part["held"] for part in status["sections"] if part["agency"] == "housing"} == {
        "agency housing is paused: moving"
    }
    assert housing.events == []
    resumed = await ask(enfield, housing, "/resume")
    assert (resumed["state"], resumed["released"]) == ("active", 1)
    await delivered(enfield, sent, "housing")


async def test_a_disabled_agency_is_enabled_and_not_resumed(enfield: Node, desk: Desk, housing: Agency) -> None:
    housing.status = 410
    await send(enfield, desk.borough)

    async def disabled() -> bool:
        return bool((await ask(enfield, housing, ""))["state"] == "disabled")

    await until("the agency is disabled", disabled)
    status, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/resume")
    assert (status, document["code"]) == (400, "request-invalid")
    assert "enable" in document["hint"]


async def test_both_secrets_sign_until_the_agency_has_named_the_new_one_and_the_overlap_has_passed(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    old = housing.secret
    rotated = await ask(enfield, housing, "/secret", {"overlap_hours": 1})
    new = rotated["secret"]
    assert (rotated["secret_id"], rotated["old_secret_id"]) == (secret_id(new), secret_id(old))
    assert (await enfield.local("POST", f"/v1/agencies/{housing.id}/secret", {}))[0] == 409

    for secret in (old, new):
        housing.secret = secret
        await delivered(enfield, await send(enfield, desk.borough), "housing")
    assert housing.unproven == []
    await stands_at(enfield, housing, "overlap")

    housing.headers = {"webhook-secret-id": secret_id(new)}
    await delivered(enfield, await send(enfield, desk.borough), "housing")
    await stands_at(enfield, housing, "proven")
    # One machine of the agency's that has not switched takes the proof back.
    housing.headers = {"webhook-secret-id": secret_id(old)}
    await delivered(enfield, await send(enfield, desk.borough), "housing")
    await stands_at(enfield, housing, "overlap")
    housing.headers = {"webhook-secret-id": secret_id(new)}
    tested = await ask(enfield, housing, "/test")
    assert tested["secret_id"] == secret_id(new)
    assert (await ask(enfield, housing, ""))["rotation"] == "proven"


async def test_the_name_of_a_secret_that_is_not_the_agencys_proves_nothing(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    await ask(enfield, housing, "/secret", {"overlap_hours": 1})
    housing.headers = {"webhook-secret-id": "whid_0123456789abcdef"}
    await delivered(enfield, await send(enfield, desk.borough), "housing")
    assert (await ask(enfield, housing, ""))["rotation"] == "overlap"
    body = {"secret_id": "whid_0123456789abcdef"}
    status, _ = await enfield.local("POST", f"/v1/agencies/{housing.id}/secret/confirm", body)
    assert status == 400


async def test_an_admin_can_say_for_an_agency_that_it_has_switched(enfield: Node, housing: Agency) -> None:
    rotated = await ask(enfield, housing, "/secret", {"overlap_hours": 1})
    confirmed = await ask(enfield, housing, "/secret/confirm", {"secret_id": rotated["secret_id"]})
    assert (confirmed["rotation"], confirmed["proven_at"] is not None) == ("proven", True)


async def test_a_secret_that_was_stolen_ends_at_once(enfield: Node, desk: Desk, housing: Agency) -> None:
    rotated = await ask(enfield, housing, "/secret", {"overlap_hours": 0})
    assert (rotated["rotation"], rotated["old_secret_id"]) == ("single", None)
    housing.secret = rotated["secret"]
    await delivered(enfield, await send(enfield, desk.borough), "housing")
    (signature, asymmetric) = housing.seen[-1]["webhook-signature"].split(" ")
    assert (signature[:3], asymmetric[:4]) == ("v1,", "v1a,")


async def test_the_public_key_is_shown_and_the_same_for_all_agencies(enfield: Node, housing: Agency) -> None:
    shown = await ask(enfield, housing, "")
    assert shown["public_key"].startswith("whpk_")
    async with Agency("police").listening() as police:
        await police.register(enfield)
        assert (await ask(enfield, police, ""))["public_key"] == shown["public_key"]
    assert housing.secret not in json.dumps(shown)


@pytest.mark.parametrize(
    ("status", "headers", "state", "rate"),
    [
        (200, {"webhook-allowed-origin": "exchange.enfield.example", "webhook-allowed-rate": "120"}, "allowed", 120),
        (200, {"webhook-allowed-origin": "*", "webhook-allowed-rate": "*"}, "allowed", None),
        (200, {"allow": "POST"}, "unsupported", None),
        (405, {}, "unsupported", None),
        (404, {}, "unsupported", None),
        (500, {}, "unsupported", None),
        (200, {"webhook-allowed-origin": "exchange.camden.example"}, "refused", None),
        (403, {"webhook-allowed-origin": "exchange.enfield.example"}, "refused", None),
    ],
)
async def test_an_endpoint_is_asked_whether_it_wants_webhooks(
    enfield: Node, status: int, headers: dict[str, str], state: str, rate: int | None
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["webhook-request-origin"])
        return web.Response(status=status, headers=headers)

    application = web.Application()
    application.router.add_route("OPTIONS", "/hook", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        body = {"kind": "housing", "url": url, "networks": LOOPBACK}
        code, document = await enfield.local("POST", "/v1/agencies", body)
        assert asked == [enfield.origin]
        if state != "refused":
            assert (code, document["handshake"]["state"], document["rate_per_minute"]) == (201, state, rate)
            return
        assert (code, document["code"]) == (403, "handshake-refused")
        assert (await enfield.local("GET", "/v1/agencies"))[1]["items"] == []
        code, document = await enfield.local("POST", "/v1/agencies", {**body, "handshake": False})
        assert (code, document["handshake"]["state"]) == (201, "skipped")
        assert len(asked) == 1
    finally:
        await runner.cleanup()


async def test_each_request_is_kept_and_nothing_of_what_was_answered_but_its_measure(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    original, answers = housing._answer, iter([500, 400, 400])

    async def talk(request: web.Request) -> web.Response:
        await original(request)
        status = next(answers, 200)
        kind = "application/problem+json" if status == 400 else "text/plain"
        text = json.dumps({"code": "queue-broken", "detail": CONTENT}) if status == 400 else CONTENT
        return web.Response(status=status, text=text, content_type=kind)

    housing._answer = talk  # type: ignore[method-assign]
    async with housing.listening():
        body = {"kind": "police", "url": housing.url, "networks": LOOPBACK}
        housing.secret = (await enfield.local("POST", "/v1/agencies", body))[1]["secret"]
        sent = await send(enfield, desk.borough)
        await delivered(enfield, sent, "police")
    status, document = await enfield.local("GET", f"/v1/messages/{sent}/attempts")
    items = [item for item in document["items"] if item["agency"] == "police"]
    assert status == 200
    by_status = sorted({(item["status"], item["code"], item["content_type"], item["accepted"]) for item in items})
    assert by_status[0] == (200, None, "text/plain", True)
    assert {(400, "queue-broken", "application/problem+json", False), (500, None, "text/plain", False)} & set(by_status)
    assert {item["size_bytes"] for item in items if item["status"] == 200} == {len(CONTENT)}
    assert CONTENT not in json.dumps(document)
    rows = enfield.rows("SELECT * FROM attempts")
    assert not any(CONTENT in str(value) for row in rows for value in row)


@pytest.mark.parametrize("code", [CONTENT, "Jay", "a b", "x" * 41, "7", "jay-", "é", 5, None, ["a"]])
async def test_of_a_problem_only_a_code_that_can_be_no_sentence_is_kept(
    enfield: Node, desk: Desk, housing: Agency, code: object
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=422, text=json.dumps({"code": code}), content_type="application/problem+json")

    housing._answer = refuse  # type: ignore[method-assign]
    async with housing.listening():
        body = {"kind": "police", "url": housing.url, "networks": LOOPBACK}
        await enfield.local("POST", "/v1/agencies", body)
        sent = await send(enfield, desk.borough)

        async def tried() -> list[dict[str, Any]]:
            found = (await enfield.local("GET", f"/v1/messages/{sent}/attempts"))[1]["items"]
            return [item for item in found if item["agency"] == "police"]

        assert {item["code"] for item in await until("it was tried", tried)} == {None}


async def test_a_replay_sends_again_what_was_accepted_under_the_same_ids_and_signs_nothing(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    first, second = await send(enfield, desk.borough), await send(enfield, desk.borough)
    for message in (first, second):
        await delivered(enfield, message, "housing")
    before = [event["id"] for event in housing.accepted]
    statements = enfield.rows("SELECT count(*) FROM statements")

    counted = await ask(enfield, housing, "/replay", {"message_id": first, "dry_run": True})
    assert {key: counted[key] for key in ("messages", "sections", "erased", "waiting")} == {
        "messages": 1,
        "sections": 2,
        "erased": 0,
        "waiting": 0,
    }
    assert len(housing.accepted) == len(before)

    await ask(enfield, housing, "/replay", {"message_id": first})

    async def again() -> bool:
        return len(housing.accepted) == len(before) + 2

    await until("it was sent again", again)
    replayed = housing.accepted[len(before) :]
    assert {event["data"]["message_id"] for event in replayed} == {first}
    assert sections(replayed) == ["housing", "subject"]
    assert {event["id"] for event in replayed} <= set(before)
    assert {seen.get("webhook-replay") for seen in housing.seen[len(before) :]} == {"true"}
    assert {seen.get("webhook-replay") for seen in housing.seen[: len(before)]} == {None}
    assert enfield.rows("SELECT count(*) FROM statements") == statements

    async def recorded() -> bool:
        return sorted(item["replay"] for item in await attempts(enfield, first)) == [False, False, True, True]

    await until("the attempts are recorded", recorded)
    events = (await enfield.local("GET", f"/v1/messages/{first}/timeline"))[1]["events"]
    assert "An admin had it sent to housing again." in [event["text"] for event in events]


async def test_a_replay_since_a_time_takes_what_was_accepted_since_and_not_what_was_erased(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    first, second = await send(enfield, desk.borough), await send(enfield, desk.borough)
    for message in (first, second):
        await delivered(enfield, message, "housing")
    erase = "DELETE FROM message_keys WHERE message = (SELECT number FROM messages WHERE message_id = ?)"
    databases.execute(enfield.services.configuration.store_url, erase, first)
    since = enfield.services.now().replace(year=2020).isoformat()
    counted = await ask(enfield, housing, "/replay", {"since": since, "dry_run": True})
    assert (counted["messages"], counted["erased"]) == (1, 1)
    later = enfield.services.now().replace(year=2030).isoformat()
    assert (await ask(enfield, housing, "/replay", {"since": later, "dry_run": True}))["messages"] == 0


async def test_a_replay_of_nothing_or_of_two_things_is_refused(enfield: Node, housing: Agency) -> None:
    for body in ({}, {"since": "2026-11-23T16:00:00Z", "message_id": "x"}, {"since": "2026-11-23T16:00:00"}):
        status, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/replay", body)
        assert (status, document["code"]) == (400, "request-invalid")
    body = {"message_id": "00000000-0000-4000-8000-000000000000"}
    assert (await enfield.local("POST", f"/v1/agencies/{housing.id}/replay", body))[0] == 404


async def test_settings_are_changed_one_by_one_and_taken_back(enfield: Node, housing: Agency) -> None:
    changed = await ask(enfield, housing, "/settings", {"timeout_s": 3, "retry_s": [1, 2.5]})
    assert (changed["timeout_s"], changed["retry_s"], changed["proxy"]) == (3, [1, 2.5], None)
    changed = await ask(enfield, housing, "/settings", {"timeout_s": None})
    assert (changed["timeout_s"], changed["retry_s"]) == (None, [1, 2.5])
    for wrong in (
        {"timeout_s": 0},
        {"retry_s": []},
        {"retry_s": [0]},
        {"proxy": "http://127.0.0.1:3128"},
        {"certificate": "/nowhere.pem"},
    ):
        status, _ = await enfield.local("POST", f"/v1/agencies/{housing.id}/settings", wrong)
        assert status == 400, wrong


async def test_an_agency_that_named_a_rate_is_not_sent_more(enfield: Node, desk: Desk, lines: io.StringIO) -> None:
    housing = Agency("housing")

    async def allow(_: web.Request) -> web.Response:
        return web.Response(headers={"webhook-allowed-origin": "*", "webhook-allowed-rate": "4"})

    application = web.Application()
    application.router.add_post("/hook", housing._answer)
    application.router.add_route("OPTIONS", "/hook", allow)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        housing.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        await enfield.know(desk.borough)
        await housing.register(enfield)
        for _ in range(3):
            await send(enfield, desk.borough)

        async def told() -> bool:
            return "takes 4 requests a minute" in str((await ask(enfield, housing, ""))["last_error"])

        await until("the node waits for the rate", told)
        assert len(housing.accepted) <= 4
        assert (await ask(enfield, housing, ""))["state"] == "active"
    finally:
        await runner.cleanup()


async def kinds_of_alarms(node: Node) -> list[str]:
    return [alarm["kind"] for alarm in await node.alarms(node.origin)]


async def test_the_old_secret_is_destroyed_once_the_overlap_has_passed_and_the_new_one_is_proven(
    enfield: Node, housing: Agency, clock: Clock
) -> None:
    rotated = await ask(enfield, housing, "/secret", {"overlap_hours": 1})
    await ask(enfield, housing, "/secret/confirm", {"secret_id": rotated["secret_id"]})
    looking = Endpoints(enfield.services)
    await looking.look()
    assert (await ask(enfield, housing, ""))["old_secret_id"] is not None
    clock.stop()
    clock.now_ms += HOUR_MS
    await looking.look()
    shown = await ask(enfield, housing, "")
    assert (shown["rotation"], shown["old_secret_id"], shown["proven_at"] is None) == ("single", None, False)
    assert enfield.rows("SELECT old_wrapped_secret FROM endpoints") == [(None,)]
    assert await kinds_of_alarms(enfield) == []


async def test_without_a_proof_nobody_is_locked_out_and_the_admins_are_told_once(
    enfield: Node, desk: Desk, housing: Agency, clock: Clock
) -> None:
    rotated = await ask(enfield, housing, "/secret", {"overlap_hours": 1})
    looking = Endpoints(enfield.services)
    clock.stop()
    clock.now_ms += HOUR_MS
    for _ in range(3):
        await looking.look()
    assert (await ask(enfield, housing, ""))["rotation"] == "overdue"
    assert await kinds_of_alarms(enfield) == ["secret-unproven"]
    clock.run()
    await delivered(enfield, await send(enfield, desk.borough), "housing")  # verified with the old one
    assert housing.unproven == []
    housing.headers = {"webhook-secret-id": rotated["secret_id"]}
    housing.secret = rotated["secret"]
    await ask(enfield, housing, "/test")
    shown = await ask(enfield, housing, "")
    assert (shown["rotation"], shown["old_secret_id"]) == ("single", None)


async def test_the_admins_are_told_once_of_an_agency_that_fails_for_a_quarter_of_an_hour(
    enfield: Node, desk: Desk, housing: Agency, clock: Clock
) -> None:
    housing.status = 500
    await send(enfield, desk.borough)

    async def failing() -> bool:
        return (await ask(enfield, housing, ""))["failing_since"] is not None

    await until("the agency fails", failing)
    looking = Endpoints(enfield.services)
    await looking.look()
    assert await kinds_of_alarms(enfield) == []
    clock.stop()
    clock.now_ms += FAILING_MS
    for _ in range(3):
        await looking.look()
    assert await kinds_of_alarms(enfield) == ["agency-failing"]


async def test_of_many_attempts_that_failed_the_latest_are_kept_and_of_old_ones_none(
    enfield: Node, desk: Desk, housing: Agency, clock: Clock
) -> None:
    sent = await send(enfield, desk.borough)
    await delivered(enfield, sent, "housing")
    store = enfield.services.store
    (number,) = enfield.rows("SELECT number FROM messages WHERE message_id = ?", sent)[0]
    row = AttemptRow(number, 1, "housing", "subject", clock(), 1, 0, 0, 500, "failed", None, None, None, None)
    for _ in range(3):
        await store.write(lambda tx: add_attempts(tx, [row] * 100, prune=True))
    kept = await attempts(enfield, sent)
    assert sum(not item["accepted"] for item in kept) == 200
    assert sum(item["accepted"] for item in kept) == 2
    clock.stop()
    clock.now_ms += 91 * DAY_MS
    await Endpoints(enfield.services).look()
    assert await attempts(enfield, sent) == []
