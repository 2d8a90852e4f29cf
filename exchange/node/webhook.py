"""Webhooks: CloudEvents 1.0 in JSON, signed by the Standard Webhooks convention (`v1`, HMAC-SHA256).

A delivery keeps its id through all attempts, so that a receiver can tell a second attempt from a second section.
Sources: standardwebhooks.com specification; CloudEvents 1.0 JSON event format.
"""

import base64
import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Any, Final

import msgspec

_PREFIX: Final = "whsec_"


def new_secret() -> str:
    """A webhook secret, as Standard Webhooks writes it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


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


def signed_headers(secret: str, event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sent `body`, and when."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{signature}",
    }
