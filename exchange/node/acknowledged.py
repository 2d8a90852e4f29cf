"""What agencies of other boroughs say of the sections that this node sent: checked, kept, shown, and passed on.

* Where the message was sealed to an agency's own key, by a card that names the keys by which the agency signs, only
  what these have signed counts: its borough's node cannot say it for the agency.
* Nobody owns a section without a name that can be read here.
* A word that is older than what stands is kept, and moves nothing.
* A question goes to the counterpart: the agency of the same kind here. Until there is one, it is held.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from exchange.crypto.names import MessageId, Origin
from exchange.crypto.sealing import SealingPublicKey
from exchange.handover.holding import State
from exchange.node.acknowledging import MOST_WORDS
from exchange.node.counterparts import queue_question
from exchange.node.errors import ItemRefused
from exchange.node.peering import RELEASED_FOR_MS
from exchange.node.said import Kept, seal_said
from exchange.node.services import Services, milliseconds
from exchange.schema.acknowledgement import ProvenAcknowledgement, check_is_of, prove_acknowledgement
from exchange.schema.errors import SchemaError
from exchange.schema.wire import Card, Manifest, Placement, Receipt, Rung, Words
from exchange.schema.words import HOLDER, PARTS, Bond, ciphertexts_of, open_words, parts_of
from exchange.store.acknowledgements import (
    BY_AGENCY,
    BY_BOROUGH,
    AcknowledgementRow,
    acknowledgements_of,
    add_acknowledgement,
    count_acknowledgements,
    signers_of,
)
from exchange.store.agency_keys import all_agency_keys, kinds_by_key
from exchange.store.handovers import look_soon
from exchange.store.messages import (
    MessageRow,
    add_alarm,
    add_rung_events,
    has_alarm,
    placements_of,
    stand,
)
from exchange.store.transaction import Transaction

UNSIGNED: Final = "acknowledgement-unsigned"


@dataclass(frozen=True, slots=True, repr=False)
class Heard:
    """What an agency said, with as much of it as can be read here, before anything is kept."""

    kept: Kept
    proven: ProvenAcknowledgement | None


async def hear(services: Services, receipt: Receipt, ciphertexts: Mapping[bytes, bytes]) -> Heard | None:
    """Check and open what comes with a receipt; None where that says nothing of an agency's.

    Raises:
        ItemRefused: it is not signed as it must be, is not what can be said, or cannot be read.
    """
    if receipt.rung not in PARTS:
        if receipt.words is not None or receipt.acknowledgement is not None or receipt.to is not None:
            raise ItemRefused("words-not-there", f"nothing is said of a section that is {receipt.rung.value}")
        return None
    if len({place.section for place in receipt.placements}) != 1:
        raise ItemRefused("receipt-placements", "an agency speaks of one section at a time")
    try:
        proven = None if receipt.acknowledgement is None else prove_acknowledgement(receipt.acknowledgement)
        if proven is not None:
            check_is_of(proven, receipt)
        words = receipt.words if proven is None else proven.said.words
        if words is None:
            raise ItemRefused("words-invalid", "the receipt says nothing")
        given = ciphertexts_of(words, receipt.rung, ciphertexts)
        bond = Bond(MessageId(receipt.message_id), Origin(receipt.origin), Origin(receipt.recipient))
        said = open_words(words, given, services.keyring.sealing, bond)
    except SchemaError as error:
        raise ItemRefused(error.code, str(error)) from None
    unread = {entry.name for entry in words.parts} - set(parts_of(said))
    if HOLDER in unread or (unread and not await _is_for_an_agency(services, words, receipt)):
        raise ItemRefused("words-unreadable", "what was said is sealed to a key that is not here")
    return Heard(Kept(said=said, ciphertexts=given if unread else ()), proven)


async def _is_for_an_agency(services: Services, words: Words, receipt: Receipt) -> bool:
    """Whether the counterpart here has or had a key to which words are sealed."""
    kinds = kinds_by_key(await services.store.read(all_agency_keys))
    wanted = {place.agency for place in receipt.placements}
    return any(kinds.get(parcel.key_id) in wanted for parcel in words.parcels)


async def check_signer(services: Services, tx: Transaction, number: int, receipt: Receipt, heard: Heard) -> None:
    """Check that who must sign has signed: the agency to whose own key the message was sealed.

    Raises:
        ItemRefused: it has not, or somebody has signed of whom nothing is known.
    """
    signers = await signers_of(tx, number)
    wanted = {signers[place.agency] for place in receipt.placements if place.agency in signers}
    signed = set() if heard.proven is None else {heard.proven.signer}
    if wanted - signed:
        raise ItemRefused(UNSIGNED, "the message was sealed to this agency's own key, and the agency has not signed")
    if signed - wanted:
        raise ItemRefused("acknowledgement-signer", "it is signed by keys that no card named to which this was sealed")


async def tell_unsigned(services: Services, origin: str, receipt: Receipt) -> None:
    """Tell the admins that a node says in an agency's name what the agency has not signed."""
    places = ", ".join(f"{place.section} at {place.agency}" for place in receipt.placements)
    detail = (
        f"{origin} says that {places} of message {receipt.message_id} is {receipt.rung.value}, and the agency has not "
        "signed that: your borough stays responsible. Telephone the agency"
    )

    async def operation(tx: Transaction) -> bool:
        if await has_alarm(tx, UNSIGNED, origin, detail):
            return False
        await add_alarm(tx, "acknowledgement-unsigned", origin, detail, services.now_ms())
        return True

    if await services.store.write(operation):
        services.counters.add(f"alarms_{UNSIGNED}")
        services.log.error("alarm", code=UNSIGNED, peer=origin)


