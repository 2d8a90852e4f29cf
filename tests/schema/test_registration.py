"""Invitations as text, and what crosses while nodes are registered."""

import base64
import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.schema.errors import InvitationInvalid, WireInvalid
from exchange.schema.registration import (
    FORMAT,
    LINK,
    MOST_INVITATION_BYTES,
    Invitation,
    PairingAnswer,
    PairingOffer,
    PairingReveal,
    Registration,
    RegistrationReply,
    invitation_link,
    pairing_answer_decoder,
    pairing_offer_decoder,
    pairing_reveal_decoder,
    parse_invitation,
    registration_decoder,
    registration_reply_decoder,
)
from exchange.schema.wire import VERSION, ProvenStatement, Wire, decode_wire, encode_wire

DIGITS = "0123456789abcdef"
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)
INVITATIONS = st.builds(
    Invitation,
    format=st.just(FORMAT),
    origin=PRINTABLE,
    url=PRINTABLE,
    fingerprint=st.text(DIGITS, min_size=64, max_size=64),
    id=st.text(DIGITS, min_size=32, max_size=32),
    secret=st.binary(min_size=32, max_size=32),
    expires_at=st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
ONE = Invitation(
    format=FORMAT,
    origin="exchange.hackney.example",
    url="https://exchange.hackney.example",
    fingerprint="ab" * 32,
    id="cd" * 16,
    secret=bytes(range(32)),
    expires_at=datetime(2026, 11, 25, 16, tzinfo=UTC),
)


@given(INVITATIONS)
def test_an_invitation_is_read_as_it_was_written(given_one: Invitation) -> None:
    link = invitation_link(given_one)

    assert link.startswith(LINK)
    assert " " not in link
    assert parse_invitation(link) == given_one
    assert parse_invitation(msgspec.json.encode(given_one).decode()) == given_one


def test_a_link_that_a_mail_program_has_broken_is_read() -> None:
    link = invitation_link(ONE)
    broken = "  " + "\r\n".join(link[at : at + 60] for at in range(0, len(link), 60)) + "\n"

    assert parse_invitation(broken) == ONE


@given(st.text(max_size=300))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    for tried in (text, LINK + text, json.dumps({"format": FORMAT, "origin": text})):
        with pytest.raises(InvitationInvalid):
            parse_invitation(tried)


@given(st.data())
def test_a_link_that_lost_a_part_is_refused(data: st.DataObject) -> None:
    link = invitation_link(ONE)
    start = data.draw(st.integers(0, len(link) - 1))
    end = data.draw(st.integers(start + 1, len(link)))

    with pytest.raises(InvitationInvalid):
        parse_invitation(link[:start] + link[end:])


@given(st.data())
def test_a_link_with_another_character_is_refused(data: st.DataObject) -> None:
    link = invitation_link(ONE)
    at = data.draw(st.integers(len(LINK), len(link) - 1))
    other = data.draw(st.characters(min_codepoint=0x21, max_codepoint=0x7E).filter(lambda found: found != link[at]))

    with pytest.raises(InvitationInvalid):
        parse_invitation(link[:at] + other + link[at + 1 :])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "exchange-invitation/2"),
        ("origin", ""),
        ("origin", "a" * 201),
        ("url", ""),
        ("url", "https://a\x1b[2J"),
        ("url", "https://a b"),
        ("fingerprint", "AB" * 32),
        ("fingerprint", "ab" * 31),
        ("id", "cd" * 16 + "\n"),
        ("secret", base64.b64encode(bytes(31)).decode()),
        ("secret", base64.b64encode(bytes(33)).decode()),
        ("expires_at", "2026-11-25T16:00:00"),
        ("expires_at", "2026-11-25T16:00:00+01:00"),
        ("expires_at", "9999-11-25T16:00:00Z"),
        ("more", "unknown"),
    ],
)
def test_an_invitation_with_a_field_that_does_not_fit_is_refused(field: str, value: str) -> None:
    document = json.loads(msgspec.json.encode(ONE))
    assert parse_invitation(json.dumps(document)) == ONE

    with pytest.raises(InvitationInvalid):
        parse_invitation(json.dumps(document | {field: value}))


@pytest.mark.parametrize("field", ["format", "origin", "url", "fingerprint", "id", "secret", "expires_at"])
def test_an_invitation_that_lacks_a_field_is_refused(field: str) -> None:
    document = json.loads(msgspec.json.encode(ONE))
    del document[field]

    with pytest.raises(InvitationInvalid):
        parse_invitation(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4000,
        "9" * MOST_INVITATION_BYTES,
        " " * MOST_INVITATION_BYTES + "x" * (MOST_INVITATION_BYTES + 1),
        LINK + "A" * MOST_INVITATION_BYTES,
        "\ud800",
        "\0",
    ],
    ids=["deep", "number", "long", "long link", "surrogate", "nul"],
)
def test_what_is_meant_to_do_harm_is_refused(text: str) -> None:
    with pytest.raises(InvitationInvalid):
        parse_invitation(text)


STRUCTS = [
    (
        registration_decoder,
        Registration(
            version=VERSION,
            invitation="cd" * 16,
            secret=bytes(32),
            card=ProvenStatement(statement=b"statement", proof="proof"),
            reply_secret=bytes(32),
        ),
    ),
    (registration_reply_decoder, RegistrationReply(version=VERSION, origin="a", verified=False)),
    (pairing_offer_decoder, PairingOffer(version=VERSION, fingerprint=bytes(32), commitment=bytes(32))),
    (pairing_answer_decoder, PairingAnswer(version=VERSION, nonce=bytes(32))),
    (pairing_reveal_decoder, PairingReveal(version=VERSION, commitment=bytes(32), nonce=bytes(32))),
]


@pytest.mark.parametrize(("decoder", "value"), STRUCTS, ids=lambda found: type(found).__name__)
def test_a_struct_has_one_encoding_and_nothing_else_is_read(
    decoder: msgspec.msgpack.Decoder[Wire], value: Wire
) -> None:
    data = encode_wire(value)
    fields = msgspec.msgpack.decode(data)

    assert decode_wire(decoder, data) == value
    bent = [
        b"",
        data[:-1],
        data + b"\0",
        msgspec.msgpack.encode(fields | {"version": 2}),
        msgspec.msgpack.encode(fields | {"more": 1}),
        msgspec.msgpack.encode(dict(reversed(fields.items()))),
        *(msgspec.msgpack.encode({name: fields[name] for name in fields if name != gone}) for gone in fields),
        *(msgspec.msgpack.encode(fields | {name: bytes(31)}) for name in fields),
    ]
    for other in bent:
        with pytest.raises(WireInvalid):
            decode_wire(decoder, other)


def test_an_invitation_fits_a_qr_code_and_one_call() -> None:
    long = msgspec.structs.replace(ONE, origin="a" * 200, url="https://" + "a" * 492)

    assert len(invitation_link(long)) < 2000 < MOST_INVITATION_BYTES
