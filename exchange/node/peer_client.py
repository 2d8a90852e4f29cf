"""The client's side of the peer API. TLS is always verified; there is no option to skip it.

A peer names its own URL, and may name another at any time. So it cannot be believed to be harmless:

* Connections are made to globally routable addresses, and to networks that the admin named for that peer.
* A node whose own URL is on loopback is on trial, and reaches peers on loopback.
* Without TLS, loopback alone.

A peer whose card names pins is held to them, and is shown this node's certificate. Of one without, an authority vouches
for the name: it may be a proxy, which is not to learn who calls.
"""

import io
import json
import ssl
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Meta

from exchange.crypto.envelope import MAX_ENVELOPE_BYTES
from exchange.node.cards import parse_card_file, peer_card
from exchange.node.config import is_loopback, is_node_url
from exchange.node.egress import LOOPBACK, Network, guarded_connector, parse_networks, why_unreachable
from exchange.node.errors import IdentityRevoked, NotNow
from exchange.node.revocation import is_revocation
from exchange.node.services import Services
from exchange.node.tls import calling_context
from exchange.schema.card_file import VerifiedCard
from exchange.schema.wire import Card, HashBytes
from exchange.store.peers import PeerRow

ENVELOPE_TYPE: Final = "application/vnd.exchange.envelope"
_LARGE_BYTES: Final = 256 * 1024


class ConsistencyAnswer(msgspec.Struct, frozen=True):
    """What `GET /v1/log/consistency` answers."""

    first: int
    second: int
    path: Annotated[tuple[HashBytes, ...], Meta(max_length=64)]


