"""What a node says of its own identity: that it passed on to new keys, or that it is not to be trusted any more.

Invariants:

* The checkpoint over a rotation bears the signatures of the old keys and of the new: one proof verifies under both.
* A revocation is signed long before it is needed and kept offline. Its nonce, which the node then forgets, keeps
  whoever has the log from making it again.

Source: docs/protocol.md, "Identity".
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.schema.wire import HashBytes, Moment, OriginText, VersionOne, Wire, check_times

ROTATION: Final = "rotation"
REVOCATION: Final = "revocation"

Vkeys = Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(min_length=2, max_length=2)]


class Rotation(Wire, frozen=True):
    """The body of a `rotation`: the identity of `old` is from now on that of `new` (vkeys, Ed25519 first)."""

    version: VersionOne
    origin: OriginText
    old: Vkeys
    new: Vkeys
    at: Moment

    def __post_init__(self) -> None:
        check_times(self.at)


class Revocation(Wire, frozen=True):
    """The body of a `revocation`: nothing signed by `signing_keys` (vkeys, Ed25519 first) is to be believed."""

    version: VersionOne
    origin: OriginText
    signing_keys: Vkeys
    prepared_at: Moment
    nonce: HashBytes

    def __post_init__(self) -> None:
        check_times(self.prepared_at)


rotation_decoder = msgspec.msgpack.Decoder(Rotation)
revocation_decoder = msgspec.msgpack.Decoder(Revocation)
