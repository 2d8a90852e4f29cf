"""Attachments: one file, sealed chunk by chunk to the readers of its section, in constant memory.

* The key comes from the section's secret, so whoever reads the section reads its attachments, and nobody else does.
* Each chunk is bound to message, boroughs, section, attachment and place; only the last says that it is the last.
  What is cut off, put together, moved, or ends early does not open.
* The length is a PADMÉ length, filled with zeros: the size says little.
* The chunks are leaves of a tree, so each is checked when it arrives and none is taken that will not open.
* What the section says of the file (size, SHA-256, root) is recomputed: before `finish` returns, nothing is proven.

Source: docs/protocol.md, "Attachments".
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_ABYTES,
    crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
)
from nacl.bindings import crypto_secretstream_xchacha20poly1305_TAG_FINAL as _LAST
from nacl.bindings import crypto_secretstream_xchacha20poly1305_TAG_MESSAGE as _MESSAGE

from exchange.crypto.errors import AttachmentError, ProofError
from exchange.crypto.merkle import Frontier, NodeId, inclusion_path, verify_inclusion
from exchange.crypto.names import LeafHash, context
from exchange.crypto.padding import padme
from exchange.crypto.secret import Plaintext, Secret
from exchange.crypto.section import SectionContext

CHUNK_BYTES: Final = 1024 * 1024
MOST_BYTES: Final = 2 * 1024 * 1024 * 1024
MINIMUM_BYTES: Final = 65_536
#: Of one section.
MOST_OF_A_SECTION: Final = 99
HEADER_BYTES: Final = crypto_secretstream_xchacha20poly1305_HEADERBYTES
_TAG_BYTES: Final = crypto_secretstream_xchacha20poly1305_ABYTES
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + _TAG_BYTES
MOST_CHUNK_BYTES: Final = HEADER_BYTES + SEALED_CHUNK_BYTES
MOST_CHUNKS: Final = MOST_BYTES // CHUNK_BYTES
MOST_SEALED_BYTES: Final = MOST_BYTES + HEADER_BYTES + MOST_CHUNKS * _TAG_BYTES


class AttachmentContext(NamedTuple):
    """What an attachment is bound to: its section, and its number there, from 1."""

    section: SectionContext
    number: int

    def _names(self) -> tuple[bytes, ...]:
        message_id, sender, recipient, name = self.section
        return (message_id.encode(), sender.encode(), recipient.encode(), name.encode(), self.number.to_bytes(4, "big"))

    def key(self, secret: Secret) -> bytes:
        """The key, from the section's secret."""
        return HKDF(SHA256(), 32, None, context("attachment-key", *self._names())).derive(secret.reveal())

    def associated_data(self, index: int) -> bytes:
        """What the chunk of an index is bound to."""
        return context("attachment", *self._names(), index.to_bytes(4, "big"))


class Whole(NamedTuple):
    """What a section says of a file that is attached to it."""

    size_bytes: int
    sha256: bytes
    root: bytes


def padded_bytes(size_bytes: int) -> int:
    """The length to which a file is padded."""
    return padme(max(size_bytes, MINIMUM_BYTES))


