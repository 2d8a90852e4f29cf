"""What the APIs answer, as structs: the API's description is made from them, and tests hold answers to them.

The handlers build plain documents, so nothing here is on their way. More members may come; none is taken away.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from exchange.handover.gate import Reason
from exchange.handover.routing import Rule
from exchange.node.hardening import Protection
from exchange.node.key_records import RejoinPeer, RejoinRecord
from exchange.node.revocation import RevocationFile
from exchange.schema.agency_keys import ChallengeFile
from exchange.schema.agency_names import AgencyName
from exchange.schema.card_file import CardFile
from exchange.schema.legal import Gateway, Regime
from exchange.schema.registration import Invitation
from exchange.schema.wire import AreaText, HashBytes, KindText, MessageText

TrustText = Literal["unverified", "confirming", "verified", "suspended", "blocked", "quarantined", "revoked"]
RungText = Literal["received", "routed", "delivered", "queried", "owned", "redirected", "recalled", "erased"]
WordText = Literal["owned", "queried", "redirected"]
Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
EventId = Annotated[str, Meta(pattern=r"^evt_[0-9a-f]{32}\Z")]
CursorText = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\.[0-9]{1,18}\.[0-9]{1,18}\Z")]
KeyIdText = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every answer."""


class Finding(Shape, frozen=True):
    """What is wrong (`error`) or doubtful (`warning`) about a form; `path` points at the field."""

    severity: Literal["error", "warning"]
    path: str
    message: str
    hint: str | msgspec.UnsetType = msgspec.UNSET


class Problem(Shape, frozen=True):
    """An RFC 9457 problem document. Rely on `status` and `code`; the words may change.

    `findings` are there where a form is refused, or the gate is closed to it; from the size `holds` of the log a
    consistency proof is awaited.
    """

    title: str
    status: int
    code: str
    message: str
    hint: str
    findings: list[Finding] | msgspec.UnsetType = msgspec.UNSET
    holds: int | msgspec.UnsetType = msgspec.UNSET


# Both APIs


class SealingTime(Shape, frozen=True):
    """The time of a sealing key: peers seal to it until `not_after`, and it is destroyed after `opens_until`."""

    not_before: datetime
    not_after: datetime
    opens_until: datetime


class Alive(Shape, frozen=True):
    """The node answers."""

    status: Literal["ok"]


# The node


class Lane(Shape, frozen=True):
    """Deliveries to one destination, `peer:ORIGIN` or `agency:NAME`, or `route:KIND`, that are `due`, `held` or,
    for an agency that fetches, `offered`.

    In a lane `route:KIND` is what no agency was given."""

    lane: str
    state: Literal["due", "held", "offered"]
    count: int
    failures: int
    last_error: str | None


class PeerAtLimit(Shape, frozen=True):
    """A peer that was refused for now in the last hour: for which limit, how often since the start, and when last."""

    origin: str
    limit: str
    refused: int
    last_at: datetime


class Stored(Shape, frozen=True):
    """What the store holds of the messages of a peer."""

    origin: str
    messages: int
    bytes: int


class Limits(Shape, frozen=True):
    """Who is at a limit. `queues` are the peers for which no more may wait; free bytes are null in PostgreSQL."""

    peers: list[PeerAtLimit]
    stored: list[Stored]
    queues: list[str]
    disk_full: bool
    disk_free_bytes: int | None


class Tls(Shape, frozen=True):
    """The listener's TLS."""

    mutual: bool
    certificate_ends_at: datetime
    pins: list[Hash]
    announced: bool
    admitted: int


class Replica(Shape, frozen=True):
    """A process that runs the node; `answers` where it is the one that was asked."""

    name: str
    started_at: datetime
    seen_at: datetime
    answers: bool


class LastBackup(Shape, frozen=True):
    """The last backup of the whole node."""

    at: datetime
    age_hours: float


class GateHealth(Shape, frozen=True):
    """What the gate wants, how many agreements there are, and what awaits a second person."""

    agreements: Literal["required", "advised"]
    second_approver: list[Reason]
    in_force: int
    ending: int
    expired: int
    awaiting_approval: int
    approvals_overdue: int


