"""From where a node proves its own log to a peer, while what it showed before is still on its way."""

from hypothesis import given
from hypothesis import strategies as st

from exchange.node.continuity import Shown

CAMDEN, BRENT = "exchange.camden.example", "exchange.brent.example"
SIZES = st.integers(0, 20)


def test_the_first_proof_begins_at_what_the_peer_holds() -> None:
    assert Shown().base(CAMDEN, 5, 9) == 5


def test_a_second_proof_continues_the_one_that_is_on_its_way() -> None:
    shown = Shown()
    shown.show(CAMDEN, 5, 9)
    assert shown.base(CAMDEN, 5, 12) == 9


def test_each_peer_has_its_own() -> None:
    shown = Shown()
    shown.show(CAMDEN, 5, 9)
    assert shown.base(BRENT, 5, 12) == 5


def test_what_the_peer_says_that_it_holds_takes_the_place_of_what_was_shown() -> None:
    shown = Shown()
    shown.show(CAMDEN, 5, 9)
    assert shown.base(CAMDEN, 9, 12) == 9
    assert shown.base(CAMDEN, 3, 12) == 3, "the peer was restored from a backup"


def test_an_older_proof_that_goes_later_does_not_take_back_a_newer_one() -> None:
    shown = Shown()
    shown.show(CAMDEN, 5, 12)
    shown.show(CAMDEN, 5, 9)
    assert shown.base(CAMDEN, 5, 15) == 12


def test_a_checkpoint_older_than_what_was_shown_is_proven_from_what_the_peer_holds() -> None:
    shown = Shown()
    shown.show(CAMDEN, 5, 12)
    assert shown.base(CAMDEN, 5, 9) == 5


@given(st.lists(st.tuples(SIZES, SIZES)), SIZES, SIZES)
def test_a_proof_never_begins_after_its_end_nor_before_what_the_peer_holds(
    before: list[tuple[int, int]], holds: int, size: int
) -> None:
    shown = Shown()
    for earlier in before:
        shown.show(CAMDEN, *earlier)
    assert min(holds, size) <= shown.base(CAMDEN, holds, size) <= size
