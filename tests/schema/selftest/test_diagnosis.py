"""What a diagnosis finds, by table; and that nothing is right which the public verifier refuses."""

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from exchange.crypto.secret import Secret
from exchange.crypto.webhook_key import WebhookKey
from exchange.node.webhook import event_body, signed_headers
from exchange.schema.selftest.diagnosis import Diagnosis, Known, Receiver, Sample, diagnose
from exchange.schema.selftest.findings import texts
from exchange.schema.selftest.headers import parse_headers

NOW_S = int(time.time())
AT = str(NOW_S)
ID = "evt_" + "0" * 31 + "a"
SECRET = "whsec_" + base64.b64encode(bytes(range(200, 232))).decode()
OLD = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
assert "+" in SECRET or "/" in SECRET
NODE_KEY = WebhookKey(Secret(bytes(32)))
KNOWN = Known((SECRET, OLD), NODE_KEY.public)
CONTENT = {"zebra": 1, "text": "Zoë & Siân's £5 <ŵ>/\u201cok\u201d", "list": [1, 2, {"b": None, "a": True}]}
BODY = event_body(
    ID,
    "exchange.section.delivered.v1",
    "exchange.enfield.example",
    "message/housing",
    datetime.fromtimestamp(NOW_S, UTC),
    {"message_id": "m", "section": "housing", "from": "a", "to": "b", "urgent": False, "content": CONTENT},
)
HEADERS = signed_headers([SECRET], NODE_KEY, ID, NOW_S, BODY)
VALUE = json.loads(BODY)
_DROPPED = SECRET[6:].rstrip("=").replace("+", "").replace("/", "")
RAW = base64.b64decode(SECRET.removeprefix("whsec_"))


def digest(body: bytes = BODY, key: bytes = RAW, signed: bytes | None = None) -> bytes:
    return hmac.new(key, f"{ID}.{AT}.".encode() + body if signed is None else signed, hashlib.sha256).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in HEADERS.items() if name not in names}


def found(headers: Any = None, body: bytes = BODY, **receiver: Any) -> list[str]:
    return [one.code for one in diagnosis(headers, body, **receiver).findings]


def diagnosis(
    headers: Any = None, body: bytes = BODY, now_s: float = NOW_S, known: Known = KNOWN, **receiver: Any
) -> Diagnosis:
    headers = HEADERS if headers is None else headers
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    return diagnose(pairs, body, known, Receiver(**receiver), now_s)


def test_a_webhook_as_it_was_sent_is_right() -> None:
    assert diagnosis().ok
    assert found() == ["right"]
    assert found(secret=SECRET) == ["right", "secret-right"]
    assert found(secret=SECRET.removeprefix("whsec_")) == ["right", "secret-right"]
    assert found({name.title(): value for name, value in HEADERS.items()}) == ["right"]


