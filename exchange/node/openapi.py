"""The APIs described in OpenAPI 3.1, made from a table of what each route takes and answers, and from the structs.

* The table has every route, and each status and code that a route can answer with; tests hold it to the program.
* What every route of an API can answer stands once.
* The APIs have paths in common, so that there is a document for each.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from exchange.node import api_shapes as shapes
from exchange.node.agencies_api import ChangeAgency, ConfirmSecret, PauseAgency, ReplayAgency, RotateSecret
from exchange.node.agency_keys_api import Prove, Rekey
from exchange.node.agency_tokens import NewAgencyToken
from exchange.node.directory_api import Join
from exchange.node.gate_api import OVERRIDE, AddAgreement, ApproveForm, ExpireAgreement, RefuseForm
from exchange.node.key_status import KeyState
from exchange.node.keys_api import LockAnew, Revoke
from exchange.node.links_api import NewLink
from exchange.node.local_api import AddAgency, NewToken
from exchange.node.orders_api import ConfirmFor, ConfirmSection, GiveOrder
from exchange.node.peer_client import ENVELOPE_TYPE
from exchange.node.peers_api import AddPeer, VerifyPeer
from exchange.node.problems import json_response
from exchange.node.registration_api import AcceptInvitation, ConfirmPairing, NewInvitation, NewPairing
from exchange.node.rejoin_api import Decide
from exchange.node.revocation import RevocationFile
from exchange.node.routing_api import RouteAgain, TryRules
from exchange.node.section_words import OwnSection, QuerySection, RedirectSection
from exchange.node.sections_api import OwnFor, QueryFor, RedirectFor
from exchange.node.selftest_api import GivenWebhook
from exchange.schema.agency_keys import ChallengeFile
from exchange.schema.card_file import CardFile
from exchange.schema.form import Form
from exchange.schema.registration import PAIRING_TYPE, REGISTRATION_TYPE
from exchange.schema.rejoining import REJOIN_TYPE
from exchange.schema.selftest.diagnosis import Diagnosis
from exchange.schema.wire import MessageText

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
REPLY_TYPE: Final = "application/vnd.exchange.reply"

Codes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes, and what it answers: a struct, a tuple of them or a media type for each status, and the codes
    for each status of a problem."""

    method: str
    path: str
    summary: str
    answers: dict[int, Any]
    problems: dict[int, Codes] = field(default_factory=dict)
    body: Any = None
    query: tuple[tuple[str, dict[str, Any], str], ...] = ()
    headers: tuple[tuple[str, Any, str], ...] = ()
    text: str = ""

    @property
    def id(self) -> str:
        """The name that clients call it by."""
        words = [word for word in re.split(r"[^a-z0-9]+", self.path.removeprefix("/v1/")) if word]
        return self.method + "".join(word.capitalize() for word in words)


#: What every route of the local API can answer; 401 only over TCP.
LOCAL_COMMON: Final[dict[int, Codes]] = {
    400: ("incomplete", "bad-request"),
    401: ("token-needed",),
    403: ("not-for-browsers",),
    408: ("too-slow",),
    413: ("too-large",),
    503: ("too-busy", "store-unavailable", "rejoining"),
}
PEER_COMMON: Final[dict[int, Codes]] = {
    400: ("incomplete", "bad-request"),
    429: ("too-many-requests",),
    503: ("try-later",),
}
AGENCY_COMMON: Final[dict[int, Codes]] = {
    400: ("incomplete", "bad-request"),
    408: ("too-slow",),
    413: ("too-large",),
    429: ("too-many-requests",),
    503: ("store-unavailable",),
}

_SUBJECT: Final = "The id is the `subject` of the section's event: the message's id, a slash, the section's name."
_NO_PEER: Final[dict[int, Codes]] = {404: ("not-found",)}
_NO_DIRECTORY: Final[dict[int, Codes]] = {404: ("not-found",)}
_NO_PAIRING: Final[dict[int, Codes]] = {404: ("not-found",)}
_NO_AGENCY: Final[dict[int, Codes]] = {404: ("not-found",)}
_NO_MESSAGE: Final[dict[int, Codes]] = {404: ("not-found",)}
_BODY: Final[Codes] = ("request-invalid", "value-refused")

_NO_AGREEMENT: Final[dict[int, Codes]] = {404: ("not-found",)}
_NO_APPROVAL: Final[dict[int, Codes]] = {404: ("not-found",)}
_OVERRIDE: Final = (OVERRIDE, str, "Why the form may pass the gate in an emergency, percent-encoded")
#: What can be wrong with what an agency says, whoever speaks for it.
_SAID: Final[dict[int, Codes]] = {
    400: _BODY,
    403: ("agency-signs",),
    404: ("not-found",),
    409: ("not-said-there", "words-too-many"),
    422: ("acknowledgement-invalid", "words-invalid"),
    503: ("no-current-key",),
}
_CONFIRMED: Final[dict[int, Codes]] = {400: _BODY, 404: ("not-found",)}
_ORDERED: Final[dict[int, Codes]] = {400: _BODY, **_NO_MESSAGE, 409: ("not-sent-yet", "orders-too-many")}


