"""What a node that was restored asks its peers, and what they answer: what they hold of its log.

Source: docs/protocol.md, "Rejoining".
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.schema.wire import (
    CheckpointText,
    Consistency,
    Count,
    HashBytes,
    Moment,
    OriginText,
    ProvenStatement,
    VersionOne,
    Wire,
    check_times,
)

REJOIN: Final = "rejoin"
REJOIN_TYPE: Final = "application/vnd.exchange.rejoin"
MOST_ITEMS: Final = 65_536


class Ask(Wire, frozen=True):
    """The body of a `rejoin` statement: a node asks one peer, `recipient`, what it holds of its log.

    The node has the first `size` statements, holds the first `holds` of the peer's log, and knows nothing of what
    happened after `since`. The first `skip` items of the answer it has already. `answer` is the SHA-256 of the secret
    that seals the answer.
    """

    version: VersionOne
    origin: OriginText
    recipient: OriginText
    size: Count
    holds: Count
    since: Moment
    skip: Count
    at: Moment
    answer: HashBytes

    def __post_init__(self) -> None:
        check_times(self.since, self.at)


class RejoinRequest(Wire, frozen=True):
    """What is sealed to the peer: who asks, the `rejoin` statement, and the secret that seals the answer."""

    version: VersionOne
    sender: OriginText
    ask: ProvenStatement
    reply_secret: HashBytes


class Run(Wire, frozen=True):
    """Leaf hashes of the asking node's log that follow one another, joined."""

    first: Count
    hashes: Annotated[bytes, Meta(max_length=1024 * 1024)]


class RejoinAnswer(Wire, frozen=True):
    """What a peer holds of the asking node's log, in parts: `left` items come after these.

    `checkpoint` is the largest that it has verified. `yours` are statements of the asking node, and `mine` of the peer
    that belong to them, all proven against one checkpoint of its log.
    """

    version: VersionOne
    origin: OriginText
    left: Count
    consistency: Consistency
    checkpoint: CheckpointText | None = None
    leaves: Annotated[tuple[Run, ...], Meta(max_length=MOST_ITEMS)] = ()
    yours: Annotated[tuple[ProvenStatement, ...], Meta(max_length=MOST_ITEMS)] = ()
    mine: Annotated[tuple[ProvenStatement, ...], Meta(max_length=MOST_ITEMS)] = ()


ask_decoder = msgspec.msgpack.Decoder(Ask)
rejoin_request_decoder = msgspec.msgpack.Decoder(RejoinRequest)
rejoin_answer_decoder = msgspec.msgpack.Decoder(RejoinAnswer)
