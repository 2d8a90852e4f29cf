"""Cards as files, and what one shows by itself: that whoever holds the keys in it has signed it. Pure.

* A card names the keys that prove it. Whether they are whose they say is for people, or for an earlier card, to tell.
* The rotations beside a card led to its keys, oldest first.

Source: docs/protocol.md, "Card".
"""

import functools
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.crypto.checkpoint import Checkpoint, CheckpointCache
from exchange.crypto.errors import CryptoError, SignatureError
from exchange.crypto.names import Origin, parse_origin
from exchange.crypto.note import VerifierKey, parse_vkey
from exchange.crypto.proof import verify_statement
from exchange.crypto.signing import fingerprint
from exchange.crypto.statement import parse_statement
from exchange.schema.errors import CardInvalid, SchemaError
from exchange.schema.wire import CARD, Card, CardSealingKey, ProvenStatement, card_decoder, decode_wire

#: Who has followed none of so many is to be verified anew.
MOST_ROTATIONS: Final = 16
#: A key that is this young may be in force by the clock of its node and not by ours.
_CLOCKS_DIFFER: Final = timedelta(minutes=5)


class CardFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A card as a file, or as `GET /v1/card` serves it: the statement in base64 and its tlog-proof.

    `rotations` are those that led to the keys in the card, oldest first.
    """

    statement: bytes
    proof: str
    rotations: Annotated[tuple[ProvenStatement, ...], Meta(max_length=MOST_ROTATIONS)] = ()


@dataclass(frozen=True, slots=True)
class VerifiedCard:
    """A card whose proof verifies under the keys that it names itself; whether to trust them is another matter."""

    card: Card
    keys: tuple[VerifierKey, VerifierKey]
    fingerprint: str
    checkpoint: Checkpoint
    statement: bytes
    proof: str
    rotations: tuple[ProvenStatement, ...] = ()


def card_file(file: CardFile) -> bytes:
    """The bytes of a card file."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def read_card_file(data: bytes) -> VerifiedCard:
    """Read and check a card file.

    Raises:
        CardInvalid: it is not a card, or its proof does not hold.
    """
    try:
        file = msgspec.json.decode(data, type=CardFile)
    except (msgspec.DecodeError, ValueError):
        raise CardInvalid("that is not a card file") from None
    return replace(check_card(file.statement, file.proof), rotations=file.rotations)


def check_card(statement: bytes, proof: str, cache: CheckpointCache | None = None) -> VerifiedCard:
    """Check a card against the keys that it names.

    Raises:
        CardInvalid: it is not a card, or its proof does not hold.
    """
    try:
        # The keys are inside: the body is read to find them, and believed only once the proof has verified.
        card = decode_wire(card_decoder, parse_statement(statement).body)
        origin = parse_origin(card.origin)
        keys = card_keys(card)
        if any(key.name != origin for key in keys):
            raise SignatureError("the card's keys bear another name")
        verified = verify_statement(statement, proof, origin, keys, cache)
    except (CryptoError, SchemaError) as error:
        raise CardInvalid(f"that card cannot be accepted: {error}") from None
    if verified.statement.type != CARD:
        raise CardInvalid("that statement is not a card")
    return VerifiedCard(card, keys, fingerprint(Origin(origin), keys), verified.checkpoint, statement, proof)


def usable_key(card: Card, now: datetime) -> CardSealingKey | None:
    """The key of a card to seal to: of those in force, the youngest, so that a shorter lifetime holds at once."""
    usable = [key for key in card.sealing_keys if key.not_before - _CLOCKS_DIFFER <= now < key.not_after]
    return max(usable, key=lambda key: key.not_before) if usable and now < card.expires_at else None


def card_keys(card: Card) -> tuple[VerifierKey, VerifierKey]:
    """The signing keys that a card names.

    Raises:
        NoteError: they are not vkeys.
    """
    return _parse_keys(*card.signing_keys)


@functools.lru_cache(maxsize=256)
def _parse_keys(first: str, second: str) -> tuple[VerifierKey, VerifierKey]:
    return parse_vkey(first), parse_vkey(second)
