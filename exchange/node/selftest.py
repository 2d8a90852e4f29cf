"""What an agency's technician checks a receiver with: a synthetic event, signed, and why another does not verify.

* The sample is about nobody. It follows from its id, which holds the time: it is known again when it is given back, and
  nothing of it is kept.
* What is given is looked at in memory and kept nowhere: not in the store, the log or an answer.
"""

import asyncio
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from exchange.node.endpoints import Endpoints
from exchange.node.errors import RequestInvalid
from exchange.node.services import Services
from exchange.node.webhook import event_body, signed_headers, signed_message, test_data
from exchange.schema.events import TEST
from exchange.schema.selftest.diagnosis import TOLERANCE_S, Diagnosis, Known, Receiver, Sample, diagnose
from exchange.schema.selftest.headers import parse_headers, seconds_of
from exchange.store.agencies import AgencyRow, agency, agency_named
from exchange.store.endpoints import EndpointRow, endpoint_of
from exchange.store.transaction import Transaction

#: The ids of samples begin so; the rest is the time, in seconds.
_ID: Final = re.compile(r"evt_5e1f7e57([0-9a-f]{24})")
_MOST_S: Final = 2**33


@dataclass(frozen=True, slots=True)
class SignedSample:
    """A synthetic event for an agency, with the headers that prove it."""

    agency_id: str
    name: str
    url: str
    event_id: str
    timestamp_s: int
    body: bytes
    headers: dict[str, str]

    @property
    def signed(self) -> bytes:
        """The bytes that are signed."""
        return signed_message(self.event_id, self.timestamp_s, self.body)

    @property
    def expires_s(self) -> int:
        """Until when a receiver takes it."""
        return self.timestamp_s + TOLERANCE_S

    @property
    def curl(self) -> str:
        """The command that sends it to a receiver."""
        headers = [part for item in self.headers.items() for part in ("--header", shlex.quote(": ".join(item)))]
        return " ".join(
            ["curl --include", *headers, "--data-binary", shlex.quote(self.body.decode()), shlex.quote(self.url)]
        )


class SelfTest:
    """Signs samples, and says why a webhook does not verify."""

    def __init__(self, services: Services, endpoints: Endpoints) -> None:
        self._services = services
        self._endpoints = endpoints

    async def sample(self, name: str) -> SignedSample:
        """A fresh sample for the agency of that id or name.

        Raises:
            NotFound: there is none.
        """
        row, endpoint = await self._find(name)
        secrets = self._endpoints.secrets(row, endpoint)
        if not secrets:
            raise RequestInvalid(f"no webhooks go to agency {row.name}: there is nothing to verify")
        at_s = self._services.now_ms() // 1000
        event_id = f"evt_5e1f7e57{at_s:024x}"
        body = self._body(row, event_id, at_s)
        headers = signed_headers(secrets, await self._endpoints.key(), event_id, at_s, body)
        return SignedSample(row.id, row.name, row.url, event_id, at_s, body, headers)

    async def diagnose(
        self, name: str, headers: str, body: bytes, secret: str | None, computed: str | None, clock: str | None
    ) -> Diagnosis:
        """Say what is wrong with what a receiver got; `headers` as somebody pasted them.

        Raises:
            NotFound: there is no such agency.
            RequestInvalid: there are no headers, or the clock's time cannot be read.
        """
        row, endpoint = await self._find(name)
        pairs = parse_headers(headers)
        if not pairs:
            raise RequestInvalid("the headers cannot be read", hint="Give one a line, such as webhook-id: evt_...")
        clock_s = seconds_of(clock) if clock else None
        if clock and clock_s is None:
            hint = "Such as 2026-11-23T16:00:00Z, or seconds since 1970."
            raise RequestInvalid("the receiver's time cannot be read", hint=hint)

        def sample_of(event_id: str) -> Sample | None:
            match = _ID.fullmatch(event_id)
            if match is None or (at_s := int(match[1], 16)) > _MOST_S:
                return None
            return Sample(at_s, self._body(row, event_id, at_s))

        known = Known(tuple(self._endpoints.secrets(row, endpoint)), (await self._endpoints.key()).public)
        receiver = Receiver(secret or None, computed or None, clock_s)
        now_s = self._services.now_ms() / 1000
        diagnosis = await asyncio.to_thread(diagnose, pairs, body, known, receiver, now_s, sample_of)
        self._services.counters.add("webhooks_diagnosed")
        return diagnosis

    async def _find(self, name: str) -> tuple[AgencyRow, EndpointRow]:
        async def view(tx: Transaction) -> tuple[AgencyRow, EndpointRow]:
            row = await agency_named(tx, name) or await agency(tx, name)
            return row, await endpoint_of(tx, row.id)

        return await self._services.store.read(view)

    def _body(self, row: AgencyRow, event_id: str, at_s: int) -> bytes:
        at, node = datetime.fromtimestamp(at_s, UTC), self._services.configuration
        message_id = f"{at_s * 1000:012x}"
        data = test_data(row.name, node.tables.node.area, f"{message_id[:8]}-{message_id[8:]}-7000-8000-000000000000")
        return event_body(event_id, TEST, node.origin, row.id, at, data)


def describe_sample(sample: SignedSample) -> dict[str, Any]:
    """A sample as the API shows it; what is signed is text and a hex dump."""
    return {
        "agency": sample.name,
        "url": sample.url,
        "id": sample.event_id,
        "timestamp": sample.timestamp_s,
        "expires_at": datetime.fromtimestamp(sample.expires_s, UTC),
        "headers": sample.headers,
        "body": sample.body.decode(),
        "signed": sample.signed.decode(),
        "signed_hex": hex_dump(sample.signed),
        "curl": sample.curl,
    }


def hex_dump(data: bytes) -> str:
    """Bytes by sixteen: where they stand, in hexadecimal, and as ASCII."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{at:08x}  {part[:8].hex(' '):23}  {part[8:].hex(' '):23}  {text}")
    return "\n".join(lines)
