"""The chain of wrapping keys: the same forwards on every machine, and shut behind itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.chain import WrappingChain
from exchange.crypto.errors import ChainError

CHAIN = WrappingChain.begin()


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(0, 30))
def test_the_key_of_an_epoch_is_the_same_however_the_chain_got_near_it(steps: list[int], more: int) -> None:
    chain = CHAIN
    for step in steps:
        chain = WrappingChain.parse(chain.advance(chain.epoch + step).encode())
    epoch = sum(steps) + more
    assert chain.epoch == sum(steps)
    assert chain.wrapping_key(epoch) == CHAIN.wrapping_key(epoch)


def test_no_two_epochs_have_a_key_in_common_with_each_other_or_with_the_chain() -> None:
    keys = [CHAIN.wrapping_key(epoch).reveal() for epoch in range(50)]
    chains = [CHAIN.advance(epoch).encode()[8:] for epoch in range(50)]
    assert len({*keys, *chains}) == 100


@pytest.mark.parametrize("epoch", [0, 4, -1])
def test_an_epoch_behind_the_chain_is_out_of_reach(epoch: int) -> None:
    chain = CHAIN.advance(5)
    with pytest.raises(ChainError):
        chain.wrapping_key(epoch)
    with pytest.raises(ChainError):
        chain.advance(epoch)


def test_an_epoch_that_is_absurdly_far_ahead_costs_nothing() -> None:
    with pytest.raises(ChainError):
        CHAIN.wrapping_key(2**62)


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(39), bytes(41)])
def test_what_is_no_chain_is_refused(data: bytes) -> None:
    with pytest.raises(ChainError):
        WrappingChain.parse(data)


def test_two_chains_have_no_key_in_common() -> None:
    assert WrappingChain.begin().wrapping_key(0) != WrappingChain.begin().wrapping_key(0)


def test_a_chain_shows_no_key() -> None:
    assert CHAIN.encode()[8:].hex() not in repr(vars(CHAIN))
    assert repr(CHAIN.encode()[8:]) not in repr(vars(CHAIN))
