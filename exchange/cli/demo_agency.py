"""A small webhook receiver, one process for each agency of the demo: the standard library and nothing else.

It prints its address, reads its secret from standard input, and prints one line for each section that arrives with
a good signature. It keeps and prints no content.
"""

import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TOLERANCE_S = 300


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    key = b""
    printing = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        good = self._signature_is_good(body)
        if good:
            data = json.loads(body)["data"]
            line = {name: data.get(name) for name in ("message_id", "section", "from", "to", "urgent")}
            with self.printing:
                print(json.dumps(line), flush=True)
        self.send_response(204 if good else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_OPTIONS(self) -> None:
        self.send_response(200)
        self.send_header("webhook-allowed-origin", self.headers.get("webhook-request-origin", "*"))
        self.send_header("content-length", "0")
        self.end_headers()

    def _signature_is_good(self, body: bytes) -> bool:
        event_id, stamp = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "0")
        if not stamp.isdigit() or abs(time.time() - int(stamp)) > _TOLERANCE_S:
            return False
        signed = f"{event_id}.{stamp}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        given = self.headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(expected, item) for item in given)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    secret = sys.stdin.readline().strip()
    _Receiver.key = base64.b64decode(secret.removeprefix("whsec_"))
    server.serve_forever()


if __name__ == "__main__":
    main()