def _say(own: Any, query: Any, redirect: Any, common: dict[int, Codes]) -> tuple[Operation, ...]:
    """The three things that are said of a section."""
    return tuple(
        Operation(
            "post",
            f"/v1/sections/{{id}}/{verb}",
            summary,
            {200: shapes.WordTaken},
            {**_SAID, **common},
            body,
            text=_SUBJECT,
        )
        for verb, summary, body in (
            ("own", "Take a section on: who holds it from now on", own),
            ("query", "Ask the sender's counterpart about a section", query),
            ("redirect", "Say that a section is not theirs", redirect),
        )
    )


def _confirm(body: Any, common: dict[int, Codes]) -> Operation:
    """The confirmation of an order."""
    return Operation(
        "post",
        "/v1/sections/{id}/confirm",
        "Confirm that an agency has a recalled or erased section no more",
        {200: shapes.Confirmed},
        {**_CONFIRMED, **common},
        body,
        text=_SUBJECT,
    )


LOCAL: Final = (
    Operation(
        "get", "/v1/health", "How the node and its lanes are doing", {200: (shapes.NodeHealth, shapes.RejoiningHealth)}
    ),
    Operation("get", "/v1/openapi.json", "This description", {200: dict[str, Any]}),
    Operation("get", "/v1/openapi-peers.json", "The description of the API for peers", {200: dict[str, Any]}),
    Operation("get", "/v1/openapi-agencies.json", "The description of the API for agencies", {200: dict[str, Any]}),
    Operation("get", "/v1/card", "The node's card", {200: shapes.OwnCard}),
    Operation(
        "post",
        "/v1/tokens",
        "Make a bearer token",
        {201: shapes.Token},
        {400: _BODY},
        NewToken,
        text="For use over TCP.",
    ),
    Operation("get", "/v1/alarms", "What an admin must look at", {200: shapes.Alarms}),
    # Peers
    Operation("get", "/v1/peers", "All registered nodes", {200: shapes.Peers}),
    Operation(
        "post",
        "/v1/peers",
        "Register a node by its card file",
        {201: shapes.Peer},
        {400: (*_BODY, "name-invalid"), 403: ("fingerprint-mismatch", "peer-untrusted")},
        AddPeer,
        text="With a fingerprint that was compared by telephone, it is verified at once.",
    ),
    Operation("get", "/v1/peers/{origin}", "A node, and who verified it", {200: shapes.PeerShown}, _NO_PEER),
    Operation(
        "delete",
        "/v1/peers/{origin}",
        "Forget a node",
        {200: shapes.Removed},
        {**_NO_PEER, 409: ("already-there",)},
        text="Refused while messages wait for it.",
    ),
    Operation("get", "/v1/peers/number/{origin}", "The number to compare", {200: shapes.PeerNumber}, _NO_PEER),
    Operation("get", "/v1/peers/explain/{origin}", "What was seen of its log", {200: shapes.PeerExplained}, _NO_PEER),
    Operation(
        "post",
        "/v1/peers/verify/{origin}",
        "Verify a node by what was compared",
        {200: shapes.Peer},
        {400: (*_BODY, "name-invalid"), 403: ("fingerprint-mismatch", "peer-untrusted"), **_NO_PEER},
        VerifyPeer,
    ),
    Operation(
        "post",
        "/v1/peers/suspend/{origin}",
        "Stop a node until it is verified again",
        {200: shapes.Peer},
        {400: ("request-invalid",), **_NO_PEER},
    ),
    # Registering by invitation and by pairing
    Operation("get", "/v1/invitations", "The invitations that have not expired", {200: shapes.Invitations}),
    Operation(
        "post",
        "/v1/invitations",
        "Invite another borough",
        {201: shapes.Invited},
        {400: ("request-invalid",)},
        NewInvitation,
        text="The answer holds a secret: give it to the other admin alone.",
    ),
    Operation(
        "post",
        "/v1/invitations/accept",
        "Accept an invitation of another borough",
        {201: shapes.Accepted},
        {
            400: ("request-invalid",),
            403: ("fingerprint-mismatch", "peer-untrusted", "identity-revoked", "unacceptable"),
            422: ("invitation-invalid",),
            503: ("try-later",),
        },
        AcceptInvitation,
        text="The same again does no harm.",
    ),
    Operation(
        "delete", "/v1/invitations/{id}", "Withdraw an invitation", {200: shapes.Withdrawn}, {404: ("not-found",)}
    ),
    Operation("get", "/v1/pairings", "The pairing that was started last", {200: shapes.Pairings}),
    Operation(
        "post",
        "/v1/pairings",
        "Start a pairing with the node at a URL",
        {201: shapes.Pairing},
        {400: ("request-invalid",), 403: ("identity-revoked",), 409: ("already-there",), 503: ("try-later",)},
        NewPairing,
    ),
    Operation(
        "get",
        "/v1/pairings/{id}",
        "How a pairing stands",
        {200: shapes.Pairing},
        {400: ("request-invalid",), **_NO_PAIRING},
        query=(
            (
                "timeout_s",
                {"type": "integer", "minimum": 0, "maximum": 10**9 - 1},
                "Answer once it has words or has ended, or so much later, at most 60",
            ),
        ),
    ),
    Operation(
        "post",
        "/v1/pairings/{id}/confirm",
        "Say whether the words are the same, or what the other admin read out",
        {200: shapes.Peer},
        {400: ("request-invalid",), 403: ("fingerprint-mismatch", "peer-untrusted"), **_NO_PAIRING},
        ConfirmPairing,
    ),
    Operation("delete", "/v1/pairings/{id}", "End a pairing", {200: shapes.Pairing}, _NO_PAIRING),
    # The directory
    Operation("get", "/v1/directory", "What the node's directory says", {200: shapes.Directory}, _NO_DIRECTORY),
    Operation(
        "post",
        "/v1/directory",
        "Join a directory",
        {201: shapes.Directory},
        {400: ("request-invalid",), 403: ("directory-refused",), 409: ("already-there",), 503: ("try-later",)},
        Join,
        text="`root` is the content of its root file.",
    ),
    Operation("delete", "/v1/directory", "Leave the directory", {200: shapes.DirectoryLeft}, _NO_DIRECTORY),
    Operation(
        "post",
        "/v1/directory/refresh",
        "Ask the directory what it says now",
        {200: shapes.Directory},
        {403: ("directory-refused",), **_NO_DIRECTORY, 503: ("try-later",)},
    ),
    # After a restore
    Operation(
        "get",
        "/v1/rejoin",
        "How a node that was restored stands with its peers",
        {200: (shapes.Joined, shapes.Rejoining)},
        text="Until it has rejoined, a node answers this, its health, and nothing else.",
    ),
    Operation(
        "post",
        "/v1/rejoin",
        "Go on with what the peers have returned",
        {200: shapes.Rejoining},
        {400: ("request-invalid",)},
        Decide,
        text="Peers that have seen more of the log then see a fork.",
    ),
    # Agencies
    Operation("get", "/v1/agencies", "The local agencies", {200: shapes.Agencies}),
    Operation("get", "/v1/agencies/{id}", "A local agency", {200: shapes.Agency}, _NO_AGENCY),
    Operation(
        "post",
        "/v1/agencies",
        "Register an agency",
        {201: shapes.AgencyAdded},
        {400: _BODY, 403: ("handshake-refused",), 409: ("already-there",)},
        AddAgency,
        text="With the `url` of its webhook; the endpoint is asked first whether it wants webhooks of this node, "
        "unless `handshake` is false. Or with `pull`: it fetches. Or with a `folder` on the node's machine.",
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/pause",
        "Hold what is for an agency",
        {200: shapes.AgencyHeld},
        {400: _BODY, **_NO_AGENCY},
        PauseAgency,
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/resume",
        "End a pause",
        {200: shapes.AgencyReleased},
        {400: ("request-invalid",), **_NO_AGENCY},
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/enable",
        "Make an agency that was disabled active again",
        {200: shapes.AgencyReleased},
        {400: ("request-invalid",), **_NO_AGENCY},
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/settings",
        "Change how an agency is reached",
        {200: shapes.Agency},
        {400: _BODY, **_NO_AGENCY},
        ChangeAgency,
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/secret",
        "Make a new webhook secret",
        {200: shapes.SecretRotated},
        {400: _BODY, 409: ("already-there",), **_NO_AGENCY},
        RotateSecret,
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/secret/confirm",
        "Say by which secret an agency verifies",
        {200: shapes.Agency},
        {400: _BODY, **_NO_AGENCY},
        ConfirmSecret,
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/replay",
        "Send an agency again what it accepted",
        {200: shapes.Replayed},
        {400: _BODY, **_NO_AGENCY},
        ReplayAgency,
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/test",
        "Send an agency an event without personal data",
        {200: shapes.AgencyTested},
        {400: ("request-invalid",), **_NO_AGENCY},
        text="An agency that fetches cannot be sent anything: 400.",
    ),
    Operation(
        "get",
        "/v1/agencies/{id}/selftest",
        "A signed sample",
        {200: shapes.SelfTestSample},
        _NO_AGENCY,
        text="About nobody, and sent nowhere. The id may be the agency's name.",
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/selftest",
        "Why a webhook does not verify",
        {200: Diagnosis},
        {400: ("request-invalid",), **_NO_AGENCY},
        GivenWebhook,
        text="Nothing of it is kept. The id may be the agency's name.",
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/key",
        "Give an agency a key of its own, or another one",
        {201: shapes.AgencyKeyClaimed},
        {400: ("request-invalid",), 404: ("not-found",)},
        Rekey,
        text="The agency must prove it; until then all goes on as before.",
    ),
    Operation(
        "get",
        "/v1/agencies/{id}/challenge",
        "The challenge that an agency is to answer",
        {200: ChallengeFile},
        {404: ("not-found",)},
    ),
    Operation(
        "post",
        "/v1/agencies/{id}/prove",
        "Prove an agency's key",
        {200: shapes.AgencyKeyProven},
        {400: ("request-invalid",), 404: ("not-found",)},
        Prove,
        text="Without an answer, the node challenges the agency at its endpoint.",
    ),
    Operation("get", "/v1/agencies/{id}/tokens", "The tokens of an agency", {200: shapes.AgencyTokens}, _NO_AGENCY),
    Operation(
        "post",
        "/v1/agencies/{id}/tokens",
        "Make a token with which an agency asks the node",
        {201: shapes.AgencyTokenMade},
        {400: _BODY, **_NO_AGENCY},
        NewAgencyToken,
        text="The answer holds the token, this once: give it to the agency alone.",
    ),
    Operation(
        "delete",
        "/v1/agencies/{id}/tokens/{token}",
        "End a token of an agency",
        {200: shapes.AgencyTokenRevoked},
        _NO_AGENCY,
    ),
    Operation("get", "/v1/routing", "The routing rules in force, and the agencies", {200: shapes.Routing}),
    Operation(
        "post",
        "/v1/routing/trial",
        "What rules would do with the messages that arrived",
        {200: shapes.Trial},
        {400: _BODY},
        TryRules,
        text="Without rules, those in force are tried. Nothing is routed by this.",
    ),
    Operation(
        "post",
        "/v1/routing/again",
        "Route again what waits for an agency, and what is held for its kind",
        {200: shapes.RoutedAgain},
        {400: _BODY, **_NO_AGENCY},
        RouteAgain,
    ),
    Operation("delete", "/v1/agencies/{id}", "Remove an agency", {200: shapes.AgencyRemoved}, {404: ("not-found",)}),
    # Forms and messages
    Operation(
        "post",
        "/v1/forms/check",
        "Check a form",
        {200: shapes.Checked},
        body=Form,
        text="Nothing is stored or sent. A form that cannot be read is answered with findings too.",
    ),
    Operation(
        "post",
        "/v1/messages/to/{area}",
        "Send a form",
        {201: shapes.Sent, 200: shapes.Sent},
        {
            400: ("request-invalid",),
            403: ("peer-untrusted", "identity-revoked"),
            404: ("peer-unknown",),
            409: ("conflict",),
            422: ("form-invalid", "gate-closed"),
            503: ("queue-full", "store-full"),
        },
        Form,
        headers=(("Idempotency-Key", MessageText, "A UUID, in lower case: becomes the message's id"), _OVERRIDE),
        text="201 once the message is stored, and on its way. The same form under the same Idempotency-Key again is "
        "answered with 200; another form, with 409.",
    ),
    Operation(
        "get",
        "/v1/messages/{id}",
        "How far a message has come",
        {200: shapes.Status},
        {400: ("request-invalid",), **_NO_MESSAGE},
        query=(
            (
                "wait",
                {"enum": ["received", "routed", "delivered", "owned"]},
                "Answer once all sections are on this rung",
            ),
            ("timeout_s", {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}, "or so much later, at most 60"),
        ),
    ),
    Operation(
        "get", "/v1/messages/{id}/attempts", "The requests to agencies about it", {200: shapes.Attempts}, _NO_MESSAGE
    ),
    Operation("get", "/v1/messages/{id}/timeline", "What happened to it", {200: shapes.Timeline}, _NO_MESSAGE),
    Operation("get", "/v1/messages/{id}/receipts", "Its signed receipts", {200: shapes.Receipts}, _NO_MESSAGE),
    # The gate
    Operation("get", "/v1/agreements", "The sharing agreements on file", {200: shapes.Agreements}),
    Operation(
        "post",
        "/v1/agreements",
        "Put a sharing agreement on file",
        {201: shapes.Agreement},
        {400: _BODY},
        AddAgreement,
    ),
    Operation("get", "/v1/agreements/{id}", "A sharing agreement", {200: shapes.Agreement}, _NO_AGREEMENT),
    Operation(
        "post",
        "/v1/agreements/{id}/expire",
        "End a sharing agreement before its last day",
        {200: shapes.Agreement},
        {400: _BODY, 409: ("already-there",), **_NO_AGREEMENT},
        ExpireAgreement,
    ),
    Operation(
        "post",
        "/v1/forms/preview/{area}",
        "What the gate would say of a form, and who would read what on what ground",
        {200: shapes.Preview},
        {400: ("request-invalid",), 422: ("form-invalid",)},
        Form,
        headers=(_OVERRIDE,),
        text="Nothing is stored or sent.",
    ),
    Operation("get", "/v1/approvals", "The forms that await a second person", {200: shapes.Approvals}),
    Operation("get", "/v1/approvals/{id}", "A form that awaits one", {200: shapes.ApprovalShown}, _NO_APPROVAL),
    Operation(
        "post",
        "/v1/approvals/{id}/approve",
        "Approve a form",
        {200: shapes.Decided},
        {400: ("request-invalid",), 403: ("second-person-needed",), 422: ("gate-closed",), **_NO_APPROVAL},
        ApproveForm,
        text="By another person than the one who sent it: the token's name, or the account behind the socket.",
    ),
    Operation(
        "post",
        "/v1/approvals/{id}/refuse",
        "Refuse a form",
        {200: shapes.Decided},
        {400: ("request-invalid",), **_NO_APPROVAL},
        RefuseForm,
        text="It is not kept any longer.",
    ),
    Operation("get", "/v1/overrides", "The forms that passed by an override", {200: shapes.Overrides}),
    Operation(
        "post",
        "/v1/messages/{id}/recall",
        "Recall sections that were sent",
        {201: shapes.OrderTaken, 200: shapes.OrderTaken},
        _ORDERED,
        GiveOrder,
        text="Without `sections`, all of the message. The same order again is answered with 200.",
    ),
    Operation(
        "post",
        "/v1/messages/{id}/erase",
        "Erase sections that were sent, here and there",
        {201: shapes.OrderTaken, 200: shapes.OrderTaken},
        _ORDERED,
        GiveOrder,
        text="Nothing undoes this. The same order again is answered with 200.",
    ),
    Operation(
        "get",
        "/v1/orders",
        "What was ordered to be recalled or erased",
        {200: shapes.Orders},
        {400: ("request-invalid",)},
        query=(("unconfirmed", {"type": "boolean"}, "Only those that somebody has not confirmed, the oldest first"),),
    ),
    Operation(
        "get",
        "/v1/handovers",
        "Handovers, with what is due next",
        {200: shapes.Handovers},
        {400: ("request-invalid",)},
        query=(("overdue", {"type": "boolean"}, "Only those with something overdue, the longest overdue first"),),
    ),
    Operation("get", "/v1/handovers/{id}", "Who is responsible for what", {200: shapes.Handover}, _NO_MESSAGE),
    Operation(
        "post", "/v1/handovers/{id}/met", "Record that the agencies have met", {200: shapes.Handover}, _NO_MESSAGE
    ),
    Operation(
        "post",
        "/v1/handovers/{id}/complete",
        "Record that nothing is left to hand over",
        {200: shapes.Handover},
        {**_NO_MESSAGE, 409: ("handover-open",)},
        text="Refused while a section has no holder.",
    ),
    Operation(
        "get",
        "/v1/messages/{id}/attachments",
        "How far its attachments have come",
        {200: shapes.Attachments},
        _NO_MESSAGE,
    ),
    Operation(
        "put",
        "/v1/messages/{id}/attachments/{section}/{place}",
        "Attach a file to a message that is yet to be sent",
        {201: shapes.AttachmentStaged, 200: shapes.Attachment},
        {
            400: ("request-invalid",),
            403: ("peer-untrusted", "identity-revoked"),
            404: ("peer-unknown",),
            409: ("conflict",),
            422: ("attachment-refused",),
            503: ("queue-full", "store-full"),
        },
        "application/octet-stream",
        query=(("to", {"type": "string", "minLength": 1}, "The ONS code of the authority that the form goes to"),),
        headers=(
            (
                "Exchange-Attachment",
                Annotated[str, Meta(max_length=4096)],
                "title, file_name and perhaps media_type: JSON in base64url",
            ),
        ),
        text="The body is the file, 2 GiB at most. Then send the form with the message's id as Idempotency-Key. The "
        "same file for a message that is sent already is answered with 200; another, with 409.",
    ),
    Operation(
        "get",
        "/v1/messages/{id}/attachments/{section}/{place}",
        "An attachment, opened",
        {200: "application/octet-stream"},
        {400: ("request-invalid",), 404: ("not-found",), 409: ("attachment-not-ready",)},
        text="Its names are in the header Exchange-Attachment. It is written down who was given it. Where the node "
        "finds on the way that it is not whole, the connection is cut.",
    ),
    Operation(
        "post",
        "/v1/messages/{id}/attachments/{section}/{place}/release",
        "Release an attachment from quarantine",
        {200: shapes.AttachmentReleased},
        {400: ("request-invalid",), 404: ("not-found",), 409: ("conflict",)},
        text="Two people must ask, each by a token or from an account of their own.",
    ),
    Operation("get", "/v1/inbox", "Messages that came", {200: shapes.Messages}),
    Operation("get", "/v1/outbox", "Messages that were sent", {200: shapes.Messages}),
    *_say(OwnFor, QueryFor, RedirectFor, {}),
    _confirm(ConfirmFor, {}),
    Operation(
        "post",
        "/v1/sections/{id}/links",
        "Make a one-time link by which an agency takes a section on",
        {201: shapes.LinkMade},
        {400: _BODY, 403: ("agency-signs",), 404: ("not-found",), 409: ("not-said-there",)},
        NewLink,
        text=_SUBJECT,
    ),
    Operation("get", "/v1/sections/{id}/links", "The links for a section", {200: shapes.Links}, {404: ("not-found",)}),
    Operation("delete", "/v1/links/{id}", "Withdraw a link", {200: shapes.LinkWithdrawn}, {404: ("not-found",)}),
    Operation(
        "get", "/v1/questions", "What agencies elsewhere ask about sections that were sent", {200: shapes.Questions}
    ),
    Operation("get", "/v1/held", "What waits for a person", {200: shapes.Held}),
    Operation(
        "post",
        "/v1/held/{number}/release",
        "Try a held delivery again",
        {200: shapes.Released},
        {400: ("request-invalid",), 404: ("not-found",)},
    ),
    # The node's keys
    Operation(
        "get",
        "/v1/keys",
        "How the node's keys stand",
        {200: KeyState},
        {500: ("configuration-invalid", "keystore-corrupt")},
    ),
    Operation("post", "/v1/keys/rotate", "Change the signing keys", {200: shapes.Rotated}, {400: ("request-invalid",)}),
    Operation("post", "/v1/keys/revocation", "Prepare a revocation", {200: shapes.Prepared}),
    Operation(
        "post",
        "/v1/keys/revoke",
        "Publish a revocation of this node's identity",
        {200: shapes.Published},
        {400: _BODY},
        Revoke,
        text="Nothing undoes this.",
    ),
    Operation(
        "post",
        "/v1/keys/passphrase",
        "Lock the keystore with another key",
        {200: shapes.Locked},
        {400: ("request-invalid",), 403: ("wrong-passphrase",)},
        LockAnew,
        text="For `exchange keys passwd`: the new key is sealed with the present one.",
    ),
)

