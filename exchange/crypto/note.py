"""Signed notes and verifier keys (c2sp.org/signed-note).

A note is text that ends in a newline, an empty line, and signature lines `— name base64(key id || signature)`.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from exchange.crypto.errors import NoteError

ED25519: Final = 0x01
MLDSA44_COSIGNATURE: Final = 0x06
MAX_SIGNATURES: Final = 16
MAX_NOTE_LENGTH: Final = 65_536

_SIGNATURE_LINE: Final = re.compile(r"— ([^\s+]{1,200}) ([A-Za-z0-9+/]+={0,2})")
_KEY_NAME: Final = re.compile(r"[!-*,-~]{1,200}")
_PUBLIC_SIZES: Final = {ED25519: 32, MLDSA44_COSIGNATURE: 1312}


def key_id(name: str, algorithm: int, public: bytes) -> bytes:
    """The four bytes by which signature lines name a key."""
    return hashlib.sha256(name.encode() + b"\n" + bytes((algorithm,)) + public).digest()[:4]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name; `public` is 32 bytes (Ed25519) or 1312 (ML-DSA-44)."""

    name: str
    algorithm: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The key's id, four bytes."""
        return key_id(self.name, self.algorithm, self.public)

    def text(self) -> str:
        """The vkey encoding: `name+hex key id+base64(type || public key)`."""
        encoded = base64.b64encode(bytes((self.algorithm,)) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


def decode_base64(text: str) -> bytes:
    """Decode canonical standard base64.

    Raises:
        NoteError: another alphabet, missing padding, or stray bits.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise NoteError("not base64") from None
    if binascii.b2a_base64(data, newline=False).decode() != text:
        raise NoteError("not canonical base64")
    return data


def parse_vkey(text: str) -> VerifierKey:
    """Parse a vkey of one of the two kinds that the exchange uses.

    Raises:
        NoteError: not a vkey, another kind of key, or a key id that does not fit the key.
    """
    parts = text.split("+", 2)
    if len(parts) != 3 or not _KEY_NAME.fullmatch(parts[0]):
        raise NoteError("that is not a vkey")
    data = decode_base64(parts[2])
    if not data or _PUBLIC_SIZES.get(data[0]) != len(data) - 1:
        raise NoteError("the vkey is of a kind that is not in use here")
    key = VerifierKey(parts[0], data[0], data[1:])
    if parts[1] != key.key_id.hex():
        raise NoteError("the vkey's key id does not fit its key")
    return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes


def format_note(text: str, signatures: list[NoteSignature]) -> str:
    """Join a note's text (which ends in a newline) and its signatures."""
    lines = [
        f"— {signature.name} {base64.b64encode(signature.key_id + signature.signature).decode()}\n"
        for signature in signatures
    ]
    return f"{text}\n{''.join(lines)}"


def parse_note(note: str) -> tuple[str, list[NoteSignature]]:
    """Split a note into its text and its signatures.

    Raises:
        NoteError: not a note, too long, or too many signatures.
    """
    if len(note) > MAX_NOTE_LENGTH:
        raise NoteError("the note is too long")
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n") or any(ord(char) < 0x20 and char != "\n" for char in note):
        raise NoteError("that is not a signed note")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError("the note has too many signatures")
    signatures = []
    for line in lines:
        match = _SIGNATURE_LINE.fullmatch(line)
        data = decode_base64(match[2]) if match else b""
        if match is None or len(data) < 5:
            raise NoteError("a signature line is malformed")
        signatures.append(NoteSignature(match[1], data[:4], data[4:]))
    return text + "\n", signatures
