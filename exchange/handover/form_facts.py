"""What the gate looks at, taken from a form and its parts. Pure, and without content."""

from collections.abc import Iterable, Iterator

from msgspec import UNSET

from exchange.handover.gate import Disclosed, Facts, Reason
from exchange.schema.catalogue import Catalogue
from exchange.schema.errors import Finding
from exchange.schema.form import Form
from exchange.schema.split import FormPart
from exchange.schema.vocabulary import AgeBand, MoveType


def facts_of(
    form: Form, parts: Iterable[FormPart], catalogue: Catalogue, errors: Iterable[Finding], sent_by: str
) -> Facts:
    """What the gate decides by."""
    urgent = form.referral.move_type is MoveType.URGENT
    return Facts(
        area=form.referral.to_area,
        parts=tuple(_disclosed(part, catalogue) for part in parts),
        stated=form.legal_bases,
        marked=form.referral.marking is not UNSET,
        errors=tuple(errors),
        reasons=frozenset(_reasons(form)),
        emergency=urgent or (form.urgent is not None and form.urgent.imminent),
        sent_by=sent_by,
    )


def _disclosed(part: FormPart, catalogue: Catalogue) -> Disclosed:
    entry = catalogue.part(part.name)
    assert entry is not None  # noqa: S101 - the parts are made by the catalogue
    return Disclosed(part.name, entry.name, entry.section, entry.origin, part.readers)


def _reasons(form: Form) -> Iterator[Reason]:
    if form.referral.move_type is MoveType.URGENT:
        yield "urgent"
    if form.referral.age_band is AgeBand.UNDER_18:
        yield "under-18"
    if form.associates is not None:
        yield "associates"
