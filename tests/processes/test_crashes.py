"""SIGKILL to either node at random moments of a send, then a restart: everything arrives, once, under one receipt.

The moments come from a seed that is printed; give it back in CRASH_SEED to repeat a run. How long to wait before the
kill is what is being tried here, so this is the one place where a test waits for a time instead of a condition.
"""

import base64
import json
import os
import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from exchange.cli.client import CommandFailed
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, Borough, allowed_by, example, exchange
from tests.processes.receiver import Receiver, Request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FORM = example("case-study-j")
PLACES: Final = {(section, kind) for kind, sections in allowed_by(FORM).items() for section in sections}
KILLS: Final = 20
MOST_ROUNDS: Final = 60


@dataclass
class Sent:
    """A send that is under way in another thread; `id` stays empty where the node died before it answered."""

    id: str = ""
    thread: threading.Thread = field(init=False)

    @classmethod
    def start(cls, sender: Borough) -> "Sent":
        sent = cls()

        def send() -> None:
            try:
                sent.id = sender.send(FORM, ENFIELD)
            except CommandFailed as error:
                if error.code not in ("node-not-running", "answer-lost"):
                    raise

        sent.thread = threading.Thread(target=send)
        sent.thread.start()
        return sent


@dataclass(frozen=True)
class Aftermath:
    """What is there after all the kills."""

    hackney: Borough
    enfield: Borough
    receiver: Receiver
    ids: list[str]
    kills: Counter[str]


@pytest.fixture(scope="module")
def aftermath(shared_town: Town, boroughs: tuple[Borough, Borough]) -> Aftermath:
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CRASH_SEED={seed}")  # noqa: T201 - shown where a test fails
    chance = random.Random(seed)
    hackney, enfield = boroughs
    receiver = shared_town.receiver()
    enfield.add_agencies(receiver)
    ids, longest_s = [], 0.0
    for _ in range(2):
        began_s = time.monotonic()
        ids.append(hackney.send(FORM, ENFIELD))
        assert hackney.status(ids[-1], "delivered", 60)["reached"]
        longest_s = time.monotonic() - began_s
    kills: Counter[str] = Counter()
    for number in range(MOST_ROUNDS):
        if kills.total() >= KILLS and number % 2 == 0:
            break
        victim = (hackney, enfield)[number % 2]
        wait_s = chance.uniform(0, longest_s)
        sent = Sent.start(hackney)
        time.sleep(wait_s)
        victim.kill()
        killed_at = datetime.now(UTC)
        sent.thread.join()
        if number % 4 >= 2:
            victim.start(wait=False)
            time.sleep(chance.uniform(0, 1))
            victim.kill()
        victim.start()
        kept = _kept(hackney, ids, sent)
        # Where the sender died before it kept the message, the person was told so, and sends it again.
        ids.append(kept or hackney.send(FORM, ENFIELD))
        assert hackney.status(ids[-1], "delivered", 60)["reached"], f"round {number}, after {wait_s:.3f} s"
        if kept and _finished_at(hackney, kept) > killed_at:
            kills[victim.origin] += 1
    print(f"{len(ids)} messages, {dict(kills)} kills during a send of {longest_s:.3f} s")  # noqa: T201
    return Aftermath(hackney, enfield, receiver, ids, kills)


def _kept(hackney: Borough, known: list[str], sent: Sent) -> str:
    """The one message that this round brought to the sender's store, or nothing."""
    new = [row["id"] for row in hackney.api("GET", "/v1/outbox")["items"] if row["id"] not in known]
    assert new or not sent.id, "the node said that it had kept the message, and lost it"
    assert len(new) <= 1, f"one send made {len(new)} messages"
    assert sent.id in ("", *new)
    return str(new[0]) if new else ""


def _finished_at(hackney: Borough, message_id: str) -> datetime:
    events = hackney.api("GET", f"/v1/messages/{message_id}/timeline")["events"]
    return max(datetime.fromisoformat(event["at"]) for event in events if event["event"] == "delivered")


def test_both_nodes_were_killed_at_least_twenty_times_in_the_middle_of_a_send(aftermath: Aftermath) -> None:
    assert aftermath.kills.total() >= KILLS, aftermath.kills
    assert set(aftermath.kills) == {aftermath.hackney.origin, aftermath.enfield.origin}


def test_every_message_arrives_and_is_in_the_receivers_store_once(aftermath: Aftermath) -> None:
    for borough, verb in ((aftermath.hackney, "outbox"), (aftermath.enfield, "inbox")):
        listed = [row["id"] for row in borough.ask(verb)["items"]]
        assert sorted(listed) == sorted(aftermath.ids), verb


def test_every_section_is_delivered_at_both_ends(aftermath: Aftermath) -> None:
    for borough in (aftermath.hackney, aftermath.enfield):
        for message_id in aftermath.ids:
            sections = borough.status(message_id)["sections"]
            rungs = {(row["section"], row["agency"]): row["rung"] for row in sections}
            assert len(rungs) == len(sections)
            assert rungs == dict.fromkeys(PLACES, "delivered"), f"{message_id} at {borough.origin}"


def test_an_agency_hears_every_section_and_again_only_as_the_same_event(aftermath: Aftermath) -> None:
    heard: dict[tuple[str, str, str], list[Request]] = defaultdict(list)
    for request in aftermath.receiver.accepted():
        heard[request.event["data"]["message_id"], request.section, request.kind].append(request)
    assert set(heard) == {(message_id, *place) for message_id in aftermath.ids for place in PLACES}
    for place, requests in heard.items():
        assert len({request.headers["webhook-id"] for request in requests}) == 1, place
        assert len({request.body for request in requests}) == 1, place
    assert len({requests[0].headers["webhook-id"] for requests in heard.values()}) == len(heard)
    assert aftermath.receiver.unproven == []


def _receipts(borough: Borough, message_id: str) -> Any:
    return borough.api("GET", f"/v1/messages/{message_id}/receipts")["receipts"]


def test_there_is_one_received_receipt_and_both_ends_hold_the_same_bytes(aftermath: Aftermath) -> None:
    for message_id in aftermath.ids:
        ends = []
        for borough in (aftermath.hackney, aftermath.enfield):
            statements = [base64.b64decode(entry["statement"]) for entry in _receipts(borough, message_id)]
            ends.append(sorted(statements))
            received = [statement for statement in statements if b"received" in statement]
            assert len(received) == 1, f"{message_id} at {borough.origin}"
        assert ends[0] == ends[1], message_id


def test_every_receipt_verifies_offline(aftermath: Aftermath) -> None:
    file = aftermath.hackney.directory.parent / "receipts.json"
    documents = [aftermath.hackney.api("GET", f"/v1/messages/{message_id}/receipts") for message_id in aftermath.ids]
    everything = [receipt for document in documents for receipt in document["receipts"]]
    file.write_text(json.dumps({"receipts": everything, "card": documents[-1]["card"]}))
    checked = exchange("verify", file, "--json")
    assert checked.code == 0, checked
    rungs = Counter((entry["message_id"], entry["rung"]) for entry in checked.document["receipts"])
    assert all(rungs[message_id, "received"] == 1 for message_id in aftermath.ids)


def test_no_kill_leaves_an_alarm_or_anything_held(aftermath: Aftermath) -> None:
    for borough in (aftermath.hackney, aftermath.enfield):
        assert borough.ask("alarms") == {"items": []}
        assert borough.ask("held", "list") == {"items": []}
        assert [row["trust"] for row in borough.ask("peer", "list")["items"]] == ["verified"]
