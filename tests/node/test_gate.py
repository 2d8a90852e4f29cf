"""The gate around real nodes: nothing leaves without what it wants, and what it said is kept and told."""

import asyncio
import dataclasses
import hashlib
import json
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, delete

from exchange.node.gate import Gatekeeper
from exchange.store.disclosures import disclosure_of
from exchange.store.tables import message_keys
from exchange.store.transaction import Sql
from tests.node.handmade import Borough
from tests.node.pair import ENFIELD, EXAMPLES, HACKNEY, Clock, Node, Pair, form, running, until

DAY_MS = 86_400_000
REQUIRED = '[gate]\nagreements = "required"\n'
TWO = '[gate]\nsecond_approver = ["urgent", "under-18", "associates"]\n'
GENERAL = {"regime": "law-enforcement", "gateway": "crime-and-disorder-s115"}
VIOLENCE = {"regime": "law-enforcement", "gateway": "serious-violence-s16"}
SECRET = "Zephyrine Quillfeather was threatened at 9 Marzipan Row"


def urgent(to_area: str = ENFIELD, from_area: str = HACKNEY, **more: Any) -> bytes:
    document = json.loads((EXAMPLES / "urgent.json").read_bytes())
    document["referral"] |= {"from_area": from_area, "to_area": to_area}
    return json.dumps(document | more).encode()


def agreed(area: str = ENFIELD, **changes: Any) -> dict[str, Any]:
    return {
        "area": area,
        "title": "North London gangs protocol",
        "reference": "IG-2026-014",
        "starts_on": "2026-11-01",
        "ends_on": "2027-10-31",
        "bases": [GENERAL],
        **changes,
    }


@dataclasses.dataclass
class Person:
    """Somebody with a token for a node, who asks it over TCP."""

    node: Node
    token: str

    async def ask(self, method: str, path: str, body: Any = None, data: bytes | None = None, **headers: str) -> Any:
        content = data if data is not None else json.dumps(body).encode() if body is not None else None
        url = f"http://{self.node.services.configuration.tables.local.address}{path}"
        given = {"authorization": f"Bearer {self.token}"} | {
            key.replace("_", "-"): text for key, text in headers.items()
        }
        async with self.node.http.request(method, url, data=content, headers=given) as answer:
            return answer.status, await answer.json(content_type=None)

    async def send(self, data: bytes, to_area: str = ENFIELD, **headers: str) -> Any:
        status, document = await self.ask("POST", f"/v1/messages/to/{to_area}", data=data, **headers)
        return {"status": status, **document} if status >= 300 else document


async def person(node: Node, name: str) -> Person:
    status, made = await node.local("POST", "/v1/tokens", {"name": name})
    assert status == 201
    return Person(node, made["token"])


@asynccontextmanager
async def guarded(path: Path, clock: Clock, more: str) -> AsyncIterator[Pair]:
    """Hackney with a gate of its own, and Enfield, each verified at the other."""
    async with (
        running(path / "hackney", HACKNEY, "exchange.hackney.example", clock, more) as hackney,
        running(path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield,
    ):
        await hackney.know(enfield)
        await enfield.know(hackney)
        yield Pair(hackney, enfield)


def kept(node: Node) -> dict[str, int]:
    return {name: count for name, count in node.kept().items() if name in ("messages", "waiting_forms", "disclosures")}


async def signed(node: Node, message_id: str) -> Any:
    async def is_signed() -> Any:
        rows = node.rows("SELECT count(*) FROM messages WHERE message_id = ?", message_id)
        return rows[0][0]

    return await until(f"{message_id} is a message", is_signed)


# Agreements


async def test_where_agreements_are_advised_a_form_leaves_and_its_sender_is_told(pair: Pair) -> None:
    status, sent = await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD))
    assert status == 201
    told = {one["path"]: one["message"] for one in sent["warnings"]}
    assert told["agreement"] == "no sharing agreement with E09000010 is on file"
    assert pair.hackney.count("gate_warnings") == 1
    found = await pair.hackney.reached(sent["id"], "received")
    assert {row["basis"] for row in found["sections"]} == {None}
    assert found["disclosure"]["state"] == "passed"
    assert (await pair.enfield.status(sent["id"]))["disclosure"] is None
    health = (await pair.hackney.local("GET", "/v1/health"))[1]["gate"]
    assert health["agreements"] == "advised"


