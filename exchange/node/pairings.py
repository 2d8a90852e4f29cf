"""Pairings of this node with others: at most one at a time, in memory alone; a node that restarts has ended it.

* The card that the admin's URL shows is kept nowhere before the words were confirmed: false ones block nobody.
* An admin hears why a pairing ended; who is at the other end of the network hears `unacceptable`.
"""

import asyncio
import contextlib
import functools
import os
import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mnemonic import Mnemonic

from exchange.crypto.signing import fingerprint
from exchange.node.config import is_node_url
from exchange.node.errors import FingerprintMismatch, NotNow, RequestInvalid, Unacceptable
from exchange.node.pairing import Identity, Pairing, Stage
from exchange.node.peer_client import PeerClient
from exchange.node.peering import Confirmation, check_shown
from exchange.node.registering import Allowance, fetch_shown, refuse_revoked, register
from exchange.node.services import Changes, Services, moment
from exchange.schema.card_file import VerifiedCard
from exchange.schema.errors import SchemaError
from exchange.schema.registration import (
    PAIRING_TYPE,
    pairing_answer_decoder,
    pairing_offer_decoder,
    pairing_reveal_decoder,
)
from exchange.schema.wire import decode_wire, encode_wire
from exchange.store.errors import AlreadyThere, NotFound
from exchange.store.messages import add_alarm
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction

OFFERS: Final = "/v1/pairings"
REVEALS: Final = "/v1/pairings/reveal"
#: How often the initiator looks whether the other side has started too.
_EVERY_S: Final = 1.0


@dataclass(slots=True)
class Session:
    """A pairing that an admin of this node has started."""

    id: str
    url: str
    shown: VerifiedCard
    allowance: Allowance
    pairing: Pairing
    #: Why the other side could not be asked, for as long as it cannot.
    problem: str | None = None
    changes: Changes = field(default_factory=Changes)
    #: One admin ends it at a time.
    ending: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def words(self) -> tuple[str, ...]:
        """What both admins must see: words of the English list of BIP 39."""
        return tuple(_words()[number] for number in self.pairing.numbers)

    @property
    def ends_at(self) -> datetime:
        """When it ends by itself."""
        return moment(self.pairing.ends_ms)


