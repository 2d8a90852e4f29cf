"""Ask a borough's node, by HTTPS and with a token, for the sections of an agency, and tell it what became of them.

* TLS 1.3, no redirects, no proxies from the environment: the token goes to the host of the URL and nowhere else.
* What a node answers is bounded and strict. What it says for now (429, 5xx, nothing) is told from what will not change.

Source: docs/openapi-agencies.json.
"""

import http.client
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from exchange.agency.errors import FetchRefused, NotNow
from exchange.schema.wire import KindText

T = TypeVar("T")

_MOST_BYTES: Final = 32 * 1024 * 1024
_PATIENCE_S: Final = 30.0
_MOST_RETRY_S: Final = 300.0


class Who(msgspec.Struct, frozen=True):
    """Which agency this is to the node, and which node it is."""

    kind: KindText
    origin: str


class Fetched(msgspec.Struct, frozen=True):
    """The events that wait, as they came, and the cursor behind them."""

    state: str
    after: str
    items: tuple[msgspec.Raw, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Node:
    """A node that agencies ask.

    Raises:
        FetchRefused: the URL is none to which a token may be sent.
    """

    url: str
    token: str
    ca_file: str | None = None

    def __post_init__(self) -> None:
        _checked(self.url)

    def who(self) -> Who:
        """Ask which agency the token is of.

        Raises:
            NotNow: the node cannot be reached, or asks to come later.
            FetchRefused: the token is not good, or that is no node.
        """
        return _read(self._ask("GET", "/v1/agency", 0), Who)

    def fetch(self, after: str, wait_s: int) -> Fetched:
        """Ask for what is past a cursor; an empty one begins anew.

        Raises:
            NotNow: the node cannot be reached, or asks to come later.
            FetchRefused: the token is not good, or that is no node.
        """
        query = f"wait={wait_s}" + (f"&after={after}" if after else "")
        return _read(self._ask("GET", f"/v1/agency/sections?{query}", wait_s), Fetched)

    def says(self, event_id: str, verb: str) -> None:
        """Say of a section that it is `delivered`, or `refused`; said before, it is said.

        Raises:
            NotNow: the node cannot be reached, or asks to come later.
            FetchRefused: the token is not good, or that is no node.
        """
        self._ask("POST", f"/v1/agency/sections/{event_id}/{verb}", 0, or_none=True)

    def _ask(self, method: str, path: str, wait_s: float, *, or_none: bool = False) -> bytes:
        url = _checked(self.url)
        connection = self._connection(url, wait_s + _PATIENCE_S)
        try:
            headers = {"authorization": f"Bearer {self.token}"}
            connection.request(method, url.path.rstrip("/") + path, headers=headers)
            answer = connection.getresponse()
            data = answer.read(_MOST_BYTES + 1)
            status, after = answer.status, answer.headers.get("retry-after", "")
        except (OSError, http.client.HTTPException) as error:
            raise NotNow(f"the node cannot be reached: {_why(error)}", 0.0) from None
        finally:
            connection.close()
        if status == 404 and or_none:
            return b""
        if status in (429, 408) or status >= 500:
            asked_s = float(after) if after.isascii() and after.isdigit() and len(after) < 7 else 0.0
            raise NotNow(f"the node answered {status}", min(asked_s, _MOST_RETRY_S))
        if status == 401:
            raise FetchRefused("the node does not know this token: it was revoked, or has expired")
        if status != 200 or len(data) > _MOST_BYTES:
            raise FetchRefused(f"the node answered {status}" if status != 200 else "the node's answer is too large")
        return data

    def _connection(self, url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
        host = url.hostname or ""
        if url.scheme == "http":
            return http.client.HTTPConnection(host, url.port, timeout=timeout_s)
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return http.client.HTTPSConnection(host, url.port, timeout=timeout_s, context=context)


def _checked(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise FetchRefused("the URL cannot be read") from None
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query or url.fragment:
        raise FetchRefused("the URL must be https://, with a host and without a user or query")
    if url.scheme == "http" and not _is_loopback(url.hostname):
        raise FetchRefused("http:// would show the token to everybody on the way; use https://")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _read(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise FetchRefused("what answers at the URL is no node of the exchange") from None
