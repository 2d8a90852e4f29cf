"""What an agency says of a section that it has: who holds it, a question, or why it is not theirs. Pure.

* Each part is sealed as a section is: under a secret of its own, bound to the message and both boroughs, committed to.
* Who holds it is for the sending borough's node and for the counterpart: the agency of the same kind there.
* Everything else is for the counterpart alone, where the sender's card has a key of it; else the node gives it to it.

Source: docs/protocol.md, "Words".
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from exchange.crypto.errors import CryptoError
from exchange.crypto.names import MessageId, Origin, SealingKeyId, SectionName
from exchange.crypto.parcel import open_parcel, seal_parcel
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section, seal_section
from exchange.schema.errors import WordsInvalid
from exchange.schema.vocabulary import Line, Text
from exchange.schema.wire import ParcelEntry, Rung, WordEntry, Words

#: A part is a text of 8,000 characters at most.
MOST_CIPHERTEXT_BYTES: Final = 40_000
HOLDER: Final = "holder"


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who has taken a section on, and how to reach them."""

    name: Line
    role: Line
    contact: Line


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an agency says, or as much of it as a reader can open."""

    holder: Holder | None = None
    note: Text | None = None
    question: Text | None = None
    reason: Text | None = None
    #: Whose the section may be, where it is redirected to nobody here.
    whose: Line | None = None

    def __repr__(self) -> str:
        return "Said(...)"


#: What each word must say, and what it may say beside that.
PARTS: Final[Mapping[Rung, tuple[str, frozenset[str]]]] = {
    Rung.OWNED: (HOLDER, frozenset({"note"})),
    Rung.QUERIED: ("question", frozenset()),
    Rung.REDIRECTED: ("reason", frozenset({"whose"})),
}

_encoder: Final = msgspec.msgpack.Encoder()
_FIELDS: Final = ("holder", "note", "question", "reason", "whose")


class Bond(msgspec.Struct, frozen=True):
    """What words are bound to: the message, the borough of the agency that says them, and that of the sender."""

    message_id: MessageId
    origin: Origin
    recipient: Origin

    def of(self, part: str) -> SectionContext:
        """The context of one part."""
        return SectionContext(self.message_id, self.origin, self.recipient, SectionName(part))


def check_parts(rung: Rung, names: Iterable[str]) -> None:
    """Check that a word says what it must, and nothing else.

    Raises:
        WordsInvalid: it does not.
    """
    must, may = PARTS[rung]
    found = list(names)
    if must not in found or len(set(found)) != len(found) or not set(found) <= {must, *may}:
        raise WordsInvalid(
            f"a section that is {rung.value} comes with {must} and with nothing that does not belong to it"
        )


def parts_of(said: Said) -> dict[str, bytes]:
    """The parts of what is said, each as the bytes that are sealed."""
    found = ((name, getattr(said, name)) for name in _FIELDS)
    return {name: _encoder.encode({"text": part} if isinstance(part, str) else part) for name, part in found if part}


def readers_of(part: str, node: SealingPublicKey, counterpart: SealingPublicKey | None) -> tuple[SealingPublicKey, ...]:
    """To whose keys a part is sealed."""
    if counterpart is None:
        return (node,)
    return (node, counterpart) if part == HOLDER else (counterpart,)


def seal_words(
    said: Said, rung: Rung, bond: Bond, node: SealingPublicKey, counterpart: SealingPublicKey | None
) -> tuple[Words, tuple[bytes, ...]]:
    """Seal what an agency says; return also the ciphertexts.

    Raises:
        WordsInvalid: it is not what must be said.
        SealError: a key is not usable.
    """
    plain = parts_of(said)
    check_parts(rung, plain)
    entries, ciphertexts = [], []
    parcels: dict[bytes, tuple[SealingPublicKey, dict[SectionName, Secret]]] = {}
    for name, plaintext in plain.items():
        sealed = seal_section(plaintext, bond.of(name))
        entries.append(WordEntry(name=name, sha256=sealed.sha256, commitment=sealed.commitment))
        ciphertexts.append(sealed.ciphertext)
        for key in readers_of(name, node, counterpart):
            parcels.setdefault(key.raw, (key, {}))[1][SectionName(name)] = sealed.secret
    words = Words(
        parts=tuple(entries),
        parcels=tuple(
            ParcelEntry(
                key_id=key.key_id,
                parcel=seal_parcel(secrets, key, bond.origin, bond.recipient, bond.message_id),
            )
            for key, secrets in parcels.values()
        ),
    )
    return words, tuple(ciphertexts)


def ciphertexts_of(words: Words, rung: Rung, given: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """The ciphertexts of words among those that came with them, by their SHA-256.

    Raises:
        WordsInvalid: one is missing or too large, or the words are not what must be said.
    """
    check_parts(rung, (entry.name for entry in words.parts))
    found = tuple(given.get(entry.sha256, b"") for entry in words.parts)
    if not all(found) or any(len(data) > MOST_CIPHERTEXT_BYTES for data in found):
        raise WordsInvalid("what was said is missing, or too long")
    return found


def open_words(
    words: Words, ciphertexts: Iterable[bytes], keys: Mapping[SealingKeyId, SealingPrivateKey], bond: Bond
) -> Said:
    """Open as much of an agency's words as these keys open.

    Raises:
        WordsInvalid: what opens is not what was committed to, or not what can be said.
    """
    secrets: dict[SectionName, Secret] = {}
    plain: dict[str, bytes] = {}
    given = {hashlib.sha256(data).digest(): data for data in ciphertexts}
    try:
        for parcel in words.parcels:
            key = keys.get(SealingKeyId(parcel.key_id))
            if key is not None:
                secrets |= open_parcel(parcel.parcel, key, bond.origin, bond.recipient, bond.message_id)
        for entry in words.parts:
            secret = secrets.get(SectionName(entry.name))
            if secret is None:
                continue
            plaintext = open_section(given.get(entry.sha256, b""), secret, bond.of(entry.name), entry.commitment)
            plain[entry.name] = plaintext.reveal()
        found = {name: msgspec.msgpack.decode(data) for name, data in plain.items()}
        said = msgspec.convert({name: part if name == HOLDER else _text(part) for name, part in found.items()}, Said)
        if parts_of(said) != plain:
            raise WordsInvalid("what was said is not in its only accepted encoding")
    except (CryptoError, msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError):
        raise WordsInvalid("what was said does not open, or is not what can be said") from None
    return said


def _text(part: object) -> object:
    if not isinstance(part, dict) or set(part) != {"text"}:
        raise ValueError("not a text")
    return part["text"]
