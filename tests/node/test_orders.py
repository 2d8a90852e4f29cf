"""Recall and erase: signed by the sender, carried out at the receiver, passed on to agencies, confirmed, and honest."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.cli.verify import check_document, read_document
from exchange.node.compose import recall_secrets
from exchange.node.order_watch import OrderWatch
from exchange.store.messages import KeysRow, keys_of, message_by_id
from tests.node.agency import Agency
from tests.node.pair import ENFIELD, Clock, Node, until
from tests.node.test_holders import ANA, Asked, asked, placed

RECALL = {"reason": "wrong-person"}


@pytest.fixture
async def at(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Asked]:
    async with asked(tmp_path, clock) as made:
        yield made


async def order(node: Node, message: str, kind: str, *sections: str, reason: str = "wrong-person") -> dict[str, Any]:
    body = {"reason": reason, "sections": list(sections)}
    status, document = await node.local("POST", f"/v1/messages/{message}/{kind}", body)
    assert status in (200, 201), document
    return dict(document)


async def confirmed(node: Node, message: str, section: str = "housing", agency: str = "housing") -> dict[str, Any]:
    """Wait until a section is confirmed at the sender."""

    async def there() -> Any:
        found = await placed(node, message, section, agency)
        return found if found["order"] and found["order"]["confirmed_at"] else None

    return dict(await until(f"{section} of {message} is confirmed", there))


async def events(agency: Agency, kind: str) -> list[dict[str, Any]]:
    return [event for event in agency.accepted if event["type"] == f"exchange.section.{kind}.v1"]


async def secrets_of(node: Node, message_id: str) -> dict[str, bytes]:
    """The secrets of a message's sections, while they are there."""
    message = await node.services.store.read(lambda tx: message_by_id(tx, message_id))
    keys: KeysRow = await node.services.store.read(lambda tx: keys_of(tx, message.number))
    found = recall_secrets(node.services.keyring.store_key, message.origin, message_id, keys)
    return {section: secret.reveal() for section, secret in found.items()}


async def scrubbed(node: Node) -> None:
    async def done() -> bool:
        rows = node.rows("SELECT count(*) FROM orders WHERE scrubbed = 0")
        return rows == [(0,)] and node.count("orders_scrubbed") > 0

    await until("the store is scrubbed", done)


async def test_a_recalled_section_is_destroyed_there_and_its_agency_confirms(at: Asked, lines: io.StringIO) -> None:
    hackney, enfield = at.pair.hackney, at.pair.enfield
    await at.say("own", ANA)
    await at.at_sender("owned")
    before = await secrets_of(enfield, at.message)
    ordered = await order(hackney, at.message, "recall", "housing")
    assert (ordered["kind"], ordered["sections"], ordered["repeated"]) == ("recall", ["housing"], False)
    found = await confirmed(hackney, at.message)
    assert found["rung"] == "recalled"
    told = found["order"]
    assert (told["had"], told["confirmed_by"]) == ("owned", "agency")
    assert told["ordered_at"] <= told["destroyed_at"] <= told["confirmed_at"]
    assert "A person may have read it" in told["text"]
    (event,) = await events(at.housing, "recalled")
    assert event["subject"] == f"{at.message}/housing"
    assert "content" not in event["data"]
    assert event["data"]["reason"] == "wrong-person"
    (delivered,) = [one for one in at.housing.accepted if one["data"]["section"] == "housing" and one is not event][:1]
    assert event["data"]["event"] == delivered["id"]
    left = await secrets_of(enfield, at.message)
    assert left.keys() == before.keys() - {"housing"}
    assert left["subject.core"] == before["subject.core"] if "subject.core" in left else True
    assert (await placed(enfield, at.message))["rung"] == "recalled"
    assert await secrets_of(hackney, at.message), "the sender keeps its own copy"
    assert "housing" in await secrets_of(hackney, at.message)
    status, problem = await at.say("own", ANA)
    assert (status, problem["code"]) == (409, "not-said-there"), "what is over does not move any more"
    _, handover = await hackney.local("GET", f"/v1/handovers/{at.message}")
    (row,) = [one for one in handover["sections"] if (one["section"], one["agency"]) == ("housing", "housing")]
    assert (row["responsible"], row["due_at"]) == ("nobody", None)
    assert not any(said in lines.getvalue() for said in ANA.values())
    others = [one for one in (await hackney.status(at.message))["sections"] if one["section"] != "housing"]
    assert all(one["order"] is None and one["rung"] != "recalled" for one in others)


