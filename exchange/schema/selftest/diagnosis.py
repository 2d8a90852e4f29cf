"""The search: which changes, as few as possible, lead from what came to what was signed.

* Each part of a signature (id, timestamp, body, key, how they are joined) has a list of forms: first what it is, then
  what it may have been. What fits with the fewest changes is what happened, and the changes are the findings.
* `right` means that a public verifier with that secret takes the request at that time, and nothing less.
* The node's own signatures tell what happened on the way; the one that the receiver computed tells what its code does.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import msgspec

from exchange.crypto.errors import SignatureError
from exchange.crypto.webhook_key import PUBLIC_PREFIX, verify_v1a
from exchange.schema.selftest.bodies import looks, parsed, signed_forms, written_forms
from exchange.schema.selftest.findings import Finding, finding
from exchange.schema.selftest.headers import (
    ID,
    NAMES,
    SIGNATURE,
    TIMESTAMP,
    Pairs,
    id_forms,
    read_header,
    timestamp_forms,
)
from exchange.schema.selftest.keys import compare_secret, key_forms, key_of
from exchange.schema.selftest.signatures import Signature, is_well_formed, read_computed, read_signatures

#: How far a receiver's clock may be from the timestamp: what the public verifiers allow.
TOLERANCE_S: Final = 300
_HOUR_S: Final = 3600
#: Changes that are looked for together; one only in a large body, which takes longer to hash.
_MOST_CHANGES: Final = 3
_LARGE: Final = 16 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """What the node knows of an agency's webhooks: its secrets, the one in force first, and its own public key."""

    secrets: tuple[str, ...]
    public_key: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Receiver:
    """What the receiver says of itself: what it takes for the secret, what it computes, what its clock showed."""

    secret: str | None = None
    computed: str | None = None
    clock_s: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Sample:
    """What the node sent, where it is known: a synthetic event."""

    timestamp_s: int
    body: bytes


class Diagnosis(msgspec.Struct, frozen=True):
    """What was found; `ok` if a verifier takes it."""

    ok: bool
    findings: tuple[Finding, ...]


_Form = tuple[tuple[Finding, ...], Any]
_Join = Callable[[str, str, bytes], bytes]
#: How id, timestamp and body may have been put together; the first is how it is done.
_JOINS: Final[tuple[tuple[str | None, _Join], ...]] = (
    (None, lambda id_, at, body: f"{id_}.{at}.".encode(errors="surrogatepass") + body),
    ("parts-body", lambda id_, at, body: body),
    ("parts-timestamp-body", lambda id_, at, body: f"{at}.".encode(errors="surrogatepass") + body),
    ("parts-id-body", lambda id_, at, body: f"{id_}.".encode(errors="surrogatepass") + body),
    ("parts-order", lambda id_, at, body: f"{at}.{id_}.".encode(errors="surrogatepass") + body),
    ("parts-no-stops", lambda id_, at, body: f"{id_}{at}".encode(errors="surrogatepass") + body),
)


