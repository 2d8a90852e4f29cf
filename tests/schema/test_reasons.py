"""What a form's writer reads when a value does not fit: plain English, and nothing of the value."""

import json
from typing import Any

import msgspec
import pytest

from exchange.schema.errors import FormInvalid
from exchange.schema.form import decode_form
from tests.schema.forms import example


def changed(path: tuple[str | int, ...], value: object) -> bytes:
    document: Any = example("case-study-j.json")
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("subject", "name"), "", "subject.name: must not be empty"),
        (("subject", "name"), "x" * 201, "subject.name: must have at most 200 characters"),
        (("subject", "name"), "a\x1b[31m", "subject.name: must be text on one line, without control characters"),
        (("subject", "name"), 7, "subject.name: must be text"),
        (("subject", "categories"), [], "subject.categories: must have at least 1 entry"),
        (("subject", "nino"), "nonsense", "subject.nino: must be a National Insurance number without spaces, such as "),
        (("referral", "version"), 0, "referral.version: must be 1 or more"),
        (("referral", "version"), "1", "referral.version: must be a whole number"),
        (("referral", "move_date"), "24/11/2026", "referral.move_date: must be a date, such as 2026-11-30"),
        (("referral", "to_area"), "Enfield", "referral.to_area: must be the ONS/GSS code of a local authority"),
        (("referral", "move_type"), "soon", "referral.move_type: must be one of: planned, urgent, already-moved, temp"),
        (
            ("subject", "categories"),
            ["x"],
            "subject.categories[0]: must be one of: suspect, convicted, victim, witness",
        ),
        (("referral",), [], "referral: must be an object"),
    ],
)
def test_a_value_that_does_not_fit_is_explained_in_plain_english(
    path: tuple[str | int, ...], value: object, said: str
) -> None:
    with pytest.raises(FormInvalid) as refused:
        decode_form(changed(path, value))
    [finding] = refused.value.findings
    assert f"{finding.path}: {finding.message}".startswith(said)


def test_what_is_missing_is_named_by_its_own_path() -> None:
    document = example("case-study-j.json")
    del document["referral"]["erase_on"]
    with pytest.raises(FormInvalid, match=r"referral\.erase_on: is missing"):
        decode_form(json.dumps(document).encode())


def test_a_mistake_in_the_json_is_found_by_line_and_column() -> None:
    with pytest.raises(FormInvalid, match=r"at or before line 3, column 3"):
        decode_form(b'{\n  "referral": {}\n  "subject": {}\n}')


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_named_as_what_is_wrong(encoding: str) -> None:
    with pytest.raises(FormInvalid, match="byte order mark"):
        decode_form(json.dumps(example("case-study-j.json")).encode(encoding))


def test_no_reason_repeats_msgspec_s_own_words() -> None:
    """A new kind of field must not bring back `Expected `str`` and the like."""
    kinds = msgspec.inspect.type_info(type(decode_form(json.dumps(example("case-study-j.json")).encode())))
    assert isinstance(kinds, msgspec.inspect.StructType)
    said = ""
    for section in kinds.fields:
        for value in (None, 7, 1.5, "x", True, [], [7], {"nothing": 1}):
            document = {**example("case-study-j.json"), section.encode_name: value}
            try:
                decode_form(json.dumps(document).encode())
            except FormInvalid as refused:
                said += str(refused)
    assert "must be" in said
    assert "`" not in said
    assert "Expected" not in said
