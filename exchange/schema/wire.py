"""What crosses between nodes: cards, manifests, receipts, and the payloads of envelopes and replies.

Invariants:

* Every struct is MessagePack, strict: unknown fields are refused, sizes are bounded, times are aware and UTC.
* Every value has one encoding: else a key that stands twice could tell two readers two things under one signature.
* Card, manifest and receipt are bodies of statements, so their bytes are kept and checked as received.
* A payload names its sender only to say which keys to check; nothing in it is trusted before its proofs hold.

Source: docs/protocol.md, "Messages".
"""

import enum
import re
from datetime import datetime
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from exchange.schema.errors import WireInvalid

T = TypeVar("T")

VERSION: Final = 1
#: How many checkpoints one envelope tells of.
MOST_SEEN: Final = 256
#: How many leaf hashes an envelope or a reply gives.
MOST_LEAVES: Final = 4096

CARD: Final = "card"
MANIFEST: Final = "manifest"
RECEIPT: Final = "receipt"
SIGHTINGS: Final = "sightings"
ACKNOWLEDGEMENT: Final = "acknowledgement"

OriginText = Annotated[str, Meta(min_length=1, max_length=200)]
AreaText = Annotated[str, Meta(pattern=r"^[EWSN][0-9]{8}\Z")]
#: What is shown to an admin must not be able to move the cursor, be invisible, or read otherwise than it is written.
NameText = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f"
        r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff]{1,200}\Z"
    ),
]
UrlText = Annotated[str, Meta(pattern=r"^[!-~]{1,500}\Z")]
KindText = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}\Z")]
SectionText = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,79}\Z")]
MessageText = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
KeyIdBytes = Annotated[bytes, Meta(min_length=16, max_length=16)]
HashBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
CertificateBytes = Annotated[bytes, Meta(min_length=1, max_length=2048)]
SealingKeyBytes = Annotated[bytes, Meta(min_length=1216, max_length=1216)]
Moment = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
VersionOne = Annotated[int, Meta(ge=VERSION, le=VERSION)]
ProofText = Annotated[str, Meta(max_length=32_768)]
CheckpointText = Annotated[str, Meta(max_length=8_192)]
StatementBytes = Annotated[bytes, Meta(max_length=4 * 1024 * 1024)]


