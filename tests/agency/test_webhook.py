"""Who posted a webhook: checked against the public library, with several signatures, keys and schemes."""

import base64
from datetime import UTC, datetime

import pytest
from nacl.signing import SigningKey
from standardwebhooks.webhooks import Webhook

from exchange.agency.errors import WebhookRefused
from exchange.agency.webhook import WebhookKey, parse_webhook_key, verify_webhook

NOW_S = 1_795_449_600
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
ED25519 = SigningKey(b"\x01" * 32)
PUBLIC = "whpk_" + base64.b64encode(bytes(ED25519.verify_key)).decode()
ID, BODY = "evt_" + "0" * 32, b'{"a":1}'
KEYS = [parse_webhook_key(SECRET), parse_webhook_key(PUBLIC)]


def v1(secret: str = SECRET, at_s: int = NOW_S, body: bytes = BODY) -> str:
    return str(Webhook(secret).sign(ID, datetime.fromtimestamp(at_s, UTC), body.decode()))


def v1a(at_s: int = NOW_S, key: SigningKey = ED25519) -> str:
    signature = key.sign(f"{ID}.{at_s}.".encode() + BODY).signature
    return "v1a," + base64.b64encode(signature).decode()


def verify(signature: str, keys: list[WebhookKey] = KEYS, at_s: int = NOW_S, **changes: str) -> str:
    headers = {"webhook-id": ID, "webhook-timestamp": str(at_s), "webhook-signature": signature}
    return verify_webhook(
        headers | {name.replace("_", "-"): value for name, value in changes.items()}, BODY, keys, NOW_S
    )


@pytest.mark.parametrize(
    "signature",
    [
        v1(),
        v1a(),
        f"{v1(OTHER)} {v1()}",
        f"v2,AAAA {v1a()}",
        f"v1,*** {v1()}",
        f"{v1a(key=SigningKey(bytes(32)))} {v1()}",
    ],
)
def test_one_signature_that_holds_is_enough(signature: str) -> None:
    assert verify(signature) == ID


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "v1,",
        "v1",
        v1(OTHER),
        v1().replace("v1,", "v1a,"),
        v1a().replace("v1a,", "v1,"),
        v1(body=b"{}"),
        v1(at_s=NOW_S + 1),
        " ".join([*[v1(OTHER)] * 16, v1()]),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(signature: str) -> None:
    with pytest.raises(WebhookRefused):
        verify(signature)


@pytest.mark.parametrize("off_s", [-301, 301, -(10**6)])
def test_what_is_older_than_five_minutes_or_ahead_is_refused(off_s: int) -> None:
    assert verify(v1(at_s=NOW_S + 300), at_s=NOW_S + 300) == ID
    assert verify(v1(at_s=NOW_S - 300), at_s=NOW_S - 300) == ID
    with pytest.raises(WebhookRefused):
        verify(v1(at_s=NOW_S + off_s), at_s=NOW_S + off_s)


@pytest.mark.parametrize(
    "changes", [{"webhook_id": ""}, {"webhook_id": "evt_1"}, {"webhook_timestamp": "-1"}, {"webhook_timestamp": "٣"}]
)
def test_a_header_that_is_missing_or_bent_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(WebhookRefused):
        verify(v1(), **changes)


def test_without_a_key_nothing_is_proven() -> None:
    with pytest.raises(WebhookRefused):
        verify(v1(), keys=[])


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "whpk_AAAA", "whsec_***", SECRET.removeprefix("whsec_")])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        parse_webhook_key(text)
    assert not text or text not in str(refused.value)
