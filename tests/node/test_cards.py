"""Cards: believed by no more than the keys that they name themselves, refused where anything does not fit."""

import dataclasses
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.statement import leaf_hash
from exchange.node.cards import describe_card, parse_card_file, verify_card
from exchange.node.errors import RequestInvalid
from exchange.schema.card_file import CardFile
from exchange.schema.wire import CARD, MANIFEST, ProvenStatement, encode_wire
from tests.node.handmade import Borough, read_card
from tests.node.pair import NOW_MS

CAMDEN = Borough("exchange.camden.example", "E09000007", lambda: NOW_MS)
GOOD = CAMDEN.card()


def file(proven: ProvenStatement, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(CardFile(proven.statement, proven.proof), **changes))


def test_a_card_is_what_its_borough_signed() -> None:
    found = parse_card_file(file(GOOD))
    assert found.card == read_card(GOOD)
    assert found.fingerprint == CAMDEN.fingerprint
    assert found.keys == CAMDEN.signing.verifiers(CAMDEN.origin)
    assert (found.checkpoint.origin, found.checkpoint.size) == (CAMDEN.origin, 1)
    assert (found.statement, found.proof) == (GOOD.statement, GOOD.proof)


@given(st.integers(0, 10**6), st.integers(0, 7), st.booleans())
def test_a_card_with_any_bit_changed_is_refused(at: int, bit: int, in_proof: bool) -> None:
    data = bytearray(GOOD.proof.encode() if in_proof else GOOD.statement)
    data[at % len(data)] ^= 1 << bit
    try:
        text = bytes(data).decode() if in_proof else GOOD.proof
    except UnicodeDecodeError:
        return
    with pytest.raises(RequestInvalid):
        verify_card(GOOD.statement if in_proof else bytes(data), text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        file(GOOD).replace(b'"proof"', b'"prove"'),
        file(GOOD)[:-1] + b',"more":1}',
        file(GOOD, proof=""),
        file(GOOD, statement=b""),
        file(GOOD, statement=GOOD.statement + b" "),
    ],
)
def test_what_is_no_card_file_is_refused(data: bytes) -> None:
    with pytest.raises(RequestInvalid, match=r"^that (is not a card file|card cannot be accepted)"):
        parse_card_file(data)


def signed(borough: Borough, statement_type: str, **changes: Any) -> ProvenStatement:
    body = encode_wire(msgspec.structs.replace(read_card(borough.card()), **changes))
    return borough.sign(statement_type, body)


OTHER = Borough("exchange.brent.example", "E09000005", lambda: NOW_MS)


@pytest.mark.parametrize(
    "proven",
    [
        pytest.param(signed(CAMDEN, MANIFEST), id="of another type"),
        pytest.param(signed(CAMDEN, CARD, origin=OTHER.origin), id="of another origin"),
        pytest.param(signed(CAMDEN, CARD, origin="https://exchange.camden.example"), id="of no origin"),
        pytest.param(signed(CAMDEN, CARD, version=2), id="of another version"),
        pytest.param(signed(CAMDEN, CARD, sealing_keys=()), id="without sealing keys"),
        pytest.param(signed(CAMDEN, CARD, signing_keys=("a", "b")), id="with keys that are none"),
        pytest.param(signed(CAMDEN, CARD, signing_keys=read_card(OTHER.card()).signing_keys), id="with another's keys"),
        pytest.param(
            signed(CAMDEN, CARD, signing_keys=(read_card(GOOD).signing_keys[0],) * 2), id="with one key twice"
        ),
        pytest.param(
            signed(CAMDEN, CARD, signing_keys=read_card(GOOD).signing_keys[::-1]), id="with the keys in another order"
        ),
    ],
)
def test_a_card_that_does_not_fit_itself_is_refused(proven: ProvenStatement) -> None:
    with pytest.raises(RequestInvalid):
        verify_card(proven.statement, proven.proof)


def test_the_proof_of_another_card_proves_nothing() -> None:
    other = CAMDEN.card()
    assert leaf_hash(other.statement) != leaf_hash(GOOD.statement)
    with pytest.raises(RequestInvalid):
        verify_card(GOOD.statement, other.proof)


def test_what_a_card_says_is_told_to_a_person() -> None:
    told = describe_card(parse_card_file(file(GOOD)))
    assert told["origin"] == CAMDEN.origin
    assert told["fingerprint"] == CAMDEN.fingerprint
    assert told["agencies"] == ["housing"]
    assert told["expires_at"] == CAMDEN.now + timedelta(days=90)
    assert not any(isinstance(value, bytes) for value in told.values())


def test_a_verified_card_cannot_be_changed() -> None:
    found = parse_card_file(file(GOOD))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.fingerprint = "another"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        found.card.serial = 7  # type: ignore[misc]
