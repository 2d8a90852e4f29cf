"""Items of a proven sender's envelope that must be refused, each with its own code; what is beside them is taken."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from exchange.crypto.sealing import SealingPrivateKey
from exchange.schema.wire import CARD, MANIFEST, RECEIPT, Card, ProvenStatement
from tests.node.handmade import CONTENT, Borough, Made, read_reply
from tests.node.pair import Node

Item = tuple[ProvenStatement, tuple[bytes, ...]]
Bend = Callable[[Borough, Card], Item]


async def refused_item(node: Node, camden: Borough, item: ProvenStatement, ciphertexts: Any, lines: io.StringIO) -> str:
    """Post one item that must be refused, with a message beside it that must not; return the item's code."""
    card, mark = await node.card(), lines.tell()
    beside = camden.message(card)
    before = node.kept()
    beside_item = camden.sign_manifest(beside)
    items = camden.latest(item, beside_item)
    status, body = await node.post(io.BytesIO(camden.envelope(card, items, [*ciphertexts, *beside.ciphertexts])))
    assert status == 200
    refused, accepted = read_reply(body).results
    assert accepted.receipt is not None
    assert refused.receipt is None
    assert refused.problem is not None
    after = node.kept()
    added = {name: count - before[name] for name, count in after.items() if count != before[name]}
    assert (added.pop("messages"), added.pop("message_keys"), added.pop("contents")) == (1, 1, 1)
    assert added.pop("receipts") == added.pop("statements") == added.pop("checkpoints") == 1
    assert added.pop("timeline") >= 1
    assert added.pop("log_nodes") >= 1
    assert set(added) <= {"alarms"}
    code = refused.problem.code
    assert node.count(f"items_refused_{code}") == 1
    written = lines.getvalue()[mark:]
    assert CONTENT not in written
    told = [line for line in map(json.loads, written.splitlines()) if line["event"] == "item refused"]
    assert [(line["code"], line["peer"]) for line in told] == [(code, camden.origin)]
    return code


def manifest(**changes: Any) -> Bend:
    """A message whose manifest is changed before it is signed."""

    def make(camden: Borough, card: Card) -> Item:
        made = camden.message(card)
        return camden.sign_manifest(made, **changes), made.ciphertexts

    return make


def moved(**delays: timedelta) -> Bend:
    """A message whose times are moved against the test's clock."""

    def make(camden: Borough, card: Card) -> Item:
        made = camden.message(card)
        return camden.sign_manifest(made, **{key: camden.now + by for key, by in delays.items()}), made.ciphertexts

    return make


def message(change: Callable[[Made], Made] = lambda made: made, **options: Any) -> Bend:
    """A message made with options, and changed before it is signed."""

    def make(camden: Borough, card: Card) -> Item:
        made = change(camden.message(card, **options))
        return camden.sign_manifest(made), made.ciphertexts

    return make


def statement(statement_type: str, body: bytes) -> Bend:
    """Any statement."""
    return lambda camden, card: (camden.sign(statement_type, body), ())


def with_sections(change: Callable[[Any], Any]) -> Callable[[Made], Made]:
    return lambda made: Made(
        msgspec.structs.replace(made.manifest, sections=tuple(change(list(made.manifest.sections)))), made.ciphertexts
    )


def entry(**changes: Any) -> Callable[[Made], Made]:
    """The first section of the manifest, changed."""
    return with_sections(lambda sections: [msgspec.structs.replace(sections[0], **changes), *sections[1:]])


def parcels(change: Callable[[Any], Any]) -> Callable[[Made], Made]:
    return lambda made: Made(
        msgspec.structs.replace(made.manifest, parcels=tuple(change(list(made.manifest.parcels)))), made.ciphertexts
    )


def unknown_member(camden: Borough, card: Card) -> Item:
    made = camden.message(card)
    body = msgspec.msgpack.encode(msgspec.to_builtins(made.manifest, builtin_types=(bytes,)) | {"more": 1})
    return camden.sign(MANIFEST, body), made.ciphertexts


def for_another_key(camden: Borough, card: Card) -> Item:
    made = camden.message(card, key=SealingPrivateKey.generate().public.raw)
    return camden.sign_manifest(made), made.ciphertexts


def parcel_of_another_message(camden: Borough, card: Card) -> Item:
    made, other = camden.message(card), camden.message(card)
    return camden.sign_manifest(made, parcels=other.manifest.parcels), made.ciphertexts


def parcel_of_a_forwarded_message(camden: Borough, card: Card) -> Item:
    """What another borough sealed, passed on as if it were one's own."""
    made = camden.message(card, sender="exchange.brent.example")
    return camden.sign_manifest(made), made.ciphertexts


