"""Regrow a log that lost its end, from what others hold of it. Pure.

* Only what its own keys have signed is grown to: the hashes may come from anybody, and the root of a checkpoint decides
  whether they are true.
* A log is regrown whole, each leaf hash of it, or not at all. So it continues every checkpoint at which it arrives.
* Two checkpoints that no one log can hold are a contradiction, and nothing is regrown.

Source: docs/protocol.md, "Rejoining".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from exchange.crypto.errors import LogContradicted
from exchange.crypto.merkle import Frontier
from exchange.crypto.names import LeafHash


@dataclass(frozen=True, slots=True)
class Target:
    """A checkpoint of the log that verified under its own keys: somebody, `by`, has seen it."""

    by: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What one other node gave: leaf hashes by position, which are true only if they lead to a root."""

    by: str
    leaves: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Regrown:
    """The leaf hashes that follow on the base, and the targets that lie beyond what could be regrown."""

    leaves: tuple[LeafHash, ...]
    beyond: tuple[Target, ...]


def regrow(base: Frontier, targets: Iterable[Target], proven: Mapping[int, bytes], held: Sequence[Held]) -> Regrown:
    """Follow on `base` as far as the targets allow, all of which are at least as large as it.

    `proven` are leaf hashes that verified proofs of the log's own keys have shown.

    Raises:
        LogContradicted: two targets, or a target and the base, are of two logs.
    """
    wanted = sorted(set(targets), key=lambda target: (target.size, target.by))
    tip, grown, reached = base, list[LeafHash](), None
    while (found := _further(tip, [target for target in wanted if target.size > tip.size], proven, held)) is not None:
        reached, leaves, tip = found
        grown += leaves
    left = [target for target in wanted if target.size > tip.size]
    _check(base, grown, reached, [target for target in wanted if target.size <= tip.size])
    _look_aside(base, grown, reached, left, proven, held)
    return Regrown(tuple(grown), tuple(left))


def _further(
    tip: Frontier, left: Sequence[Target], proven: Mapping[int, bytes], held: Sequence[Held]
) -> tuple[Target, tuple[LeafHash, ...], Frontier] | None:
    """The nearest target that can be reached from the tree as it is grown, the leaves that lead there, and the tree."""
    for target in left:
        for leaves in _ways(tip.size, target.size, proven, held):
            tree, _ = tip.append(leaves)
            if tree.root() == target.root:
                return target, leaves, tree
    return None


def _ways(start: int, size: int, proven: Mapping[int, bytes], held: Sequence[Held]) -> Iterator[tuple[LeafHash, ...]]:
    """The ways in which the leaves up to `size` can be put together: what is proven, then one holder, then the rest."""
    tried: set[tuple[bytes, ...]] = set()
    for number in range(max(len(held), 1)):
        order = [proven, *(one.leaves for one in (*held[number:], *held[:number]))]
        leaves = tuple(next((source[at] for source in order if at in source), b"") for at in range(start, size))
        if all(leaves) and leaves not in tried:
            tried.add(leaves)
            yield tuple(map(LeafHash, leaves))


def _check(base: Frontier, grown: Sequence[LeafHash], reached: Target | None, targets: Sequence[Target]) -> None:
    """Check that the log that is grown holds the trees of all `targets`."""
    if not targets:
        return
    roots, tree = {base.size: base.root()}, base
    sizes = {target.size for target in targets}
    for leaf in grown:
        tree, _ = tree.append([leaf])
        if tree.size in sizes:
            roots[tree.size] = tree.root()
    for target in targets:
        if roots[target.size] != target.root:
            other = f"what {reached.by} has seen" if reached else "this store"
            raise LogContradicted(f"{target.by} has seen a log of {target.size} statements that is not that of {other}")


def _look_aside(
    base: Frontier,
    grown: Sequence[LeafHash],
    reached: Target | None,
    left: Sequence[Target],
    proven: Mapping[int, bytes],
    held: Sequence[Held],
) -> None:
    """Check that no target that was not reached is shown by its own holder to leave the log that is grown."""
    for target in left:
        for leaves in _ways(base.size, target.size, proven, held):
            if leaves[: len(grown)] != tuple(grown) and base.append(leaves)[0].root() == target.root:
                other = reached.by if reached else "this store"
                raise LogContradicted(f"{target.by} and {other} have seen two logs in this node's name")