class NodeHealth(Shape, frozen=True):
    """How the node and its lanes are doing. `tls` is null behind a proxy; only nodes in PostgreSQL have replicas."""

    status: Literal["ok"]
    origin: str
    lanes: list[Lane]
    counters: dict[str, int]
    protection: Protection
    tls: Tls | None
    replicas: list[Replica]
    limits: Limits
    backup: LastBackup | None
    gate: GateHealth


class RejoiningHealth(Shape, frozen=True):
    """A node that was restored, and is asking its peers for what its store lacks."""

    status: Literal["rejoining"]
    origin: str
    lanes: list[Lane]
    protection: Protection
    tls: None


class DescribedCard(Shape, frozen=True):
    """A node's card, read."""

    origin: str
    area: AreaText
    name: str
    url: str
    serial: int
    fingerprint: Hash
    signing_keys: list[str]
    sealing_keys: list[SealingTime]
    agencies: list[KindText]
    agency_keys: dict[KindText, KeyIdText]
    agency_signers: dict[KindText, Hash]
    tls_spki_sha256: list[Hash]
    issued_at: datetime
    expires_at: datetime


class OwnCard(DescribedCard, frozen=True):
    """This node's card; `card` is the file that a peer's admin gets."""

    card: CardFile


class Token(Shape, frozen=True):
    """A bearer token. It is shown this once."""

    id: str
    name: str
    token: str


class Alarm(Shape, frozen=True):
    """What an admin must look at."""

    at: datetime
    kind: str
    origin: str
    detail: str


class Alarms(Shape, frozen=True):
    """The latest thousand alarms, newest first."""

    items: list[Alarm]


# Peers


class Peer(DescribedCard, frozen=True):
    """A registered node. Only a `verified` one is sent to and heard."""

    trust: TrustText
    networks: list[str]
    candidate: Hash | None
    confirmed_first_by: str | None
    added_at: datetime
    verified_at: datetime | None
    verified_how: str | None
    failures: int
    last_error: str | None


class PeerListed(Peer, frozen=True):
    """A registered node, the directory that lists the identity which people would verify now, and what it lists."""

    listed_by: str | None
    listed_fingerprint: Hash | None


class Peers(Shape, frozen=True):
    """All registered nodes."""

    items: list[PeerListed]


class Verification(Shape, frozen=True):
    """Who compared which identity, how and when."""

    fingerprint: Hash
    how: str
    who: str
    at: datetime


class PeerShown(PeerListed, frozen=True):
    """A registered node, and who verified it."""

    verifications: list[Verification]


class LogClaim(Shape, frozen=True):
    """What a checkpoint says; `checkpoint` is the signed note."""

    size: int
    root: Hash
    checkpoint: str


class Fork(Shape, frozen=True):
    """A contradiction in a peer's log: what was held, and what was shown."""

    at: datetime
    detail: str
    held: LogClaim | None = None
    shown: LogClaim | None = None


class Compared(Shape, frozen=True):
    """Whose view of the peer's log agreed, since the node started."""

    with_: str = msgspec.field(name="with")
    at: datetime
    size: int


class Unproven(Shape, frozen=True):
    """Who has seen a checkpoint of the peer that it has not explained yet."""

    with_: str = msgspec.field(name="with")
    since: datetime


class PeerExplained(Peer, frozen=True):
    """A registered node, what waits for it, and what was seen of its log."""

    waiting: int
    forks: list[Fork]
    compared: list[Compared]
    unproven: list[Unproven]


class PeerNumber(Shape, frozen=True):
    """The number of both nodes, which two admins compare: 12 groups of 5 digits."""

    origin: str
    trust: TrustText
    fingerprint: Hash
    number: list[str]
    listed_by: str | None
    listed_fingerprint: Hash | None


class Removed(Shape, frozen=True):
    """A peer that is not registered any more."""

    origin: str
    removed: Literal[True]


# Registering by invitation and by pairing


class Invited(Shape, frozen=True):
    """A new invitation, also as one word. Its secret is shown this once."""

    id: str
    origin: str
    url: str
    fingerprint: Hash
    expires_at: datetime
    link: str
    invitation: Invitation