def sealed_bytes(size_bytes: int) -> int:
    """How large a sealed file is, header and tags and padding and all."""
    padded = padded_bytes(size_bytes)
    return HEADER_BYTES + padded + -(-padded // CHUNK_BYTES) * _TAG_BYTES


def chunk_sizes(size_bytes: int) -> list[int]:
    """The sizes of the chunks of `size_bytes` sealed bytes; the header stands before the first.

    Raises:
        AttachmentError: no file makes as many: sizes that say more than they must are refused.
    """
    count = -(-(size_bytes - HEADER_BYTES) // SEALED_CHUNK_BYTES)
    padded = size_bytes - HEADER_BYTES - count * _TAG_BYTES
    if not MINIMUM_BYTES <= padded <= MOST_BYTES or padme(padded) != padded:
        raise AttachmentError("no attachment has that size")
    sizes = [SEALED_CHUNK_BYTES] * (count - 1) + [padded - (count - 1) * CHUNK_BYTES + _TAG_BYTES]
    sizes[0] += HEADER_BYTES
    return sizes


def chunk_hash(chunk: bytes) -> LeafHash:
    """The hash of a sealed chunk: a leaf's, as in RFC 6962."""
    digest = hashlib.sha256(b"\x00")
    digest.update(chunk)
    return LeafHash(digest.digest())


class ChunkTree:
    """The tree over the hashes of all chunks: its root, and the path of each."""

    def __init__(self, hashes: Sequence[LeafHash]) -> None:
        frontier, nodes = Frontier(0, ()).append(hashes)
        self.root = frontier.root()
        self._size = frontier.size
        self._nodes: dict[NodeId, bytes] = dict(nodes)

    def path(self, index: int) -> tuple[bytes, ...]:
        """What proves the chunk of an index."""
        return tuple(inclusion_path(index, self._size, self._nodes))


def verify_chunk(chunk: bytes, index: int, sizes: Sequence[int], path: Sequence[bytes], root: bytes) -> LeafHash:
    """Check that a chunk is the one at `index` of the tree; returns its hash.

    Raises:
        AttachmentError: it is not.
    """
    if not 0 <= index < len(sizes) or len(chunk) != sizes[index]:
        raise AttachmentError("the attachment has no such chunk")
    leaf = chunk_hash(chunk)
    try:
        verify_inclusion(leaf, index, len(sizes), path, root)
    except ProofError:
        raise AttachmentError("the chunk is not the one of that place") from None
    return leaf


class AttachmentSealer:
    """Seals one file; the size need not be known before its end."""

    def __init__(self, secret: Secret, bound_to: AttachmentContext) -> None:
        self._bound_to = bound_to
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._before = crypto_secretstream_xchacha20poly1305_init_push(self._state, bound_to.key(secret))
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self._hashes: list[LeafHash] = []
        self.size_bytes = 0

    def update(self, data: bytes) -> Iterator[bytes]:
        """The chunks that are full with `data`; a chunk that may be the last waits.

        Raises:
            AttachmentError: that is more than 2 GiB.
        """
        self.size_bytes += len(data)
        if self.size_bytes > MOST_BYTES:
            raise AttachmentError("an attachment is 2 GiB at most")
        self._digest.update(data)
        yield from self._fill(data)

    def finish(self) -> Iterator[bytes]:
        """The chunks that are left; after them `whole` says what was sealed."""
        left = padded_bytes(self.size_bytes) - self.size_bytes
        while left:
            zeros = bytes(min(left, CHUNK_BYTES))
            left -= len(zeros)
            yield from self._fill(zeros)
        yield self._seal(bytes(self._waiting), last=True)

    def whole(self) -> Whole:
        """What the section must say of the file."""
        return Whole(self.size_bytes, self._digest.digest(), ChunkTree(self._hashes).root)

    def _fill(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), CHUNK_BYTES):
            self._waiting += data[start : start + CHUNK_BYTES]
            if len(self._waiting) > CHUNK_BYTES:
                full = bytes(self._waiting[:CHUNK_BYTES])
                del self._waiting[:CHUNK_BYTES]
                yield self._seal(full, last=False)

    def _seal(self, chunk: bytes, *, last: bool) -> bytes:
        bound = self._bound_to.associated_data(len(self._hashes))
        sealed = crypto_secretstream_xchacha20poly1305_push(self._state, chunk, bound, _LAST if last else _MESSAGE)
        sealed, self._before = self._before + sealed, b""
        self._hashes.append(chunk_hash(sealed))
        return sealed


class AttachmentOpener:
    """Opens one file, chunk by chunk, and checks that it is what the section says."""

    def __init__(self, secret: Secret, bound_to: AttachmentContext, whole: Whole) -> None:
        """Begin.

        Raises:
            AttachmentError: the section speaks of a file that cannot be.
        """
        if not 0 <= whole.size_bytes <= MOST_BYTES:
            raise AttachmentError("the section speaks of a file that cannot be")
        self._key = bound_to.key(secret)
        self._bound_to = bound_to
        self._whole = whole
        self.sizes = chunk_sizes(sealed_bytes(whole.size_bytes))
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._digest = hashlib.sha256()
        self._hashes: list[LeafHash] = []
        self._left = whole.size_bytes

    def open(self, chunk: bytes) -> Plaintext:
        """What is in the next chunk; the padding is not.

        Raises:
            AttachmentError: it is not that chunk of that file.
        """
        index = len(self._hashes)
        if index >= len(self.sizes) or len(chunk) != self.sizes[index]:
            raise AttachmentError("the attachment is longer or shorter than its section says")
        self._hashes.append(chunk_hash(chunk))
        try:
            if index == 0:
                crypto_secretstream_xchacha20poly1305_init_pull(self._state, chunk[:HEADER_BYTES], self._key)
                chunk = chunk[HEADER_BYTES:]
            bound = self._bound_to.associated_data(index)
            data, tag = crypto_secretstream_xchacha20poly1305_pull(self._state, chunk, bound)
        except (RuntimeError, ValueError):
            raise AttachmentError("the attachment does not open under this section's secret") from None
        if (tag == _LAST) is not (index == len(self.sizes) - 1):
            raise AttachmentError("the attachment ends at another place than its section says")
        data, padding = data[: self._left], data[self._left :]
        if padding.count(0) != len(padding):
            raise AttachmentError("the attachment's padding is not the canonical one")
        self._left -= len(data)
        self._digest.update(data)
        return Plaintext(data)

    def finish(self) -> None:
        """Check that this was all of it.

        Raises:
            AttachmentError: it was not, or it is another file than the section speaks of.
        """
        if len(self._hashes) != len(self.sizes):
            raise AttachmentError("the attachment is not whole")
        same = hmac.compare_digest(self._digest.digest(), self._whole.sha256)
        if not same or not hmac.compare_digest(ChunkTree(self._hashes).root, self._whole.root):
            raise AttachmentError("the attachment is another file than its section speaks of")
