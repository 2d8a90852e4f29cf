"""The Merkle tree of the log (RFC 6962 section 2.1; verification as in RFC 9162 sections 2.1.3.2 and 2.1.4.2).

* A complete subtree of 2^level leaves is a node that never changes: it is computed once and stored.
* Whatever else a proof needs lies on the right edge and is computed from complete nodes.
* A proof's hashes are 32 bytes each: `node_hash` joins its arguments, so other lengths would let a log that was
  rewritten pass for one that was extended.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from exchange.crypto.errors import ProofError
from exchange.crypto.names import LeafHash

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


class NodeId(NamedTuple):
    """The complete subtree over the leaves from `position << level` up to `(position + 1) << level`."""

    level: int
    position: int


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an interior node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _complete_nodes(start: int, end: int) -> list[NodeId]:
    """The largest complete subtrees that cover the leaves from `start` up to `end`; `start` is aligned to them."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append(NodeId(level, start >> level))
        start += 1 << level
    return nodes


def _fold(hashes: Sequence[bytes]) -> bytes:
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def frontier_ids(size: int) -> tuple[NodeId, ...]:
    """The largest complete subtrees of a tree of `size` leaves, left to right."""
    return tuple(_complete_nodes(0, size))


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree's right edge: all that is needed to append and to compute the root."""

    size: int
    hashes: tuple[bytes, ...]

    def root(self) -> bytes:
        """The root of the tree."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT

    def append(self, leaves: Iterable[LeafHash]) -> "tuple[Frontier, list[tuple[NodeId, bytes]]]":
        """The tree with `leaves` appended, and the nodes (leaves too) that became complete."""
        size, stack, new = self.size, list(self.hashes), []
        for leaf in leaves:
            value: bytes = leaf
            level, index = 0, size
            new.append((NodeId(0, index), value))
            while index & 1:
                value = node_hash(stack.pop(), value)
                level, index = level + 1, index >> 1
                new.append((NodeId(level, index), value))
            stack.append(value)
            size += 1
        return Frontier(size, tuple(stack)), new

    def to_bytes(self) -> bytes:
        """The hashes, joined."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> "Frontier":
        """The frontier of `size` leaves whose hashes, joined, are `data`.

        Raises:
            ProofError: the number of hashes does not fit the size.
        """
        if size < 0 or len(data) != 32 * size.bit_count():
            raise ProofError("a frontier does not fit its size")
        return cls(size, tuple(data[at : at + 32] for at in range(0, len(data), 32)))


def _siblings(index: int, size: int) -> list[list[NodeId]]:
    """The sibling subtrees on the way from the leaf to the root, each by the complete nodes that make it up."""
    siblings: list[list[NodeId]] = []
    level, position, last = 0, index, size - 1
    while last:
        sibling = position ^ 1
        if sibling < last:
            siblings.append([NodeId(level, sibling)])
        elif sibling == last:
            siblings.append(_complete_nodes(last << level, size))
        level, position, last = level + 1, position >> 1, last >> 1
    return siblings


def _consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """The leaf ranges of a consistency proof's hashes, in the proof's order (RFC 6962 section 2.1.2)."""
    ranges: list[tuple[int, int]] = []
    start, end, known = 0, second, True
    while first != end:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, known = middle, False
    if not known:
        ranges.append((start, end))
    return ranges[::-1]


def _needs(ranges: Iterable[tuple[int, int]]) -> frozenset[NodeId]:
    return frozenset(node for start, end in ranges for node in _complete_nodes(start, end))


def _path(ranges: Iterable[tuple[int, int]], nodes: Mapping[NodeId, bytes]) -> list[bytes]:
    return [_fold([nodes[node] for node in _complete_nodes(start, end)]) for start, end in ranges]


def inclusion_needs(index: int, size: int) -> frozenset[NodeId]:
    """The stored nodes that `inclusion_path` needs.

    Raises:
        ProofError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    return frozenset(itertools.chain.from_iterable(_siblings(index, size)))


def inclusion_path(index: int, size: int, nodes: Mapping[NodeId, bytes]) -> list[bytes]:
    """The audit path of a leaf, its sibling first (RFC 6962 section 2.1.1)."""
    return [_fold([nodes[node] for node in sibling]) for sibling in _siblings(index, size)]


def consistency_needs(first: int, second: int) -> frozenset[NodeId]:
    """The stored nodes that `consistency_path` needs.

    Raises:
        ProofError: not `0 < first <= second`.
    """
    if not 0 < first <= second:
        raise ProofError(f"there is no consistency proof from {first} to {second}")
    return _needs(_consistency_ranges(first, second))


def consistency_path(first: int, second: int, nodes: Mapping[NodeId, bytes]) -> list[bytes]:
    """The consistency proof between two sizes (RFC 6962 section 2.1.2)."""
    return _path(_consistency_ranges(first, second), nodes)


def verify_inclusion(leaf: LeafHash, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` stands at `index` in the tree of `size` leaves whose root is `root`.

    `path` holds 32-byte hashes, the leaf's sibling first (RFC 9162 section 2.1.3.2).

    Raises:
        ProofError: the path does not lead to `root`, or its length does not fit `index` and `size`.
    """
    if not 0 <= index < size:
        raise ProofError("the proof's index lies outside the tree")
    if any(len(sibling) != 32 for sibling in path):
        raise ProofError("a hash in the proof is not 32 bytes")
    position, last, value = index, size - 1, bytes(leaf)
    for sibling in path:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if position & 1 or position == last:
            value = node_hash(sibling, value)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or value != root:
        raise ProofError("the inclusion proof does not lead to the root")


def verify_consistency(first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes) -> None:
    """Check that the tree of `second` leaves begins with the tree of `first` (RFC 9162 section 2.1.4.2).

    Raises:
        ProofError: it does not, or the proof's length does not fit the sizes.
    """
    if not 0 <= first <= second:
        raise ProofError("a log does not shrink")
    if any(len(value) != 32 for value in path):
        raise ProofError("a hash in the proof is not 32 bytes")
    if first in (0, second):
        if path or (first == second and first_root != second_root) or (first == 0 and first_root != EMPTY_ROOT):
            raise ProofError("the two trees are not the same")
        return
    hashes = [first_root, *path] if first & (first - 1) == 0 else list(path)
    if not hashes:
        raise ProofError("the consistency proof is too short")
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = hashes[0]
    for value in hashes[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(value, old), node_hash(value, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, value)
        position, last = position >> 1, last >> 1
    if last != 0 or old != first_root or new != second_root:
        raise ProofError("the consistency proof does not lead to both roots")
