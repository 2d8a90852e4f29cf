"""What can go wrong in a running node. Each class has the HTTP status that the local API gives it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from exchange.errors import ExchangeError
from exchange.handover.gate import Missing
from exchange.store.transaction import Operation


class NodeError(ExchangeError):
    """The node could not do what was asked."""

    code: ClassVar[str] = "node"


class ConfigurationInvalid(NodeError):
    """The configuration file cannot be used."""

    code = "configuration-invalid"
    hint = "Mend the line that is named; `config/exchange.example.toml` explains every key."


class CertificateUnusable(NodeError):
    """A TLS certificate or its key cannot be used."""

    code = "certificate-unusable"


class StoreOlder(NodeError):
    """The store is older than the keys: to sign on would contradict what peers have seen."""

    code = "store-older"
    hint = "Find the store that ran last. If it is lost, ask the peers for what it lacks: exchange run --rejoin."


class KeysSuperseded(NodeError):
    """Another replica has rotated the signing keys: what this one signed would be a fork in the eyes of every peer."""

    code = "keys-superseded"
    hint = "Copy keystore.json from the replica on which the keys were rotated, then start this one again."


class BackupOutdated(NodeError):
    """The keys in a backup are not those of the store."""

    code = "backup-outdated"
    hint = "Restore a later backup; nothing was changed."


class SandboxUnavailable(NodeError):
    """A process cannot be kept from the network, so nothing is rehearsed."""

    code = "sandbox-unavailable"
    hint = "Run this as root, or on a machine whose kernel allows user namespaces; nothing was started."


class CannotListen(NodeError):
    """An address is in use or not allowed."""

    code = "cannot-listen"
    hint = "Stop what uses the address, or choose another one in the configuration."


class RequestInvalid(NodeError):
    """A request to the local API does not fit."""

    code = "request-invalid"


class TokenNeeded(NodeError):
    """A request to the agencies' listener has no token that is in force."""

    code = "token-needed"
    hint = "Ask your borough for one."


class HandoverOpen(NodeError):
    """A handover cannot be complete while something of it is the sender's."""

    code = "handover-open"
    hint = "`exchange handover show ID` names who is responsible for each section."


class HandshakeRefused(NodeError):
    """An endpoint was asked whether it wants webhooks of this node, and said no."""

    code = "handshake-refused"
    hint = "Ask the agency to allow this node's origin, or register it with --no-handshake. Nothing was stored."


class GateClosed(NodeError):
    """The gate does not let a form leave; `missing` says why."""

    code = "gate-closed"
    hint = "See to what is named, and send the form again; nothing was stored."

    def __init__(self, missing: Sequence[Missing]) -> None:
        self.missing = tuple(missing)
        first = self.missing[0]
        more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
        super().__init__(f"the form may not leave: {first.path}: {first.message}{more}")


class SecondPersonNeeded(NodeError):
    """Who sent a form cannot approve it."""

    code = "second-person-needed"
    hint = "Another person runs `exchange approve ID`, from an account of their own."


class PeerUntrusted(NodeError):
    """The peer is not verified, or is suspended or quarantined: it is sent nothing and heard by nobody."""

    code = "peer-untrusted"
    hint = "Compare fingerprints with the other borough by telephone, then run `exchange peer verify`."


class FingerprintMismatch(NodeError):
    """The fingerprint that the admin gave is not the card's."""

    code = "fingerprint-mismatch"
    hint = "Do not go on: get the card again from the other borough, and compare by telephone."


class PeerUnknown(NodeError):
    """No peer serves that area."""

    code = "peer-unknown"
    hint = "Register the other borough's node with `exchange peer add CARDFILE`."


class NoCurrentKey(NodeError):
    """The peer's card holds no sealing key that is in force."""

    code = "no-current-key"
    hint = "Ask the other borough for its current card, or wait until its node is heard from."


class IdentityRevoked(NodeError):
    """An identity was revoked; `file` is the revocation, where a peer shows one in place of its card."""

    code = "identity-revoked"
    hint = "Telephone the borough's admin: it comes back as a new node, which you verify anew."

    def __init__(self, message: str, file: bytes = b"") -> None:
        super().__init__(message)
        self.file = file


class NotNow(NodeError):
    """Something outside answers later."""

    code = "try-later"