class Outstanding(Shape, frozen=True):
    """An invitation that has not expired; `used_by` is an origin."""

    id: str
    by: str
    made_at: datetime
    expires_at: datetime
    used_by: str | None


class Invitations(Shape, frozen=True):
    """The invitations that have not expired, oldest first."""

    items: list[Outstanding]


class Accepted(Peer, frozen=True):
    """The node that invited, and whether this one is verified there."""

    verified_there: bool


class Withdrawn(Shape, frozen=True):
    """An invitation that nobody can use any more."""

    id: str
    withdrawn: Literal[True]


class Pairing(Shape, frozen=True):
    """A pairing with the node at `url`; the other admin starts one with `own_url`.

    `reason`: why it ended; `problem`: why the other node cannot be asked for now.
    """

    id: str
    url: str
    own_url: str
    origin: str
    name: str
    area: AreaText
    fingerprint: Hash
    state: Literal["waiting", "words", "confirmed", "different", "failed"]
    reason: str | None
    problem: str | None
    words: list[str] | None
    ends_at: datetime


class Pairings(Shape, frozen=True):
    """The pairing that was started last, if the node was not restarted since."""

    items: list[Pairing]


# The directory


class Expiry(Shape, frozen=True):
    """What of a directory expires next, and when."""

    role: str
    at: datetime


class Entry(Shape, frozen=True):
    """A card that the directory lists; `note`: why it is not taken."""

    area: str
    name: str
    origin: str | None
    fingerprint: Hash | None
    serial: int | None
    trust: TrustText | Literal["self"] | None
    note: str | None


class Directory(Shape, frozen=True):
    """The directory that the node has joined, how fresh it is, and what it lists."""

    url: str
    policy: Literal["hint", "suffices"]
    state: Literal["fresh", "unreachable", "refused"]
    problem: str | None
    detail: str | None
    problem_since: datetime | None
    checked_at: datetime
    refreshed_at: datetime
    expiries: dict[str, datetime]
    next_expiry: Expiry | None
    own: Literal["listed", "missing", "differs"]
    joined_at: datetime
    joined_by: str
    networks: list[str]
    peer_networks: list[str]
    items: list[Entry]


class DirectoryLeft(Shape, frozen=True):
    """The directory is left. `verified_by_it`: peers that nobody but the directory verified last."""

    url: str
    left: Literal[True]
    verified_by_it: list[str]


# After a restore


class Joined(Shape, frozen=True):
    """The node has joined its peers; `last` says what came of it where it was restored."""

    state: Literal["joined"]
    last: RejoinRecord | None


class Rejoining(Shape, frozen=True):
    """The node is asking its peers; those in `forks_at` have seen more of its log than was returned."""

    state: Literal["rejoining"]
    size: int
    peers: list[RejoinPeer]
    forks_at: list[str]


# Agencies


class Agency(Shape, frozen=True):
    """A local agency, how its endpoint stands, and how its lane is doing.

    Null settings are what the configuration says. The old secret signs too while there is one. Only agencies that get
    webhooks have a `url` and secrets; `asked_at` is roughly when one that fetches last asked.
    """

    id: str
    kind: KindText
    name: AgencyName
    way: Literal["webhook", "pull", "drop"]
    url: str | None
    folder: str | None
    asked_at: datetime | None
    networks: list[str]
    failures: int
    last_error: str | None
    key_id: KeyIdText | None
    pending_key_id: KeyIdText | None
    state: Literal["active", "paused", "disabled"]
    reason: str | None
    since: datetime
    breaker: Literal["closed", "open"]
    failing_since: datetime | None
    public_key: str
    secret_id: str | None
    old_secret_id: str | None
    rotation: Literal["single", "overlap", "proven", "overdue"]
    overlap_until: datetime | None
    proven_at: datetime | None
    timeout_s: float | None
    retry_s: list[float] | None
    certificate: str | None
    proxy: str | None
    rate_per_minute: int | None
    links: bool


class Agencies(Shape, frozen=True):
    """All local agencies."""

    items: list[Agency]