BODIES: dict[str, tuple[bytes, str]] = {
    "white space": (json.dumps(VALUE, ensure_ascii=False).encode(), "body-reserialised"),
    "indented": (json.dumps(VALUE, indent=2).encode(), "body-reserialised"),
    "escapes": (json.dumps(VALUE, separators=(",", ":")).encode(), "body-reserialised"),
    "escaped slashes": (BODY.replace(b"/", b"\\/"), "body-reserialised"),
    "key order": (
        json.dumps({name: VALUE[name] for name in sorted(VALUE)}, separators=(",", ":"), ensure_ascii=False).encode(),
        "body-reserialised",
    ),
    "line end": (BODY + b"\n", "body-spaces"),
    "line ends of Windows": (BODY + b"\r\n", "body-spaces"),
    "BOM": (b"\xef\xbb\xbf" + BODY, "body-bom"),
    "read as Latin-1": (BODY.decode("latin-1").encode(), "body-charset"),
    "written as Windows-1252": (event := BODY.replace("ŵ".encode(), b"w"), "no-fit"),
    "UTF-16": (BODY.decode().encode("utf-16"), "body-charset"),
    "gzip": (gzip.compress(BODY), "body-compressed"),
    "base64": (base64.b64encode(BODY), "body-base64"),
    "in a JSON string": (json.dumps(BODY.decode()).encode(), "body-quoted"),
    "cut": (BODY[:-40], "body-looks-cut"),
    "empty": (b"", "body-empty"),
    "unreadable signs": (BODY.decode("ascii", errors="replace").encode(), "body-looks-recoded"),
    "something else": (b"hello", "body-not-json"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_became_of_a_body_is_found(name: str) -> None:
    body, code = BODIES[name]
    assert code in found(body=body)
    assert not diagnosis(body=body).ok


def test_line_ends_that_were_changed_are_found() -> None:
    body = BODY.replace(b',"', b',\n"')
    headers = signed_headers([SECRET], None, ID, NOW_S, body)
    assert "body-crlf" in found(headers, body.replace(b"\n", b"\r\n"))


def test_a_sorted_copy_of_a_real_section_is_likely_to_be_a_copy() -> None:
    sorted_ = json.dumps(VALUE, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert found(body=sorted_) == ["body-looks-reserialised", "no-fit"]


def test_with_the_sample_known_any_change_is_told_apart() -> None:
    def told(body: bytes) -> list[str]:
        sample = Sample(NOW_S, BODY)
        said = diagnose(
            list(HEADERS.items()), body, KNOWN, Receiver(), NOW_S, lambda one: sample if one == ID else None
        )
        return [one.code for one in said.findings]

    assert told(BODY) == ["right"]
    assert told(json.dumps(VALUE, sort_keys=True).encode()) == ["body-reserialised"]
    assert told(BODY[:100]) == ["body-cut"]
    assert told(BODY + b"--boundary") == ["body-longer"]
    assert told(BODY.replace(b"zebra", b"zebru")) == ["body-other"]
    assert told(BODY + b"\n") == ["body-spaces"]


def test_a_length_that_does_not_fit_shows_that_the_body_was_cut() -> None:
    assert "body-cut" in found({**HEADERS, "content-length": str(len(BODY))}, BODY[:-7])


HEADER_CASES: dict[str, tuple[Any, list[str]]] = {
    "no id": (without("webhook-id"), ["header-missing"]),
    "no timestamp": (without("webhook-timestamp"), ["header-missing"]),
    "no signature": (without("webhook-signature"), ["header-missing"]),
    "underscores": ({name.replace("-", "_"): value for name, value in HEADERS.items()}, ["header-underscored"] * 3),
    "as in CGI": (
        {"HTTP_" + name.upper().replace("-", "_"): value for name, value in HEADERS.items()},
        ["header-underscored"] * 3,
    ),
    "another name": ({**without("webhook-id"), "X-Webhook-Id": ID}, ["header-renamed"]),
    "svix": ({**without("webhook-id"), "svix-id": ID}, ["header-renamed"]),
    "twice": ([*HEADERS.items(), ("webhook-id", ID)], ["header-twice"]),
    "joined": (HEADERS | {"webhook-id": f"{ID}, {ID}"}, ["header-twice"]),
    "another id": (HEADERS | {"webhook-id": "2f7f3c1d"}, ["id-altered"]),
    "capitals": (HEADERS | {"webhook-id": ID.upper()}, ["id-altered"]),
    "quotation marks": (HEADERS | {"webhook-id": f'"{ID}"'}, ["header-altered"]),
    "spaces": (HEADERS | {"webhook-timestamp": f" {AT}"}, ["header-altered"]),
    "milliseconds": (HEADERS | {"webhook-timestamp": f"{AT}000"}, ["timestamp-milliseconds"]),
    "decimals": (HEADERS | {"webhook-timestamp": f"{AT}.0"}, ["timestamp-altered"]),
    "as a date": (
        HEADERS | {"webhook-timestamp": datetime.fromtimestamp(NOW_S, UTC).isoformat()},
        ["timestamp-altered"],
    ),
    "scientific": (HEADERS | {"webhook-timestamp": f"{NOW_S / 1e9:.9f}e9"}, ["timestamp-altered"]),
    "v1a alone": (
        HEADERS | {"webhook-signature": HEADERS["webhook-signature"].split(" ")[1]},
        ["signature-v1-missing"],
    ),
    "v1a called v1": (
        HEADERS | {"webhook-signature": HEADERS["webhook-signature"].split(" ")[1].replace("v1a", "v1")},
        ["signature-v1a-as-v1"],
    ),
    "commas": (
        HEADERS | {"webhook-signature": HEADERS["webhook-signature"].replace(" ", ", ")},
        ["signature-altered"],
    ),
    "equals sign": (HEADERS | {"webhook-signature": f"v1={b64(digest())}"}, ["signature-altered"]),
    "no kind": (HEADERS | {"webhook-signature": b64(digest())}, ["signature-unnamed"]),
    "escapes": (
        HEADERS | {"webhook-signature": HEADERS["webhook-signature"].replace("=", "%3D").replace(",", "%2C")},
        ["signature-altered"],
    ),
    "no padding": (HEADERS | {"webhook-signature": f"v1,{b64(digest()).rstrip('=')}"}, ["signature-altered"]),
    "hexadecimal": (HEADERS | {"webhook-signature": f"v1,{digest().hex()}"}, ["signature-hex"]),
    "base64 of hexadecimal": (
        HEADERS | {"webhook-signature": f"v1,{b64(digest().hex().encode())}"},
        ["signature-base64-of-hex"],
    ),
    "encoded": (HEADERS | {"content-encoding": "gzip"}, ["body-encoding"]),
    "old secret": (signed_headers([OLD], None, ID, NOW_S, BODY), ["secret-old"]),
    "for another agency": (signed_headers([OTHER], NODE_KEY, ID, NOW_S, BODY), ["signed-for-another"]),
    "another secret": (signed_headers([OTHER], None, ID, NOW_S, BODY), ["no-fit"]),
}


@pytest.mark.parametrize("name", HEADER_CASES)
def test_what_became_of_headers_is_found(name: str) -> None:
    headers, codes = HEADER_CASES[name]
    assert [code for code in found(headers) if code not in ("right", "no-fit") or code in codes] == codes


def test_signs_that_a_form_decoding_took_from_a_signature_are_found() -> None:
    secret = next(
        made
        for number in range(100)
        if "+"
        in signed_headers([made := f"whsec_{b64(bytes([number]) * 32)}"], None, ID, NOW_S, BODY)["webhook-signature"]
    )
    headers = signed_headers([secret], None, ID, NOW_S, BODY)
    spaced = headers | {"webhook-signature": headers["webhook-signature"].replace("+", " ")}
    said = diagnose(list(spaced.items()), BODY, Known((secret,)), Receiver(), NOW_S)
    assert [one.code for one in said.findings] == ["signature-altered"]


COMPUTED: dict[str, tuple[str, list[str]]] = {
    "right": (b64(digest()), ["computed-right"]),
    "right, with its kind": (f"v1,{b64(digest())}", ["computed-right"]),
    "prefix left on": (b64(digest(key=SECRET.encode())), ["key-text"]),
    "not decoded": (b64(digest(key=SECRET.removeprefix("whsec_").encode())), ["key-not-decoded"]),
    "prefix decoded in Python": (b64(digest(key=base64.b64decode(SECRET + "==="))), ["key-prefix-decoded"]),
    "URL-safe alphabet": (
        b64(digest(key=base64.b64decode(_DROPPED[: len(_DROPPED) // 4 * 4]))),
        ["key-urlsafe"],
    ),
    "line end of a file": (b64(digest(key=f"{SECRET}\n".encode())), ["key-line-end"]),
    "hexadecimal key": (b64(digest(key=RAW.hex().encode())), ["key-hex"]),
    "public key": (b64(digest(key=base64.b64decode(NODE_KEY.public[5:]))), ["key-public"]),
    "old secret": (b64(digest(key=base64.b64decode(OLD[6:]))), ["secret-old"]),
    "hex digest": (digest().hex(), ["signature-hex"]),
    "base64 of hex digest": (b64(digest().hex().encode()), ["signature-base64-of-hex"]),
    "body alone": (b64(digest(signed=BODY)), ["parts-body"]),
    "no id": (b64(digest(signed=f"{AT}.".encode() + BODY)), ["parts-timestamp-body"]),
    "no timestamp": (b64(digest(signed=f"{ID}.".encode() + BODY)), ["parts-id-body"]),
    "turned round": (b64(digest(signed=f"{AT}.{ID}.".encode() + BODY)), ["parts-order"]),
    "no full stops": (b64(digest(signed=f"{ID}{AT}".encode() + BODY)), ["parts-no-stops"]),
    "parsed by Python": (b64(digest(json.dumps(VALUE).encode())), ["body-reserialised"]),
    "sorted": (b64(digest(json.dumps(VALUE, sort_keys=True).encode())), ["body-reserialised"]),
    "indented": (b64(digest(json.dumps(VALUE, indent=2, ensure_ascii=False).encode())), ["body-reserialised"]),
    "line end": (b64(digest(BODY + b"\n")), ["body-spaces"]),
    "empty": (b64(digest(b"")), ["body-empty"]),
    "Latin-1": (b64(digest(BODY.decode("latin-1").encode())), ["body-charset"]),
    "two mistakes": (
        b64(digest(json.dumps(VALUE).encode(), key=SECRET.encode()).hex().encode()),
        ["signature-base64-of-hex", "key-text", "body-reserialised"],
    ),
    "nonsense": (b64(bytes(32)), ["computed-other"]),
    "no signature": ("hello", ["computed-other"]),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_the_receivers_code_does_is_found_by_what_it_computes(name: str) -> None:
    computed, codes = COMPUTED[name]
    assert [code for code in found(computed=computed) if code != "right"] == codes


SECRETS: dict[str, tuple[str, str]] = {
    "old": (OLD, "secret-is-old"),
    "line end": (f"{SECRET}\n", "secret-spaces"),
    "quotation marks": (f'"{SECRET}"', "secret-spaces"),
    "URL-safe": (SECRET[:6] + SECRET[6:].replace("+", "-").replace("/", "_"), "secret-urlsafe"),
    "hexadecimal": (RAW.hex(), "secret-hex"),
    "cut": (SECRET[:-3], "secret-cut"),
    "without padding": (SECRET.rstrip("="), "secret-cut"),
    "capitals": (SECRET.upper(), "secret-case"),
    "public key": (NODE_KEY.public, "secret-public"),
    "another": (OTHER, "secret-unknown"),
    "half": (SECRET[:25], "secret-unknown"),
    "nothing": ("", "secret-unknown"),
    "a lone surrogate": ("\ud800", "secret-unknown"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_what_somebody_takes_for_the_secret_is_found(name: str) -> None:
    secret, code = SECRETS[name]
    assert code in found(secret=secret)
    assert not diagnosis(secret=secret).ok


def test_a_webhook_of_another_node_fits_the_secret_that_was_given() -> None:
    assert found(signed_headers([OTHER], None, ID, NOW_S, BODY), secret=OTHER) == ["secret-other", "secret-unknown"]


CLOCKS: list[tuple[int, str, list[str]]] = [
    (0, "", ["right"]),
    (299, "", ["right"]),
    (-299, "", ["right"]),
    (7 * 60, "7 minutes ahead", ["clock-ahead"]),
    (-7 * 60, "7 minutes behind", ["clock-behind"]),
    (3600, "60 minutes ahead", ["clock-ahead", "clock-zone"]),
    (-5 * 3600, "5 hours behind", ["clock-behind", "clock-zone"]),
    (40 * 86400, "40 days ahead", ["clock-ahead"]),
]


@pytest.mark.parametrize(("off_s", "how_long", "codes"), CLOCKS)
def test_a_clock_that_is_off_is_told_with_the_side(off_s: int, how_long: str, codes: list[str]) -> None:
    said = diagnosis(clock_s=NOW_S + off_s)
    assert [one.code for one in said.findings] == codes
    assert said.ok == (codes == ["right"])
    assert said.ok or how_long in said.findings[0].message


def test_what_is_given_long_after_it_came_is_called_old_and_not_wrong() -> None:
    said = diagnosis(now_s=NOW_S + 3600)
    assert [one.code for one in said.findings] == ["right-but-old"]
    assert not said.ok
    assert found(now_s=NOW_S - 3600) == ["timestamp-ahead"]


def test_every_finding_is_shown_here() -> None:
    shown = {code for _, code in [*BODIES.values(), *SECRETS.values()]}
    lists = [codes for _, codes in [*HEADER_CASES.values(), *COMPUTED.values()]] + [codes for *_, codes in CLOCKS]
    shown |= {code for codes in lists for code in codes}
    shown |= {"secret-right", "secret-other", "right-but-old", "timestamp-ahead", "timestamp-not-that", "body-crlf"}
    shown |= {"body-looks-reserialised", "body-cut", "body-longer", "body-other"}
    assert set(texts()) == shown


def test_the_timestamp_of_a_sample_is_known_whatever_came() -> None:
    sample = Sample(NOW_S, BODY)
    said = diagnose(
        list((HEADERS | {"webhook-timestamp": str(NOW_S + 60)}).items()),
        BODY,
        KNOWN,
        Receiver(),
        NOW_S,
        lambda _: sample,
    )
    assert [one.code for one in said.findings] == ["timestamp-not-that"]


def test_headers_are_read_as_people_paste_them() -> None:
    assert parse_headers(f"POST /hook HTTP/1.1\r\nHost: x\r\n> webhook-id: {ID}\r\n\r\nwebhook-timestamp:{AT}") == [
        ("Host", "x"),
        ("webhook-id", ID),
        ("webhook-timestamp", AT),
    ]
    assert parse_headers(json.dumps({"webhook-id": ID, "a": ["1", 2]})) == [("webhook-id", ID), ("a", "1"), ("a", "2")]
    assert parse_headers("{") == []


# Nothing is right that the public verifier refuses.


def _change_byte(body: bytes, at: int, byte: int) -> bytes:
    at %= len(body) + 1
    return body[:at] + bytes([byte]) + body[at + 1 :]


_CHANGES: list[Callable[[dict[str, str], bytes, int, int], tuple[dict[str, str], bytes]]] = [
    lambda headers, body, at, byte: (headers, _change_byte(body, at, byte)),
    lambda headers, body, at, byte: (headers, body[: at % (len(body) + 1)]),
    lambda headers, body, at, byte: (headers, body + bytes([byte])),
    lambda headers, body, at, byte: (headers, b"\xef\xbb\xbf" + body),
    lambda headers, body, at, byte: (headers | {"webhook-timestamp": str(NOW_S + at - 3000)}, body),
    lambda headers, body, at, byte: (headers | {"webhook-timestamp": f"0{NOW_S}"}, body),
    lambda headers, body, at, byte: (headers | {"webhook-id": headers["webhook-id"] + chr(byte)}, body),
    lambda headers, body, at, byte: (headers | {"webhook-signature": f"v1 {headers['webhook-signature']}"}, body),
    lambda headers, body, at, byte: (headers | {"webhook-signature": f"v1,!{headers['webhook-signature']}"}, body),
    lambda headers, body, at, byte: (headers | {"webhook-signature": f"v1,A {headers['webhook-signature']}"}, body),
    lambda headers, body, at, byte: (
        headers
        | {"webhook-signature": _change_byte(headers["webhook-signature"].encode(), at, byte).decode("latin-1")},
        body,
    ),
    lambda headers, body, at, byte: ({name.replace("-", "_"): value for name, value in headers.items()}, body),
    lambda headers, body, at, byte: ({name.upper(): value for name, value in headers.items()}, body),
]


@given(
    st.lists(st.tuples(st.sampled_from(_CHANGES), st.integers(0, 6000), st.integers(0, 255)), max_size=2),
    st.sampled_from([BODY, b'{"id":1}', b"[]", b"text", b'"a"', b"1", b"\xff", b"NaN", b"[NaN]", b"{}", b""]),
    st.sampled_from([[SECRET], [SECRET, OLD], [OLD], [OTHER], []]),
    st.sampled_from([None, SECRET, OLD, SECRET[6:], f"{SECRET} ", SECRET.rstrip("=")]),
)
def test_nothing_is_right_that_the_public_verifier_refuses(
    changes: list[tuple[Any, int, int]], body: bytes, by: list[str], secret: str | None
) -> None:
    now_s = int(time.time())
    headers = signed_headers(by, NODE_KEY, ID, now_s, body)
    for change, at, byte in changes:
        with contextlib.suppress(KeyError):
            headers, body = change(headers, body, at, byte)
    said = diagnose(list(headers.items()), body, KNOWN, Receiver(secret), now_s)
    if not said.ok:
        assert all(one.code != "right" for one in said.findings)
        return
    assert said.findings[0].code == "right"
    try:
        Webhook(secret or SECRET).verify(body, headers)
    except (WebhookVerificationError, ValueError) as error:
        raise AssertionError(f"the verifier refuses what was called right: {error}") from error


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=120))), st.binary(max_size=300), st.text(), st.text())
def test_whatever_is_given_is_answered(headers: list[tuple[str, str]], body: bytes, secret: str, computed: str) -> None:
    said = diagnose(headers, body, KNOWN, Receiver(secret, computed), NOW_S)
    assert said.findings
    assert not said.ok
