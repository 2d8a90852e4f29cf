"""Webhooks, checked with the public library that receivers use."""

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from exchange.agency.errors import WebhookRefused
from exchange.agency.webhook import parse_webhook_key
from exchange.crypto.errors import SignatureError
from exchange.crypto.secret import Secret
from exchange.crypto.webhook_key import WebhookKey, verify_v1a
from exchange.node.webhook import answer_digest, event_body, new_secret, secret_id, signed_headers
from exchange.schema.events import SECTION_DELIVERED, section_event_id

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = WebhookKey(Secret(b"\x05" * 32))


def raw(public: str) -> bytes:
    return parse_webhook_key(public).key.reveal()


EVENT = section_event_id(b"\x01" * 32, "housing", "housing")
texts = st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.booleans() | st.none())


def now_s() -> int:
    """The public library looks at the wall clock."""
    return int(datetime.now(UTC).timestamp())


def body(data: dict[str, object], event_id: str = EVENT) -> bytes:
    at = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)
    return event_body(event_id, SECTION_DELIVERED, "exchange.enfield.example", "message/housing", at, data)


@given(texts)
def test_the_public_library_accepts_what_is_signed(data: dict[str, object]) -> None:
    secret, signed = new_secret(), body(data)
    verified = Webhook(secret).verify(signed, signed_headers([secret], KEY, EVENT, now_s(), signed))
    assert verified == json.loads(signed)
    assert verified["data"] == data


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_the_public_library_refuses_a_body_with_any_bit_changed(at: int, bit: int) -> None:
    signed = body({"message_id": "m"})
    headers = signed_headers([SECRET], KEY, EVENT, now_s(), signed)
    other = bytearray(signed)
    other[at % len(signed)] ^= 1 << bit
    with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
        Webhook(SECRET).verify(bytes(other), headers)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", section_event_id(b"\x01" * 32, "housing", "police")),
        ("webhook-timestamp", "1795449600"),
        ("webhook-signature", "v1," + base64.b64encode(bytes(32)).decode()),
        ("webhook-signature", ""),
    ],
)
def test_the_public_library_refuses_another_id_time_or_signature(header: str, value: str) -> None:
    signed = body({})
    headers = signed_headers([SECRET], KEY, EVENT, now_s(), signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(signed, headers | {header: value})


@pytest.mark.parametrize("ago_s", [-600, 600])
def test_the_public_library_refuses_what_was_not_signed_just_now(ago_s: int) -> None:
    signed = body({})
    with pytest.raises(WebhookVerificationError, match="timestamp"):
        Webhook(SECRET).verify(signed, signed_headers([SECRET], KEY, EVENT, now_s() - ago_s, signed))


def test_the_public_library_refuses_what_another_secret_signed() -> None:
    signed = body({})
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(signed, signed_headers([new_secret()], KEY, EVENT, now_s(), signed))


def test_a_secret_is_256_bits_as_standard_webhooks_writes_them() -> None:
    secret = new_secret()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_no_two_secrets_are_the_same() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


def test_the_body_is_a_cloudevent_whose_id_is_the_webhook_id() -> None:
    signed = body({"section": "housing"})
    headers = signed_headers([SECRET], KEY, EVENT, 1_795_449_600, signed)
    assert json.loads(signed) == {
        "specversion": "1.0",
        "id": headers["webhook-id"],
        "type": "exchange.section.delivered.v1",
        "source": "https://exchange.enfield.example",
        "subject": "message/housing",
        "time": "2026-11-23T16:00:00Z",
        "datacontenttype": "application/json",
        "data": {"section": "housing"},
    }
    assert headers["webhook-timestamp"] == "1795449600"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"


@given(st.binary(min_size=32, max_size=32), st.text(max_size=80), st.text(max_size=40))
def test_a_delivery_keeps_its_id_through_all_attempts(leaf: bytes, section: str, kind: str) -> None:
    assert section_event_id(leaf, section, kind) == section_event_id(leaf, section, kind)


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.text(), st.text()), min_size=2, unique=True))
def test_no_two_deliveries_share_an_id(deliveries: list[tuple[bytes, str, str]]) -> None:
    assert len({section_event_id(*delivery) for delivery in deliveries}) == len(deliveries)


def test_moving_a_letter_from_section_to_agency_gives_another_id() -> None:
    assert section_event_id(b"\x01" * 32, "a", "bc") != section_event_id(b"\x01" * 32, "ab", "c")


def test_of_two_secrets_each_verifies_by_itself() -> None:
    old, new, signed = new_secret(), new_secret(), body({"a": 1})
    headers = signed_headers([new, old], KEY, EVENT, now_s(), signed)
    assert [part.partition(",")[0] for part in headers["webhook-signature"].split(" ")] == ["v1", "v1", "v1a"]
    for secret in (old, new):
        assert Webhook(secret).verify(signed, headers)["id"] == EVENT
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(signed, headers)


def test_a_signature_of_the_node_alone_is_none_to_the_public_library() -> None:
    signed = body({})
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(signed, signed_headers([], KEY, EVENT, now_s(), signed))


def test_v1a_verifies_with_the_public_key_that_is_shown_and_with_no_other() -> None:
    signed = body({"section": "housing"})
    headers = signed_headers([SECRET], KEY, EVENT, 1_795_449_600, signed)
    version, _, signature = headers["webhook-signature"].split(" ")[-1].partition(",")
    assert version == "v1a"
    message = f"{EVENT}.1795449600.".encode() + signed
    verify_v1a(raw(KEY.public), message, base64.b64decode(signature))
    for public, other in [
        (WebhookKey.generate().public, message),
        (KEY.public, message + b" "),
        (KEY.public.removeprefix("whpk_"), message),
        ("whpk_" + base64.b64encode(bytes(31)).decode(), message),
    ]:
        with pytest.raises((SignatureError, WebhookRefused)):
            verify_v1a(raw(public), other, base64.b64decode(signature))


def test_the_signature_of_the_node_is_what_another_library_makes() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
    assert KEY.sign(b"message") == key.sign(b"message")
    raw = key.public_key().public_bytes_raw()
    assert KEY.public == "whpk_" + base64.b64encode(raw).decode()


def test_a_secret_has_a_name_of_its_own_that_no_webhook_says() -> None:
    names = {secret_id(new_secret()) for _ in range(100)}
    assert len(names) == 100
    signed = body({})
    headers = signed_headers([SECRET], KEY, EVENT, now_s(), signed)
    assert secret_id(SECRET) not in json.dumps(headers) + signed.decode()


def test_an_answer_is_told_from_another_only_with_the_secret() -> None:
    assert answer_digest(SECRET, b"a") != answer_digest(SECRET, b"b")
    assert answer_digest(SECRET, b"a") != answer_digest(new_secret(), b"a")
