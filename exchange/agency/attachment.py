"""Open an attachment of a section that was sealed to the agency's own key.

The sealed chunks come from the node as they came to it. What is written is right only once this returns: until then it
may be half a file, or another's. So write it where nobody takes it for whole, and put it in its place afterwards.

Source: docs/protocol.md, "Attachments".
"""

from collections.abc import Callable
from typing import IO

from exchange.agency.errors import NotOpened
from exchange.agency.opening import OpenedSection
from exchange.crypto.attachment import AttachmentContext, AttachmentOpener
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.section import SectionContext
from exchange.schema.attachments import Described, attachments_of
from exchange.schema.errors import SchemaError


def open_sealed_attachment(
    opened: OpenedSection, number: int, sealed: IO[bytes], write: Callable[[bytes], object]
) -> Described:
    """Open attachment `number` of a section, chunk by chunk; what the section says of it.

    Raises:
        NotOpened: the section has no such attachment, or `sealed` is not all of it.
    """
    name = SectionName(opened.section)
    section = SectionContext(MessageId(opened.message_id), Origin(opened.sender), Origin(opened.recipient), name)
    try:
        described = next((one for one in attachments_of(opened.content) if one.number == number), None)
        if described is None:
            raise NotOpened(f"section {opened.section} has no attachment {number}")
        opener = AttachmentOpener(opened.secret, AttachmentContext(section, number), described.whole())
        for size_bytes in opener.sizes:
            write(opener.open(sealed.read(size_bytes)).reveal())
        if sealed.read(1):
            raise NotOpened("the attachment goes on after its end")
        opener.finish()
    except (CryptoError, SchemaError) as error:
        raise NotOpened(f"the attachment does not open: {error}") from None
    return described
