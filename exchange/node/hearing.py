"""Whether a peer is still heard: checked again in the transaction that stores what came from it."""

from typing import TypeVar

from exchange.node.errors import Unacceptable
from exchange.store.peers import PeerRow, peer_standing
from exchange.store.transaction import Operation, Transaction
from exchange.store.trust import heirs, rotations_of

T = TypeVar("T")


async def still_heard(tx: Transaction, row: PeerRow) -> None:
    """Check again, in the transaction that stores what a peer sent, that the peer was not stopped in the meantime.

    Nor is it heard under the identity that it had, where people have verified another since.

    Raises:
        Unacceptable: it was, or they have.
    """
    standing = await peer_standing(tx, row.origin)
    state, fingerprint = standing or ("not registered any more", "")
    if state != "verified":
        raise Unacceptable(f"the peer is {state}")
    if fingerprint != row.fingerprint and fingerprint not in heirs(await rotations_of(tx, row.origin), row.fingerprint):
        raise Unacceptable("the peer has another identity by now")


def while_heard(row: PeerRow, operation: Operation[T]) -> Operation[T]:
    """An operation for what came from a peer: it is refused where the peer was stopped in the meantime."""

    async def checked(tx: Transaction) -> T:
        await still_heard(tx, row)
        return await operation(tx)

    return checked
