"""What crosses while two nodes are registered with one another, before either hears the other.

Invariants:

* A registration travels as the payload of an envelope: only the holder of the invitation's card can open it.
* Pairing messages hold nothing secret: cards are public, and nonces are shown only after the commitment.

Source: docs/protocol.md, "Registration".
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.schema.wire import HashBytes, Moment, OriginText, ProvenStatement, VersionOne, Wire

REGISTRATION_TYPE: Final = "application/vnd.exchange.registration"
PAIRING_TYPE: Final = "application/vnd.exchange.pairing"


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one admin gives the other, as JSON: whose card to expect, and a secret to be used once."""

    format: Annotated[str, Meta(pattern=r"^exchange-invitation/1\Z")]
    origin: OriginText
    url: Annotated[str, Meta(min_length=1, max_length=500)]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    secret: Annotated[bytes, Meta(min_length=32, max_length=32)]
    expires_at: Moment


class Registration(Wire, frozen=True):
    """The payload of an envelope to `POST /v1/registrations`: who accepts an invitation, and its secret."""

    version: VersionOne
    invitation: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    secret: HashBytes
    card: ProvenStatement
    reply_secret: HashBytes


class RegistrationReply(Wire, frozen=True):
    """The answer, sealed by `reply_secret`: the inviting node has registered the other."""

    version: VersionOne
    origin: OriginText


class PairingOffer(Wire, frozen=True, tag="offer"):
    """The initiator commits to its nonce."""

    version: VersionOne
    card: ProvenStatement
    commitment: HashBytes


class PairingAnswer(Wire, frozen=True):
    """The responder's nonce, given to the first offer alone."""

    version: VersionOne
    nonce: HashBytes


class PairingReveal(Wire, frozen=True, tag="reveal"):
    """The initiator's nonce; both sides can now tell the words."""

    version: VersionOne
    origin: OriginText
    nonce: HashBytes


registration_decoder = msgspec.msgpack.Decoder(Registration)
registration_reply_decoder = msgspec.msgpack.Decoder(RegistrationReply)
pairing_decoder = msgspec.msgpack.Decoder(PairingOffer | PairingReveal)
pairing_answer_decoder = msgspec.msgpack.Decoder(PairingAnswer)
