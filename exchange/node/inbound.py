"""What arrives: open an envelope, prove its sender, check continuity, then take each item on by itself.

* Nothing is said to a sender that is not proven, but `unacceptable`.
* A receipt is signed in the transaction that stores the message, and exists only where the message is stored.
* The same message again gets the same receipt; the same id with another content is a conflict and an alarm.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import msgspec

from exchange.crypto.envelope import envelope_key_id, open_envelope, seal_reply
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import LeafHash, MessageId, Origin, SealingKeyId, SectionName
from exchange.crypto.parcel import open_parcel
from exchange.crypto.proof import VerifiedStatement, verify_statement
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.handover.rungs import LADDER
from exchange.node.admission import Brought
from exchange.node.agency_keys import is_for_others
from exchange.node.cards import has_expired, peer_card, release_if_current, verify_card
from exchange.node.compose import keep_secrets
from exchange.node.continuity import Continuity, Shown
from exchange.node.epochs import load_sealing_keys
from exchange.node.errors import ForkDetected, ItemRefused, NodeError, Unacceptable
from exchange.node.forks import FORK, explained_ms, keep_fork
from exchange.node.mirroring import Mirroring, keep_given
from exchange.node.peering import move
from exchange.node.services import Services, milliseconds
from exchange.node.trust import Standing
from exchange.schema.card_file import card_keys
from exchange.schema.errors import ContentInvalid, SchemaError
from exchange.schema.section_content import read_content
from exchange.schema.wire import (
    CARD,
    MANIFEST,
    RECEIPT,
    SIGHTINGS,
    VERSION,
    Consistency,
    EnvelopePayload,
    Leaves,
    Manifest,
    Placement,
    ProblemDetails,
    ProvenStatement,
    Receipt,
    ReplyPayload,
    Result,
    Rung,
    decode_wire,
    encode_wire,
    envelope_decoder,
    manifest_decoder,
    receipt_decoder,
    sightings_decoder,
)
from exchange.store.agencies import all_agencies
from exchange.store.agency_keys import all_agency_keys, kinds_by_key
from exchange.store.errors import Conflict, NotFound
from exchange.store.log import ProvenEntry, consistency_between, latest_head, proven_at
from exchange.store.messages import (
    INBOUND,
    MOST_ALARMS_ABOUT,
    OUTBOUND,
    KeysRow,
    MessageRow,
    SectionRow,
    add_alarm,
    add_event,
    add_message,
    add_receipt,
    add_rung_events,
    alarms_about,
    count_receipts,
    find_message,
    has_alarm,
    raise_rung,
)
from exchange.store.mirror import keep_sightings, kept_leaves
from exchange.store.outbox import STATEMENT, WEBHOOK, Delivery, done, enqueue, new_delivery
from exchange.store.peers import PeerRow, peer, peer_standing, set_peer_card
from exchange.store.transaction import LogEntry, Operation, Transaction
from exchange.store.trust import heirs, rotations_of

T = TypeVar("T")

_DAY_MS: Final = 86_400_000
_AHEAD: Final = timedelta(minutes=5)
_LONGEST: Final = timedelta(days=90)
#: What takes so long to check that others must have their turn before the next.
_LONG_BYTES: Final = 64 * 1024
_LOOK_FOR_KEYS_EVERY_S: Final = 1.0
#: A node signs for the message, for each section and agency on each rung at most, and some of it again after a crash.
_MOST_RECEIPTS: Final = 16


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
        self._shown = Shown()
        self._looked_for_keys_at = -_LOOK_FOR_KEYS_EVERY_S
        self.mirroring = Mirroring()
        #: Told of a verified peer in whose name something came that does not verify.
        self.unproven: Callable[[str], None] = lambda origin: None
        #: Asks a verified peer for its card, and so for its own word which log it keeps.
        self.ask: Callable[[str], Awaitable[None]] = _unasked
        #: Told of the checkpoints that a peer says it has seen.
        self.told: Callable[[str, Sequence[str]], Awaitable[None]] = _unheard
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

        consistency, size, keeps, leaves = await services.store.read(view)
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
            row = await services.store.read(lambda tx: peer(tx, payload.sender))
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
                return await self._take_manifest(row, manifest, verified.leaf_hash, item, ciphertexts, lanes)
            if statement.type == RECEIPT:
                return await self.take_receipt(row, decode_wire(receipt_decoder, statement.body), verified, item)
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
            await _still_heard(tx, row)
            if (await peer(tx, row.origin)).fingerprint != row.fingerprint:
                raise ItemRefused("card-identity", "the peer has passed on to another identity")
            newer = await set_peer_card(tx, row.origin, card.serial, item.statement, item.proof)
            return newer and await release_if_current(tx, self._services, await peer(tx, row.origin))

        if await self._services.store.write(operation):
            lanes.add(f"peer:{row.origin}")

    async def take_receipt(
        self,
        row: PeerRow,
        receipt: Receipt,
        verified: VerifiedStatement,
        item: ProvenStatement,
        answered: Sequence[Delivery] = (),
    ) -> bool:
        """Keep a receipt of a peer for a message of ours, and move the sections that it names; False where it is known.

        The deliveries `answered` are done with it, in the same transaction.

        Raises:
            ItemRefused: it is not of that peer, or not for a message that this node sent to it.
            Unacceptable: the peer is not verified any more.
        """
        services, origin = self._services, row.origin
        if receipt.origin != origin or receipt.recipient != services.configuration.origin:
            raise ItemRefused("receipt-origin", "the receipt is of or for another node")

        async def operation(tx: Transaction) -> bool:
            await _still_heard(tx, row)
            await done(tx, answered)
            message = await find_message(tx, services.configuration.origin, receipt.message_id)
            if message is None or message.direction != OUTBOUND or message.peer != origin:
                raise ItemRefused("receipt-unknown", "this node has sent you no such message")
            if message.leaf_hash != receipt.leaf_hash:
                raise ItemRefused("receipt-hash", "the receipt is for another content of that message")
            pairs = [(placement.section, placement.agency) for placement in receipt.placements]
            if pairs and not _placements_sent(message).issuperset(pairs):
                raise ItemRefused("receipt-placements", "the receipt names a section or agency that was not sent to")
            kept = await count_receipts(tx, message.number)
            if kept >= _MOST_RECEIPTS and kept >= _MOST_RECEIPTS + 2 * len(LADDER) * len(_placements_sent(message)):
                raise ItemRefused("receipts-too-many", "there are more receipts of that message than it has steps")
            now_ms = services.now_ms()
            rung, at_ms = receipt.rung.value, milliseconds(receipt.at)
            new = await add_receipt(
                tx, message.number, rung, verified.leaf_hash, item.statement, at_ms, proof=item.proof
            )
            if not new:
                return False
            if receipt.rung is Rung.RECEIVED:
                await add_event(tx, message.number, rung, now_ms, detail=origin)
            elif rung in LADDER:
                await raise_rung(tx, message.number, rung, pairs, at_ms)
                await add_rung_events(tx, message.number, rung, pairs, now_ms)
            return True

        new = await services.store.write(operation)
        services.counters.add(f"receipts_{receipt.rung.value}")
        return new

    async def _keep_sightings(self, row: PeerRow, verified: VerifiedStatement, item: ProvenStatement) -> None:
        """Keep it for the peer: it may lose its log, and nobody else may have the end of it."""

        async def operation(tx: Transaction) -> None:
            await keep_sightings(tx, row.origin, verified.index, item.statement, item.proof)

        await self._services.store.write(while_heard(row, operation))

    async def _take_manifest(
        self,
        row: PeerRow,
        manifest: Manifest,
        leaf: LeafHash,
        item: ProvenStatement,
        ciphertexts: Mapping[bytes, bytes],
        lanes: set[str],
    ) -> LogEntry | ProvenStatement:
        self._check_manifest(row, manifest, ciphertexts)
        try:
            secrets = await self._open(manifest, ciphertexts)
        except ItemRefused:
            # What opened it may be destroyed or lost; what was signed for is signed for.
            given = await self._given_before(manifest, leaf)
            if given is None:
                raise
            return given
        services = self._services
        keys = keep_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, secrets)
        sections = [SectionRow(entry.name, ciphertexts[entry.sha256]) for entry in manifest.sections]

        async def operation(tx: Transaction) -> LogEntry | int:
            await _still_heard(tx, row)
            present = await find_message(tx, manifest.sender, manifest.message_id)
            if present is not None:
                if present.leaf_hash != leaf or present.received_position is None:
                    raise Conflict(f"message {manifest.message_id} was received before with another content")
                return present.received_position
            return await self._store(tx, row, manifest, leaf, item, keys, sections, lanes)

        size_bytes = len(item.statement) + sum(len(section.ciphertext) for section in sections)
        stored: LogEntry | int | None = None
        services.admission.count(row.origin, size_bytes, services.now_ms())
        try:
            stored = await services.store.write(operation)
        finally:
            if not isinstance(stored, LogEntry):
                services.admission.give_back(row.origin, size_bytes)
        if isinstance(stored, LogEntry):
            return stored
        # Only now: where the same message came twice in one batch, its receipt is in the log once that is committed.
        proven = await services.store.read(lambda tx: proven_at(tx, stored))
        return ProvenStatement(statement=proven.statement, proof=proven.proof)

    async def _given_before(self, manifest: Manifest, leaf: LeafHash) -> ProvenStatement | None:
        """The receipt that was given for the very same message before, if one was."""

        async def find(tx: Transaction) -> ProvenEntry | None:
            present = await find_message(tx, manifest.sender, manifest.message_id)
            if present is None or present.leaf_hash != leaf or present.received_position is None:
                return None
            return await proven_at(tx, present.received_position)

        proven = await self._services.store.read(find)
        return None if proven is None else ProvenStatement(statement=proven.statement, proof=proven.proof)

    def _check_manifest(self, row: PeerRow, manifest: Manifest, ciphertexts: Mapping[bytes, bytes]) -> None:
        services = self._services
        now = services.now()
        if manifest.sender != row.origin or manifest.from_area != peer_card(row).area:
            raise ItemRefused("sender-wrong", "the manifest names another sender than the one who signed it")
        if (
            manifest.recipient != services.configuration.origin
            or manifest.to_area != services.configuration.tables.node.area
        ):
            raise ItemRefused("recipient-wrong", "the manifest is for another borough")
        if manifest.created_at > now + _AHEAD:
            raise ItemRefused("from-the-future", "created_at is more than five minutes ahead of this node's clock")
        if manifest.expires_at <= now or manifest.expires_at > manifest.created_at + _LONGEST:
            raise ItemRefused("expired", "expires_at has passed, or is more than 90 days after created_at")
        names = [entry.name for entry in manifest.sections]
        if len(set(names)) != len(names):
            raise ItemRefused("sections-doubled", "a section stands twice in the manifest")
        for entry in manifest.sections:
            if not set(entry.readers) <= services.catalogue.allowed(entry.name):
                raise ItemRefused("readers-not-allowed", f"section {entry.name} names readers that it may not have")
            if entry.sha256 not in ciphertexts:
                raise ItemRefused("section-missing", f"the ciphertext of section {entry.name} is missing")

    async def _open(self, manifest: Manifest, ciphertexts: Mapping[bytes, bytes]) -> dict[SectionName, Secret]:
        """The secrets of the sections that this node opens for its agencies, each checked to open.

        Where each reader of a section has a parcel to a key of its own, the node has no secret of it.
        """
        services = self._services
        message_id, sender = MessageId(manifest.message_id), Origin(manifest.sender)
        sealed = await self._sealed_kinds(manifest)
        recipient = services.configuration.origin
        secrets: dict[SectionName, Secret] = {}
        try:
            for parcel in manifest.parcels:
                key = services.keyring.sealing.get(SealingKeyId(parcel.key_id))
                if key is not None:
                    secrets |= open_parcel(parcel.parcel, key, sender, recipient, message_id)
            for entry in manifest.sections:
                name = SectionName(entry.name)
                if name not in secrets and sealed.issuperset(entry.readers):
                    continue  # it is for agencies alone, and for them to open
                if name not in secrets:
                    raise ItemRefused("parcel-missing", f"no parcel of this node opens section {name}")
                bound_to = SectionContext(message_id, sender, recipient, name)
                plaintext = open_section(ciphertexts[entry.sha256], secrets[name], bound_to, entry.commitment)
                read_content(plaintext)
                if len(plaintext.reveal()) > _LONG_BYTES:
                    await asyncio.sleep(0)
        except (CryptoError, ContentInvalid) as error:
            raise ItemRefused(error.code, str(error)) from None
        return secrets

    async def _sealed_kinds(self, manifest: Manifest) -> frozenset[str]:
        """The kinds of agency that have a parcel of their own in a message."""
        if not is_for_others(self._services, manifest):
            return frozenset()
        kinds = kinds_by_key(await self._services.store.read(all_agency_keys))
        return frozenset(kinds[parcel.key_id] for parcel in manifest.parcels if parcel.key_id in kinds)

    async def _store(
        self,
        tx: Transaction,
        row: PeerRow,
        manifest: Manifest,
        leaf: LeafHash,
        item: ProvenStatement,
        keys: KeysRow,
        sections: list[SectionRow],
        lanes: set[str],
    ) -> LogEntry:
        services = self._services
        now_ms = services.now_ms()
        received = await self._sign_receipt(tx, manifest, leaf, Rung.RECEIVED, ())
        number = await add_message(
            tx,
            MessageRow(
                number=0,
                origin=manifest.sender,
                message_id=manifest.message_id,
                direction=INBOUND,
                peer=row.origin,
                leaf_hash=leaf,
                statement=item.statement,
                proof=item.proof,
                position=None,
                received_position=received.position,
                urgent=int(manifest.urgent),
                created_at_ms=milliseconds(manifest.created_at),
                expires_at_ms=milliseconds(manifest.expires_at),
                stored_at_ms=now_ms,
            ),
            keys,
            sections,
        )
        await add_receipt(
            tx, number, "received", received.leaf_hash, received.statement, now_ms, position=received.position
        )
        await add_event(tx, number, "received", now_ms, detail=row.origin)
        await self._route(tx, row, manifest, leaf, number, lanes)
        return received

    async def _route(
        self, tx: Transaction, row: PeerRow, manifest: Manifest, leaf: LeafHash, number: int, lanes: set[str]
    ) -> None:
        """Queue each section for each agency that may read it; what has no agency here is held with a reason."""
        now_ms = self._services.now_ms()
        deadline_ms = milliseconds(manifest.expires_at)
        here = {agency.kind for agency in await all_agencies(tx)}
        readers: dict[str, list[str]] = {}
        for entry in manifest.sections:
            for kind in entry.readers:
                readers.setdefault(kind, []).append(entry.name)
        missing = [kind for kind in readers if kind not in here]
        deliveries = [
            new_delivery(
                f"agency:{kind}",
                WEBHOOK,
                now_ms=now_ms,
                deadline_ms=deadline_ms,
                urgent=manifest.urgent,
                message=number,
                agency=kind,
                held=f"no agency of kind {kind} is registered" if kind in missing else None,
            )
            for kind in readers
        ]
        await enqueue(tx, deliveries)
        if missing:
            await add_event(tx, number, "held", now_ms, detail=f"no agency is registered for {', '.join(missing)}")
        pairs = [(name, kind) for kind, names in readers.items() if kind in here for name in names]
        if pairs:
            await self.climb(tx, row.origin, manifest, leaf, number, Rung.ROUTED, pairs)
            lanes.update(f"agency:{kind}" for kind in readers if kind in here)
            lanes.add(f"peer:{row.origin}")

    async def _sign_receipt(
        self, tx: Transaction, manifest: Manifest, leaf: LeafHash, rung: Rung, placements: tuple[Placement, ...]
    ) -> LogEntry:
        receipt = Receipt(
            version=VERSION,
            message_id=manifest.message_id,
            leaf_hash=leaf,
            rung=rung,
            origin=self._services.configuration.origin,
            recipient=manifest.sender,
            at=self._services.now(),
            placements=placements,
        )
        return await tx.sign(RECEIPT, encode_wire(receipt))

    async def climb(
        self,
        tx: Transaction,
        origin: str,
        manifest: Manifest,
        leaf: LeafHash,
        number: int,
        rung: Rung,
        pairs: Sequence[tuple[str, str]],
    ) -> None:
        """Move sections of a message that arrived up to a rung; sign a receipt for it and queue that for the sender."""
        now_ms = self._services.now_ms()
        placements = tuple(Placement(section=section, agency=kind) for section, kind in pairs)
        entry = await self._sign_receipt(tx, manifest, leaf, rung, placements)
        await add_receipt(tx, number, rung.value, entry.leaf_hash, entry.statement, now_ms, position=entry.position)
        await raise_rung(tx, number, rung.value, pairs, now_ms)
        await add_rung_events(tx, number, rung.value, pairs, now_ms)
        delivery = new_delivery(
            f"peer:{origin}",
            STATEMENT,
            now_ms=now_ms,
            deadline_ms=milliseconds(manifest.expires_at),
            urgent=manifest.urgent,
            position=entry.position,
            message=number,
        )
        await enqueue(tx, [delivery])


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


async def _still_heard(tx: Transaction, row: PeerRow) -> None:
    """Check again, in the transaction that stores what a peer sent, that the peer was not stopped in the meantime.

    Nor is it heard under the identity that it had, where people have verified another since.

    Raises:
        Unacceptable: it was, or they have.
    """
    standing = await peer_standing(tx, row.origin)
    state, fingerprint = standing or ("not registered any more", "")
    if state != "verified":
        raise Unacceptable(f"the peer is {state}")
    if fingerprint != row.fingerprint and fingerprint not in heirs(await rotations_of(tx, row.origin), row.fingerprint):
        raise Unacceptable("the peer has another identity by now")


def while_heard(row: PeerRow, operation: Operation[T]) -> Operation[T]:
    """An operation for what came from a peer: it is refused where the peer was stopped in the meantime."""

    async def checked(tx: Transaction) -> T:
        await _still_heard(tx, row)
        return await operation(tx)

    return checked


def _result(statement: VerifiedStatement, outcome: LogEntry | ProvenStatement | ProblemDetails | bool) -> Result:
    if isinstance(outcome, ProblemDetails):
        return Result(leaf_hash=statement.leaf_hash, problem=outcome)
    if isinstance(outcome, LogEntry):
        outcome = ProvenStatement(statement=outcome.statement, proof=outcome.proof)
    receipt = outcome if isinstance(outcome, ProvenStatement) else None
    return Result(leaf_hash=statement.leaf_hash, receipt=receipt)


def _placements_sent(message: MessageRow) -> set[tuple[str, str]]:
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    return {(entry.name, kind) for entry in manifest.sections for kind in entry.readers}
