"""Nobody reads what the catalogue does not give them, and nothing is lost on the way."""

from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings

from exchange.crypto.names import SectionName, parse_section_name
from exchange.schema.catalogue import default_catalogue
from exchange.schema.form import SECTION_FIELDS, Form
from exchange.schema.split import FormPart, opened_by_node, preview, split
from tests.schema.forms import IDENTIFIERS, decode, example, splittable

CATALOGUE = default_catalogue()
# These say who reads a part; they are not read themselves.
CHOOSERS = {(part.section, part.readers_from) for part in CATALOGUE.parts if part.readers_from and not part.each}
some = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _texts(member)


def _read_by(kind: str, form: Form) -> str:
    return "\n".join(text for part in split(form, CATALOGUE) if kind in part.readers for text in _texts(part.content))


@some
@given(splittable)
def test_no_agency_gets_a_part_that_the_catalogue_does_not_allow(form: Form) -> None:
    parts = split(form, CATALOGUE)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        assert parse_section_name(part.name) == part.name
        assert part.readers
        assert len(set(part.readers)) == len(part.readers)
        assert set(part.readers) <= CATALOGUE.allowed(part.name)


@some
@given(splittable)
def test_every_field_lands_in_a_part(form: Form) -> None:
    landed = {(part.name.split(".")[0], field) for part in split(form, CATALOGUE) for field in part.content}
    document = msgspec.to_builtins(form)
    written = {(name, field) for name in SECTION_FIELDS for field in document.get(name) or ()}
    assert written - landed <= CHOOSERS


@some
@given(splittable)
def test_an_identifier_reaches_its_owner_and_nobody_else(form: Form) -> None:
    for part in split(form, CATALOGUE):
        for identifier, owner in IDENTIFIERS.items():
            if part.name.startswith("subject") and identifier in part.content:
                assert part.readers == (owner,)
                assert set(part.content) == {identifier}


@some
@given(splittable)
def test_the_preview_is_what_the_parts_say(form: Form) -> None:
    parts = split(form, CATALOGUE)
    seen = {(kind, name) for kind, names in preview(parts).items() for name in names}
    assert seen == {(kind, part.name) for part in parts for kind in part.readers}


@some
@given(splittable)
def test_the_same_form_gives_the_same_parts(form: Form) -> None:
    first, second = ([(p.name, p.readers, p.content) for p in split(form, CATALOGUE)] for _ in range(2))
    assert first == second


def _fields_read_by(kind: str, form: Form) -> dict[str, set[str]]:
    """By section, the fields of it that an agency reads; those of a single condition stand under the condition."""
    read: dict[str, set[str]] = {}
    for part in split(form, CATALOGUE):
        if kind in part.readers:
            section = "condition" if part.name.startswith("injunction.condition-") else part.name.partition(".")[0]
            read.setdefault(section, set()).update(part.content)
    return read


CONDITION = {"number", "kind", "type", "text", "permission_holder", "supporting_agency"}


@some
@given(splittable)
def test_dwp_reads_no_offences_of_anybody(form: Form) -> None:
    read = _fields_read_by("dwp", form)
    assert not read.keys() & {"associates", "injunction", "police", "probation", "youth-justice"}
    assert "categories" not in read["subject"]
    assert read.get("risk", set()) <= {"staff_safety"}
    assert read.get("condition", set()) <= CONDITION


@some
@given(splittable)
def test_housing_reads_unsafe_areas_and_no_associates_of_anybody(form: Form) -> None:
    read = _fields_read_by("housing", form)
    assert read.get("associates", set()) <= {"unsafe_areas"}
    assert read.get("condition", set()) <= CONDITION
    assert not read.keys() & {"injunction", "police", "probation", "youth-justice"}
    if form.associates is not None and form.associates.unsafe_areas:
        assert read["associates"] == {"unsafe_areas"}


@some
@given(splittable)
def test_a_condition_goes_to_its_supporting_agency_alone(form: Form) -> None:
    for part in split(form, CATALOGUE):
        if part.name.startswith("injunction.condition-"):
            assert part.readers == (part.content["supporting_agency"],)


def test_who_supports_a_condition_reads_it_without_its_list_of_people() -> None:
    document = example("case-study-j.json")
    document["injunction"]["conditions"][3]["supporting_agency"] = "housing"
    part = next(part for part in split(decode(document), CATALOGUE) if part.name == "injunction.condition-4")
    assert part.readers == ("housing",)
    assert part.content["text"] == document["injunction"]["conditions"][3]["text"]
    assert "people" not in part.content


def test_dwp_reads_no_offences_of_j() -> None:
    form = decode(example("case-study-j.json"))
    names = preview(split(form, CATALOGUE))["dwp"]
    assert "dwp" in names
    assert "subject.nino" in names
    assert "injunction.condition-6" in names
    assert not {"risk", "associates", "injunction", "police", "probation", "subject.categories"} & set(names)
    read = _read_by("dwp", form).lower()
    assert not [word for word in ("convicted", "firearm", "theft", "drug", "nonesuch", "aardvark") if word in read]


def test_housing_reads_unsafe_areas_and_no_associate_of_j() -> None:
    form = decode(example("case-study-j.json"))
    names = preview(split(form, CATALOGUE))["housing"]
    assert {"housing", "housing.address", "associates.unsafe-areas"} <= set(names)
    assert "associates" not in names
    read = _read_by("housing", form)
    assert "Nonesuch Parade" in read
    for person in example("case-study-j.json")["associates"]["people"]:
        assert person["name"] not in read


def test_the_new_address_of_j_goes_to_housing_and_those_who_are_named() -> None:
    document = example("case-study-j.json")
    readers = {part.name: part.readers for part in split(decode(document), CATALOGUE)}["housing.address"]
    assert set(readers) == {"housing", *document["housing"]["address_needed_by"]}
    del document["housing"]["address_needed_by"]
    readers = {part.name: part.readers for part in split(decode(document), CATALOGUE)}["housing.address"]
    assert readers == ("housing",)


def test_the_referral_carries_no_name_of_j() -> None:
    document = example("case-study-j.json")
    referral = next(part for part in split(decode(document), CATALOGUE) if part.name == "referral")
    assert document["subject"]["name"] not in list(_texts(referral.content))


def test_a_section_that_is_absent_makes_no_part() -> None:
    document = example("case-study-j.json")
    del document["injunction"]
    assert not [part for part in split(decode(document), CATALOGUE) if part.name.startswith("injunction")]


def test_a_node_opens_what_has_a_reader_without_a_key_of_its_own() -> None:
    parts = tuple(
        FormPart(SectionName(name), readers, {"text": "fictitious"})
        for name, readers in (("housing", ("housing",)), ("police", ("police",)), ("subject", ("housing", "police")))
    )
    assert opened_by_node(parts, frozenset()) == ("housing", "police", "subject")
    assert opened_by_node(parts, frozenset({"housing"})) == ("police", "subject")
    assert opened_by_node(parts, frozenset({"housing", "police"})) == ()
