"""Split a key among people so that any k of n have it and fewer have nothing (Shamir; SLIP-39 for the words).

* A share is 33 words. Its checksum finds up to three wrong words; its first words say which set it is of.
* The joined key carries a digest of its own: shares that do not belong together are found.

Source: SLIP-39 (satoshilabs/slips), one group, no passphrase, extendable, the least iteration exponent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shamir_mnemonic import MnemonicError, Share, generate_mnemonics
from shamir_mnemonic import combine_mnemonics as _combine

from exchange.crypto.errors import ShareError
from exchange.crypto.rest import FileKey
from exchange.crypto.secret import Secret

MOST_SHARES: Final = 16
_KEY_BYTES: Final = 32
_WORDS: Final = 33


@dataclass(frozen=True, slots=True)
class KeyShare:
    """One share: of which set, the how manieth, and how many are needed."""

    set_id: int
    index: int
    threshold: int
    words: str

    def __repr__(self) -> str:
        return f"KeyShare({self.set_id}, {self.index}, {self.threshold})"


def split_key(key: Secret, threshold: int, count: int) -> tuple[KeyShare, ...]:
    """Split 32 bytes into `count` shares, any `threshold` of which have them; one of one is the key itself.

    Raises:
        ShareError: that cannot be.
    """
    if not 1 <= threshold <= count <= MOST_SHARES or (threshold == 1 < count):
        raise ShareError(
            f"{threshold} of {count}: take 2 to {MOST_SHARES} shares, of which 2 or more are needed, or 1/1"
        )
    ((*mnemonics,),) = generate_mnemonics(1, [(threshold, count)], key.reveal(), iteration_exponent=0)
    return tuple(parse_share(words) for words in mnemonics)


def parse_share(text: str) -> KeyShare:
    """Read the words of a share; lines that begin with # say nothing.

    Raises:
        ShareError: they are none. The message holds none of them.
    """
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    words = " ".join(lines).lower().split()
    if len(words) != _WORDS:
        raise ShareError(f"a share has {_WORDS} words, and these are {len(words)}")
    try:
        share = Share.from_mnemonic(" ".join(words))
    except MnemonicError:
        # Its message quotes the words.
        raise ShareError("these words are not a share: one of them is wrong, missing or out of order") from None
    shape = (share.group_count, share.group_threshold, len(share.value), share.iteration_exponent, share.extendable)
    # The exponent also bounds what joining costs: a hostile share could ask for a third of a thousand million hashes.
    if shape != (1, 1, _KEY_BYTES, 0, True):
        raise ShareError("these words are a share of something else")
    return KeyShare(share.identifier, share.index, share.member_threshold, " ".join(words))


def join_shares(shares: Iterable[KeyShare]) -> FileKey:
    """The key that was split; more shares than are needed do no harm.

    Raises:
        ShareError: they are too few, or do not belong together.
    """
    by_index = {share.index: share for share in shares}
    held = sorted(by_index.values(), key=lambda share: share.index)
    if not held:
        raise ShareError("no share was given")
    if len({(share.set_id, share.threshold) for share in held}) != 1:
        raise ShareError("these shares are not all of one set")
    needed = held[0].threshold
    if len(held) < needed:
        raise ShareError(f"{needed} shares are needed, and these are {len(held)}")
    try:
        return FileKey(_combine([share.words for share in held[:needed]]))
    except MnemonicError:
        raise ShareError("these shares do not belong together") from None
