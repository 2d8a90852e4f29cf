"""A form is decoded strictly, refused whole, and never quoted in a refusal."""

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from exchange.schema.errors import FormInvalid
from exchange.schema.form import MAX_FORM_BYTES, SECTION_FIELDS, Form, decode_form
from exchange.schema.json_schema import form_json_schema
from tests.schema.forms import decode, example, forms


@pytest.mark.parametrize("name", ["case-study-j.json", "urgent.json"])
def test_the_examples_are_forms_and_fit_the_json_schema(name: str) -> None:
    document = example(name)
    decode(document)
    Draft202012Validator.check_schema(form_json_schema())
    Draft202012Validator(form_json_schema()).validate(document)


def _changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document: Any = copy.deepcopy(example("case-study-j.json"))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return document  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("referral", "move_date"), "2026-02-30", "referral.move_date"),
        (("referral", "from_area"), "E09000012\n", "referral.from_area"),
        (("referral", "from_area"), "e09000012", "referral.from_area"),
        (("referral", "version"), 0, "referral.version"),
        (("referral", "version"), 1.5, "referral.version"),
        (("referral", "version"), "1", "referral.version"),
        (("referral", "move_type"), "sesame", "referral.move_type"),
        (("subject", "categories"), [], "subject.categories"),
        (("subject", "categories", 0), "sesame", "subject.categories[0]"),
        (("subject", "name"), "", "subject.name"),
        (("subject", "name"), "sesame\x00", "subject.name"),
        (("subject", "name"), "sesame\n", "subject.name"),
        (("subject", "name"), "s" * 10_000, "subject.name"),
        (("subject", "name"), None, "subject.name"),
        (("subject", "nhs"), "sesame", "subject.nhs"),
        (("risk", "statements", 1, "kind"), "sesame", "risk.statements[1].kind"),
        (("dwp", "next_appointment"), "2026-12-10T10:30:00", "dwp.next_appointment"),
        (("injunction", "conditions", 3, "people"), "sesame", "injunction.conditions[3].people"),
    ],
)
def test_a_refusal_names_the_field_and_not_its_content(path: tuple[Any, ...], value: Any, where: str) -> None:
    with pytest.raises(FormInvalid) as refused:
        decode(_changed(path, value))
    assert refused.value.findings[0].path == where
    assert "sesame" not in f"{refused.value} {refused.value.findings}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'{"referral": NaN}',
        b'{"referral": 1, "referral": 2}',
        b'{"referral": {"id": "a", "id": "b"}}',
        b'{"referral": "\\ud800 and more"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"referral": ' + b"9" * 100_000 + b"}",
        json.dumps(example("urgent.json")).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(example("urgent.json")).encode(),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_not_a_form_is_refused(data: bytes) -> None:
    with pytest.raises(FormInvalid):
        decode_form(data)


def test_a_form_too_large_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(FormInvalid, match="larger"):
        decode_form(b" " * (MAX_FORM_BYTES + 1))


@pytest.mark.parametrize("section", SECTION_FIELDS)
def test_every_section_refuses_an_unknown_field(section: str) -> None:
    document = example("case-study-j.json")
    document[section] = {**document.get(section, {}), "no_such_field": 1}
    with pytest.raises(FormInvalid):
        decode(document)


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_form_or_a_refusal(data: bytes) -> None:
    with pytest.raises(FormInvalid):
        decode_form(data)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(forms)
def test_every_form_survives_json(form: Form) -> None:
    assert decode_form(msgspec.json.encode(form)) == form
