"""Rotations: what holds leads from keys to keys, and nothing else does."""

from datetime import UTC, datetime

import msgspec
import pytest

from exchange.crypto.errors import CryptoError
from exchange.crypto.names import Origin
from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import format_proof
from exchange.crypto.signing import SigningKeys, fingerprint, sign_checkpoint
from exchange.crypto.statement import encode_statement, leaf_hash
from exchange.schema.identity import ROTATION, Rotation
from exchange.schema.succession import all_keys, step_from, steps_from, verify_by_any
from exchange.schema.wire import CARD, VERSION, ProvenStatement, encode_wire

HACKNEY, CAMDEN = Origin("exchange.hackney.example"), Origin("exchange.camden.example")
FIRST, SECOND, THIRD = (SigningKeys.generate() for _ in range(3))


def pair(keys: SigningKeys, origin: Origin = HACKNEY) -> tuple[VerifierKey, VerifierKey]:
    return keys.verifiers(origin)


def texts(keys: SigningKeys, origin: Origin = HACKNEY) -> tuple[str, ...]:
    return tuple(key.text() for key in pair(keys, origin))


def rotation(old: SigningKeys = FIRST, new: SigningKeys = SECOND, origin: Origin = HACKNEY) -> Rotation:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    return Rotation(version=VERSION, origin=origin, old=texts(old, origin), new=texts(new, origin), at=at)


def signed(
    body: Rotation,
    *signers: SigningKeys,
    statement_type: str = ROTATION,
    origin: Origin = HACKNEY,
) -> ProvenStatement:
    """The only statement of a log, under a checkpoint that `signers` signed."""
    statement = encode_statement(statement_type, encode_wire(body))
    note = sign_checkpoint(signers, origin, 1, leaf_hash(statement), 1_795_449_600)
    return ProvenStatement(statement=statement, proof=format_proof(0, (), note))


def test_what_both_signed_leads_from_the_old_keys_to_the_new() -> None:
    step = step_from(pair(FIRST), HACKNEY, signed(rotation(), FIRST, SECOND))

    assert step is not None
    assert (step.old, step.new) == (pair(FIRST), pair(SECOND))
    assert step.fingerprints() == (fingerprint(HACKNEY, pair(FIRST)), fingerprint(HACKNEY, pair(SECOND)))


REFUSED = {
    "only the old keys signed": signed(rotation(), FIRST),
    "only the new keys signed": signed(rotation(), SECOND),
    "third keys signed in place of the new": signed(rotation(), FIRST, THIRD),
    "of other keys than those in force": signed(rotation(THIRD, SECOND), FIRST, SECOND),
    "another type of statement": signed(rotation(), FIRST, SECOND, statement_type=CARD),
    "of another origin": signed(rotation(origin=CAMDEN), FIRST, SECOND),
    "in another origin's log": signed(rotation(origin=CAMDEN), FIRST, SECOND, origin=CAMDEN),
    "new keys of another name": signed(msgspec.structs.replace(rotation(), new=texts(SECOND, CAMDEN)), FIRST, SECOND),
    "new keys that are none": signed(msgspec.structs.replace(rotation(), new=("a", "b")), FIRST, SECOND),
    "new keys in the wrong order": signed(
        msgspec.structs.replace(rotation(), new=tuple(reversed(texts(SECOND)))), FIRST, SECOND
    ),
    "no proof": ProvenStatement(statement=signed(rotation(), FIRST, SECOND).statement, proof=""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_hold_leads_nowhere(name: str) -> None:
    assert step_from(pair(FIRST), HACKNEY, REFUSED[name]) is None


def test_several_rotations_are_followed_in_order_and_earlier_ones_are_passed_over() -> None:
    first, second = signed(rotation(), FIRST, SECOND), signed(rotation(SECOND, THIRD), SECOND, THIRD)

    assert [step.new for step in steps_from(pair(FIRST), HACKNEY, [first, second])] == [pair(SECOND), pair(THIRD)]
    assert [step.new for step in steps_from(pair(SECOND), HACKNEY, [first, second])] == [pair(THIRD)]
    assert steps_from(pair(THIRD), HACKNEY, [first, second]) == []
    assert [step.new for step in steps_from(pair(FIRST), HACKNEY, [second, first])] == [pair(SECOND)]


def test_a_rotation_without_one_of_its_four_signatures_is_refused() -> None:
    item = signed(rotation(), FIRST, SECOND)
    lines = item.proof.split("\n")
    marks = [number for number, line in enumerate(lines) if line.startswith("— ")]

    assert len(marks) == 4
    for mark in marks:
        altered = [line for number, line in enumerate(lines) if number != mark]
        assert step_from(pair(FIRST), HACKNEY, msgspec.structs.replace(item, proof="\n".join(altered))) is None


def test_keys_before_and_after_those_of_a_card_are_of_the_same_identity() -> None:
    items = [signed(rotation(), FIRST, SECOND), signed(rotation(SECOND, THIRD), SECOND, THIRD)]

    for keys in (FIRST, SECOND, THIRD):
        found = all_keys(pair(keys), HACKNEY, items)
        assert found[0] == pair(keys)
        assert set(found) == {pair(FIRST), pair(SECOND), pair(THIRD)}
    assert all_keys(pair(THIRD), HACKNEY, items[:1]) == [pair(THIRD)]


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "of other keys than those in force"])
def test_what_does_not_hold_joins_no_keys(name: str) -> None:
    assert all_keys(pair(FIRST), HACKNEY, [REFUSED[name]]) == [pair(FIRST)]
    assert all_keys(pair(SECOND), HACKNEY, [REFUSED[name]]) == [pair(SECOND)]


def test_a_statement_holds_under_any_keys_of_the_identity_and_under_no_others() -> None:
    item = signed(rotation(), SECOND)

    assert verify_by_any(item, HACKNEY, [pair(FIRST), pair(SECOND)]).checkpoint.origin == HACKNEY
    with pytest.raises(CryptoError):
        verify_by_any(item, HACKNEY, [pair(FIRST), pair(THIRD)])
