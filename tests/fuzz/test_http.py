"""Bytes on the sockets of a running node: every answer is one of HTTP with a status that is meant, or none; it goes on.

The node runs in a thread, so that Hypothesis can drive blocking sockets.
"""

import asyncio
import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.node.pair import ENFIELD, Clock, log_lines, running

CANARY = b"Jay-Fictitious-7-Nowhere-Street"
CLOSES_WITHIN_S = 10.0
#: What the listener for peers, and the local API, may say to nonsense. 500 is no answer.
STATUSES = {200, 400, 403, 404, 405, 408, 411, 413, 415, 417, 422, 429}

Place = tuple[str, int] | str


class Served:
    """Where the node listens, and what it has logged."""

    def __init__(self, peers: Place, local: Place, lines: io.StringIO) -> None:
        self.places = {"peers": peers, "local": local}
        self.lines = lines

    def send(self, where: str, data: bytes, *, more: bool = False) -> bytes:
        """Send bytes, and no more unless `more` may come; all that comes back until the node closes."""
        place = self.places[where]
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as caller:
            caller.settimeout(CLOSES_WITHIN_S)
            caller.connect(place)
            # It may close before it has read all.
            with contextlib.suppress(ConnectionError):
                caller.sendall(data)
                if not more:
                    caller.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while piece := caller.recv(65_536):
                    answer += piece
            return answer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("http")
    ready, stop = threading.Event(), threading.Event()
    made: list[Served] = []

    async def run() -> None:
        with log_lines() as lines:
            async with running(Path(directory) / "n", ENFIELD, "exchange.enfield.example", Clock()) as node:
                host, _, port = node.url.removeprefix("http://").partition(":")
                made.append(Served((host, int(port)), str(node.services.configuration.socket_path), lines))
                ready.set()
                await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(60)
    try:
        yield made[0]
    finally:
        stop.set()
        thread.join(60)


METHODS = (b"GET", b"POST", b"DELETE", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"", b"X" * 300)
PATHS = tuple(
    path.encode()
    for path in (
        "/v1/health",
        "/v1/card",
        "/v1/envelopes",
        "/v1/revocations",
        "/v1/log/checkpoint",
        "/v1/log/consistency?first=0&second=1",
        "/v1/log/consistency?first=-1&second=99999999999999999999",
        "/v1/log/consistency?first=%00&second=%ff",
        "/v1/messages/%2e%2e%2f",
        "/v1/messages/none?wait=received&timeout_s=0",
        "/v1/peers/%00",
        "/v1/peers/%ff%fe",
        "/v1/held/9999999999999999999999/release",
        "/v1/tokens",
        "/v1/forms/check",
        "http://elsewhere.example/v1/health",
        "//v1/health",
        "/" + "a" * 9000,
        "*",
        "",
    )
)
NAMES = (
    b"host",
    b"content-length",
    b"content-type",
    b"transfer-encoding",
    b"content-encoding",
    b"expect",
    b"connection",
    b"upgrade",
    b"authorization",
    b"idempotency-key",
    b"x-forwarded-for",
    b"range",
    b"",
    b"a b",
)
VALUES = (
    b"node",
    b"0",
    b"5",
    b"-1",
    b"+5",
    b"5, 5",
    b"99999999999999999999999",
    b"0x5",
    b"chunked",
    b"chunked, chunked",
    b"identity",
    b"gzip",
    b"100-continue",
    b"close",
    b"keep-alive",
    b"upgrade",
    b"websocket",
    b"application/vnd.exchange.envelope",
    b"application/json",
    b"Bearer " + CANARY,
    CANARY,
    b"\xff\xfe",
    b"\x00",
    b"x" * 9000,
    b"",
)
BODIES = (
    b"",
    b"{}",
    b"exchange-envelope/1\n" + bytes(16),
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"-5\r\nabcde\r\n",
    b"5;" + b"x" * 5000 + b"\r\nabcde\r\n0\r\n\r\n",
    CANARY,
    b"[" * 20_000,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is almost one."""
    version = draw(st.sampled_from((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.99", b"", b"http/1.1")))
    lines = [b" ".join((draw(st.sampled_from(METHODS)), draw(st.sampled_from(PATHS)), version))]
    pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES))
    lines += [
        name + draw(st.sampled_from((b": ", b":", b" : "))) + value for name, value in draw(st.lists(pairs, max_size=5))
    ]
    end = draw(st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")))
    request = end.join(lines) + end + end + draw(st.sampled_from(BODIES))
    for _ in range(draw(st.sampled_from((0, 0, 1, 3)))):
        at = draw(st.integers(0, len(request)))
        request = request[:at] + draw(st.binary(max_size=4)) + request[at + draw(st.integers(0, 4)) :]
    return request


def hold(served: Served, where: str, data: bytes) -> None:
    """Send bytes, and hold what comes of it to the rules."""
    started_s = time.monotonic()
    answer = served.send(where, data)
    assert time.monotonic() - started_s < CLOSES_WITHIN_S, "the node does not close what is at its end"
    assert answer == b"" or re.match(rb"HTTP/[0-9]\.[0-9]{1,2} [0-9]{3} ", answer), answer[:200]
    statuses = {int(found) for found in re.findall(rb"(?m)^HTTP/[0-9.]+ ([0-9]{3}) ", answer)} - {100}
    assert statuses <= STATUSES, (statuses, answer[:500])
    assert CANARY not in answer, "what was sent is repeated"
    assert len(answer) < 1024 * 1024
    assert "request failed" not in served.lines.getvalue()
    assert CANARY.decode() not in served.lines.getvalue()


@pytest.mark.parametrize("where", ["peers", "local"])
def test_no_bytes_on_a_socket_lead_to_a_failure(served: Served, where: str) -> None:
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @example(b"GET /v1/health HTTP/1.1\r\nhost: node\r\n\r\n" * 20)
    @example(b"POST /v1/tokens HTTP/1.1\r\nhost: node\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}")
    @example(
        b"POST /v1/envelopes HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    @example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    @example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    @given(requests() | st.binary(max_size=300))
    def run(data: bytes) -> None:
        hold(served, where, data)

    run()
    asked = b"GET /v1/health HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n"
    assert b" 200 " in served.send(where, asked, more=True).partition(b"\r\n")[0]
