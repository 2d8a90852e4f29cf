"""Taking what a node posts: nothing is acknowledged that was not proven, opened and kept, once and sealed."""

import base64
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exchange.agency.keys import AgencyKeys
from exchange.agency.receiving import Agency, Inbox, receive
from exchange.agency.senders import KnownSenders
from exchange.agency.serving import who_could_read
from exchange.agency.webhook import parse_webhook_key
from exchange.crypto.names import Origin
from exchange.crypto.possession import Claim, seal_challenge
from exchange.crypto.secret import Secret
from exchange.node.webhook import event_body, signed_headers
from exchange.schema.agency_keys import ChallengeFile
from exchange.schema.card_file import read_card_file
from exchange.schema.events import CHALLENGE, HANDOVER_OVERDUE, SECTION_DELIVERED, TEST
from tests.crypto.keys import ENFIELD, NOW_S, SEALING, SIGNING

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealed-webhooks.json").read_text())
VALID, FOR_SEVERAL = VECTORS[0], VECTORS[1]
SECRET: str = VALID["secret"]
AGENCY = Agency(
    "housing",
    ENFIELD,
    AgencyKeys(Origin("housing.enfield.example"), SIGNING, (SEALING,)),
    [parse_webhook_key(SECRET)],
    KnownSenders(),
)
ID = "evt_" + "0" * 32


def take(case: Any, inbox: Inbox, **changes: Any) -> tuple[int, str]:
    """Take a published vector; the status, and the code where it was refused."""
    agency = dataclasses.replace(AGENCY, **changes)
    return answered(agency, inbox, case["headers"], case["body"].encode())


def answered(agency: Agency, inbox: Inbox, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    answer = receive(agency, inbox, headers, body, NOW_S)
    return answer.status, json.loads(answer.body).get("code", "") if answer.body else ""


def posted(kind: str, data: Any, secret: str = SECRET) -> tuple[dict[str, str], bytes]:
    body = event_body(ID, kind, ENFIELD, "about", datetime.fromtimestamp(NOW_S, UTC), data)
    return signed_headers([secret], None, ID, NOW_S, body), body


def test_a_section_is_kept_once_sealed_and_can_be_read(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert take(VALID, inbox) == (204, "")
    (path,) = tmp_path.iterdir()
    first = path.read_bytes()
    assert b"household" not in first
    assert b"manifest" not in first
    assert path.stat().st_mode & 0o077 == 0
    assert take(VALID, inbox) == (204, "")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [first]
    (kept,) = inbox.sections(AGENCY, 10)
    assert kept.content == VALID["content"]
    assert who_could_read(kept) == "You alone: sealed to your key"
    rotated = dataclasses.replace(AGENCY, keys=AGENCY.keys.rotated())
    assert [one.content for one in inbox.sections(rotated, 10)] == [VALID["content"]]
    path.write_bytes(first[:-1] + bytes((first[-1] ^ 1,)))
    assert list(inbox.sections(AGENCY, 10)) == []


def test_it_says_who_else_could_read_a_section(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert take(FOR_SEVERAL, inbox) == (204, "")
    (kept,) = inbox.sections(AGENCY, 10)
    assert who_could_read(kept).startswith("You, and police;")


@pytest.mark.parametrize("case", [case for case in VECTORS if case.get("refused")], ids=lambda case: case["name"])
def test_what_the_vectors_refuse_is_not_acknowledged_or_kept(tmp_path: Path, case: Any) -> None:
    keys = AGENCY.keys if case["seed"] == VALID["seed"] else AgencyKeys.generate(AGENCY.keys.name)
    status, code = take(case, Inbox(tmp_path), kind=case["kind"], keys=keys)
    assert (status, bool(code)) == (401 if case["name"] == "signed with another secret" else 422, True)
    assert list(tmp_path.iterdir()) == []


def test_an_agency_takes_what_it_says_it_takes(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert take(VALID, inbox, known_only=True) == (422, "sender-unknown")
    assert take(VALID, inbox, borough="exchange.camden.example") == (422, "other-borough")
    card = read_card_file(base64.b64decode(json.loads(VALID["body"])["data"]["sealed"]["card"]))
    assert take(VALID, inbox, known_only=True, senders=KnownSenders([card])) == (204, "")
    data = {"message_id": "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "section": "housing", "urgent": False}
    headers, body = posted(
        SECTION_DELIVERED, {**data, "from": "E09000012", "to": "E09000010", "content": {"tenure": "secure"}}
    )
    sealed_only = dataclasses.replace(AGENCY, sealed_only=True)
    assert answered(sealed_only, inbox, headers, body) == (422, "not-opened")
    assert answered(AGENCY, inbox, headers, body) == (204, "")
    assert {who_could_read(kept) for kept in inbox.sections(AGENCY, 10)} == {
        "You alone: sealed to your key",
        "You, and the borough's node, which opened it",
    }


def test_a_challenge_is_answered_for_this_borough_and_kind_alone(tmp_path: Path) -> None:
    public = AGENCY.keys.public()

    def challenge(origin: str, kind: str) -> tuple[dict[str, str], bytes]:
        sealed = seal_challenge(SEALING.public, Claim(Origin(origin), kind, public.signing_keys), Secret(bytes(32)))
        file = ChallengeFile(
            format="exchange-agency-challenge/1",
            origin=origin,
            kind=kind,
            key_id=SEALING.public.key_id,
            challenge=sealed,
        )
        return posted(CHALLENGE, {"challenge": file})

    assert answered(AGENCY, Inbox(tmp_path), *challenge(ENFIELD, "housing")) == (200, "")
    for origin, kind in ((ENFIELD, "police"), ("exchange.camden.example", "housing")):
        assert answered(AGENCY, Inbox(tmp_path), *challenge(origin, kind)) == (422, "other-borough")


def test_a_test_is_acknowledged_and_what_is_not_known_is_not(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert answered(AGENCY, inbox, *posted(TEST, {"test": True})) == (204, "")
    assert answered(AGENCY, inbox, *posted("exchange.something.else.v1", {})) == (422, "event-invalid")
    headers, _ = posted(TEST, {})
    assert answered(AGENCY, inbox, headers, b"{}") == (401, "webhook-refused")
    assert list(tmp_path.iterdir()) == []


LATE = {
    "message_id": "01a20922-b800-71be-ae35-f3482974938d",
    "from": "E09000012",
    "to": "E09000010",
    "urgent": True,
    "agency": "housing",
    "overdue": [
        {"step": "owned", "agency": "housing", "sections": ["housing"], "due_at": "2026-12-01T14:00:00Z"},
        {"step": "met", "agency": None, "sections": [], "due_at": "2026-12-01T14:00:00Z"},
    ],
}


def test_what_is_late_is_kept_and_shown(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert answered(AGENCY, inbox, *posted(HANDOVER_OVERDUE, LATE)) == (204, "")
    (event,) = inbox.overdue(AGENCY, 10)
    assert [(step.step, step.agency) for step in event.data.overdue] == [("owned", "housing"), ("met", None)]
    assert list(inbox.sections(AGENCY, 10)) == []


def test_word_of_nothing_late_is_refused(tmp_path: Path) -> None:
    assert answered(AGENCY, Inbox(tmp_path), *posted(HANDOVER_OVERDUE, {**LATE, "overdue": []})) == (
        422,
        "event-invalid",
    )


def test_where_nothing_can_be_kept_nothing_is_acknowledged(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        take(VALID, Inbox(tmp_path / "none"))