#: What whoever registers, or asks for what it lost, can hear.
_STRANGERS: Final[dict[int, Codes]] = {
    403: ("unacceptable",),
    408: ("too-slow",),
    413: ("too-large",),
    415: ("unsupported-media-type",),
}

PEERS: Final = (
    Operation(
        "post",
        "/v1/envelopes",
        "Bring an envelope",
        {200: REPLY_TYPE},
        {
            403: ("unacceptable",),
            408: ("too-slow",),
            413: ("too-large",),
            415: ("unsupported-media-type",),
            429: ("peer-limit", "peer-quota"),
            503: ("store-full", "proof-awaited"),
        },
        ENVELOPE_TYPE,
        text="An envelope and its reply are sealed bytes: see docs/protocol.md. An unproven sender hears "
        "`unacceptable`, whatever was wrong.",
    ),
    Operation("get", "/v1/card", "The node's card file, or its revocation", {200: (CardFile, RevocationFile)}),
    Operation(
        "post",
        "/v1/revocations",
        "Bring a revocation of a peer",
        {200: shapes.RevocationTaken},
        {403: ("unacceptable",), 408: ("too-slow",), 413: ("too-large",)},
        RevocationFile,
    ),
    Operation(
        "post",
        "/v1/registrations",
        "Answer an invitation",
        {200: REPLY_TYPE},
        _STRANGERS,
        REGISTRATION_TYPE,
        text="Sealed bytes: see docs/protocol.md. Whatever was wrong, a stranger hears `unacceptable`.",
    ),
    Operation("post", "/v1/pairings", "Offer a pairing", {200: PAIRING_TYPE}, _STRANGERS, PAIRING_TYPE),
    Operation(
        "post",
        "/v1/pairings/reveal",
        "Show the nonce that the offer committed to",
        {200: PAIRING_TYPE},
        _STRANGERS,
        PAIRING_TYPE,
    ),
    Operation(
        "post",
        "/v1/rejoin",
        "Ask what this node holds of the asker's log",
        {200: REPLY_TYPE},
        _STRANGERS,
        REJOIN_TYPE,
        text="For a peer that was restored from a backup. Sealed bytes: see docs/protocol.md.",
    ),
    Operation("get", "/v1/log/checkpoint", "The latest checkpoint of the node's log", {200: "text/plain"}),
    Operation(
        "get",
        "/v1/log/consistency",
        "A consistency proof",
        {200: shapes.Consistency},
        {400: ("request-invalid",), 404: ("not-found",)},
        query=(
            ("first", {"type": "integer", "minimum": 0, "maximum": 10**16 - 1}, "A size of the log"),
            ("second", {"type": "integer", "minimum": 0, "maximum": 10**16 - 1}, "A later size of it"),
        ),
    ),
    Operation("get", "/v1/health", "Whether the node answers", {200: shapes.Alive}),
)

