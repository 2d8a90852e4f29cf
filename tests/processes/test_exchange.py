"""Two real daemons exchange case study J: who gets what, what each side sees, and what an outsider can check."""

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.processes.conftest import Town
from tests.processes.harness import (
    ENFIELD,
    HACKNEY,
    KINDS,
    Borough,
    Result,
    allowed_by,
    example,
    exchange,
    parts_of,
)
from tests.processes.receiver import Receiver

FORM = example("case-study-j")
BIRTHDAY = str(json.loads(FORM)["subject"]["date_of_birth"])


@dataclass(frozen=True)
class Handover:
    """Case study J after it was sent with `--wait delivered`."""

    hackney: Borough
    enfield: Borough
    receiver: Receiver
    file: Path
    send: Result
    id: str


@pytest.fixture(scope="module")
def handover(shared_town: Town, boroughs: tuple[Borough, Borough]) -> Handover:
    hackney, enfield = boroughs
    receiver = shared_town.receiver()
    enfield.add_agencies(receiver)
    file = shared_town.root / "form.json"
    file.write_bytes(FORM)
    sent = hackney.cli("send", file, "--to", ENFIELD, "--wait", "delivered", "--timeout", 60, "--json")
    assert sent.code == 0, sent
    return Handover(hackney, enfield, receiver, file, sent, sent.document["id"])


@pytest.fixture(scope="module")
def receipts(handover: Handover) -> Path:
    """The receipts as the sender exported them."""
    file = handover.file.parent / "receipts.json"
    exported = handover.hackney.ask("receipt", "export", handover.id, file)
    assert exported["receipts"] == len(json.loads(file.read_bytes())["receipts"])
    return file


def pairs(document: Any) -> set[tuple[str, str]]:
    """The sections of a status with their agencies."""
    return {(row["section"], row["agency"]) for row in document["sections"]}


ALLOWED = {(section, kind) for kind, sections in allowed_by(FORM).items() for section in sections}


# Who gets what


