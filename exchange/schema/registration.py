"""What crosses while two nodes are registered with one another, before either hears the other.

Invariants:

* An invitation holds a secret, and is as safe as the way by which one admin gives it to the other.
* A registration travels as the payload of an envelope: only the holder of the invited identity can open it.
* Pairing messages hold nothing secret: identities are public, and nonces are shown only after the commitment.

Source: docs/protocol.md, "Registration".
"""

import base64
import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.schema.errors import InvitationInvalid
from exchange.schema.wire import (
    HashBytes,
    Moment,
    OriginText,
    ProvenStatement,
    UrlText,
    VersionOne,
    Wire,
    check_times,
)

REGISTRATION_TYPE: Final = "application/vnd.exchange.registration"
PAIRING_TYPE: Final = "application/vnd.exchange.pairing"
LINK: Final = "exchange-invitation:"
FORMAT: Final = "exchange-invitation/1"
MOST_INVITATION_BYTES: Final = 4096
_CHECK_BYTES: Final = 8

InvitationId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one admin gives the other, as JSON: whose card to expect, and a secret to be used once."""

    format: Annotated[str, Meta(pattern=r"^exchange-invitation/1\Z")]
    origin: OriginText
    url: UrlText
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    id: InvitationId
    secret: HashBytes
    expires_at: Moment

    def __post_init__(self) -> None:
        check_times(self.expires_at)


def invitation_link(invitation: Invitation) -> str:
    """An invitation as one word, for a message or a QR code; its check tells what was damaged from what is refused."""
    data = msgspec.json.encode(invitation)
    return LINK + base64.urlsafe_b64encode(_check(data) + data).decode().rstrip("=")


def parse_invitation(text: str) -> Invitation:
    """Read an invitation: the JSON of a file, or the link. White space around or, in a link, inside does not matter.

    Raises:
        InvitationInvalid: it is neither.
    """
    try:
        data = text.strip().encode()
        if len(data) > MOST_INVITATION_BYTES:
            raise InvitationInvalid("that is too long for an invitation")
        if data.startswith(LINK.encode()):
            # Mail programs break long words.
            word = b"".join(data.removeprefix(LINK.encode()).split())
            body = base64.b64decode(word + b"=" * (-len(word) % 4), altchars=b"-_", validate=True)
            check, data = body[:_CHECK_BYTES], body[_CHECK_BYTES:]
            if check != _check(data) or base64.urlsafe_b64encode(body).rstrip(b"=") != word:
                raise InvitationInvalid("that is not the whole of an invitation, or it was changed")
        return msgspec.json.decode(data, type=Invitation)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvitationInvalid("that is not an invitation, or not all of it") from None


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECK_BYTES]


class Registration(Wire, frozen=True):
    """The payload of an envelope to `POST /v1/registrations`: who accepts an invitation, and its secret."""

    version: VersionOne
    invitation: InvitationId
    secret: HashBytes
    card: ProvenStatement
    reply_secret: HashBytes


class RegistrationReply(Wire, frozen=True):
    """The answer, sealed by `reply_secret`: the other node is registered; `verified` is false until a second person
    has confirmed it, where two must."""

    version: VersionOne
    origin: OriginText
    verified: bool


class PairingOffer(Wire, frozen=True):
    """The initiator says who it is, and commits to its nonce."""

    version: VersionOne
    fingerprint: HashBytes
    commitment: HashBytes


class PairingAnswer(Wire, frozen=True):
    """The responder's nonce, given to the first offer alone."""

    version: VersionOne
    nonce: HashBytes


class PairingReveal(Wire, frozen=True):
    """The nonce that the initiator committed to; both sides can now tell the words."""

    version: VersionOne
    commitment: HashBytes
    nonce: HashBytes


registration_decoder = msgspec.msgpack.Decoder(Registration)
registration_reply_decoder = msgspec.msgpack.Decoder(RegistrationReply)
pairing_offer_decoder = msgspec.msgpack.Decoder(PairingOffer)
pairing_answer_decoder = msgspec.msgpack.Decoder(PairingAnswer)
pairing_reveal_decoder = msgspec.msgpack.Decoder(PairingReveal)