async def test_with_an_agreement_nothing_is_missing_and_the_status_says_on_what_ground(pair: Pair) -> None:
    children = {"agency": "childrens-social-care", "regime": "uk-gdpr", "gateway": "children-act-2004-s10"}
    status, agreement = await pair.hackney.local("POST", "/v1/agreements", agreed(bases=[GENERAL, children]))
    assert (status, agreement["state"]) == (201, "active")
    _, sent = await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD))
    assert sent["warnings"] == []
    found = await pair.hackney.status(sent["id"])
    grounds = {row["agency"]: row["basis"] for row in found["sections"] if row["section"] == "subject"}
    assert grounds["police"] == {"agreement": agreement["id"], **GENERAL}
    assert grounds["childrens-social-care"]["gateway"] == "children-act-2004-s10"
    assert pair.hackney.count("gate_warnings") == 0


@pytest.mark.parametrize(
    ("present", "path"),
    [
        (None, "agreement"),
        (agreed(area="E09000003"), "agreement"),
        (agreed(starts_on="2026-12-01"), "agreement"),
        (agreed(kinds=["police", "housing"]), "agreement"),
        (agreed(bases=[{"agency": "police", **GENERAL}]), "legal_bases"),
    ],
    ids=["none", "another borough", "not begun", "not for all", "no basis"],
)
async def test_where_they_are_required_nothing_leaves_and_nothing_is_kept(
    tmp_path: Path, clock: Clock, present: Any, path: str
) -> None:
    async with guarded(tmp_path, clock, REQUIRED) as pair:
        if present is not None:
            assert (await pair.hackney.local("POST", "/v1/agreements", present))[0] == 201
        before = kept(pair.hackney)
        status, refused = await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD))
        assert (status, refused["code"]) == (422, "gate-closed")
        assert path in {finding["path"] for finding in refused["findings"]}
        assert all(finding["hint"] for finding in refused["findings"])
        assert kept(pair.hackney) == before
        assert pair.hackney.count("gate_refusals") == 1


async def test_an_agreement_that_was_ended_or_is_over_lets_nothing_out_any_more(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, REQUIRED) as pair:
        _, first = await pair.hackney.local("POST", "/v1/agreements", agreed())
        assert (await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD)))[0] == 201
        place = f"/v1/agreements/{first['id']}/expire"
        status, ended = await pair.hackney.local("POST", place, {"reason": "the other borough left"})
        assert (status, ended["state"], ended["ended_reason"]) == (200, "expired", "the other borough left")
        assert (await pair.hackney.local("POST", place, {"reason": "again"}))[0] == 409
        assert (await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD)))[0] == 422
        await pair.hackney.local("POST", "/v1/agreements", agreed(ends_on="2026-11-24"))
        assert (await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD)))[0] == 201
        clock.now_ms += 2 * DAY_MS
        assert (await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD)))[0] == 422


async def test_health_and_social_care_records_do_not_leave_through_the_gateway_for_serious_violence(
    pair: Pair,
) -> None:
    await pair.hackney.local("POST", "/v1/agreements", agreed(bases=[VIOLENCE]))
    reason = urllib.parse.quote("It cannot wait.")
    adam = await person(pair.hackney, "adam")
    with_health = {"health": {"needs": "insulin", "legal_basis": "consent"}}
    refused = await adam.send(urgent(**with_health), override_reason=reason)
    assert (refused["status"], refused["code"]) == (422, "gate-closed"), "no override lifts it"
    assert "health" in {finding["path"] for finding in refused["findings"]}
    stated = [
        {"section": name, "regime": "uk-gdpr", "gateway": "health-and-care-s251b"}
        for name in ("health", "childrens-social-care", "subject.nhs")
    ]
    sent = await adam.send(urgent(**with_health, legal_bases=stated))
    assert sent["held"] is None
    found = await pair.hackney.status(sent["id"])
    (health,) = [row["basis"] for row in found["sections"] if row["section"] == "health"]
    assert health["gateway"] == "health-and-care-s251b"
    wrong = [stated[0] | {"gateway": "serious-violence-s16"}]
    assert (await adam.send(urgent(**with_health, legal_bases=wrong)))["code"] == "form-invalid"