class Pairings:
    """Starts, runs and ends pairings."""

    def __init__(self, services: Services, client: PeerClient, every_s: float = _EVERY_S) -> None:
        self._services = services
        self._client = client
        self._every_s = every_s
        self._starting = asyncio.Lock()
        self._begun: asyncio.Queue[Session] = asyncio.Queue()
        self._session: Session | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Do the initiator's part of what is started, until `stop`."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._initiate_all())
            await stop.wait()
            task.cancel()

    # The admin's side

    async def start(self, url: str, allowance: Allowance) -> Session:
        """Start a pairing with the node at a URL.

        Raises:
            AlreadyThere: another one is under way.
            RequestInvalid: it is no URL of a node, or what it serves is no card by which a peer can be registered.
            NotNow: the other node cannot be reached.
        """
        services = self._services
        refuse_revoked(services)
        if not is_node_url(url):
            raise RequestInvalid("the URL must be https://HOST, as the other borough's admin gave it to you")
        async with self._starting:
            current = self.current()
            if current is not None and current.pairing.is_under_way:
                raise AlreadyThere(
                    f"a pairing with {current.url} is under way",
                    hint=f"End it with: exchange peer pair {current.url} --stop. By itself it ends at "
                    f"{current.ends_at:%H:%M} UTC.",
                )
            shown = await fetch_shown(self._client, url, allowance)
            await services.store.read(lambda tx: check_shown(tx, services, shown))
            origin = services.configuration.origin
            own = Identity(origin, fingerprint(origin, services.keyring.verifiers))
            other = Identity(shown.card.origin, shown.fingerprint)
            pairing = Pairing(own, other, os.urandom(32), services.now_ms())
            session = self._session = Session(uuid.uuid4().hex, url, shown, allowance, pairing)
            if pairing.is_initiator:
                self._begun.put_nowait(session)
        services.log.info("pairing started", peer=shown.card.origin)
        return session

    def current(self) -> Session | None:
        """The pairing that was started last, be it over or not."""
        if self._session is not None:
            self._session.pairing.look_at_clock(self._services.now_ms())
        return self._session

    def find(self, session_id: str) -> Session:
        """A pairing.

        Raises:
            NotFound: it is not the one that was started last.
        """
        session = self.current()
        if session is None or session.id != session_id:
            raise NotFound("there is no such pairing", hint="The node was restarted, or another one was started since.")
        return session

    async def wait(self, session_id: str, timeout_s: float) -> Session:
        """A pairing, once it has words or has ended, or when the time is over.

        Raises:
            NotFound: it is not the one that was started last.
        """
        session = self.find(session_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while session.pairing.is_before_words:
                    await self._pause(session)
                    session.pairing.look_at_clock(self._services.now_ms())
        return session

    def stop(self, session_id: str) -> Session:
        """End a pairing, whose words may be the same or not.

        Raises:
            NotFound: it is not the one that was started last.
        """
        session = self.find(session_id)
        session.pairing.fail("it was stopped here")
        session.changes.notify()
        return session

    async def confirm(self, session_id: str, by: str, *, same: bool = False, words: str | None = None) -> PeerRow:
        """An admin has compared the words, or gives those that the other one read out: verify the peer.

        Raises:
            NotFound: it is not the one that was started last.
            RequestInvalid: it has no words, or they were answered already.
            FingerprintMismatch: the words differ; nothing was kept but an alarm.
            PeerUntrusted: a second person must confirm.
        """
        services = self._services
        session = self.find(session_id)
        async with session.ending:
            pairing, origin = session.pairing, session.shown.card.origin
            if pairing.stage is not Stage.WORDS:
                raise RequestInvalid(
                    f"there are no words to confirm: {pairing.reason or f'the pairing is {pairing.stage}'}",
                    hint="Start again at both ends.",
                )
            if words is not None:
                same = _spoken(words) == session.words
            if not same:
                pairing.end(same=False)
                detail = (
                    f"the words of a pairing with {session.url} differed: what answers there as {origin} with the "
                    f"fingerprint {session.shown.fingerprint} may stand between the two nodes; nothing of it was kept"
                )
                await services.store.write(
                    lambda tx: add_alarm(tx, "pairing-words-differ", origin, detail, services.now_ms())
                )
                services.log.warning("alarm", peer=origin, reason="the words of a pairing differ")
                raise FingerprintMismatch(
                    f"the words differ: {origin} was not verified, and nothing of it was kept",
                    hint="Somebody may stand between you. Do not go on over this network: tell your security lead, and "
                    "exchange cards and the number another way.",
                )

            async def operation(tx: Transaction) -> PeerRow:
                confirmation = Confirmation(session.shown.fingerprint, "words", by)
                return await register(tx, services, session.shown, session.allowance, confirmation)

            row = await services.store.write(operation, long=True)
            pairing.end(same=True)
        services.log.info("peer verified" if row.state == "verified" else "peer confirmed by one", peer=origin)
        return row

    # The other node's side

    def take_offer(self, data: bytes) -> bytes:
        """Answer the other side's offer.

        Raises:
            Unacceptable: no admin of this node waits for it.
        """
        session = self._responding()
        try:
            answer = session.pairing.take_offer(decode_wire(pairing_offer_decoder, data), self._services.now_ms())
        except SchemaError as error:
            raise Unacceptable(str(error)) from None
        finally:
            session.changes.notify()
        return encode_wire(answer)

    def take_reveal(self, data: bytes) -> None:
        """Take the nonce that the other side had committed to.

        Raises:
            Unacceptable: no admin of this node waits for it, or it is another one.
        """
        session = self._responding()
        try:
            session.pairing.take_reveal(decode_wire(pairing_reveal_decoder, data), self._services.now_ms())
        except SchemaError as error:
            raise Unacceptable(str(error)) from None
        finally:
            session.changes.notify()

    def _responding(self) -> Session:
        session = self.current()
        if session is None or self._services.revoked.file is not None:
            raise Unacceptable("no pairing was started here")
        return session

    # The initiator's part

    async def _initiate_all(self) -> None:
        while True:
            await self._initiate(await self._begun.get())

    async def _initiate(self, session: Session) -> None:
        pairing = session.pairing
        while pairing.is_before_words:
            stage = pairing.stage
            try:
                await self._step(session)
                session.problem = None
            except NotNow as error:
                session.problem = str(error)
            except SchemaError:
                pairing.fail("what answers at that URL does not pair as a node does")
            except Exception as error:  # noqa: BLE001 - the root of a task: nothing that answers there may stop the node
                pairing.fail(f"internal error: {type(error).__name__}")
            session.changes.notify()
            pairing.look_at_clock(self._services.now_ms())
            if pairing.stage is stage:
                await self._pause(session)
        session.changes.notify()
        if pairing.stage is Stage.FAILED:
            self._services.log.warning("pairing failed", peer=session.shown.card.origin, reason=pairing.reason)

    async def _step(self, session: Session) -> None:
        pairing, place = session.pairing, session.allowance.place(session.url)
        if pairing.stage is Stage.WAITING:
            answer = await self._client.post(place, OFFERS, PAIRING_TYPE, encode_wire(pairing.offer()))
            if answer.status == 200:
                pairing.take_answer(decode_wire(pairing_answer_decoder, answer.body))
            elif answer.code != "unacceptable":
                raise NotNow(f"{session.url} answered {answer.status}")
            return
        answer = await self._client.post(place, REVEALS, PAIRING_TYPE, encode_wire(pairing.reveal()))
        if answer.status == 200:
            pairing.was_heard(self._services.now_ms())
        elif answer.code == "unacceptable":
            pairing.fail("the other side has ended it; start again at both ends")
        else:
            raise NotNow(f"{session.url} answered {answer.status}")

    async def _pause(self, session: Session) -> None:
        change = session.changes.next()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._every_s):
                await change.wait()


@functools.cache
def _words() -> tuple[str, ...]:
    return tuple(Mnemonic("english").wordlist)


def _spoken(text: str) -> tuple[str, ...]:
    """The words that somebody typed, however they are written."""
    return tuple(re.findall(r"[a-z]+", text.lower()))
