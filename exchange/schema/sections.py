"""The sections of the form, one struct each. Who reads which part of them is the catalogue's matter."""

from datetime import date, datetime
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from exchange.schema.vocabulary import (
    AgeBand,
    AgencyKind,
    AreaCode,
    Areas,
    Category,
    ConditionKind,
    ConditionType,
    LegalStatus,
    Line,
    Lines,
    Marking,
    MoveType,
    Ndelius,
    Nhs,
    Nino,
    Part,
    Pnc,
    Reliability,
    StatementKind,
    Text,
)

Moment = Annotated[datetime, Meta(tz=True)]


class Referral(Part, frozen=True):
    """The move itself; no name stands here."""

    id: Line
    version: Annotated[int, Meta(ge=1, le=10_000)]
    from_area: AreaCode
    to_area: AreaCode
    move_type: MoveType
    move_date: date
    age_band: AgeBand
    review_due: date
    erase_on: date
    marking: Marking | UnsetType = UNSET
    supersedes: Line | None = None
    known_since: date | None = None


class Subject(Part, frozen=True):
    """The person. Each identifier is sealed to the agency that owns it."""

    name: Line
    date_of_birth: date
    categories: Annotated[tuple[Category, ...], Meta(min_length=1, max_length=4)]
    aliases: Lines = ()
    gender: Line | None = None
    ethnicity: Line | None = None
    language: Line | None = None
    safe_to_call: bool | None = None
    safe_contact_note: Text | None = None
    safe_people: Lines = ()
    unsafe_people: Lines = ()
    pnc: Pnc | None = None
    ndelius: Ndelius | None = None
    nino: Nino | None = None
    nhs: Nhs | None = None


class RiskStatement(Part, frozen=True):
    """One statement about risk, marked as fact or assessment."""

    text: Text
    kind: StatementKind
    as_of: date
    reliability: Reliability
    source: Line | None = None
    review_by: date | None = None


class Risk(Part, frozen=True):
    """Harm to the person and from the person."""

    primary_source: Text
    harm_to: Text | None = None
    harm_from: Text | None = None
    who_is_at_risk: Lines = ()
    weapons: Text | None = None
    staff_safety: Text | None = None
    statements: Annotated[tuple[RiskStatement, ...], Meta(max_length=200)] = ()


class Associate(Part, frozen=True):
    """Somebody whom the person is linked to."""

    name: Line
    relation: Line
    category: Category | None = None
    group: Line | None = None


class Associates(Part, frozen=True):
    """People, groups, disputes, and areas that are unsafe because of them."""

    people: Annotated[tuple[Associate, ...], Meta(max_length=200)] = ()
    groups: Lines = ()
    disputes: Annotated[tuple[Text, ...], Meta(max_length=50)] = ()
    unsafe_areas: Lines = ()


class Condition(Part, frozen=True):
    """One numbered condition of an injunction."""

    number: Annotated[int, Meta(ge=1, le=99)]
    kind: ConditionKind
    type: ConditionType
    text: Text
    permission_holder: Line | None = None
    people: Lines = ()
    supporting_agency: AgencyKind | None = None


class Injunction(Part, frozen=True):
    """A gang injunction (Policing and Crime Act 2009, Part 4)."""

    court: Line
    case_number: Line
    applicant: Line
    made_on: date
    expires_on: date
    conditions: Annotated[tuple[Condition, ...], Meta(min_length=1, max_length=50)]
    review_hearing: date | None = None
    power_of_arrest: bool = False


class Police(Part, frozen=True):
    """For the receiving police."""

    record_transfer: Text
    warning_markers: Lines = ()
    intelligence_reference: Line | None = None


class Probation(Part, frozen=True):
    """For the receiving probation office."""

    order: Line
    starts_on: date
    ends_on: date
    officer: Line
    oasys_date: date | None = None
    mappa_category: Annotated[int, Meta(ge=1, le=4)] | None = None
    mappa_level: Annotated[int, Meta(ge=1, le=3)] | None = None
    mappa_area: Line | None = None
    licence_conditions: Annotated[tuple[Text, ...], Meta(max_length=50)] = ()
    victim_liaison: Text | None = None
    note: Text | None = None


