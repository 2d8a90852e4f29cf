"""Forms for tests: the shipped examples, and any form that the schema allows."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from exchange.schema.catalogue import default_catalogue
from exchange.schema.form import Form, decode_form
from exchange.schema.split import readers_refused

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
IDENTIFIERS = {"pnc": "police", "ndelius": "probation", "nino": "dwp", "nhs": "health"}

# Every text is told apart from every other, so that a leak can be seen.
_tokens = st.uuids().map(lambda value: f"text {value}")
_shaped = {
    "^[EWSN]": st.sampled_from(["E09000010", "E09000012", "W06000015"]),
    "^[a-z][a-z0-9-]": st.sampled_from([agency.kind for agency in default_catalogue().agencies]),
    "^[0-9]{2,4}/": st.integers(1, 9_999_999).map(lambda n: f"03/{n}X"),
    "^[a-z][a-z.-]": st.sampled_from([part.name for part in default_catalogue().parts]),
    "^[A-Z][0-9]{6}": st.integers(0, 999_999).map(lambda n: f"X{n:06}"),
    "^[A-Z]{2}[0-9]{6}": st.integers(0, 999_999).map(lambda n: f"QQ{n:06}C"),
    "^[0-9]{10}": st.integers(0, 99_999_999).map(lambda n: f"99{n:08}"),
}


def example(name: str) -> dict[str, Any]:
    document = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def decode(document: Any) -> Form:
    return decode_form(json.dumps(document).encode())


def _strategy(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.Metadata():
            return _strategy(kind.type)
        case inspect.StrType():
            shaped = [made for start, made in _shaped.items() if (kind.pattern or "").startswith(start)]
            return shaped[0] if shaped else _tokens
        case inspect.IntType():
            return st.integers(kind.ge or 0, kind.le or 99)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.DateType():
            return st.dates(date(2000, 1, 1), date(2035, 1, 1))
        case inspect.DateTimeType():
            return st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
        case inspect.EnumType():
            return st.sampled_from(kind.cls)
        case inspect.VarTupleType():
            least = kind.min_length or 0
            return st.lists(_strategy(kind.item_type), min_size=least, max_size=least + 2).map(tuple)
        case inspect.UnionType():
            return st.one_of([_strategy(inner) for inner in kind.types])
        case inspect.StructType():
            fields = {field.name: _strategy(field.type) for field in kind.fields}
            return st.builds(kind.cls, **fields)
    raise TypeError(f"no strategy for {type(kind).__name__}")


forms: st.SearchStrategy[Form] = _strategy(inspect.type_info(Form)).filter(
    lambda form: msgspec.json.decode(msgspec.json.encode(form), type=Form) == form
)


def allowed(form: Form) -> bool:
    """Whether `form` names only readers whom the catalogue allows, and numbers its conditions apart."""
    numbers = [condition.number for condition in form.injunction.conditions] if form.injunction else []
    return len(set(numbers)) == len(numbers) and not list(readers_refused(form, default_catalogue()))


splittable: st.SearchStrategy[Form] = forms.filter(allowed)