#: What whoever asks with a token can hear.
_TOKEN: Final[dict[int, Codes]] = {401: ("token-needed",)}

_NOTHING_WAITS: Final[dict[int, Codes]] = {**_TOKEN, 404: ("not-found",)}

AGENCIES: Final = (
    Operation(
        "get", "/v1/agency", "Which agency asks, and how long its token is good", {200: shapes.AskingAgency}, _TOKEN
    ),
    Operation(
        "get",
        "/v1/agency/sections",
        "The sections that wait for the agency",
        {200: shapes.Pulled},
        {400: ("request-invalid",), **_TOKEN},
        query=(
            (
                "after",
                msgspec.json.schema(shapes.CursorText),
                "The cursor of the last answer; without it, from the start",
            ),
            (
                "wait",
                {"type": "integer", "minimum": 0, "maximum": 10**9 - 1},
                "Where there is nothing, wait so many seconds for something, at most 60",
            ),
            ("limit", {"type": "integer", "minimum": 1, "maximum": 10**9 - 1}, "Sections at once, at most 50"),
        ),
        text="For an agency that fetches. What is not acknowledged is given out again, at the latest after ten "
        "minutes, whatever the cursor is.",
    ),
    Operation(
        "post",
        "/v1/agency/sections/{id}/delivered",
        "Acknowledge a section",
        {200: shapes.PulledDelivered},
        _NOTHING_WAITS,
        text="Once it is safely yours: it is not given out again. 404: that was said before.",
    ),
    Operation(
        "post",
        "/v1/agency/sections/{id}/refused",
        "Say that a section cannot be opened",
        {200: shapes.PulledRefused},
        _NOTHING_WAITS,
        text="It is held, and the borough's admin is told.",
    ),
    *_say(OwnSection, QuerySection, RedirectSection, _TOKEN),
    _confirm(ConfirmSection, {403: ("agency-signs",), 422: ("acknowledgement-invalid",), **_TOKEN}),
    Operation(
        "get",
        "/v1/sections/{id}",
        "How a section stands, and the card of its sender",
        {200: shapes.SectionOfAgency},
        {404: ("not-found",), **_TOKEN},
        text=_SUBJECT,
    ),
    Operation(
        "get",
        "/v1/agency/attachments/{id}/{section}/{place}",
        "An attachment of a section that the agency may read",
        {200: "application/octet-stream"},
        {400: ("request-invalid",), 404: ("not-found",), 409: ("attachment-not-ready",), **_TOKEN},
        text="The file; for an agency with a key of its own, its sealed chunks, which `exchange agency-attachment` "
        "opens. 409 until all of it is here and, where the node opens it, was looked at. What breaks off is not whole.",
    ),
)
#: Without a token.
AGENCIES_OPEN: Final = (Operation("get", "/v1/health", "Whether the node answers", {200: shapes.Alive}),)


