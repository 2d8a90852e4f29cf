"""What goes out to peers: statements, bundled in one envelope, and what the reply to it says."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from exchange import crash_points
from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.envelope import open_reply, seal_envelope
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import LeafHash, Origin
from exchange.crypto.proof import VerifiedStatement, verify_statement
from exchange.crypto.secret import Secret
from exchange.crypto.statement import leaf_hash
from exchange.node.card_refresh import CardRefresh
from exchange.node.cards import NO_CURRENT_KEY, peer_card
from exchange.node.compose import current_sealing_key
from exchange.node.continuity import Continuity, Shown
from exchange.node.delivery import Outcome, finish
from exchange.node.errors import ForkDetected, ItemRefused, NoCurrentKey, NotNow, Unacceptable
from exchange.node.inbound import Inbound
from exchange.node.mirroring import keep_given
from exchange.node.ordering import not_there
from exchange.node.peer_client import PeerClient
from exchange.node.peer_receipts import take_receipt
from exchange.node.said import ciphertexts_at
from exchange.node.services import Services
from exchange.node.waiting_forms import sign_waiting
from exchange.schema.card_file import card_keys
from exchange.schema.errors import SchemaError
from exchange.schema.wire import (
    RECEIPT,
    VERSION,
    Card,
    Consistency,
    EnvelopePayload,
    ProvenStatement,
    Receipt,
    Rung,
    decode_wire,
    encode_wire,
    receipt_decoder,
    reply_decoder,
)
from exchange.store.errors import NotFound
from exchange.store.log import consistency_between, latest_head, proofs_of, statement_at
from exchange.store.messages import (
    sections_of,
)
from exchange.store.outbox import ATTACHMENT, FORM, MANIFEST, ORDER, SIGHTINGS, WORD, Delivery
from exchange.store.peers import PeerRow, peer
from exchange.store.sightings import seen_at
from exchange.store.transaction import Operation, Transaction

_MOST_BUNDLED_BYTES: Final = 4 * 1024 * 1024
_CODE: Final = re.compile(r"[a-z0-9-]{1,80}")
#: An order waits so long for the message that it is about, where that is still on its way.
_BEHIND_MS: Final = 1000
#: What a peer says that takes no more for now. Nothing else of what it says is shown.
_LIMITS: Final = frozenset({"peer-limit", "peer-quota", "store-full", "too-many-requests"})


class Outbound:
    """Delivers to peers."""

    def __init__(
        self,
        services: Services,
        continuity: Continuity,
        inbound: Inbound,
        client: PeerClient,
        cards: CardRefresh,
    ) -> None:
        self._services = services
        self._continuity = continuity
        self._inbound = inbound
        self._client = client
        self._cards = cards
        #: Of each peer, the size of this node's log that it said it holds.
        self._told: dict[str, int] = {}
        self._shown = Shown()

    async def perform(self, origin: str, rows: list[Delivery], beside: Sequence[bytes] = ()) -> Outcome:
        """Send rows of a peer's lane in one envelope, as many as fit; or one attachment, with chunks of it `beside`.

        Raises:
            NotNow: the peer cannot be reached, or its reply does not hold.
        """
        services = self._services
        try:
            row = await services.store.read(lambda tx: peer(tx, origin), brief=True)
        except NotFound:
            return Outcome(held=[(delivery, "the peer is not registered any more") for delivery in rows])
        if row.state != "verified":
            return Outcome(held=[(delivery, f"the peer is {row.state}") for delivery in rows])
        card = peer_card(row)
        try:
            key = current_sealing_key(card, services.now())
        except NoCurrentKey:
            if await self._cards.has_current_key(origin):
                return Outcome(again=rows)  # with the card that has just come
            return Outcome(held=[(delivery, NO_CURRENT_KEY) for delivery in rows])
        forms = [delivery for delivery in rows if delivery.kind == FORM]
        if forms:
            outcome = await sign_waiting(services, row, forms)
            outcome.again = [delivery for delivery in rows if delivery.kind != FORM]
            return outcome
        reply_secret = Secret.random()
        payload, sent, left = await self._payload(origin, rows, reply_secret, beside)
        crash_points.reached("peer.before-call")
        answer = await self._client.post_envelope(row, card, seal_envelope(encode_wire(payload), Origin(origin), key))
        if answer.holds is not None and answer.holds != payload.consistency.first:
            # It cannot ask this node for the proof, so the proof comes along.
            self._told[origin] = answer.holds
            payload, sent, left = await self._payload(origin, rows, reply_secret, beside)
            envelope = seal_envelope(encode_wire(payload), Origin(origin), key)
            answer = await self._client.post_envelope(row, card, envelope)
        if answer.status == 413 and len(sent) == 1:
            return Outcome(again=left, held=[(delivery, "the peer finds it too large") for delivery in sent])
        if answer.status != 200:
            if answer.code == "unacceptable":
                self._cards.soon(origin)  # it may have no such key any more
            reason = (
                f"{origin} answered {answer.code or answer.status}; this node may not be verified there"
                if answer.code == "unacceptable"
                else f"{origin} answered {answer.status}"
            )
            if answer.code in _LIMITS:
                reason += f": {answer.code}"
            limited = answer.status in (429, 503) and answer.code in _LIMITS and answer.retry_after_s > 0
            return Outcome(again=sent + left, error=reason, asked_s=answer.retry_after_s, limited=limited)
        try:
            data = open_reply(reply_secret, answer.body)
        except CryptoError as error:
            raise NotNow(f"the reply of {origin} does not hold: {error}") from None
        crash_points.reached("peer.answered")
        outcome = await self._take_reply(row, card, payload, sent, data)
        outcome.again += left
        return outcome

    async def _payload(
        self, origin: str, rows: list[Delivery], reply_secret: Secret, beside: Sequence[bytes]
    ) -> tuple[EnvelopePayload, list[Delivery], list[Delivery]]:
        """The envelope's content for as many of `rows` as fit, and which of them are in it."""
        services = self._services
        holds = await self._continuity.held_size(origin)
        told = self._told.get(origin, 0)

        async def collect(tx: Transaction) -> tuple[EnvelopePayload, int, int]:
            head = await latest_head(tx)
            statements: list[bytes] = []
            ciphertexts: list[bytes] = []
            size_bytes = 0
            for number, delivery in enumerate(rows):
                statement = await statement_at(tx, delivery.position or 0)
                sections = await self._beside(tx, delivery)
                size_bytes += len(statement) + len(head.text) + sum(map(len, sections))
                if number and size_bytes > _MOST_BUNDLED_BYTES:
                    break
                statements.append(statement)
                ciphertexts += sections
            taken = rows[: len(statements)]
            proofs = await proofs_of(tx, [delivery.position or 0 for delivery in taken], head)
            items = tuple(
                ProvenStatement(statement=statement, proof=proof)
                for statement, proof in zip(statements, proofs, strict=True)
            )
            sighted = [one.position or 0 for one in taken if one.kind == SIGHTINGS]
            seen = await seen_at(tx, sighted[-1]) if sighted else ()
            first = self._shown.base(origin, told, head.size)
            path = tuple(await consistency_between(tx, first, head.size))
            payload = EnvelopePayload(
                version=VERSION,
                sender=services.configuration.origin,
                holds=holds,
                consistency=Consistency(first=first, path=path),
                reply_secret=reply_secret.reveal(),
                items=items,
                ciphertexts=(*ciphertexts, *beside),
                seen=seen,
                leaves=await self._inbound.mirroring.with_envelope(tx, origin, head.size),
            )
            return payload, len(items), head.size

        payload, count, size = await services.store.read(collect, brief=True)
        self._shown.show(origin, told, size)
        return payload, rows[:count], rows[count:]

    async def _beside(self, tx: Transaction, delivery: Delivery) -> list[bytes]:
        """The ciphertexts that go with a statement."""
        number = delivery.message or 0
        if delivery.kind == MANIFEST:
            return [section.ciphertext for section in await sections_of(tx, number)]
        if delivery.kind == WORD:
            return await ciphertexts_at(self._services, tx, number, delivery.position or 0)
        return []

    async def _take_reply(
        self, row: PeerRow, card: Card, payload: EnvelopePayload, sent: list[Delivery], data: bytes
    ) -> Outcome:
        services = self._services
        outcome = Outcome()
        try:
            reply = decode_wire(reply_decoder, data)
        except SchemaError as error:
            raise NotNow(f"{row.origin} sent a reply that cannot be read: {error}") from None
        if len(reply.results) != len(sent):
            raise NotNow(f"{row.origin} answered for {len(reply.results)} items instead of {len(sent)}")
        self._told[row.origin] = reply.holds
        self._inbound.mirroring.told(row.origin, reply.keeps)
        answered: list[Delivery] = []
        heads: list[Operation[None]] = []
        shown: dict[str, Checkpoint] = {}
        receipts: list[tuple[Delivery, Receipt, VerifiedStatement, ProvenStatement]] = []
        try:
            for delivery, item, result in zip(sent, payload.items, reply.results, strict=True):
                leaf = leaf_hash(item.statement)
                if result.leaf_hash != leaf:
                    raise NotNow(f"{row.origin} answered for another statement than the one that it was sent")
                if result.problem is not None:
                    # The reason is shown and logged, so it is a code or nothing of what the peer has to say.
                    code = result.problem.code
                    reason = code if _CODE.fullmatch(code) else "no code"
                    if delivery.kind == ORDER and code == "order-message-unknown":
                        await self._not_there(delivery, outcome)
                        continue
                    outcome.held.append((delivery, f"refused by {row.origin}: {reason}"))
                elif delivery.kind == ATTACHMENT:
                    pass  # there may be more of it
                elif delivery.kind != MANIFEST:
                    answered.append(delivery)
                elif result.receipt is None:
                    raise NotNow(f"{row.origin} accepted a message without a receipt")
                else:
                    verified, receipt = self._check_receipt(row, card, leaf, result.receipt)
                    heads += await self._continuity.follow(
                        verified.checkpoint,
                        reply.consistency,
                        lambda first, second: self._client.fetch_consistency(row, first, second),
                    )
                    shown[verified.checkpoint.text] = verified.checkpoint
                    receipts.append((delivery, receipt, verified, result.receipt))
            for checkpoint in shown.values():
                heads += keep_given(checkpoint, reply.leaves)
            # All at once, so that they share one batch of the writer.
            await asyncio.gather(
                self._continuity.keep(heads),
                *(
                    take_receipt(services, row, receipt, verified, item, [delivery], lanes=outcome.wake)
                    for delivery, receipt, verified, item in receipts
                ),
                finish(services, answered),
            )
        except ForkDetected as error:
            await self._inbound.quarantine(row, error, data)
            return Outcome(held=[(waiting, "the peer is quarantined") for waiting in sent])
        except Unacceptable as error:
            # It was stopped while it answered. Verified again, it gives the same receipt again.
            return Outcome(held=[(waiting, str(error)) for waiting in sent])
        except (CryptoError, SchemaError, ItemRefused) as error:
            self._cards.soon(row.origin)  # it may have rotated its keys
            raise NotNow(f"the receipt of {row.origin} does not hold: {error}") from None
        services.changes.notify()
        return outcome

    async def _not_there(self, delivery: Delivery, outcome: Outcome) -> None:
        """The peer does not know the message that it was ordered to destroy."""
        why = await not_there(self._services, delivery)
        if why:
            outcome.held.append((delivery, why))
        elif why is not None:
            outcome.put_off.append((delivery, self._services.now_ms() + _BEHIND_MS))

    def _check_receipt(
        self, row: PeerRow, card: Card, leaf: LeafHash, item: ProvenStatement
    ) -> tuple[VerifiedStatement, Receipt]:
        verified = verify_statement(
            item.statement, item.proof, Origin(row.origin), card_keys(card), self._services.checkpoints
        )
        if verified.statement.type != RECEIPT:
            raise ItemRefused("receipt-missing", "the statement is not a receipt")
        receipt = decode_wire(receipt_decoder, verified.statement.body)
        if receipt.rung is not Rung.RECEIVED:
            raise ItemRefused("receipt-missing", "the receipt is not of the rung received")
        if receipt.leaf_hash != leaf:
            # An old receipt of another message must not end this one's delivery.
            raise ItemRefused("receipt-hash", "the receipt is for another message")
        return verified, receipt