def swapped_ciphertexts(camden: Borough, card: Card) -> Item:
    """Each section under the other's name: right hashes, wrong place."""
    made = camden.message(card)
    first, second = made.manifest.sections
    sections = (
        msgspec.structs.replace(first, sha256=second.sha256, commitment=second.commitment),
        msgspec.structs.replace(second, sha256=first.sha256, commitment=first.commitment),
    )
    return camden.sign_manifest(made, sections=sections), made.ciphertexts


def altered_ciphertext(camden: Borough, card: Card) -> Item:
    made = camden.message(card)
    return camden.sign_manifest(made), (made.ciphertexts[0][:-1] + b"x", *made.ciphertexts[1:])


def card_of(origin: str, **changes: Any) -> Bend:
    """A card of another borough, logged here."""

    def make(camden: Borough, card: Card) -> Item:
        other = Borough(origin, camden.area, camden._now_ms)
        proven = other.card(**changes)
        return camden.sign(CARD, msgspec.msgpack.encode(msgspec.msgpack.decode(proven.statement.split(b" ", 4)[4]))), ()

    return make


def content_of(size: int) -> bytes:
    """A section's content of exactly that many bytes."""
    content = msgspec.msgpack.encode({"text": "x" * (size - 11)})
    assert len(content) == size
    return content


HOUSING, POLICE = ("housing", ("housing",)), ("police", ("police",))
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

ITEMS: dict[str, tuple[Bend, str]] = {
    "an unknown type of statement": (statement("petition", b"\x80"), "statement-type-unknown"),
    "a manifest that is not MessagePack": (statement(MANIFEST, b"\xc1"), "wire-invalid"),
    "an empty manifest": (statement(MANIFEST, b"\x80"), "wire-invalid"),
    "an unknown member": (unknown_member, "wire-invalid"),
    "an unknown version": (manifest(version=2), "wire-invalid"),
    "an id in capitals": (manifest(message_id="0B7F4A52-9C1E-4D0E-8F64-2F7F3C1D9A10"), "wire-invalid"),
    "no sections": (manifest(sections=()), "wire-invalid"),
    "no parcels": (manifest(parcels=()), "wire-invalid"),
    "a section without readers": (message(entry(readers=())), "wire-invalid"),
    "a section name with a slash": (message(entry(name="../housing")), "wire-invalid"),
    "a manifest for another borough": (manifest(recipient="exchange.brent.example"), "recipient-wrong"),
    "a manifest for another area": (manifest(to_area="E09000005"), "recipient-wrong"),
    "another sender": (manifest(sender="exchange.brent.example"), "sender-wrong"),
    "this node as sender": (manifest(sender="exchange.enfield.example"), "sender-wrong"),
    "another area of the sender": (manifest(from_area="E09000005"), "sender-wrong"),
    "five minutes and a second ahead": (moved(created_at=timedelta(minutes=5) + SECOND), "from-the-future"),
    "a day ahead": (moved(created_at=DAY, expires_at=2 * DAY), "from-the-future"),
    "expired just now": (moved(created_at=-DAY, expires_at=timedelta()), "expired"),
    "expired long ago": (moved(created_at=-90 * DAY, expires_at=-80 * DAY), "expired"),
    "expires before it was made": (moved(created_at=timedelta(), expires_at=-DAY), "expired"),
    "expires too far off": (moved(expires_at=90 * DAY + SECOND), "expired"),
    "made too long ago for its end": (moved(created_at=-80 * DAY, expires_at=11 * DAY), "expired"),
    "a section twice": (message(with_sections(lambda sections: [*sections, sections[0]])), "sections-doubled"),
    "a section twice with other readers": (
        message(with_sections(lambda s: [*s, msgspec.structs.replace(s[0], sha256=s[1].sha256)])),
        "sections-doubled",
    ),
    "readers that the catalogue does not allow": (
        message(parts=[("police", ("police", "dwp"))]),
        "readers-not-allowed",
    ),
    "a section that the catalogue does not know": (message(parts=[("gossip", ("police",))]), "readers-not-allowed"),
    "a reader that the catalogue does not know": (message(parts=[("police", ("press",))]), "readers-not-allowed"),
    "a ciphertext that is missing": (
        message(lambda made: Made(made.manifest, made.ciphertexts[:1])),
        "section-missing",
    ),
    "no ciphertexts": (message(lambda made: Made(made.manifest, ())), "section-missing"),
    "an altered ciphertext": (altered_ciphertext, "section-missing"),
    "another hash": (message(entry(sha256=bytes(32))), "section-missing"),
    "another commitment": (message(entry(commitment=bytes(32))), "commitment-wrong"),
    "swapped sections": (swapped_ciphertexts, "section-wrong"),
    "a parcel for somebody else": (for_another_key, "parcel-missing"),
    "a parcel under another's key id": (
        message(parcels(lambda p: [msgspec.structs.replace(p[0], key_id=bytes(16))])),
        "parcel-missing",
    ),
    "a parcel of another message": (parcel_of_another_message, "parcel-wrong"),
    "a parcel that another borough sealed": (parcel_of_a_forwarded_message, "parcel-wrong"),
    "an empty parcel": (message(parcels(lambda p: [msgspec.structs.replace(p[0], parcel=b"")])), "parcel-wrong"),
    "content that is not MessagePack": (message(content=b"\xc1"), "section-wrong"),
    "content that is a list": (message(content=msgspec.msgpack.encode([CONTENT])), "section-wrong"),
    "content with more behind it": (message(content=msgspec.msgpack.encode({}) + b"\x80"), "section-wrong"),
    "no content": (message(content=b""), "section-wrong"),
    "content that no JSON can hold": (
        message(content=msgspec.msgpack.encode({"text": msgspec.msgpack.Ext(7, CONTENT.encode())})),
        "section-wrong",
    ),
    "content with a key twice": (message(content=b"\x82\xa1a\x01\xa1a\x02"), "section-wrong"),
    "content with a length that could be shorter": (message(content=b"\xde\x00\x01\xa1a\x01"), "section-wrong"),
    "content with bytes": (message(content=msgspec.msgpack.encode({"text": CONTENT.encode()})), "section-wrong"),
    "content with not-a-number": (message(content=msgspec.msgpack.encode({"text": float("nan")})), "section-wrong"),
    "content with a number as key": (message(content=msgspec.msgpack.encode({"a": {1: 2, "1": 3}})), "section-wrong"),
    "content with nothing as key": (message(content=msgspec.msgpack.encode({"a": {None: 2}})), "section-wrong"),
    "content that is too deep": (message(content=b"\x81\xa1a" + b"\x91" * 50_000 + b"\xc0"), "section-wrong"),
    "content larger than a form": (message(parts=[HOUSING], content=content_of(1024 * 1024 + 1)), "section-wrong"),
    "a receipt that is not MessagePack": (statement(RECEIPT, b"\xc1"), "wire-invalid"),
    "a card that is not MessagePack": (statement(CARD, b"\xc1"), "card-invalid"),
    "a card that lacks everything": (statement(CARD, b"\x80"), "card-invalid"),
}