async def test_the_same_order_again_is_answered_as_before_and_a_recalled_section_may_be_erased(at: Asked) -> None:
    hackney = at.pair.hackney
    first = await order(hackney, at.message, "recall", "housing")
    again = await order(hackney, at.message, "recall", "housing", reason="other")
    assert (again["repeated"], again["number"], again["reason"]) == (True, first["number"], "wrong-person")
    await confirmed(hackney, at.message)
    await order(hackney, at.message, "erase", "housing")
    await at.at_sender("erased")
    assert await events(at.housing, "erased") or await until("housing is told", lambda: events(at.housing, "erased"))
    await order(hackney, at.message, "recall")
    await confirmed(hackney, at.message, "contacts", "housing")
    assert (await placed(hackney, at.message))["rung"] == "erased", "what is erased is not merely recalled"


async def test_an_erased_message_leaves_neither_key_nor_ciphertext_nor_words_at_either_node(
    at: Asked, lines: io.StringIO
) -> None:
    hackney, enfield = at.pair.hackney, at.pair.enfield
    await at.say("own", {**ANA, "note": "Keys are at the desk."})
    await at.at_sender("owned")
    secrets = await secrets_of(hackney, at.message)
    assert (await secrets_of(enfield, at.message)).items() <= secrets.items()
    wrapped = [row[0] for node in (hackney, enfield) for row in node.rows("SELECT wrapped FROM message_keys")]
    sealed = [row[0] for node in (hackney, enfield) for row in node.rows("SELECT secrets FROM message_keys")]
    ciphertexts = [
        data
        for row in hackney.rows("SELECT sections FROM contents")
        for data in msgspec.msgpack.decode(row[0]).values()
    ]
    ordered = await order(hackney, at.message, "erase")
    assert len(ordered["sections"]) == len(secrets)
    await confirmed(hackney, at.message)
    for node in (hackney, enfield):
        await scrubbed(node)
        for table in ("message_keys", "contents"):
            assert node.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
        assert node.rows("SELECT count(*) FROM acknowledgements WHERE sealed IS NOT NULL") == [(0,)]
        file = node.services.configuration.store_file
        if file is not None:
            data = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
            for what in (*wrapped, *sealed, *secrets.values()):
                assert what not in data
            assert not any(ciphertext[:64] in data for ciphertext in ciphertexts)
    for section in (await hackney.status(at.message))["sections"]:
        assert section["rung"] == "erased"


async def test_who_has_not_confirmed_is_named_and_the_borough_may_say_it_for_them(at: Asked, clock: Clock) -> None:
    hackney, enfield = at.pair.hackney, at.pair.enfield
    at.housing.status = 503
    await order(hackney, at.message, "recall", "housing")
    found = await at.at_sender("recalled")
    assert found["order"]["confirmed_at"] is None
    assert "housing has not confirmed. A person there may have read it" in found["order"]["text"]
    (listed,) = (await hackney.local("GET", "/v1/orders?unconfirmed=true"))[1]["items"]
    assert (listed["id"], listed["unconfirmed"]) == (
        at.message,
        sum(p["confirmed_at"] is None for p in listed["places"]),
    )
    clock.stop()
    clock.now_ms += 4 * 86_400_000
    for node in (hackney, enfield):
        await OrderWatch(node.services).look()
        await OrderWatch(node.services).look()
        (alarm,) = [
            one for one in (await node.local("GET", "/v1/alarms"))[1]["items"] if one["kind"] == "order-unconfirmed"
        ]
        assert "housing has not confirmed" in alarm["detail"]
    clock.run()
    path = f"/v1/sections/{at.message}/housing/confirm"
    status, problem = await enfield.local("POST", path, {"agency": "police"})
    assert (status, problem["code"]) == (404, "not-found")
    status, document = await enfield.local("POST", path, {"agency": "housing"})
    assert (status, document["repeated"]) == (200, False), document
    found = await confirmed(hackney, at.message)
    assert found["order"]["confirmed_by"] == "borough"
    assert "the borough, for housing, has confirmed" in found["order"]["text"]
    assert (await enfield.local("POST", path, {"agency": "housing"}))[1]["repeated"] is True
    assert (await hackney.local("GET", "/v1/orders?unconfirmed=true"))[1]["items"] == []


