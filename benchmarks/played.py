"""Many boroughs in one process, with real keys: what a node that serves a thousand peers has around it.

Each has signing keys, a sealing key, a log and a card of its own, and answers envelopes as a node does: it opens them,
signs a receipt for each message, and proves it and its log's continuity. What it does not do is store, verify or open
sections: how fast that is, is not what is measured.
"""

import asyncio
import base64
import contextlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import uvloop

from exchange.crypto.envelope import envelope_key_id, open_envelope, seal_reply
from exchange.crypto.merkle import Frontier, NodeId, consistency_path, inclusion_path
from exchange.crypto.names import LeafHash, Origin, SealingKeyId
from exchange.crypto.proof import format_proof
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys, fingerprint
from exchange.crypto.statement import encode_statement, leaf_hash, parse_statement
from exchange.schema.wire import (
    CARD,
    MANIFEST,
    RECEIPT,
    VERSION,
    Card,
    CardSealingKey,
    Consistency,
    ProvenStatement,
    Receipt,
    ReplyPayload,
    Result,
    Rung,
    decode_wire,
    encode_wire,
    envelope_decoder,
    manifest_decoder,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@dataclass(frozen=True)
class Described:
    """What an admin needs to register a borough."""

    area: str
    card: dict[str, str]
    fingerprint: str


class _Borough:
    """A borough that is played."""

    def __init__(self, number: int, port: int) -> None:
        self.origin, self.area = Origin(f"exchange.borough-{number}.example"), f"E{10_000_000 + number:08d}"
        self._signing, self._sealing = SigningKeys.generate(), SealingPrivateKey.generate()
        self._frontier, self._nodes = Frontier.from_bytes(0, b""), dict[NodeId, bytes]()
        now = datetime.now(UTC)
        card = Card(
            version=VERSION,
            origin=self.origin,
            area=self.area,
            name=f"Borough number {number}",
            url=f"http://127.0.0.1:{port}/{number}",
            serial=1,
            issued_at=now,
            expires_at=now + timedelta(days=90),
            signing_keys=tuple(key.text() for key in self._signing.verifiers(self.origin)),
            sealing_keys=(
                CardSealingKey(
                    key=self._sealing.public.raw,
                    not_before=now - timedelta(days=1),
                    not_after=now + timedelta(days=30),
                    opens_until=now + timedelta(days=60),
                ),
            ),
            agencies=(),
        )
        (proven,) = self._sign([encode_statement(CARD, encode_wire(card))])
        self.card = {"statement": base64.b64encode(proven.statement).decode(), "proof": proven.proof}

    @property
    def key_id(self) -> SealingKeyId:
        return self._sealing.public.key_id

    @property
    def described(self) -> Described:
        verifiers = self._signing.verifiers(self.origin)
        return Described(self.area, self.card, fingerprint(self.origin, verifiers))

    def _sign(self, statements: Sequence[bytes]) -> list[ProvenStatement]:
        """Append statements to the log, under one checkpoint, and prove them."""
        first = self._frontier.size
        self._frontier, added = self._frontier.append([LeafHash(leaf_hash(one)) for one in statements])
        self._nodes |= dict(added)
        size = self._frontier.size
        note = self._signing.sign_checkpoint(self.origin, size, self._frontier.root(), int(time.time()))
        return [
            ProvenStatement(
                statement=one, proof=format_proof(position, inclusion_path(position, size, self._nodes), note)
            )
            for position, one in enumerate(statements, start=first)
        ]

    def answer(self, envelope: bytes) -> bytes:
        """The reply to an envelope."""
        payload = decode_wire(envelope_decoder, open_envelope(envelope, self.origin, self._sealing))
        leaves = [leaf_hash(item.statement) for item in payload.items]
        receipts = [
            (number, self._receipt(parsed.body, leaves[number]))
            for number, item in enumerate(payload.items)
            if (parsed := parse_statement(item.statement)).type == MANIFEST
        ]
        proven: dict[int, ProvenStatement] = {}
        if receipts:
            signed = self._sign([statement for _, statement in receipts])
            proven = {number: one for (number, _), one in zip(receipts, signed, strict=True)}
        size = self._frontier.size
        first = min(payload.holds, size)
        path = consistency_path(first, size, self._nodes) if 0 < first < size else ()
        reply = ReplyPayload(
            version=VERSION,
            holds=0,
            consistency=Consistency(first=first, path=tuple(path)),
            results=tuple(Result(leaf_hash=leaf, receipt=proven.get(number)) for number, leaf in enumerate(leaves)),
        )
        return seal_reply(Secret(payload.reply_secret), encode_wire(reply))

    def _receipt(self, manifest: bytes, leaf: LeafHash) -> bytes:
        read = decode_wire(manifest_decoder, manifest)
        receipt = Receipt(
            version=VERSION,
            message_id=read.message_id,
            leaf_hash=leaf,
            rung=Rung.RECEIVED,
            origin=self.origin,
            recipient=read.sender,
            at=datetime.now(UTC),
        )
        return encode_statement(RECEIPT, encode_wire(receipt))


class _Listener(asyncio.Protocol):
    """One connection of a node."""

    def __init__(self, boroughs: Sequence[_Borough]) -> None:
        self._by_key = {one.key_id: one for one in boroughs}
        self._boroughs = boroughs
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        request, *lines = head.decode("latin-1").lower().split("\r\n")
        headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(body) < int(headers.get("content-length", "0")):
            return
        self._data = b""
        kind, answer = self._answer(request, body)
        status = "200 OK" if answer else "404 Not Found"
        headed = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n\r\n"
        self._transport.write(headed.encode() + answer)

    def _answer(self, request: str, body: bytes) -> tuple[str, bytes]:
        method, path, _ = request.split(" ")
        if method == "post" and path.endswith("/v1/envelopes"):
            return "application/vnd.exchange.reply", self._by_key[envelope_key_id(body)].answer(body)
        if path.endswith("/v1/card"):
            return "application/json", json.dumps(self._boroughs[int(path.split("/")[1])].card).encode()
        return "text/plain", b""


@contextlib.contextmanager
def played(count: int) -> Iterator[list[Described]]:
    """Play so many boroughs until the end of the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(count, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join(10)


def _run(count: int, pipe: "Connection[Any, Any]") -> None:
    async def serve() -> None:
        boroughs: list[_Borough] = []
        server = await asyncio.get_running_loop().create_server(lambda: _Listener(boroughs), "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
        boroughs += [_Borough(number, port) for number in range(count)]
        pipe.send([one.described for one in boroughs])
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
