"""A man in the middle: he owns the network between two boroughs, and has for each of them a false node of his own.

He plays every protocol as well as somebody can who has all of the program and none of the boroughs' keys.
"""

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from exchange.crypto.pairing import commitment
from exchange.crypto.secret import Secret
from exchange.schema.registration import (
    PAIRING_TYPE,
    REGISTRATION_TYPE,
    PairingAnswer,
    PairingOffer,
    PairingReveal,
    Registration,
    pairing_answer_decoder,
)
from exchange.schema.wire import VERSION, Card, ProvenStatement, decode_wire, encode_wire
from tests.node import handmade
from tests.processes.harness import Borough
from tests.processes.ports import free_port

Answered = tuple[int, bytes]
#: Given the path and the body of a request, the answer.
Play = Callable[[str, bytes], Answered]

REFUSED: Answered = (403, json.dumps({"code": "unacceptable"}).encode())


def call(url: str, method: str, path: str, body: bytes = b"", content_type: str = "") -> Answered:
    """One request, as anybody on the network can make it."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        connection.request(method, path, body or None, {"content-type": content_type} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Face:
    """The man in the middle as one borough sees the other: at that one's URL, with an identity that bears its name."""

    def __init__(self, real: Borough, origin: str = "") -> None:
        self.real = real
        self.behind = f"http://127.0.0.1:{real.port}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.identity = handmade.Borough(origin or real.origin, real.area, lambda: time.time_ns() // 1_000_000)
        self.identity.url = self.url
        self.card = self.identity.card(name=f"Borough of {real.directory.name.title()}")
        #: What it answers for each path; None passes everything on unchanged.
        self.play: dict[str, Play] = {"/v1/card": lambda _, __: (200, self.card_file())}
        #: Requests other than for the card, as they came.
        self.heard: list[tuple[str, bytes]] = []

    def card_file(self) -> bytes:
        """The false card, as a file or as `GET /v1/card` serves it."""
        statement = base64.b64encode(self.card.statement).decode()
        return json.dumps({"statement": statement, "proof": self.card.proof}).encode()

    def true_card(self) -> Card:
        """The card of the node behind."""
        status, body = call(self.behind, "GET", "/v1/card")
        assert status == 200
        file = json.loads(body)
        return handmade.read_card(ProvenStatement(statement=base64.b64decode(file["statement"]), proof=file["proof"]))

    def answer(self, method: str, path: str, body: bytes, content_type: str) -> Answered:
        """Answer a request: as the play says, or as the true node does."""
        if path != "/v1/card":
            self.heard.append((path, body))
        played = self.play.get(path)
        return played(path, body) if played else call(self.behind, method, path, body, content_type)

    # What he says to the true node

    def post(self, path: str, body: bytes) -> Answered:
        """Post to the true node behind this face."""
        return call(self.behind, "POST", path, body, REGISTRATION_TYPE if "registr" in path else PAIRING_TYPE)

    def registration(self, invitation: str, secret: bytes, to: Card) -> bytes:
        """A registration of this face's identity, sealed to a card."""
        registration = Registration(
            version=VERSION,
            invitation=invitation,
            secret=secret,
            card=self.card,
            reply_secret=Secret.random().reveal(),
        )
        return handmade.seal_to(to, encode_wire(registration))


class Guess:
    """The man in the middle as the initiator of a pairing with a true node."""

    def __init__(self, face: Face, towards: Face, nonce: bytes) -> None:
        #: Whom he pretends to be, and to whom.
        self.face, self.towards, self.nonce = face, towards, nonce
        self.commitment = commitment(face.identity.fingerprint, nonce)

    def offer(self, **changes: Any) -> Answered:
        """Offer; or offer something else."""
        values = {
            "fingerprint": bytes.fromhex(self.face.identity.fingerprint),
            "commitment": self.commitment,
            **changes,
        }
        return self.towards.post("/v1/pairings", encode_wire(PairingOffer(version=VERSION, **values)))

    def reveal(self, **changes: Any) -> Answered:
        """Reveal the nonce; or something else."""
        values = {"commitment": self.commitment, "nonce": self.nonce, **changes}
        return self.towards.post("/v1/pairings/reveal", encode_wire(PairingReveal(version=VERSION, **values)))


def nonce_in(answered: Answered) -> bytes:
    """The nonce in a true node's answer to an offer."""
    status, body = answered
    assert status == 200, answered
    return decode_wire(pairing_answer_decoder, body).nonce


def answer_with(nonce: bytes) -> Answered:
    """A responder's answer."""
    return 200, encode_wire(PairingAnswer(version=VERSION, nonce=nonce))


class Middle:
    """His two faces, each listening where a borough believes the other to be."""

    def __init__(self, hackney: Borough, enfield: Borough) -> None:
        self.hackney, self.enfield = Face(hackney), Face(enfield)
        self._servers: list[ThreadingHTTPServer] = []

    def listen(self, face: Face) -> Face:
        """Have a face listen until the end."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, data = face.answer(self.command, self.path, body, self.headers.get("content-type") or "")
                self.send_response(status)
                kind = "application/problem+json" if status >= 400 else "application/octet-stream"
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _any  # noqa: N815 - the standard library's names

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", face.port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)
        return face

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
