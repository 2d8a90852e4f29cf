"""A borough made by hand: its keys, its log and every message lie open, so that a test can bend what a node never does.

It shares no code with the node but the cryptography and the wire structs.
"""

import base64
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web

from exchange.crypto.envelope import open_envelope, open_reply, seal_envelope, seal_reply
from exchange.crypto.merkle import Frontier, consistency_path, inclusion_path
from exchange.crypto.names import Origin, SectionName, parse_message_id
from exchange.crypto.parcel import seal_parcel
from exchange.crypto.proof import format_proof
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, seal_section
from exchange.crypto.signing import SigningKeys, fingerprint, sign_checkpoint
from exchange.crypto.statement import encode_statement, leaf_hash, parse_statement
from exchange.schema.identity import ROTATION, Rotation
from exchange.schema.wire import (
    CARD,
    MANIFEST,
    RECEIPT,
    VERSION,
    Card,
    CardAgency,
    CardSealingKey,
    Consistency,
    EnvelopePayload,
    Manifest,
    ParcelEntry,
    ProvenStatement,
    Receipt,
    ReplyPayload,
    Result,
    Rung,
    SectionEntry,
    card_decoder,
    decode_wire,
    encode_wire,
    envelope_decoder,
    manifest_decoder,
    reply_decoder,
)

#: What must not be found in a log line, a status, a counter or, unsealed, in a store.
CONTENT = "Jay Fictitious of 7 Nowhere Street"
REPLY_SECRET = Secret(b"\x07" * 32)
NOBODY_LISTENS = "http://127.0.0.1:9"

#: What a hand-made peer answers to a node's request: given the request, the response.
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def read_card(proven: ProvenStatement) -> Card:
    """The card in a proven statement."""
    return decode_wire(card_decoder, parse_statement(proven.statement).body)


@dataclass(frozen=True)
class Made:
    """A form message made by hand."""

    manifest: Manifest
    ciphertexts: tuple[bytes, ...]


