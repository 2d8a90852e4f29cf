"""Say what becomes of a section: who holds it, a question to the sender's counterpart, or that it is not theirs.

* What came sealed is acknowledged with the agency's own keys: `sign_word` seals the words for the sender and signs
  them, so that the borough's node neither reads them nor can say them in the agency's name.
* The sender's present card comes from the node. It counts if it is of the sender that the section's own card proves.
* What the node has opened is acknowledged in clear; the node seals and signs it.

Source: docs/protocol.md, "Acknowledgements".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from exchange.agency.asking import Node
from exchange.agency.errors import NotOpened, SenderChanged
from exchange.agency.event import SectionEvent
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import OpenedSection, open_section_event
from exchange.agency.senders import KnownSenders
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import MessageId, Origin
from exchange.crypto.sealing import SealingPublicKey
from exchange.schema.acknowledgement import sign_acknowledgement
from exchange.schema.card_file import VerifiedCard, read_card_file, usable_key
from exchange.schema.errors import SchemaError
from exchange.schema.wire import VERSION, Acknowledgement, Rung
from exchange.schema.words import Bond, Said, seal_words

_VERBS: Final = {Rung.OWNED: "own", Rung.QUERIED: "query", Rung.REDIRECTED: "redirect"}


@dataclass(frozen=True, slots=True, repr=False)
class Word:
    """What is said of a section; `to` is an agency of the same borough to which it is redirected."""

    rung: Rung
    said: Said
    to: str | None = None


def say(
    node: Node,
    event: SectionEvent,
    word: Word,
    keys: AgencyKeys | None = None,
    senders: KnownSenders | None = None,
    kind: str | None = None,
) -> dict[str, Any]:
    """Say a word of the section in an event to the borough's node; return what it answered.

    Raises:
        AgencyError: the section does not open, the sender is not the one that is known, or the node refused.
    """
    path = f"/v1/sections/{quote(event.data.message_id)}/{quote(event.data.section)}"
    if event.data.sealed is None or keys is None:
        body = in_clear(word)
    else:
        opened = open_section_event(event, keys, senders, kind)
        card = sender_card(event, node.ask("GET", path))
        body = sign_word(opened, keys, card, word, datetime.now(UTC))
    return node.ask("POST", f"{path}/{_VERBS[word.rung]}", body)


def in_clear(word: Word) -> dict[str, Any]:
    """A word as the node takes it where it is to seal and sign it."""
    said: dict[str, Any] = msgspec.to_builtins(word.said)
    return {**said.pop("holder", {}), **said, **({"to": word.to} if word.to is not None else {})}


def sender_card(event: SectionEvent, answer: Mapping[str, Any]) -> VerifiedCard:
    """The sender's present card in what the node answers of a section.

    Raises:
        NotOpened: there is none.
        SenderChanged: it is another borough's than the one that the section's own card proves.
    """
    if event.data.sealed is None:
        raise NotOpened("the section came opened, without its sender's card")
    try:
        before = read_card_file(event.data.sealed.card)
        now = read_card_file(msgspec.json.encode(answer.get("sender")))
    except (SchemaError, CryptoError) as error:
        raise NotOpened(f"the sender's card does not hold: {error}") from None
    if not KnownSenders([before]).knows(now):
        raise SenderChanged(f"the node shows a card of {now.card.origin} in place of {before.card.origin}")
    return now


def sign_word(opened: OpenedSection, keys: AgencyKeys, card: VerifiedCard, word: Word, now: datetime) -> dict[str, Any]:
    """A word, sealed for the sender and signed, as the node takes it.

    Raises:
        NotOpened: the sender's card has no key to seal to.
        WordsInvalid: it is not what can be said.
    """
    key = usable_key(card.card, now)
    if key is None:
        raise NotOpened(f"the card of {opened.sender} has no key in force", hint="Try again when its node was heard.")
    own = next((agency.key for agency in card.card.agencies if agency.kind == opened.kind), None)
    counterpart = SealingPublicKey(own) if own is not None else None
    bond = Bond(MessageId(opened.message_id), Origin(opened.recipient), Origin(opened.sender))
    words, ciphertexts = seal_words(word.said, word.rung, bond, SealingPublicKey(key.key), counterpart)
    said = Acknowledgement(
        version=VERSION,
        message_id=opened.message_id,
        leaf_hash=opened.leaf_hash,
        section=opened.section,
        agency=opened.kind,
        rung=word.rung,
        origin=opened.recipient,
        recipient=opened.sender,
        at=now,
        words=words,
        to=word.to.partition("/")[0] if word.to is not None else None,
    )
    signed = sign_acknowledgement(said, keys.signing, keys.vkeys(), int(now.timestamp()))
    document = {**msgspec.to_builtins(signed), "ciphertexts": msgspec.to_builtins(ciphertexts)}
    return {"acknowledgement": document, **({"to": word.to} if word.to is not None else {})}
