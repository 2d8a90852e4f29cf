"""Every parser of the program that is given bytes from elsewhere, and what must hold for each, whatever the bytes.

* It returns, or raises an error of the program's family; never another.
* What it accepts has one encoding: what was read, written again, is what was given.
* The error says nothing of what was given: no piece of it that the program's own text does not have.
"""

import base64
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from exchange.agency.event import SectionEvent, parse_event
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import open_section_event
from exchange.agency.webhook import parse_webhook_key
from exchange.cli.verify import NothingToCheck, check_document, read_document
from exchange.crypto.backup import parse_backup
from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.envelope import envelope_key_id, open_envelope, open_reply, seal_envelope, seal_reply
from exchange.crypto.keystore import Argon2Parameters, KeystoreKey, cost_of, open_with
from exchange.crypto.names import MessageId, Origin, SectionName, parse_message_id, parse_origin, parse_section_name
from exchange.crypto.note import format_note, parse_note, parse_vkey
from exchange.crypto.number import parse_number
from exchange.crypto.padding import pad, unpad
from exchange.crypto.parcel import _encoder, _info, open_parcel, seal_parcel
from exchange.crypto.proof import format_proof, parse_proof, verify_statement
from exchange.crypto.rest import FileKey, StoreKey, open_at_rest
from exchange.crypto.sealing import seal
from exchange.crypto.secret import Plaintext, Secret
from exchange.crypto.section import SectionContext, open_section, seal_section
from exchange.crypto.shares import parse_share
from exchange.crypto.signing import parse_fingerprint
from exchange.crypto.statement import encode_statement, parse_statement
from exchange.errors import ExchangeError
from exchange.node import peer_client
from exchange.node.agency_tokens import token_digest
from exchange.node.callers import parse_address
from exchange.node.cards import parse_card_file
from exchange.node.config import parse_configuration, split_address
from exchange.node.errors import ItemRefused, RequestInvalid
from exchange.node.form_data import parse_form
from exchange.node.pages.acknowledge import FORM_TYPE as LINK_FORM_TYPE
from exchange.node.pages.acknowledge import given_fields, read_fields
from exchange.node.pulling import Cursor
from exchange.node.revocation import is_revocation, parse_revocation
from exchange.node.section_words import OwnSection
from exchange.schema.acknowledgement import prove_acknowledgement
from exchange.schema.agency_keys import read_answer, read_challenge, read_key_file
from exchange.schema.attachments import attachment_decoder, attachments_of, chunk_decoder, report_decoder
from exchange.schema.catalogue import default_catalogue, load_catalogue
from exchange.schema.errors import FormInvalid
from exchange.schema.form import Form, decode_form
from exchange.schema.identity import revocation_decoder, rotation_decoder
from exchange.schema.quality import check_form
from exchange.schema.registration import (
    pairing_answer_decoder,
    pairing_offer_decoder,
    pairing_reveal_decoder,
    parse_invitation,
    registration_decoder,
    registration_reply_decoder,
)
from exchange.schema.rejoining import ask_decoder, rejoin_answer_decoder, rejoin_request_decoder
from exchange.schema.section_content import read_content
from exchange.schema.selftest.diagnosis import Known, Receiver, diagnose
from exchange.schema.selftest.headers import parse_headers
from exchange.schema.split import split
from exchange.schema.wire import (
    ParcelEntry,
    WordEntry,
    Words,
    acknowledgement_decoder,
    card_decoder,
    decode_wire,
    encode_wire,
    envelope_decoder,
    manifest_decoder,
    receipt_decoder,
    reply_decoder,
    sightings_decoder,
)
from exchange.schema.words import Bond, open_words, parts_of
from tests.crypto.keys import SEALING, SIGNING

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")

HERE = Origin("exchange.enfield.example")
THERE = Origin("exchange.hackney.example")
MESSAGE = MessageId("0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10")
REPLY_SECRET = Secret(b"\x07" * 32)
#: What an agency says to this borough.
WORDS = Bond(MESSAGE, THERE, HERE)
AGENCY_KEYS = AgencyKeys(Origin("housing.enfield.example"), SIGNING, (SEALING,))
#: By secrets that nobody has signed with.
KNOWN_WEBHOOKS = Known(
    (f"whsec_{base64.b64encode(bytes(32)).decode()}",), f"whpk_{base64.b64encode(bytes(32)).decode()}"
)
FILE_KEY = KeystoreKey(bytes(16), Argon2Parameters(1, 8192), FileKey(b"\x05" * 32))
DAY = date(2026, 11, 24)

