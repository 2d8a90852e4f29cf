"""What the local API tells of messages: where each section stands, in plain English, and never what is in it."""

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest

from exchange.schema.catalogue import default_catalogue
from exchange.schema.form import decode_form
from exchange.schema.split import split
from tests.node.agency import Agency
from tests.node.pair import ENFIELD, Clock, Node, Pair, form, until

KINDS = ("housing", "police", "probation", "dwp")


def texts(value: Any) -> Iterator[str]:
    """All texts in a document."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def personal() -> set[str]:
    """The texts of the case study that could give something away: names, sentences, numbers; no codes of a list."""
    found = {text for text in texts(json.loads(form(ENFIELD))) if " " in text or any(c.isdigit() for c in text)}
    return {text for text in found if len(text) > 4} - {"E09000012", ENFIELD, "OFFICIAL-SENSITIVE"}


@pytest.fixture
async def exchanged(pair: Pair, clock: Clock) -> AsyncIterator[str]:
    """A message that has reached four agencies of the other borough; the others are not registered."""
    clock.run()
    async with AsyncExitStack() as stack:
        for kind in KINDS:
            agency = await stack.enter_async_context(Agency(kind).listening())
            await agency.register(pair.enfield)
        sent = await pair.hackney.send(ENFIELD)

        async def all_there() -> bool:
            found = (await pair.hackney.status(sent))["sections"]
            return all(item["rung"] == "delivered" for item in found if item["agency"] in KINDS)

        await until("the agencies have it", all_there)
        yield sent


async def every_document(node: Node, message_id: str) -> dict[str, Any]:
    paths = [
        "/v1/health",
        "/v1/card",
        "/v1/peers",
        "/v1/agencies",
        f"/v1/messages/{message_id}",
        f"/v1/messages/{message_id}/timeline",
        f"/v1/messages/{message_id}/receipts",
        "/v1/inbox",
        "/v1/outbox",
        "/v1/held",
        "/v1/alarms",
    ]
    documents = {}
    for path in paths:
        status, documents[path] = await node.local("GET", path)
        assert status == 200, path
    return documents


async def test_no_document_and_no_log_line_holds_a_word_of_the_form(
    pair: Pair, exchanged: str, lines: io.StringIO
) -> None:
    secret = personal()
    assert len(secret) > 40
    for node in (pair.hackney, pair.enfield):
        for path, document in (await every_document(node, exchanged)).items():
            written = json.dumps(document, ensure_ascii=False)
            # Where a date of the form is by chance the date of the test, it says nothing.
            found = {text for text in secret if text in written and not written.count(f'"{text}T')}
            assert not found, f"{path} of {node.origin} holds {found}"
    assert not {text for text in secret if text in lines.getvalue()}


async def test_no_table_of_either_store_holds_a_word_of_the_form(pair: Pair, exchanged: str) -> None:
    secret = {text for text in personal() if " " in text}
    for node in (pair.hackney, pair.enfield):
        for path in node.directory.iterdir():
            if path.is_file():
                data = path.read_bytes()
                assert not {text for text in secret if text.encode() in data}, path.name


async def test_both_boroughs_say_the_same_of_every_section(pair: Pair, exchanged: str) -> None:
    def rungs(found: Any) -> dict[tuple[str, str], str]:
        return {(item["section"], item["agency"]): item["rung"] for item in found["sections"]}

    sender, receiver = await pair.hackney.status(exchanged), await pair.enfield.status(exchanged)
    assert rungs(sender) == rungs(receiver)
    assert (sender["direction"], receiver["direction"]) == ("out", "in")
    assert (sender["peer"], receiver["peer"]) == (pair.enfield.origin, pair.hackney.origin)
    parts = split(decode_form(form(ENFIELD)), default_catalogue())
    assert rungs(sender) == {
        (part.name, kind): "delivered" if kind in KINDS else "received" for part in parts for kind in part.readers
    }


async def test_the_receiver_says_what_is_held_and_the_sender_need_not_know(pair: Pair, exchanged: str) -> None:
    found = await pair.enfield.status(exchanged)
    held = {item["agency"]: item["held"] for item in found["sections"]}
    for kind, reason in held.items():
        assert reason == (None if kind in KINDS else f"no agency of kind {kind} is registered")
    assert {item["held"] for item in (await pair.hackney.status(exchanged))["sections"]} == {None}


async def test_the_timeline_is_in_order_and_in_plain_english(pair: Pair, exchanged: str) -> None:
    _, sender = await pair.hackney.local("GET", f"/v1/messages/{exchanged}/timeline")
    _, receiver = await pair.enfield.local("GET", f"/v1/messages/{exchanged}/timeline")
    assert sender["events"][0]["event"] == "signed"
    assert sender["events"][0]["text"] == "This node signed and sealed the message to exchange.enfield.example."
    # The receipt of a later rung may overtake the answer that brings the first.
    (received,) = [event["text"] for event in sender["events"] if event["event"] == "received"]
    assert received == "exchange.enfield.example received the message and signed for it."
    assert receiver["events"][0]["text"] == (
        "This node received the message from exchange.hackney.example and signed for it."
    )
    for document in (sender, receiver):
        times = [datetime.fromisoformat(event["at"]) for event in document["events"]]
        assert times == sorted(times)
        assert all(event["text"].endswith(".") and "{" not in event["text"] for event in document["events"])
        accepted = {event["agency"]: event["sections"] for event in document["events"] if event["event"] == "delivered"}
        assert set(accepted) == set(KINDS)


async def test_inbox_and_outbox_list_each_message_on_its_side(pair: Pair, exchanged: str) -> None:
    async def ids(node: Node, box: str) -> list[str]:
        return [item["id"] for item in (await node.local("GET", f"/v1/{box}"))[1]["items"]]

    assert await ids(pair.hackney, "outbox") == await ids(pair.enfield, "inbox") == [exchanged]
    assert await ids(pair.hackney, "inbox") == await ids(pair.enfield, "outbox") == []


async def test_the_receipts_of_both_sides_are_the_same_statements(pair: Pair, exchanged: str) -> None:
    async def statements(node: Node) -> tuple[set[str], Any]:
        document = (await node.local("GET", f"/v1/messages/{exchanged}/receipts"))[1]
        return {item["statement"] for item in document["receipts"]}, document["card"]

    sender, signer = await statements(pair.hackney)

    async def same() -> bool:
        return (await statements(pair.hackney))[0] == (await statements(pair.enfield))[0]

    await until("all receipts have come", same)
    assert sender
    assert set(signer) == {"statement", "proof"}


@pytest.mark.parametrize("rung", ["received", "routed", "delivered", "owned"])
async def test_waiting_for_a_rung_ends_with_the_time_that_was_given(pair: Pair, clock: Clock, rung: str) -> None:
    sent = await pair.hackney.send(ENFIELD)
    status, found = await pair.hackney.local("GET", f"/v1/messages/{sent}?wait={rung}&timeout_s=0")
    assert status == 200
    assert found["reached"] in ({True, False} if rung == "received" else {False})