async def test_the_admins_are_told_once_28_days_before_an_agreement_ends(pair: Pair, clock: Clock) -> None:
    keeper = Gatekeeper(pair.hackney.services)
    _, made = await pair.hackney.local("POST", "/v1/agreements", agreed(ends_on="2026-12-31"))
    await keeper.look()
    assert await pair.hackney.alarms(pair.hackney.origin) == []
    clock.now_ms += 11 * DAY_MS
    for _ in range(3):
        await keeper.look()
        clock.now_ms += 20 * DAY_MS
    (alarm,) = await pair.hackney.alarms(pair.hackney.origin)
    assert (alarm["kind"], alarm["detail"]) == ("agreement-ends", f"{made['id']} with E09000010 ends on 2026-12-31.")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": ["weather"]},
        {"bases": []},
        {"bases": [GENERAL, GENERAL]},
        {"bases": [GENERAL | {"agency": "dwp"}], "kinds": ["police"]},
        {"bases": [GENERAL | {"gateway": "goodwill"}]},
        {"ends_on": "2026-10-01", "starts_on": "2026-09-01"},
        {"ends_on": "2026-12-01", "starts_on": "2026-12-02"},
        {"review_on": "2028-01-01"},
        {"area": "Enfield"},
        {"title": "two\nlines"},
        {"sha256": "none"},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_an_agreement_that_contradicts_itself_is_refused(hackney: Node, wrong: dict[str, Any]) -> None:
    status, document = await hackney.local("POST", "/v1/agreements", agreed(**wrong))
    assert (status, document["code"]) == (400, "request-invalid")
    assert (await hackney.local("GET", "/v1/agreements"))[1] == {"items": []}


# A second person


async def test_a_form_waits_for_another_person_and_then_goes_on(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, TWO) as pair:
        ada, ben = await person(pair.hackney, "ada"), await person(pair.hackney, "ben")
        data = urgent()
        sent = await ada.send(data)
        assert (sent["awaits_approval"], sent["held"]) == (True, "it awaits a second person's approval")
        assert kept(pair.hackney) == {"messages": 0, "waiting_forms": 1, "disclosures": 1}
        (listed,) = (await ben.ask("GET", "/v1/approvals"))[1]["items"]
        assert (listed["sent_by"], listed["why"]) == ("ada", "a second person must approve: the move is urgent")
        shown = (await ben.ask("GET", f"/v1/approvals/{sent['id']}"))[1]
        assert shown["sha256"] == hashlib.sha256(data).hexdigest()
        assert shown["sections"]
        place = f"/v1/approvals/{sent['id']}/approve"
        assert (await ada.ask("POST", place, {}))[1]["code"] == "second-person-needed"
        assert (await ben.ask("POST", place, {"sha256": "0" * 64}))[1]["code"] == "request-invalid"
        status, approved = await ben.ask("POST", place, {"sha256": shown["sha256"]})
        assert (status, approved["decided_by"]) == (200, "ben")
        assert (await ben.ask("POST", place, {}))[0] == 404, "once"
        await pair.hackney.reached(sent["id"], "received")
        told = (await pair.hackney.local("GET", f"/v1/messages/{sent['id']}/timeline"))[1]["events"]
        assert [event["text"] for event in told][:2] == [
            "ada sent the form, and it awaited a second person.",
            "ben approved it.",
        ]
        assert (await pair.hackney.status(sent["id"]))["disclosure"]["decided_by"] == "ben"
        assert (await ben.ask("GET", "/v1/approvals"))[1]["items"] == []


async def test_who_releases_what_is_held_approves_nothing(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, TWO) as pair:
        ada = await person(pair.hackney, "ada")
        sent = await ada.send(urgent())
        (held,) = (await pair.hackney.local("GET", "/v1/held"))[1]["items"]
        assert held["id"] == sent["id"]
        assert (await pair.hackney.local("POST", f"/v1/held/{held['number']}/release"))[0] == 200

        async def is_held_again() -> bool:
            found = (await pair.hackney.local("GET", "/v1/held"))[1]["items"]
            return bool(found and found[0]["reason"] == "it awaits a second person's approval")

        await until("it is held again", is_held_again)
        # Verified anew, everything that is held for the peer is released.
        fingerprint = (await pair.enfield.local("GET", "/v1/card"))[1]["fingerprint"]
        await pair.hackney.local("POST", f"/v1/peers/suspend/{pair.enfield.origin}")
        await pair.hackney.local("POST", f"/v1/peers/verify/{pair.enfield.origin}", {"fingerprint": fingerprint})
        await until("it is held again", is_held_again)
        assert kept(pair.hackney) == {"messages": 0, "waiting_forms": 1, "disclosures": 1}


async def test_a_form_that_is_refused_is_not_kept_and_its_sender_hears_why(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, TWO) as pair:
        ada, ben = await person(pair.hackney, "ada"), await person(pair.hackney, "ben")
        key = "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"
        sent = await ada.send(urgent(), idempotency_key=key)
        status, refused = await ben.ask("POST", f"/v1/approvals/{key}/refuse", {"reason": SECRET})
        assert (status, refused["state"]) == (200, "refused")
        assert kept(pair.hackney) == {"messages": 0, "waiting_forms": 0, "disclosures": 1}
        assert (await ben.ask("POST", f"/v1/approvals/{key}/approve", {}))[0] == 404
        told = (await ada.ask("GET", f"/v1/messages/{sent['id']}/timeline"))[1]["events"]
        assert [event["event"] for event in told] == ["awaited", "refused"]
        assert told[1]["text"] == f"ben refused it: {SECRET}."
        found = (await ada.ask("GET", f"/v1/messages/{key}"))[1]
        assert (found["held"], found["peer"], found["sections"]) == ("refused by ben", None, [])
        again = await ada.send(urgent(), idempotency_key=key)
        assert (again["status"], again["code"]) == (409, "conflict")
        assert SECRET.encode() not in _store_bytes(pair.hackney)


