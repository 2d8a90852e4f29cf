"""What arrives: open an envelope, prove its sender, check continuity, then take each item on by itself.

* Nothing is said to a sender that is not proven, but `unacceptable`.
* The items of one envelope share a batch of the writer and its checkpoint; one that is refused stops no other.
* What contradicts a peer's log quarantines it; nothing else in that envelope is taken.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from exchange.crypto.envelope import envelope_key_id, open_envelope, seal_reply
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import Origin, SealingKeyId
from exchange.crypto.proof import VerifiedStatement, verify_statement
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.node.admission import Brought
from exchange.node.arrivals import Arrivals
from exchange.node.attachment_arrivals import AttachmentArrivals
from exchange.node.attachment_reports import take_report
from exchange.node.cards import has_expired, peer_card, release_if_current, verify_card
from exchange.node.continuity import Continuity, Shown
from exchange.node.epochs import load_sealing_keys
from exchange.node.errors import ForkDetected, ItemRefused, NodeError, Unacceptable
from exchange.node.forks import FORK, explained_ms, keep_fork
from exchange.node.hearing import still_heard, while_heard
from exchange.node.mirroring import Mirroring, keep_given
from exchange.node.orders_taken import take_order
from exchange.node.peer_receipts import take_receipt
from exchange.node.peering import move
from exchange.node.services import Services
from exchange.node.trust import Standing
from exchange.schema.attachments import ATTACHMENT, ATTACHMENT_REPORT, attachment_decoder, report_decoder
from exchange.schema.card_file import card_keys
from exchange.schema.errors import SchemaError
from exchange.schema.wire import (
    CARD,
    MANIFEST,
    ORDER,
    RECEIPT,
    SIGHTINGS,
    VERSION,
    Consistency,
    EnvelopePayload,
    Leaves,
    Manifest,
    ProblemDetails,
    ProvenStatement,
    ReplyPayload,
    Result,
    decode_wire,
    encode_wire,
    envelope_decoder,
    manifest_decoder,
    order_decoder,
    receipt_decoder,
    sightings_decoder,
)
from exchange.store.errors import Conflict, NotFound
from exchange.store.log import consistency_between, latest_head
from exchange.store.messages import (
    MOST_ALARMS_ABOUT,
    add_alarm,
    alarms_about,
    find_message,
    has_alarm,
)
from exchange.store.mirror import keep_sightings, kept_leaves
from exchange.store.peers import PeerRow, peer, set_peer_card
from exchange.store.transaction import LogEntry, Operation, Transaction

_DAY_MS: Final = 86_400_000
_LOOK_FOR_KEYS_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to a proven sender, and whose lane has something new in it.

    `is_news` where the envelope told what only its sender can tell, and for the first time.
    """

    body: bytes
    origin: str
    lanes: frozenset[str]
    is_news: bool


