"""The tree, against RFC 6962's recursive definition and the well-known tree of eight leaves."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import ProofError
from exchange.crypto.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeId,
    consistency_needs,
    consistency_path,
    frontier_ids,
    inclusion_needs,
    inclusion_path,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from exchange.crypto.names import LeafHash
from exchange.crypto.statement import leaf_hash

MOST = 34
LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(MOST)]

# The inputs and roots that Certificate Transparency's implementations test with.
KNOWN_INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def mth(leaves: list[LeafHash]) -> bytes:
    """MTH of RFC 6962 section 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[LeafHash]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[LeafHash], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = _split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


ROOTS = [mth(LEAVES[:size]) for size in range(MOST + 1)]
FRONTIER, NEW = Frontier(0, ()).append(LEAVES)
NODES = dict(NEW)


@pytest.mark.parametrize(("size", "root"), list(enumerate(KNOWN_ROOTS, 1)))
def test_the_well_known_roots(size: int, root: str) -> None:
    frontier, _ = Frontier(0, ()).append(leaf_hash(bytes.fromhex(data)) for data in KNOWN_INPUTS[:size])

    assert frontier.root().hex() == root


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert Frontier(0, ()).root() == EMPTY_ROOT == ROOTS[0]


@given(st.lists(st.integers(0, 9), max_size=8))
def test_a_tree_does_not_depend_on_how_its_leaves_came(batches: list[int]) -> None:
    frontier, nodes, done = Frontier(0, ()), dict[NodeId, bytes](), 0
    for count in batches:
        frontier, new = frontier.append(LEAVES[done : done + count])
        nodes |= dict(new)
        done = min(done + count, MOST)
        frontier = Frontier.from_bytes(frontier.size, frontier.to_bytes())

    assert frontier.size == done
    assert frontier.root() == ROOTS[done]
    assert nodes == {node: value for node, value in NODES.items() if (node.position + 1) << node.level <= done}
    assert frontier.hashes == tuple(NODES[node] for node in frontier_ids(done))


@pytest.mark.parametrize(("size", "data"), [(1, b""), (0, bytes(32)), (3, bytes(32)), (1, bytes(31)), (-1, bytes(32))])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, data: bytes) -> None:
    with pytest.raises(ProofError):
        Frontier.from_bytes(size, data)


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_inclusion_paths_are_those_of_the_rfc_and_verify(size: int) -> None:
    for index in range(size):
        nodes = {node: NODES[node] for node in inclusion_needs(index, size)}
        found = inclusion_path(index, size, nodes)

        assert found == path(index, LEAVES[:size])
        verify_inclusion(LEAVES[index], index, size, found, ROOTS[size])


@pytest.mark.parametrize("second", range(1, MOST + 1))
def test_consistency_paths_are_those_of_the_rfc_and_verify(second: int) -> None:
    for first in range(1, second + 1):
        nodes = {node: NODES[node] for node in consistency_needs(first, second)}
        found = consistency_path(first, second, nodes)

        assert found == subproof(first, LEAVES[:second])
        verify_consistency(first, second, found, ROOTS[first], ROOTS[second])


# The size alone is not in the root: some proofs for one size also fit another size under the same root.
# What binds a root to its size is the checkpoint (test_proof.py), so here each size comes with its own root.
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 13, 16, 21])
def test_a_proof_verifies_at_no_other_index_or_size(size: int) -> None:
    for index in range(size):
        found = path(index, LEAVES[:size])
        for other_size in range(1, 24):
            for other in range(-1, other_size + 1):
                if (other, other_size) != (index, size):
                    with pytest.raises(ProofError):
                        verify_inclusion(LEAVES[index], other, other_size, found, ROOTS[other_size])


@given(st.integers(1, MOST), st.data())
def test_a_changed_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    found = path(index, LEAVES[:size])
    bad = [[*found, bytes(32)], [bytes(32), *found]]
    if found:
        at, bit = data.draw(st.integers(0, len(found) - 1)), data.draw(st.integers(0, 255))
        flipped = (int.from_bytes(found[at], "big") ^ 1 << bit).to_bytes(32, "big")
        bad += [found[:at] + found[at + 1 :], [*found[:at], flipped, *found[at + 1 :]]]

    for changed in bad:
        with pytest.raises(ProofError):
            verify_inclusion(LEAVES[index], index, size, changed, ROOTS[size])
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(b"another"), index, size, found, ROOTS[size])


