"""Give a peer that was restored from a backup what this node holds of its log.

* Only a verified peer is answered, one that signs the question with its keys: a public card will not do.
* The question names this node, and each is later than the one before: what was recorded or passed on is not answered.
* The answer is sealed by a secret that only the asker and this node know. It holds what the peer itself has signed,
  and what this node has signed for it; no content.
* The admins here are told: a thief of the peer's keys can ask too.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from exchange.crypto.alone import verify_alone
from exchange.crypto.envelope import envelope_key_id, open_envelope, seal_reply
from exchange.crypto.errors import CryptoError
from exchange.crypto.proof import parse_proof
from exchange.crypto.secret import Secret
from exchange.node.cards import peer_card
from exchange.node.errors import NotNow, Unacceptable
from exchange.node.ordering import repeat_orders
from exchange.node.services import Services, milliseconds
from exchange.schema.card_file import card_keys
from exchange.schema.errors import SchemaError
from exchange.schema.rejoining import (
    REJOIN,
    Ask,
    RejoinAnswer,
    Run,
    ask_decoder,
    rejoin_request_decoder,
)
from exchange.schema.wire import VERSION, Consistency, ProvenStatement, decode_wire, encode_wire
from exchange.store.errors import NotFound
from exchange.store.holdings import (
    BEGINNING,
    HeldStatement,
    messages_from,
    receipt_statement,
    receipts_for,
    receipts_from,
)
from exchange.store.log import consistency_between, latest_head, proofs_of, statement_at
from exchange.store.messages import add_alarm, add_event, has_alarm, message_by_number
from exchange.store.mirror import kept_sightings, leaves_from
from exchange.store.orders import orders_of_peer
from exchange.store.peers import PeerRow, peer, peer_head
from exchange.store.transaction import Transaction
from exchange.store.trust import rotations_of

_FRESH: Final = timedelta(minutes=10)
_PAGE: Final = 500
_MOST_ROWS: Final = 8192
_MOST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Holdings:
    """All that is held for a peer, in an order in which only the end grows."""

    runs: list[tuple[int, bytes]]
    yours: list[tuple[int, HeldStatement | ProvenStatement]]
    mine: list[HeldStatement]
    #: Messages of this node whose receipts the peer has lost.
    lost: list[int]


class Returning:
    """Answers peers that rejoin."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._last: dict[str, datetime] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def answer(self, data: bytes) -> bytes:
        """The sealed answer to a sealed question.

        Raises:
            Unacceptable: it does not open, or who asks is not a verified peer that proves itself.
            NotNow: the same peer is being answered.
        """
        services = self._services
        try:
            row, ask, secret = await self._prove(data)
        except (CryptoError, SchemaError, NotFound) as error:
            raise Unacceptable(f"{error.code}: {error}") from None
        lock = self._locks.setdefault(row.origin, asyncio.Lock())
        if lock.locked():
            raise NotNow(f"{row.origin} is being answered")
        async with lock:
            last = self._last.get(row.origin)
            if last is not None and ask.at <= last:
                raise Unacceptable("that was asked before")
            self._last[row.origin] = ask.at
            holdings = await self._collect(row, ask)
            answer = await self._part(row, ask, holdings)
            if not answer.left:
                await self._tell(row, ask, holdings.lost)
        services.counters.add("rejoins_answered")
        return seal_reply(secret, encode_wire(answer))

    async def _prove(self, data: bytes) -> tuple[PeerRow, Ask, Secret]:
        services = self._services
        origin = services.configuration.origin
        key = services.keyring.sealing.get(envelope_key_id(data))
        if key is None:
            raise Unacceptable("the question is for a sealing key that is not here")
        request = decode_wire(rejoin_request_decoder, open_envelope(data, origin, key))
        row = await services.store.read(lambda tx: peer(tx, request.sender))
        if row.state != "verified":
            raise Unacceptable(f"the peer is {row.state}")
        verified = verify_alone(request.ask.statement, request.ask.proof, card_keys(peer_card(row)))
        if verified.statement.type != REJOIN:
            raise Unacceptable("that statement asks for nothing")
        ask = decode_wire(ask_decoder, verified.statement.body)
        if ask.origin != row.origin or ask.recipient != origin:
            raise Unacceptable("the question is of another node, or to another")
        if ask.answer != hashlib.sha256(request.reply_secret).digest():
            raise Unacceptable("the answer would be sealed to somebody else")
        if abs(services.now() - ask.at) > _FRESH:
            raise Unacceptable("the question is not of now: look at the clocks")
        return row, ask, Secret(request.reply_secret)

    async def _collect(self, row: PeerRow, ask: Ask) -> _Holdings:
        """What is held of the peer's log from the statement on that it lost first."""
        store, origin, since_ms = self._services.store, row.origin, milliseconds(ask.since)
        yours: list[tuple[int, HeldStatement | ProvenStatement]] = []
        lost: dict[int, None] = {}

        async def pages(read: Callable[..., Awaitable[list[HeldStatement]]]) -> list[HeldStatement]:
            found: list[HeldStatement] = []
            after = BEGINNING
            while True:
                page = await store.read(lambda tx, after=after: read(tx, origin, since_ms, after, _PAGE))  # type: ignore[misc]
                found += page
                if len(page) < _PAGE:
                    return found
                after = page[-1].message, page[-1].leaf_hash or b""

        for held in [*await pages(messages_from), *await pages(receipts_from)]:
            index = parse_proof(held.proof).index if held.proof else -1
            if index >= ask.size:
                yours.append((index, held))
                if held.rung == "received":
                    lost[held.message] = None
        card = ProvenStatement(statement=row.card, proof=row.proof)
        rotations = [
            ProvenStatement(statement=rotation.statement, proof=rotation.proof)
            for rotation in await store.read(lambda tx: rotations_of(tx, origin))
            if rotation.proof
        ]
        sighted = await store.read(lambda tx: kept_sightings(tx, origin))
        sightings = [] if sighted is None else [ProvenStatement(statement=sighted[0], proof=sighted[1])]
        # What it ordered of what it sent here: a node that was restored must not forget that.
        orders = [
            ProvenStatement(statement=order.statement, proof=order.proof)
            for order in await store.read(lambda tx: orders_of_peer(tx, origin))
            if order.proof
        ]
        for item in (card, *rotations, *sightings, *orders):
            index = parse_proof(item.proof).index
            if index >= ask.size:
                yours.append((index, item))
        yours.sort(key=lambda pair: pair[0])
        messages = [HeldStatement(number, None, None, None, None) for number in lost]
        mine = [*messages, *sorted(await pages(receipts_for), key=lambda held: held.position or 0)]
        runs = await store.read(lambda tx: leaves_from(tx, origin, ask.size, _MOST_ROWS))
        return _Holdings(runs, yours, mine, list(lost))

    async def _part(self, row: PeerRow, ask: Ask, holdings: _Holdings) -> RejoinAnswer:
        """As much of it as fits, after what was given before."""
        items: list[tuple[int, bytes] | HeldStatement | ProvenStatement] = [
            *holdings.runs,
            *(item for _, item in holdings.yours),
        ]
        of_peer = len(items)
        items += holdings.mine

        async def read(tx: Transaction) -> RejoinAnswer:
            runs: list[Run] = []
            yours: list[ProvenStatement] = []
            mine: list[ProvenStatement] = []
            size_bytes, taken = 0, 0
            head = await latest_head(tx)
            for number, item in enumerate(items[ask.skip :], start=ask.skip):
                if size_bytes > _MOST_BYTES:
                    break
                taken += 1
                if isinstance(item, tuple):
                    runs.append(Run(first=item[0], hashes=item[1]))
                    size_bytes += len(item[1])
                    continue
                if isinstance(item, ProvenStatement):
                    proven = item
                elif number < of_peer:
                    proven = ProvenStatement(statement=await _statement(tx, item), proof=item.proof or "")
                else:
                    position = item.position
                    if position is None:
                        position = (await message_by_number(tx, item.message)).position
                    (proof,) = await proofs_of(tx, (position or 0,), head)
                    proven = ProvenStatement(statement=await statement_at(tx, position or 0), proof=proof)
                (yours if number < of_peer else mine).append(proven)
                size_bytes += len(proven.statement) + len(proven.proof)
            held = await peer_head(tx, row.origin)
            first = min(ask.holds, head.size)
            return RejoinAnswer(
                version=VERSION,
                origin=self._services.configuration.origin,
                left=max(len(items) - ask.skip - taken, 0),
                consistency=Consistency(first=first, path=tuple(await consistency_between(tx, first, head.size))),
                checkpoint=held.checkpoint if held else None,
                leaves=tuple(runs),
                yours=tuple(yours),
                mine=tuple(mine),
            )

        return await self._services.store.read(read)

    async def _tell(self, row: PeerRow, ask: Ask, lost: Sequence[int]) -> None:
        """Tell the admins, and note at each message what the peer has lost of it."""
        services, now_ms = self._services, self._services.now_ms()
        detail = (
            f"{row.origin} says that it was restored from a backup, and has asked for what it lost: its statements "
            f"from {ask.size} on, with the content of {len(lost)} messages that this node sent"
        )

        async def operation(tx: Transaction) -> bool:
            # It has what was ordered to be destroyed again, or may not have told its agencies.
            await repeat_orders(services, tx, row.origin)
            if await has_alarm(tx, "peer-restored", row.origin, detail):
                return False
            await add_alarm(tx, "peer-restored", row.origin, detail, now_ms)
            for number in lost:
                await add_event(tx, number, "lost", now_ms, detail=row.origin)
            return True

        if await services.store.write(operation):
            services.counters.add("alarms_peer-restored")
            services.log.error("alarm", code="peer-restored", peer=row.origin, reason=detail)
            services.changes.notify()


async def _statement(tx: Transaction, held: HeldStatement) -> bytes:
    if held.leaf_hash is not None:
        return await receipt_statement(tx, held.message, held.leaf_hash)
    return (await message_by_number(tx, held.message)).statement
