"""What is kept of a peer's log that forked, so that people can be shown it."""

from dataclasses import dataclass
from typing import Any

import msgspec

from exchange.crypto.errors import CryptoError
from exchange.crypto.names import context
from exchange.crypto.note import decode_base64, parse_note
from exchange.crypto.rest import open_at_rest, seal_at_rest
from exchange.node.services import Services, moment
from exchange.schema.wire import encode_wire
from exchange.store.messages import add_alarm, alarms_about
from exchange.store.peers import PeerRow, peer_head
from exchange.store.transaction import Transaction

FORK = "fork"
_CONTEXT = context("evidence")


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an alarm keeps, sealed.

    `held` is the checkpoint that was verified before and `checkpoint` the one that contradicts it, both signed notes;
    `shown` is what the latter came with, opened, since sealing keys do not last.
    """

    held: str
    checkpoint: str
    shown: bytes


@dataclass(frozen=True, slots=True)
class Fork:
    """A contradiction that was seen."""

    at_ms: int
    detail: str
    evidence: Evidence | None

    def describe(self) -> dict[str, Any]:
        """For a person or a script; without what the checkpoint came with."""
        document: dict[str, Any] = {"at": moment(self.at_ms), "detail": self.detail}
        if self.evidence is not None:
            document |= {"held": _claim(self.evidence.held), "shown": _claim(self.evidence.checkpoint)}
        return document


def _claim(checkpoint: str) -> dict[str, Any] | None:
    """What a checkpoint says that was verified when it was kept; None where there was none."""
    if not checkpoint:
        return None
    _, size, root, _ = parse_note(checkpoint)[0].split("\n")
    return {"size": int(size), "root": decode_base64(root).hex(), "checkpoint": checkpoint}


async def keep_fork(
    tx: Transaction, services: Services, origin: str, detail: str, checkpoint: str, shown: bytes
) -> None:
    """Raise the alarm, with what the peer showed and the checkpoint that this contradicts."""
    head = await peer_head(tx, origin)
    evidence = Evidence(held=head.checkpoint if head else "", checkpoint=checkpoint, shown=shown)
    sealed = seal_at_rest(services.keyring.store_key, _CONTEXT, encode_wire(evidence))
    await add_alarm(tx, FORK, origin, detail, services.now_ms(), sealed)


async def forks_of(tx: Transaction, services: Services, origin: str) -> list[Fork]:
    """What was seen of a peer, newest first."""
    return [
        Fork(at_ms, detail, _opened(services, sealed)) for at_ms, detail, sealed in await alarms_about(tx, FORK, origin)
    ]


async def explained_ms(tx: Transaction, row: PeerRow) -> int:
    """When admins verified a peer anew after its log forked; 0 where they did not.

    What its log signed before that contradicts the one that it keeps now, and people know why.
    """
    forks = await alarms_about(tx, FORK, row.origin)
    verified_at_ms = row.verified_at_ms or 0
    return verified_at_ms if forks and forks[0][0] <= verified_at_ms else 0


def _opened(services: Services, sealed: bytes | None) -> Evidence | None:
    if sealed is None:
        return None
    try:
        return msgspec.msgpack.decode(open_at_rest(services.keyring.store_key, _CONTEXT, sealed), type=Evidence)
    except (CryptoError, msgspec.MsgspecError):
        return None  # the alarm itself says enough to act on
