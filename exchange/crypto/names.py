"""The names that cryptography binds: origins, message ids, section names, key ids, leaf hashes.

`context` joins a label and fields so that no two different lists give the same bytes.
"""

import os
import re
import uuid
from typing import Final, NewType

from exchange.crypto.errors import NameInvalid

Origin = NewType("Origin", str)
MessageId = NewType("MessageId", str)
SectionName = NewType("SectionName", str)
SealingKeyId = NewType("SealingKeyId", bytes)
LeafHash = NewType("LeafHash", bytes)

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ORIGIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{0,4}})?(?:/[a-z0-9._~-]+)*")
_MESSAGE_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SECTION: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")
MAX_ORIGIN_LENGTH: Final = 200


def parse_origin(text: str) -> Origin:
    """Check a schema-less URL such as `exchange.hackney.gov.uk`.

    Raises:
        NameInvalid: it is not one.
    """
    if len(text) > MAX_ORIGIN_LENGTH or not _ORIGIN.fullmatch(text):
        raise NameInvalid("that is not an origin")
    return Origin(text)


def parse_message_id(text: str) -> MessageId:
    """Check a message id: a UUID in its lower-case text form.

    Raises:
        NameInvalid: it is not one.
    """
    if not _MESSAGE_ID.fullmatch(text):
        raise NameInvalid("that is not a message id")
    return MessageId(text)


def new_message_id(now_ms: int) -> MessageId:
    """A message id of a time, in milliseconds since 1970, and 74 random bits (RFC 9562 section 5.7, version 7).

    Ids in the order of time keep the end of an index in use, and leave the rest of it alone.
    """
    random = int.from_bytes(os.urandom(10), "big")
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64
    return MessageId(str(uuid.UUID(int=value | 0b10 << 62 | random & (1 << 62) - 1)))


def parse_section_name(text: str) -> SectionName:
    """Check the name of a sealed section.

    Raises:
        NameInvalid: it is not one.
    """
    if not _SECTION.fullmatch(text):
        raise NameInvalid("that is not a section name")
    return SectionName(text)


def context(label: str, *fields: bytes) -> bytes:
    """`"exchange/1 " label "\\n"`, then each field behind its length as four big-endian bytes."""
    return extend(b"exchange/1 %s\n" % label.encode("ascii"), *fields)


def extend(begun: bytes, *fields: bytes) -> bytes:
    """What `context` gives where more fields follow those that `begun` holds."""
    parts = [begun]
    for field in fields:
        parts.append(len(field).to_bytes(4, "big"))
        parts.append(field)
    return b"".join(parts)
