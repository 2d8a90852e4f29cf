"""What goes out: bundles of statements to peers in one envelope, and sections to agencies by webhook."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from exchange.crypto.envelope import open_reply, seal_envelope
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import LeafHash, MessageId, Origin, SectionName, context
from exchange.crypto.proof import VerifiedStatement, verify_statement
from exchange.crypto.rest import open_at_rest
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.node.compose import current_sealing_key, open_secret
from exchange.node.continuity import Continuity
from exchange.node.delivery import Outcome, finish
from exchange.node.egress import guarded_connector, parse_networks
from exchange.node.errors import ForkDetected, ItemRefused, NoCurrentKey, NotNow
from exchange.node.inbound import Inbound, peer_card
from exchange.node.peer_client import PeerClient
from exchange.node.services import Services, card_keys, moment
from exchange.node.webhook import SECTION_DELIVERED, TEST, event_body, signed_headers
from exchange.schema.errors import SchemaError
from exchange.schema.wire import (
    RECEIPT,
    VERSION,
    Card,
    Consistency,
    EnvelopePayload,
    Manifest,
    Placement,
    ProvenStatement,
    Receipt,
    Rung,
    decode_wire,
    encode_wire,
    manifest_decoder,
    receipt_decoder,
    reply_decoder,
)
from exchange.store.agencies import AgencyRow, agency_of_kind
from exchange.store.errors import NotFound
from exchange.store.log import consistency_between, latest_head, proven_at
from exchange.store.messages import (
    add_event,
    message_by_number,
    raise_rung,
    section_of,
    sections_of,
    wrapped_key_of,
)
from exchange.store.outbox import MANIFEST, Delivery, done
from exchange.store.peers import PeerRow, peer
from exchange.store.transaction import Operation, Transaction

_MOST_BUNDLED_BYTES: Final = 4 * 1024 * 1024
_MOST_RESPONSE_BYTES: Final = 4096


class Outbound:
    """Performs deliveries."""

    def __init__(self, services: Services, continuity: Continuity, inbound: Inbound, client: PeerClient) -> None:
        self._services = services
        self._continuity = continuity
        self._inbound = inbound
        self._client = client
        self._sessions: dict[tuple[str, str], aiohttp.ClientSession] = {}
        #: The size of our log that each peer is believed to hold.
        self._believed: dict[str, int] = {}

    async def perform(self, lane: str, rows: Sequence[Delivery]) -> Outcome:
        """Perform one attempt of a lane."""
        kind, _, name = lane.partition(":")
        if kind == "peer":
            return await self._to_peer(name, list(rows))
        return await self._to_agency(name, list(rows))

    async def close(self) -> None:
        """Close the connections to agencies."""
        for session in self._sessions.values():
            await session.close()

    # To peers

    async def _to_peer(self, origin: str, rows: list[Delivery]) -> Outcome:
        services = self._services
        try:
            row = await services.store.read(lambda tx: peer(tx, origin))
        except NotFound:
            return Outcome(held=[(delivery, "the peer is not registered any more") for delivery in rows])
        if row.state != "verified":
            return Outcome(held=[(delivery, f"the peer is {row.state}") for delivery in rows])
        card = peer_card(row)
        try:
            key = current_sealing_key(card, services.now())
        except NoCurrentKey:
            return Outcome(held=[(delivery, "no current key: the peer's card is out of date") for delivery in rows])
        reply_secret = Secret.random()
        payload, sent, left = await self._payload(origin, rows, reply_secret)
        envelope = seal_envelope(encode_wire(payload), Origin(origin), key)
        answer = await self._client.post_envelope(row, card, envelope)
        if answer.status == 413:
            return Outcome(again=left, held=[(delivery, "the peer finds it too large") for delivery in sent])
        if answer.status != 200:
            reason = (
                f"{origin} answered {answer.code or answer.status}; this node may not be verified there"
                if answer.code == "unacceptable"
                else f"{origin} answered {answer.status}"
            )
            return Outcome(again=sent + left, error=reason, asked_s=answer.retry_after_s)
        try:
            data = open_reply(reply_secret, answer.body)
        except CryptoError as error:
            raise NotNow(f"the reply of {origin} does not hold: {error}") from None
        outcome = await self._take_reply(row, card, sent, data)
        outcome.again += left
        return outcome

    async def _payload(
        self, origin: str, rows: list[Delivery], reply_secret: Secret
    ) -> tuple[EnvelopePayload, list[Delivery], list[Delivery]]:
        """The envelope's content for as many of `rows` as fit, and which of them are in it."""
        services = self._services
        holds = await self._continuity.held_size(origin)
        believed = self._believed.get(origin, 0)

        async def collect(tx: Transaction) -> tuple[EnvelopePayload, int, int]:
            head = await latest_head(tx)
            items: list[ProvenStatement] = []
            ciphertexts: list[bytes] = []
            size_bytes = 0
            for number, delivery in enumerate(rows):
                proven = await proven_at(tx, delivery.position or 0, head)
                sections = (
                    [section.ciphertext for section in await sections_of(tx, delivery.message or 0)]
                    if delivery.kind == MANIFEST
                    else []
                )
                size_bytes += len(proven.statement) + len(proven.proof) + sum(map(len, sections))
                if number and size_bytes > _MOST_BUNDLED_BYTES:
                    break
                items.append(ProvenStatement(statement=proven.statement, proof=proven.proof))
                ciphertexts += sections
            first = min(believed, head.size)
            path = tuple(await consistency_between(tx, first, head.size))
            payload = EnvelopePayload(
                version=VERSION,
                sender=services.configuration.origin,
                holds=holds,
                consistency=Consistency(first=first, path=path),
                reply_secret=reply_secret.reveal(),
                items=tuple(items),
                ciphertexts=tuple(ciphertexts),
            )
            return payload, len(items), head.size

        payload, count, _ = await services.store.read(collect)
        return payload, rows[:count], rows[count:]

    async def _take_reply(self, row: PeerRow, card: Card, sent: list[Delivery], data: bytes) -> Outcome:
        services = self._services
        outcome = Outcome()
        try:
            reply = decode_wire(reply_decoder, data)
        except SchemaError as error:
            raise NotNow(f"{row.origin} sent a reply that cannot be read: {error}") from None
        if len(reply.results) != len(sent):
            raise NotNow(f"{row.origin} answered for {len(reply.results)} items instead of {len(sent)}")
        self._believed[row.origin] = reply.holds
        answered: list[Delivery] = []
        heads: list[Operation[None]] = []
        receipts: list[tuple[Delivery, Receipt, VerifiedStatement, ProvenStatement]] = []
        try:
            for delivery, result in zip(sent, reply.results, strict=True):
                if result.problem is not None:
                    outcome.held.append((delivery, f"refused by {row.origin}: {result.problem.code}"))
                elif delivery.kind != MANIFEST:
                    answered.append(delivery)
                elif result.receipt is None:
                    raise NotNow(f"{row.origin} accepted a message without a receipt")
                else:
                    verified, receipt = self._check_receipt(row, card, result.receipt)
                    heads += await self._continuity.follow(
                        verified.checkpoint,
                        reply.consistency,
                        lambda first, second: self._client.fetch_consistency(row, first, second),
                    )
                    receipts.append((delivery, receipt, verified, result.receipt))
            # All at once, so that they share one batch of the writer.
            await asyncio.gather(
                *(services.store.write(head) for head in heads),
                *(
                    self._inbound.take_receipt(row.origin, receipt, verified, item, [delivery.number])
                    for delivery, receipt, verified, item in receipts
                ),
                finish(services, answered),
            )
        except ForkDetected as error:
            await self._inbound.quarantine(row.origin, str(error), data)
            return Outcome(held=[(waiting, "the peer is quarantined") for waiting in sent])
        except (CryptoError, SchemaError, ItemRefused) as error:
            raise NotNow(f"the receipt of {row.origin} does not hold: {error}") from None
        services.changes.notify()
        return outcome

    def _check_receipt(self, row: PeerRow, card: Card, item: ProvenStatement) -> tuple[VerifiedStatement, Receipt]:
        verified = verify_statement(
            item.statement, item.proof, Origin(row.origin), card_keys(card), self._services.checkpoints
        )
        if verified.statement.type != RECEIPT:
            raise ItemRefused("receipt-missing", "the statement is not a receipt")
        receipt = decode_wire(receipt_decoder, verified.statement.body)
        if receipt.rung is not Rung.RECEIVED:
            raise ItemRefused("receipt-missing", "the receipt is not of the rung received")
        return verified, receipt

    # To agencies

    async def _to_agency(self, kind: str, rows: list[Delivery]) -> Outcome:
        services = self._services
        row = await services.store.read(lambda tx: agency_of_kind(tx, kind))
        if row is None:
            return Outcome(held=[(delivery, f"no agency of kind {kind} is registered") for delivery in rows])
        for number, delivery in enumerate(rows):
            try:
                body = await self._section_event(delivery)
            except (CryptoError, NotFound) as error:
                return Outcome(again=rows[number + 1 :], held=[(delivery, f"cannot be opened: {error}")])
            try:
                status, asked_s = await self.post_event(row, delivery.event_id or "", body)
            except (OSError, TimeoutError, aiohttp.ClientError) as error:
                return Outcome(again=rows[number:], error=f"agency {kind} cannot be reached: {type(error).__name__}")
            if not 200 <= status < 300:
                return Outcome(again=rows[number:], error=f"agency {kind} answered {status}", asked_s=asked_s)
            await self._delivered(delivery)
        return Outcome()

    async def _delivered(self, delivery: Delivery) -> None:
        services = self._services
        assert delivery.message is not None and delivery.section is not None and delivery.agency is not None  # noqa: PT018, S101 - webhook rows have all three
        number, section, kind = delivery.message, delivery.section, delivery.agency
        dispatched: list[str] = []

        async def operation(tx: Transaction) -> None:
            await done(tx, [delivery.number])
            message = await message_by_number(tx, number)
            now_ms = services.now_ms()
            await raise_rung(tx, number, "delivered", [(section, kind)], now_ms)
            await add_event(tx, number, "delivered", now_ms, section=section, agency=kind)
            manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
            placement = Placement(section=section, agency=kind)
            await self._inbound.queue_receipt(
                tx, message.peer, manifest, LeafHash(message.leaf_hash), number, Rung.DELIVERED, (placement,)
            )
            dispatched.append(f"peer:{message.peer}")

        await services.store.write(operation)
        services.counters.add("sections_delivered")
        services.changes.notify()
        for lane in dispatched:
            self.wake(lane)

    def wake(self, lane: str) -> None:
        """Replaced by the dispatcher's when the node is put together."""

    async def _section_event(self, delivery: Delivery) -> bytes:
        """The body of a section's webhook; plaintext exists from here until it is sent."""
        services = self._services
        number, name = delivery.message or 0, delivery.section or ""

        async def collect(tx: Transaction) -> tuple[Any, bytes, Any]:
            return (
                await message_by_number(tx, number),
                await wrapped_key_of(tx, number),
                await section_of(tx, number, name),
            )

        message, wrapped, section = await services.store.read(collect)
        manifest: Manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
        entry = next(item for item in manifest.sections if item.name == name)
        secret = open_secret(services.keyring.store_key, wrapped, manifest.sender, manifest.message_id, section)
        bound_to = SectionContext(
            MessageId(manifest.message_id), Origin(manifest.sender), Origin(manifest.recipient), SectionName(name)
        )
        plaintext = open_section(section.ciphertext, secret, bound_to, entry.commitment)
        return event_body(
            delivery.event_id or "",
            SECTION_DELIVERED,
            services.configuration.origin,
            f"{manifest.message_id}/{name}",
            moment(delivery.created_at_ms),
            {
                "message_id": manifest.message_id,
                "section": name,
                "from": manifest.from_area,
                "to": manifest.to_area,
                "urgent": manifest.urgent,
                "content": msgspec.msgpack.decode(plaintext.reveal()),
            },
        )

    async def test_agency(self, row: AgencyRow, event_id: str) -> int:
        """Send a synthetic event; return the HTTP status."""
        services = self._services
        body = event_body(
            event_id, TEST, services.configuration.origin, row.id, services.now(), {"test": True, "agency": row.kind}
        )
        status, _ = await self.post_event(row, event_id, body)
        return status

    async def post_event(self, row: AgencyRow, event_id: str, body: bytes) -> tuple[int, float]:
        """POST one signed event; return the status and what Retry-After asked for, in seconds."""
        services = self._services
        secret = open_at_rest(services.keyring.store_key, context("agency-secret", row.id.encode()), row.wrapped_secret)
        headers = signed_headers(secret.decode(), event_id, services.now_ms() // 1000, body)
        timeout = aiohttp.ClientTimeout(total=services.configuration.tables.delivery.agency_timeout_s)
        session = self._session(row)
        async with session.post(row.url, data=body, headers=headers, allow_redirects=False, timeout=timeout) as answer:
            # What an agency answers is not ours to keep; reading a little of it lets the connection be used again.
            await answer.content.read(_MOST_RESPONSE_BYTES)
            return answer.status, _retry_after_s(answer.headers.get("retry-after"))

    def _session(self, row: AgencyRow) -> aiohttp.ClientSession:
        session = self._sessions.get((row.id, row.url))
        if session is None:
            connector = guarded_connector(
                parse_networks(json.loads(row.networks)), ssl=self._client.tls(row.ca_file), limit=8
            )
            session = aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False)
            self._sessions[row.id, row.url] = session
        return session


def _retry_after_s(value: str | None) -> float:
    return float(value) if value is not None and value.isascii() and value.isdigit() else 0.0
