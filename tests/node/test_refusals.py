"""What arrives and must be refused: what is answered, that nothing is kept, that it is counted, and what is logged."""

import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from exchange.crypto.envelope import MAX_ENVELOPE_BYTES
from exchange.crypto.sealing import SealingPrivateKey
from exchange.schema.wire import Card, ProvenStatement, encode_wire
from tests.node.handmade import CONTENT, Borough, read_reply, seal_to
from tests.node.pair import Node

UNACCEPTABLE = {
    "title": "unacceptable",
    "status": 403,
    "code": "unacceptable",
    "message": "unacceptable",
    "hint": "",
}


def good(camden: Borough, card: Card) -> bytes:
    """An envelope with one message, with nothing wrong with it."""
    made = camden.message(card)
    return camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)


async def refused_unproven(node: Node, envelope: bytes, lines: io.StringIO) -> str:
    """Post what must be refused without a word; return the reason that was logged."""
    before, counted, mark = node.kept(), node.count("envelopes_refused"), lines.tell()
    status, body = await node.post(envelope)
    assert (status, json.loads(body)) == (403, UNACCEPTABLE)
    assert node.kept() == before
    assert node.count("envelopes_refused") == counted + 1
    written = lines.getvalue()[mark:]
    assert CONTENT not in written
    reasons = [line["reason"] for line in map(json.loads, written.splitlines()) if line["event"] == "envelope refused"]
    assert len(reasons) == 1
    return str(reasons[0])


