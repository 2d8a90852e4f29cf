"""Why a value does not fit its type, in words for a person who does not program.

msgspec says "Expected `str` of length >= 1 - at `$.subject.name`"; a person reads `subject.name` "must not be empty".
Nothing of a value is repeated: it may be about somebody. The name of an unknown field is, for the caller to judge.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_PATH: Final = re.compile(r" - at `\$?\.?(.*?)`$", re.DOTALL)
_KINDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def explain(error: msgspec.ValidationError, kind: type) -> tuple[str, str]:
    """The path of the field in a document of type `kind` (empty for the whole), and what is wrong with it."""
    text = str(error)
    found = _PATH.search(text)
    path, reason = (found[1] if found else ""), _PATH.sub("", text)
    missing = re.match(r"Object missing required field `([^`]+)`", reason)
    if missing:
        return f"{path}.{missing[1]}".lstrip("."), "is missing"
    return path, _reason(reason, path, kind)


def _reason(reason: str, path: str, kind: type) -> str:
    length = re.match(r"Expected `(\w+)(?: \| null)?` of length (>=|<=) (\d+)", reason)
    bound = re.match(r"Expected `(?:int|float)(?: \| null)?` (>=|<=|>|<) (\S+?)(?:,|$)", reason)
    if length:
        return _length(length[1], length[2], int(length[3]))
    if bound:
        word = {">=": "must be {} or more", "<=": "must be {} or less", ">": "must be more than {}"}
        return word.get(bound[1], "must be less than {}").format(bound[2].removesuffix(".0"))
    if reason.startswith("Invalid enum value"):
        allowed = [str(value) for value in _allowed(kind, path)]
        return f"must be one of: {', '.join(allowed)}" if allowed else "is not one of the allowed values"
    if "matching regex" in reason:
        meant = _meant(kind, path)
        return f"must be {meant}" if meant else "is not of the form that this field needs"
    if "RFC3339 encoded datetime" in reason:
        return "must be a time with its offset from UTC, such as 2026-11-30T17:00:00Z"
    if "RFC3339 encoded date" in reason:
        return "must be a date, such as 2026-11-30"
    return _kinds(reason)


def _length(kind: str, sign: str, bound: int) -> str:
    if sign == ">=":
        least = f"must have at least {bound} "
        if kind == "array":
            return least + ("entry" if bound == 1 else "entries")
        return "must not be empty" if bound == 1 else f"{least}characters"
    return f"must have at most {bound} {'entries' if kind == 'array' else 'characters'}"


def _kinds(reason: str) -> str:
    expected = re.match(r"Expected `([^`]+)`", reason)
    # What is not known here is cut where msgspec begins to quote the value.
    if expected is None:
        return reason if reason.startswith("Object contains unknown field") else reason.split(" '")[0]
    words = [_KINDS.get(name, name) for name in expected[1].split(" | ") if name != "null"]
    return f"must be {' or '.join(words)}"


def _types_at(kind: type, path: str) -> Iterator[Any]:
    """The types that a field may have, and their wrappers, from the outside in."""
    names = re.findall(r"\[[^\]]*\]|[^.\[\]]+", path)
    waiting = [msgspec.inspect.type_info(kind)]
    for name in [*names, None]:
        level: list[Any] = []
        while waiting:
            here: Any = waiting.pop()
            level.append(here)
            if isinstance(here, msgspec.inspect.Metadata):
                waiting.append(here.type)
            elif isinstance(here, msgspec.inspect.UnionType):
                waiting.extend(here.types)
        if name is None:
            yield from level
        for here in level:
            if isinstance(here, msgspec.inspect.VarTupleType) and str(name).startswith("["):
                waiting.append(here.item_type)
            elif isinstance(here, msgspec.inspect.StructType):
                waiting.extend(field.type for field in here.fields if field.encode_name == name)


def _allowed(kind: type, path: str) -> Iterator[Any]:
    for here in _types_at(kind, path):
        if isinstance(here, msgspec.inspect.EnumType):
            yield from (member.value for member in here.cls)


def _meant(kind: type, path: str) -> str:
    for here in _types_at(kind, path):
        if isinstance(here, msgspec.inspect.Metadata) and here.extra_json_schema:
            return str(here.extra_json_schema.get("description", ""))
    return ""
