"""The HTTP end of webhooks: one request to an agency, and what may be known of its answer.

* The status counts. Of the body a little is read, for a short time: an agency may send 100 MB, or a byte a minute.
* Nothing of a body is kept but its kind, length, keyed digest, and the `code` of a problem document: it may repeat the
  section that it answers. The answer to a challenge alone is given to who asked.
* Connections pass the guard. With a proxy the guard sees the proxy's address alone, and the proxy looks up names.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from exchange.crypto.webhook_key import WebhookKey
from exchange.node.egress import Network, guarded_connector, parse_networks, refuse_literal, why_unreachable
from exchange.node.services import Services
from exchange.node.webhook import REPLAY_HEADER, SECRET_HEADER, answer_digest, signed_headers
from exchange.schema.agency_keys import MOST_BYTES
from exchange.store.agencies import AgencyRow
from exchange.store.endpoints import EndpointRow

_MOST_BODY_BYTES: Final = 4096
_MOST_BODY_S: Final = 2.0
_HANDSHAKE_S: Final = 5.0
_REQUEST_RATE: Final = 6000
#: An agency may write anything into a header: of its kinds of content only these are named.
_KINDS: Final = frozenset(
    {
        "application/json",
        "application/problem+json",
        "application/octet-stream",
        "application/xml",
        "text/html",
        "text/plain",
        "text/xml",
    }
)
_CODE: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+){0,5}")
_MOST_CODE: Final = 40


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. `error` says why it was not accepted; `asked_s` is Retry-After."""

    at_ms: int
    duration_ms: int
    status: int | None = None
    error: str | None = None
    asked_s: float = 0.0
    content_type: str | None = None
    size_bytes: int | None = None
    digest: str | None = None
    code: str | None = None
    #: The secret by which the agency says that it verified.
    named_secret: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the agency has it now."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Handshake:
    """What an endpoint said when it was asked whether it wants webhooks; `why` where that is not a yes."""

    state: str
    why: str | None = None
    rate_per_minute: int | None = None