def routes() -> list[web.RouteDef]:
    """Where the local API serves the descriptions."""

    async def local(_: web.Request) -> web.Response:
        return json_response(local_document())

    async def peers(_: web.Request) -> web.Response:
        return json_response(peers_document())

    async def agencies(_: web.Request) -> web.Response:
        return json_response(agencies_document())

    return [
        web.get("/v1/openapi.json", local),
        web.get("/v1/openapi-peers.json", peers),
        web.get("/v1/openapi-agencies.json", agencies),
    ]


@functools.cache
def local_document() -> dict[str, Any]:
    """The local API's description."""
    document = _document(
        LOCAL,
        LOCAL_COMMON,
        "Borough exchange: local API",
        "What a borough's own programs ask of their node, over the Unix socket `exchange.sock` in its directory, or "
        "over TCP on loopback with a bearer token from `exchange token new`.",
    )
    document["servers"] = [{"url": "http://127.0.0.1:7480", "description": "local.address of the configuration"}]
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}, {}]
    return document


@functools.cache
def peers_document() -> dict[str, Any]:
    """The description of the API for peers."""
    document = _document(
        PEERS,
        PEER_COMMON,
        "Borough exchange: API for peers",
        "What nodes ask of each other. docs/protocol.md says what is in an envelope.",
    )
    document["servers"] = [{"url": "https://{host}", "variables": {"host": {"default": "exchange.hackney.example"}}}]
    return document