#: Makes of what was given the same again, or gives nothing where that is not asked.
Parse = Callable[[bytes], bytes | None]


@dataclass(frozen=True)
class Target:
    """A parser; `strangers` where anybody on the network can hand it bytes; `names` what its errors may repeat."""

    name: str
    parse: Parse
    strangers: bool = False
    names: bool = False
    errors: tuple[type[Exception], ...] = (ExchangeError,)


def text_of(data: bytes) -> str:
    """Bytes as a text, which may hold what no text should."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# Signed notes and what is made of them


def note(data: bytes) -> bytes:
    text, signatures = parse_note(text_of(data))
    return bytes_of(format_note(text.removesuffix("\n") + "\n", signatures))


def vkey(data: bytes) -> bytes:
    return bytes_of(parse_vkey(text_of(data)).text())


def checkpoint(data: bytes) -> bytes:
    return bytes_of(parse_checkpoint(text_of(data), THERE, SIGNING.verifiers(THERE)).text)


def proof(data: bytes) -> bytes:
    found = parse_proof(text_of(data))
    return bytes_of(format_proof(found.index, found.path, found.checkpoint))


def statement(data: bytes) -> bytes:
    found = parse_statement(data)
    return encode_statement(found.type, found.body)


def proven(data: bytes) -> None:
    """A statement and its proof, one after the other."""
    encoded, _, text = data.rpartition(b"\0\0\0\0")
    verify_statement(encoded, text_of(text), THERE, SIGNING.verifiers(THERE))


# What is sealed: as it comes, and as one who knows the key may fill it


def envelope(data: bytes) -> None:
    envelope_key_id(data)
    open_envelope(data, HERE, SEALING)


def envelope_inside(data: bytes) -> bytes:
    opened = open_envelope(seal_envelope(data, HERE, SEALING.public), HERE, SEALING)
    return encode_wire(decode_wire(envelope_decoder, opened))


def reply(data: bytes) -> None:
    open_reply(REPLY_SECRET, data)


def reply_inside(data: bytes) -> bytes:
    return encode_wire(decode_wire(reply_decoder, open_reply(REPLY_SECRET, seal_reply(REPLY_SECRET, data))))


def padding(data: bytes) -> bytes:
    return pad(unpad(data, 256), 256)


def parcel(data: bytes) -> None:
    open_parcel(data, SEALING, THERE, HERE, MESSAGE)


def parcel_inside(data: bytes) -> bytes:
    sealed = seal(SEALING.public, _info(THERE, HERE, SEALING.public.key_id, MESSAGE), data)
    opened = open_parcel(sealed, SEALING, THERE, HERE, MESSAGE)
    return _encoder.encode({name: one.reveal() for name, one in opened.items()})


def section(data: bytes) -> None:
    open_section(data[32:], REPLY_SECRET, SectionContext(MESSAGE, THERE, HERE, SectionName("housing")), data[:32])


def words(data: bytes) -> bytes:
    """A part of what an agency says, sealed and committed to by somebody who may fill it as he likes."""
    made = seal_section(data, WORDS.of("holder"))
    parcel = seal_parcel({SectionName("holder"): made.secret}, SEALING.public, THERE, HERE, MESSAGE)
    sealed = Words(
        parts=(WordEntry(name="holder", sha256=made.sha256, commitment=made.commitment),),
        parcels=(ParcelEntry(key_id=SEALING.public.key_id, parcel=parcel),),
    )
    said = open_words(sealed, (made.ciphertext,), {SEALING.public.key_id: SEALING}, WORDS)
    return parts_of(said)["holder"]


def signed_word(data: bytes) -> None:
    """What an agency brings, as a node decodes it."""
    try:
        word = msgspec.json.decode(data, type=OwnSection).word()
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise RequestInvalid("it does not fit") from None
    if word.signed is not None:
        prove_acknowledgement(word.signed)


def section_content(data: bytes) -> bytes:
    return msgspec.msgpack.encode(read_content(Plaintext(data)))


def at_rest(data: bytes) -> None:
    open_at_rest(StoreKey(b"\x06" * 32), b"fuzz", data)


# Wire structs


def attachments_of_section(data: bytes) -> None:
    """What a section's content says of its attachments."""
    attachments_of(read_content(Plaintext(data)))


def wire(decoder: msgspec.msgpack.Decoder[Any]) -> Parse:
    def parse(data: bytes) -> bytes:
        return encode_wire(decode_wire(decoder, data))

    return parse