class RoutedAgency(Shape, frozen=True):
    """An agency as routing sees it: whether it keeps what it is given, and why that waits, if it does."""

    name: AgencyName
    kind: KindText
    available: bool
    waits: str | None


class RoutingFinding(Shape, frozen=True):
    """What is doubtful about routing rules."""

    severity: Literal["error", "warning"]
    path: str
    message: str


class Routing(Shape, frozen=True):
    """The routing rules in force, and the agencies."""

    single_point_of_contact: AgencyName | None
    rules: list[Rule]
    fallback: list[AgencyName]
    agencies: list[RoutedAgency]
    findings: list[RoutingFinding]


class TrialAgency(Shape, frozen=True):
    """How many sections would go to an agency, and how many do by the rules in force."""

    agency: AgencyName
    sections: int
    now: int


class TrialHeld(Shape, frozen=True):
    """How many sections would be held for a reason, and how many are by the rules in force."""

    reason: str
    sections: int
    now: int


class TrialChange(Shape, frozen=True):
    """How many sections go to one place by the rules in force, and would go to another."""

    now: str
    then: str
    sections: int


class TrialItem(Shape, frozen=True):
    """One section that would go elsewhere, for the readers of a kind; `rule` is counted from 1."""

    id: MessageText
    section: str
    kind: KindText
    now: str
    then: str
    rule: int | None


class Trial(Shape, frozen=True):
    """What rules would do with the messages that arrived since a time; `unread` are those whose move is not known here.

    `left_off` says that there are more messages than were looked at; `items` are the first changes of all.
    """

    since: datetime
    messages: int
    sections: int
    left_off: bool
    unread: int
    agencies: list[TrialAgency]
    held: list[TrialHeld]
    changes: list[TrialChange]
    items: list[TrialItem]
    findings: list[RoutingFinding]


class RoutedAgain(Shape, frozen=True):
    """So many deliveries are routed again."""

    agency: AgencyName
    deliveries: int


class HandshakeTold(Shape, frozen=True):
    """What an endpoint said when it was asked whether it wants webhooks of this node."""

    state: Literal["allowed", "unsupported", "unreachable", "skipped"]
    why: str | None


class AgencyAdded(Agency, frozen=True):
    """A new agency. Its secret is shown this once, or its token where it fetches; `asks_at` is where it does. So many
    held deliveries now go on.

    `challenge` is for an agency that is to have a key of its own: nothing goes to it before that is proven.
    """

    secret: str | None
    token: str | None
    asks_at: str | None
    released: int
    handshake: HandshakeTold
    challenge: ChallengeFile | None


class AgencyHeld(Agency, frozen=True):
    """An agency that is paused; so many deliveries were held."""

    held: int


class AgencyReleased(Agency, frozen=True):
    """An agency that is active; so many deliveries now go on."""

    released: int


class SecretRotated(Agency, frozen=True):
    """A new secret, shown this once."""

    secret: str


class Replayed(Shape, frozen=True):
    """How much is sent again, or would be: what was erased is not, and what waits to be sent again already is once."""

    id: str
    dry_run: bool
    messages: int
    sections: int
    erased: int
    waiting: int


class Attempt(Shape, frozen=True):
    """A request to an agency. Of an answer its kind, length, a keyed digest and the code of a problem are kept."""

    at: datetime
    delivery: int
    agency: str
    section: str
    replay: bool
    accepted: bool
    duration_ms: int
    status: int | None
    error: str | None
    content_type: str | None
    size_bytes: int | None
    digest: str | None
    code: str | None


class Attempts(Shape, frozen=True):
    """The requests to agencies about a message, oldest first."""

    id: MessageText
    items: list[Attempt]


class AgencyTested(Shape, frozen=True):
    """What the agency answered to an event without personal data: a status, or why it cannot be reached.

    Neither where a file was put into its folder.

    `secret_id` is the secret by which it says that it verified.
    """

    id: str
    ok: bool
    duration_ms: int
    status: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    secret_id: str | msgspec.UnsetType = msgspec.UNSET