async def test_an_envelope_with_nothing_wrong_is_accepted(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    status, body = await enfield.post(good(camden, await enfield.card()))
    assert status == 200
    assert read_reply(body).results[0].receipt is not None
    assert enfield.kept()["messages"] == 1
    assert enfield.count("envelopes_accepted") == 1


# Senders that have not proven who they are hear one word, whatever was wrong.


async def test_an_unknown_sender_hears_one_word(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    camden.card()
    reason = await refused_unproven(enfield, good(camden, await enfield.card()), lines)
    assert reason == "not-found: no peer exchange.camden.example is registered"


async def test_an_unverified_sender_hears_one_word(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden, verified=False)
    reason = await refused_unproven(enfield, good(camden, await enfield.card()), lines)
    assert reason == "the peer is unverified"


async def test_a_suspended_sender_hears_one_word(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    await enfield.local("POST", f"/v1/peers/suspend/{camden.origin}")
    reason = await refused_unproven(enfield, good(camden, await enfield.card()), lines)
    assert reason == "the peer is suspended"


async def test_a_removed_sender_hears_one_word(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    assert (await enfield.local("DELETE", f"/v1/peers/{camden.origin}"))[0] == 200
    reason = await refused_unproven(enfield, good(camden, await enfield.card()), lines)
    assert "no peer exchange.camden.example" in reason


async def test_who_signs_with_other_keys_hears_one_word(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    thief = Borough(camden.origin, camden.area, camden._now_ms)
    reason = await refused_unproven(enfield, good(thief, await enfield.card()), lines)
    assert reason.startswith("signature-wrong")


async def test_a_statement_of_one_borough_in_the_name_of_another_is_refused(
    enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    brent = Borough("exchange.brent.example", "E09000005", camden._now_ms)
    await enfield.know(brent)
    card = await enfield.card()
    made = brent.message(card)
    envelope = camden.envelope(card, [brent.sign_manifest(made)], made.ciphertexts)
    await refused_unproven(enfield, envelope, lines)


Bend = Callable[[Borough, Card], bytes]


def _items(*bent: Callable[[ProvenStatement], ProvenStatement]) -> Bend:
    """An envelope whose one item is bent."""

    def make(camden: Borough, card: Card) -> bytes:
        made = camden.message(card)
        item = camden.sign_manifest(made)
        for bend in bent:
            item = bend(item)
        return camden.envelope(card, [item], made.ciphertexts)

    return make


def _replace(**changes: Any) -> Callable[[ProvenStatement], ProvenStatement]:
    return lambda item: msgspec.structs.replace(item, **changes)


def _one_signature(item: ProvenStatement, which: int) -> ProvenStatement:
    lines = item.proof.splitlines(keepends=True)
    signatures = [line for line in lines if line.startswith("— ")]
    return msgspec.structs.replace(item, proof="".join(line for line in lines if line != signatures[which]))


def _payload(**changes: Any) -> Bend:
    def make(camden: Borough, card: Card) -> bytes:
        made = camden.message(card)
        payload = msgspec.to_builtins(
            camden.payload([camden.sign_manifest(made)], made.ciphertexts), builtin_types=(bytes,)
        )
        return seal_to(card, msgspec.msgpack.encode(payload | changes))

    return make


def _raw(payload: bytes) -> Bend:
    return lambda camden, card: seal_to(card, payload)


def _wire(change: Callable[[bytes], bytes]) -> Bend:
    return lambda camden, card: change(good(camden, card))


def _flip(at: int) -> Bend:
    def flip(data: bytes) -> bytes:
        other = bytearray(data)
        other[at] ^= 1
        return bytes(other)

    return _wire(flip)


def _for_other_key(camden: Borough, card: Card) -> bytes:
    key = msgspec.structs.replace(card.sealing_keys[0], key=SealingPrivateKey.generate().public.raw)
    return good(camden, msgspec.structs.replace(card, sealing_keys=(key,)))


def _for_other_node(camden: Borough, card: Card) -> bytes:
    made = camden.message(card)
    payload = camden.payload([camden.sign_manifest(made)], made.ciphertexts)
    return seal_to(card, encode_wire(payload), recipient="exchange.brent.example")


BENT: dict[str, tuple[Bend, str]] = {
    "nothing": (_wire(lambda data: b""), "version-unknown"),
    "one byte": (_wire(lambda data: data[:1]), "version-unknown"),
    "another protocol": (_wire(lambda data: b"GET / HTTP/1.1\r\n\r\n"), "version-unknown"),
    "another version": (
        _wire(lambda data: data.replace(b"exchange-envelope/1\n", b"exchange-envelope/2\n", 1)),
        "version-",
    ),
    "only the head": (_wire(lambda data: data[:36]), "envelope-wrong"),
    "the first half": (_wire(lambda data: data[: len(data) // 2]), "envelope-wrong"),
    "a byte less": (_wire(lambda data: data[:-1]), "envelope-wrong"),
    "a byte more": (_wire(lambda data: data + b"\0"), "envelope-wrong"),
    "a bit of the magic": (_flip(0), "version-unknown"),
    "a bit of the key id": (_flip(20), "sealing key that is not here"),
    "a bit of the encapsulated key": (_flip(40), "envelope-wrong"),
    "a bit of the X25519 share": (_flip(36 + 1088 + 3), "envelope-wrong"),
    "a bit of the ciphertext": (_flip(2000), "envelope-wrong"),
    "a bit of the tag": (_flip(-1), "envelope-wrong"),
    "an unknown sealing key": (_for_other_key, "sealing key that is not here"),
    "another node's name in the seal": (_for_other_node, "envelope-wrong"),
    "no payload": (_raw(b""), "wire-invalid"),
    "not MessagePack": (_raw(b"\xc1\xc1"), "wire-invalid"),
    "more after the payload": (_raw(b"\x80\x80"), "wire-invalid"),
    "a very deep payload": (_raw(b"\x91" * 100_000), "wire-invalid"),
    "an unknown payload version": (_payload(version=2), "wire-invalid"),
    "an unknown member": (_payload(more=1), "wire-invalid"),
    "a number as sender": (_payload(sender=1), "wire-invalid"),
    "no items": (_payload(items=[]), "wire-invalid"),
    "too many items": (_payload(items=[{"statement": b"", "proof": ""}] * 257), "wire-invalid"),
    "a short reply secret": (_payload(reply_secret=b"short"), "wire-invalid"),
    "a negative size": (_payload(holds=-1), "wire-invalid"),
    "a hash of 31 bytes": (_payload(consistency={"first": 0, "path": [b"x" * 31]}), "wire-invalid"),
    "an empty proof": (_items(_replace(proof="")), "proof-wrong"),
    "half a proof": (_items(lambda item: _replace(proof=item.proof[: len(item.proof) // 2])(item)), ""),
    "a huge index": (_items(lambda item: _replace(proof=item.proof.replace("index ", "index 9"))(item)), "proof-wrong"),
    "another statement": (_items(lambda item: _replace(statement=item.statement + b" ")(item)), "proof-wrong"),
    "no statement": (_items(_replace(statement=b"")), "proof-wrong"),
    "no Ed25519 signature": (_items(lambda item: _one_signature(item, 0)), "signature-wrong"),
    "no ML-DSA signature": (_items(lambda item: _one_signature(item, 1)), "signature-wrong"),
}


@pytest.mark.parametrize("name", BENT)
async def test_an_envelope_that_does_not_prove_its_sender_is_refused_with_one_word(
    enfield: Node, camden: Borough, lines: io.StringIO, name: str
) -> None:
    await enfield.know(camden)
    bend, reason = BENT[name]
    assert reason in await refused_unproven(enfield, bend(camden, await enfield.card()), lines)


async def test_a_body_that_is_no_statement_is_refused_even_where_its_proof_holds(
    enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    camden.statements.append(b"exchange/2 not a statement")
    item = camden.prove(len(camden.statements) - 1)
    reason = await refused_unproven(enfield, camden.envelope(await enfield.card(), [item]), lines)
    assert reason.startswith("statement-malformed")


async def test_items_that_are_proven_against_several_sizes_of_the_log_are_refused(
    enfield: Node, camden: Borough, lines: io.StringIO
) -> None:
    await enfield.know(camden)
    items = [camden.card(), camden.card()]
    reason = await refused_unproven(enfield, camden.envelope(await enfield.card(), items), lines)
    assert "several sizes" in reason
    camden.shown = 1
    assert (await enfield.post(camden.envelope(await enfield.card(), camden.latest(*items))))[0] == 200


async def test_one_bad_item_refuses_the_whole_envelope(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    await refused_unproven(enfield, camden.envelope(card, [item, _replace(proof="")(item)], made.ciphertexts), lines)


# Before the envelope is looked at.


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/plain", "application/json", "x"])
async def test_another_content_type_is_not_read(enfield: Node, camden: Borough, content_type: str) -> None:
    await enfield.know(camden)
    before = enfield.kept()
    status, body = await enfield.post(good(camden, await enfield.card()), content_type)
    assert (status, json.loads(body)["code"]) == (415, "unsupported-media-type")
    assert enfield.kept() == before


async def test_more_than_16_mib_is_refused_by_its_announced_length(enfield: Node) -> None:
    status, body = await enfield.post(io.BytesIO(bytes(MAX_ENVELOPE_BYTES + 1)))
    assert (status, json.loads(body)["code"]) == (413, "too-large")


async def test_more_than_16_mib_is_refused_where_no_length_is_announced(enfield: Node) -> None:
    async def pour() -> Any:
        for _ in range(17):
            yield bytes(1024 * 1024)

    headers = {"content-type": "application/vnd.exchange.envelope"}
    async with enfield.http.post(f"{enfield.url}/v1/envelopes", data=pour(), headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (413, "too-large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/envelopes", 405),
        ("POST", "/v1/card", 405),
        ("DELETE", "/v1/log/checkpoint", 405),
        ("GET", "/v1/peers", 404),
        ("GET", "/v1/messages/x", 404),
        ("GET", "/v1/../v1/inbox", 404),
    ],
)
async def test_the_public_listener_has_nothing_else(enfield: Node, method: str, path: str, status: int) -> None:
    async with enfield.http.request(method, enfield.url + path) as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
        assert (await answer.json())["status"] == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("first=0&second=1", 200),
        ("first=1&second=1", 200),
        ("first=2&second=1", 404),
        ("first=0&second=99", 404),
        ("first=9007199254740993&second=9007199254740993", 404),
        ("", 400),
        ("first=1", 400),
        ("first=-1&second=1", 400),
        ("first=1&second=x", 400),
        ("first=%C2%B2&second=%C2%B2", 400),
        ("first=" + "1" * 17 + "&second=1", 400),
    ],
)
async def test_a_consistency_proof_is_asked_for_with_two_sizes(enfield: Node, query: str, status: int) -> None:
    async with enfield.http.get(f"{enfield.url}/v1/log/consistency?{query}") as answer:
        assert answer.status == status
        assert answer.content_type == ("application/json" if status == 200 else "application/problem+json")