class Rung(enum.Enum):
    """How far a section has come at its receiver; the first four are steps of one ladder."""

    RECEIVED = "received"
    ROUTED = "routed"
    DELIVERED = "delivered"
    OWNED = "owned"
    QUERIED = "queried"
    REDIRECTED = "redirected"
    EXPIRED = "expired"
    RECALLED = "recalled"
    ERASED = "erased"


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of all that crosses: frozen, named fields, nothing unknown; a field at its default is left out."""


def check_times(*moments: datetime) -> None:
    """Refuse times that are not in UTC, or at an end of the calendar (ValueError)."""
    # At the very ends of the calendar a time that is moved or rounded a little is no time any more.
    if any(moment.utcoffset() or not 1970 <= moment.year <= 9998 for moment in moments):
        raise ValueError("times are in UTC and between 1970 and 9998")


class CardSealingKey(Wire, frozen=True):
    """An HPKE X-Wing public key of the node and the time in which senders may use it.

    Until `opens_until` the node opens what was sealed to it in that time; after that it has destroyed it.
    """

    key: SealingKeyBytes
    not_before: Moment
    not_after: Moment
    opens_until: Moment

    def __post_init__(self) -> None:
        check_times(self.not_before, self.not_after, self.opens_until)
        if not self.not_before <= self.not_after <= self.opens_until:
            raise ValueError("a sealing key begins, ends and is destroyed in this order")


class CardAgency(Wire, frozen=True):
    """An agency that the node serves; `key` is its own HPKE X-Wing key in sealed mode, else absent.

    `signer` is the fingerprint of the keys by which it signs what it says of a section, if it has such keys.
    """

    kind: KindText
    key: SealingKeyBytes | None = None
    signer: HashBytes | None = None


class Card(Wire, frozen=True):
    """A node's description of itself; `signing_keys` are vkeys (C2SP signed-note), Ed25519 first, then ML-DSA-44.

    The listener proves itself by a TLS key whose SPKI has one of the hashes; where there is none, by an authority.
    With the client certificates, in DER, the node calls.
    """

    version: VersionOne
    origin: OriginText
    area: AreaText
    name: NameText
    url: UrlText
    serial: Count
    issued_at: Moment
    expires_at: Moment
    signing_keys: Annotated[tuple[str, ...], Meta(min_length=2, max_length=2)]
    sealing_keys: Annotated[tuple[CardSealingKey, ...], Meta(min_length=1, max_length=8)]
    agencies: Annotated[tuple[CardAgency, ...], Meta(max_length=64)]
    tls_spki_sha256: Annotated[tuple[HashBytes, ...], Meta(max_length=4)] = ()
    tls_client_certificates: Annotated[tuple[CertificateBytes, ...], Meta(max_length=4)] = ()

    def __post_init__(self) -> None:
        check_times(self.issued_at, self.expires_at)


class SectionEntry(Wire, frozen=True):
    """One sealed section: who may read it, the SHA-256 of its ciphertext, and the commitment to its plaintext."""

    name: SectionText
    readers: Annotated[tuple[KindText, ...], Meta(min_length=1, max_length=64)]
    sha256: HashBytes
    commitment: HashBytes


class ParcelEntry(Wire, frozen=True):
    """The section secrets for one recipient key."""

    key_id: KeyIdBytes
    parcel: Annotated[bytes, Meta(max_length=65_536)]


class Manifest(Wire, frozen=True):
    """What one form message is: from whom, to whom, which sections, and the parcels that open them.

    `card_serial` is the serial of the receiver's card from which the recipients were computed.
    """

    version: VersionOne
    message_id: MessageText
    sender: OriginText
    recipient: OriginText
    from_area: AreaText
    to_area: AreaText
    created_at: Moment
    expires_at: Moment
    urgent: bool
    card_serial: Count
    sections: Annotated[tuple[SectionEntry, ...], Meta(min_length=1, max_length=256)]
    parcels: Annotated[tuple[ParcelEntry, ...], Meta(min_length=1, max_length=65)]
    supersedes: MessageText | None = None

    def __post_init__(self) -> None:
        check_times(self.created_at, self.expires_at)


class Placement(Wire, frozen=True):
    """One section at one agency kind: what a rung is said of."""

    section: SectionText
    agency: KindText


class WordEntry(Wire, frozen=True):
    """One sealed part of what an agency says: the SHA-256 of its ciphertext, and the commitment to its plaintext."""

    name: SectionText
    sha256: HashBytes
    commitment: HashBytes


class Words(Wire, frozen=True):
    """What an agency says of a section, sealed as sections are; `parcels` hold the secrets for who may read it."""

    parts: Annotated[tuple[WordEntry, ...], Meta(min_length=1, max_length=2)]
    parcels: Annotated[tuple[ParcelEntry, ...], Meta(min_length=1, max_length=2)]


class ProvenStatement(Wire, frozen=True):
    """A statement and its C2SP tlog-proof."""

    statement: StatementBytes
    proof: ProofText


class AgencyStatement(Wire, frozen=True):
    """A statement that an agency has signed, alone, by keys of its own: two vkeys, Ed25519, then ML-DSA-44."""

    statement: Annotated[bytes, Meta(max_length=16_384)]
    proof: Annotated[str, Meta(max_length=8_192)]
    signing_keys: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(min_length=2, max_length=2)]


class Receipt(Wire, frozen=True):
    """A signed acknowledgement of the manifest whose leaf hash is `leaf_hash`.

    `received` speaks of the whole message and has no placements; every other rung names its own. `owned`, `queried`
    and `redirected` name one, and carry the agency's words: in `acknowledgement` where the agency has signed them
    itself. `to` is the kind of agency that a section was redirected to, in this borough.
    """

    version: VersionOne
    message_id: MessageText
    leaf_hash: HashBytes
    rung: Rung
    origin: OriginText
    recipient: OriginText
    at: Moment
    placements: Annotated[tuple[Placement, ...], Meta(max_length=4096)] = ()
    words: Words | None = None
    to: KindText | None = None
    by_borough: bool = False
    acknowledgement: AgencyStatement | None = None

    def __post_init__(self) -> None:
        check_times(self.at)


class Acknowledgement(Wire, frozen=True):
    """What an agency signs with its own keys of a section: `origin` is its borough's node, `recipient` the sender."""

    version: VersionOne
    message_id: MessageText
    leaf_hash: HashBytes
    section: SectionText
    agency: KindText
    rung: Rung
    origin: OriginText
    recipient: OriginText
    at: Moment
    words: Words
    to: KindText | None = None

    def __post_init__(self) -> None:
        check_times(self.at)