async def test_an_agency_confirms_over_its_listener_too(at: Asked) -> None:
    at.housing.status = 503
    await order(at.pair.hackney, at.message, "recall", "housing")
    await at.at_sender("recalled")
    status, answer = await at.say("confirm", {})
    assert (status, answer["confirmed"]) == (200, True), answer
    assert (await confirmed(at.pair.hackney, at.message))["order"]["confirmed_by"] == "agency"
    assert (await at.say("confirm", {}, "nothing"))[0] == 404


async def test_nobody_is_waited_for_where_no_agency_was_given_the_section(at: Asked) -> None:
    await order(at.pair.hackney, at.message, "recall")
    found = await confirmed(at.pair.hackney, at.message, "police", "police")
    assert found["order"]["confirmed_by"] == "borough"
    enfields = await placed(at.pair.enfield, at.message, "police", "police")
    assert enfields["order"]["text"] == "No agency there had been given it."
    assert (await at.pair.enfield.local("GET", "/v1/held"))[1]["items"] == [], "nothing waits any more"


async def test_receipts_of_orders_are_exported_and_verified(at: Asked) -> None:
    await order(at.pair.hackney, at.message, "recall", "housing")
    await confirmed(at.pair.hackney, at.message)
    _, document = await at.pair.hackney.local("GET", f"/v1/messages/{at.message}/receipts")
    _, described = check_document(read_document(json.dumps(document).encode()), None)
    recalled = [one for one in described if one["rung"] == "recalled"]
    assert [one["confirmed"] for one in recalled].count(True) >= 1
    assert [one["confirmed"] for one in recalled].count(False) == 1


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("recall", {}, 400),
        ("recall", {"reason": "because"}, 400),
        ("erase", {"reason": "other", "sections": ["nothing"]}, 400),
        ("recall", {"reason": "other", "text": "Ana"}, 400),
    ],
)
async def test_what_cannot_be_ordered_changes_nothing(at: Asked, kind: str, body: Any, status: int) -> None:
    kept = at.pair.hackney.kept()
    found, _ = await at.pair.hackney.local("POST", f"/v1/messages/{at.message}/{kind}", body)
    assert found == status
    assert at.pair.hackney.kept() == kept


async def test_more_is_not_ordered_than_the_receiver_takes(at: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.node.ordering.MOST_ORDERS", 1)
    await order(at.pair.hackney, at.message, "recall", "housing")
    status, problem = await at.pair.hackney.local("POST", f"/v1/messages/{at.message}/recall", RECALL)
    assert (status, problem["code"]) == (409, "orders-too-many")
    status, problem = await at.pair.hackney.local("GET", "/v1/orders?unconfirmed=perhaps")
    assert (status, problem["code"]) == (400, "request-invalid")
    status, problem = await at.pair.enfield.local("POST", f"/v1/sections/{at.message}/housing/confirm", {})
    assert (status, problem["code"]) == (400, "request-invalid")


async def test_only_who_sent_a_message_orders_anything_about_it(at: Asked) -> None:
    status, problem = await at.pair.enfield.local("POST", f"/v1/messages/{at.message}/recall", RECALL)
    assert (status, problem["code"]) == (404, "not-found")


async def test_what_has_not_arrived_is_not_sent_any_more_and_the_order_finds_nothing(at: Asked) -> None:
    hackney, enfield = at.pair.hackney, at.pair.enfield
    assert (await enfield.local("POST", f"/v1/peers/suspend/{hackney.origin}", {}))[0] == 200
    message = await hackney.send(ENFIELD)

    async def tried() -> bool:
        return bool((await hackney.status(message))["last_error"])

    await until("it was tried", tried)
    path = f"/v1/messages/{message}/recall"
    status, problem = await hackney.local("POST", path, {"reason": "other", "sections": ["housing"]})
    assert (status, problem["code"]) == (409, "not-sent-yet")

    async def recalled() -> bool:
        status, _ = await hackney.local("POST", path, RECALL)
        return status in (200, 201) and hackney.rows("SELECT count(*) FROM outbox WHERE kind = 'manifest'") == [(0,)]

    await until("it is recalled", recalled)
    fingerprint = (await enfield.local("GET", f"/v1/peers/{hackney.origin}"))[1]["fingerprint"]
    assert (await enfield.local("POST", f"/v1/peers/verify/{hackney.origin}", {"fingerprint": fingerprint}))[0] == 200
    found = await confirmed(hackney, message)
    assert (found["rung"], found["order"]["outcome"]) == ("recalled", "not-there")
    assert found["order"]["text"] == "The other node says that it does not have the message."
    assert message not in {row["id"] for row in (await enfield.local("GET", "/v1/inbox"))[1]["items"]}