def diagnose(
    headers: Pairs,
    body: bytes,
    known: Known,
    receiver: Receiver,
    now_s: float,
    sample_of: Callable[[str], Sample | None] = lambda event_id: None,
) -> Diagnosis:
    """Say what is wrong with a webhook as a receiver got it; `sample_of` gives the synthetic event of an id."""
    said = [] if receiver.secret is None else [compare_secret(receiver.secret, known.secrets, known.public_key)]
    read = {name: read_header(pairs=headers, name=name) for name in NAMES}
    seen = [found for header in read.values() for found in header.found]
    value = parsed(body)
    in_body = value.get("id") if isinstance(value, dict) else None
    ids = _distinct(id_forms(read[ID].value, in_body))
    sample = next((found for _, id_ in ids if (found := sample_of(id_)) is not None), None)
    parts = _Parts(
        ids,
        _distinct(timestamp_forms(read[TIMESTAMP].value, sample.timestamp_s if sample else None)),
        body,
        _distinct(_bodies(signed_forms(body, sample.body if sample else None), body)),
        _keys(known, receiver),
    )
    signatures = read_signatures(read[SIGNATURE].value) if read[SIGNATURE].value else []
    fit = _fit(signatures, parts, known.public_key)
    if fit is not None:
        seen += fit.findings
    elif signatures:
        seen += [*looks(body, {name.lower(): text for name, text in headers}), finding("no-fit")]
    elif not body:
        seen.append(finding("body-empty"))
    if any(one.scheme == "v1a" for one in signatures) and not any(one.scheme == "v1" for one in signatures):
        seen.append(finding("signature-v1-missing"))
    at = fit.timestamp if fit is not None else read[TIMESTAMP].value
    clocks = list(_clocks(at, receiver.clock_s, now_s))
    if receiver.computed is not None:
        seen += _computed(receiver.computed, parts, fit)
    encoding = next((text for name, text in headers if name.lower() == "content-encoding"), "identity")
    if encoding.lower() in ("gzip", "deflate", "br", "zstd") and not any(one.code == "body-compressed" for one in seen):
        seen.append(finding("body-encoding", how=encoding.lower()))
    good = fit is not None and not any(one.kind == "wrong" for one in [*said, *seen, *clocks])
    if good and not _accepts(read[SIGNATURE].value or "", at or "", body):
        good = False
        seen.append(finding("body-not-json" if is_well_formed(read[SIGNATURE].value or "") else "signature-altered"))
    old = receiver.clock_s is None and _age_s(at, now_s) > TOLERANCE_S
    if good:
        verdict = finding("right-but-old", long=_long(_age_s(at, now_s))) if old else finding("right")
        seen.insert(0, verdict)
    return Diagnosis(good and not old, tuple(dict.fromkeys([*seen, *clocks, *said])))


