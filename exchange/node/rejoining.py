"""A node whose store came from a backup asks its peers what they hold of its log, and continues it.

* Until that is done it sends nothing else, signs nothing for its log, and listens to nobody but its own admins.
* It adopts only what its own keys have signed, and only a log that is whole: every leaf hash of it.
* It goes on by itself where every verified peer has answered and its log continues what each of them has seen. Else an
  admin decides, who is told which peers would see a fork.
* Two logs in its name stop it.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from exchange.crypto.alone import sign_alone
from exchange.crypto.checkpoint import Checkpoint
from exchange.crypto.envelope import open_reply, seal_envelope
from exchange.crypto.errors import CryptoError, LogContradicted, SignatureError
from exchange.crypto.names import LeafHash, Origin
from exchange.crypto.proof import VerifiedStatement, parse_proof, verify_statement
from exchange.crypto.regrowth import Held, Regrown, Target, regrow
from exchange.crypto.secret import Secret
from exchange.crypto.signing import fingerprint
from exchange.crypto.statement import encode_statement
from exchange.node.card_refresh import CardRefresh
from exchange.node.cards import as_items, peer_card
from exchange.node.compose import current_sealing_key
from exchange.node.continuity import Continuity
from exchange.node.errors import BackupOutdated, ForkDetected, NoCurrentKey, NotNow, Unacceptable
from exchange.node.inbound import Inbound
from exchange.node.key_records import LostMessage, RejoinPeer, RejoinRecord, keep_record
from exchange.node.mirroring import split_leaves
from exchange.node.peer_client import PeerClient, place_of
from exchange.node.replay import Replay, Returned
from exchange.node.services import Services, moment
from exchange.schema.card_file import card_keys
from exchange.schema.errors import SchemaError
from exchange.schema.identity import ROTATION
from exchange.schema.rejoining import (
    REJOIN,
    REJOIN_TYPE,
    Ask,
    RejoinAnswer,
    RejoinRequest,
    rejoin_answer_decoder,
)
from exchange.schema.succession import KeyPair, all_keys
from exchange.schema.wire import VERSION, ProvenStatement, decode_wire, encode_wire
from exchange.store.errors import NotFound
from exchange.store.log import frontier_at, last_signed_at_ms, log_size
from exchange.store.peers import PeerRow, all_peers, peer
from exchange.store.restored import begin_to_rejoin, end_rejoining
from exchange.store.transaction import Operation, Transaction
from exchange.store.trust import proven_rotations

_AGAIN_S: Final = 10.0
_AT_ONCE: Final = 8
_MOST_PARTS: Final = 4096
#: No message lives as long: what was not acknowledged before the backup may have been since.
_BEFORE: Final = timedelta(days=14)


@dataclass(slots=True)
class _Answer:
    """What a peer returned, verified where it is signed."""

    origin: str
    checkpoint: Checkpoint | None = None
    leaves: dict[int, bytes] = field(default_factory=dict)
    yours: list[tuple[VerifiedStatement, ProvenStatement]] = field(default_factory=list)
    mine: list[tuple[VerifiedStatement, ProvenStatement]] = field(default_factory=list)
    heads: list[Operation[None]] = field(default_factory=list)


class Rejoining:
    """Asks, until the log can be continued."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._continuity = Continuity(services.store, services.now_ms)
        self._client = PeerClient(services)
        self._inbound = Inbound(services, self._continuity, self._client.fetch_consistency)
        self._cards = CardRefresh(services, self._continuity, self._inbound, self._client, lambda lane: None)
        self._inbound.ask = self._cards.refresh
        self._answers: dict[str, _Answer] = {}
        self._reasons: dict[str, str] = {}
        self._beyond: tuple[Target, ...] = ()
        self._asked_at: datetime | None = None
        self._size = 0
        self._keys: list[KeyPair] = []
        self._woken = asyncio.Event()
        self._decided = False
        #: Whether everybody was asked and it cannot go on by itself.
        self.waits = False

    def go_on(self) -> None:
        """An admin decides to continue with what there is."""
        self._decided = True
        self._woken.set()

    def describe(self) -> dict[str, object]:
        """How it stands, for an admin."""
        return {
            "state": "rejoining",
            "size": self._size,
            "peers": self._peers(),
            "forks_at": sorted({target.by for target in self._beyond}),
        }

    def _peers(self) -> tuple[RejoinPeer, ...]:
        told = [
            RejoinPeer(
                origin=origin, answered=True, size=answer.checkpoint.size if answer.checkpoint is not None else None
            )
            for origin, answer in self._answers.items()
        ]
        told += [RejoinPeer(origin=name, answered=False, reason=text) for name, text in self._reasons.items()]
        return tuple(sorted(told, key=lambda one: one.origin))

    async def run(self, stop: asyncio.Event, every_s: float = _AGAIN_S) -> RejoinRecord | None:
        """Ask until every peer has answered and the log can be continued, or an admin decides; None where stopped.

        Raises:
            LogContradicted: two logs in this node's name were seen.
            BackupOutdated: the signing keys were changed after the backup.
            StoreInUse: another process of the node runs on the store.
        """
        services = self._services
        origin = services.configuration.origin
        self._size = await services.store.read(log_size)
        rotations = as_items(await services.store.read(lambda tx: proven_rotations(tx, origin)))
        self._keys = all_keys(services.keyring.verifiers, origin, rotations)
        size, now_ms = self._size, services.now_ms()
        await services.store.write(lambda tx: begin_to_rejoin(tx, size, services.store.replica, now_ms))
        services.log.info("node is rejoining", origin=services.configuration.origin, item_count=self._size)
        try:
            while not stop.is_set():
                await self._ask_all()
                regrown = await self._regrow()
                self._beyond = regrown.beyond
                if self._decided or not (self._reasons or regrown.beyond):
                    return await self._adopt(regrown)
                services.log.warning("the log cannot be continued yet", reason=self._why())
                self.waits = True
                await self._wait(stop, every_s)
        finally:
            await self._client.close()
        return None

    def _why(self) -> str:
        reasons = [f"{origin}: {reason}" for origin, reason in sorted(self._reasons.items())]
        reasons += [f"{target.by} has seen {target.size} statements that nobody returned" for target in self._beyond]
        return "; ".join(reasons)

    async def _wait(self, stop: asyncio.Event, every_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stop.wait())
            stopping.add_done_callback(lambda _: self._woken.set())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._woken.wait()
            stopping.cancel()
        self._woken.clear()

    async def _ask_all(self) -> None:
        rows = [row for row in await self._services.store.read(all_peers) if row.state == "verified"]
        self._reasons = {}
        # One whose checkpoint lies beyond what was returned may have more by now.
        due = [row.origin for row in rows if row.origin not in self._answers or self._beyond]
        at_once = asyncio.Semaphore(_AT_ONCE)
        outdated = await asyncio.gather(*(self._ask_in_turn(origin, at_once) for origin in due))
        for error in outdated:
            if error is not None:
                raise error

    async def _ask_in_turn(self, origin: str, at_once: asyncio.Semaphore) -> BackupOutdated | None:
        """Ask one peer; who does not answer holds up few others."""
        async with at_once:
            try:
                self._answers[origin] = await self._ask(origin)
            except (NotNow, NoCurrentKey, Unacceptable, NotFound, CryptoError, SchemaError) as error:
                if origin not in self._answers:
                    self._reasons[origin] = str(error)
            except BackupOutdated as error:
                return error
        return None

    # One peer

    async def _ask(self, origin: str) -> _Answer:
        services = self._services
        await self._cards.refresh(origin)
        row = await services.store.read(lambda tx: peer(tx, origin))
        if row.state != "verified":
            raise NotNow(f"{origin} is {row.state}")
        answer, skip = _Answer(origin), 0
        for _ in range(_MOST_PARTS):
            part = await self._part(row, skip)
            await self._take(row, answer, part)
            given = len(part.leaves) + len(part.yours) + len(part.mine)
            skip += given
            if not part.left:
                return answer
            if not given:
                break
        raise NotNow(f"{origin} does not come to an end of what it returns")

    async def _part(self, row: PeerRow, skip: int) -> RejoinAnswer:
        services = self._services
        origin, secret = services.configuration.origin, Secret.random()
        now, holds = services.now(), await self._continuity.held_size(row.origin)
        if self._asked_at is not None:
            now = max(now, self._asked_at + timedelta(milliseconds=1))
        self._asked_at = now
        last_ms = await services.store.read(last_signed_at_ms)
        ask = Ask(
            version=VERSION,
            origin=origin,
            recipient=row.origin,
            size=self._size,
            holds=holds,
            since=moment(last_ms or services.now_ms()) - _BEFORE,
            skip=skip,
            at=now,
            answer=hashlib.sha256(secret.reveal()).digest(),
        )
        statement = encode_statement(REJOIN, encode_wire(ask))
        proof = sign_alone(services.keyring.signing, statement, services.now_ms() // 1000)
        request = RejoinRequest(
            version=VERSION,
            sender=origin,
            ask=ProvenStatement(statement=statement, proof=proof),
            reply_secret=secret.reveal(),
        )
        card = peer_card(row)
        key = current_sealing_key(card, services.now())
        envelope = seal_envelope(encode_wire(request), Origin(row.origin), key)
        answer = await self._client.post(place_of(row, card), "/v1/rejoin", REJOIN_TYPE, envelope)
        if answer.status != 200:
            raise NotNow(f"answered {answer.code or answer.status}")
        found = decode_wire(rejoin_answer_decoder, open_reply(secret, answer.body))
        if found.origin != row.origin:
            raise NotNow("the answer is of another node")
        return found

    async def _take(self, row: PeerRow, answer: _Answer, part: RejoinAnswer) -> None:
        """Keep what holds of a part; what does not is passed over, since it says nothing."""
        services = self._services
        origin = services.configuration.origin
        keys = services.keyring.verifiers
        if part.checkpoint is not None:
            answer.checkpoint = self._own_checkpoint(part.checkpoint)
        for run in part.leaves:
            for position, leaf in enumerate(split_leaves(run.hashes), start=run.first):
                answer.leaves.setdefault(position, leaf)
        for item in part.yours:
            try:
                verified = verify_statement(item.statement, item.proof, origin, keys, services.checkpoints)
            except CryptoError:
                services.log.warning("returned statement passed over", peer=row.origin)
                continue
            if verified.statement.type == ROTATION:
                raise BackupOutdated(f"{row.origin} has seen this node change its signing keys after the backup")
            answer.yours.append((verified, item))
        theirs = card_keys(peer_card(row))
        mine = [
            (verify_statement(item.statement, item.proof, Origin(row.origin), theirs, services.checkpoints), item)
            for item in part.mine
        ]
        for checkpoint in {verified.checkpoint.text: verified.checkpoint for verified, _ in mine}.values():
            try:
                answer.heads += await self._continuity.follow(
                    checkpoint,
                    part.consistency,
                    lambda first, second: self._client.fetch_consistency(row, first, second),
                )
            except ForkDetected as error:
                await self._inbound.quarantine(row, error, encode_wire(part))
                raise NotNow(f"the log of {row.origin} forked") from None
        answer.mine += mine

    def _own_checkpoint(self, text: str) -> Checkpoint:
        """A checkpoint in this node's name, by the keys in force or by those that they followed on."""
        origin = self._services.configuration.origin
        first_error: CryptoError | None = None
        for keys in self._keys:
            try:
                return self._services.checkpoints.parse(text, origin, keys)
            except CryptoError as error:
                first_error = first_error or error
        raise first_error or SignatureError("there is no key to check with")

    # All together

    async def _regrow(self) -> Regrown:
        """How far the log can be continued by all that was returned.

        Raises:
            LogContradicted: two logs in this node's name were seen.
        """
        targets: dict[tuple[int, bytes], Target] = {}
        proven: dict[int, bytes] = {}
        for answer in self._answers.values():
            seen = [verified.checkpoint for verified, _ in answer.yours]
            seen += [answer.checkpoint] if answer.checkpoint is not None else []
            for checkpoint in seen:
                targets.setdefault(
                    (checkpoint.size, checkpoint.root), Target(answer.origin, checkpoint.size, checkpoint.root)
                )
            for verified, item in answer.yours:
                for position, leaf in shown_leaves(verified, parse_proof(item.proof).path):
                    if proven.setdefault(position, leaf) != leaf:
                        raise LogContradicted(f"{answer.origin} has seen another log in this node's name")
        older = [target for target in targets.values() if target.size < self._size]
        base = await self._services.store.read(lambda tx: frontier_at(tx, self._size))
        for target in older:
            await self._services.store.read(_check_older(target))
        held = [Held(answer.origin, answer.leaves) for answer in self._answers.values()]
        ahead = [target for target in targets.values() if target.size >= self._size]
        return await asyncio.to_thread(regrow, base, ahead, proven, held)

    async def _adopt(self, regrown: Regrown) -> RejoinRecord:
        """Continue the log, replay what came back, and let the node begin."""
        services = self._services
        answers = list(self._answers.values())
        size = self._size + len(regrown.leaves)
        replay = Replay(services, [Returned(one.origin, one.yours, one.mine) for one in answers])
        checkpoints = _distinct(answers)

        async def operation(tx: Transaction) -> None:
            await replay.into(tx, self._size, regrown.leaves, checkpoints)
            await end_rejoining(tx)
            for answer in answers:
                for head in answer.heads:
                    await head(tx)

        await services.store.write(operation, long=True)
        record = RejoinRecord(
            at=services.now(),
            fingerprint=fingerprint(services.configuration.origin, services.keyring.verifiers),
            size_before=self._size,
            size=size,
            returned=replay.returned,
            peers=self._peers(),
            forks_at=tuple(sorted({target.by for target in regrown.beyond})),
            messages=tuple(
                LostMessage(id=one.id, peer=one.peer, direction=one.direction, delivered=one.delivered)
                for one in replay.lost
            ),
            agencies_missing=tuple(replay.agencies_missing),
        )
        # First what a person needs to know: once the keystore says that it is done, it is not done again.
        await asyncio.to_thread(keep_record, services.configuration.directory, record)
        await asyncio.to_thread(services.keyring.accept_store)
        services.log.info(
            "node has rejoined", origin=services.configuration.origin, item_count=size - self._size, reason=self._why()
        )
        return record


def shown_leaves(verified: VerifiedStatement, path: Sequence[bytes]) -> Iterable[tuple[int, LeafHash]]:
    """The leaf hashes that a verified proof shows: the statement's own, and its neighbour's where that is a leaf."""
    yield verified.index, verified.leaf_hash
    neighbour = verified.index ^ 1
    if neighbour < verified.checkpoint.size and path:
        yield neighbour, LeafHash(path[0])


def _check_older(target: Target) -> Operation[None]:
    async def check(tx: Transaction) -> None:
        if (await frontier_at(tx, target.size)).root() != target.root:
            raise LogContradicted(f"{target.by} has seen a log of {target.size} statements that is not this store's")

    return check


def _distinct(answers: Iterable[_Answer]) -> list[Checkpoint]:
    """Every checkpoint that was returned, of each size one, smallest first."""
    found: dict[int, Checkpoint] = {}
    for answer in answers:
        seen = [verified.checkpoint for verified, _ in answer.yours]
        for checkpoint in [*seen, *([answer.checkpoint] if answer.checkpoint is not None else [])]:
            found.setdefault(checkpoint.size, checkpoint)
    return [found[size] for size in sorted(found)]
