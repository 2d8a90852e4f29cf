import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.errors import NoteError
from exchange.crypto.note import (
    ED25519,
    MAX_SIGNATURES,
    NoteSignature,
    VerifierKey,
    decode_base64,
    format_note,
    parse_note,
    parse_vkey,
)
from exchange.crypto.signing import verify_ed25519
from tests.crypto.keys import VERIFIERS

# The example of Go's golang.org/x/mod/sumdb/note, which the C2SP specification grew from.
KNOWN_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
KNOWN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNATURE = NoteSignature("a.example", b"\x00\x01\x02\x03", b"signature")
NOTE = format_note("text\n", [SIGNATURE])

names = st.from_regex(r"[a-z0-9.]{1,20}", fullmatch=True)
signatures = st.builds(NoteSignature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=70))
texts = st.lists(st.text(st.characters(min_codepoint=0x20, codec="utf-8"), min_size=1), min_size=1, max_size=5)


def test_the_well_known_note_parses_and_verifies() -> None:
    key = parse_vkey(KNOWN_VKEY)
    text, (signature,) = parse_note(KNOWN_NOTE)

    assert key.text() == KNOWN_VKEY
    assert (signature.name, signature.key_id) == (key.name, key.key_id)
    verify_ed25519(key, signature.signature, text.encode())
    assert format_note(text, [signature]) == KNOWN_NOTE


@given(texts, st.lists(signatures, min_size=1, max_size=MAX_SIGNATURES))
def test_what_is_formatted_is_parsed(lines: list[str], signed: list[NoteSignature]) -> None:
    text = "".join(f"{line}\n" for line in lines)

    assert parse_note(format_note(text, signed)) == (text, signed)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE + "more\n",
        NOTE.replace("\u2014 ", "- "),
        NOTE.replace("\u2014 ", "\u2014"),
        NOTE.replace("a.example", "a example"),
        NOTE.replace("a.example", "a+example"),
        NOTE.replace("text", "te\x00xt"),
        NOTE.replace("text", "te\rxt"),
        format_note("text\n", [NoteSignature("a.example", b"\x00\x01\x02\x03", b"")]),
        format_note("text\n", [SIGNATURE] * (MAX_SIGNATURES + 1)),
        format_note("x" * 70_000 + "\n", [SIGNATURE]),
    ],
    ids=[
        "empty",
        "unsigned",
        "no-signature-line",
        "no-last-newline",
        "empty-line-at-the-end",
        "line-at-the-end",
        "hyphen",
        "no-space",
        "space-in-name",
        "plus-in-name",
        "nul",
        "carriage-return",
        "empty-signature",
        "too-many-signatures",
        "too-long",
    ],
)
def test_what_is_not_a_signed_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        parse_note(note)


@pytest.mark.parametrize("key", VERIFIERS, ids=["ed25519", "ml-dsa-44"])
def test_a_vkey_round_trips(key: VerifierKey) -> None:
    assert parse_vkey(key.text()) == key


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _vkey(name: str, algorithm: int, public: bytes) -> str:
    return VerifierKey(name, algorithm, public).text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+00000000",
        _vkey("", ED25519, bytes(32)),
        _vkey("a b", ED25519, bytes(32)),
        _vkey("a\nb", ED25519, bytes(32)),
        _vkey("\u0430", ED25519, bytes(32)),
        _vkey("a", 0x02, bytes(32)),
        _vkey("a", ED25519, bytes(31)),
        _vkey("a", 0x06, bytes(1311)),
        KNOWN_VKEY.replace("c74f20a3", "c74f20a4"),
        KNOWN_VKEY.replace("c74f20a3", "C74F20A3"),
        KNOWN_VKEY.replace("PeterNeumann", "PeterNeuman"),
        KNOWN_VKEY + "\n",
        KNOWN_VKEY[:-1],
        "\ud800+00000000+" + _encoded(b"\x01" + bytes(32)),
        "a+00000000+",
    ],
)
def test_what_is_not_a_vkey_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_vkey(text)


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ==\n", "Q Q==", "QQ=", "-_==", "\u00e9A=="])
def test_only_canonical_base64_is_decoded(text: str) -> None:
    with pytest.raises(NoteError):
        decode_base64(text)
