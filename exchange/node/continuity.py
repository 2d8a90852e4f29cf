"""Continuity: every checkpoint of a peer must extend the last one that was verified of it.

* A smaller checkpoint is accepted only where the larger one is shown to extend it.
* What the envelope's own consistency proof does not show is asked of the peer itself.
* A checkpoint that cannot be shown consistent is a fork: the peer is quarantined and the admins are told.
* Where replicas share the store, what the store holds is what counts: a checkpoint is kept only by who knows how it
  stands to the last one there. So two histories, each shown to another replica, meet.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.errors import ProofError
from exchange.crypto.merkle import verify_consistency
from exchange.node.errors import ForkDetected, HeadMoved, NotNow, ProofAwaited
from exchange.schema.wire import Consistency
from exchange.store.peers import keep_peer_head, peer_head
from exchange.store.transaction import Operation, Store, Transaction

#: Asks the peer for its consistency proof between two sizes.
FetchProof = Callable[[int, int], Awaitable[Sequence[bytes]]]

_MOST_REMEMBERED: Final = 256
#: How many may wait while a peer is asked for a proof. A node has two envelopes on their way; but anybody may pass on a
#: checkpoint, and while its signer does not answer, each of those waits with an envelope in memory.
_MOST_WAITING: Final = 8
#: How often in a row another checkpoint, or another replica, may have been quicker.
_MOST_TRIES: Final = 5


class Continuity:
    """What this node has verified of its peers' logs."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._known: dict[str, OrderedDict[int, bytes]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = {}

    async def held_size(self, origin: str) -> int:
        """The size of the peer's log that this node has verified."""
        if self._store.shared:
            await self._look_again(origin)
        return max(await self._of(origin), default=0)

    async def follow(
        self, checkpoint: Checkpoint, consistency: Consistency, fetch: FetchProof
    ) -> list[Operation[None]]:
        """Accept a verified checkpoint that is consistent with all that was accepted before.

        What is returned stores it; the caller runs that in the batch of what came with the checkpoint.

        Raises:
            ForkDetected: it is not.
            ProofAwaited: the peer had to be asked for a proof and did not answer.
            NotNow: too many wait for its answer.
        """
        origin = checkpoint.origin
        # What needs no question waits for nobody: else strangers could fill the places with what does.
        if not self._store.shared:
            known = await self._of(origin)
            if known.get(checkpoint.size) == checkpoint.root:
                return []
            if self._proves_itself(known, checkpoint, consistency):
                return self._accepted(checkpoint, consistency, fetch)
        if self._waiting.get(origin, 0) >= _MOST_WAITING:
            raise NotNow(f"too many wait for a proof of {origin}")
        self._waiting[origin] = self._waiting.get(origin, 0) + 1
        try:
            async with self._locks.setdefault(origin, asyncio.Lock()):
                try:
                    return await self._follow(checkpoint, consistency, fetch)
                except ForkDetected:
                    # An admin may have verified the peer anew, with its new log, at another replica.
                    if not self._store.shared or not await self._look_again(origin):
                        raise
                    return await self._follow(checkpoint, consistency, fetch)
        finally:
            self._waiting[origin] -= 1

    async def _follow(
        self, checkpoint: Checkpoint, consistency: Consistency, fetch: FetchProof, tries: int = _MOST_TRIES
    ) -> list[Operation[None]]:
        known = await self._of(checkpoint.origin)
        if self._store.shared and consistency.first not in known and await self._look_again(checkpoint.origin):
            known = self._known[checkpoint.origin]  # the peer heard that from another replica
        root = known.get(checkpoint.size)
        if root is not None:
            if root != checkpoint.root:
                detail = f"{checkpoint.origin} signed two different logs of {checkpoint.size} statements"
                raise ForkDetected(detail, checkpoint.text, checkpoint.signed_at_s)
            if not self._store.shared:
                return []
        elif known:
            held = max(known)
            await self._prove(known, checkpoint, consistency, fetch)
            now_known = await self._of(checkpoint.origin)
            if now_known.get(held) != known[held] or (checkpoint.size > held and max(now_known) != held):
                # People have verified the peer anew while it was asked; or another was accepted, which need not go on
                # from this one.
                if tries == 1:
                    raise NotNow(f"what is known of {checkpoint.origin} changes while it is asked")
                return await self._follow(checkpoint, consistency, fetch, tries - 1)
        return self._accepted(checkpoint, consistency, fetch)

    @staticmethod
    def _proves_itself(known: OrderedDict[int, bytes], checkpoint: Checkpoint, consistency: Consistency) -> bool:
        held = max(known, default=0)
        if not checkpoint.size > held == consistency.first > 0:
            return False
        try:
            verify_consistency(held, checkpoint.size, consistency.path, known[held], checkpoint.root)
        except ProofError:
            return False
        return True

    def _accepted(self, checkpoint: Checkpoint, consistency: Consistency, fetch: FetchProof) -> list[Operation[None]]:
        """Remember a checkpoint that is consistent with what is known, and return what stores it."""
        known = self._known[checkpoint.origin]
        known[checkpoint.size] = checkpoint.root
        while len(known) > _MOST_REMEMBERED:
            del known[min(known)]
        now_ms = self._now_ms()
        agreed = dict(known) if self._store.shared else None

        async def look_again() -> list[Operation[None]]:
            await self._look_again(checkpoint.origin)
            return await self.follow(checkpoint, consistency, fetch)

        async def operation(tx: Transaction) -> None:
            if agreed is not None:
                held = await peer_head(tx, checkpoint.origin)
                if held is not None and agreed.get(held.size) != held.root:
                    raise HeadMoved(f"another replica holds a checkpoint of {checkpoint.origin}", look_again)
            await keep_peer_head(tx, checkpoint.origin, checkpoint.size, checkpoint.root, checkpoint.text, now_ms)

        return [operation]

    async def keep(
        self, heads: Sequence[Operation[None]], checked: Callable[[Operation[None]], Operation[None]] | None = None
    ) -> None:
        """Store what `follow` returned, all of it at once; `checked` looks at the peer again in its transaction.

        Raises:
            ForkDetected: another replica has accepted a checkpoint meanwhile, and this one contradicts it.
            NotNow: another replica accepts one after the other, or the peer did not answer.
        """
        for attempt in range(_MOST_TRIES):
            if not heads:
                return
            together = _one_after_the_other(heads)
            try:
                await self._store.write(checked(together) if checked else together)
            except HeadMoved as moved:
                if attempt + 1 == _MOST_TRIES or moved.again is None:
                    raise
                heads = await moved.again()
            else:
                return

    async def _look_again(self, origin: str) -> bool:
        """Take the store's word for what is verified of a peer; whether that is news."""
        known = self._known.get(origin)
        head = await self._store.read(lambda tx: peer_head(tx, origin), brief=True)
        if known is not None and (not known if head is None else known.get(head.size) == head.root):
            return False
        self._known[origin] = OrderedDict() if head is None else OrderedDict({head.size: head.root})
        return True

    async def _of(self, origin: str) -> OrderedDict[int, bytes]:
        known = self._known.get(origin)
        if known is None:
            head = await self._store.read(lambda tx: peer_head(tx, origin), brief=True)
            known = self._known.setdefault(origin, OrderedDict())
            if head is not None:
                known.setdefault(head.size, head.root)
        return known

    async def _prove(
        self, known: OrderedDict[int, bytes], checkpoint: Checkpoint, consistency: Consistency, fetch: FetchProof
    ) -> None:
        held = max(known)
        first, second = sorted((held, checkpoint.size))
        roots = {held: known[held], checkpoint.size: checkpoint.root}
        if checkpoint.size > held == consistency.first:
            try:
                verify_consistency(first, second, consistency.path, roots[first], roots[second])
            except ProofError:
                pass  # what the peer itself answers decides
            else:
                return
        try:
            path = await fetch(first, second)
        except NotNow as error:
            raise ProofAwaited(str(error), held) from None
        try:
            verify_consistency(first, second, path, roots[first], roots[second])
        except ProofError:
            detail = f"{checkpoint.origin} cannot show that its log of {second} statements continues the one of {first}"
            raise ForkDetected(detail, checkpoint.text, checkpoint.signed_at_s) from None

    def forget(self, origin: str) -> None:
        """Forget a peer that was removed."""
        self._known.pop(origin, None)


def _one_after_the_other(heads: Sequence[Operation[None]]) -> Operation[None]:
    async def operation(tx: Transaction) -> None:
        for head in heads:
            await head(tx)

    return operation


class Shown:
    """What peers will hold of this node's log once what is on its way to them has arrived.

    Two envelopes go to a peer at the same time, and the second must continue the first. Where the first is lost, the
    peer asks for the proof that is missing.
    """

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, int]] = {}

    def base(self, origin: str, holds: int, size: int) -> int:
        """From where to prove a checkpoint of `size`: what the peer says it `holds`, or what was shown beyond that."""
        before, shown = self._latest.get(origin, (0, 0))
        return shown if before == holds and holds < shown < size else min(holds, size)

    def show(self, origin: str, holds: int, size: int) -> None:
        """A proof goes to a peer that says it `holds` a checkpoint, of one of `size`."""
        before, shown = self._latest.get(origin, (0, 0))
        self._latest[origin] = holds, max(shown, size) if before == holds else size