class AgencyClient:
    """Sends requests to agencies."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions: dict[tuple[object, ...], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close the connections to agencies."""
        for session in self._sessions.values():
            await session.close()

    async def post(
        self,
        agency: AgencyRow,
        endpoint: EndpointRow,
        secrets: Sequence[str],
        key: WebhookKey | None,
        event_id: str,
        body: bytes,
        *,
        replay: bool = False,
    ) -> Answer:
        """POST one event."""
        answer, _ = await self._request(agency, endpoint, secrets, key, event_id, body, _MOST_BODY_BYTES, replay=replay)
        return answer

    async def ask(
        self,
        agency: AgencyRow,
        endpoint: EndpointRow,
        secrets: Sequence[str],
        key: WebhookKey | None,
        event_id: str,
        body: bytes,
    ) -> tuple[Answer, bytes]:
        """POST a challenge; return also what was said to it, as far as an answer can be long."""
        return await self._request(agency, endpoint, secrets, key, event_id, body, MOST_BYTES)

    async def _request(
        self,
        agency: AgencyRow,
        endpoint: EndpointRow,
        secrets: Sequence[str],
        key: WebhookKey | None,
        event_id: str,
        body: bytes,
        most_bytes: int,
        *,
        replay: bool = False,
    ) -> tuple[Answer, bytes]:
        services = self._services
        at_ms, began_s = services.now_ms(), time.monotonic()
        headers = signed_headers(secrets, key, event_id, at_ms // 1000, body)
        if replay:
            headers[REPLAY_HEADER] = "true"
        own_s = services.configuration.tables.delivery.agency_timeout_s
        timeout_s = endpoint.timeout_ms / 1000 if endpoint.timeout_ms is not None else own_s
        try:
            async with self._session(agency, endpoint).post(
                agency.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                proxy=self._proxy(endpoint),
            ) as answer:
                data = await _a_little(answer, most_bytes)
                spent_ms = round((time.monotonic() - began_s) * 1000)
                digest = answer_digest(secrets[0], data[:_MOST_BODY_BYTES])
                return _read(agency.name, answer, data, at_ms, spent_ms, digest), data
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError) as error:
            # A header or a URL that aiohttp cannot read is a ValueError; nothing of it is repeated.
            spent_ms = round((time.monotonic() - began_s) * 1000)
            return Answer(
                at_ms, spent_ms, error=f"agency {agency.name} cannot be reached: {why_unreachable(error)}"
            ), b""

    async def handshake(self, agency: AgencyRow, endpoint: EndpointRow) -> Handshake:
        """Ask an endpoint whether it wants webhooks of this node (CloudEvents, HTTP webhooks 1.0, section 4)."""
        origin = self._services.configuration.origin
        try:
            async with self._session(agency, endpoint).options(
                agency.url,
                headers={"webhook-request-origin": origin, "webhook-request-rate": str(_REQUEST_RATE)},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_HANDSHAKE_S),
                proxy=self._proxy(endpoint),
            ) as answer:
                status, headers = answer.status, answer.headers
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError) as error:
            return Handshake("unreachable", why_unreachable(error))
        allowed = headers.get("webhook-allowed-origin", "").strip()
        if not allowed:
            return Handshake("unsupported", f"it answered {status} without WebHook-Allowed-Origin")
        if not 200 <= status < 300:
            return Handshake("refused", f"it answered {status}")
        if allowed != "*" and allowed.lower() != origin:
            return Handshake("refused", "it allows another origin than this node")
        rate = headers.get("webhook-allowed-rate", "").strip()
        number = int(rate) if re.fullmatch(r"[0-9]{1,9}", rate) else 0
        return Handshake("allowed", None, number if 0 < number < _REQUEST_RATE else None)

    def _proxy(self, endpoint: EndpointRow) -> str | None:
        """The one proxy; an empty text at the agency means none."""
        if endpoint.proxy is not None:
            return endpoint.proxy or None
        return self._services.configuration.tables.delivery.agency_proxy or None

    def _session(self, agency: AgencyRow, endpoint: EndpointRow) -> aiohttp.ClientSession:
        proxy = self._proxy(endpoint)
        # A certificate that was renewed is taken up without a restart.
        files = [file for file in (agency.ca_file, endpoint.certificate) if file]
        dates = tuple(os.stat(file).st_mtime_ns for file in files)
        name = (agency.id, agency.url, agency.networks, agency.ca_file, endpoint.certificate, proxy, dates)
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = aiohttp.ClientSession(
                connector=self._connector(agency, endpoint, proxy),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return session

    def _connector(self, agency: AgencyRow, endpoint: EndpointRow, proxy: str | None) -> aiohttp.TCPConnector:
        networks: tuple[Network, ...] = parse_networks(json.loads(agency.networks))
        url = urlsplit(agency.url)
        # Without TLS whoever is on the way reads the section: only networks that the admin named will do.
        elsewhere = url.scheme == "https"
        if proxy is not None:
            if not elsewhere:
                raise ValueError("a proxy would read the section")
            refuse_literal(url.hostname or "", networks)
            networks, elsewhere = (ipaddress.ip_network(urlsplit(proxy).hostname or ""),), False
        context = ssl.create_default_context(cafile=agency.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if endpoint.certificate is not None:
            context.load_cert_chain(endpoint.certificate, password=lambda: "")
        return guarded_connector(networks, elsewhere=elsewhere, ssl=context, limit=8)


async def _a_little(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The beginning of a body; what does not come soon, or is cut, changes nothing of the status."""
    data = bytearray()
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_MOST_BODY_S):
            while len(data) < most_bytes:
                part = await answer.content.read(most_bytes - len(data))
                if not part:
                    break
                data += part
    return bytes(data)


def _read(kind: str, answer: aiohttp.ClientResponse, data: bytes, at_ms: int, duration_ms: int, digest: str) -> Answer:
    status, headers = answer.status, answer.headers
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    named = headers.get(SECRET_HEADER)
    error = None
    if not 200 <= status < 300:
        error = f"agency {kind} answered {status}"
        if 300 <= status < 400:
            error += ": redirects are not followed"
    return Answer(
        at_ms,
        duration_ms,
        status,
        error,
        0.0 if error is None else retry_after_s(headers.get("retry-after"), at_ms / 1000),
        (content_type if content_type in _KINDS else "other") if content_type else None,
        answer.content_length if answer.content_length is not None else len(data),
        digest,
        _code(data) if content_type == "application/problem+json" else None,
        named if named is not None and re.fullmatch(r"whid_[0-9a-f]{16}", named) else None,
    )


def _code(data: bytes) -> str | None:
    try:
        code = msgspec.json.decode(data, type=_Problem).code
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return code if len(code) <= _MOST_CODE and _CODE.fullmatch(code) else None


def retry_after_s(value: str | None, now_s: float) -> float:
    """What Retry-After asks for, in seconds: it is a number or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return 0.0
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,15}", value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
