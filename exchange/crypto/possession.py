"""Who registers a sealing key shows that they hold its private half: they open a challenge that was sealed to it.

* A sealing key cannot sign. The challenge is 32 random bytes, sealed in a context of its own: what an agency opens for
  it can be no parcel, and no answer says what a parcel holds.
* The context names the borough, the kind of agency and the agency's signing keys, if it has any: an agency answers
  no challenge for another borough, for another kind, or beside somebody else's signing keys.

Source: docs/protocol.md, "Agencies' keys".
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from exchange.crypto.errors import PossessionError, SealError
from exchange.crypto.names import Origin, SealingKeyId, context
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey, open_sealed, seal
from exchange.crypto.secret import Secret


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of a sealing key: that the agency of this kind in the borough of this node holds it."""

    origin: Origin
    kind: str
    signing_keys: Sequence[str] = ()

    def info(self, key_id: SealingKeyId) -> bytes:
        """HPKE's info."""
        fields = (self.origin, self.kind, *self.signing_keys)
        return context("agency-challenge", key_id, *(field.encode() for field in fields))


def seal_challenge(key: SealingPublicKey, claim: Claim, nonce: Secret) -> bytes:
    """Challenge whoever claims to hold a key; `nonce` is 32 random bytes that nobody else is told."""
    return seal(key, claim.info(key.key_id), nonce.reveal())


def answer_challenge(key: SealingPrivateKey, claim: Claim, challenge: bytes) -> bytes:
    """The answer to a challenge.

    Raises:
        PossessionError: it is for another key or claim, or altered.
    """
    try:
        nonce = open_sealed(key, claim.info(key.public.key_id), challenge)
    except SealError:
        raise PossessionError("that challenge is not for this key, this borough and this kind of agency") from None
    return _answer(nonce)


def check_answer(nonce: Secret, answer: bytes) -> None:
    """Check the answer to a challenge.

    Raises:
        PossessionError: it is wrong.
    """
    if not hmac.compare_digest(_answer(nonce.reveal()), answer):
        raise PossessionError("that answer does not show that the agency holds the key")


def _answer(nonce: bytes) -> bytes:
    return hashlib.sha256(context("agency-answer", nonce)).digest()