@dataclass(frozen=True, slots=True)
class _Parts:
    ids: list[_Form]
    timestamps: list[_Form]
    body: bytes
    bodies: list[_Form]
    keys: list[_Form]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Under which changes a signature holds."""

    findings: tuple[Finding, ...]
    id: str
    timestamp: str
    body: bytes


def _bodies(forms: Iterable[tuple[Finding, bytes]], body: bytes) -> Iterator[_Form]:
    yield (), body
    yield from (((found,), form) for found, form in forms)


def _distinct(forms: Iterable[_Form]) -> list[_Form]:
    first: dict[Any, tuple[Finding, ...]] = {}
    for found, form in forms:
        first.setdefault(form, found)
    return [(found, form) for form, found in first.items()]


def _keys(known: Known, receiver: Receiver) -> list[_Form]:
    forms: list[_Form] = []
    for number, secret in enumerate(known.secrets):
        which = () if number == 0 else (finding("secret-old"),)
        forms += [((*which, *found), key) for found, key in key_forms(secret, known.public_key)]
    if receiver.secret is not None:
        other = (finding("secret-other"),) if known.secrets else ()
        forms += [((*other, *found), key) for found, key in key_forms(receiver.secret.strip(), None)]
    return _distinct((found, key) for found, key in forms if key)


def _fit(signatures: Sequence[Signature], parts: _Parts, public_key: str | None) -> _Fit | None:
    """How the signatures of a header hold."""
    digests: list[_Form] = [(one.found, one.value) for one in signatures if one.scheme == "v1" and len(one.value) == 32]
    fit = _search(digests, parts)
    if fit is not None or public_key is None:
        return fit
    raw = key_of(public_key.removeprefix(PUBLIC_PREFIX))
    for one in signatures:
        if len(one.value) != 64:
            continue
        for (ids, id_), (ats, at), (bodies, body) in product(parts.ids, parts.timestamps, parts.bodies):
            try:
                verify_v1a(raw, _JOINS[0][1](id_, at, body), one.value)
            except SignatureError:
                continue
            # The node's key signs for every agency: that it holds does not make the secret's signature right.
            also: tuple[Finding, ...] = (finding("signed-for-another"),) if digests else ()
            if one.scheme == "v1":
                also = (finding("signature-v1a-as-v1"),)
            return _Fit((*one.found, *ids, *ats, *bodies, *also), id_, at, body)
    return None


def _search(wanted: Sequence[_Form], parts: _Parts) -> _Fit | None:
    """The fewest changes under which one of the digests comes out."""
    if not wanted:
        return None
    found_of: dict[bytes, tuple[Finding, ...]] = {}
    for found, digest in wanted:
        found_of.setdefault(digest, found)
    joins: list[_Form] = [(() if code is None else (finding(code),), join) for code, join in _JOINS]
    dimensions = (parts.keys, parts.bodies, parts.ids, parts.timestamps, joins)
    most = _MOST_CHANGES if len(parts.body) <= _LARGE else 1
    choices = [one for one in product(*(range(len(forms)) for forms in dimensions)) if _changes(one) <= most]
    for choice in sorted(choices, key=_changes):
        (keys, key), (bodies, body), (ids, id_), (ats, at), (how, join) = (
            forms[at_] for forms, at_ in zip(dimensions, choice, strict=True)
        )
        digest = hmac.new(key, join(id_, at, body), hashlib.sha256).digest()
        if digest in found_of:
            return _Fit((*found_of[digest], *keys, *bodies, *ids, *ats, *how), id_, at, body)
    return None


def _changes(choice: tuple[int, ...]) -> int:
    return sum(1 for at in choice if at)


def _computed(text: str, parts: _Parts, fit: _Fit | None) -> list[Finding]:
    """What the receiver's code does, by what it computed."""
    body = fit.body if fit is not None else parts.body
    bodies = _distinct([*_bodies(written_forms(body), body), *_bodies(signed_forms(parts.body), parts.body)])
    ids = [((), fit.id), *parts.ids] if fit is not None else parts.ids
    ats = [((), fit.timestamp), *parts.timestamps] if fit is not None else parts.timestamps
    wanted: list[_Form] = [(one.found, one.value) for one in read_computed(text) if len(one.value) == 32]
    found = _search(wanted, _Parts(_distinct(ids), _distinct(ats), parts.body, bodies, parts.keys))
    if found is None:
        return [finding("computed-other")]
    return list(found.findings) or [finding("computed-right")]


def _accepts(signature: str, timestamp: str, body: bytes) -> bool:
    """Whether the public verifiers get as far as to compare, and take the body."""
    return (
        is_well_formed(signature)
        and timestamp.isascii()
        and timestamp.isdigit()
        and str(int(timestamp)) == timestamp
        and parsed(body) is not None
        and body[:1] in b"{["
    )


def _seconds(timestamp: str | None) -> int | None:
    if timestamp is None or not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
        return None
    return int(timestamp)


def _age_s(timestamp: str | None, now_s: float) -> float:
    at = _seconds(timestamp)
    return 0.0 if at is None else now_s - at


def _clocks(timestamp: str | None, clock_s: float | None, now_s: float) -> Iterator[Finding]:
    at = _seconds(timestamp)
    if at is None:
        return
    if clock_s is None:
        if at - now_s > TOLERANCE_S:
            yield finding("timestamp-ahead", long=_long(at - now_s))
        return
    off_s = clock_s - at
    if abs(off_s) <= TOLERANCE_S:
        return
    yield finding("clock-ahead" if off_s > 0 else "clock-behind", long=_long(off_s))
    if abs(off_s - round(off_s / _HOUR_S) * _HOUR_S) <= TOLERANCE_S and abs(off_s) < 15 * _HOUR_S:
        yield finding("clock-zone")


def _long(seconds: float) -> str:
    """So many minutes, hours or days: whichever a person would say."""
    minutes = abs(seconds) / 60
    for size, name, most in ((1, "minutes", 120), (60, "hours", 48 * 60)):
        if minutes < most:
            return f"{round(minutes / size)} {name}"
    return f"{round(minutes / 1440)} days"
