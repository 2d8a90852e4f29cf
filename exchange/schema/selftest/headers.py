"""The three headers as they came, and what they may have been when they were sent."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote

from exchange.schema.selftest.findings import Finding, finding

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
NAMES: Final = (ID, TIMESTAMP, SIGNATURE)
_ENDINGS: Final = {"id": ID, "timestamp": TIMESTAMP, "signature": SIGNATURE}
_RENAMED: Final = re.compile(
    r"(?:x-|http-|original-|amzn-|forwarded-|orig-)*(?:webhook|svix)-(id|timestamp|signature)\Z"
)
_REQUEST_LINE: Final = re.compile(r"(?:[A-Z]{3,10} \S+ )?HTTP/[0-9.]+")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_AROUND: Final = " \t\r\n\"'[]"
_MOST: Final = 200

Pairs = Sequence[tuple[str, str]]
Form = tuple[tuple[Finding, ...], str]


def parse_headers(text: str) -> list[tuple[str, str]]:
    """Read headers as people paste them: lines of `name: value`, or a JSON object. What is neither is passed over."""
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return [(name, str(one)) for name, found in value.items() for one in _each(found)][:_MOST]
    pairs = []
    for line in text.splitlines()[:_MOST]:
        # curl -v writes "> " or "< " before each.
        line = line.removeprefix("> ").removeprefix("< ").strip(" \t,")
        name, colon, value = line.partition(":")
        name = name.strip(" \t\"'")
        if colon and _NAME.fullmatch(name) and not _REQUEST_LINE.match(line):
            pairs.append((name, value.strip(" \t")))
    return pairs


def _each(found: object) -> list[object]:
    return found if isinstance(found, list) else [found]


@dataclass(frozen=True, slots=True)
class Header:
    """One of the three: what of it can be seen at once, and its value; None where it is not there."""

    found: tuple[Finding, ...]
    value: str | None


def read_header(pairs: Pairs, name: str) -> Header:
    """Find a header, under whichever name."""
    values = [value for found, value in pairs if found.lower() == name]
    if values:
        if len(values) > 1:
            return Header((finding("header-twice", name=name),), values[0])
        return Header((), values[0])
    for found, value in pairs:
        renamed = _RENAMED.match(found.lower().replace("_", "-"))
        if renamed and _ENDINGS[renamed[1]] == name:
            shown = found if _NAME.fullmatch(found) else "another name"
            code = "header-underscored" if "_" in found else "header-renamed"
            return Header((finding(code, name=name, found=shown),), value)
    return Header((finding("header-missing", name=name),), None)


def id_forms(value: str | None, in_body: object) -> Iterator[Form]:
    """The id, then what it may have been; `in_body` is the id that the body has."""
    if value is not None:
        yield from _plain_forms(value, ID)
        if value.lower() != value:
            yield (finding("id-altered"),), value.lower()
    if isinstance(in_body, str) and in_body != value:
        yield ((finding("id-altered"),) if value is not None else ()), in_body


def timestamp_forms(value: str | None, known: int | None) -> Iterator[Form]:
    """The timestamp, then what it may have been; `known` is when the sample was signed."""
    if value is not None:
        yield from _plain_forms(value, TIMESTAMP)
        bare = value.strip(_AROUND)
        if re.fullmatch(r"[0-9]{13}", bare):
            yield (finding("timestamp-milliseconds"),), bare[:10]
        seconds = seconds_of(bare)
        if seconds is not None and str(seconds) != bare:
            yield (finding("timestamp-altered"),), str(seconds)
    if known is not None and str(known) != value:
        yield ((finding("timestamp-not-that"),) if value is not None else ()), str(known)


def _plain_forms(value: str, name: str) -> Iterator[Form]:
    yield (), value
    for bare in (value.strip(_AROUND), unquote(value.strip(_AROUND))):
        if bare != value:
            yield (finding("header-altered", name=name),), bare
    first, comma, second = value.partition(",")
    if comma and first.strip() == second.strip():
        yield (finding("header-twice", name=name),), first.strip()


def seconds_of(text: str) -> int | None:
    """Whole seconds since 1970 of a number or a date."""
    try:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
            return int(text.partition(".")[0])
        if re.fullmatch(r"[0-9][0-9]{0,2}(\.[0-9]{1,20})?[eE]\+?0?9", text):
            return round(float(text))
        at = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