class SelfTestSample(Shape, frozen=True):
    """A synthetic event, and the bytes that are signed: as text, and in hexadecimal by sixteen."""

    agency: AgencyName
    url: str
    id: str
    timestamp: int
    expires_at: datetime
    headers: dict[str, str]
    body: str
    signed: str
    signed_hex: str
    curl: str


class AgencyKeyClaimed(Shape, frozen=True):
    """A key that an agency is to prove, and the challenge that it is to answer."""

    id: str
    key_id: KeyIdText | None
    pending_key_id: KeyIdText
    challenge: ChallengeFile


class AgencyKeyProven(Shape, frozen=True):
    """Whether an agency has proven its key, or what was wrong; so many held deliveries now go on."""

    id: str
    key_id: KeyIdText
    ok: bool
    error: str | None
    released: int


class AgencyToken(Shape, frozen=True):
    """A token of an agency: when it was made, until when it is good, and in which hour it was last used."""

    id: str
    agency: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


class AgencyTokenMade(AgencyToken, frozen=True):
    """A new token, shown this once, and where the agency uses it."""

    token: str
    url: str | None


class AgencyTokens(Shape, frozen=True):
    """The tokens of an agency, oldest first."""

    items: list[AgencyToken]


class AgencyTokenRevoked(Shape, frozen=True):
    """A token that is good no more."""

    id: str
    agency: str
    revoked: Literal[True]


class AgencyRemoved(Shape, frozen=True):
    """An agency that is not registered any more."""

    id: str
    removed: Literal[True]


# Messages


class Checked(Shape, frozen=True):
    """What is wrong or doubtful about a form. `ok` where there is no error."""

    ok: bool
    findings: list[Finding]


class SentSection(Shape, frozen=True):
    """A section, and an agency that is to have it."""

    section: str
    agency: KindText
    rung: RungText | None


class Warned(Shape, frozen=True):
    """What was missing, and did not keep the form from leaving."""

    path: str
    message: str
    hint: str


class Sent(Shape, frozen=True):
    """A message that is stored and goes on. `held`: why it is not sealed yet; `repeated`: it was sent before.

    `overrode`: what an override lifted; `warnings`: what was missing all the same.
    """

    id: MessageText
    to: AreaText
    peer: str
    urgent: bool
    sections: list[SentSection]
    held: str | None
    awaits_approval: bool
    overrode: list[str]
    warnings: list[Warned]
    repeated: bool


class GroundTold(Shape, frozen=True):
    """Under which agreement, and on what legal basis, an agency reads a section."""

    agreement: str | None
    regime: Regime | None
    gateway: Gateway | None


class Word(Shape, frozen=True):
    """What an agency said of a section. `signed` where it did so with its own keys; `by` the borough where that spoke
    for it; `to` the agency there that has the section now: its kind, or here its name. What is `sealed` the node
    cannot read in full."""

    by: Literal["agency", "borough"]
    signed: bool
    to: AgencyName | None
    sealed: bool
    erased: bool
    name: str | None
    role: str | None
    contact: str | None
    note: str | None
    question: str | None
    reason: str | None
    whose: str | None


OrderKindText = Literal["recall", "erase"]
OrderReasonText = Literal[
    "wrong-person", "wrong-borough", "inaccurate", "out-of-date", "retention-ended", "court-order", "other"
]
#: Why an order came to nothing.
OutcomeText = Literal["never-left", "not-there"]
ConfirmedByText = Literal["agency", "agency-signed", "borough", "nobody"]


class OrderStep(Shape, frozen=True):
    """How far an order has come at a place; `had` is how the section stood before. `nobody` has confirmed where no
    agency there had been given it."""

    had: RungText | None
    destroyed_at: datetime | None
    told_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: ConfirmedByText | None


class SectionOrder(OrderStep, frozen=True):
    """The latest order about a section at a kind of agency, and in words who has not confirmed."""

    kind: OrderKindText
    reason: OrderReasonText
    ordered_at: datetime
    ordered_by: str | None
    outcome: OutcomeText | None
    text: str


class OrderPlace(OrderStep, frozen=True):
    """A section at a kind of agency; where it was received, at one agency by name."""

    section: str
    agency: KindText
    name: AgencyName | None


