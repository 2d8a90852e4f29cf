"""What crosses between nodes is decoded strictly: nothing unknown, nothing of another size, no time without a zone."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.schema.errors import WireInvalid
from exchange.schema.wire import (
    Acknowledgement,
    Card,
    CardAgency,
    CardSealingKey,
    Consistency,
    EnvelopePayload,
    Manifest,
    NameText,
    ParcelEntry,
    Placement,
    ProblemDetails,
    ProvenStatement,
    Receipt,
    ReplyPayload,
    Result,
    Rung,
    SectionEntry,
    Wire,
    WordEntry,
    Words,
    acknowledgement_decoder,
    card_decoder,
    decode_wire,
    encode_wire,
    envelope_decoder,
    manifest_decoder,
    receipt_decoder,
    reply_decoder,
)

NOW = datetime(2026, 11, 23, 16, tzinfo=UTC)
MESSAGE = "00000000-0000-4000-8000-000000000001"
HACKNEY, ENFIELD = "exchange.hackney.example", "exchange.enfield.example"

CARD = Card(
    version=1,
    origin=HACKNEY,
    area="E09000012",
    name="Hackney",
    url="https://exchange.hackney.example",
    serial=1,
    issued_at=NOW,
    expires_at=NOW,
    signing_keys=("ed25519", "mldsa44"),
    sealing_keys=(CardSealingKey(key=bytes(1216), not_before=NOW, not_after=NOW, opens_until=NOW),),
    agencies=(CardAgency(kind="police"), CardAgency(kind="dwp", key=bytes(1216))),
    tls_spki_sha256=(bytes(32),),
)
MANIFEST = Manifest(
    version=1,
    message_id=MESSAGE,
    sender=HACKNEY,
    recipient=ENFIELD,
    from_area="E09000012",
    to_area="E09000010",
    created_at=NOW,
    expires_at=NOW,
    urgent=False,
    card_serial=1,
    sections=(SectionEntry(name="subject", readers=("police",), sha256=bytes(32), commitment=bytes(32)),),
    parcels=(ParcelEntry(key_id=bytes(16), parcel=b"parcel"),),
)
WORDS = Words(
    parts=(WordEntry(name="holder", sha256=bytes(32), commitment=bytes(32)),),
    parcels=(ParcelEntry(key_id=bytes(16), parcel=b"parcel"),),
)
RECEIPT = Receipt(
    version=1,
    message_id=MESSAGE,
    leaf_hash=bytes(32),
    rung=Rung.OWNED,
    origin=ENFIELD,
    recipient=HACKNEY,
    at=NOW,
    placements=(Placement(section="injunction.condition-6", agency="dwp"),),
    words=WORDS,
    to="police",
    by_borough=True,
)
ACKNOWLEDGEMENT = Acknowledgement(
    version=1,
    message_id=MESSAGE,
    leaf_hash=bytes(32),
    section="housing",
    agency="housing",
    rung=Rung.OWNED,
    origin=ENFIELD,
    recipient=HACKNEY,
    at=NOW,
    words=WORDS,
)
PROVEN = ProvenStatement(statement=b"statement", proof="proof")
CONSISTENCY = Consistency(first=1, path=(bytes(32),))
ENVELOPE = EnvelopePayload(
    version=1,
    sender=HACKNEY,
    holds=0,
    consistency=CONSISTENCY,
    reply_secret=bytes(32),
    items=(PROVEN,),
    ciphertexts=(b"ciphertext",),
)
REPLY = ReplyPayload(
    version=1,
    holds=2**53,
    consistency=CONSISTENCY,
    results=(
        Result(leaf_hash=bytes(32), receipt=PROVEN),
        Result(leaf_hash=bytes(32), problem=ProblemDetails(code="conflict", detail="another content")),
    ),
)
STRUCTS: list[tuple[Wire, msgspec.msgpack.Decoder[Any]]] = [
    (CARD, card_decoder),
    (MANIFEST, manifest_decoder),
    (RECEIPT, receipt_decoder),
    (ACKNOWLEDGEMENT, acknowledgement_decoder),
    (ENVELOPE, envelope_decoder),
    (REPLY, reply_decoder),
]
DECODERS = {type(struct): decoder for struct, decoder in STRUCTS}
each_struct = pytest.mark.parametrize(
    ("struct", "decoder"), STRUCTS, ids=[type(struct).__name__ for struct, _ in STRUCTS]
)


def as_map(struct: Wire) -> dict[str, Any]:
    """The struct as plain MessagePack values, to be spoiled."""
    value = msgspec.msgpack.decode(encode_wire(struct))
    assert isinstance(value, dict)
    return value


@each_struct
def test_a_struct_comes_back_as_it_was(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    assert decode_wire(decoder, encode_wire(struct)) == struct


@each_struct
def test_an_unknown_field_is_refused(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    with pytest.raises(WireInvalid):
        decode_wire(decoder, msgspec.msgpack.encode({**as_map(struct), "extra": 1}))


def nested_maps(value: Any) -> list[dict[str, Any]]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [
        *([value] if isinstance(value, dict) else []),
        *(found for child in children for found in nested_maps(child)),
    ]


@each_struct
def test_an_unknown_field_is_refused_at_any_depth(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    for index in range(len(nested_maps(as_map(struct)))):
        spoiled = as_map(struct)
        nested_maps(spoiled)[index]["extra"] = 1
        with pytest.raises(WireInvalid):
            decode_wire(decoder, msgspec.msgpack.encode(spoiled))


@each_struct
def test_a_field_without_a_default_cannot_be_left_out(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    for field in msgspec.structs.fields(struct):
        if field.required:
            spoiled = as_map(struct)
            del spoiled[field.encode_name]
            with pytest.raises(WireInvalid):
                decode_wire(decoder, msgspec.msgpack.encode(spoiled))


def one_more_key(data: bytes, name: str, value: Any) -> bytes:
    """A map of fewer than 15 entries with one more at its end."""
    assert 0x80 <= data[0] < 0x8F
    return bytes([data[0] + 1]) + data[1:] + msgspec.msgpack.encode(name) + msgspec.msgpack.encode(value)


@each_struct
def test_a_key_that_stands_twice_is_refused(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    name, value = next(iter(as_map(struct).items()))
    with pytest.raises(WireInvalid):
        decode_wire(decoder, one_more_key(encode_wire(struct), name, value))


@each_struct
def test_fields_in_another_order_are_refused(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    with pytest.raises(WireInvalid):
        decode_wire(decoder, msgspec.msgpack.encode(dict(reversed(as_map(struct).items()))))


@each_struct
def test_a_length_that_is_not_in_its_shortest_form_is_refused(
    struct: Wire, decoder: msgspec.msgpack.Decoder[Any]
) -> None:
    data = encode_wire(struct)
    with pytest.raises(WireInvalid):
        decode_wire(decoder, b"\xde\x00" + bytes([data[0] & 0x0F]) + data[1:])


@pytest.mark.parametrize(("name", "value"), [("words", None), ("by_borough", False), ("placements", [])])
def test_a_field_that_says_no_more_than_its_default_is_refused(name: str, value: object) -> None:
    plain = Receipt(
        version=1,
        message_id=MESSAGE,
        leaf_hash=bytes(32),
        rung=Rung.RECEIVED,
        origin=ENFIELD,
        recipient=HACKNEY,
        at=NOW,
    )
    assert name not in as_map(plain)
    with pytest.raises(WireInvalid):
        decode_wire(receipt_decoder, one_more_key(encode_wire(plain), name, value))


def test_a_time_that_is_text_is_refused() -> None:
    with pytest.raises(WireInvalid):
        decode_wire(receipt_decoder, msgspec.msgpack.encode(as_map(RECEIPT) | {"at": "2026-11-23T16:00:00Z"}))


@each_struct
def test_bytes_after_the_struct_are_refused(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    with pytest.raises(WireInvalid):
        decode_wire(decoder, encode_wire(struct) + b"\x00")


@each_struct
def test_a_struct_cut_short_is_refused(struct: Wire, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    whole = encode_wire(struct)
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        with pytest.raises(WireInvalid):
            decode_wire(decoder, whole[:length])


@each_struct
@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused(struct: Wire, decoder: msgspec.msgpack.Decoder[Any], version: object) -> None:
    with pytest.raises(WireInvalid):
        decode_wire(decoder, msgspec.msgpack.encode({**as_map(struct), "version": version}))


Spoil = Callable[[dict[str, Any]], None]


def put(*path: str | int, value: Any) -> Spoil:
    def spoil(place: Any) -> None:
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return spoil


WRONG: list[tuple[Wire, str, Spoil]] = [
    (CARD, "area", put("area", value="E0900001")),
    (CARD, "area", put("area", value="E09000012\n")),
    (CARD, "origin", put("origin", value="")),
    (CARD, "origin", put("origin", value="x" * 201)),
    (CARD, "name", put("name", value="")),
    (CARD, "name", put("name", value="x" * 201)),
    (CARD, "name", put("name", value="Enfield\x1b[2K\rHackney")),
    (CARD, "name", put("name", value="Enfield\nverified: yes")),
    (CARD, "name", put("name", value="Enfield\u202e")),
    (CARD, "url", put("url", value="")),
    (CARD, "url", put("url", value="https://x/" + "x" * 500)),
    (CARD, "url", put("url", value="https://exchange.example/\x1b[2K")),
    (CARD, "url", put("url", value="https://exchange.example\r\nx: y")),
    (CARD, "url", put("url", value="https://exch\u0430nge.example")),
    (CARD, "serial", put("serial", value=-1)),
    (CARD, "serial", put("serial", value=2**53 + 1)),
    (CARD, "serial", put("serial", value=1.0)),
    (CARD, "signing_keys", put("signing_keys", value=["one"])),
    (CARD, "signing_keys", put("signing_keys", value=["one", "two", "three"])),
    (CARD, "sealing_keys", put("sealing_keys", value=[])),
    (CARD, "sealing_keys[0].key", put("sealing_keys", 0, "key", value=bytes(1215))),
    (CARD, "sealing_keys[0].key", put("sealing_keys", 0, "key", value=bytes(1217))),
    (CARD, "agencies[0].kind", put("agencies", 0, "kind", value="Police")),
    (CARD, "agencies[1].key", put("agencies", 1, "key", value=b"")),
    (CARD, "tls_spki_sha256", put("tls_spki_sha256", value=[bytes(32)] * 5)),
    (CARD, "tls_spki_sha256[0]", put("tls_spki_sha256", 0, value=bytes(31))),
    (CARD, "issued_at", put("issued_at", value="2026-11-23T16:00:00")),
    (MANIFEST, "message_id", put("message_id", value=MESSAGE.replace("-", ""))),
    (MANIFEST, "message_id", put("message_id", value="A" + MESSAGE[1:])),
    (MANIFEST, "urgent", put("urgent", value=1)),
    (MANIFEST, "sections", put("sections", value=[])),
    (MANIFEST, "sections[0].name", put("sections", 0, "name", value="../subject")),
    (MANIFEST, "sections[0].readers", put("sections", 0, "readers", value=[])),
    (MANIFEST, "sections[0].sha256", put("sections", 0, "sha256", value=bytes(33))),
    (MANIFEST, "sections[0].commitment", put("sections", 0, "commitment", value=b"")),
    (MANIFEST, "parcels", put("parcels", value=[])),
    (MANIFEST, "parcels[0].key_id", put("parcels", 0, "key_id", value=bytes(15))),
    (MANIFEST, "parcels[0].parcel", put("parcels", 0, "parcel", value=bytes(65_537))),
    (RECEIPT, "rung", put("rung", value="lost")),
    (RECEIPT, "leaf_hash", put("leaf_hash", value=bytes(31))),
    (RECEIPT, "words.parts", put("words", "parts", value=[])),
    (RECEIPT, "words.parcels", put("words", "parcels", value=[])),
    (RECEIPT, "to", put("to", value="Housing/South")),
    (RECEIPT, "by_borough", put("by_borough", value=1)),
    (RECEIPT, "placements[0].agency", put("placements", 0, "agency", value="")),
    (ENVELOPE, "reply_secret", put("reply_secret", value=bytes(16))),
    (ENVELOPE, "items", put("items", value=[])),
    (ENVELOPE, "items", put("items", value=[as_map(PROVEN)] * 257)),
    (ENVELOPE, "items[0].statement", put("items", 0, "statement", value=bytes(4 * 1024 * 1024 + 1))),
    (ENVELOPE, "items[0].proof", put("items", 0, "proof", value="x" * 32_769)),
    (ENVELOPE, "consistency.path", put("consistency", "path", value=[bytes(32)] * 65)),
    (ENVELOPE, "consistency.path[0]", put("consistency", "path", 0, value=bytes(20))),
    (REPLY, "results[1].problem.detail", put("results", 1, "problem", "detail", value="x" * 501)),
    (REPLY, "holds", put("holds", value=None)),
]


@pytest.mark.parametrize(("struct", "where", "spoil"), WRONG, ids=[f"{type(s).__name__} {w}" for s, w, _ in WRONG])
def test_a_wrong_value_is_refused_at_its_path(struct: Wire, where: str, spoil: Spoil) -> None:
    spoiled = as_map(struct)
    spoil(spoiled)

    with pytest.raises(WireInvalid) as refused:
        decode_wire(DECODERS[type(struct)], msgspec.msgpack.encode(spoiled))

    assert str(refused.value).endswith(f"at $.{where}")


def test_a_refusal_quotes_nothing_of_what_came() -> None:
    for field in ("area", "url", "issued_at", "agencies", "signing_keys", "version", "serial"):
        with pytest.raises(WireInvalid) as refused:
            decode_wire(card_decoder, msgspec.msgpack.encode({**as_map(CARD), field: {"sesame": "sesame"}}))
        assert "sesame" not in str(refused.value)


@given(st.binary(max_size=300))
def test_no_bytes_make_anything_but_a_struct_or_a_refusal(data: bytes) -> None:
    for _, decoder in STRUCTS:
        with pytest.raises(WireInvalid):
            decode_wire(decoder, data)


def test_nesting_without_end_is_refused() -> None:
    for _, decoder in STRUCTS:
        with pytest.raises(WireInvalid):
            decode_wire(decoder, b"\x91" * 200_000)


@pytest.mark.parametrize("key", ["x` - at `$.of the sender's choice", "x` - at `TEXT", "y" * 5000])
def test_an_error_repeats_nothing_of_a_key_that_is_unknown(key: str) -> None:
    data = msgspec.msgpack.encode({"version": 1, key: 1})
    with pytest.raises(WireInvalid) as refused:
        decode_wire(receipt_decoder, data)
    assert str(refused.value) == "the receipt does not fit its schema at $"


@pytest.mark.parametrize(
    "character", ["\u200b", "\xad", "\ufeff", "\u2060", "\u3164", "\ufe0f", "\U000e0041", "\u061c"]
)
def test_a_name_has_no_character_that_nobody_sees(character: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(f"Hack{character}ney"), type=NameText)
    assert msgspec.json.decode(msgspec.json.encode("Inbhir Nis, Ynys Môn"), type=NameText)
