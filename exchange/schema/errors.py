"""What can go wrong with data that crosses a boundary. Messages name paths, never content."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from exchange.errors import ExchangeError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`) or doubtful (`warning`) about a form; `path` points at the field."""

    severity: Literal["error", "warning"]
    path: str
    message: str


class SchemaError(ExchangeError):
    """Data does not fit its schema."""

    code: ClassVar[str] = "schema"


class WireInvalid(SchemaError):
    """A statement's body or a payload does not fit its schema."""

    code = "wire-invalid"


class CardInvalid(SchemaError):
    """A file or a statement is not a card, or its proof does not hold."""

    code = "card-invalid"
    hint = "Ask the borough for its card again."


class AgencyKeyInvalid(SchemaError):
    """A file is not an agency's key, a challenge or an answer, or says something else than it must."""

    code = "agency-key-invalid"
    hint = "Take the file as the other side wrote it; `exchange agency-key` makes them."


class DeadlinesInvalid(SchemaError):
    """A file of deadlines says something that cannot be."""

    code = "deadlines-invalid"
    hint = "config/deadlines.toml has every line that is shipped, and says what each key means."


class ContentInvalid(SchemaError):
    """A section's content is not a map that JSON holds, in its one encoding."""

    code = "section-wrong"


class WordsInvalid(SchemaError):
    """What an agency says of a section is not what can be said, or does not open."""

    code = "words-invalid"
    hint = "Say who holds the section, or ask a question, or give a reason; see docs/agencies.md."


class AcknowledgementInvalid(SchemaError):
    """What an agency is said to have signed of a section it has not signed, or it says something else."""

    code = "acknowledgement-invalid"
    hint = "Nothing was taken. `exchange agency-own` makes and signs what the node takes."


class AttachmentInvalid(SchemaError):
    """A section speaks of attachments that cannot be."""

    code = "attachment-invalid"
    hint = "Ask the sender: their program lists the attachments wrongly."


class InvitationInvalid(SchemaError):
    """A text is not an invitation."""

    code = "invitation-invalid"
    hint = (
        "Take all of the file, or the whole word that begins with exchange-invitation: and ask for another if need be."
    )


class FormInvalid(SchemaError):
    """A form was refused whole; nothing of it was kept."""

    code = "form-invalid"
    hint = "Mend the fields that are named and send the form again; nothing was stored."

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(f"the form is not valid: {first.path}: {first.message}{more}")


class CatalogueInvalid(SchemaError):
    """The catalogue of sections and agencies contradicts itself."""

    code = "catalogue-invalid"
    hint = "Mend the catalogue file at the place that is named."