class OrderGiven(Shape, frozen=True):
    """An order to recall or erase sections. It has no `number` where the form was never signed."""

    number: int | None
    id: MessageText
    direction: Literal["in", "out"]
    peer: str
    kind: OrderKindText
    reason: OrderReasonText
    sections: list[str]
    ordered_at: datetime
    ordered_by: str | None
    outcome: OutcomeText | None
    places: list[OrderPlace]
    unconfirmed: int


class OrderTaken(OrderGiven, frozen=True):
    """An order as it stands; `repeated` where it was given before."""

    repeated: bool


class Orders(Shape, frozen=True):
    """The latest thousand orders, or a thousand that somebody has not confirmed."""

    items: list[OrderGiven]


class Confirmed(Shape, frozen=True):
    """A confirmation that an agency has a section no more; `repeated` where it was given before."""

    id: str
    confirmed: Literal[True]
    repeated: bool


class Section(Shape, frozen=True):
    """How far a section has come at an agency. `rung` is null until the other node has signed for the message. Where it
    is the agency's word that put it there, `word` is that; `holder` is the name in it."""

    section: str
    agency: KindText
    rung: RungText | None
    at: datetime | None
    holder: str | None
    word: Word | None
    order: SectionOrder | None
    given_to: AgencyName | None
    held: str | None
    basis: GroundTold | None


class DisclosureTold(Shape, frozen=True):
    """What the gate said of a form: who sent it, who approved or refused it, what an override lifted."""

    state: Literal["passed", "awaiting", "approved", "refused"]
    sent_by: str
    decided_by: str | None
    decided_at: datetime | None
    overrode: list[str]


AttachmentStateText = Literal[
    "staging",
    "staged",
    "waiting",
    "sending",
    "sent",
    "arriving",
    "whole",
    "stored",
    "ready",
    "quarantined",
    "damaged",
]


class Attachment(Shape, frozen=True):
    """How far an attachment has come. Sizes are of what is sealed: the file is a little smaller."""

    section: str
    number: int
    state: AttachmentStateText
    size_bytes: int
    done_bytes: int
    scanned: bool
    released_by: str | None
    at: datetime
    repeated: bool = False


class Attachments(Shape, frozen=True):
    """The attachments of a message."""

    id: MessageText
    items: list[Attachment]


class AttachmentStaged(Shape, frozen=True):
    """A file that waits for its message to be sent. `scanned`: a scanner looked at it, and found nothing."""

    section: str
    number: int
    state: Literal["staged"]
    size_bytes: int
    sha256: str
    scanned: bool


class AttachmentReleased(Shape, frozen=True):
    """Whether an attachment is out of quarantine; it is once a second person has asked."""

    section: str
    number: int
    released: bool
    by: str


class Status(Shape, frozen=True):
    """How far a message has come. `reached` says whether all sections are on the rung that was waited for.

    A form that was refused has neither peer nor sections. `disclosure` is null for messages that came.
    """

    id: MessageText
    direction: Literal["in", "out"]
    peer: str | None
    urgent: bool
    created_at: datetime
    sections: list[Section]
    attachments: list[Attachment]
    attachments_held: str | None
    disclosure: DisclosureTold | None
    held: str | None
    next_attempt_at: datetime | None
    last_error: str | None
    reached: bool


class Event(Shape, frozen=True):
    """A line of a message's timeline, and the same in plain English."""

    at: datetime
    event: str
    agency: str | None
    sections: list[str]
    text: str


class Timeline(Shape, frozen=True):
    """What happened to a message."""

    id: MessageText
    direction: Literal["in", "out"]
    events: list[Event]
    next_attempt_at: datetime | None
    last_error: str | None


class DueStep(Shape, frozen=True):
    """A step of a handover that is still to be done; without `agency`, the agencies do it together."""

    step: Literal["received", "owned", "answered", "met", "complete"]
    agency: KindText | None
    sections: list[str]
    due_at: datetime
    overdue: bool
    missing: str