@functools.cache
def agencies_document() -> dict[str, Any]:
    """The description of the API for agencies."""
    document = _document(
        (*AGENCIES, *AGENCIES_OPEN),
        AGENCY_COMMON,
        "Borough exchange: API for agencies",
        "What an agency asks of its borough's node, with a token of `exchange agency token new`. See docs/agencies.md.",
    )
    document["servers"] = [{"url": "https://{host}", "variables": {"host": {"default": "agencies.hackney.example"}}}]
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for operation in AGENCIES_OPEN:
        document["paths"][operation.path][operation.method]["security"] = []
    return document


def _document(
    operations: Iterable[Operation], common: dict[int, Codes], title: str, description: str
) -> dict[str, Any]:
    operations = tuple(operations)
    types = list(dict.fromkeys([shapes.Problem, *(found for one in operations for found in _types(one))]))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(types, schemas, strict=True))
    responses = {
        _name(status): _problem(status, sorted(codes), by_type[shapes.Problem]) for status, codes in common.items()
    }
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, common, by_type)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": description,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": components, "responses": responses},
    }
    readable: dict[str, Any] = _for_all_readers(document)
    return readable


def _types(operation: Operation) -> Iterator[Any]:
    for found in [*operation.answers.values(), operation.body]:
        if isinstance(found, tuple):
            yield from found
        elif found is not None and not isinstance(found, str):
            yield found


