"""The Merkle tree of RFC 6962 section 2.1, written from its definition: slow, short, and of no use to the node."""

import hashlib
from collections.abc import Iterator, Sequence


class Tree:
    """The tree over leaf hashes; roots of complete subtrees are remembered."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def root(self, size: int) -> bytes:
        """The root of the first `size` leaves."""
        return self._hash(0, size) if size else hashlib.sha256(b"").digest()

    def complete(self) -> Iterator[tuple[int, int, bytes]]:
        """Level, place in it and hash of every complete subtree, the leaves included."""
        level = 0
        while (width := 1 << level) <= len(self._leaves):
            for place in range(len(self._leaves) // width):
                yield level, place, self._hash(place * width, width)
            level += 1

    def _hash(self, start: int, count: int) -> bytes:
        if count == 1:
            return self._leaves[start]
        if (start, count) not in self._known:
            split = 1 << (count - 1).bit_length() - 1
            left, right = self._hash(start, split), self._hash(start + split, count - split)
            self._known[start, count] = hashlib.sha256(b"\x01" + left + right).digest()
        return self._known[start, count]
