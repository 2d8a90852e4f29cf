"""What an agency with keys of its own says of a section, signed by these: nobody else can say it in its name. Pure.

* It is signed alone, as an agency's possession of its key is, and names the message by its leaf hash, the section, the
  rung, both boroughs, a time, and commitments to the words.
* Whose keys they are, the fingerprint in the borough's card says: the one in the card to which the sender sealed.

Source: docs/protocol.md, "Acknowledgements".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exchange.crypto.alone import AGENCY, sign_alone, verify_alone
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import LeafHash, Origin
from exchange.crypto.note import VerifierKey
from exchange.crypto.signing import SigningKeys, fingerprint
from exchange.crypto.statement import encode_statement, parse_statement
from exchange.schema.agency_keys import read_vkeys
from exchange.schema.errors import AcknowledgementInvalid, AgencyKeyInvalid, SchemaError
from exchange.schema.wire import (
    ACKNOWLEDGEMENT,
    Acknowledgement,
    AgencyStatement,
    Receipt,
    Words,
    acknowledgement_decoder,
    decode_wire,
    encode_wire,
)


@dataclass(frozen=True, slots=True)
class ProvenAcknowledgement:
    """What an agency has signed; `name` and `signer` say by which keys."""

    said: Acknowledgement
    leaf_hash: LeafHash
    name: str
    signer: bytes


def signer_of(vkeys: Sequence[str]) -> bytes | None:
    """The fingerprint of an agency's signing keys, if it has any.

    Raises:
        AgencyKeyInvalid: they are no such keys.
    """
    keys = read_vkeys(vkeys)
    return None if keys is None else _fingerprint(keys)


def _fingerprint(keys: tuple[VerifierKey, VerifierKey]) -> bytes:
    return bytes.fromhex(fingerprint(Origin(keys[0].name), keys))


def sign_acknowledgement(
    said: Acknowledgement, signing: SigningKeys, vkeys: tuple[str, str], timestamp_s: int
) -> AgencyStatement:
    """Sign what an agency says."""
    statement = encode_statement(ACKNOWLEDGEMENT, encode_wire(said))
    proof = sign_alone(signing, statement, timestamp_s, AGENCY)
    return AgencyStatement(statement=statement, proof=proof, signing_keys=vkeys)


def prove_acknowledgement(signed: AgencyStatement) -> ProvenAcknowledgement:
    """What an agency has signed. Who calls this looks whether `signer` is the agency's.

    Raises:
        AcknowledgementInvalid: it is no acknowledgement, or the signatures do not hold.
    """
    try:
        keys = read_vkeys(signed.signing_keys)
        if keys is None:
            raise AgencyKeyInvalid("there are no keys")
        verified = verify_alone(signed.statement, signed.proof, keys, AGENCY)
        if verified.statement.type != ACKNOWLEDGEMENT:
            raise AcknowledgementInvalid("what the agency signed is no acknowledgement")
        said = decode_wire(acknowledgement_decoder, verified.statement.body)
    except AcknowledgementInvalid:
        raise
    except (CryptoError, SchemaError) as error:
        raise AcknowledgementInvalid(f"the agency's signature does not hold: {error}") from None
    return ProvenAcknowledgement(said, verified.leaf_hash, keys[0].name, _fingerprint(keys))


def check_is_of(proven: ProvenAcknowledgement, receipt: Receipt) -> None:
    """Check that an agency has signed what a node's receipt says of it.

    Raises:
        AcknowledgementInvalid: it has signed something else.
    """
    said = proven.said
    signed = (said.message_id, said.leaf_hash, said.rung, said.origin, said.recipient, said.to)
    claimed = (receipt.message_id, receipt.leaf_hash, receipt.rung, receipt.origin, receipt.recipient, receipt.to)
    places = [(place.section, place.agency) for place in receipt.placements]
    if signed != claimed or places != [(said.section, said.agency)] or receipt.words is not None or receipt.by_borough:
        raise AcknowledgementInvalid("the agency has signed something else than the receipt says")


def words_of(receipt: Receipt) -> Words | None:
    """The words in a receipt, whoever signed them; their signature was checked before the receipt was kept."""
    if receipt.acknowledgement is None:
        return receipt.words
    return decode_wire(acknowledgement_decoder, parse_statement(receipt.acknowledgement.statement).body).words
