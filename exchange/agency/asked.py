"""Read a question about a section that this agency's borough sent. Where it came sealed, in this order:

1. the card of the asking borough holds under its own keys; where the agency knows that borough, they are those;
2. the receipt stands in that borough's log, and says what the event says: message, section, kind, that it is queried;
3. where the asking agency has signed it itself, that signature holds, and says the same;
4. the parcel is the one that was signed, opens with a key of the agency's, and the question is what was committed to.

Source: docs/protocol.md, "Questions".
"""

from dataclasses import dataclass

from exchange.agency.errors import NotOpened, OtherBorough
from exchange.agency.event import QuestionEvent, SealedQuestion
from exchange.agency.keys import AgencyKeys
from exchange.agency.senders import KnownSenders
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import MessageId, Origin, SealingKeyId
from exchange.schema.acknowledgement import check_is_of, prove_acknowledgement
from exchange.schema.card_file import VerifiedCard, read_card_file
from exchange.schema.errors import SchemaError
from exchange.schema.succession import all_keys, verify_by_any
from exchange.schema.wire import RECEIPT, ProvenStatement, Receipt, Rung, decode_wire, receipt_decoder
from exchange.schema.words import Bond, open_words


@dataclass(frozen=True, slots=True, repr=False)
class Question:
    """A question. `borough` and `signer` are proven where it came sealed: who asks, and the agency's own name."""

    event_id: str
    message_id: str
    section: str
    kind: str
    at: str
    text: str
    borough: str | None = None
    signer: str | None = None
    known: bool = False


def read_question(event: QuestionEvent, keys: AgencyKeys, senders: KnownSenders | None = None) -> Question:
    """Read a question, opening it where it came sealed.

    Raises:
        NotOpened: a step failed.
        SenderChanged: the asking borough is known here by other keys.
    """
    data = event.data
    if data.sealed is None:
        text = data.content.question if data.content is not None else ""
        return Question(event.id, data.message_id, data.section, data.agency, event.at, text)
    receipt, card = _prove(data.sealed)
    known = (senders or KnownSenders()).knows(card)
    places = [(place.section, place.agency) for place in receipt.placements]
    if (receipt.message_id, receipt.recipient, receipt.rung) != (data.message_id, event.node, Rung.QUERIED):
        raise OtherBorough("the event says something else than the asking borough signed")
    if (data.section, data.agency) not in places or card.card.area != data.sender_area:
        raise OtherBorough("the event says something else than the asking borough signed")
    try:
        proven = None if receipt.acknowledgement is None else prove_acknowledgement(receipt.acknowledgement)
        if proven is not None:
            check_is_of(proven, receipt)
        words = receipt.words if proven is None else proven.said.words
        if words is None or (data.sealed.key_id, data.sealed.parcel) not in [
            (parcel.key_id, parcel.parcel) for parcel in words.parcels
        ]:
            raise NotOpened("the parcel is not in what the asking borough signed")
        key_id = SealingKeyId(data.sealed.key_id)
        bond = Bond(MessageId(data.message_id), Origin(receipt.origin), Origin(receipt.recipient))
        said = open_words(words, (data.sealed.ciphertext,), {key_id: keys.private(key_id)}, bond)
    except (CryptoError, SchemaError) as error:
        raise NotOpened(f"the question does not open: {error}") from None
    if said.question is None:
        raise NotOpened("there is no question in it")
    signer = None if proven is None else proven.name
    return Question(
        event.id, data.message_id, data.section, data.agency, event.at, said.question, receipt.origin, signer, known
    )


def _prove(sealed: SealedQuestion) -> tuple[Receipt, VerifiedCard]:
    try:
        card = read_card_file(sealed.card)
        origin = Origin(card.card.origin)
        item = ProvenStatement(statement=sealed.receipt, proof=sealed.proof.decode())
        verified = verify_by_any(item, origin, all_keys(card.keys, origin, card.rotations))
        if verified.statement.type != RECEIPT:
            raise NotOpened("what the asking borough signed is no receipt")
        receipt = decode_wire(receipt_decoder, verified.statement.body)
    except (CryptoError, SchemaError, UnicodeDecodeError) as error:
        raise NotOpened(f"who asks is not proven: {error}") from None
    if receipt.origin != card.card.origin:
        raise OtherBorough("the receipt is of another borough than the card")
    return receipt, card