class Borough:
    """A borough made by hand."""

    def __init__(self, origin: str, area: str, now_ms: Callable[[], int]) -> None:
        self.origin = Origin(origin)
        self.area = area
        self.url = NOBODY_LISTENS
        #: The card that is served to whoever asks for it, or any bytes in its place, and how often that was.
        self.served: ProvenStatement | bytes | None = None
        self.card_was_asked_for = 0
        self.signing = SigningKeys.generate()
        self.sealing = SealingPrivateKey.generate()
        self.statements: list[bytes] = []
        self.serial = 0
        #: The size of the log that the other node is believed to hold.
        self.shown = 0
        self._now_ms = now_ms

    @property
    def now(self) -> datetime:
        """The time of the test."""
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    @property
    def fingerprint(self) -> str:
        """What an admin compares."""
        return fingerprint(self.origin, self.signing.verifiers(self.origin))

    # The log

    def _tree(self, size: int) -> tuple[Frontier, dict[Any, bytes]]:
        frontier, nodes = Frontier(0, ()).append(leaf_hash(statement) for statement in self.statements[:size])
        return frontier, dict(nodes)

    def log(self, statement_type: str, body: bytes) -> int:
        """Append a statement; return its position."""
        self.statements.append(encode_statement(statement_type, body))
        return len(self.statements) - 1

    def checkpoint(self, size: int | None = None) -> str:
        """A signed checkpoint of the log as it is, or as it was."""
        frontier, _ = self._tree(len(self.statements) if size is None else size)
        return self.signing.sign_checkpoint(self.origin, frontier.size, frontier.root(), self._now_ms() // 1000)

    def prove(self, position: int, size: int | None = None) -> ProvenStatement:
        """A statement of the log with its proof."""
        frontier, nodes = self._tree(len(self.statements) if size is None else size)
        proof = format_proof(position, inclusion_path(position, frontier.size, nodes), self.checkpoint(frontier.size))
        return ProvenStatement(statement=self.statements[position], proof=proof)

    def sign(self, statement_type: str, body: bytes) -> ProvenStatement:
        """Log a statement, and prove it."""
        return self.prove(self.log(statement_type, body))

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        """The consistency proof from a size of the log to the log as it is."""
        frontier, nodes = self._tree(len(self.statements) if second is None else second)
        path = consistency_path(first, frontier.size, nodes) if 0 < first < frontier.size else []
        return Consistency(first=first, path=tuple(path))

    # Statements

    def card(self, **changes: Any) -> ProvenStatement:
        """A card with the next serial."""
        self.serial += 1
        card = Card(
            version=VERSION,
            origin=self.origin,
            area=self.area,
            name="A borough made by hand",
            url=self.url,
            serial=self.serial,
            issued_at=self.now,
            expires_at=self.now + timedelta(days=90),
            signing_keys=tuple(key.text() for key in self.signing.verifiers(self.origin)),
            sealing_keys=(
                CardSealingKey(
                    key=self.sealing.public.raw,
                    not_before=self.now - timedelta(days=1),
                    not_after=self.now + timedelta(days=30),
                    opens_until=self.now + timedelta(days=60),
                ),
            ),
            agencies=(CardAgency(kind="housing"),),
        )
        return self.sign(CARD, encode_wire(msgspec.structs.replace(card, **changes)))

    def rotated(self, signers: Sequence[SigningKeys] = ()) -> "tuple[Borough, ProvenStatement]":
        """The borough under new keys, whose log goes on from this one, and the proof; `signers` sign with the old keys.

        A proof without the new keys' signature, or with that of others, is false.
        """
        following = Borough(self.origin, self.area, self._now_ms)
        old, new = (tuple(key.text() for key in one.signing.verifiers(self.origin)) for one in (self, following))
        body = Rotation(version=VERSION, origin=self.origin, old=old, new=new, at=self.now)
        position = self.log(ROTATION, encode_wire(body))
        frontier, nodes = self._tree(position + 1)
        both = (self.signing, *(signers or (following.signing,)))
        note = sign_checkpoint(both, self.origin, frontier.size, frontier.root(), self._now_ms() // 1000)
        proof = format_proof(position, inclusion_path(position, frontier.size, nodes), note)
        following.statements, following.serial, following.shown = list(self.statements), self.serial, self.shown
        return following, ProvenStatement(statement=self.statements[position], proof=proof)

    def message(
        self,
        to: Card,
        parts: Sequence[tuple[str, tuple[str, ...]]] = (("housing", ("housing",)), ("police", ("police",))),
        *,
        content: bytes | None = None,
        message_id: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        key: bytes | None = None,
    ) -> Made:
        """A form message to the node of a card; each part is a section and its readers."""
        name = parse_message_id(message_id or str(uuid.uuid4()))
        bound_from, bound_to = Origin(sender or self.origin), Origin(recipient or to.origin)
        plaintext = msgspec.msgpack.encode({"text": CONTENT}) if content is None else content
        sealed = [
            (SectionName(part), readers, seal_section(plaintext, SectionContext(name, bound_from, bound_to, part)))
            for part, readers in ((SectionName(part), readers) for part, readers in parts)
        ]
        node_key = SealingPublicKey(key or to.sealing_keys[-1].key)
        parcel = seal_parcel({part: one.secret for part, _, one in sealed}, node_key, bound_from, bound_to, name)
        manifest = Manifest(
            version=VERSION,
            message_id=name,
            sender=self.origin,
            recipient=to.origin,
            from_area=self.area,
            to_area=to.area,
            created_at=self.now,
            expires_at=self.now + timedelta(days=13),
            urgent=False,
            card_serial=to.serial,
            sections=tuple(
                SectionEntry(name=part, readers=readers, sha256=one.sha256, commitment=one.commitment)
                for part, readers, one in sealed
            ),
            parcels=(ParcelEntry(key_id=node_key.key_id, parcel=parcel),),
        )
        return Made(manifest, tuple(one.ciphertext for _, _, one in sealed))

    def sign_manifest(self, made: Made, **changes: Any) -> ProvenStatement:
        """Sign a message's manifest, with `changes` to it."""
        return self.sign(MANIFEST, encode_wire(msgspec.structs.replace(made.manifest, **changes)))

    def sign_receipt(self, manifest: ProvenStatement, rung: Rung = Rung.RECEIVED, **changes: Any) -> ProvenStatement:
        """Sign a receipt for a manifest that came from elsewhere."""
        read = decode_wire(manifest_decoder, parse_statement(manifest.statement).body)
        receipt = Receipt(
            version=VERSION,
            message_id=read.message_id,
            leaf_hash=leaf_hash(manifest.statement),
            rung=rung,
            origin=self.origin,
            recipient=read.sender,
            at=self.now,
        )
        return self.sign(RECEIPT, encode_wire(msgspec.structs.replace(receipt, **changes)))

    # Envelopes and replies

    def payload(
        self, items: Sequence[ProvenStatement], ciphertexts: Sequence[bytes] = (), **changes: Any
    ) -> EnvelopePayload:
        """What an envelope holds; its consistency proof leads from what the other node has seen to the latest head."""
        payload = EnvelopePayload(
            version=VERSION,
            sender=self.origin,
            holds=0,
            consistency=self.consistency(self.shown),
            reply_secret=REPLY_SECRET.reveal(),
            items=tuple(items),
            ciphertexts=tuple(ciphertexts),
        )
        self.shown = len(self.statements)
        return msgspec.structs.replace(payload, **changes)

    def latest(self, *items: ProvenStatement) -> list[ProvenStatement]:
        """The same statements, proven against the latest head of the log."""
        return [self.prove(self.statements.index(item.statement)) for item in items]

    def envelope(
        self, to: Card, items: Sequence[ProvenStatement], ciphertexts: Sequence[bytes] = (), **changes: Any
    ) -> bytes:
        """An envelope to the node of a card, with `changes` to its payload."""
        return seal_to(to, encode_wire(self.payload(items, ciphertexts, **changes)))

    def open(self, envelope: bytes) -> EnvelopePayload:
        """Open what a node sent here."""
        return decode_wire(envelope_decoder, open_envelope(envelope, self.origin, self.sealing))

    def reply(self, to: EnvelopePayload, results: Sequence[Result], **changes: Any) -> web.Response:
        """The answer to an envelope of a node."""
        size = len(self.statements)
        first = min(to.holds, size)
        reply = ReplyPayload(version=VERSION, holds=0, consistency=self.consistency(first), results=tuple(results))
        body = encode_wire(msgspec.structs.replace(reply, **changes))
        return web.Response(
            body=seal_reply(Secret(to.reply_secret), body), content_type="application/vnd.exchange.reply"
        )

    @asynccontextmanager
    async def listening(
        self, envelopes: Answer, port: int = 0, consistency: Answer | None = None
    ) -> AsyncIterator[None]:
        """Listen as a node does; `envelopes` answers what is posted. Cards made from now on name the place."""

        async def prove(request: web.Request) -> web.StreamResponse:
            if consistency is not None:
                return await consistency(request)
            first, second = int(request.query["first"]), int(request.query["second"])
            if second > len(self.statements):
                body = msgspec.json.encode({"code": "not-found"})
                return web.Response(status=404, body=body, content_type="application/problem+json")
            path = [base64.b64encode(part).decode() for part in self.consistency(first, second).path]
            return web.json_response({"first": first, "second": second, "path": path})

        async def card(_: web.Request) -> web.StreamResponse:
            self.card_was_asked_for += 1
            if self.served is None:
                return web.Response(status=503)
            if isinstance(self.served, bytes):
                return web.Response(body=self.served, content_type="application/json")
            statement = base64.b64encode(self.served.statement).decode()
            return web.json_response({"statement": statement, "proof": self.served.proof})

        application = web.Application(client_max_size=2**24)
        application.router.add_get("/v1/card", card)
        application.router.add_post("/v1/envelopes", envelopes)
        application.router.add_get("/v1/log/consistency", prove)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            self.url = NOBODY_LISTENS
            await runner.cleanup()


Bend = Callable[["Desk", EnvelopePayload], web.StreamResponse | None]


class Desk:
    """Answers a node's envelopes as a node does; those with messages as `bend` says, where it says anything."""

    def __init__(self, borough: Borough) -> None:
        self.borough = borough
        self.bend: Bend | None = None
        #: Envelopes with messages, as they came in.
        self.opened: list[EnvelopePayload] = []
        #: The ids of messages that were answered with a receipt.
        self.received: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a POST."""
        opened = self.borough.open(await request.read())
        if any(is_manifest(item) for item in opened.items):
            self.opened.append(opened)
            bent = self.bend(self, opened) if self.bend is not None else None
            if bent is not None:
                return bent
        return self.borough.reply(opened, self.results(opened))

    def results(self, opened: EnvelopePayload) -> list[Result]:
        """A result for each item: a receipt for each message, proven against one head."""
        receipts = {item.statement: self.borough.sign_receipt(item) for item in opened.items if is_manifest(item)}
        self.received += [message_id(item) for item in opened.items if is_manifest(item)]
        latest = dict(zip(receipts, self.borough.latest(*receipts.values()), strict=True))
        return [
            Result(leaf_hash=leaf_hash(item.statement), receipt=latest.get(item.statement)) for item in opened.items
        ]


def is_manifest(item: ProvenStatement) -> bool:
    """Whether a statement is a manifest."""
    return parse_statement(item.statement).type == MANIFEST


def message_id(item: ProvenStatement) -> str:
    """The id of the message that a manifest describes."""
    return decode_wire(manifest_decoder, parse_statement(item.statement).body).message_id


def seal_to(card: Card, payload: bytes, recipient: str | None = None) -> bytes:
    """Any bytes as an envelope to the node of a card."""
    return seal_envelope(payload, Origin(recipient or card.origin), SealingPublicKey(card.sealing_keys[-1].key))


def read_reply(body: bytes) -> ReplyPayload:
    """The reply to an envelope made by hand."""
    return decode_wire(reply_decoder, open_reply(REPLY_SECRET, body))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
