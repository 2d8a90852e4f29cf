"""The token of a one-time link: 256 bits that follow from the store key and the link's id, and from neither alone.

A node gives the same link at every attempt of a delivery. It keeps the id and the token's SHA-256: nothing that opens.
"""

import base64
import hashlib
import re
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from exchange.crypto.names import context
from exchange.crypto.rest import StoreKey

_TOKEN: Final = re.compile(r"exlk_[A-Za-z0-9_-]{43}")


def link_token(key: StoreKey, link_id: str) -> str:
    """The token of the link of that id."""
    info = context("acknowledgement-link", link_id.encode())
    raw = HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(key.reveal())
    return f"exlk_{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


def link_digest(token: str) -> bytes | None:
    """What is kept of a token; None where it cannot be one."""
    return hashlib.sha256(token.encode()).digest() if _TOKEN.fullmatch(token) else None
