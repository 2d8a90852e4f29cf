"""What is said of a section over an API: own it, ask, redirect it; in clear, or signed and sealed by the agency."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from exchange.crypto.errors import NameInvalid
from exchange.crypto.names import parse_message_id, parse_section_name
from exchange.node.acknowledging import Word
from exchange.node.errors import RequestInvalid
from exchange.node.requests import Request
from exchange.schema.agency_names import AgencyName
from exchange.schema.vocabulary import Line, Text
from exchange.schema.wire import AgencyStatement, Rung
from exchange.schema.words import MOST_CIPHERTEXT_BYTES, Holder, Said
from exchange.store.errors import NotFound

_Ciphertext = Annotated[bytes, Meta(max_length=MOST_CIPHERTEXT_BYTES)]


class SignedWord(Struct, frozen=True, forbid_unknown_fields=True):
    """What the agency has signed with its own keys, and sealed for the sender."""

    statement: Annotated[bytes, Meta(max_length=16_384)]
    proof: Annotated[str, Meta(max_length=8_192)]
    signing_keys: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(min_length=2, max_length=2)]
    ciphertexts: Annotated[tuple[_Ciphertext, ...], Meta(min_length=1, max_length=2)]


class _Word(Request, frozen=True):
    acknowledgement: SignedWord | None = None

    def _signed(self, rung: Rung, *said: object, to: str | None = None) -> Word | None:
        """The word that the agency has signed, if it has."""
        signed = self.acknowledgement
        if signed is None:
            return None
        if any(part is not None for part in said):
            raise RequestInvalid("say it in clear, or bring what the agency has signed; not both")
        statement = AgencyStatement(statement=signed.statement, proof=signed.proof, signing_keys=signed.signing_keys)
        return Word(rung, Said(), to, statement, signed.ciphertexts)


class OwnSection(_Word, frozen=True):
    """Take a section on: who holds it from now on."""

    name: Line | None = None
    role: Line | None = None
    contact: Line | None = None
    note: Text | None = None

    def word(self) -> Word:
        """What is said."""
        signed = self._signed(Rung.OWNED, self.name, self.role, self.contact, self.note)
        if signed is not None:
            return signed
        if self.name is None or self.role is None or self.contact is None:
            raise RequestInvalid("a holder has a name, a role and a contact")
        return Word(
            Rung.OWNED, Said(holder=Holder(name=self.name, role=self.role, contact=self.contact), note=self.note)
        )


class QuerySection(_Word, frozen=True):
    """Ask the sender's counterpart about a section."""

    question: Text | None = None

    def word(self) -> Word:
        """What is said."""
        signed = self._signed(Rung.QUERIED, self.question)
        if signed is not None:
            return signed
        if self.question is None:
            raise RequestInvalid("there is no question")
        return Word(Rung.QUERIED, Said(question=self.question))


class RedirectSection(_Word, frozen=True):
    """Say that a section is not theirs: why, and to which agency here it goes, or whose it may be elsewhere."""

    reason: Text | None = None
    to: AgencyName | None = None
    whose: Line | None = None

    def word(self) -> Word:
        """What is said."""
        signed = self._signed(Rung.REDIRECTED, self.reason, self.whose, to=self.to)
        if signed is not None:
            return signed
        if self.reason is None:
            raise RequestInvalid("there is no reason")
        return Word(Rung.REDIRECTED, Said(reason=self.reason, whose=self.whose), self.to)


def section_of(request: web.Request) -> tuple[str, str]:
    """The message and the section of a request; its id is an event's `subject`.

    Raises:
        NotFound: it names none.
    """
    message_id, _, section = request.match_info["id"].partition("/")
    try:
        return parse_message_id(message_id), parse_section_name(section)
    except NameInvalid:
        raise NotFound("that is not the id of a section", hint="It is the `subject` of the section's event.") from None
