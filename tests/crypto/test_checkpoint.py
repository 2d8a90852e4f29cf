import pytest
from nacl.signing import SigningKey

from exchange.crypto.checkpoint import Checkpoint, CheckpointCache, parse_checkpoint
from exchange.crypto.errors import CheckpointError, CryptoError, NoteError, SignatureError
from exchange.crypto.names import Origin
from exchange.crypto.note import NoteSignature, VerifierKey, format_note, parse_note
from exchange.crypto.signing import SigningKeys
from tests.crypto.keys import ENFIELD, HACKNEY, NOW_S, OTHER_SIGNING, SIGNING, VERIFIERS

ROOT = bytes(range(32))
TEXT = SIGNING.sign_checkpoint(HACKNEY, 7, ROOT, NOW_S)
SIGNED, (ED25519_LINE, MLDSA44_LINE) = parse_note(TEXT)


def test_a_signed_checkpoint_verifies() -> None:
    assert parse_checkpoint(TEXT, HACKNEY, VERIFIERS) == Checkpoint(HACKNEY, 7, ROOT, TEXT, NOW_S)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    witness = NoteSignature("witness.example", b"abcd", b"anything")
    same_name = NoteSignature(HACKNEY, b"abcd", b"anything")
    text = format_note(SIGNED, [witness, MLDSA44_LINE, same_name, ED25519_LINE])

    assert parse_checkpoint(text, HACKNEY, VERIFIERS).size == 7


@pytest.mark.parametrize(
    "lines",
    [
        [ED25519_LINE],
        [MLDSA44_LINE],
        [ED25519_LINE, ED25519_LINE],
        [ED25519_LINE, ED25519_LINE, MLDSA44_LINE],
        [ED25519_LINE, MLDSA44_LINE, MLDSA44_LINE],
        [ED25519_LINE, NoteSignature(HACKNEY, MLDSA44_LINE.key_id, b"short")],
        [ED25519_LINE, NoteSignature(HACKNEY, MLDSA44_LINE.key_id, MLDSA44_LINE.signature[8:])],
        [ED25519_LINE, NoteSignature(HACKNEY, MLDSA44_LINE.key_id, bytes(8) + MLDSA44_LINE.signature[8:])],
        [NoteSignature(HACKNEY, ED25519_LINE.key_id, bytes(64)), MLDSA44_LINE],
        [NoteSignature(HACKNEY, ED25519_LINE.key_id, MLDSA44_LINE.signature), MLDSA44_LINE],
        [NoteSignature(HACKNEY, MLDSA44_LINE.key_id, ED25519_LINE.signature), ED25519_LINE],
    ],
    ids=[
        "ml-dsa-44-stripped",
        "ed25519-stripped",
        "ed25519-twice-alone",
        "ed25519-doubled",
        "ml-dsa-44-doubled",
        "cosignature-short",
        "cosignature-without-time",
        "cosignature-of-another-time",
        "ed25519-zeros",
        "swapped-into-ed25519",
        "swapped-into-ml-dsa-44",
    ],
)
def test_both_signatures_must_be_there_once_and_verify(lines: list[NoteSignature]) -> None:
    with pytest.raises(SignatureError):
        parse_checkpoint(format_note(SIGNED, lines), HACKNEY, VERIFIERS)


def _mixed() -> list[tuple[VerifierKey, VerifierKey]]:
    first, second = VERIFIERS
    other_first, other_second = OTHER_SIGNING.verifiers(HACKNEY)
    return [(other_first, second), (first, other_second), (second, first), (first, first), (second, second)]


@pytest.mark.parametrize("keys", _mixed(), ids=["ed25519", "ml-dsa-44", "swapped", "ed25519-twice", "ml-dsa-44-twice"])
def test_other_keys_do_not_verify(keys: tuple[VerifierKey, VerifierKey]) -> None:
    with pytest.raises(SignatureError):
        parse_checkpoint(TEXT, HACKNEY, keys)


@pytest.mark.parametrize("mixed", [False, True])
def test_keys_of_another_name_do_not_verify(mixed: bool) -> None:
    # The right keys, and a log signed by them; but their name is that of another node.
    renamed = SIGNING.verifiers(ENFIELD)
    keys = (VERIFIERS[0], renamed[1]) if mixed else renamed

    for text in (
        TEXT,
        format_note(
            SIGNED,
            [
                NoteSignature(ENFIELD, key.key_id, line.signature)
                for key, line in zip(renamed, (ED25519_LINE, MLDSA44_LINE), strict=True)
            ],
        ),
    ):
        with pytest.raises(SignatureError):
            parse_checkpoint(text, HACKNEY, keys)


