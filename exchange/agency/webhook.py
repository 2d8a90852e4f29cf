"""Who posted a request, and when: Standard Webhooks, `v1` (HMAC-SHA256) and `v1a` (Ed25519).

* A header may hold several signatures; one that holds is enough, so that a secret can be changed without a gap.
* The time is signed. What is more than five minutes old or ahead is refused, so that a recording is of no use.
* Nothing of the body is looked at before.

Source: the Standard Webhooks specification; docs/protocol.md, "Webhooks".
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from exchange.agency.errors import WebhookRefused
from exchange.crypto.errors import SignatureError
from exchange.crypto.secret import Secret
from exchange.crypto.webhook_key import PUBLIC_PREFIX, verify_v1a

TOLERANCE_S: Final = 300
_SECRET: Final = "whsec_"  # noqa: S105 - the prefix of one
_ID: Final = re.compile(r"[!-~]{1,200}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES: Final = 16


@dataclass(frozen=True, slots=True)
class WebhookKey:
    """What checks signatures: a shared secret for `v1`, or a public key for `v1a`."""

    scheme: str
    key: Secret


def parse_webhook_key(text: str) -> WebhookKey:
    """Read a secret (`whsec_...`) or a public key (`whpk_...`).

    Raises:
        WebhookRefused: it is neither.
    """
    for prefix, scheme in ((_SECRET, "v1"), (PUBLIC_PREFIX, "v1a")):
        if text.startswith(prefix):
            try:
                key = base64.b64decode(text.removeprefix(prefix), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) == 32 or (scheme == "v1" and 24 <= len(key) <= 64):
                return WebhookKey(scheme, Secret(key))
    raise WebhookRefused("that is neither a webhook secret nor the public key of one")


def verify_webhook(headers: Mapping[str, str], body: bytes, keys: Sequence[WebhookKey], now_s: float) -> str:
    """Check who posted `body`; `headers` has its names in lower case. Returns the event's id.

    Raises:
        WebhookRefused: a header is missing or malformed, it is too old or ahead, or no signature holds.
    """
    event_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _ID.fullmatch(event_id) or not _TIMESTAMP.fullmatch(stamp):
        raise WebhookRefused("the request is no signed webhook")
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        raise WebhookRefused("the webhook was signed more than five minutes ago, or ahead")
    signed = f"{event_id}.{stamp}.".encode() + body
    for text in headers.get("webhook-signature", "").split(" ")[:_MOST_SIGNATURES]:
        scheme, _, value = text.partition(",")
        try:
            signature = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
        if any(key.scheme == scheme and _holds(key, signature, signed) for key in keys):
            return event_id
    raise WebhookRefused("no signature of the webhook holds")


def _holds(key: WebhookKey, signature: bytes, signed: bytes) -> bool:
    if key.scheme == "v1":
        return hmac.compare_digest(hmac.new(key.key.reveal(), signed, hashlib.sha256).digest(), signature)
    try:
        verify_v1a(key.key.reveal(), signed, signature)
    except SignatureError:
        return False
    return True