class Consistency(Wire, frozen=True):
    """An RFC 6962 consistency proof from the tree of `first` leaves to the checkpoint beside it."""

    first: Count
    path: Annotated[tuple[HashBytes, ...], Meta(max_length=64)]


class Leaves(Wire, frozen=True):
    """The leaf hashes of the sender's log from the statement `first` up to the checkpoint beside them, joined.

    `frontier` is the tree of the first `first` statements, as its largest complete subtrees, left to right, joined:
    with the hashes it leads to the checkpoint's root.
    """

    first: Count
    frontier: Annotated[bytes, Meta(max_length=64 * 32)]
    hashes: Annotated[bytes, Meta(max_length=MOST_LEAVES * 32)]


class EnvelopePayload(Wire, frozen=True):
    """What an envelope holds. All proofs are against one checkpoint of the sender's log.

    `holds` is the size of the receiver's log that the sender has verified; `reply_secret` seals the reply. `seen` are
    the checkpoints of a `sightings` statement among the items. `leaves` is for the receiver to keep.
    """

    version: VersionOne
    sender: OriginText
    holds: Count
    consistency: Consistency
    reply_secret: HashBytes
    items: Annotated[tuple[ProvenStatement, ...], Meta(min_length=1, max_length=256)]
    ciphertexts: Annotated[tuple[bytes, ...], Meta(max_length=4096)] = ()
    seen: Annotated[tuple[CheckpointText, ...], Meta(max_length=MOST_SEEN)] = ()
    leaves: Leaves | None = None


class Sightings(Wire, frozen=True):
    """Which checkpoints a node has verified, of any log: the SHA-256 of their list as it stands in `seen`."""

    version: VersionOne
    at: Moment
    seen_sha256: HashBytes

    def __post_init__(self) -> None:
        check_times(self.at)


class ProblemDetails(Wire, frozen=True):
    """Why an item was refused, in the members of an RFC 9457 problem document; `code` is stable."""

    code: Annotated[str, Meta(max_length=80)]
    detail: Annotated[str, Meta(max_length=500)]


class Result(Wire, frozen=True):
    """What became of one item of an envelope: accepted (a manifest gets its `received` receipt) or refused."""

    leaf_hash: HashBytes
    receipt: ProvenStatement | None = None
    problem: ProblemDetails | None = None


class ReplyPayload(Wire, frozen=True):
    """The answer to an envelope: one result per item in the same order, and the replier's view of both logs.

    `keeps` is up to where the replier keeps leaf hashes of the sender's log; `leaves` are of its own.
    """

    version: VersionOne
    holds: Count
    consistency: Consistency
    results: Annotated[tuple[Result, ...], Meta(max_length=256)]
    keeps: Count = 0
    leaves: Leaves | None = None


_PATH: Final = re.compile(r" - at `(\$[a-z0-9_.\[\]]{0,100})`\Z")
_encoder = msgspec.msgpack.Encoder()
encode_wire = _encoder.encode

card_decoder = msgspec.msgpack.Decoder(Card)
manifest_decoder = msgspec.msgpack.Decoder(Manifest)
receipt_decoder = msgspec.msgpack.Decoder(Receipt)
acknowledgement_decoder = msgspec.msgpack.Decoder(Acknowledgement)
sightings_decoder = msgspec.msgpack.Decoder(Sightings)
envelope_decoder = msgspec.msgpack.Decoder(EnvelopePayload)
reply_decoder = msgspec.msgpack.Decoder(ReplyPayload)


def decode_wire(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """Decode `data` strictly.

    Raises:
        WireInvalid: not MessagePack, or not of the decoder's type; the message names the path and no content.
    """
    try:
        value = decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # An unknown key of the sender's choice stands in the error too: only what is a path of ours is repeated.
        found = _PATH.search(str(error))
        path = found[1] if found else "$"
        raise WireInvalid(f"the {decoder.type.__name__.lower()} does not fit its schema at {path}") from None
    if encode_wire(value) != data:
        raise WireInvalid(f"the {decoder.type.__name__.lower()} is not in its only accepted encoding")
    return value
