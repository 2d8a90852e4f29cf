"""What a body may have been when it was signed (`signed_forms`), and what code may have made of it (`written_forms`).

The node writes JSON in UTF-8, without white space or escapes that JSON does not need, its members in one order.
"""

import base64
import binascii
import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from exchange.schema.selftest.findings import Finding, finding

#: Of what a compressed body may become.
MOST_BYTES: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_SPACES: Final = b" \t\r\n"
#: The members of an event and of its data, as the node writes them.
_ORDER: Final = (
    *("specversion", "id", "type", "source", "subject", "time", "datacontenttype", "data"),
    *("test", "agency", "message_id", "section", "from", "to", "urgent", "content", "sealed"),
    *("manifest", "proof", "card", "ciphertext", "parcel", "key_id"),
)
_CHARSETS: Final = ("utf-16", "utf-16-le", "utf-16-be")
_SINGLE: Final = ("iso-8859-1", "windows-1252", "cp437")

Form = tuple[Finding, bytes]


def signed_forms(body: bytes, original: bytes | None = None) -> Iterator[Form]:
    """What else than `body` may have been signed, and what was then done to it; `original` is what the node sent."""
    if original is not None and body != original:
        yield from _against(body, original)
    yield from _undone(body)
    value = parsed(body)
    if value is not None:
        for form in (_canonical(value), _canonical(_in_order(value))):
            if form is not None and form != body:
                yield finding("body-reserialised", what=differences(body, form)), form


def _undone(body: bytes) -> Iterator[Form]:
    """What one step backwards leads to."""
    if body.startswith(_BOM):
        yield finding("body-bom"), body[len(_BOM) :]
    if body.strip(_SPACES) != body:
        yield finding("body-spaces"), body.strip(_SPACES)
    for one, other in ((b"\r\n", b"\n"), (b"\n", b"\r\n")):
        if one in body:
            yield finding("body-crlf"), body.replace(one, other)
    for charset in _CHARSETS:
        if b"\0" in body:
            yield from _recoded(body, charset, "utf-8", charset)
    for charset in _SINGLE:
        if not body.isascii():
            # Written as UTF-8 after it had been read as that, or written as that.
            yield from _recoded(body, "utf-8", charset, charset)
            yield from _recoded(body, charset, "utf-8", charset)
    for how, wbits in (("gzip", 31), ("deflate", 15)):
        if (inflated := _inflated(body, wbits)) is not None:
            yield finding("body-compressed", how=how), inflated
    with contextlib.suppress(binascii.Error, ValueError):
        yield finding("body-base64"), base64.b64decode(body.strip(_SPACES), validate=True)
    if body.strip(_SPACES).startswith(b'"') and isinstance(inner := parsed(body), str):
        yield finding("body-quoted"), inner.encode(errors="surrogatepass")


def _recoded(body: bytes, read: str, written: str, charset: str) -> Iterator[Form]:
    try:
        yield finding("body-charset", charset=charset.upper()), body.decode(read).encode(written)
    except (UnicodeError, ValueError):
        return


def _against(body: bytes, original: bytes) -> Iterator[Form]:
    """The original, with what became of it."""
    for found, form in _undone(body):
        if form == original:
            yield found, original
            return
    if body and original.startswith(body):
        yield finding("body-cut", got=len(body), wanted=len(original)), original
    elif original in body:
        yield finding("body-longer", got=len(body), wanted=len(original)), original
    elif (value := parsed(body)) is not None and value == parsed(original):
        yield finding("body-reserialised", what=differences(body, original)), original
    elif body:
        yield finding("body-other"), original


def written_forms(body: bytes) -> Iterator[Form]:
    """What code may have hashed in place of `body`, which is what was signed."""
    yield finding("body-empty"), b""
    yield finding("body-bom"), _BOM + body
    yield from ((finding("body-spaces"), body + end) for end in (b"\n", b"\r\n"))
    for charset in (*_SINGLE, "utf-16-le"):
        yield from _recoded(body, charset, "utf-8", charset)
        yield from _recoded(body, "utf-8", charset, charset)
    value = parsed(body)
    if not isinstance(value, dict):
        return
    for options in _WRITERS:
        try:
            form = json.dumps(value, **options).encode()
        except (UnicodeError, ValueError, RecursionError):
            continue
        for made in (form, form.replace(b"/", b"\\/")):
            if made != body:
                yield finding("body-reserialised", what=differences(made, body)), made


