"""A man in the middle for the demo: he answers at the URLs of two nodes, hands out cards of his own, and passes on the
rest. The standard library and nothing else.

He prints his ports; reads, from standard input, a line of JSON whenever he is to behave otherwise; and prints a line
for each request, with the body that he passed on.
"""

import base64
import json
import sys
import threading
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


class _Place(ThreadingHTTPServer):
    """Where one of the two nodes is believed to be."""

    daemon_threads = True
    #: Where the node really is, and the card file that is handed out in place of its own.
    target = ""
    card: Path | None = None


class _Middle(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    printing = threading.Lock()

    def do_GET(self) -> None:
        place = self._place()
        if self.path == "/v1/card" and place.card is not None:
            self._say({"path": self.path, "own": True})
            self._answer(200, [("content-type", "application/json")], place.card.read_bytes())
        else:
            self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def _pass_on(self, body: bytes) -> None:
        target = urlsplit(self._place().target)
        connection = HTTPConnection(target.hostname or "", target.port or 80, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        try:
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            self._answer(502, [], b"")
            return
        finally:
            connection.close()
        self._say({"path": self.path, "own": False, "body": base64.b64encode(body).decode()})
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        self._answer(answer.status, kept, content)

    def _answer(self, status: int, headers: Sequence[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _place(self) -> _Place:
        assert isinstance(self.server, _Place)  # noqa: S101 - made below
        return self.server

    def _say(self, line: dict[str, Any]) -> None:
        with self.printing:
            print(json.dumps(line), flush=True)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends."""
    places = [_Place(("127.0.0.1", 0), _Middle) for _ in range(2)]
    print(json.dumps({"ports": [place.server_address[1] for place in places]}), flush=True)
    for place in places:
        threading.Thread(target=place.serve_forever, daemon=True).start()
    for line in sys.stdin:
        for place, wanted in zip(places, json.loads(line), strict=True):
            place.target = wanted["target"]
            place.card = Path(wanted["card"]) if wanted["card"] else None
        print(json.dumps({"path": "", "own": False}), flush=True)


if __name__ == "__main__":
    main()
