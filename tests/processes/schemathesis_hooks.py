"""What schemathesis is to send as an envelope: any bytes."""

from typing import Any

import schemathesis
from hypothesis import strategies as st

ENVELOPE = "application/vnd.exchange.envelope"

schemathesis.openapi.media_type(ENVELOPE, st.binary(max_size=20_000))


@schemathesis.serializer(ENVELOPE)
def as_bytes(_: Any, value: Any) -> bytes:
    """Bytes as they are; what is no bytes, as its text."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