def _writers() -> Iterator[dict[str, Any]]:
    for separators, indent in (((",", ":"), None), ((", ", ": "), None), ((",", ": "), 2), ((",", ": "), 4)):
        for sort_keys in (False, True):
            for ensure_ascii in (False, True):
                yield {
                    "separators": separators,
                    "indent": indent,
                    "sort_keys": sort_keys,
                    "ensure_ascii": ensure_ascii,
                }


_WRITERS: Final = tuple(_writers())


def parsed(body: bytes) -> Any:
    """What a body says as JSON, whatever stands around it; None where it says nothing."""
    try:
        return json.loads(body.removeprefix(_BOM).decode())
    except (ValueError, RecursionError):
        return None


def _canonical(value: Any) -> bytes | None:
    try:
        return msgspec.json.encode(value)
    except (UnicodeError, ValueError, TypeError, RecursionError, msgspec.MsgspecError):
        return None


def _in_order(value: Any) -> Any:
    """The same with the event's own members in the node's order; those of a section stay as they are."""
    if not isinstance(value, dict):
        return value
    ranked = sorted(value, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    return {name: _in_order(value[name]) if name in ("data", "sealed") else value[name] for name in ranked}


def differences(body: bytes, original: bytes) -> str:
    """In which ways one JSON text is written otherwise than another that says the same."""
    found = []
    if _spaced(body) != _spaced(original):
        found.append("white space was added or taken away")
    escapes = any(body.count(sign) != original.count(sign) for sign in (b"\\u", b"\\/"))
    if escapes or body.isascii() != original.isascii():
        found.append("characters were escaped in another way")
    if _members(body) != _members(original):
        found.append("members came into another order, or were repeated")
    return ", ".join(found) or "numbers or texts are written in another way"


def _spaced(body: bytes) -> int:
    """How much white space stands outside of texts."""
    inside = escaped = False
    count = 0
    for byte in body:
        if inside:
            escaped, inside = byte == 0x5C and not escaped, escaped or byte != 0x22
        elif byte == 0x22:
            inside = True
        elif byte in _SPACES:
            count += 1
    return count


def _members(body: bytes) -> list[str]:
    """The names of all members, in the order in which they stand."""
    names: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names.append(" ".join(name for name, _ in pairs))
        return dict(pairs)

    try:
        json.loads(body.removeprefix(_BOM).decode(), object_pairs_hook=note)
    except (ValueError, RecursionError):
        return []
    return names


def _inflated(body: bytes, wbits: int) -> bytes | None:
    if body[:1] not in (b"\x1f", b"\x78"):
        return None
    stream = zlib.decompressobj(wbits)
    try:
        inflated = stream.decompress(body, MOST_BYTES)
    except zlib.error:
        return None
    return inflated if stream.eof else None


def looks(body: bytes, headers: Mapping[str, str]) -> Iterator[Finding]:
    """What is seen of a body without a signature that fits."""
    if not body:
        yield finding("body-empty")
        return
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 12 and len(body) < int(length):
        yield finding("body-cut", got=len(body), wanted=int(length))
        return
    if b"\xef\xbf\xbd" in body:
        yield finding("body-looks-recoded")
    value = parsed(body)
    if value is None:
        starts, ends = body.lstrip(_SPACES).startswith(b"{"), body.rstrip(_SPACES).endswith(b"}")
        yield finding("body-looks-cut" if starts and not ends else "body-not-json")
    elif isinstance(value, dict):
        canonical = _canonical(_in_order(value))
        if canonical is not None and canonical != body:
            yield finding("body-looks-reserialised", what=differences(body, canonical))