@pytest.mark.parametrize("name", ITEMS)
async def test_an_item_that_must_not_be_taken_is_refused_with_its_code(
    enfield: Node, camden: Borough, lines: io.StringIO, name: str
) -> None:
    await enfield.know(camden)
    bend, code = ITEMS[name]
    item, ciphertexts = bend(camden, await enfield.card())
    assert await refused_item(enfield, camden, item, ciphertexts, lines) == code
    assert await enfield.alarms(camden.origin) == []


TAKEN: dict[str, Bend] = {
    "five minutes ahead": moved(created_at=timedelta(minutes=5)),
    "ninety days long": moved(expires_at=90 * DAY),
    "as old as may be": moved(created_at=-90 * DAY + SECOND, expires_at=SECOND),
    "urgent": manifest(urgent=True),
    "of a card that this node has renewed since": manifest(card_serial=0),
    "a ciphertext too many": message(lambda made: Made(made.manifest, (*made.ciphertexts, b"nobody's"))),
    "a ciphertext twice": message(lambda made: Made(made.manifest, made.ciphertexts * 2)),
    "a parcel for somebody else beside ours": message(
        parcels(lambda p: [msgspec.structs.replace(p[0], key_id=bytes(16)), *p])
    ),
    "one section": message(parts=[HOUSING]),
    "an empty section": message(content=b"\x80"),
    "one section as large as a form": message(parts=[HOUSING], content=content_of(1024 * 1024)),
    "one section of very many lists": message(parts=[HOUSING], content=b"\x81\xa1a\xdc\xff\xff" + b"\x90" * 0xFFFF),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_what_is_just_within_the_rules_is_taken_and_nothing_else_with_it(
    enfield: Node, camden: Borough, name: str
) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    item, ciphertexts = TAKEN[name](camden, card)
    status, body = await enfield.post(io.BytesIO(camden.envelope(card, [item], ciphertexts)))
    assert status == 200
    (result,) = read_reply(body).results
    assert result.problem is None
    assert result.receipt is not None
    ((sections,),) = enfield.rows("SELECT sections FROM contents")
    kept = set(msgspec.msgpack.decode(sections).values())
    assert b"nobody's" not in kept
    assert kept <= set(ciphertexts)
    assert len(kept) == (1 if name.startswith("one section") else 2)


@pytest.mark.sqlite
async def test_nothing_of_a_refused_item_is_in_the_store(enfield: Node, camden: Borough, lines: io.StringIO) -> None:
    await enfield.know(camden)
    item, ciphertexts = manifest(to_area="E09000005")(camden, await enfield.card())
    await refused_item(enfield, camden, item, ciphertexts, lines)
    kept = enfield.services.configuration.store_file.read_bytes()
    kept += enfield.services.configuration.store_file.with_name("exchange.db-wal").read_bytes()
    assert not any(ciphertext in kept for ciphertext in ciphertexts)
    assert item.statement not in kept