class _Problem(msgspec.Struct, frozen=True):
    code: Annotated[str, Meta(max_length=80)] = ""
    holds: Annotated[int, Meta(ge=0, lt=2**53)] | None = None


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """An HTTP response, bounded."""

    status: int
    body: bytes
    code: str
    retry_after_s: float
    #: The size of this node's log from which a consistency proof is awaited.
    holds: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node says it is, and what the admin allows for it: a CA file, and networks as a JSON list."""

    url: str
    ca_file: str | None
    networks: str = "[]"
    pins: tuple[bytes, ...] = ()


def place_of(row: PeerRow, card: Card) -> Place:
    """Where a registered peer is."""
    return Place(card.url, row.ca_file, row.networks, card.tls_spki_sha256)


class AnswerTooLarge(NotNow):
    """What was answered is larger than it may be; no more of it was read."""


class PeerClient:
    """Talks to the public listeners of peers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._pinned_contexts: dict[tuple[bytes, ...], ssl.SSLContext] = {}
        self._sessions: dict[tuple[bool, tuple[Network, ...]], aiohttp.ClientSession] = {}
        own_host = urlsplit(services.configuration.tables.node.url).hostname or ""
        self._always: tuple[Network, ...] = LOOPBACK if is_loopback(own_host) else ()

    async def close(self) -> None:
        """Close the connections to peers."""
        for session in self._sessions.values():
            await session.close()

    def tls(self, ca_file: str | None) -> ssl.SSLContext:
        """A context that trusts the system's roots, or only the CA in a file."""
        found = self._contexts.get(ca_file or "")
        if found is None:
            found = ssl.create_default_context(cafile=ca_file)
            found.minimum_version = ssl.TLSVersion.TLSv1_3
            self._contexts[ca_file or ""] = found
        return found

    async def post_envelope(self, row: PeerRow, card: Card, envelope: bytes) -> PeerAnswer:
        """POST an envelope.

        Raises:
            NotNow: the peer cannot be reached.
        """
        place = place_of(row, card)
        return await self._request(row.origin, place, "POST", "/v1/envelopes", envelope)

    async def fetch_consistency(self, row: PeerRow, first: int, second: int) -> list[bytes]:
        """Ask a peer for the consistency proof between two sizes of its log.

        Raises:
            NotNow: the peer cannot be reached, or does not answer that.
        """
        path = f"/v1/log/consistency?first={first}&second={second}"
        place = place_of(row, peer_card(row))
        answer = await self._request(row.origin, place, "GET", path)
        if answer.status == 404 and answer.code == "not-found":
            # A log that never had that size cannot extend what was seen of it: an empty proof shows so.
            return []
        if answer.status != 200:
            raise NotNow(f"{row.origin} answered {answer.status} when asked for a consistency proof")
        return read_consistency(row.origin, answer.body)

    async def fetch_card(self, place: Place) -> VerifiedCard:
        """The card that a node serves: it proves itself, and nothing says yet whose it is.

        Raises:
            NotNow: the node cannot be reached.
            RequestInvalid: what it serves is no card.
        """
        answer = await self._request(place.url, place, "GET", "/v1/card")
        if answer.status != 200:
            raise NotNow(f"{place.url} answered {answer.status} when asked for its card")
        if is_revocation(answer.body):
            raise IdentityRevoked(f"{place.url} says that its identity is revoked", answer.body)
        return parse_card_file(answer.body)

    async def post(self, place: Place, path: str, content_type: str, body: bytes) -> PeerAnswer:
        """POST to a node that may not be registered.

        Raises:
            NotNow: it cannot be reached.
        """
        return await self._request(place.url, place, "POST", path, body, content_type)

    async def fetch_file(self, place: Place, path: str, most_bytes: int) -> PeerAnswer:
        """A file that is served to everybody, such as a directory's.

        Raises:
            NotNow: it cannot be had.
            AnswerTooLarge: it is larger than `most_bytes`.
        """
        return await self._request(place.url, place, "GET", path, most_bytes=most_bytes)

    async def _request(
        self,
        name: str,
        place: Place,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = ENVELOPE_TYPE,
        most_bytes: int = MAX_ENVELOPE_BYTES,
    ) -> PeerAnswer:
        services = self._services
        if not is_node_url(place.url):
            raise NotNow(f"{name} cannot be reached: its URL is not https://HOST")
        timeout = aiohttp.ClientTimeout(total=services.configuration.tables.delivery.peer_timeout_s)
        headers = {"content-type": content_type} if body is not None else {}
        try:
            async with self._session(place).request(
                method,
                place.url.rstrip("/") + path,
                # All at once, a large body would hold up the loop.
                data=io.BytesIO(body) if body is not None and len(body) > _LARGE_BYTES else body,
                headers=headers,
                ssl=self._pinned(place.pins) if place.pins else self.tls(place.ca_file),
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                data = await _read_bounded(answer, most_bytes)
                retry_after = answer.headers.get("retry-after", "")
                said = _Problem()
                if answer.status != 200 and answer.content_type == "application/problem+json":
                    said = _problem(data)
                seconds = retry_after.isascii() and retry_after.isdigit()
                return PeerAnswer(answer.status, data, said.code, float(retry_after) if seconds else 0.0, said.holds)
        except TimeoutError:
            raise NotNow(f"{name} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = why_unreachable(error)
            # In TLS 1.3 a client learns only after its handshake that the other side does not admit it.
            if place.pins and not isinstance(error, aiohttp.ClientConnectorError):
                reason += "; this node may not be verified there"
            raise NotNow(f"{name} cannot be reached: {reason}") from None
        except ValueError:
            # A host that is no name, or a header that aiohttp cannot read: no answer of a peer may stop what asks.
            raise NotNow(f"{name} cannot be reached, or answers what cannot be read") from None

    def _pinned(self, pins: tuple[bytes, ...]) -> ssl.SSLContext:
        found = self._pinned_contexts.get(pins)
        if found is None:
            found = calling_context(pins, self._services.certificates.client)
            self._pinned_contexts[pins] = found
        return found

    def _session(self, place: Place) -> aiohttp.ClientSession:
        """The connections to those who may be in the same networks; one to another peer is no way around the guard."""
        has_tls = urlsplit(place.url).scheme == "https"
        allowed = (*self._always, *parse_networks(json.loads(place.networks)))
        if not has_tls:
            allowed = tuple(network for network in allowed if network.is_loopback)
        session = self._sessions.get((has_tls, allowed))
        if session is None:
            # Each lane makes few attempts at once: a limit on all would let some who do not answer stop the others.
            connector = guarded_connector(allowed, elsewhere=has_tls, limit=0, limit_per_host=8)
            session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
            )
            self._sessions[has_tls, allowed] = session
        return session


def read_consistency(name: str, data: bytes) -> list[bytes]:
    """The proof that a peer gave.

    Raises:
        NotNow: it is none.
    """
    try:
        return list(msgspec.json.decode(data, type=ConsistencyAnswer).path)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise NotNow(f"{name} gave a consistency proof that cannot be read") from None


async def _read_bounded(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    chunks, size_bytes = [], 0
    async for chunk in answer.content.iter_chunked(65_536):
        size_bytes += len(chunk)
        if size_bytes > most_bytes:
            raise AnswerTooLarge("the answer is too large")
        chunks.append(chunk)
    return b"".join(chunks)


def _problem(data: bytes) -> _Problem:
    try:
        return msgspec.json.decode(data, type=_Problem)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _Problem()
