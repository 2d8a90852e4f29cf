"""All that a diagnosis can find, from the table in `data/webhook-findings.toml`."""

import importlib.resources
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Literal

import msgspec


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of a finding: how sure it is, a sentence, and what to do."""

    kind: Literal["right", "wrong", "likely", "note"]
    message: str
    hint: str


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found, and what to do about it."""

    code: str
    kind: str
    message: str
    hint: str


@cache
def texts() -> Mapping[str, Text]:
    """Every finding that there is, by its code."""
    data = (
        importlib.resources.files("exchange.schema").joinpath("data/webhook-findings.toml").read_text(encoding="utf-8")
    )
    return msgspec.convert(tomllib.loads(data), dict[str, Text])


def finding(code: str, **values: object) -> Finding:
    """The finding of that code."""
    text = texts()[code]
    return Finding(code, text.kind, text.message.format(**values), text.hint)
