"""Checkpoints: what a node signs of its log (c2sp.org/tlog-checkpoint).

* Both signatures must be there, once each, and verify; signatures of unknown keys are ignored, as C2SP says.
* A checkpoint is of one named log; extension lines are refused.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from exchange.crypto.errors import CheckpointError, SignatureError
from exchange.crypto.names import Origin
from exchange.crypto.note import ED25519, MLDSA44_COSIGNATURE, NoteSignature, VerifierKey, decode_base64, parse_note
from exchange.crypto.signing import cosigned_message, verify_ed25519, verify_mldsa44

_SIZE: Final = re.compile(r"[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint: `root` is the 32-byte root of the tree of the first `size` statements of `origin`.

    `signed_at_s` is the time that the signer gave, in seconds since 1970.
    """

    origin: Origin
    size: int
    root: bytes
    text: str
    signed_at_s: int


def parse_checkpoint(text: str, origin: Origin, keys: tuple[VerifierKey, VerifierKey]) -> Checkpoint:
    """Parse and verify a signed checkpoint of `origin`'s log.

    Raises:
        NoteError: not a signed note.
        CheckpointError: not a checkpoint of this log.
        SignatureError: not signed once by each of the two keys.
    """
    signed, signatures = parse_note(text)
    lines = signed.split("\n")
    if len(lines) != 4 or lines[0] != origin or not _SIZE.fullmatch(lines[1]):
        raise CheckpointError("that is not a checkpoint of this log")
    size, root = int(lines[1]), decode_base64(lines[2])
    if len(root) != 32:
        raise CheckpointError("the checkpoint's root is not 32 bytes")
    ed25519, mldsa44 = keys
    if ed25519.algorithm != ED25519 or mldsa44.algorithm != MLDSA44_COSIGNATURE:
        raise SignatureError("both kinds of key are needed")
    if not ed25519.name == mldsa44.name == origin:
        raise SignatureError("the keys bear another name than the log")
    verify_ed25519(ed25519, _signature_of(signatures, ed25519), signed.encode())
    cosignature = _signature_of(signatures, mldsa44)
    timestamp_s = int.from_bytes(cosignature[:8], "big")
    verify_mldsa44(mldsa44, cosignature[8:], cosigned_message(origin, timestamp_s, size, root))
    return Checkpoint(origin, size, root, text, timestamp_s)


def _signature_of(signatures: list[NoteSignature], key: VerifierKey) -> bytes:
    found = [item.signature for item in signatures if item.name == key.name and item.key_id == key.key_id]
    if len(found) != 1:
        raise SignatureError("the checkpoint is not signed once by each of the two keys")
    return found[0]


class CheckpointCache:
    """Checkpoints whose signatures have been checked, so that a batch's statements share the cost."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, Origin, tuple[VerifierKey, VerifierKey]], Checkpoint] = OrderedDict()

    def parse(self, text: str, origin: Origin, keys: tuple[VerifierKey, VerifierKey]) -> Checkpoint:
        """As `parse_checkpoint`, remembering what verified under exactly these keys."""
        name = (text, origin, keys)
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = parse_checkpoint(text, origin, keys)
            if len(self._held) > self._most:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(name)
        return found