def test_sending_with_wait_returns_once_every_section_is_delivered(handover: Handover) -> None:
    document = handover.send.document
    assert document["to"] == ENFIELD
    assert pairs(document) == ALLOWED
    assert {row["rung"] for row in document["sections"]} == {"delivered"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_agency_gets_exactly_the_sections_that_the_catalogue_allows_it(handover: Handover, kind: str) -> None:
    received = [request.section for request in handover.receiver.accepted(kind, handover.id)]
    assert sorted(received) == sorted(allowed_by(FORM)[kind])


def test_what_an_agency_gets_is_the_part_that_was_split_off_the_form(handover: Handover) -> None:
    parts = {str(part.name): json.loads(json.dumps(part.content)) for part in parts_of(FORM)}
    requests = handover.receiver.accepted(message_id=handover.id)
    assert len(requests) == len(ALLOWED)
    for request in requests:
        assert request.event["data"]["content"] == parts[request.section], request.section


def test_the_public_webhook_library_verifies_every_request(handover: Handover) -> None:
    assert handover.receiver.accepted(message_id=handover.id)
    assert handover.receiver.unproven == []


def test_the_public_webhook_library_refuses_a_request_with_one_changed_byte(handover: Handover) -> None:
    request = handover.receiver.accepted("dwp", handover.id)[0]
    library = Webhook(handover.receiver.secret("dwp"))
    library.verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        library.verify(request.body.replace(b"E09000010", b"E09000011"), request.headers)


def test_an_agency_cannot_verify_another_agencys_webhook(handover: Handover) -> None:
    request = handover.receiver.accepted("police", handover.id)[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(handover.receiver.secret("dwp")).verify(request.body, request.headers)


def test_a_webhook_is_a_cloudevent_that_names_message_section_and_boroughs(handover: Handover) -> None:
    for request in handover.receiver.accepted(message_id=handover.id):
        event = request.event
        assert request.headers["content-type"].startswith("application/cloudevents+json")
        assert event["specversion"] == "1.0"
        assert event["type"] == "exchange.section.delivered.v1"
        assert event["id"] == request.headers["webhook-id"]
        assert event["source"] == f"https://{handover.enfield.origin}"
        assert event["subject"] == f"{handover.id}/{request.section}"
        assert event["datacontenttype"] == "application/json"
        assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)
        assert event["data"].keys() == {"message_id", "section", "from", "to", "urgent", "content"}
        assert event["data"]["message_id"] == handover.id
        assert (event["data"]["from"], event["data"]["to"], event["data"]["urgent"]) == (HACKNEY, ENFIELD, False)


def test_no_two_sections_share_a_webhook_id(handover: Handover) -> None:
    requests = handover.receiver.accepted(message_id=handover.id)
    assert len({request.headers["webhook-id"] for request in requests}) == len(requests) == len(ALLOWED)


def test_an_urgent_form_is_marked_urgent_to_every_agency(handover: Handover) -> None:
    urgent = example("urgent")
    message_id = handover.hackney.send(urgent, ENFIELD)
    assert handover.hackney.status(message_id, "delivered", 60)["reached"]
    requests = handover.receiver.accepted(message_id=message_id)
    assert {(request.section, request.kind) for request in requests} == {
        (section, kind) for kind, sections in allowed_by(urgent).items() for section in sections
    }
    assert {request.event["data"]["urgent"] for request in requests} == {True}


# What each side sees


def test_both_sides_show_every_section_delivered(handover: Handover) -> None:
    for borough, direction in ((handover.hackney, "out"), (handover.enfield, "in")):
        status = borough.ask("status", handover.id)
        assert (status["id"], status["direction"]) == (handover.id, direction)
        assert pairs(status) == ALLOWED
        assert {row["rung"] for row in status["sections"]} == {"delivered"}
        assert all(datetime.fromisoformat(row["at"]).utcoffset() == timedelta(0) for row in status["sections"])
        assert status["next_attempt_at"] is None


def test_status_has_a_line_for_every_agency_with_the_count_of_its_sections(handover: Handover) -> None:
    allowed = allowed_by(FORM)
    table = [line.split() for line in handover.hackney.cli("status", handover.id).stdout.splitlines()[1:]]
    assert {row[0]: int(row[1]) for row in table} == {kind: len(names) for kind, names in allowed.items() if names}
    assert {row[2] for row in table} == {"delivered"}


def test_sending_ends_with_how_to_ask_for_the_status(handover: Handover) -> None:
    sent = handover.hackney.cli("send", handover.file, "--to", ENFIELD, "--id", handover.id)
    assert sent.code == 0, sent
    assert sent.stderr.splitlines()[-1].endswith(f"exchange status {handover.id}")


def test_the_card_fits_a_screen_and_shows_its_fingerprint_in_four_lines(handover: Handover) -> None:
    lines = handover.hackney.cli("card", "show").stdout.splitlines()
    assert max(map(len, lines)) < 80
    shown = "".join("".join(lines[-4:]).removeprefix("fingerprint:").split())
    assert shown == handover.hackney.ask("card", "show")["fingerprint"]


def test_the_table_of_status_has_a_line_for_every_section_at_every_agency(handover: Handover) -> None:
    table = handover.hackney.cli("status", handover.id, "--sections").stdout.splitlines()[1:]
    assert {tuple(line.split()[:3]) for line in table} == {(*pair, "delivered") for pair in ALLOWED}


def test_explain_tells_the_story_and_none_of_the_content(handover: Handover) -> None:
    for borough, steps in ((handover.hackney, ("signed", "received")), (handover.enfield, ("received",))):
        told = borough.cli("explain", handover.id)
        assert told.code == 0
        events = [event["event"] for event in borough.ask("explain", handover.id)["events"]]
        assert events[: len(steps)] == list(steps)
        assert "delivered" in events
        for secret in ("Jolyon", "Exampleby", BIRTHDAY, "QQ123456C"):
            assert secret not in told.stdout


def test_the_message_is_in_the_outbox_and_the_inbox_once(handover: Handover) -> None:
    for borough, verb, other in (
        (handover.hackney, "outbox", handover.enfield),
        (handover.enfield, "inbox", handover.hackney),
    ):
        rows = [row for row in borough.ask(verb)["items"] if row["id"] == handover.id]
        assert [row["peer"] for row in rows] == [other.origin]
    assert handover.hackney.ask("inbox") == {"items": []}
    assert handover.enfield.ask("outbox") == {"items": []}


def test_nothing_is_held_and_no_alarm_was_raised(handover: Handover) -> None:
    for borough in (handover.hackney, handover.enfield):
        assert borough.ask("held", "list") == {"items": []}
        assert borough.ask("alarms") == {"items": []}


# What an outsider can check


@pytest.fixture
def no_node(handover: Handover) -> Iterator[None]:
    """Both nodes are stopped for one test."""
    assert handover.hackney.stop() == 0
    assert handover.enfield.stop() == 0
    yield
    handover.hackney.start()
    handover.enfield.start()


@pytest.mark.usefixtures("no_node")
def test_receipts_verify_with_no_node_running_and_no_store(receipts: Path, tmp_path: Path, handover: Handover) -> None:
    copy = tmp_path / "receipts.json"
    copy.write_bytes(receipts.read_bytes())
    checked = exchange("verify", copy, "--json", directory=tmp_path)
    assert checked.code == 0, checked
    document = checked.document
    assert document["ok"] is True
    assert {entry["rung"] for entry in document["receipts"]} == {"received", "routed", "delivered"}
    assert {entry["message_id"] for entry in document["receipts"]} == {handover.id}
    assert {entry["origin"] for entry in document["receipts"]} == {handover.enfield.origin}
    delivered = {
        (place["section"], place["agency"])
        for entry in document["receipts"]
        if entry["rung"] == "delivered"
        for place in entry["sections"]
    }
    assert delivered == ALLOWED


def test_receipts_verify_under_the_card_that_the_other_admin_gave(
    receipts: Path, tmp_path: Path, handover: Handover
) -> None:
    card = tmp_path / "card.json"
    fingerprint = handover.enfield.ask("card", "export", card)["fingerprint"]
    checked = exchange("verify", receipts, "--card", card, "--json")
    assert checked.code == 0, checked
    assert checked.document["fingerprint"] == fingerprint


def test_receipts_are_refused_under_another_boroughs_card(receipts: Path, tmp_path: Path, handover: Handover) -> None:
    card = tmp_path / "card.json"
    handover.hackney.ask("card", "export", card)
    checked = exchange("verify", receipts, "--card", card, "--json")
    assert (checked.code, checked.document["ok"]) == (4, False)


def test_the_sender_and_the_receiver_give_the_same_receipts(receipts: Path, tmp_path: Path, handover: Handover) -> None:
    other = tmp_path / "receipts.json"
    handover.enfield.ask("receipt", "export", handover.id, other)
    here, there = (json.loads(file.read_bytes())["receipts"] for file in (receipts, other))
    assert sorted(entry["statement"] for entry in here) == sorted(entry["statement"] for entry in there)
    assert exchange("verify", other).code == 0


def flip(text: str) -> str:
    """Base64 with one bit of its middle byte turned."""
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("what", ["statement", "proof", "card", "message"])
def test_a_tampered_receipt_is_refused(receipts: Path, tmp_path: Path, what: str) -> None:
    document = json.loads(receipts.read_bytes())
    entry = document["receipts"][0]
    if what == "statement":
        entry["statement"] = flip(entry["statement"])
    elif what == "proof":
        entry["proof"] = document["receipts"][1]["proof"].replace("index ", "index 1", 1)
    elif what == "card":
        document["card"]["statement"] = flip(document["card"]["statement"])
    else:
        told = base64.b64decode(entry["statement"])
        assert document["id"].encode() in told
        entry["statement"] = base64.b64encode(
            told.replace(document["id"].encode(), str(uuid.uuid4()).encode())
        ).decode()
    file = tmp_path / "tampered.json"
    file.write_text(json.dumps(document))
    checked = exchange("verify", file, "--json")
    assert checked.code == 4, checked
    assert checked.document["ok"] is False
    assert checked.document["receipts"] == []


def test_a_card_verifies_as_a_statement_of_its_node(tmp_path: Path, handover: Handover) -> None:
    card = tmp_path / "card.json"
    fingerprint = handover.enfield.ask("card", "export", card)["fingerprint"]
    checked = exchange("verify", card, "--json")
    assert checked.code == 0, checked
    assert checked.document["fingerprint"] == fingerprint
    assert checked.document["origin"] == handover.enfield.origin


# What scripts rely on


@pytest.mark.parametrize(
    "arguments",
    [
        "card show",
        "card export {dir}/exported.json",
        "peer list",
        "peer show {enfield}",
        "agency list",
        "form check {form}",
        "schema export",
        "status {id}",
        "explain {id}",
        "inbox",
        "outbox",
        "held list",
        "health",
        "alarms",
        "token new tests",
        "receipt export {id} {dir}/again.json",
        "send {form} --to E09000010",
    ],
)
def test_with_json_a_command_prints_one_document(handover: Handover, tmp_path: Path, arguments: str) -> None:
    values = {"dir": tmp_path, "enfield": handover.enfield.origin, "form": handover.file, "id": handover.id}
    result = handover.hackney.cli(*arguments.format(**values).split(), "--json")
    assert result.code == 0, result
    assert isinstance(result.document, dict)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("verify {form}", 5),
        ("status", 2),
        ("send {form}", 2),
        ("no-such-verb", 2),
        ("status 00000000-0000-4000-8000-000000000000", 3),
        ("explain 00000000-0000-4000-8000-000000000000", 3),
        ("receipt export 00000000-0000-4000-8000-000000000000 {dir}/none.json", 3),
        ("peer show exchange.nowhere.example", 3),
        ("peer verify {enfield} --fingerprint 0000000000000000000000000000000000000000000000000000000000000000", 4),
        ("send {bad} --to E09000010", 5),
        ("form check {bad}", 5),
        ("verify {bad}", 5),
        ("status {id} --config {stopped}", 75),
    ],
)
def test_the_exit_code_says_what_came_of_a_command(
    handover: Handover, tmp_path: Path, arguments: str, code: int
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"referral": {}}')
    stopped = tmp_path / "exchange.toml"
    stopped.write_text("[node]\n")
    values = {
        "dir": tmp_path,
        "enfield": handover.enfield.origin,
        "form": handover.file,
        "id": handover.id,
        "bad": bad,
        "stopped": stopped,
    }
    result = handover.hackney.cli(*arguments.format(**values).split(), "--json")
    assert result.code == code, result
    assert isinstance(result.document, dict)
    if arguments != "form check {bad}":
        assert {"code", "message", "hint"} <= result.document.keys()
        assert result.document["message"] in result.stderr


def test_a_command_that_the_node_cannot_do_fails_with_1_and_a_reason(handover: Handover) -> None:
    url = handover.receiver.url("police")
    result = handover.enfield.cli("agency", "add", "police", "--url", url, "--allow-network", "127.0.0.0/8", "--json")
    assert (result.code, result.document["code"]) == (1, "already-there")


def test_a_wait_that_ends_too_early_says_so_with_one_document_and_try_later(handover: Handover) -> None:
    result = handover.hackney.cli("send", handover.file, "--to", ENFIELD, "--wait", "owned", "--timeout", 0.5, "--json")
    assert result.code == 75, result
    assert result.document["reached"] is False
    assert "the message is safe" in result.stderr
