"""Areas by their ONS/GSS code, and their names for people.

* Any well-formed code is an area: boroughs send to authorities outside London, and codes change with boundaries.
* A name is for showing only; nothing is decided by it.

Source: Office for National Statistics, "Local Authority Districts: names and codes".
"""

import importlib.resources
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from exchange.schema.errors import SchemaError

_CODE: Final = re.compile(r"[EWSN][0-9]{8}")


class AreaUnknown(SchemaError):
    """Text is not the code of an area."""

    code = "area-unknown"
    hint = "An area is the nine-character ONS code of a local authority, such as E09000012 for Hackney."


@cache
def area_names() -> Mapping[str, str]:
    """The names that ship with the exchange, by code."""
    data = importlib.resources.files("exchange.schema").joinpath("data/areas.toml").read_text(encoding="utf-8")
    return MappingProxyType({code: name for group in tomllib.loads(data).values() for code, name in group.items()})


def area_name(code: str) -> str:
    """The name of the area, or the code itself where the name is not known.

    Raises:
        AreaUnknown: it is not the code of an area at all.
    """
    if not _CODE.fullmatch(code):
        raise AreaUnknown("that is not the ONS code of a local authority")
    return area_names().get(code, code)
