"""An agency's keys: kept under a passphrase, changed without losing the older ones, answering for themselves alone."""

import os

import pytest

from exchange.agency.errors import KeyNotHere
from exchange.agency.keys import AgencyKeys, lock_agency_keys, open_agency_keys
from exchange.crypto.errors import CryptoError, KeystoreCorrupt, PossessionError, WrongPassphrase
from exchange.crypto.keystore import Argon2Parameters, lock_keystore
from exchange.crypto.names import Origin, SealingKeyId
from exchange.crypto.possession import Claim, seal_challenge
from exchange.crypto.secret import Secret
from exchange.schema.agency_keys import (
    ChallengeFile,
    check_possession,
    file_bytes,
    read_answer,
    read_challenge,
    read_key_file,
    sealing_key,
    signing_keys,
)
from exchange.schema.errors import AgencyKeyInvalid

CHEAP = Argon2Parameters(1, 8192)
PASSPHRASE = Secret(b"four words that nobody guesses")
KEYS = AgencyKeys.generate(Origin("housing.enfield.example"))
ENFIELD = Origin("exchange.enfield.example")
NONCE = Secret(b"\x07" * 32)


def ids(keys: AgencyKeys) -> list[bytes]:
    return [key.public.key_id for key in keys.sealing]


def challenge(keys: AgencyKeys = KEYS, kind: str = "housing") -> ChallengeFile:
    public = read_key_file(file_bytes(keys.public()))
    claim = Claim(ENFIELD, kind, public.signing_keys)
    sealed = seal_challenge(sealing_key(public), claim, NONCE)
    key_id = sealing_key(public).key_id
    return ChallengeFile(
        format="exchange-agency-challenge/1", origin=ENFIELD, kind=kind, key_id=key_id, challenge=sealed
    )


def test_keys_come_back_from_their_file_in_their_order() -> None:
    keys = KEYS.rotated().rotated()
    opened = open_agency_keys(lock_agency_keys(keys, PASSPHRASE, CHEAP), PASSPHRASE)
    assert ids(opened) == ids(keys)
    assert opened.public() == keys.public()
    assert ids(keys)[-1] == ids(KEYS)[0]
    assert keys.public().signing_keys == KEYS.public().signing_keys


def test_a_file_opens_with_its_passphrase_alone_and_is_no_other_keystore() -> None:
    with pytest.raises(WrongPassphrase):
        open_agency_keys(lock_agency_keys(KEYS, PASSPHRASE, CHEAP), Secret(b"another"))
    with pytest.raises(KeystoreCorrupt):
        open_agency_keys(lock_keystore({"store": bytes(32)}, PASSPHRASE, CHEAP), PASSPHRASE)


def test_no_seed_is_in_the_file_or_in_what_is_shown() -> None:
    data = lock_agency_keys(KEYS, PASSPHRASE, CHEAP) + file_bytes(KEYS.public())
    for seed in (*KEYS.signing.seeds(), KEYS.sealing[0].seed()):
        assert seed.reveal() not in data
        assert repr(seed.reveal()) not in repr(KEYS)


def test_a_challenge_is_answered_and_the_answer_holds() -> None:
    asked = read_challenge(file_bytes(challenge()))
    answer = read_answer(file_bytes(KEYS.answer(asked, 0)))
    claim = Claim(ENFIELD, "housing", KEYS.public().signing_keys)
    check_possession(answer, NONCE, claim, SealingKeyId(asked.key_id), signing_keys(KEYS.public()))
    with pytest.raises(PossessionError):
        check_possession(answer, Secret(os.urandom(32)), claim, SealingKeyId(asked.key_id), None)
    stranger = signing_keys(AgencyKeys.generate(KEYS.name).public())
    with pytest.raises(CryptoError):
        check_possession(answer, NONCE, claim, SealingKeyId(asked.key_id), stranger)
    # An answer that was signed for another kind of agency.
    other = Claim(ENFIELD, "police", claim.signing_keys)
    with pytest.raises(AgencyKeyInvalid):
        check_possession(answer, NONCE, other, SealingKeyId(asked.key_id), signing_keys(KEYS.public()))


def test_a_challenge_to_an_older_key_is_answered_and_one_to_anothers_is_not() -> None:
    assert KEYS.rotated().answer(challenge(), 0).answer == KEYS.answer(challenge(), 0).answer
    with pytest.raises(KeyNotHere):
        AgencyKeys.generate(KEYS.name).answer(challenge(), 0)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"{}" + bytes(20_000), file_bytes(KEYS.public())[:-10]]
)
def test_what_is_no_file_of_an_agency_is_refused(data: bytes) -> None:
    for read in (read_key_file, read_challenge, read_answer):
        with pytest.raises(AgencyKeyInvalid):
            read(data)