async def keep_heard(
    services: Services, tx: Transaction, message: MessageRow, receipt: Receipt, leaf_hash: bytes, heard: Heard
) -> set[str]:
    """Keep what was said, move the section, and queue a question for the counterpart; the lanes with something new.

    Raises:
        ItemRefused: it was said before, or too much was.
    """
    (section,) = {place.section for place in receipt.placements}
    if await count_acknowledgements(tx, message.number, section) >= MOST_WORDS:
        raise ItemRefused("receipts-too-many", "as much was said of that section as may be")
    word_hash = None if heard.proven is None else heard.proven.leaf_hash
    if word_hash is not None and word_hash in {row.word_hash for row in await acknowledgements_of(tx, message.number)}:
        raise ItemRefused("acknowledgement-again", "what the agency has signed came before, with another receipt")
    at_rest = await seal_said(services, tx, message, leaf_hash, heard.kept)
    lanes: set[str] = set()
    for place in receipt.placements:
        row = replace(_row(message.number, place, receipt, leaf_hash), word_hash=word_hash, sealed=at_rest)
        number = await add_acknowledgement(tx, row)
        if receipt.rung is Rung.QUERIED:
            deadline_ms = services.now_ms() + RELEASED_FOR_MS
            lanes.add(await queue_question(services, tx, message, place.agency, number, deadline_ms=deadline_ms))
    await move_section(tx, message.number, receipt)
    if receipt.rung is Rung.REDIRECTED and receipt.to is None:
        await _alarm_redirected(services, tx, message, receipt)
    return lanes


async def keep_returned(tx: Transaction, number: int, receipt: Receipt, leaf_hash: bytes, position: int | None) -> None:
    """Keep that something was said, with a receipt that was given back after it was lost here; move the section.

    A peer may have signed in the meantime what its agency has not: of what that must sign, nothing else counts.
    """
    if position is None and not _is_signed(await signers_of(tx, number), receipt):
        return
    for place in receipt.placements:
        row = _row(number, place, receipt, leaf_hash)
        await add_acknowledgement(tx, replace(row, position=position))
    await move_section(tx, number, receipt)


def _is_signed(signers: Mapping[str, bytes], receipt: Receipt) -> bool:
    """Whether whoever must sign what a receipt says has signed it."""
    wanted = {signers[place.agency] for place in receipt.placements if place.agency in signers}
    if receipt.acknowledgement is None:
        return not wanted
    try:
        proven = prove_acknowledgement(receipt.acknowledgement)
        check_is_of(proven, receipt)
    except SchemaError:
        return False
    return {proven.signer} == wanted


def pinned_signers(card: Card, manifest: Manifest) -> dict[str, bytes]:
    """Who signs for the agencies to whose own keys a message is sealed, by a card that names these keys."""
    sealed_to = {parcel.key_id for parcel in manifest.parcels}
    return {
        agency.kind: agency.signer
        for agency in card.agencies
        if agency.key is not None and agency.signer is not None
        if SealingPublicKey(agency.key).key_id in sealed_to
    }


def _row(number: int, place: Placement, receipt: Receipt, leaf_hash: bytes) -> AcknowledgementRow:
    return AcknowledgementRow(
        number=0,
        message=number,
        section=place.section,
        agency=place.agency,
        rung=receipt.rung.value,
        name=None,
        by=BY_BOROUGH if receipt.by_borough else BY_AGENCY,
        target=receipt.to,
        leaf_hash=leaf_hash,
        word_hash=None,
        position=None,
        at_ms=milliseconds(receipt.at),
        sealed=None,
    )


async def move_section(tx: Transaction, number: int, receipt: Receipt) -> None:
    """Let a section stand where an agency's word puts it, unless something later was said of it."""
    at_ms = milliseconds(receipt.at)
    pairs = [(place.section, place.agency) for place in receipt.placements]
    stands = {(row.section, row.agency): row for row in await placements_of(tx, number)}
    moving = [
        pair
        for pair in pairs
        if pair not in stands
        or (
            stands[pair].at_ms <= at_ms
            # A holder who asks goes on holding.
            and not (receipt.rung is Rung.QUERIED and stands[pair].rung == State.OWNED.value)
        )
    ]
    await stand(tx, number, receipt.rung.value, moving, at_ms)
    await look_soon(tx, number, at_ms)
    await add_rung_events(tx, number, receipt.rung.value, pairs, at_ms)


async def _alarm_redirected(services: Services, tx: Transaction, message: MessageRow, receipt: Receipt) -> None:
    places = ", ".join(f"{place.section} at {place.agency}" for place in receipt.placements)
    detail = (
        f"{receipt.origin} says that {places} of message {message.message_id} is not theirs: your borough is "
        f"responsible for it. The reason: exchange status {message.message_id}"
    )
    await add_alarm(tx, "redirected", message.peer, detail, services.now_ms())
