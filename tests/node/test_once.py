"""A message arrives once: the same again gets the same receipt, another under its id is a conflict and an alarm."""

import asyncio
import io
import json

import msgspec

from exchange.crypto.statement import parse_statement
from exchange.schema.wire import Receipt, decode_wire, receipt_decoder
from tests.node.handmade import CONTENT, Borough, read_reply
from tests.node.pair import Clock, Node


def receipt(result: object) -> Receipt:
    proven = getattr(result, "receipt")  # noqa: B009
    return decode_wire(receipt_decoder, parse_statement(proven.statement).body)


async def test_a_replayed_envelope_gets_the_same_receipt_and_is_not_kept_twice(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    envelope = camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)
    _, first = await enfield.post(envelope)
    kept = enfield.kept()
    _, second = await enfield.post(envelope)
    assert read_reply(first).results == read_reply(second).results
    assert first != second, "replies are sealed anew"
    assert enfield.kept() == kept
    assert await enfield.alarms(camden.origin) == []


async def test_a_message_that_is_sent_again_in_another_envelope_gets_the_same_receipt(
    enfield: Node, camden: Borough
) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    _, first = await enfield.post(camden.envelope(card, [item], made.ciphertexts))
    other = camden.message(card)
    items = [camden.sign_manifest(other), item]
    _, second = await enfield.post(
        camden.envelope(card, camden.latest(*items), [*other.ciphertexts, *made.ciphertexts])
    )
    assert read_reply(second).results[1].receipt == read_reply(first).results[0].receipt
    assert enfield.kept()["messages"] == 2


async def test_a_message_twice_in_one_envelope_is_kept_once_under_one_receipt(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    status, body = await enfield.post(camden.envelope(card, [item, item, item], made.ciphertexts))
    assert status == 200
    first, second, third = read_reply(body).results
    assert first == second == third
    assert first.receipt is not None
    assert enfield.kept()["messages"] == enfield.kept()["receipts"] == 1


async def test_an_envelope_many_times_at_once_is_kept_once_under_one_receipt(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    envelope = camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)
    answers = await asyncio.gather(*(enfield.post(envelope) for _ in range(8)))
    assert [status for status, _ in answers] == [200] * 8
    receipts = {msgspec.msgpack.encode(read_reply(body).results) for _, body in answers}
    assert len(receipts) == 1
    assert enfield.kept()["messages"] == enfield.kept()["receipts"] == 1


async def test_a_message_whose_first_try_was_refused_is_no_duplicate(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    _, body = await enfield.post(camden.envelope(card, [item], made.ciphertexts[:1]))
    assert read_reply(body).results[0].problem is not None
    _, body = await enfield.post(camden.envelope(card, [item], made.ciphertexts))
    assert receipt(read_reply(body).results[0]).message_id == made.manifest.message_id


async def test_a_receipt_keeps_the_time_at_which_the_message_was_stored(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    _, first = await enfield.post(camden.envelope(card, [item], made.ciphertexts))
    clock.now_ms += 60_000
    _, second = await enfield.post(camden.envelope(card, [item], made.ciphertexts))
    assert receipt(read_reply(second).results[0]).at == receipt(read_reply(first).results[0]).at


async def test_one_id_for_two_messages_is_a_conflict_and_an_alarm(
    enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    first = camden.message(card)
    _, body = await enfield.post(camden.envelope(card, [camden.sign_manifest(first)], first.ciphertexts))
    kept = enfield.kept()
    second = camden.message(card, message_id=first.manifest.message_id)
    status, answer = await enfield.post(camden.envelope(card, [camden.sign_manifest(second)], second.ciphertexts))
    (result,) = read_reply(answer).results
    assert status == 200
    assert result.receipt is None
    assert result.problem is not None
    assert result.problem.code == "conflict"
    (alarm,) = await enfield.alarms(camden.origin)
    assert alarm["kind"] == "conflict"
    assert first.manifest.message_id in alarm["detail"]
    assert enfield.kept() == kept | {"alarms": kept["alarms"] + 1}
    assert enfield.count("items_refused_conflict") == enfield.count("alarms_conflict") == 1
    ((kept_sections,),) = enfield.rows("SELECT sections FROM contents")
    assert list(msgspec.msgpack.decode(kept_sections).values()) == list(first.ciphertexts)
    (told,) = [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "alarm"]
    assert (told["level"], told["code"], told["peer"]) == ("error", "conflict", camden.origin)
    assert CONTENT not in lines.getvalue()
    assert read_reply(body).results[0].receipt is not None


async def test_the_same_conflict_again_is_counted_and_told_but_kept_once(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    first = camden.message(card)
    await enfield.post(camden.envelope(card, [camden.sign_manifest(first)], first.ciphertexts))
    for _ in range(3):
        other = camden.message(card, message_id=first.manifest.message_id)
        await enfield.post(camden.envelope(card, [camden.sign_manifest(other)], other.ciphertexts))
    assert len(await enfield.alarms(camden.origin)) == 1
    assert enfield.count("alarms_conflict") == 3


async def test_a_conflict_costs_a_peer_nothing_else(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    first = camden.message(card)
    await enfield.post(camden.envelope(card, [camden.sign_manifest(first)], first.ciphertexts))
    second = camden.message(card, message_id=first.manifest.message_id)
    third = camden.message(card)
    items = camden.latest(camden.sign_manifest(second), camden.sign_manifest(third))
    _, body = await enfield.post(camden.envelope(card, items, [*second.ciphertexts, *third.ciphertexts]))
    refused, accepted = read_reply(body).results
    assert refused.problem is not None
    assert accepted.receipt is not None
    assert await enfield.trust(camden.origin) == "verified"


async def test_another_borough_may_use_the_same_id(enfield: Node, camden: Borough, clock: Clock) -> None:
    brent = Borough("exchange.brent.example", "E09000005", clock)
    await enfield.know(camden)
    await enfield.know(brent)
    card = await enfield.card()
    first = camden.message(card)
    second = brent.message(card, message_id=first.manifest.message_id)
    for borough, made in ((camden, first), (brent, second)):
        _, body = await enfield.post(borough.envelope(card, [borough.sign_manifest(made)], made.ciphertexts))
        assert read_reply(body).results[0].receipt is not None
    assert enfield.kept()["messages"] == 2
    assert await enfield.alarms(camden.origin) == await enfield.alarms(brent.origin) == []


async def test_a_receipt_names_what_it_acknowledges_and_stands_in_the_log(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    _, body = await enfield.post(camden.envelope(card, [item], made.ciphertexts))
    (result,) = read_reply(body).results
    found = receipt(result)
    assert (found.message_id, found.origin, found.recipient) == (
        made.manifest.message_id,
        enfield.origin,
        camden.origin,
    )
    assert found.leaf_hash == result.leaf_hash
    assert found.rung.value == "received"
    assert found.placements == ()
    assert result.receipt is not None
    assert enfield.rows("SELECT type FROM statements WHERE statement = ?", result.receipt.statement) == [("receipt",)]