async def test_an_approval_that_does_not_come_raises_an_alarm_once(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, TWO) as pair:
        ada = await person(pair.hackney, "ada")
        sent = await ada.send(urgent())
        keeper = Gatekeeper(pair.hackney.services)
        clock.now_ms += 14 * 60_000
        await keeper.look()
        assert await pair.hackney.alarms(pair.hackney.origin) == []
        clock.now_ms += 60_000
        for _ in range(2):
            await keeper.look()
        (alarm,) = await pair.hackney.alarms(pair.hackney.origin)
        assert alarm["kind"] == "approval-overdue"
        assert alarm["detail"].startswith(f"{sent['id']} to E09000010 has awaited a second person since")
        assert (await pair.hackney.local("GET", "/v1/health"))[1]["gate"]["approvals_overdue"] == 1


async def test_a_form_that_was_approved_waits_for_a_key_and_for_an_agreement_too(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    both = REQUIRED + 'second_approver = ["associates"]\n'
    async with running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock, both) as hackney:
        ada, ben = await person(hackney, "ada"), await person(hackney, "ben")
        await hackney.know(camden)
        clock.now_ms += 40 * DAY_MS  # and camden's keys are out of date
        await hackney.local("POST", "/v1/agreements", agreed(camden.area, ends_on="2027-01-10"))
        sent = await ada.send(form(camden.area), camden.area)
        assert sent["awaits_approval"]
        assert (await ben.ask("POST", f"/v1/approvals/{sent['id']}/approve", {}))[0] == 200

        async def reason() -> str | None:
            found = (await hackney.local("GET", "/v1/held"))[1]["items"]
            return next((str(one["reason"]) for one in found if one["id"] == sent["id"]), None)

        async def lacks_a_key() -> bool:
            return (await reason() or "").startswith("no current key")

        await until("it waits for a key", lacks_a_key)
        clock.now_ms += 12 * DAY_MS  # and the agreement is over
        await hackney.know(camden)

        async def is_closed() -> bool:
            return (await reason() or "").startswith("the gate is closed: agreement:")

        await until("the gate is closed", is_closed)
        assert kept(hackney)["messages"] == 0


# Overrides


async def test_an_override_lets_an_urgent_form_go_and_is_never_silent(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, REQUIRED + 'second_approver = ["urgent"]\n') as pair:
        ada = await person(pair.hackney, "ada")
        assert (await ada.send(urgent()))["code"] == "gate-closed"
        sent = await ada.send(urgent(), override_reason=urllib.parse.quote(SECRET))
        assert sent["overrode"] == ["agreement", "basis", "approval"]
        assert {one["path"] for one in sent["warnings"]} == {"agreement", "legal_bases", "approval"}
        await pair.hackney.reached(sent["id"], "received")
        (alarm,) = await pair.hackney.alarms(pair.hackney.origin)
        assert alarm["kind"] == "gate-overridden"
        assert alarm["detail"].startswith(f"ada sent {sent['id']} to E09000010 without agreement, basis, approval.")
        (listed,) = (await ada.ask("GET", "/v1/overrides"))[1]["items"]
        assert (listed["by"], listed["reason"]) == ("ada", SECRET)
        told = (await pair.hackney.local("GET", f"/v1/messages/{sent['id']}/timeline"))[1]["events"]
        assert told[0]["text"] == "ada sent it in an emergency without agreement, basis, approval."
        assert pair.hackney.count("gate_overrides") == 1
        assert SECRET.encode() not in _store_bytes(pair.hackney)
        # Who erases the message erases the reason.
        (number,) = pair.hackney.rows("SELECT number FROM messages WHERE message_id = ?", sent["id"])[0]
        await pair.hackney.services.store.write(_erase(number))
        (listed,) = (await ada.ask("GET", "/v1/overrides"))[1]["items"]
        assert (listed["by"], listed["reason"]) == ("ada", None)


