"""What is known after a run: the nodes' logs and tables, the calls that agencies got, and what people were told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Leaf:
    """An entry of a node's own log; a statement that was forgotten is empty."""

    position: int
    leaf_hash: bytes
    type: str
    statement: bytes


@dataclass(frozen=True)
class Message:
    """A row of `messages`."""

    origin: str
    message_id: str
    direction: str
    peer: str
    leaf_hash: bytes
    statement: bytes
    proof: str | None
    position: int | None
    received_position: int | None


@dataclass(frozen=True)
class HeldReceipt:
    """A row of `receipts`: of a peer, with its proof, or of the node's own log, at a position."""

    message_id: str
    rung: str
    leaf_hash: bytes
    statement: bytes
    proof: str | None
    position: int | None


@dataclass(frozen=True)
class Waiting:
    """A row of `outbox`; `message_id` is empty where it is of no message."""

    message_id: str
    lane: str
    kind: str
    state: str
    agency: str | None
    position: int | None
    reason: str | None


@dataclass(frozen=True)
class Given:
    """A row of `placements` at the receiver: which agency has a section for the readers of a kind."""

    message_id: str
    section: str
    kind: str
    agency: str | None


@dataclass(frozen=True)
class PeerView:
    """What a node keeps of a peer: its card, and the checkpoints of its log that it has verified."""

    origin: str
    card: bytes
    card_proof: str
    checkpoints: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """A node's store after the run."""

    origin: str
    leaves: tuple[Leaf, ...]
    head_size: int
    tree_nodes: Mapping[tuple[int, int], bytes]
    checkpoints: tuple[str, ...]
    messages: tuple[Message, ...] = ()
    receipts: tuple[HeldReceipt, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    waiting_forms: tuple[str, ...] = ()
    peers: tuple[PeerView, ...] = ()
    given: tuple[Given, ...] = ()


@dataclass(frozen=True)
class Call:
    """A webhook as an agency got it; `proven` where the public library verified it; `at_s` by the agency's clock."""

    at_s: float
    agency: str
    event_id: str
    body: bytes
    event: Mapping[str, Any]
    answer: int
    proven: bool

    @property
    def kind(self) -> str:
        """The kind of the agency: its name, without what tells it from others of the kind."""
        return self.agency.partition("/")[0]

    @property
    def accepted(self) -> bool:
        """Whether the agency took it."""
        return self.proven and 200 <= self.answer < 300


@dataclass(frozen=True)
class Exported:
    """A receipt that somebody exported during the run, and with it the keys of its signer."""

    origin: str
    statement: bytes
    proof: str


@dataclass(frozen=True)
class History:
    """A run."""

    nodes: Mapping[str, Node]
    calls: tuple[Call, ...] = ()
    #: Sender's origin and message id: a person was told that the form was taken.
    told: tuple[tuple[str, str], ...] = ()
    #: Origin and text of checkpoints that were seen from outside while the run went on.
    seen: tuple[tuple[str, str], ...] = ()
    exported: tuple[Exported, ...] = ()
    #: Receiver's origin, message id, section and rung: somebody was told that the word was taken.
    said: tuple[tuple[str, str, str, str], ...] = ()
    #: Which kinds of agency may read a part, by the part's name.
    readers: Mapping[str, frozenset[str]] | None = None
    #: Whether nodes and agencies share a clock, so that their times can be compared.
    one_clock: bool = True
    #: Whether everything had the time to arrive.
    settled: bool = True
