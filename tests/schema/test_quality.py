"""What a check finds before a form is sent, and that it quotes nothing."""

import copy
from datetime import date
from typing import Any

import pytest

from exchange.schema.catalogue import default_catalogue
from exchange.schema.quality import check_form
from tests.schema.forms import decode, example

TODAY = date(2026, 11, 23)


def _findings(document: dict[str, Any], today: date = TODAY) -> set[tuple[str, str]]:
    found = check_form(decode(document), default_catalogue(), today)
    assert not [finding for finding in found if document["subject"]["name"] in str(finding)]
    return {(finding.severity, finding.path) for finding in found}


def _without(*path: Any, name: str = "case-study-j.json", **fields: Any) -> dict[str, Any]:
    document = copy.deepcopy(example(name))
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if fields:
        place[path[-1]].update(fields)
    else:
        del place[path[-1]]
    return document


@pytest.mark.parametrize("name", ["case-study-j.json", "urgent.json"])
@pytest.mark.parametrize("today", [TODAY, date(2027, 3, 1), date(2027, 8, 1)])
def test_the_examples_have_no_errors_for_many_months(name: str, today: date) -> None:
    assert not [path for severity, path in _findings(example(name), today) if severity == "error"]


def test_the_examples_have_no_findings_at_all_when_new() -> None:
    assert _findings(example("case-study-j.json")) == set()
    assert _findings(example("urgent.json")) == set()


CASES: list[tuple[dict[str, Any], tuple[str, str]]] = [
    (_without("contacts"), ("error", "contacts")),
    (_without("risk"), ("error", "risk")),
    (_without("housing"), ("error", "housing")),
    (_without("urgent", name="urgent.json"), ("error", "urgent")),
    (_without("referral", erase_on="2026-11-23"), ("error", "referral.erase_on")),
    (_without("referral", review_due="2033-01-01"), ("error", "referral.review_due")),
    (_without("referral", review_due="2026-11-01"), ("warning", "referral.review_due")),
    (_without("referral", to_area="E09000012"), ("error", "referral.to_area")),
    (_without("referral", move_date="2026-08-24"), ("warning", "referral.move_date")),
    (_without("referral", age_band="under-18"), ("error", "referral.age_band")),
    (_without("subject", date_of_birth="2026-11-23"), ("error", "subject.date_of_birth")),
    (_without("subject", "safe_to_call"), ("warning", "subject.safe_to_call")),
    (_without("risk", "statements", 2, "source"), ("error", "risk.statements[2].source")),
    (_without("risk", "statements", 0, as_of="2025-11-01"), ("warning", "risk.statements[0].as_of")),
    (_without("risk", "statements", 0, as_of="2026-11-24"), ("error", "risk.statements[0].as_of")),
    (_without("risk", "statements", 0, review_by="2026-11-22"), ("warning", "risk.statements[0].review_by")),
    (_without("risk", "staff_safety"), ("warning", "risk.staff_safety")),
    (_without("injunction", "review_hearing"), ("error", "injunction.review_hearing")),
    (_without("injunction", expires_on="2028-12-01"), ("error", "injunction.expires_on")),
    (_without("injunction", expires_on="2026-12-01"), ("warning", "injunction.expires_on")),
    (_without("injunction", expires_on="2026-09-14"), ("error", "injunction.expires_on")),
    (_without("injunction", expires_on="2026-11-22"), ("warning", "injunction.expires_on")),
    (_without("injunction", "conditions", 0, number=2), ("error", "injunction.conditions")),
    (_without("housing", unsafe_areas=["E09000010"]), ("error", "housing.unsafe_areas")),
    (_without("housing", safe_areas=["E09000012"]), ("error", "housing.safe_areas")),
    (_without("urgent", "who_knows_address", name="urgent.json"), ("warning", "urgent.who_knows_address")),
    (_without("contacts", "people", 0, expires_on="2026-11-22"), ("warning", "contacts.people[0].expires_on")),
]


@pytest.mark.parametrize(("document", "finding"), CASES, ids=[f"{s}-{p}" for _, (s, p) in CASES])
def test_a_fault_is_found_at_its_field(document: dict[str, Any], finding: tuple[str, str]) -> None:
    assert finding in _findings(document)


def test_a_child_about_whom_no_service_for_children_is_told_is_noticed() -> None:
    document = example("case-study-j.json")
    document["referral"]["age_band"] = "under-18"
    document["subject"]["date_of_birth"] = "2010-04-17"
    assert _findings(document) == set()
    del document["childrens-social-care"]
    assert _findings(document) == {("warning", "childrens-social-care")}


@pytest.mark.parametrize(
    ("today", "expected"),
    [(date(2026, 11, 23), "18-24"), (date(2028, 4, 16), "18-24"), (date(2028, 4, 17), "25-and-over")],
)
def test_the_age_band_changes_on_the_birthday(today: date, expected: str) -> None:
    document = example("case-study-j.json")
    document["referral"]["age_band"] = expected
    assert ("error", "referral.age_band") not in _findings(document, today)
