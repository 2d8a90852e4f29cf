"""What schemathesis is to send as an envelope, to register or to rejoin: any bytes."""

from typing import Any

import schemathesis
from hypothesis import strategies as st

ENVELOPE = "application/vnd.exchange.envelope"
REGISTRATION = "application/vnd.exchange.registration"
PAIRING = "application/vnd.exchange.pairing"
REJOIN = "application/vnd.exchange.rejoin"

for kind in (ENVELOPE, REGISTRATION, PAIRING, REJOIN):
    schemathesis.openapi.media_type(kind, st.binary(max_size=20_000))


@schemathesis.serializer(ENVELOPE, REGISTRATION, PAIRING, REJOIN)
def as_bytes(_: Any, value: Any) -> bytes:
    """Bytes as they are; what is no bytes, as its text."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
