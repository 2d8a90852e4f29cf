"""Whatever others hold of a log, what is regrown is that log or nothing."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import LogContradicted
from exchange.crypto.merkle import Frontier
from exchange.crypto.names import LeafHash
from exchange.crypto.regrowth import Held, Regrown, Target, regrow

EMPTY = Frontier(0, ())


def leaf(log: str, position: int) -> LeafHash:
    return LeafHash(hashlib.sha256(f"{log} {position}".encode()).digest())


def log_of(size: int, name: str = "true") -> list[LeafHash]:
    return [leaf(name, position) for position in range(size)]


def tree(leaves: list[LeafHash]) -> Frontier:
    return EMPTY.append(leaves)[0]


def target(leaves: list[LeafHash], size: int, by: str) -> Target:
    return Target(by, size, tree(leaves[:size]).root())


@dataclass(frozen=True)
class Case:
    """A log, how much of it is left, and what peers hold; those of `liars` are of no log."""

    log: list[LeafHash]
    base: int
    targets: list[Target]
    proven: dict[int, bytes]
    held: list[Held]
    liars: list[Held]

    def regrow(self) -> Regrown:
        return regrow(tree(self.log[: self.base]), self.targets, self.proven, [*self.liars, *self.held])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 24))
    log, base = log_of(size), draw(st.integers(0, size))
    positions = st.sets(st.integers(base, size)).map(lambda some: [at for at in some if at < size])
    targets, held = [], []
    for number in range(draw(st.integers(0, 4))):
        targets.append(target(log, draw(st.integers(max(base, 1), size)), f"peer {number}"))
        held.append(Held(f"peer {number}", {at: log[at] for at in draw(positions)}))
    liars = [Held("liar", {at: leaf("false", at) for at in draw(positions)}) for _ in range(draw(st.integers(0, 1)))]
    return Case(log, base, targets, {at: log[at] for at in draw(positions)}, held, liars)


@given(cases())
def test_what_is_regrown_is_the_log_itself_and_continues_every_target_that_it_does_not_report(case: Case) -> None:
    regrown = case.regrow()
    size = case.base + len(regrown.leaves)
    assert list(regrown.leaves) == case.log[case.base : size]
    assert {one for one in case.targets if one.size > size} == set(regrown.beyond)
    assert not regrown.leaves or size in {one.size for one in case.targets}


@given(cases())
def test_what_one_peer_holds_whole_is_regrown_whatever_the_others_say(case: Case) -> None:
    largest = max((one.size for one in case.targets), default=case.base)
    whole = Held("whole", {at: case.log[at] for at in range(case.base, largest)})
    regrown = regrow(tree(case.log[: case.base]), case.targets, case.proven, [*case.liars, *case.held, whole])
    assert case.base + len(regrown.leaves) == max(largest, case.base)
    assert regrown.beyond == ()


@given(cases())
def test_what_honest_peers_hold_together_is_regrown(case: Case) -> None:
    known = {**case.proven}
    for one in case.held:
        known |= one.leaves
    wanted = case.base
    for one in sorted(case.targets, key=lambda one: one.size):
        if all(at in known for at in range(wanted, one.size)):
            wanted = max(wanted, one.size)
    regrown = regrow(tree(case.log[: case.base]), case.targets, case.proven, case.held)
    assert case.base + len(regrown.leaves) == wanted


@given(st.integers(0, 12), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_two_logs_are_never_taken_for_one(base: int, more: int, other: int, swapped: bool) -> None:
    common = log_of(base)
    first, second = common + log_of(more, "here"), common + log_of(other, "there")
    told = [(first, "enfield"), (second, "camden")]
    if swapped:
        told.reverse()
    targets = [target(leaves, len(leaves), by) for leaves, by in told]
    held = [Held(by, dict(enumerate(leaves))) for leaves, by in told]
    with pytest.raises(LogContradicted):
        regrow(tree(common), targets, {}, held)


@given(st.integers(0, 12), st.integers(1, 8), st.integers(1, 8))
def test_a_second_log_that_nobody_can_show_is_reported_and_not_followed(base: int, more: int, other: int) -> None:
    common = log_of(base)
    first, second = common + log_of(more, "here"), common + log_of(more + other, "there")
    targets = [target(first, len(first), "enfield"), target(second, len(second), "camden")]
    regrown = regrow(tree(common), targets, {}, [Held("enfield", dict(enumerate(first)))])
    assert list(regrown.leaves) == first[base:]
    assert [one.by for one in regrown.beyond] == ["camden"]


def test_a_target_of_the_same_size_and_another_root_contradicts_the_store() -> None:
    with pytest.raises(LogContradicted, match="enfield has seen a log of 3 statements that is not that of this store"):
        regrow(tree(log_of(3)), [target(log_of(3, "other"), 3, "enfield")], {}, [])


def test_nothing_to_regrow_is_regrown_to_nothing() -> None:
    held: Mapping[int, bytes] = {}
    assert regrow(tree(log_of(3)), [target(log_of(3), 3, "enfield")], {}, [Held("enfield", held)]) == Regrown((), ())
