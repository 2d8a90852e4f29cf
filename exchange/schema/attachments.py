"""What is said of attachments: by a section to its readers, by a sender to the other node, and back.

* A section lists its attachments inside its sealed content: names and titles are personal data.
* The other node learns of each by a statement of the sender's: its section, size and root, and nothing of what it is.
* An older node refuses that statement alone, and takes the message: its manifest is as it always was.

Source: docs/protocol.md, "Attachments".
"""

import enum
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from exchange.crypto.attachment import (
    MOST_BYTES,
    MOST_CHUNK_BYTES,
    MOST_CHUNKS,
    MOST_OF_A_SECTION,
    MOST_SEALED_BYTES,
    Whole,
)
from exchange.schema.errors import AttachmentInvalid
from exchange.schema.wire import (
    HashBytes,
    MessageText,
    Moment,
    NameText,
    OriginText,
    SectionText,
    VersionOne,
    Wire,
    check_times,
)

ATTACHMENT: Final = "attachment"
ATTACHMENT_REPORT: Final = "attachment-report"
#: Where a section's content lists what is attached to it; no section of a form has a field of that name.
FIELD: Final = "attachments"

NumberOne = Annotated[int, Meta(ge=1, le=MOST_OF_A_SECTION)]
HexHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
#: A name is shown, and may become the name of a file: no separators, and nothing that is a place.
FileName = Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^/\\\x00-\x1f\x7f]{1,255}\Z")]
MediaType = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\Z")]


class Attachment(Wire, frozen=True):
    """The sender's word for one attachment: the manifest by its leaf hash, the section, the whole by size and root."""

    version: VersionOne
    message_id: MessageText
    leaf_hash: HashBytes
    recipient: OriginText
    section: SectionText
    number: NumberOne
    size_bytes: Annotated[int, Meta(ge=1, le=MOST_SEALED_BYTES)]
    root: HashBytes


class Chunk(Wire, frozen=True):
    """One sealed chunk with its place and what proves it; it stands among an envelope's ciphertexts."""

    index: Annotated[int, Meta(ge=0, lt=MOST_CHUNKS)]
    path: Annotated[tuple[HashBytes, ...], Meta(max_length=16)]
    data: Annotated[bytes, Meta(min_length=1, max_length=MOST_CHUNK_BYTES)]


class AttachmentState(enum.Enum):
    """What the receiving node says of an attachment that is there.

    `stored`: all of it is there, for agencies to open. `ready`: it was opened, is what its section says, and passed the
    scan, or there is none. `quarantined`: the scan found something; nobody is given it. `damaged`: it does not open.
    """

    STORED = "stored"
    READY = "ready"
    QUARANTINED = "quarantined"
    DAMAGED = "damaged"


class AttachmentReport(Wire, frozen=True):
    """A node's signed word for an attachment that came: of the statement `attachment` with that leaf hash.

    `scanned`: a scanner looked at it, and found nothing or something.
    """

    version: VersionOne
    message_id: MessageText
    leaf_hash: HashBytes
    recipient: OriginText
    section: SectionText
    number: NumberOne
    state: AttachmentState
    scanned: bool
    at: Moment

    def __post_init__(self) -> None:
        check_times(self.at)


class Described(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a section's content says of one attachment."""

    number: NumberOne
    title: NameText
    file_name: FileName
    media_type: MediaType
    size_bytes: Annotated[int, Meta(ge=0, le=MOST_BYTES)]
    sha256: HexHash
    root: HexHash

    def whole(self) -> Whole:
        """What the file must be."""
        return Whole(self.size_bytes, bytes.fromhex(self.sha256), bytes.fromhex(self.root))


_Described = Annotated[tuple[Described, ...], Meta(max_length=MOST_OF_A_SECTION)]
attachment_decoder = msgspec.msgpack.Decoder(Attachment)
report_decoder = msgspec.msgpack.Decoder(AttachmentReport)
chunk_decoder = msgspec.msgpack.Decoder(Chunk)


def with_attachments(content: dict[str, Any], described: Sequence[Described]) -> dict[str, Any]:
    """A section's content with its attachments listed."""
    if not described:
        return content
    return {**content, FIELD: [msgspec.to_builtins(one) for one in described]}


def attachments_of(content: dict[str, Any]) -> tuple[Described, ...]:
    """The attachments that a section's content lists.

    Raises:
        AttachmentInvalid: what it lists is not well formed, or one number stands twice.
    """
    try:
        found: tuple[Described, ...] = msgspec.convert(content.get(FIELD, ()), _Described)
    except (msgspec.ValidationError, ValueError):
        raise AttachmentInvalid("the section lists its attachments wrongly") from None
    if len({one.number for one in found}) != len(found):
        raise AttachmentInvalid("the section lists two attachments by one number")
    return found