def _resigned(text: str) -> str:
    """Any text, signed by the right keys as far as Ed25519 goes."""
    signature = SigningKey(SIGNING.seeds()[0].reveal()).sign(text.encode()).signature
    return format_note(text, [NoteSignature(HACKNEY, VERIFIERS[0].key_id, signature), MLDSA44_LINE])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("exchange.hackney.example\n7", "exchange.hackney.example\n07"),
        ("exchange.hackney.example\n7", "exchange.hackney.example\n0"),
        ("exchange.hackney.example\n7", "exchange.hackney.example\n-7"),
        ("exchange.hackney.example\n7", "exchange.hackney.example\n\u0667"),
        ("exchange.hackney.example\n7", "exchange.hackney.example\n" + "9" * 17),
        ("exchange.hackney.example\n7", "exchange.enfield.example\n7"),
        ("=\n", "=\nextension\n"),
        ("exchange.hackney.example\n7\n", "exchange.hackney.example\n"),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "AAECAw=="),
    ],
    ids=["zero-led", "empty-log", "negative", "not-ascii", "too-great", "origin", "extension", "no-size", "short-root"],
)
def test_a_note_that_is_no_checkpoint_of_this_log_is_refused(old: str, new: str) -> None:
    assert SIGNED.count(old) == 1
    with pytest.raises(CheckpointError):
        parse_checkpoint(_resigned(SIGNED.replace(old, new)), HACKNEY, VERIFIERS)


def test_another_size_or_root_does_not_verify() -> None:
    for changed in (SIGNED.replace("\n7\n", "\n8\n"), SIGNED.replace("AAEC", "AAED")):
        with pytest.raises(SignatureError):
            parse_checkpoint(format_note(changed, [ED25519_LINE, MLDSA44_LINE]), HACKNEY, VERIFIERS)
        # Ed25519 alone does not carry it.
        with pytest.raises(SignatureError):
            parse_checkpoint(_resigned(changed), HACKNEY, VERIFIERS)


def test_no_character_of_a_checkpoint_can_be_changed() -> None:
    for at in range(0, len(TEXT), 7):
        changed = TEXT[:at] + ("A" if TEXT[at] != "A" else "B") + TEXT[at + 1 :]
        with pytest.raises(CryptoError):
            parse_checkpoint(changed, HACKNEY, VERIFIERS)


class _Counted(CheckpointCache):
    """A cache that tells how much it holds."""

    def __len__(self) -> int:
        return len(self._held)


def test_a_cached_checkpoint_is_the_same_object() -> None:
    cache = _Counted()

    assert cache.parse(TEXT, HACKNEY, VERIFIERS) is cache.parse(TEXT, HACKNEY, SIGNING.verifiers(HACKNEY))
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("origin", "keys"),
    [
        (HACKNEY, OTHER_SIGNING.verifiers(HACKNEY)),
        (HACKNEY, SIGNING.verifiers(ENFIELD)),
        (ENFIELD, VERIFIERS),
        (ENFIELD, SIGNING.verifiers(ENFIELD)),
    ],
    ids=["other-keys", "other-names", "other-origin", "other-node"],
)
def test_what_is_cached_verifies_under_nothing_else(origin: Origin, keys: tuple[VerifierKey, VerifierKey]) -> None:
    cache = CheckpointCache()
    cache.parse(TEXT, HACKNEY, VERIFIERS)

    with pytest.raises(CryptoError):
        cache.parse(TEXT, origin, keys)


def test_a_checkpoint_that_was_refused_is_not_cached() -> None:
    cache = _Counted()
    stripped = format_note(SIGNED, [ED25519_LINE])

    for _ in range(2):
        with pytest.raises(SignatureError):
            cache.parse(stripped, HACKNEY, VERIFIERS)
    assert len(cache) == 0


def test_a_cache_is_bounded_and_lets_the_oldest_go() -> None:
    cache = _Counted(most=2)
    texts = [SIGNING.sign_checkpoint(HACKNEY, size, ROOT, NOW_S) for size in (1, 2, 3)]
    held = [cache.parse(text, HACKNEY, VERIFIERS) for text in texts[:2]]
    cache.parse(texts[0], HACKNEY, VERIFIERS)
    cache.parse(texts[2], HACKNEY, VERIFIERS)

    assert len(cache) == 2
    assert cache.parse(texts[0], HACKNEY, VERIFIERS) is held[0]
    assert cache.parse(texts[1], HACKNEY, VERIFIERS) is not held[1]


def test_text_that_cannot_be_encoded_is_no_crash() -> None:
    with pytest.raises(NoteError):
        CheckpointCache().parse("\ud800", HACKNEY, VERIFIERS)


def test_a_checkpoint_of_other_keys_is_not_a_checkpoint_of_these() -> None:
    text = SigningKeys.generate().sign_checkpoint(HACKNEY, 7, ROOT, NOW_S)

    with pytest.raises(SignatureError):
        parse_checkpoint(text, HACKNEY, VERIFIERS)