def _describe(operation: Operation, common: dict[int, Codes], by_type: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if operation.text:
        described["description"] = operation.text
    parameters = [*_path_parameters(operation), *_other_parameters(operation, by_type)]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body, by_type)}
    responses: dict[str, Any] = {
        str(status): {"description": _first_line(found), "content": _content(found, by_type)}
        for status, found in operation.answers.items()
    }
    for status in sorted({*common, *operation.problems}):
        codes = sorted({*common.get(status, ()), *operation.problems.get(status, ())})
        if status in operation.problems:
            responses[str(status)] = _problem(status, codes, by_type[shapes.Problem])
        else:
            responses[str(status)] = {"$ref": f"#/components/responses/{_name(status)}"}
    described["responses"] = dict(sorted(responses.items()))
    return described


def _path_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    kinds: dict[str, tuple[dict[str, Any], str]] = {
        "origin": ({"type": "string", "minLength": 1}, "The node's lasting name, such as exchange.hackney.example"),
        "area": ({"type": "string", "minLength": 1}, "The ONS code of the receiving authority, such as E09000010"),
        "number": ({"type": "integer", "minimum": 0, "maximum": 2**53 - 1}, "The number of the held delivery"),
        "id": ({"type": "string", "minLength": 1}, "The id"),
        "section": ({"type": "string", "minLength": 1}, "The name of a section of the message"),
        "place": ({"type": "integer", "minimum": 1, "maximum": 99}, "The number of an attachment in its section"),
        "token": ({"type": "string", "minLength": 1}, "The id of the token"),
    }
    for name in re.findall(r"\{([a-z]+)\}", operation.path):
        schema, description = kinds[name]
        yield {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _other_parameters(operation: Operation, by_type: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for name, schema, description in operation.query:
        required = 400 in operation.problems and name in ("first", "second")
        yield {"name": name, "in": "query", "required": required, "schema": schema, "description": description}
    for name, kind, description in operation.headers:
        schema = msgspec.json.schema(kind)
        yield {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def _content(found: Any, by_type: dict[Any, Any]) -> dict[str, Any]:
    if isinstance(found, str):
        return {found: {"schema": {"type": "string"}} if found.startswith("text/") else {}}
    schema = {"anyOf": [by_type[one] for one in found]} if isinstance(found, tuple) else by_type[found]
    return {JSON: {"schema": schema}}


def _problem(status: int, codes: list[str], schema: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": ", ".join(f"`{code}`" for code in codes),
        "content": {
            PROBLEM: {
                "schema": {"allOf": [schema, {"properties": {"code": {"enum": codes}, "status": {"const": status}}}]}
            }
        },
    }
    if status in (429, 503):
        described["headers"] = {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}, "required": True}
        }
    return described


def _name(status: int) -> str:
    return f"Problem{status}"


def _first_line(found: Any) -> str:
    if isinstance(found, str):
        return found
    text = getattr(found, "__doc__", None) if isinstance(found, type) else None
    return str(text).partition("\n")[0] if text and issubclass(found, msgspec.Struct) else "What was asked for"


def _for_all_readers(value: Any) -> Any:
    """Patterns as ECMA 262 has them, as JSON Schema wants: Python's end of text is not one of its signs."""
    if isinstance(value, dict):
        return {
            key: re.sub(r"\\Z$", "$", found) if key == "pattern" and isinstance(found, str) else _for_all_readers(found)
            for key, found in value.items()
        }
    if isinstance(value, list | tuple):
        return [_for_all_readers(found) for found in value]
    return value
