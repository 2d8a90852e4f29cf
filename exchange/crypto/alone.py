"""A statement that stands in no node's log: it is signed as the one leaf of a log of its own.

* The log bears a name that no node can have, and so do the keys: nothing that is signed so can pass for a checkpoint of
  a node's log, nor the other way round. Each use has a name of its own.
* It is for what a node asks while it may not add to its log, and for agencies, which keep none.

Source: docs/protocol.md, "Rejoining" and "Agencies' keys".
"""

from typing import Final

from exchange.crypto.names import Origin
from exchange.crypto.note import VerifierKey
from exchange.crypto.proof import VerifiedStatement, format_proof, verify_statement
from exchange.crypto.signing import SigningKeys
from exchange.crypto.statement import leaf_hash

#: Origins have no capitals.
LOG: Final = Origin("REJOIN")
AGENCY: Final = Origin("AGENCY")


def sign_alone(keys: SigningKeys, statement: bytes, timestamp_s: int, log: Origin = LOG) -> str:
    """The tlog-proof of a statement that is the only one of its log."""
    return format_proof(0, (), keys.sign_checkpoint(log, 1, leaf_hash(statement), timestamp_s))


def verify_alone(
    encoded: bytes, proof: str, keys: tuple[VerifierKey, VerifierKey], log: Origin = LOG
) -> VerifiedStatement:
    """Check that `encoded` is a statement that these keys signed alone; only then parse it.

    Raises:
        CryptoError: as `verify_statement`.
    """
    first, second = (VerifierKey(log, key.algorithm, key.public) for key in keys)
    return verify_statement(encoded, proof, log, (first, second))