class HandoverHead(Shape, frozen=True):
    """A handover; what people recorded of it, and who did."""

    id: MessageText
    direction: Literal["in", "out"]
    peer: str
    urgent: bool
    sent_at: datetime
    overdue: bool
    met_at: datetime | None
    met_by: str | None
    complete_at: datetime | None
    complete_by: str | None


class HandoverListed(HandoverHead, frozen=True):
    """A handover in a list: how many sections at agencies it has, how many have a holder, and what is due next."""

    sections: int
    held: int
    next: DueStep | None


class Handovers(Shape, frozen=True):
    """The latest thousand, or a thousand with something overdue."""

    items: list[HandoverListed]


class ResponsibleSection(Shape, frozen=True):
    """A section at an agency: who is responsible, in which borough, since when, what is due and what is missing."""

    section: str
    agency: KindText
    rung: RungText | None
    responsible: Literal["sender", "holder", "nobody"]
    borough: AreaText | None
    holder: str | None
    since: datetime
    due_at: datetime | None
    overdue: bool
    missing: str | None


class Handover(HandoverHead, frozen=True):
    """A handover, section by section, with the steps that are still to be done."""

    sections: list[ResponsibleSection]
    due: list[DueStep]


class Receipts(Shape, frozen=True):
    """A message's signed receipts, with the card of the node that signed them: `exchange verify` checks this file."""

    id: MessageText
    receipts: list[CardFile]
    card: CardFile


class Listed(Shape, frozen=True):
    """A message in a list."""

    id: MessageText
    peer: str
    urgent: bool
    created_at: datetime
    stored_at: datetime


class Messages(Shape, frozen=True):
    """The latest thousand messages of a direction, newest first."""

    items: list[Listed]


class HeldDelivery(Shape, frozen=True):
    """A delivery that waits for a person, and why."""

    number: int
    lane: str
    kind: str
    id: MessageText | None
    agency: str | None
    since: datetime
    reason: str


class Held(Shape, frozen=True):
    """What waits for a person: the oldest thousand."""

    items: list[HeldDelivery]


class Released(Shape, frozen=True):
    """A delivery that is tried again."""

    number: int
    lane: str
    released: Literal[True]


# The gate


class AgreedBasis(Shape, frozen=True):
    """The legal basis for a kind of agency, or for all others."""

    agency: KindText | None
    regime: Regime
    gateway: Gateway


class Agreement(Shape, frozen=True):
    """A sharing agreement, and how it stands today; without kinds it is for every kind of agency."""

    id: str
    area: AreaText
    kinds: list[KindText]
    bases: list[AgreedBasis]
    title: str
    reference: str
    starts_on: date
    ends_on: date
    review_on: date | None
    review_due: bool
    sha256: Hash | None
    state: Literal["future", "active", "ending", "expired"]
    added_by: str
    added_at: datetime
    ended_by: str | None
    ended_at: datetime | None
    ended_reason: str | None


class Agreements(Shape, frozen=True):
    """All sharing agreements, those that have ended too."""

    items: list[Agreement]


class GateFinding(Shape, frozen=True):
    """What is missing, or doubtful about the form, and what comes of it."""

    severity: Literal["error", "warning", "waits", "overridden"]
    path: str
    message: str
    hint: str


class Disclosed(Shape, frozen=True):
    """Who will read a section, and on what ground; null where there is none."""

    section: str
    agency: KindText
    basis: GroundTold | None


class Preview(Shape, frozen=True):
    """What the gate would say of a form. `ok` where nothing would refuse it."""

    ok: bool
    awaits_approval: bool
    findings: list[GateFinding]
    sections: list[Disclosed]


class Approval(Shape, frozen=True):
    """A form that awaits a second person, and why."""

    id: MessageText
    to: AreaText
    sent_by: str
    at: datetime
    why: str
    due_at: datetime
    overdue: bool


class Approvals(Shape, frozen=True):
    """The forms that await a second person, oldest first."""

    items: list[Approval]


class ApprovalShown(Approval, frozen=True):
    """A form that awaits a second person: the hash of its file, and who will read what."""

    sha256: Hash
    sections: list[Disclosed]


class Decided(Shape, frozen=True):
    """Who approved or refused a form."""

    id: MessageText
    to: AreaText
    state: Literal["approved", "refused"]
    sent_by: str
    decided_by: str
    decided_at: datetime