# Files and texts of people


def card_file(data: bytes) -> None:
    parse_card_file(data)


def revocation_file(data: bytes) -> None:
    is_revocation(data)
    parse_revocation(data)


def invitation(data: bytes) -> None:
    parse_invitation(text_of(data))


def receipts_file(data: bytes) -> None:
    check_document(read_document(data), None)


def configuration(data: bytes) -> None:
    parse_configuration(Path("/nowhere/exchange.toml"), text_of(data))


def catalogue(data: bytes) -> None:
    load_catalogue(data)


def form(data: bytes) -> None:
    found = decode_form(data)
    check_form(found, default_catalogue(), DAY)
    split(found, default_catalogue())
    again = decode_form(msgspec.json.encode(found))
    assert again == found


def keystore(data: bytes) -> None:
    cost_of(data)
    open_with(data, FILE_KEY)


def backup(data: bytes) -> None:
    parse_backup(data)


def share(data: bytes) -> None:
    parse_share(text_of(data))


def fingerprint(data: bytes) -> None:
    parse_fingerprint(text_of(data))


def names(data: bytes) -> bytes:
    text = text_of(data)
    kept = None
    for parse in (parse_origin, parse_message_id, parse_section_name):
        try:
            kept = parse(text)
        except ExchangeError as error:
            refused = error
    if kept is None:
        raise refused
    return bytes_of(kept)


def number(data: bytes) -> None:
    parse_number(text_of(data))


def address(data: bytes) -> None:
    parse_address(text_of(data))
    split_address(text_of(data))


def agency_cursor(data: bytes) -> bytes | None:
    """The cursor of an agency that fetches, and what may stand where its token does."""
    token_digest(text_of(data))
    cursor = Cursor.read(text_of(data))
    # Numbers may have zeros before them, which mean nothing.
    return None if b".0" in data else bytes_of(str(cursor))


def answers(data: bytes) -> None:
    """What a peer answers in JSON."""
    peer_client._problem(data)
    peer_client.read_consistency("a peer", data)


def agency_files(data: bytes) -> None:
    """What an agency and its borough give to each other."""
    refused = None
    for read in (read_key_file, read_challenge, read_answer):
        try:
            read(data)
        except ExchangeError as error:
            refused = error
        else:
            return
    assert refused is not None
    raise refused


def agency_event(data: bytes) -> None:
    """What a node posts to an agency, up to what opens it."""
    event = parse_event(data)
    if isinstance(event, SectionEvent):
        open_section_event(event, AGENCY_KEYS)


def given_webhook(data: bytes) -> None:
    """What somebody pastes of a webhook: headers, an empty line, body, what was taken for the secret."""
    head, _, rest = data.partition(b"\n\n")
    body, _, secret = rest.partition(b"\0")
    receiver = Receiver(text_of(secret), text_of(secret), 0.0)
    said = diagnose(parse_headers(text_of(head)), body, KNOWN_WEBHOOKS, receiver, 0.0)
    assert said.findings
    assert not said.ok


def browser_form(data: bytes) -> None:
    kind, _, form = data.partition(b"\n")
    parse_form(text_of(kind), form)


def link_form(data: bytes) -> None:
    """The form of a one-time link; what it says is what can be said."""
    wanted, wrong = read_fields(given_fields(LINK_FORM_TYPE, data))
    assert (wanted is None) == bool(wrong)
    if wanted is not None:
        wanted.word()


def webhook_key(data: bytes) -> None:
    parse_webhook_key(text_of(data))