async def test_an_override_is_for_emergencies_and_says_why(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, REQUIRED) as pair:
        ada = await person(pair.hackney, "ada")
        refused = await ada.send(form(ENFIELD), override_reason="because")
        assert refused["code"] == "gate-closed"
        assert "override" in {finding["path"] for finding in refused["findings"]}
        for reason in ("", "%20", "%ff", "x" * 2001):
            assert (await ada.send(urgent(), override_reason=reason))["code"] == "request-invalid"
        assert kept(pair.hackney) == {"messages": 0, "waiting_forms": 0, "disclosures": 0}


async def test_an_override_that_was_not_needed_is_not_recorded(pair: Pair) -> None:
    await pair.hackney.local("POST", "/v1/agreements", agreed())
    ada = await person(pair.hackney, "ada")
    sent = await ada.send(urgent(), override_reason="why")
    assert sent["overrode"] == []
    assert [one["message"] for one in sent["warnings"]] == ["was not needed, and is not recorded"]
    assert (await ada.ask("GET", "/v1/overrides"))[1]["items"] == []


async def test_a_form_that_passed_by_an_override_waits_for_a_key_and_keeps_its_reason(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    async with running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock, REQUIRED) as hackney:
        ada = await person(hackney, "ada")
        await hackney.know(camden)
        clock.now_ms += 40 * DAY_MS
        sent = await ada.send(urgent(camden.area), camden.area, override_reason=urllib.parse.quote(SECRET))
        assert sent["held"].startswith("no current key")
        (listed,) = (await ada.ask("GET", "/v1/overrides"))[1]["items"]
        assert listed["reason"] == SECRET
        await hackney.know(camden)
        await signed(hackney, sent["id"])
        (listed,) = (await ada.ask("GET", "/v1/overrides"))[1]["items"]
        assert listed["reason"] == SECRET
        row = await hackney.services.store.read(lambda tx: disclosure_of(tx, sent["id"]))
        assert row is not None
        assert row.wrapped is None, "its key is the message's now"


# Preview


async def test_a_preview_says_who_would_read_what_on_what_ground_and_keeps_nothing(
    tmp_path: Path, clock: Clock
) -> None:
    async with guarded(tmp_path, clock, REQUIRED + 'second_approver = ["associates"]\n') as pair:
        before = pair.hackney.kept()
        place = f"/v1/forms/preview/{ENFIELD}"
        _, refused = await pair.hackney.local("POST", place, data=form(ENFIELD))
        assert (refused["ok"], refused["awaits_approval"]) == (False, False)
        assert {row["basis"] for row in refused["sections"]} == {None}
        assert pair.hackney.kept() == before
        _, made = await pair.hackney.local("POST", "/v1/agreements", agreed())
        _, shown = await pair.hackney.local("POST", place, data=form(ENFIELD))
        assert (shown["ok"], shown["awaits_approval"]) == (True, True)
        assert {row["basis"]["agreement"] for row in shown["sections"]} == {made["id"]}
        _, other = await pair.hackney.local("POST", "/v1/forms/preview/E09000003", data=form(ENFIELD))
        assert other["ok"] is False, "it is for another borough"


async def test_what_leaves_is_marked_whether_the_form_says_so_or_not(pair: Pair) -> None:
    document = json.loads(form(ENFIELD))
    del document["referral"]["marking"]
    _, sent = await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=json.dumps(document).encode())
    assert "referral.marking" in {one["path"] for one in sent["warnings"]}


async def test_two_who_approve_and_refuse_at_once_do_one_thing(tmp_path: Path, clock: Clock) -> None:
    async with guarded(tmp_path, clock, TWO) as pair:
        ada, ben, cem = [await person(pair.hackney, name) for name in ("ada", "ben", "cem")]
        for _ in range(3):
            sent = await ada.send(urgent())
            answers = await asyncio.gather(
                ben.ask("POST", f"/v1/approvals/{sent['id']}/approve", {}),
                cem.ask("POST", f"/v1/approvals/{sent['id']}/refuse", {"reason": "no"}),
            )
            assert sorted(status for status, _ in answers) == [200, 404]
            (done,) = [document["state"] for status, document in answers if status == 200]
            if done == "approved":
                await signed(pair.hackney, sent["id"])
            else:
                assert (await ada.ask("GET", f"/v1/messages/{sent['id']}"))[1]["held"] == "refused by cem"


def _store_bytes(node: Node) -> bytes:
    files = [path for path in node.directory.iterdir() if path.name.startswith("exchange.db")]
    return b"".join(path.read_bytes() for path in files)


def _erase(number: int) -> Any:
    erase = Sql(delete(message_keys).where(message_keys.c.message == bindparam("number")))
    return lambda tx: tx.execute(erase, {"number": number})
