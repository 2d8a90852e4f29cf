"""Each node keeps the leaf hashes of its peers' logs, so that one that lost the end of its log gets it back from them.

* A node gives the hashes with its envelopes, from where the peer says that it keeps them, and the latest with receipts.
* A peer believes none that do not lead to the root of a checkpoint that it has verified.
* Nothing can be read in a hash of a statement, and who knows the statement has it from the node itself.
"""

from typing import Final

from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.errors import ProofError
from exchange.crypto.merkle import Frontier
from exchange.crypto.names import LeafHash
from exchange.schema.wire import MOST_LEAVES, Leaves
from exchange.store.log import frontier_at, leaf_hashes
from exchange.store.mirror import keep_leaves
from exchange.store.transaction import Operation, Transaction

LEAF_BYTES: Final = 32
#: A reply goes to whoever has shown a peer's public card: it must not be much larger than what was sent.
_MOST_IN_A_REPLY: Final = 128


class Mirroring:
    """Up to where each peer keeps the leaf hashes of this node's log, as it last said."""

    def __init__(self) -> None:
        self._keeps: dict[str, int] = {}

    def told(self, origin: str, keeps: int) -> None:
        """A peer said so in a reply, which nobody else could have sealed."""
        self._keeps[origin] = keeps

    async def with_envelope(self, tx: Transaction, origin: str, size: int) -> Leaves | None:
        """What to give a peer with a checkpoint of `size`; nothing before it has said what it keeps."""
        keeps = self._keeps.get(origin)
        return None if keeps is None else await _leaves(tx, max(keeps, size - MOST_LEAVES), size)

    async def with_reply(self, tx: Transaction, origin: str, size: int) -> Leaves | None:
        """What to give a peer with receipts whose checkpoint is of `size`: only where it is little."""
        keeps = self._keeps.get(origin)
        return None if keeps is None or size - keeps > _MOST_IN_A_REPLY else await _leaves(tx, keeps, size)


async def _leaves(tx: Transaction, first: int, size: int) -> Leaves | None:
    if first >= size:
        return None
    frontier = await frontier_at(tx, first)
    return Leaves(first=first, frontier=frontier.to_bytes(), hashes=await leaf_hashes(tx, first, size))


def keep_given(checkpoint: Checkpoint, leaves: Leaves | None) -> list[Operation[None]]:
    """What keeps the leaf hashes that came with a verified checkpoint, where they are those of its log."""
    if leaves is None or not leads_to(checkpoint, leaves):
        return []
    return [lambda tx: keep_leaves(tx, checkpoint.origin, leaves.first, leaves.hashes)]


def leads_to(checkpoint: Checkpoint, leaves: Leaves) -> bool:
    """Whether leaf hashes are those of a checkpoint's log: they and what is before them have its root."""
    hashes = split_leaves(leaves.hashes)
    if len(leaves.hashes) % LEAF_BYTES or leaves.first + len(hashes) != checkpoint.size:
        return False
    try:
        grown, _ = Frontier.from_bytes(leaves.first, leaves.frontier).append(hashes)
    except ProofError:
        return False
    return grown.root() == checkpoint.root


def split_leaves(hashes: bytes) -> list[LeafHash]:
    """Joined leaf hashes, one by one."""
    return [LeafHash(hashes[at : at + LEAF_BYTES]) for at in range(0, len(hashes), LEAF_BYTES)]
