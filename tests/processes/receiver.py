"""The agencies' end: a real HTTP server, a path for each kind of agency.

Each request is checked by the public `standardwebhooks` package, not by our code, and kept as it came.
"""

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from standardwebhooks import Webhook, WebhookVerificationError

from tests.processes.ports import free_port

_PATIENCE_S: Final = 60.0
#: An answer that never comes.
HANG: Final = 0


@dataclass(frozen=True)
class Request:
    """A request as it came in, and what it was answered with."""

    kind: str
    headers: dict[str, str]
    body: bytes
    answer: int
    #: When it came, in seconds since 1970.
    at_s: float = field(default_factory=time.time, compare=False)

    @property
    def event(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def section(self) -> str:
        """The section that it carries."""
        return str(self.event["data"]["section"])


@dataclass
class Receiver:
    """Takes webhooks; does what it is told to with those of a kind."""

    port: int = field(default_factory=free_port)
    host: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    #: Requests that the public library did not verify, with its reason.
    unproven: list[tuple[Request, str]] = field(default_factory=list)
    #: What to answer instead of 204, by kind.
    answers: dict[str, int] = field(default_factory=dict)
    _secrets: dict[str, str] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _server: "_Server | None" = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, kind: str) -> str:
        """Where an agency of that kind is reached."""
        return f"http://{self.host}:{self.port}/{kind}"

    def know(self, kind: str, secret: str) -> None:
        """Take an agency's webhook secret."""
        with self._changed:
            self._secrets[kind] = secret
            self._changed.notify_all()

    def secret(self, kind: str) -> str:
        """An agency's webhook secret."""
        return self._secrets[kind]

    def accepted(self, kind: str | None = None, message_id: str | None = None) -> list[Request]:
        """The verified requests that were answered with success."""
        with self._changed:
            return [
                request
                for request in self.requests
                if request.answer == 204
                and kind in (None, request.kind)
                and message_id in (None, request.event["data"]["message_id"])
            ]

    def start(self) -> "Receiver":
        """Listen, on the same port each time."""
        self._stopping.clear()
        self._server = _Server((self.host, self.port), _handler(self))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more; nodes find the port closed."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.drop()
            self._server = None

    def take(self, kind: str, headers: dict[str, str], body: bytes) -> int:
        """Verify and record a request; returns the answer."""
        at_s = time.time()
        with self._changed:
            # The first webhook may be here before the command that registered the agency has printed the secret.
            self._changed.wait_for(lambda: kind in self._secrets, timeout=_PATIENCE_S)
            answer = self.answers.get(kind, 204)
            try:
                Webhook(self._secrets[kind]).verify(body, headers)
            except (WebhookVerificationError, KeyError) as error:
                answer = 401
                self.unproven.append((Request(kind, headers, body, answer, at_s), repr(error)))
            self.requests.append(Request(kind, headers, body, answer, at_s))
        if answer == HANG:
            self._stopping.wait(_PATIENCE_S)
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        """End the connections that clients keep for their next request."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """A node that was killed in the middle of a request is nothing to report."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", "-1"))
            if length < 0:  # the connection was cut within the headers
                self.close_connection = True
                return
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(self.path.strip("/"), headers, body)
            if answer == HANG:
                self.close_connection = True
                return
            self.send_response(answer)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
