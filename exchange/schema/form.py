"""The notification form: decoded strictly, refused whole.

* Unknown and doubled keys are refused; errors name the path and never the content.
* The size is bounded before anything is parsed.
"""

import codecs
import difflib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from exchange.schema.errors import Finding, FormInvalid
from exchange.schema.legal import StatedBasis
from exchange.schema.reasons import explain
from exchange.schema.sections import (
    Aspirations,
    Associates,
    ChildrensSocialCare,
    Contacts,
    Dwp,
    Health,
    Housing,
    Injunction,
    Police,
    Probation,
    Referral,
    Risk,
    Subject,
    Support,
    Urgent,
    Victim,
    YouthJustice,
)
from exchange.schema.vocabulary import Part

MAX_FORM_BYTES: Final = 1024 * 1024


class Form(
    Part, frozen=True, rename={"youth_justice": "youth-justice", "childrens_social_care": "childrens-social-care"}
):
    """A whole form; which sections it must have depends on the move (catalogue)."""

    referral: Referral
    subject: Subject
    risk: Risk | None = None
    associates: Associates | None = None
    injunction: Injunction | None = None
    police: Police | None = None
    probation: Probation | None = None
    youth_justice: YouthJustice | None = None
    childrens_social_care: ChildrensSocialCare | None = None
    housing: Housing | None = None
    dwp: Dwp | None = None
    victim: Victim | None = None
    health: Health | None = None
    support: Support | None = None
    aspirations: Aspirations | None = None
    urgent: Urgent | None = None
    contacts: Contacts | None = None
    #: For the sender's gate, and sent to nobody.
    legal_bases: Annotated[tuple[StatedBasis, ...], msgspec.Meta(max_length=100)] = ()


#: Section name in the form -> attribute of `Form`.
SECTION_FIELDS: Final = {
    field.encode_name: field.name for field in msgspec.structs.fields(Form) if field.name != "legal_bases"
}

_decoder = msgspec.json.Decoder(Form)


def _field_names(kind: msgspec.inspect.Type) -> Iterator[str]:
    match kind:
        case msgspec.inspect.UnionType():
            for inner in kind.types:
                yield from _field_names(inner)
        case msgspec.inspect.VarTupleType():
            yield from _field_names(kind.item_type)
        case msgspec.inspect.StructType():
            for field in kind.fields:
                yield field.encode_name
                yield from _field_names(field.type)


_FIELD_NAMES: Final = sorted(set(_field_names(msgspec.inspect.type_info(Form))))


def _refuse(path: str, message: str) -> FormInvalid:
    return FormInvalid((Finding("error", path or "form", message),))


def _no_doubles(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _refuse("form", "a key stands twice in one object")


def _no_constant(_: str) -> None:
    raise _refuse("form", "NaN and Infinity are not numbers here")


#: msgspec takes the last of two equal keys, and says nothing.
_strict = json.JSONDecoder(object_pairs_hook=_no_doubles, parse_constant=_no_constant)


def _misfit(error: msgspec.ValidationError) -> FormInvalid:
    path, reason = explain(error, Form)
    unknown = re.match(r"Object contains unknown field `(.*)`", reason, re.DOTALL)
    if unknown:
        # The key itself may be content, such as a name; only the known name that is near to it is said.
        near = difflib.get_close_matches(unknown[1][:80], _FIELD_NAMES, 1)
        reason = "there is a field that the form does not have" + (f"; did you mean {near[0]}?" if near else "")
    return _refuse(path, reason)


def decode_form(data: bytes) -> Form:
    """Decode a form from JSON.

    Raises:
        FormInvalid: too large, not JSON, or not a form; its findings name the paths.
    """
    if len(data) > MAX_FORM_BYTES:
        raise _refuse("form", "the form is larger than 1 MiB")
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _refuse("form", "the file begins with a byte order mark; save it as UTF-8 without one")
    try:
        _strict.decode(data.decode())
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _misfit(error) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _refuse("form", f"this is not well-formed JSON: the mistake is at or before {place}") from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _refuse("form", "this is not well-formed JSON") from None


def form_to_builtins(section: Part) -> dict[str, Any]:
    """A section as JSON values, without fields that are not set."""
    value = msgspec.to_builtins(section)
    assert isinstance(value, dict)  # noqa: S101 - a struct always becomes an object
    return value
