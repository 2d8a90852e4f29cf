"""Faults that were found once and must not come back."""

from datetime import date
from typing import Any

import pytest

from exchange.schema.catalogue import default_catalogue
from exchange.schema.errors import FormInvalid
from exchange.schema.quality import check_form
from exchange.schema.split import preview, split
from tests.schema.forms import decode, example

CATALOGUE = default_catalogue()


def _parts(document: dict[str, Any]) -> dict[str, Any]:
    return {part.name: part for part in split(decode(document), CATALOGUE)}


def test_an_unknown_key_is_not_repeated_since_it_may_be_a_name() -> None:
    with pytest.raises(FormInvalid) as refused:
        decode({**example("case-study-j.json"), "Jolyon": 1})
    assert "Jolyon" not in f"{refused.value} {refused.value.findings}"


@pytest.mark.parametrize("name", ["a\u202eb", "a\u0085b", "   ", "a\u2028b"])
def test_a_name_that_hides_something_is_refused(name: str) -> None:
    document = example("case-study-j.json")
    document["subject"]["name"] = name
    with pytest.raises(FormInvalid):
        decode(document)


def test_a_form_does_not_show_itself() -> None:
    form = decode(example("case-study-j.json"))
    assert "Exampleby" not in f"{form!r} {form} {form.subject!r} {split(form, CATALOGUE)!r}"


@pytest.mark.parametrize(
    ("section", "field", "value", "path"),
    [
        ("housing", "address_needed_by", ["dwp"], "housing.address_needed_by"),
        ("support", "lead_agency", "nobody", "support.lead_agency"),
    ],
)
def test_a_reader_that_is_not_allowed_is_refused_and_not_dropped(
    section: str, field: str, value: Any, path: str
) -> None:
    document = example("case-study-j.json")
    document[section][field] = value
    found = check_form(decode(document), CATALOGUE, date(2026, 11, 23))
    assert [(finding.severity, finding.path) for finding in found] == [("error", path)]
    with pytest.raises(FormInvalid, match=path):
        _parts(document)


def test_a_mistyped_supporting_agency_is_refused() -> None:
    document = example("case-study-j.json")
    document["injunction"]["conditions"][5]["supporting_agency"] = "dpw"
    with pytest.raises(FormInvalid, match=r"conditions\[5\]"):
        _parts(document)


def test_a_condition_keeps_its_number_and_leaves_the_people_out() -> None:
    document = example("case-study-j.json")
    document["injunction"]["conditions"][3].update(number=9, supporting_agency="voluntary-sector")
    part = _parts(document)["injunction.condition-9"]
    assert part.readers == ("voluntary-sector",)
    assert "people" not in part.content


def test_an_agency_that_reads_the_whole_gets_no_copy_of_a_condition() -> None:
    document = example("case-study-j.json")
    document["injunction"]["conditions"][4]["supporting_agency"] = "probation"
    assert "injunction.condition-5" not in _parts(document)


def test_an_urgent_action_reaches_an_agency_outside_the_first_four() -> None:
    document = example("urgent.json")
    document["urgent"]["actions"][0]["agency"] = "victim-support"
    names = preview(split(decode(document), CATALOGUE))["victim-support"]
    assert "urgent.action-1" in names
    assert "urgent" not in names


def test_housing_is_not_told_of_suspicions() -> None:
    assert "housing" not in CATALOGUE.allowed("subject.categories")
