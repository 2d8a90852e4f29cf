"""The signatures in a header, or one that code computed, however they are written."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from exchange.schema.selftest.findings import Finding, finding

_ONE: Final = r"v[0-9]+[a-z]?,(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_WELL_FORMED: Final = re.compile(f"{_ONE}(?: {_ONE})*")
_TOKEN: Final = re.compile(r"(v[0-9]+[a-z]?)[,=:]\s*(.*?)(?=[\s,;]+v[0-9]+[a-z]?[,=:]|\Z)", re.DOTALL)
_MOST: Final = 16
_MOST_CHARACTERS: Final = 4000


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: its kind, its bytes, and what was seen in how it is written."""

    scheme: str
    value: bytes
    found: tuple[Finding, ...]


def is_well_formed(text: str) -> bool:
    """Whether a header is a list as the node writes it; the public verifiers stumble over anything else."""
    return _WELL_FORMED.fullmatch(text) is not None


def read_signatures(text: str) -> list[Signature]:
    """The signatures of a header."""
    text = text[:_MOST_CHARACTERS]
    altered: tuple[Finding, ...] = () if is_well_formed(text) else (finding("signature-altered"),)
    bare = unquote(text).strip(" \t\r\n\"'[]")
    tokens = [(match[1], match[2]) for match in _TOKEN.finditer(bare)][:_MOST]
    if not tokens:
        return list(read_value(bare, "v1", (finding("signature-unnamed"),)))
    return [one for scheme, value in tokens for one in read_value(value, scheme, altered)]


def read_computed(text: str) -> list[Signature]:
    """The signature that code computed, with or without its kind in front."""
    bare = text[:_MOST_CHARACTERS].strip(" \t\r\n\"'")
    match = re.match(r"v1[,=:]\s*", bare)
    return list(read_value(bare[match.end() :] if match else bare, "v1", ()))


def read_value(text: str, scheme: str, found: tuple[Finding, ...]) -> Iterator[Signature]:
    """The bytes that a value stands for, and those that it may stand for beside that."""
    text = text.strip(" \t\r\n\"',;")
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        yield Signature(scheme, bytes.fromhex(text), (*found, finding("signature-hex")))
        return
    standard = text.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    if standard + "=" * (-len(standard) % 4) != text and not found:
        found = (finding("signature-altered"),)
    try:
        value = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        return
    yield Signature(scheme, value, found)
    if re.fullmatch(rb"[0-9a-fA-F]{64}", value):
        yield Signature(scheme, bytes.fromhex(value.decode()), (*found, finding("signature-base64-of-hex")))