class Inbound:
    """Takes envelopes and statements of peers."""

    def __init__(
        self,
        services: Services,
        continuity: Continuity,
        fetch_proof: Callable[[PeerRow, int, int], Awaitable[list[bytes]]],
    ) -> None:
        self._services = services
        self._continuity = continuity
        self._fetch_proof = fetch_proof
        self._arrivals = Arrivals(services)
        self.attachments = AttachmentArrivals(services)
        self._shown = Shown()
        self._looked_for_keys_at = -_LOOK_FOR_KEYS_EVERY_S
        self.mirroring = Mirroring()
        #: Told of a verified peer in whose name something came that does not verify.
        self.unproven: Callable[[str], None] = lambda origin: None
        #: Asks a verified peer for its card, and so for its own word which log it keeps.
        self.ask: Callable[[str], Awaitable[None]] = _unasked
        #: Told of the checkpoints that a peer says it has seen.
        self.told: Callable[[str, Sequence[str]], Awaitable[None]] = _unheard
        #: Told when something was destroyed by an order.
        self.destroyed: Callable[[], None] = lambda: None
        #: Told when a peer's log was seen to fork.
        self.forked: Callable[[], None] = lambda: None

    async def accept(self, data: bytes) -> Answer:
        """Take an envelope.

        Raises:
            Unacceptable: it does not open, or its sender is not a verified peer that proves itself.
            NotNow: continuity had to be asked for and the peer did not answer.
        """
        services = self._services
        payload, row, verified, heads = await self._prove(data)
        lanes: set[str] = set()
        ciphertexts = {hashlib.sha256(data).digest(): data for data in payload.ciphertexts}
        # All at once, so that they share the writer's next batch and its checkpoint.
        try:
            _, outcomes = await asyncio.gather(
                self._continuity.keep(heads, lambda head: while_heard(row, head)),
                asyncio.gather(
                    *(self._outcome(row, statement, item, ciphertexts, lanes) for statement, item in verified)
                ),
            )
        except ForkDetected as error:  # between what two replicas were shown at the same time
            await self.quarantine(row, error, data)
            raise Unacceptable("fork") from None
        services.counters.add("envelopes_accepted")
        services.changes.notify()
        if payload.seen and any(_tells(statement, payload.seen) for statement, _ in verified):
            await self.told(row.origin, payload.seen)
        results = tuple(_result(statement, outcome) for (statement, _), outcome in zip(verified, outcomes, strict=True))
        proven = max((outcome.size for outcome in outcomes if isinstance(outcome, LogEntry)), default=None)
        is_news = any(outcome is True or isinstance(outcome, LogEntry) for outcome in outcomes)
        return Answer(await self._reply(payload, results, proven), row.origin, frozenset(lanes), is_news)

    async def _reply(self, payload: EnvelopePayload, results: tuple[Result, ...], proven: int | None) -> bytes:
        """The reply; `proven` is the size of the checkpoint under which its receipts are, where they are new."""
        services = self._services

        async def view(tx: Transaction) -> tuple[Consistency, int, int, Leaves | None]:
            size = proven if proven is not None else (await latest_head(tx)).size
            first = self._shown.base(payload.sender, payload.holds, size)
            consistency = Consistency(first=first, path=tuple(await consistency_between(tx, first, size)))
            leaves = await self.mirroring.with_reply(tx, payload.sender, size) if proven is not None else None
            return consistency, size, await kept_leaves(tx, payload.sender), leaves

        consistency, size, keeps, leaves = await services.store.read(view, brief=True)
        self._shown.show(payload.sender, payload.holds, size)
        reply = ReplyPayload(
            version=VERSION,
            holds=await self._continuity.held_size(payload.sender),
            consistency=consistency,
            results=results,
            keeps=keeps,
            leaves=leaves,
        )
        return seal_reply(Secret(payload.reply_secret), encode_wire(reply))

    async def _outcome(
        self,
        row: PeerRow,
        verified: VerifiedStatement,
        item: ProvenStatement,
        ciphertexts: Mapping[bytes, bytes],
        lanes: set[str],
    ) -> LogEntry | ProvenStatement | ProblemDetails | bool:
        try:
            return await self._take(row, verified, item, ciphertexts, lanes)
        except ItemRefused as error:
            return self._refuse(row, error.refusal, str(error))
        except Conflict as error:
            await self._conflict(row.origin, str(error))
            return self._refuse(row, error.code, str(error))

    def _refuse(self, row: PeerRow, code: str, detail: str) -> ProblemDetails:
        self._services.counters.add(f"items_refused_{code}")
        self._services.log.warning("item refused", peer=row.origin, code=code)
        return ProblemDetails(code=code, detail=detail)

    async def _prove(
        self, data: bytes
    ) -> tuple[EnvelopePayload, PeerRow, list[tuple[VerifiedStatement, ProvenStatement]], list[Operation[None]]]:
        services = self._services
        try:
            key_id = envelope_key_id(data)
            key = services.keyring.sealing.get(key_id) or await self._key_of_another_replica(key_id)
            if key is None:
                raise Unacceptable("the envelope is for a sealing key that is not here")
            opened = open_envelope(data, services.configuration.origin, key)
            payload = decode_wire(envelope_decoder, opened)
            row = await services.store.read(lambda tx: peer(tx, payload.sender), brief=True)
            if row.state != "verified":
                raise Unacceptable(f"the peer is {row.state}")
            keys = card_keys(peer_card(row))
            origin = Origin(row.origin)
            try:
                verified = [
                    (verify_statement(item.statement, item.proof, origin, keys, services.checkpoints), item)
                    for item in payload.items
                ]
            except CryptoError:
                self.unproven(row.origin)  # it may have rotated its keys
                raise
            await self._look_at(row.origin, len(data), verified)
        except (CryptoError, SchemaError, NotFound) as error:
            raise Unacceptable(f"{error.code}: {error}") from None
        checkpoints = {statement.checkpoint.text: statement.checkpoint for statement, _ in verified}.values()
        if len(verified) > 1 and any(statement.statement.type == ATTACHMENT for statement, _ in verified):
            # Else each of many could have the node look through all of the chunks.
            raise Unacceptable("an attachment comes alone")
        if len({checkpoint.size for checkpoint in checkpoints}) != 1:
            # Else one envelope could have the node ask its sender for as many proofs as it has items.
            raise Unacceptable("the items are proven against checkpoints of several sizes")
        heads: list[Operation[None]] = []
        await self._begin_anew(row, max(checkpoint.signed_at_s for checkpoint in checkpoints))
        for checkpoint in checkpoints:
            try:
                heads += await self._continuity.follow(
                    checkpoint, payload.consistency, lambda first, second: self._fetch_proof(row, first, second)
                )
            except ForkDetected as error:
                await self.quarantine(row, error, opened)
                raise Unacceptable("fork") from None
            heads += keep_given(checkpoint, payload.leaves)
        return payload, row, verified, heads

    async def _begin_anew(self, row: PeerRow, signed_at_s: int) -> None:
        """After people have explained a fork, begin with a checkpoint that the peer itself shows.

        What was signed before that may be of either log, and anybody may bring it.
        """
        if await self._continuity.held_size(row.origin):
            return
        if signed_at_s * 1000 <= await self._services.store.read(lambda tx: explained_ms(tx, row)):
            await self.ask(row.origin)

    async def _key_of_another_replica(self, key_id: SealingKeyId) -> SealingPrivateKey | None:
        """A sealing key that another replica has made since this one looked; anybody can ask, so not at each time."""
        services = self._services
        if not services.store.shared or time.monotonic() - self._looked_for_keys_at < _LOOK_FOR_KEYS_EVERY_S:
            return None
        self._looked_for_keys_at = time.monotonic()
        await load_sealing_keys(services)
        return services.keyring.sealing.get(key_id)

    async def _look_at(
        self, origin: str, size_bytes: int, verified: list[tuple[VerifiedStatement, ProvenStatement]]
    ) -> None:
        """See whether there is room for the messages of an envelope, before they cost more.

        Raises:
            AtLimit: the peer has sent enough for now, or the store has no room.
        """
        if any(statement.statement.type == ATTACHMENT for statement, _ in verified):
            self._services.admission.look_at_chunks(self._services, origin, size_bytes)
        bodies = [statement.statement.body for statement, _ in verified if statement.statement.type == MANIFEST]
        if not bodies:
            return

        def read() -> list[Manifest]:
            try:
                return [decode_wire(manifest_decoder, body) for body in bodies]
            except SchemaError:
                return []  # each is answered for by itself

        def urgent() -> bool:
            found = read()
            return bool(found) and all(manifest.urgent for manifest in found)

        async def here_already(tx: Transaction) -> bool:
            return None not in [await find_message(tx, origin, manifest.message_id) for manifest in read()]

        brought = Brought(len(bodies), size_bytes, urgent, here_already)
        await self._services.admission.look_at(self._services, origin, brought)

    async def quarantine(self, row: PeerRow, fork: ForkDetected, shown: bytes) -> None:
        """Stop hearing and sending to a peer, and tell the admins; `shown` is what came with the contradiction.

        Nothing is done where the peer is not what `row` says any more, or where the contradiction was signed before
        people verified it anew: whoever has an old card of it must not have it stopped again and again.
        """
        services, origin = self._services, row.origin

        async def operation(tx: Transaction) -> bool:
            now = await peer(tx, origin)
            if now.state != "verified" or now.verified_at_ms != row.verified_at_ms:
                return False
            if fork.signed_at_s * 1000 <= await explained_ms(tx, now):
                return False
            await move(tx, origin, Standing.fork)
            await keep_fork(tx, services, origin, str(fork), fork.shown, shown)
            return True

        with suppress(NotFound):
            if await services.store.write(operation):
                self._tell(FORK, origin, str(fork))
                self.forked()
                return
        services.counters.add("forks_passed_over")
        services.log.warning("fork passed over", peer=origin, reason=str(fork))

    async def _conflict(self, origin: str, detail: str) -> None:
        services = self._services
        now_ms = services.now_ms()

        async def operation(tx: Transaction) -> None:
            # Once for a message, and few in a day: whoever sends conflicts must not fill the store.
            latest = await alarms_about(tx, "conflict", origin)
            if len(latest) >= MOST_ALARMS_ABOUT and now_ms - latest[-1][0] < _DAY_MS:
                return
            if not await has_alarm(tx, "conflict", origin, detail):
                await add_alarm(tx, "conflict", origin, detail, now_ms)

        await services.store.write(operation)
        self._tell("conflict", origin, detail)

    def _tell(self, kind: str, origin: str, detail: str) -> None:
        self._services.counters.add(f"alarms_{kind}")
        self._services.log.error("alarm", code=kind, peer=origin, reason=detail)

    async def _take(
        self,
        row: PeerRow,
        verified: VerifiedStatement,
        item: ProvenStatement,
        ciphertexts: Mapping[bytes, bytes],
        lanes: set[str],
    ) -> LogEntry | ProvenStatement | bool:
        """Take one item; of one that gets no receipt, whether it told something new."""
        statement = verified.statement
        try:
            if statement.type == MANIFEST:
                manifest = decode_wire(manifest_decoder, statement.body)
                return await self._arrivals.take(row, manifest, verified.leaf_hash, item, ciphertexts, lanes)
            if statement.type == RECEIPT:
                receipt = decode_wire(receipt_decoder, statement.body)
                return await take_receipt(
                    self._services, row, receipt, verified, item, ciphertexts=ciphertexts, lanes=lanes
                )
            if statement.type == ORDER:
                order = decode_wire(order_decoder, statement.body)
                new = await take_order(self._services, row, order, verified, item, lanes)
                if new:
                    self.destroyed()
                return new
            if statement.type == ATTACHMENT:
                said = decode_wire(attachment_decoder, statement.body)
                return await self.attachments.take(row, said, verified, item, ciphertexts)
            if statement.type == ATTACHMENT_REPORT:
                return await take_report(self._services, row, decode_wire(report_decoder, statement.body))
            if statement.type == CARD:
                await self._take_card(row, item, lanes)
                return False
            if statement.type == SIGHTINGS:
                decode_wire(sightings_decoder, statement.body)
                await self._keep_sightings(row, verified, item)
                return False
        except SchemaError as error:
            raise ItemRefused(error.code, str(error)) from None
        raise ItemRefused("statement-type-unknown", "this node does not know statements of that type")

    async def _take_card(self, row: PeerRow, item: ProvenStatement, lanes: set[str]) -> None:
        """Keep a newer card of the same identity."""
        try:
            verified = verify_card(item.statement, item.proof, self._services.checkpoints)
        except NodeError as error:
            raise ItemRefused("card-invalid", str(error)) from None
        card = verified.card
        if card.origin != row.origin or verified.fingerprint != row.fingerprint or card.area != peer_card(row).area:
            raise ItemRefused("card-identity", "the card is of another identity than the registered one")
        if has_expired(card, self._services.now()):
            raise ItemRefused("card-expired", "the card has expired")

        async def operation(tx: Transaction) -> bool:
            await still_heard(tx, row)
            if (await peer(tx, row.origin)).fingerprint != row.fingerprint:
                raise ItemRefused("card-identity", "the peer has passed on to another identity")
            newer = await set_peer_card(tx, row.origin, card.serial, item.statement, item.proof)
            return newer and await release_if_current(tx, self._services, await peer(tx, row.origin))

        if await self._services.store.write(operation):
            lanes.add(f"peer:{row.origin}")

    async def _keep_sightings(self, row: PeerRow, verified: VerifiedStatement, item: ProvenStatement) -> None:
        """Keep it for the peer: it may lose its log, and nobody else may have the end of it."""

        async def operation(tx: Transaction) -> None:
            await keep_sightings(tx, row.origin, verified.index, item.statement, item.proof)

        await self._services.store.write(while_heard(row, operation))


def _tells(verified: VerifiedStatement, seen: Sequence[str]) -> bool:
    """Whether a statement is the sender's word for what an envelope tells: anybody can put things beside its card."""
    if verified.statement.type != SIGHTINGS:
        return False
    try:
        told = decode_wire(sightings_decoder, verified.statement.body)
    except SchemaError:
        return False
    return told.seen_sha256 == hashlib.sha256(msgspec.msgpack.encode(seen)).digest()


async def _unasked(_: str) -> None:
    pass


async def _unheard(_: str, __: Sequence[str]) -> None:
    pass


def _result(statement: VerifiedStatement, outcome: LogEntry | ProvenStatement | ProblemDetails | bool) -> Result:
    if isinstance(outcome, ProblemDetails):
        return Result(leaf_hash=statement.leaf_hash, problem=outcome)
    if isinstance(outcome, LogEntry):
        outcome = ProvenStatement(statement=outcome.statement, proof=outcome.proof)
    receipt = outcome if isinstance(outcome, ProvenStatement) else None
    return Result(leaf_hash=statement.leaf_hash, receipt=receipt)
