"""What an agency here says of a section that it was given: checked by the table, signed, kept, queued for the sender.

* Whoever says it has been authenticated before: the agency by its token, or somebody at the borough for it.
* Only the agency that has the section may speak of it. To all others there is no such section.
* What was said before is answered as before, and signs nothing.
* All is one transaction: what is answered is signed and queued, and what was cut off was not said.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from exchange import crash_points
from exchange.crypto.sealing import SealingPublicKey
from exchange.handover.holding import By, Event, Guard, Transition, transition
from exchange.node.agency_keys import own_parcel
from exchange.node.agency_parcels import card_file_of
from exchange.node.cards import peer_card
from exchange.node.compose import current_sealing_key
from exchange.node.errors import AgencySigns, NoCurrentKey, NotSaidThere, WordsTooMany
from exchange.node.peering import RELEASED_FOR_MS
from exchange.node.routing import give
from exchange.node.said import Kept, seal_said
from exchange.node.sections_here import (
    SectionHere,
    Speaker,
    describe_section,
    find_section,
    said_before,
    signed_before,
    still_stands,
)
from exchange.node.services import Services, moment
from exchange.schema.acknowledgement import ProvenAcknowledgement, prove_acknowledgement, signer_of
from exchange.schema.agency_names import kind_of
from exchange.schema.errors import AcknowledgementInvalid
from exchange.schema.wire import RECEIPT, VERSION, AgencyStatement, Card, Placement, Receipt, Rung, Words, encode_wire
from exchange.schema.words import Said, ciphertexts_of, seal_words
from exchange.store.acknowledgements import AcknowledgementRow, add_acknowledgement, count_acknowledgements
from exchange.store.agency_keys import all_agency_keys, kinds_by_key
from exchange.store.errors import NotFound
from exchange.store.handovers import look_soon
from exchange.store.log import proven_at
from exchange.store.messages import add_receipt, add_rung_events, stand
from exchange.store.outbox import WORD, enqueue, new_delivery
from exchange.store.peers import peer
from exchange.store.transaction import Operation, Transaction

#: So much is said of one section, by all who have it in turn. The sender has the same bound.
MOST_WORDS: Final = 64
EVENTS: Final = {Rung.OWNED: Event.OWN, Rung.QUERIED: Event.QUERY, Rung.REDIRECTED: Event.REDIRECT}


@dataclass(frozen=True, slots=True, repr=False)
class Word:
    """What is said: in clear, for the node to seal; or signed and sealed by the agency. `to` is an agency here."""

    rung: Rung
    said: Said
    to: str | None = None
    signed: AgencyStatement | None = None
    ciphertexts: tuple[bytes, ...] = ()

    @property
    def target(self) -> str | None:
        """The kind of agency to which it redirects."""
        return kind_of(self.to) if self.to is not None else None


@dataclass(frozen=True, slots=True, repr=False)
class _Sealed:
    """A word, ready for a receipt."""

    words: Words | None
    ciphertexts: tuple[bytes, ...]
    proven: ProvenAcknowledgement | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """Where its receipt stands in the log, and whose lanes have something new: none where it was said before."""

    position: int
    lanes: frozenset[str] = frozenset()


class Acknowledging:
    """Takes what agencies say."""

    def __init__(
        self,
        services: Services,
        has_current_key: Callable[[str], Awaitable[bool]],
        wake: Callable[[str], None],
    ) -> None:
        self._services = services
        self._has_current_key = has_current_key
        self._wake = wake

    async def say(
        self, speaker: Speaker, message_id: str, section: str, word: Word, first: Operation[None] | None = None
    ) -> dict[str, Any]:
        """Take a word, and answer with the receipt that was signed for it; `first` is of the same transaction.

        Raises:
            NotFound: the agency has no such section.
            NotSaidThere: it cannot be said of the section as it stands.
            AgencySigns: the sender takes the agency's signed word alone.
            RequestInvalid: the section is not for the agency to which it is redirected.
            WordsTooMany: as much was said of it as may be.
            NoCurrentKey: it cannot be sealed to the sender now; nothing was taken.
            SchemaError: it is not what can be said, or the agency's signature does not hold.
        """
        services = self._services

        async def look(tx: Transaction) -> tuple[SectionHere, Card, bytes | None]:
            found = await find_section(tx, speaker, message_id, section)
            signer = await signer_for(tx, found, speaker)
            found = _spoken_of(found, speaker, word, signer)
            return found, peer_card(await peer(tx, found.message.peer)), signer

        found, card, signer = await services.store.read(look)
        if word.signed is not None:
            sealed = self._check_signed(found, speaker, word, signer)
        else:
            sealed = await self._seal(found, speaker, word, card)

        async def take(tx: Transaction) -> _Taken:
            if first is not None:
                await first(tx)
            return await self._take(tx, speaker, message_id, section, word, sealed)

        taken = await services.store.write(take)
        crash_points.reached("word.before-answer")
        services.counters.add(f"words_{word.rung.value}" if taken.lanes else "words_repeated")
        if taken.lanes:
            services.changes.notify()
            for lane in taken.lanes:
                self._wake(lane)
        entry = await services.store.read(lambda tx: proven_at(tx, taken.position))
        return {
            "id": f"{message_id}/{section}",
            "rung": word.rung.value,
            "receipt": {"statement": entry.statement, "proof": entry.proof},
        }

    async def describe(self, speaker: Speaker, message_id: str, section: str) -> dict[str, Any]:
        """How a section stands, with the card of the sender: to its keys an agency seals what it signs.

        Raises:
            NotFound: the agency has no such section.
        """

        async def view(tx: Transaction) -> dict[str, Any]:
            found = await find_section(tx, speaker, message_id, section)
            if not found.is_theirs:
                raise NotFound(f"agency {speaker.name} has redirected {message_id}/{section}")
            card = msgspec.Raw(await card_file_of(tx, found.message.peer))
            return {**describe_section(found), "sender": card}

        return await self._services.store.read(view)

    def _check_signed(self, found: SectionHere, speaker: Speaker, word: Word, signer: bytes | None) -> _Sealed:
        if word.signed is None or speaker.by is not By.AGENCY:
            raise AcknowledgementInvalid("an agency itself brings what it has signed")
        proven = prove_acknowledgement(word.signed)
        said, message = proven.said, found.message
        if signer is None or proven.signer != signer:
            raise AcknowledgementInvalid("it is not signed with the keys to which the sender sealed this section")
        if (said.origin, said.recipient) != (self._services.configuration.origin, message.origin):
            raise AcknowledgementInvalid("what the agency has signed is for other boroughs")
        wanted = (message.message_id, message.leaf_hash, found.pairs, word.rung, word.target)
        if (said.message_id, said.leaf_hash, [(said.section, said.agency)], said.rung, said.to) != wanted:
            raise AcknowledgementInvalid("the agency has signed something else than it says")
        given = {hashlib.sha256(data).digest(): data for data in word.ciphertexts}
        return _Sealed(None, ciphertexts_of(said.words, said.rung, given), proven)

    async def _seal(self, found: SectionHere, speaker: Speaker, word: Word, card: Card) -> _Sealed:
        services = self._services
        try:
            node = current_sealing_key(card, services.now())
        except NoCurrentKey:
            if not await self._has_current_key(card.origin):
                raise
            card = peer_card(await services.store.read(lambda tx: peer(tx, found.message.peer)))
            node = current_sealing_key(card, services.now())
        own = next((agency.key for agency in card.agencies if agency.kind == speaker.kind), None)
        counterpart = SealingPublicKey(own) if own is not None else None
        bond = found.bond(services.configuration.origin)
        words, ciphertexts = seal_words(word.said, word.rung, bond, node, counterpart)
        return _Sealed(words, ciphertexts)

    async def _take(
        self, tx: Transaction, speaker: Speaker, message_id: str, section: str, word: Word, sealed: _Sealed
    ) -> _Taken:
        found = await find_section(tx, speaker, message_id, section)
        found = _spoken_of(found, speaker, word, await signer_for(tx, found, speaker))
        if sealed.proven is not None:
            earlier = signed_before(found, sealed.proven.leaf_hash)
            if earlier is not None and not still_stands(found, earlier):
                raise NotSaidThere("the agency has said this before, and something else since")
        else:
            earlier = await said_before(self._services, tx, found, speaker, word.rung, word.said, word.to)
        if earlier is None and not found.is_theirs:
            raise NotFound(f"agency {speaker.name} has redirected {message_id}/{section}")
        line = transition(found.state, EVENTS[word.rung], self._guard(word, earlier), speaker.by)
        if line is None:
            raise NotSaidThere(f"it cannot be {word.rung.value} as it is {found.state}, by the {speaker.by}")
        if earlier is not None:
            return _Taken(earlier.position or 0)
        if await count_acknowledgements(tx, found.message.number, section) >= MOST_WORDS:
            raise WordsTooMany(f"{MOST_WORDS} words were said of this section")
        return await self._sign(tx, speaker, found, word, sealed, line)

    def _guard(self, word: Word, earlier: AcknowledgementRow | None) -> Guard:
        if earlier is not None:
            return Guard.AGAIN
        if word.rung is not Rung.REDIRECTED:
            return Guard.NEW
        return Guard.AWAY if word.to is None else Guard.HERE

    async def _sign(
        self, tx: Transaction, speaker: Speaker, found: SectionHere, word: Word, sealed: _Sealed, line: Transition
    ) -> _Taken:
        services, message, rung = self._services, found.message, word.rung.value
        number, now_ms = message.number, services.now_ms()
        receipt = Receipt(
            version=VERSION,
            message_id=message.message_id,
            leaf_hash=message.leaf_hash,
            rung=word.rung,
            origin=services.configuration.origin,
            recipient=message.origin,
            at=moment(now_ms),
            placements=tuple(Placement(section=name, agency=kind) for name, kind in found.pairs),
            words=sealed.words,
            to=word.target,
            by_borough=speaker.by is By.BOROUGH,
            acknowledgement=word.signed,
        )
        entry = await tx.sign(RECEIPT, encode_wire(receipt))
        await add_receipt(tx, number, rung, entry.leaf_hash, entry.statement, now_ms, position=entry.position)
        kept = Kept(said=word.said, ciphertexts=sealed.ciphertexts, who=speaker.who)
        at_rest = await seal_said(services, tx, message, entry.leaf_hash, kept)
        for section, kind in found.pairs:
            row = AcknowledgementRow(
                number=0,
                message=number,
                section=section,
                agency=kind,
                rung=rung,
                name=speaker.name,
                by=speaker.by.value,
                target=word.to,
                leaf_hash=entry.leaf_hash,
                word_hash=sealed.proven.leaf_hash if sealed.proven else None,
                position=entry.position,
                at_ms=now_ms,
                sealed=at_rest,
            )
            await add_acknowledgement(tx, row)
        await stand(tx, number, line.next.value, found.pairs, now_ms)
        await look_soon(tx, number, now_ms)
        await add_rung_events(tx, number, rung, found.pairs, now_ms)
        delivery = new_delivery(
            f"peer:{message.peer}",
            WORD,
            now_ms=now_ms,
            # A section is owned, and asked about, long after its message has expired.
            deadline_ms=max(message.expires_at_ms, now_ms + RELEASED_FOR_MS),
            urgent=bool(message.urgent),
            position=entry.position,
            message=number,
        )
        await enqueue(tx, [delivery])
        lanes = {f"peer:{message.peer}"}
        if word.to is not None:
            lanes |= {await give(services, tx, message, section, kind, word.to) for section, kind in found.pairs}
        return _Taken(entry.position, frozenset(lanes))


def _spoken_of(found: SectionHere, speaker: Speaker, word: Word, signer: bytes | None) -> SectionHere:
    """As which readers an agency speaks: by its own signature as its own kind, else as those that need none.

    Raises:
        AgencySigns: there are none of these.
    """
    if word.signed is None and signer is None:
        return found
    signs = word.signed is not None
    places = tuple(place for place in found.places if (place.agency == speaker.kind) == signs)
    if not places:
        raise AgencySigns("the sender takes only what this agency has signed with its own key")
    return replace(found, places=places)


async def signer_for(tx: Transaction, found: SectionHere, speaker: Speaker) -> bytes | None:
    """Who must sign, where the sender has sealed the message to a key of the agency's own."""
    keys = await all_agency_keys(tx)
    parcel = own_parcel(found.manifest, kinds_by_key(keys), speaker.kind)
    vkeys = next((row.vkeys for row in keys if parcel is not None and row.key_id == parcel.key_id), ())
    return signer_of(vkeys)