class YouthJustice(Part, frozen=True):
    """For the receiving youth justice service."""

    order: Line
    home_service: Line
    host_service: Line
    assetplus_reference: Line | None = None
    stability_ends_on: date | None = None
    transition_plan: Text | None = None
    needs: Text | None = None


class Dwp(Part, frozen=True):
    """For the jobcentre; no offences stand here."""

    benefit: Line
    office_from: Line
    office_to: Line
    next_appointment: Moment | None = None
    unsafe_offices: Lines = ()
    training: Text | None = None
    tied_requirement: Text | None = None


class Housing(Part, frozen=True):
    """For the receiving housing service; the new address goes only to those who need it."""

    tenure: Line
    household: Text
    safe_areas: Areas
    unsafe_areas: Areas
    bedrooms: Annotated[int, Meta(ge=0, le=20)] | None = None
    placement_type: Line | None = None
    section_208_date: date | None = None
    section_208_function: Line | None = None
    landlord: Line | None = None
    new_address: Text | None = None
    address_needed_by: Annotated[tuple[AgencyKind, ...], Meta(max_length=20)] = ()


class FamilyMember(Part, frozen=True):
    """Somebody in the person's family."""

    name: Line
    relation: Line
    date_of_birth: date | None = None
    at_risk: bool | None = None
    parental_responsibility: bool | None = None


class ChildrensSocialCare(Part, frozen=True):
    """For the receiving children's social care."""

    legal_status: LegalStatus
    placing_authority: AreaCode
    social_worker: Line
    independent_reviewing_officer: Line | None = None
    ehcp_owner: AreaCode | None = None
    plan: Text | None = None
    missing_episodes: Text | None = None
    exploitation: Text | None = None
    family: Annotated[tuple[FamilyMember, ...], Meta(max_length=50)] = ()
    summary: Text | None = None


class Victim(Part, frozen=True):
    """For victim support: what the person needs as a victim."""

    support: Text
    liaison: Line | None = None
    wishes: Text | None = None


class Health(Part, frozen=True):
    """For health services, on a legal basis of its own."""

    needs: Text
    legal_basis: Line
    provider: Line | None = None


class Support(Part, frozen=True):
    """A voluntary-sector supporter and whether the same worker goes on after the move."""

    provider: Line
    worker: Line
    continues_after_move: bool
    package: Text | None = None
    lead_agency: AgencyKind | None = None


class Aspirations(Part, frozen=True):
    """What the person wants, in the person's own words."""

    own_words: Text
    goals: Lines = ()
    training: Lines = ()
    strengths: Lines = ()


class ThreatEvidence(Part, frozen=True):
    """One piece of evidence of a threat."""

    type: Line
    on: date
    source: Line
    crime_reference: Line | None = None
    text: Text | None = None


class AgencyAction(Part, frozen=True):
    """What one agency is asked to do, by whom and when."""

    agency: AgencyKind
    action: Text
    owner: Line
    due: Moment


class OutOfHours(Part, frozen=True):
    """Who answers at night."""

    name: Line
    phone: Line


class Urgent(Part, frozen=True):
    """An urgent move: the threat, and who does what at once."""

    threat: Annotated[tuple[ThreatEvidence, ...], Meta(min_length=1, max_length=50)]
    imminent: bool
    out_of_hours: OutOfHours
    actions: Annotated[tuple[AgencyAction, ...], Meta(min_length=1, max_length=50)]
    warning_served: date | None = None
    interim_address: Text | None = None
    who_knows_address: Lines = ()
    areas_to_avoid: Lines = ()


class Contact(Part, frozen=True):
    """One agency's contact at one end of the move."""

    agency: AgencyKind
    area: AreaCode
    role: Line
    deputy: Line
    phone: Line | None = None
    out_of_hours: Line | None = None
    expires_on: date | None = None


class Contacts(Part, frozen=True):
    """Who to speak to, old and new."""

    people: Annotated[tuple[Contact, ...], Meta(min_length=1, max_length=100)]
