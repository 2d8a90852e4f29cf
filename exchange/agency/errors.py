"""What can go wrong at an agency. Messages hold no content and no keys."""

from typing import ClassVar

from exchange.errors import ExchangeError


class AgencyError(ExchangeError):
    """Something that came from a node cannot be taken."""

    code: ClassVar[str] = "agency"


class WebhookRefused(AgencyError):
    """A request is not proven to be of the borough's node, or is too old."""

    code = "webhook-refused"
    hint = "Check the webhook secret that `exchange agency add` printed, and this machine's clock."


class EventInvalid(AgencyError):
    """A body that was signed is not an event that this release knows."""

    code = "event-invalid"
    hint = "Use a release that is as new as the node's."


class NotOpened(AgencyError):
    """A sealed section does not open, or is not what its sender signed."""

    code = "not-opened"
    hint = "Nothing was taken. Ask the sending borough to send it again, and the admins of your node what they see."


class KeyNotHere(NotOpened):
    """A section is sealed to a key that is not in the key file."""

    code = "key-not-here"
    hint = "Use the key file with the older keys, or ask the sending borough to send it again."


class OtherBorough(NotOpened):
    """A section is of or for another borough or agency than it must be."""

    code = "other-borough"


class SenderUnknown(AgencyError):
    """No card of the sender is among those that the agency knows."""

    code = "sender-unknown"
    hint = "Compare the sender's fingerprint with that borough, then put its card into the directory of known cards."


class SenderChanged(AgencyError):
    """The sender has another identity than the one that the agency knows, and does not prove that it passed it on."""

    code = "sender-changed"
    hint = "Do not rely on this. Compare fingerprints with that borough by telephone before you take its new card."


class FetchRefused(AgencyError):
    """A node cannot be asked: the token is not good, or what answers is no node."""

    code = "fetch-refused"
    hint = "Check the URL, and ask your borough for a new token. Nothing was lost: what waits for you waits."


class NotNow(AgencyError):
    """A node cannot be asked for now."""

    code = "try-later"
    hint = "Nothing was lost: what waits for you waits."

    def __init__(self, message: str, asked_s: float) -> None:
        super().__init__(message)
        #: How long the node asked to wait.
        self.asked_s = asked_s


class NodeUnreachable(AgencyError):
    """The borough's node did not answer."""

    code = "node-unreachable"
    hint = "Nothing was said. Say it again later: the same word again is answered as before."


class NodeRefused(AgencyError):
    """The borough's node refused; `refusal` is its code."""

    code = "node-refused"

    def __init__(self, message: str, refusal: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.refusal = refusal