@given(st.integers(1, MOST), st.data())
def test_a_changed_consistency_proof_is_refused(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    found = subproof(first, LEAVES[:second])
    bad = [[*found, bytes(32)], [bytes(32), *found]]
    if found:
        at, bit = data.draw(st.integers(0, len(found) - 1)), data.draw(st.integers(0, 255))
        flipped = (int.from_bytes(found[at], "big") ^ 1 << bit).to_bytes(32, "big")
        bad += [found[:at] + found[at + 1 :], [*found[:at], flipped, *found[at + 1 :]]]

    for changed in bad:
        with pytest.raises(ProofError):
            verify_consistency(first, second, changed, ROOTS[first], ROOTS[second])


@given(st.integers(1, MOST - 1), st.data())
def test_a_rewritten_log_has_no_consistency_proof(first: int, data: st.DataObject) -> None:
    second = data.draw(st.integers(first, MOST))
    rewritten = list(LEAVES[:second])
    rewritten[data.draw(st.integers(0, first - 1))] = leaf_hash(b"another")

    with pytest.raises(ProofError):
        verify_consistency(first, second, subproof(first, rewritten), ROOTS[first], mth(rewritten))


def test_a_border_shifted_between_two_hashes_does_not_hide_a_rewritten_leaf() -> None:
    # The old root is H(01 || left || leaf). Cut one byte earlier, the two still join to the same root, and a new
    # tree could be built over the shifted values, in which the last leaf is no longer there.
    left = node_hash(LEAVES[0], LEAVES[1])
    shifted, shifted_leaf = left[:31], left[31:] + LEAVES[2]
    forged = node_hash(shifted, node_hash(shifted_leaf, LEAVES[3]))

    with pytest.raises(ProofError, match="32 bytes"):
        verify_consistency(3, 4, [shifted_leaf, LEAVES[3], shifted], ROOTS[3], forged)
    with pytest.raises(ProofError, match="32 bytes"):
        verify_inclusion(LEAVES[0], 0, 2, [LEAVES[1] + b"\x00"], node_hash(LEAVES[0], LEAVES[1] + b"\x00"))


@pytest.mark.parametrize(
    ("first", "second", "proof", "first_root", "second_root"),
    [
        (5, 4, [], ROOTS[5], ROOTS[4]),
        (4, 4, [], ROOTS[4], ROOTS[5]),
        (4, 4, [ROOTS[1]], ROOTS[4], ROOTS[4]),
        (0, 4, [], ROOTS[1], ROOTS[4]),
        (0, 4, [ROOTS[1]], ROOTS[0], ROOTS[4]),
        (-1, 4, [], ROOTS[0], ROOTS[4]),
        (3, 4, [], ROOTS[3], ROOTS[4]),
        (4, 5, [], ROOTS[4], ROOTS[5]),
        (2, 7, [NODES[NodeId(1, 1)]], ROOTS[2], ROOTS[4]),
    ],
    ids=[
        "shrunk",
        "two-roots",
        "useless-path",
        "nothing-wrong",
        "nothing-path",
        "negative",
        "empty",
        "empty-power",
        "size-overstated",
    ],
)
def test_impossible_consistency_is_refused(
    first: int, second: int, proof: list[bytes], first_root: bytes, second_root: bytes
) -> None:
    with pytest.raises(ProofError):
        verify_consistency(first, second, proof, first_root, second_root)


def test_every_log_continues_nothing() -> None:
    verify_consistency(0, 7, [], EMPTY_ROOT, ROOTS[7])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_path_is_asked_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ProofError):
        inclusion_needs(index, size)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_no_path_is_asked_between_sizes_that_have_none(first: int, second: int) -> None:
    with pytest.raises(ProofError):
        consistency_needs(first, second)


@given(st.integers(1, 2**52), st.data())
def test_proofs_of_great_logs_need_few_nodes(size: int, data: st.DataObject) -> None:
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))

    for node in inclusion_needs(index, size) | consistency_needs(first, size):
        assert (node.position + 1) << node.level <= size
    assert len(inclusion_needs(index, size)) <= 2 * 52
    assert len(consistency_needs(first, size)) <= 2 * 52