TARGETS = (
    Target("note", note, strangers=True),
    Target("vkey", vkey, strangers=True),
    Target("checkpoint", checkpoint, strangers=True),
    Target("proof", proof, strangers=True),
    Target("statement", statement, strangers=True),
    Target("proven", proven, strangers=True),
    Target("envelope", envelope, strangers=True),
    Target("envelope-inside", envelope_inside, strangers=True),
    Target("reply", reply, strangers=True),
    Target("reply-inside", reply_inside, strangers=True),
    Target("padding", padding, strangers=True),
    Target("parcel", parcel, strangers=True),
    Target("parcel-inside", parcel_inside, strangers=True),
    Target("section", section, strangers=True),
    Target("section-content", section_content, strangers=True),
    Target("agency-file", agency_files, strangers=True),
    Target("agency-event", agency_event, strangers=True),
    Target("given-webhook", given_webhook),
    Target("browser-form", browser_form),
    Target("link-form", link_form, strangers=True),
    Target("acknowledgement", wire(acknowledgement_decoder), strangers=True),
    Target("signed-word", signed_word, strangers=True),
    Target("words", words, strangers=True),
    Target("webhook-key", webhook_key),
    Target("card", wire(card_decoder), strangers=True),
    Target("manifest", wire(manifest_decoder), strangers=True),
    Target("receipt", wire(receipt_decoder), strangers=True),
    Target("envelope-payload", wire(envelope_decoder), strangers=True),
    Target("reply-payload", wire(reply_decoder), strangers=True),
    Target("sightings", wire(sightings_decoder), strangers=True),
    Target("attachment", wire(attachment_decoder), strangers=True),
    Target("attachment-report", wire(report_decoder), strangers=True),
    Target("attachment-chunk", wire(chunk_decoder), strangers=True),
    Target("attachments-of-section", attachments_of_section, strangers=True),
    Target("rotation", wire(rotation_decoder), strangers=True),
    Target("revocation", wire(revocation_decoder), strangers=True),
    Target("registration", wire(registration_decoder), strangers=True),
    Target("registration-reply", wire(registration_reply_decoder), strangers=True),
    Target("pairing-offer", wire(pairing_offer_decoder), strangers=True),
    Target("pairing-answer", wire(pairing_answer_decoder), strangers=True),
    Target("pairing-reveal", wire(pairing_reveal_decoder), strangers=True),
    Target("rejoin-request", wire(rejoin_request_decoder), strangers=True),
    Target("ask", wire(ask_decoder), strangers=True),
    Target("rejoin-answer", wire(rejoin_answer_decoder), strangers=True),
    Target("card-file", card_file, strangers=True),
    Target("revocation-file", revocation_file, strangers=True),
    Target("invitation", invitation, strangers=True),
    Target("receipts-file", receipts_file, strangers=True, errors=(ExchangeError, NothingToCheck)),
    Target("answers", answers, strangers=True),
    Target("agency-cursor", agency_cursor, strangers=True),
    Target("address", address, strangers=True, names=True),
    Target("at-rest", at_rest),
    Target("configuration", configuration, names=True),
    Target("catalogue", catalogue, names=True),
    Target("form", form),
    Target("keystore", keystore),
    Target("backup", backup),
    Target("share", share),
    Target("fingerprint", fingerprint),
    Target("names", names),
    Target("number", number, errors=(ValueError,)),
)
BY_NAME = {target.name: target for target in TARGETS}

#: A piece of what was given so long is not in an error by chance.
_PIECE = 10


@functools.cache
def _own_words() -> str:
    """All that the program says by itself: its source, and what JSON and Python say of a mistake's place."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "exchange").rglob("*.py"))]
    return "\n".join([*texts, HERE, THERE, MESSAGE, *(field.encode_name for field in msgspec.structs.fields(Form))])


def said(error: BaseException) -> list[str]:
    """All that an error says: to a person, in a log, in a document."""
    parts = [str(error), *map(str, error.args), str(getattr(error, "hint", ""))]
    if isinstance(error, FormInvalid):
        parts += [text for item in error.findings for text in (item.path, item.message)]
    if isinstance(error, ItemRefused):
        parts.append(error.refusal)
    return parts


def repeated(error: BaseException, data: bytes) -> Iterator[str]:
    """The pieces of what was given that an error repeats."""
    given = data.decode("latin-1")
    for text in said(error):
        for start in range(len(text) - _PIECE + 1):
            piece = text[start : start + _PIECE]
            if piece in given and piece not in _own_words():
                yield piece


def check(target: Target, data: bytes) -> str:
    """Hand bytes to a parser, and hold what comes of it to the rules; `accepted`, or the name of the error."""
    refused: Exception | None = None
    again = None
    try:
        again = target.parse(data)
    except target.errors as error:
        refused = error
    if refused is None:
        assert again is None or again == data, f"{target.name}: what was read is written otherwise"
        return "accepted"
    kind = type(refused).__name__
    if not target.names:
        pieces = list(repeated(refused, data))
        assert not pieces, f"{target.name}: {kind} repeats {pieces[:3]}"
        # Nor is it shown with what it was made of, which may repeat more.
        hidden = refused.__cause__ is None and (refused.__suppress_context__ or refused.__context__ is None)
        assert hidden, f"{target.name}: {kind} is raised from another error, or while one is handled"
    return kind


def seeds(target: Target) -> list[Path]:
    """The corpus of a target."""
    return sorted((CORPUS / target.name).glob("*"))
