"""A node's signing keys: Ed25519 (PyNaCl) and ML-DSA-44 (`cryptography`), always used together.

They sign checkpoints of the node's log and nothing else. Their public halves are the node's identity.
"""

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from exchange.crypto.errors import NameInvalid, SignatureError
from exchange.crypto.names import Origin, context
from exchange.crypto.note import ED25519, MLDSA44_COSIGNATURE, NoteSignature, VerifierKey, format_note
from exchange.crypto.secret import Secret

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


class SigningKeys:
    """Both private keys of a node, each from a 32-byte seed."""

    __slots__ = ("_ed25519", "_mldsa", "_public", "_seeds")

    def __init__(self, ed25519_seed: Secret, mldsa44_seed: Secret) -> None:
        self._seeds = (ed25519_seed, mldsa44_seed)
        self._ed25519 = SigningKey(ed25519_seed.reveal())
        self._mldsa = MLDSA44PrivateKey.from_seed_bytes(mldsa44_seed.reveal())
        self._public = bytes(self._ed25519.verify_key), self._mldsa.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "SigningKeys":
        """Fresh keys."""
        return cls(Secret(os.urandom(32)), Secret(os.urandom(32)))

    def seeds(self) -> tuple[Secret, Secret]:
        """The Ed25519 and the ML-DSA-44 seed, for the keystore."""
        return self._seeds

    def verifiers(self, origin: Origin) -> tuple[VerifierKey, VerifierKey]:
        """The public halves under the node's name: Ed25519, then ML-DSA-44."""
        return (
            VerifierKey(origin, ED25519, self._public[0]),
            VerifierKey(origin, MLDSA44_COSIGNATURE, self._public[1]),
        )

    def sign_checkpoint(self, origin: Origin, size: int, root: bytes, timestamp_s: int) -> str:
        """The signed checkpoint of a tree (c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature)."""
        return sign_checkpoint((self,), origin, size, root, timestamp_s)

    def signatures(self, origin: Origin, size: int, root: bytes, timestamp_s: int) -> list[NoteSignature]:
        """Both signatures of a checkpoint."""
        first, second = self.verifiers(origin)
        text = checkpoint_text(origin, size, root).encode()
        stamp = timestamp_s.to_bytes(8, "big")
        cosignature = stamp + self._mldsa.sign(cosigned_message(origin, timestamp_s, size, root))
        return [
            NoteSignature(origin, first.key_id, self._ed25519.sign(text).signature),
            NoteSignature(origin, second.key_id, cosignature),
        ]


def sign_checkpoint(signers: Sequence[SigningKeys], origin: Origin, size: int, root: bytes, timestamp_s: int) -> str:
    """The checkpoint of a tree with the signatures of each of `signers`: two of them while an identity passes on."""
    signatures = [item for keys in signers for item in keys.signatures(origin, size, root, timestamp_s)]
    return format_note(checkpoint_text(origin, size, root), signatures)


def checkpoint_text(origin: Origin, size: int, root: bytes) -> str:
    """The signed text of a checkpoint: origin, size, root."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def cosigned_message(origin: Origin, timestamp_s: int, size: int, root: bytes) -> bytes:
    """What ML-DSA-44 signs (c2sp.org/tlog-cosignature, type 0x06); the cosigner is the log itself."""
    name = origin.encode()
    return b"".join(
        (
            b"subtree/v1\n\x00",
            bytes((len(name),)),
            name,
            timestamp_s.to_bytes(8, "big"),
            bytes((len(name),)),
            name,
            bytes(8),
            size.to_bytes(8, "big"),
            root,
        )
    )


def verify_ed25519(key: VerifierKey, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature.

    Raises:
        SignatureError: it is wrong.
    """
    try:
        VerifyKey(key.public).verify(message, signature)
    except (BadSignatureError, ValueError):
        raise SignatureError("the Ed25519 signature is wrong") from None


def verify_mldsa44(key: VerifierKey, signature: bytes, message: bytes) -> None:
    """Check an ML-DSA-44 signature.

    Raises:
        SignatureError: it is wrong.
    """
    try:
        MLDSA44PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError("the ML-DSA-44 signature is wrong") from None


def fingerprint(origin: Origin, keys: tuple[VerifierKey, VerifierKey]) -> str:
    """What an admin compares out of band: 64 hexadecimal digits over origin and both keys."""
    vkeys = [key.text().encode() for key in keys]
    return hashlib.sha256(context("identity", origin.encode(), *vkeys)).hexdigest()


def format_fingerprint(value: str) -> str:
    """A fingerprint in groups of four, for people."""
    return " ".join(value[at : at + 4] for at in range(0, len(value), 4))


def parse_fingerprint(text: str) -> str:
    """A fingerprint as a person typed it: spaces, colons, hyphens and capitals do not matter.

    Raises:
        NameInvalid: it is not 64 hexadecimal digits.
    """
    value = re.sub(r"[\s:-]", "", text).lower()
    if not _FINGERPRINT.fullmatch(value):
        has = f"that has {len(value)}" if re.fullmatch("[0-9a-f]*", value) else "that holds other characters"
        raise NameInvalid(
            f"a fingerprint is 64 hexadecimal digits, and {has}", hint="Type all 16 groups of 4 digits as you got them."
        )
    return value
