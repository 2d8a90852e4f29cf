"""Quality checks before a form is sent: what would mislead or endanger somebody. Findings never quote the form.

`error` stops the sending, `warning` asks the writer to look again.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Final

from exchange.schema.catalogue import Catalogue
from exchange.schema.errors import Finding
from exchange.schema.form import SECTION_FIELDS, Form
from exchange.schema.legal import GATEWAYS, may_carry, stated_for
from exchange.schema.split import readers_refused
from exchange.schema.vocabulary import AgeBand, StatementKind

STALE_AFTER: Final = timedelta(days=365)
EXPIRES_SOON: Final = timedelta(days=28)
LONGEST_INJUNCTION: Final = timedelta(days=731)
REVIEW_NEEDED_AFTER: Final = timedelta(days=366)
MOVE_STALE_AFTER: Final = timedelta(days=90)


def _error(path: str, message: str) -> Finding:
    return Finding("error", path, message)


def _warning(path: str, message: str) -> Finding:
    return Finding("warning", path, message)


def check_form(form: Form, catalogue: Catalogue, today: date) -> list[Finding]:
    """All findings about a form, errors first."""
    checks = (_required, _readers, _legal, _referral, _subject, _risk, _injunction, _housing, _urgent, _contacts)
    findings = [finding for check in checks for finding in check(form, catalogue, today)]
    return sorted(findings, key=lambda finding: finding.severity)


def _required(form: Form, catalogue: Catalogue, _: date) -> Iterator[Finding]:
    for required in catalogue.required:
        move = form.referral.move_type
        if move in required.moves and getattr(form, SECTION_FIELDS[required.section]) is None:
            yield _error(required.section, f"a move of type {move.value} cannot do without this section")
    if form.referral.age_band is AgeBand.UNDER_18 and form.childrens_social_care is None and form.youth_justice is None:
        yield _warning("childrens-social-care", "the person is under 18, and no service for children is told")


def _readers(form: Form, catalogue: Catalogue, _: date) -> Iterator[Finding]:
    yield from readers_refused(form, catalogue)


def _legal(form: Form, catalogue: Catalogue, _: date) -> Iterator[Finding]:
    names = [item.section for item in form.legal_bases]
    known = SECTION_FIELDS.keys() | {part.name for part in catalogue.parts}
    for number, name in enumerate(names):
        if name not in known:
            yield _error(f"legal_bases[{number}].section", "there is no such section, and no such part of one")
        elif name in names[:number]:
            yield _error(f"legal_bases[{number}].section", "has two legal bases")
    for part in catalogue.parts:
        basis = stated_for(form.legal_bases, part.name, part.section)
        present = getattr(form, SECTION_FIELDS[part.section]) is not None
        if present and basis is not None and not may_carry(basis.gateway, part.origin):
            yield _error(
                "legal_bases",
                f"{part.name} is of {part.origin} origin, which the {GATEWAYS[basis.gateway]}, does not let out: "
                "state another gateway for it",
            )


def _referral(form: Form, _: Catalogue, today: date) -> Iterator[Finding]:
    referral = form.referral
    if referral.from_area == referral.to_area:
        yield _error("referral.to_area", "is the same area as from_area")
    if referral.erase_on <= today:
        yield _error("referral.erase_on", "is not in the future")
    if referral.review_due > referral.erase_on:
        yield _error("referral.review_due", "is after erase_on")
    if referral.review_due <= today:
        yield _warning("referral.review_due", "has passed; review the form before sending it")
    if today - referral.move_date > MOVE_STALE_AFTER:
        yield _warning("referral.move_date", "is more than 90 days ago")


def _subject(form: Form, _: Catalogue, today: date) -> Iterator[Finding]:
    born = form.subject.date_of_birth
    if born >= today:
        yield _error("subject.date_of_birth", "is not in the past")
        return
    age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    band = AgeBand.UNDER_18 if age < 18 else AgeBand.FROM_18_TO_24 if age < 25 else AgeBand.FROM_25
    if band is not form.referral.age_band:
        yield _error("referral.age_band", "does not fit subject.date_of_birth")
    if form.subject.safe_to_call is None:
        yield _warning("subject.safe_to_call", "say whether it is safe to call the person")


def _risk(form: Form, _: Catalogue, today: date) -> Iterator[Finding]:
    if form.risk is None:
        return
    for number, statement in enumerate(form.risk.statements):
        path = f"risk.statements[{number}]"
        if statement.kind is StatementKind.ASSESSMENT and statement.source is None:
            yield _error(f"{path}.source", "an assessment needs its source")
        if statement.as_of > today:
            yield _error(f"{path}.as_of", "is in the future")
        if today - statement.as_of > STALE_AFTER:
            yield _warning(f"{path}.as_of", "is more than a year old; confirm it or leave it out")
        if statement.review_by is not None and statement.review_by < today:
            yield _warning(f"{path}.review_by", "has passed; review the statement before sending it")
    if form.risk.staff_safety is None:
        yield _warning("risk.staff_safety", "say what staff must know to be safe, or that nothing is known")


def _injunction(form: Form, _: Catalogue, today: date) -> Iterator[Finding]:
    injunction = form.injunction
    if injunction is None:
        return
    term = injunction.expires_on - injunction.made_on
    if term.days <= 0:
        yield _error("injunction.expires_on", "is not after made_on")
    if term > LONGEST_INJUNCTION:
        yield _error("injunction.expires_on", "an injunction lasts two years at most")
    if term > REVIEW_NEEDED_AFTER and injunction.review_hearing is None:
        yield _error("injunction.review_hearing", "an injunction of more than a year has a review hearing")
    if injunction.expires_on < today:
        yield _warning("injunction.expires_on", "has passed")
    elif injunction.expires_on - today < EXPIRES_SOON:
        yield _warning("injunction.expires_on", "is less than four weeks away")
    numbers = [condition.number for condition in injunction.conditions]
    if len(set(numbers)) != len(numbers):
        yield _error("injunction.conditions", "two conditions have the same number")


def _housing(form: Form, _: Catalogue, __: date) -> Iterator[Finding]:
    housing = form.housing
    if housing is None:
        return
    if set(housing.safe_areas) & set(housing.unsafe_areas):
        yield _error("housing.safe_areas", "an area is both safe and unsafe")
    if form.referral.to_area in housing.unsafe_areas:
        yield _error("housing.unsafe_areas", "the person is moving to an area that is named unsafe")


def _urgent(form: Form, _: Catalogue, __: date) -> Iterator[Finding]:
    if form.urgent is not None and form.urgent.interim_address and not form.urgent.who_knows_address:
        yield _warning("urgent.who_knows_address", "say who knows the interim address")


def _contacts(form: Form, _: Catalogue, today: date) -> Iterator[Finding]:
    if form.contacts is None:
        return
    for number, contact in enumerate(form.contacts.people):
        if contact.expires_on is not None and contact.expires_on < today:
            yield _warning(f"contacts.people[{number}].expires_on", "has passed; find out who answers now")
