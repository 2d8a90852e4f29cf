"""Statements: the typed bytes that a node signs.

* `"exchange/1 " len(type) " " type " " len(body) " " body`, lengths in ASCII decimal: every statement has one encoding.
* Statements are kept and checked as received, never encoded again.

Source: docs/protocol.md, "Statements"; the framing is that of DSSE's pre-authentication encoding.
"""

import hashlib
import re
from typing import Final, NamedTuple

from exchange.crypto.errors import StatementError
from exchange.crypto.names import LeafHash

_PREFIX: Final = b"exchange/1 "
_TYPE: Final = re.compile(rb"[a-z0-9.-]{1,64}")
_HEAD: Final = re.compile(rb"exchange/1 ([1-9][0-9]?) ([a-z0-9.-]{1,64}) (0|[1-9][0-9]{0,8}) ")


class Statement(NamedTuple):
    """A parsed statement."""

    type: str
    body: bytes


def encode_statement(statement_type: str, body: bytes) -> bytes:
    """Frame `body` as a statement.

    Raises:
        StatementError: the type is not 1 to 64 of `a-z 0-9 . -`.
    """
    kind = statement_type.encode("ascii", "replace")
    if not _TYPE.fullmatch(kind):
        raise StatementError("a statement's type is 1 to 64 of a-z, 0-9, dot and hyphen")
    return b"%s%d %s %d %s" % (_PREFIX, len(kind), kind, len(body), body)


def parse_statement(data: bytes) -> Statement:
    """Parse exactly one statement; do so only after its proof has verified.

    Raises:
        StatementError: not a statement of version 1, a length that does not fit, or bytes left over.
    """
    head = _HEAD.match(data)
    if head is None or int(head[1]) != len(head[2]) or int(head[3]) != len(data) - head.end():
        raise StatementError("that is not one well-formed statement of version 1")
    return Statement(head[2].decode("ascii"), data[head.end() :])


def leaf_hash(encoded: bytes) -> LeafHash:
    """The leaf hash of an encoded statement (RFC 6962, section 2.1)."""
    return LeafHash(hashlib.sha256(b"\x00" + encoded).digest())
