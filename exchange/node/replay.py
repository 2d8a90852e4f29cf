"""Put back into the store what peers returned: where messages stand, and which receipts were signed. Never content.

* A message that this node had signed for gets the same receipt again: the row that makes it arrive once is back.
* What was signed stands at its position in the log; what nobody returned stands there by its hash alone.
* A message that is here already, whole, is only brought up to the rung that it had reached.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.names import LeafHash
from exchange.crypto.proof import VerifiedStatement
from exchange.handover.rungs import LADDER, has_reached
from exchange.node.acknowledged import keep_returned, pinned_signers
from exchange.node.cards import peer_card
from exchange.node.services import Services, milliseconds
from exchange.schema.errors import SchemaError
from exchange.schema.wire import (
    CARD,
    MANIFEST,
    RECEIPT,
    Card,
    Manifest,
    ProvenStatement,
    Receipt,
    Rung,
    card_decoder,
    decode_wire,
    manifest_decoder,
    receipt_decoder,
)
from exchange.schema.words import PARTS
from exchange.store.acknowledgements import add_signers
from exchange.store.agencies import all_agencies
from exchange.store.errors import NotFound
from exchange.store.keys import keep_card_at, last_card
from exchange.store.log import adopt
from exchange.store.messages import (
    INBOUND,
    OUTBOUND,
    MessageRow,
    add_alarm,
    add_empty_message,
    add_event,
    add_receipt,
    add_rung_events,
    find_message,
    placements_of,
    raise_rung,
)
from exchange.store.peers import peer
from exchange.store.transaction import Transaction
from exchange.store.waiting import drop_waiting_form

Proven = tuple[VerifiedStatement, ProvenStatement]


@dataclass(frozen=True, slots=True)
class Returned:
    """What one peer returned: statements of this node, and its own."""

    origin: str
    yours: Sequence[Proven]
    mine: Sequence[Proven]


@dataclass(frozen=True, slots=True)
class Lost:
    """A message of which the content is not here."""

    id: str
    peer: str
    direction: str
    delivered: bool


class Replay:
    """Everything that was returned, put in order."""

    def __init__(self, services: Services, returned: Iterable[Returned]) -> None:
        self._services = services
        self._all = list(returned)
        self.returned = 0
        self.lost: list[Lost] = []
        self.agencies_missing: list[str] = []

    async def into(
        self, tx: Transaction, size: int, leaves: Sequence[LeafHash], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """Continue the log of `size` statements by `leaves`, and put back what belongs to them."""
        self.returned, self.lost, self.agencies_missing = 0, [], []
        end = size + len(leaves)
        known: dict[int, tuple[str, bytes]] = {}
        for one in self._all:
            for verified, item in one.yours:
                if size <= verified.index < end and leaves[verified.index - size] == verified.leaf_hash:
                    known[verified.index] = (verified.statement.type, item.statement)
        if leaves:
            signed = [(one.size, one.text, one.signed_at_s * 1000) for one in checkpoints]
            await adopt(tx, leaves, known, signed)
        self.returned = len(known)
        numbers: dict[int, tuple[str, str, Manifest]] = {}
        for one in self._all:
            yours = [pair for pair in one.yours if pair[0].index < end]
            await self._cards(tx, yours)
            await self._sent(tx, one, yours, numbers)
            await self._received(tx, one, yours, numbers)
        await self._tell(tx, numbers)

    async def _cards(self, tx: Transaction, yours: Sequence[Proven]) -> None:
        newest: Card | None = None
        for verified, _ in yours:
            if verified.statement.type == CARD:
                card = decode_wire(card_decoder, verified.statement.body)
                if card.serial > (await _serial(tx)):
                    await keep_card_at(tx, card.serial, verified.index)
                    newest = card
        if newest is not None:
            here = {row.kind for row in await all_agencies(tx)}
            self.agencies_missing = [agency.kind for agency in newest.agencies if agency.kind not in here]

    async def _sent(
        self, tx: Transaction, one: Returned, yours: Sequence[Proven], numbers: dict[int, tuple[str, str, Manifest]]
    ) -> None:
        """Messages that this node sent to a peer, and what the peer has signed for them."""
        own = self._services.configuration.origin
        for verified, item in yours:
            if verified.statement.type != MANIFEST:
                continue
            manifest = decode_wire(manifest_decoder, verified.statement.body)
            if (manifest.sender, manifest.recipient) != (own, one.origin):
                continue
            if await find_message(tx, own, manifest.message_id) is None:
                # Where the form still waited when the backup was made, it must not be signed once more.
                await drop_waiting_form(tx, manifest.message_id)
                row = self._row(manifest, verified, item, OUTBOUND, one.origin, position=verified.index)
                number = await self._add(tx, row)
                numbers[number] = (OUTBOUND, one.origin, manifest)
                # By which card it was sealed is lost: the present one must do.
                await add_signers(tx, number, pinned_signers(peer_card(await peer(tx, one.origin)), manifest))
        for verified, item in one.mine:
            receipt = _receipt_in(verified)
            if receipt is None or (receipt.origin, receipt.recipient) != (one.origin, own):
                continue
            message = await find_message(tx, own, receipt.message_id)
            if message is None or message.direction != OUTBOUND or message.leaf_hash != receipt.leaf_hash:
                continue
            await self._climb(tx, message.number, receipt, verified, item, position=None)

    async def _received(
        self, tx: Transaction, one: Returned, yours: Sequence[Proven], numbers: dict[int, tuple[str, str, Manifest]]
    ) -> None:
        """Messages that a peer sent to this node, and what this node has signed for them."""
        own = self._services.configuration.origin
        manifests = {
            verified.leaf_hash: (verified, item) for verified, item in one.mine if verified.statement.type == MANIFEST
        }
        receipts = [(verified, item, receipt) for verified, item in yours if (receipt := _receipt_in(verified))]
        for verified, item, receipt in sorted(receipts, key=lambda found: found[0].index):
            if (receipt.origin, receipt.recipient) != (own, one.origin):
                continue
            message = await find_message(tx, one.origin, receipt.message_id)
            if message is None and receipt.rung is Rung.RECEIVED:
                sent = manifests.get(LeafHash(receipt.leaf_hash))
                if sent is None:
                    continue
                manifest = decode_wire(manifest_decoder, sent[0].statement.body)
                if (manifest.sender, manifest.recipient, manifest.message_id) != (one.origin, own, receipt.message_id):
                    continue
                row = self._row(manifest, *sent, INBOUND, one.origin, received_position=verified.index)
                number = await self._add(tx, row)
                numbers[number] = (INBOUND, one.origin, manifest)
            elif message is not None and message.leaf_hash == receipt.leaf_hash and message.direction == INBOUND:
                number = message.number
            else:
                continue
            await self._climb(tx, number, receipt, verified, item, position=verified.index)

    def _row(
        self,
        manifest: Manifest,
        verified: VerifiedStatement,
        item: ProvenStatement,
        direction: str,
        peer: str,
        *,
        position: int | None = None,
        received_position: int | None = None,
    ) -> MessageRow:
        return MessageRow(
            number=0,
            origin=manifest.sender,
            message_id=manifest.message_id,
            direction=direction,
            peer=peer,
            leaf_hash=verified.leaf_hash,
            statement=item.statement,
            proof=item.proof if direction == INBOUND else None,
            position=position,
            received_position=received_position,
            urgent=int(manifest.urgent),
            created_at_ms=milliseconds(manifest.created_at),
            expires_at_ms=milliseconds(manifest.expires_at),
            stored_at_ms=self._services.now_ms(),
        )

    async def _add(self, tx: Transaction, row: MessageRow) -> int:
        number = await add_empty_message(tx, row)
        await add_event(tx, number, "returned", self._services.now_ms(), detail=row.peer)
        return number

    async def _climb(
        self,
        tx: Transaction,
        number: int,
        receipt: Receipt,
        verified: VerifiedStatement,
        item: ProvenStatement,
        *,
        position: int | None,
    ) -> None:
        rung, at_ms = receipt.rung.value, milliseconds(receipt.at)
        proof = item.proof if position is None else None
        if not await add_receipt(
            tx, number, rung, verified.leaf_hash, item.statement, at_ms, proof=proof, position=position
        ):
            return
        pairs = [(placement.section, placement.agency) for placement in receipt.placements]
        if receipt.rung is Rung.RECEIVED:
            await add_event(tx, number, rung, at_ms, detail=receipt.origin if position is None else receipt.recipient)
        elif receipt.rung in PARTS:
            # What was said is lost with the content.
            await keep_returned(tx, number, receipt, verified.leaf_hash, position)
        elif rung in LADDER:
            await raise_rung(tx, number, rung, pairs, at_ms)
            await add_rung_events(tx, number, rung, pairs, at_ms)

    async def _tell(self, tx: Transaction, numbers: dict[int, tuple[str, str, Manifest]]) -> None:
        """Say which messages came back without content, and which of them nobody has."""
        undelivered: dict[str, int] = {}
        for number, (direction, origin, manifest) in numbers.items():
            placed = await placements_of(tx, number)
            reached = {(row.section, row.agency) for row in placed if has_reached(row.rung, "delivered")}
            wanted = {(entry.name, kind) for entry in manifest.sections for kind in entry.readers}
            delivered = wanted <= reached
            self.lost.append(Lost(manifest.message_id, origin, direction, delivered))
            if direction == INBOUND and not delivered:
                undelivered[origin] = undelivered.get(origin, 0) + 1
        for origin, count in undelivered.items():
            detail = (
                f"{count} messages of {origin} were signed for and are lost here, and not delivered to every agency: "
                "ask for them again"
            )
            await add_alarm(tx, "content-lost", origin, detail, self._services.now_ms())


def _receipt_in(verified: VerifiedStatement) -> Receipt | None:
    if verified.statement.type != RECEIPT:
        return None
    try:
        return decode_wire(receipt_decoder, verified.statement.body)
    except SchemaError:
        return None


async def _serial(tx: Transaction) -> int:
    try:
        return (await last_card(tx))[0]
    except NotFound:
        return 0
