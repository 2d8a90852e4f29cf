"""An agency's own keys, as they are given to its borough: the public halves, a challenge, and the answer to it.

* All three are JSON files, so that they can go by e-mail, by copy and paste, or by webhook.
* Whoever answers for a sealing key with signing keys beside it signs the answer: both are shown to be in one hand.
* A key that was made by another program has no signing keys, and its answer no proof.

Source: docs/protocol.md, "Agencies' keys".
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from exchange.crypto.alone import AGENCY, sign_alone, verify_alone
from exchange.crypto.errors import CryptoError, SealError
from exchange.crypto.names import Origin, SealingKeyId, parse_origin
from exchange.crypto.note import ED25519, MLDSA44_COSIGNATURE, VerifierKey, parse_vkey
from exchange.crypto.possession import Claim, answer_challenge, check_answer
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys
from exchange.crypto.statement import encode_statement
from exchange.schema.errors import AgencyKeyInvalid, SchemaError
from exchange.schema.wire import (
    HashBytes,
    KeyIdBytes,
    KindText,
    OriginText,
    ProofText,
    SealingKeyBytes,
    StatementBytes,
    VersionOne,
    Wire,
    decode_wire,
    encode_wire,
)

F = TypeVar("F", bound="_File")

POSSESSION: Final = "possession"
#: The largest of them is a key of 1,216 bytes with two vkeys.
MOST_BYTES: Final = 16_384

Vkeys = Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=2)]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of the files."""


class AgencyKeyFile(_File, frozen=True):
    """The public half of an agency's keys; `signing_keys` are none, or two vkeys: Ed25519, then ML-DSA-44."""

    format: Literal["exchange-agency-key/1"]
    key: SealingKeyBytes
    signing_keys: Vkeys = ()


class ChallengeFile(_File, frozen=True):
    """A challenge of a node to the agency that is to have this key."""

    format: Literal["exchange-agency-challenge/1"]
    origin: OriginText
    kind: KindText
    key_id: KeyIdBytes
    challenge: Annotated[bytes, Meta(max_length=4096)]


class AnswerFile(_File, frozen=True):
    """The answer to a challenge; with signing keys, also a `possession` statement that these signed alone."""

    format: Literal["exchange-agency-answer/1"]
    answer: HashBytes
    statement: StatementBytes | None = None
    proof: ProofText | None = None


class Possession(Wire, frozen=True):
    """The body of a `possession`: the agency of this kind in that borough holds the sealing key."""

    version: VersionOne
    origin: OriginText
    kind: KindText
    key_id: KeyIdBytes
    answer: HashBytes


possession_decoder = msgspec.msgpack.Decoder(Possession)


def file_bytes(file: msgspec.Struct) -> bytes:
    """A file as it is written."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def read_key_file(data: bytes) -> AgencyKeyFile:
    """Read the public half of an agency's keys.

    Raises:
        AgencyKeyInvalid: it is none.
    """
    file = _read(data, AgencyKeyFile, "the public half of an agency's key")
    sealing_key(file)
    signing_keys(file)
    return file


def read_challenge(data: bytes) -> ChallengeFile:
    """Read a challenge.

    Raises:
        AgencyKeyInvalid: it is none.
    """
    return _read(data, ChallengeFile, "a challenge")


def read_answer(data: bytes) -> AnswerFile:
    """Read an answer to a challenge.

    Raises:
        AgencyKeyInvalid: it is none.
    """
    return _read(data, AnswerFile, "an answer to a challenge")


def _read(data: bytes, kind: type[F], what: str) -> F:
    try:
        if len(data) > MOST_BYTES:
            raise ValueError
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise AgencyKeyInvalid(f"that is not {what}") from None


def sealing_key(file: AgencyKeyFile) -> SealingPublicKey:
    """The sealing key in a key file.

    Raises:
        AgencyKeyInvalid: it is none.
    """
    try:
        public = SealingPublicKey(file.key)
        _ = public.key
    except SealError:
        raise AgencyKeyInvalid("the key is not an X-Wing public key") from None
    return public


def signing_keys(file: AgencyKeyFile) -> tuple[VerifierKey, VerifierKey] | None:
    """The signing keys in a key file, if it has any.

    Raises:
        AgencyKeyInvalid: they are not an Ed25519 key and an ML-DSA-44 key of one name.
    """
    return read_vkeys(file.signing_keys)


def read_vkeys(vkeys: Sequence[str]) -> tuple[VerifierKey, VerifierKey] | None:
    """An agency's signing keys, if it has any.

    Raises:
        AgencyKeyInvalid: they are not an Ed25519 key and an ML-DSA-44 key of one name.
    """
    if not vkeys:
        return None
    try:
        keys = [parse_vkey(text) for text in vkeys]
        parse_origin(keys[0].name)
    except CryptoError:
        raise AgencyKeyInvalid("the signing keys are not vkeys") from None
    if [key.algorithm for key in keys] != [ED25519, MLDSA44_COSIGNATURE] or keys[0].name != keys[1].name:
        raise AgencyKeyInvalid("the signing keys are an Ed25519 key, then an ML-DSA-44 key, of one name")
    return keys[0], keys[1]


def answer_to(
    challenge: ChallengeFile,
    key: SealingPrivateKey,
    signing: SigningKeys | None,
    vkeys: tuple[str, ...],
    timestamp_s: int,
) -> AnswerFile:
    """Answer a challenge; what the agency's borough and kind are was checked before.

    Raises:
        PossessionError: it is for another key, borough or kind, or for other signing keys.
    """
    claim = Claim(Origin(challenge.origin), challenge.kind, vkeys)
    answer = answer_challenge(key, claim, challenge.challenge)
    if signing is None:
        return AnswerFile(format="exchange-agency-answer/1", answer=answer)
    body = Possession(version=1, origin=challenge.origin, kind=challenge.kind, key_id=challenge.key_id, answer=answer)
    statement = encode_statement(POSSESSION, encode_wire(body))
    proof = sign_alone(signing, statement, timestamp_s, AGENCY)
    return AnswerFile(format="exchange-agency-answer/1", answer=answer, statement=statement, proof=proof)


def check_possession(
    answer: AnswerFile,
    nonce: Secret,
    claim: Claim,
    key_id: SealingKeyId,
    signing: tuple[VerifierKey, VerifierKey] | None,
) -> None:
    """Check the answer to a challenge, and who signed it.

    Raises:
        CryptoError: PossessionError, or by what is wrong with the signature.
        AgencyKeyInvalid: the signature is missing, or of something else.
    """
    check_answer(nonce, answer.answer)
    if signing is None:
        return
    if answer.statement is None or answer.proof is None:
        raise AgencyKeyInvalid("the answer is not signed by the agency's signing keys")
    verified = verify_alone(answer.statement, answer.proof, signing, AGENCY)
    wanted = Possession(version=1, origin=claim.origin, kind=claim.kind, key_id=key_id, answer=answer.answer)
    try:
        said = decode_wire(possession_decoder, verified.statement.body)
    except SchemaError:
        said = None
    if verified.statement.type != POSSESSION or said != wanted:
        raise AgencyKeyInvalid("the answer's signature is of something else")
