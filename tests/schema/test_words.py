"""What an agency says of a section: who can read which part of it, and what does not open."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.names import MessageId, Origin
from exchange.crypto.sealing import SealingPrivateKey
from exchange.schema.errors import WordsInvalid
from exchange.schema.wire import Rung, Words
from exchange.schema.words import Bond, Holder, Said, ciphertexts_of, open_words, seal_words

NODE, COUNTERPART, STRANGER = (SealingPrivateKey.generate() for _ in range(3))
BOND = Bond(
    MessageId("0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"),
    Origin("exchange.enfield.example"),
    Origin("exchange.hackney.example"),
)
ANA = Holder(name="Ana Fictitious", role="Housing officer", contact="020 7946 0000")
OWNED = Said(holder=ANA, note="Keys are at the desk.")
QUERIED = Said(question="Which flat?")
REDIRECTED = Said(reason="He lives in Barnet now.")


def keyring(*keys: SealingPrivateKey) -> dict[bytes, SealingPrivateKey]:
    return {key.public.key_id: key for key in keys}


def sealed(said: Said, rung: Rung, *, counterpart: bool) -> tuple[Words, tuple[bytes, ...]]:
    return seal_words(said, rung, BOND, NODE.public, COUNTERPART.public if counterpart else None)


@pytest.mark.parametrize(
    ("said", "rung"), [(OWNED, Rung.OWNED), (QUERIED, Rung.QUERIED), (REDIRECTED, Rung.REDIRECTED)]
)
def test_without_a_key_of_the_counterpart_the_sending_node_reads_everything(said: Said, rung: Rung) -> None:
    words, ciphertexts = sealed(said, rung, counterpart=False)
    assert open_words(words, ciphertexts, keyring(NODE), BOND) == said
    assert open_words(words, ciphertexts, keyring(STRANGER), BOND) == Said()


def test_the_sending_node_reads_who_holds_it_and_the_counterpart_alone_reads_the_rest() -> None:
    words, ciphertexts = sealed(OWNED, Rung.OWNED, counterpart=True)
    assert open_words(words, ciphertexts, keyring(NODE), BOND) == Said(holder=ANA)
    assert open_words(words, ciphertexts, keyring(COUNTERPART), BOND) == OWNED
    words, ciphertexts = sealed(QUERIED, Rung.QUERIED, counterpart=True)
    assert open_words(words, ciphertexts, keyring(NODE), BOND) == Said()
    assert open_words(words, ciphertexts, keyring(COUNTERPART), BOND) == QUERIED


@pytest.mark.parametrize(
    ("said", "rung"),
    [
        (Said(), Rung.OWNED),
        (Said(note="Only a note"), Rung.OWNED),
        (Said(holder=ANA), Rung.QUERIED),
        (Said(question="Why?", note="a note"), Rung.QUERIED),
        (Said(question="Why?"), Rung.REDIRECTED),
    ],
)
def test_what_is_not_said_of_a_rung_is_refused(said: Said, rung: Rung) -> None:
    with pytest.raises(WordsInvalid):
        seal_words(said, rung, BOND, NODE.public, None)


@pytest.mark.parametrize("bent", range(3))
def test_words_open_for_no_other_message_or_borough(bent: int) -> None:
    words, ciphertexts = sealed(QUERIED, Rung.QUERIED, counterpart=False)
    other = [
        msgspec.structs.replace(BOND, message_id=MessageId("1b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10")),
        msgspec.structs.replace(BOND, origin=Origin("exchange.barnet.example")),
        msgspec.structs.replace(BOND, recipient=Origin("exchange.barnet.example")),
    ][bent]
    with pytest.raises(WordsInvalid):
        open_words(words, ciphertexts, keyring(NODE), other)


def test_a_part_that_is_not_what_was_committed_to_does_not_open() -> None:
    words, ciphertexts = sealed(QUERIED, Rung.QUERIED, counterpart=False)
    (entry,) = words.parts
    bent = msgspec.structs.replace(words, parts=(msgspec.structs.replace(entry, commitment=bytes(32)),))
    with pytest.raises(WordsInvalid):
        open_words(bent, ciphertexts, keyring(NODE), BOND)


def test_missing_or_overlong_ciphertexts_are_refused() -> None:
    words, _ = sealed(QUERIED, Rung.QUERIED, counterpart=False)
    (entry,) = words.parts
    for given_here in ({}, {entry.sha256: bytes(40_001)}):
        with pytest.raises(WordsInvalid):
            ciphertexts_of(words, Rung.QUERIED, given_here)
    with pytest.raises(WordsInvalid):
        ciphertexts_of(words, Rung.OWNED, {entry.sha256: b"x"})


@given(st.text(min_size=1, max_size=8000))
def test_every_text_that_may_be_said_comes_out_as_it_was_said(text: str) -> None:
    try:
        said = msgspec.convert({"question": text}, Said)
    except msgspec.ValidationError:
        return
    words, ciphertexts = sealed(said, Rung.QUERIED, counterpart=False)
    assert max(map(len, ciphertexts)) <= 40_000
    assert open_words(words, ciphertexts, keyring(NODE), BOND) == said


def test_nothing_that_is_said_shows_in_a_repr() -> None:
    assert "Ana" not in repr(OWNED)