class Overridden(Shape, frozen=True):
    """A form that passed by an override; the reason is null once the message was erased."""

    id: MessageText
    to: AreaText
    by: str
    at: datetime
    lifted: list[str]
    reason: str | None


class Overrides(Shape, frozen=True):
    """The latest thousand forms that passed by an override, newest first."""

    items: list[Overridden]


# The node's own keys


class Rotated(Shape, frozen=True):
    """New signing keys, and a revocation of them to keep offline."""

    origin: str
    old_fingerprint: Hash
    fingerprint: Hash
    revocation: RevocationFile


class Prepared(Shape, frozen=True):
    """A revocation to keep offline."""

    revocation: RevocationFile


class Told(Shape, frozen=True):
    """Whether a peer has taken the revocation, or why not."""

    origin: str
    told: bool
    reason: str | None


class Published(Shape, frozen=True):
    """The node's identity is revoked."""

    origin: str
    peers: list[Told]


class Locked(Shape, frozen=True):
    """What a guess at the passphrase now costs."""

    opslimit: int
    memlimit_bytes: int


# What peers ask


class RevocationTaken(Shape, frozen=True):
    """The peer whose identity is revoked, and what this node thinks of it now."""

    origin: str
    trust: TrustText


class Consistency(Shape, frozen=True):
    """An RFC 6962 consistency proof between two sizes of the node's log."""

    first: int
    second: int
    path: list[HashBytes]


# What agencies ask


class AskingAgency(Shape, frozen=True):
    """The agency that asks, the node that answers, and until when the token is good."""

    id: str
    kind: KindText
    origin: str
    area: AreaText
    token_id: str
    expires_at: datetime | None


class PulledEvent(Shape, frozen=True):
    """A section: the same CloudEvents event that a webhook has as its body. Its `id` is what is acknowledged."""

    specversion: Literal["1.0"]
    id: EventId
    type: str
    source: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"]
    data: dict[str, Any]


class Pulled(Shape, frozen=True):
    """What an agency is to have, urgent first. `after` is the cursor for the next request."""

    state: Literal["active", "paused", "disabled"]
    after: CursorText
    items: list[PulledEvent]


class PulledDelivered(Shape, frozen=True):
    """A section is delivered."""

    id: EventId
    delivered: Literal[True]


class PulledRefused(Shape, frozen=True):
    """A section that the agency cannot open is held."""

    id: EventId
    refused: Literal[True]


class SaidReceipt(Shape, frozen=True):
    """The receipt that the node has signed for the sender, with its tlog-proof."""

    statement: bytes
    proof: str


class WordTaken(Shape, frozen=True):
    """What was said of a section, and the receipt for it: the same each time that it is said."""

    id: str
    rung: WordText
    receipt: SaidReceipt


class SectionOfAgency(Shape, frozen=True):
    """A section that the agency has, and as which kinds of reader."""

    id: str
    message_id: MessageText
    section: str
    agencies: list[KindText]
    rung: RungText
    sender: CardFile


class Link(Shape, frozen=True):
    """A one-time link; `made_by` is null where it went to the agency with the section."""

    id: str
    section: str
    agency: AgencyName
    made_by: str | None
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None
    withdrawn_at: datetime | None


class LinkMade(Link, frozen=True):
    """A new link, with its address, which is shown this once."""

    url: str


class Links(Shape, frozen=True):
    """The links for a section, oldest first."""

    items: list[Link]


class LinkWithdrawn(Shape, frozen=True):
    """A link that works no more."""

    id: str
    withdrawn: bool


class Question(Shape, frozen=True):
    """A question of an agency elsewhere; without its text where that was sealed to the counterpart's key, or erased."""

    number: int
    id: MessageText
    section: str
    agency: KindText
    sender: str = msgspec.field(name="from")
    at: datetime
    by_borough: bool
    question: str | None
    sealed: bool
    erased: bool
    delivered: bool
    held: str | None


class Questions(Shape, frozen=True):
    """The latest questions, newest first."""

    items: list[Question]
