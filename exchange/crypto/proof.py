"""Proofs: a statement's place in its signer's log, which is the signature of this protocol (c2sp.org/tlog-proof)."""

import binascii
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from exchange.crypto.checkpoint import Checkpoint, CheckpointCache, parse_checkpoint
from exchange.crypto.errors import ProofError
from exchange.crypto.merkle import verify_inclusion
from exchange.crypto.names import LeafHash, Origin
from exchange.crypto.note import VerifierKey, decode_base64
from exchange.crypto.statement import Statement, leaf_hash, parse_statement

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,15})")
_MAX_PATH: Final = 63


class Proof(msgspec.Struct, frozen=True):
    """A parsed tlog-proof; nothing in it has been verified yet."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str


class VerifiedStatement(msgspec.Struct, frozen=True):
    """A statement that stands in its signer's log."""

    statement: Statement
    leaf_hash: LeafHash
    index: int
    checkpoint: Checkpoint


def format_proof(index: int, path: Sequence[bytes], checkpoint: str) -> str:
    """The text of a tlog-proof."""
    hashes = "".join([binascii.b2a_base64(value).decode() for value in path])
    return f"{_HEADER}\nindex {index}\n{hashes}\n{checkpoint}"


def parse_proof(text: str) -> Proof:
    """Parse the text of a tlog-proof.

    Raises:
        ProofError: not one, or one with extra data, which the exchange does not use.
        NoteError: a hash is not canonical base64.
    """
    head, gap, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    index = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if not gap or lines[0] != _HEADER or index is None or len(lines) > _MAX_PATH + 2:
        raise ProofError("that is not a tlog-proof")
    path = tuple(decode_base64(line) for line in lines[2:])
    if any(len(value) != 32 for value in path):
        raise ProofError("a hash in the proof is not 32 bytes")
    return Proof(int(index[1]), path, checkpoint)


def verify_statement(
    encoded: bytes,
    proof_text: str,
    origin: Origin,
    keys: tuple[VerifierKey, VerifierKey],
    cache: CheckpointCache | None = None,
) -> VerifiedStatement:
    """Check that `encoded` is a statement that `origin` signed; only then parse it.

    Raises:
        CryptoError: NoteError, CheckpointError, SignatureError, ProofError or StatementError, by what is wrong.
    """
    proof = parse_proof(proof_text)
    verify = cache.parse if cache is not None else parse_checkpoint
    checkpoint = verify(proof.checkpoint, origin, keys)
    leaf = leaf_hash(encoded)
    verify_inclusion(leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)
    return VerifiedStatement(parse_statement(encoded), leaf, proof.index, checkpoint)
