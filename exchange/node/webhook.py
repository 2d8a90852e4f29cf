"""Webhooks: CloudEvents 1.0 in JSON, signed as Standard Webhooks has it: `v1` (HMAC-SHA256) and `v1a` (Ed25519).

Each secret that is in force signs, then the node's key for webhooks: who verifies takes the one that it knows.

A delivery keeps its id through all attempts, so that a receiver can tell a second attempt from a second section.
Sources: standardwebhooks.com specification; CloudEvents 1.0 JSON event format.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from exchange.crypto.names import context
from exchange.crypto.webhook_key import WebhookKey

_PREFIX: Final = "whsec_"
#: Where an agency names the secret by which it verified.
SECRET_HEADER: Final = "webhook-secret-id"  # noqa: S105 - a name
#: A second delivery of what was accepted before, which an admin asked for. Not signed: it only tells.
REPLAY_HEADER: Final = "webhook-replay"


def new_secret() -> str:
    """A webhook secret, as Standard Webhooks writes it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def secret_id(secret: str) -> str:
    """The name of a secret. It is no part of a webhook: who names it has the secret, or was given the name with it."""
    digest = hashlib.sha256(context("webhook-secret", _key(secret))).hexdigest()
    return f"whid_{digest[:16]}"


def answer_digest(secret: str, body: bytes) -> str:
    """What tells one answer from another, and says nothing of either to those who do not have the secret."""
    return hmac.new(_key(secret), context("webhook-answer", body), hashlib.sha256).hexdigest()[:16]


def event_body(event_id: str, event_type: str, source: str, subject: str, at: datetime, data: dict[str, Any]) -> bytes:
    """A CloudEvents structured-mode event."""
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "type": event_type,
            "source": f"https://{source}",
            "subject": subject,
            "time": at,
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def test_data(kind: str, area: str, message_id: str) -> dict[str, Any]:
    """The data of a synthetic section, about nobody. Its text has what is lost where a body is not kept as bytes."""
    return {
        "test": True,
        "agency": kind,
        "message_id": message_id,
        "section": "test",
        "from": area,
        "to": area,
        "urgent": False,
        "content": {"text": 'This is a test, about nobody: Zoë & Siân’s <£5> "ŵ"/+.'},
    }


def signed_message(event_id: str, timestamp_s: int, body: bytes) -> bytes:
    """The bytes that are signed."""
    return f"{event_id}.{timestamp_s}.".encode() + body


def signed_headers(
    by: Sequence[str], key: WebhookKey | None, event_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """The headers that prove who sent `body`, and when: one by each secret, the newest first, and the key's."""
    signed = signed_message(event_id, timestamp_s, body)
    signatures = [f"v1,{_base64(hmac.new(_key(secret), signed, hashlib.sha256).digest())}" for secret in by]
    if key is not None:
        signatures.append(f"v1a,{_base64(key.sign(signed))}")
    return {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_PREFIX))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
