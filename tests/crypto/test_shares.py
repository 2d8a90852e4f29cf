"""Shares of a key: any k of n have it, fewer have nothing, and those of another set are found."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shamir_mnemonic import generate_mnemonics
from shamir_mnemonic.wordlist import WORDLIST

from exchange.crypto.errors import ShareError
from exchange.crypto.secret import Secret
from exchange.crypto.shares import KeyShare, join_shares, parse_share, split_key

KEY = bytes(range(32))
SHARES = split_key(Secret(KEY), 3, 5)
some = settings(deadline=None, max_examples=40)


@some
@given(st.binary(min_size=32, max_size=32), st.integers(2, 16), st.data())
def test_any_k_of_n_and_any_more_have_the_key_and_fewer_are_told_so(
    key: bytes, count: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(2, count))
    shares = split_key(Secret(key), threshold, count)
    held = data.draw(st.lists(st.sampled_from(shares), unique=True, max_size=count))
    if len(held) >= threshold:
        assert join_shares(held).reveal() == key
    else:
        with pytest.raises(ShareError):
            join_shares(held)


def test_one_of_one_is_a_key_on_paper() -> None:
    (share,) = split_key(Secret(KEY), 1, 1)
    assert join_shares([share]).reveal() == KEY


def test_fewer_shares_than_are_needed_are_counted_and_refused() -> None:
    assert len({share.words for share in SHARES}) == 5
    for pair in itertools.combinations(SHARES, 2):
        with pytest.raises(ShareError, match="3 shares are needed, and these are 2"):
            join_shares(pair)


def test_the_same_share_twice_is_one() -> None:
    with pytest.raises(ShareError, match="these are 2"):
        join_shares([SHARES[0], SHARES[0], SHARES[1]])


def test_shares_of_two_sets_are_not_joined() -> None:
    others = split_key(Secret(KEY), 3, 5)
    with pytest.raises(ShareError):
        join_shares([SHARES[0], SHARES[1], others[2]])


def test_shares_that_bear_one_name_and_do_not_belong_together_are_found() -> None:
    """Two sets of one identifier, as a liar among the holders could make."""
    others = split_key(Secret(bytes(32)), 3, 5)
    forged = KeyShare(SHARES[0].set_id, others[2].index, 3, others[2].words)
    with pytest.raises(ShareError):
        join_shares([SHARES[0], SHARES[1], forged])


@pytest.mark.parametrize(("threshold", "count"), [(0, 1), (1, 2), (3, 2), (2, 17), (17, 17), (-1, 3), (0, 0)])
def test_what_cannot_be_split_so_is_refused(threshold: int, count: int) -> None:
    with pytest.raises(ShareError):
        split_key(Secret(KEY), threshold, count)


@some
@given(st.sampled_from(SHARES), st.integers(0, 32), st.sampled_from(WORDLIST))
def test_a_wrong_word_is_found_and_not_repeated(share: KeyShare, at: int, word: str) -> None:
    words = share.words.split()
    assume(words[at] != word)
    words[at] = word
    with pytest.raises(ShareError, match="one of them is wrong") as refusal:
        parse_share(" ".join(words))
    assert str(refusal.value) == "these words are not a share: one of them is wrong, missing or out of order"


def test_words_may_be_spread_over_lines_with_remarks_and_in_capitals() -> None:
    words = SHARES[2].words.upper().split()
    text = (
        "# Share 3 of 5\n" + "\n".join(f"  {a}   {b} {c}" for a, b, c in zip(*[iter(words)] * 3, strict=True)) + "\n\n"
    )
    assert parse_share(text) == SHARES[2]


def test_a_share_is_not_printed_by_accident() -> None:
    assert SHARES[0].words.split()[5] not in repr(SHARES)


@pytest.mark.parametrize(
    "text", ["", "word", "word " * 33, "\x00" * 100, SHARES[0].words + " word", "# " + SHARES[0].words]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ShareError):
        parse_share(text)


@pytest.mark.parametrize(
    ("groups", "secret", "options"),
    [
        ([(2, 3)], bytes(32), {"iteration_exponent": 15}),
        ([(2, 3)], bytes(32), {"extendable": False}),
        ([(2, 3), (2, 3)], bytes(32), {}),
        ([(2, 3)], bytes(16), {}),
    ],
    ids=["a cost of minutes", "bound to an identifier", "two groups", "half a key"],
)
def test_a_share_of_another_shape_is_refused_before_it_costs_anything(
    groups: list[tuple[int, int]], secret: bytes, options: dict[str, int]
) -> None:
    if "iteration_exponent" in options:
        # To make one honestly would take as long as to join it: only what it says of itself is changed.
        from shamir_mnemonic import EncryptedMasterSecret, split_ems

        made = split_ems(1, groups, EncryptedMasterSecret(7, True, 15, secret))[0][0].mnemonic()
    else:
        made = generate_mnemonics(len(groups), groups, secret, **({"iteration_exponent": 0} | options))[0][0]  # type: ignore[arg-type]
    with pytest.raises(ShareError):
        parse_share(made)