class HeadMoved(NotNow):
    """Another replica has accepted a checkpoint of the peer meanwhile; `again` looks anew."""

    def __init__(self, message: str, again: Callable[[], Awaitable[list[Operation[None]]]] | None = None) -> None:
        super().__init__(message)
        self.again = again


class ProofAwaited(NotNow):
    """A peer's checkpoint needs a consistency proof, and the peer could not be asked: it may bring the proof itself."""

    def __init__(self, message: str, holds: int) -> None:
        super().__init__(message)
        #: The size of the peer's log from which the proof must start.
        self.holds = holds


class NotSaidThere(NodeError):
    """An agency says of a section what cannot be said of it as it stands."""

    code = "not-said-there"
    hint = "See how it stands: GET /v1/sections/ID, or `exchange status`. Nothing was changed."


class AgencySigns(NodeError):
    """The sender sealed a section to the agency's own key, and takes the agency's signed word alone."""

    code = "agency-signs"
    hint = "The agency says it with its own key: `exchange agency-own`. Nothing was changed."


class LinkUseless(NodeError):
    """A one-time link cannot be used any more; `standing` says why."""

    code = "link-useless"
    hint = "Nothing was recorded with it."

    def __init__(self, standing: str) -> None:
        super().__init__(f"the link is {standing}")
        self.standing = standing


class WordsTooMany(NodeError):
    """As much was said of a section as the sender takes."""

    code = "words-too-many"
    hint = "Telephone the sending borough. What was said before stands."


class NotSentYet(NodeError):
    """Some sections of a message are ordered back that is still on its way."""

    code = "not-sent-yet"
    hint = "Recall the whole message, or wait until it has arrived: `exchange status ID`. Nothing was ordered."


class OrdersTooMany(NodeError):
    """As much was ordered about a message as its receiver takes."""

    code = "orders-too-many"
    hint = "Telephone the other borough. `exchange orders list` shows what was ordered before."


class DirectoryRefused(NodeError):
    """A directory cannot be believed: it has expired, went back, is not signed; or it cannot be applied."""

    code = "directory-refused"
    hint = "Peers go on as before. Ask the body that runs the directory; `exchange directory show` says since when."

    def __init__(self, message: str = "", problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem


class AtLimit(NotNow):
    """Somebody has taken as much as one may: the rest is for later, and is not lost."""

    code = "at-limit"
    status: ClassVar[int] = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyRequests(AtLimit):
    """An address has asked more often than those may who have proven nothing."""

    code = "too-many-requests"


class PeerAtLimit(AtLimit):
    """A peer has sent as much as it may in an hour."""

    code = "peer-limit"


class PeerAtQuota(AtLimit):
    """The store holds as much of a peer as it may."""

    code = "peer-quota"


class StoreFull(AtLimit):
    """The disk is nearly full: what comes new has to wait, so that what is here can be finished."""

    code = "store-full"
    status = 503
    hint = "Free space on the disk of the node's store; the node goes on by itself."


class QueueFull(AtLimit):
    """As much waits for a peer as may wait."""

    code = "queue-full"
    status = 503
    hint = "See why the peer does not take what waits: `exchange health`. Then send again."


class Unacceptable(NodeError):
    """What an unproven sender is told, whatever was wrong."""

    code = "unacceptable"


class AttachmentRefused(NodeError):
    """A file is not attached: the scan found something in it, or could not say."""

    code = "attachment-refused"
    hint = "Nothing of it was kept. Ask your IT what the scanner says; send the form without it if it cannot wait."


class AttachmentNotReady(NodeError):
    """An attachment is not given out: it is not all here, was not looked at yet, or the scan found something."""

    code = "attachment-not-ready"
    hint = "`exchange attachment list` shows how far each has come."


class ItemRefused(NodeError):
    """One item of a proven sender's envelope is refused; `code` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = code


class ForkDetected(NodeError):
    """A peer's log cannot be shown to continue what was verified of it before."""

    code = "fork"
    hint = "Telephone the other borough: its key may be stolen, or its node restored from an old backup."

    def __init__(self, message: str, shown: str, signed_at_s: int) -> None:
        super().__init__(message)
        #: The checkpoint that contradicts, a signed note, and when it says that it was signed.
        self.shown = shown
        self.signed_at_s = signed_at_s
