"""The names that cryptography binds: origins, message ids, section names, key ids, leaf hashes.

`context` joins a label and fields so that no two different lists give the same bytes.
"""

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


def new_message_id() -> MessageId:
    """A random message id (RFC 9562 version 4)."""
    return MessageId(str(uuid.uuid4()))


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
    parts = [b"exchange/1 ", label.encode("ascii"), b"\n"]
    for field in fields:
        parts.append(len(field).to_bytes(4, "big"))
        parts.append(field)
    return b"".join(parts)
