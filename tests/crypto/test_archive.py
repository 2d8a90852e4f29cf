"""The stream of a backup: it opens to its end for those whom it was made for, or not at all."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.archive import (
    CHUNK_BYTES,
    MAGIC,
    STREAM_HEADER_BYTES,
    Archived,
    ArchiveReader,
    ArchiveWriter,
    new_backup_key,
    open_backup_key,
    parse_public_key,
)
from exchange.crypto.errors import ArchiveCorrupt, ArchiveRefused, CryptoError, KeystoreCorrupt, WrongPassphrase
from exchange.crypto.keystore import Argon2Parameters, lock_keystore
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret

ABOUT = Archived(
    origin="exchange.hackney.example",
    fingerprint="0" * 64,
    made_at="2026-11-25T10:00:00Z",
    log_size=7,
    revision="0005",
)
CHEAP = Argon2Parameters(1, 8192)
KEY, OTHER = SealingPrivateKey.generate(), SealingPrivateKey.generate()
PASSPHRASE = Secret(b"correct horse battery staple")


def parts(head: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(head[len(MAGIC) : len(MAGIC) + 4], "big")
    text = head[len(MAGIC) + 4 :][:length]
    return text, head[len(MAGIC) + 4 + length :]


def written(*chunks: bytes) -> tuple[bytes, list[bytes]]:
    writer = ArchiveWriter(ABOUT, [KEY.public])
    sealed = [writer.seal(chunk, last=number == len(chunks) - 1) for number, chunk in enumerate(chunks)]
    return writer.head, sealed


def read(head: bytes, sealed: list[bytes], key: SealingPrivateKey = KEY) -> list[bytes]:
    reader = ArchiveReader(*parts(head))
    reader.unlock(key)
    return [reader.open(chunk, last=number == len(sealed) - 1) for number, chunk in enumerate(sealed)]


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_what_was_sealed_opens(chunks: list[bytes]) -> None:
    assert read(*written(*chunks)) == chunks


def test_each_of_its_recipients_opens_it_and_nobody_else() -> None:
    writer = ArchiveWriter(ABOUT, [KEY.public, OTHER.public])
    sealed = [writer.seal(b"content", last=True)]
    assert read(writer.head, sealed) == read(writer.head, sealed, OTHER) == [b"content"]
    with pytest.raises(ArchiveRefused, match="for another key"):
        read(writer.head, sealed, SealingPrivateKey.generate())


def test_a_backup_that_was_cut_off_does_not_open_to_an_end() -> None:
    head, sealed = written(b"one", b"two", b"three")
    for count in (1, 2):
        with pytest.raises(ArchiveCorrupt, match="not whole"):
            read(head, sealed[:count])
    with pytest.raises(ArchiveCorrupt):
        read(head, [*sealed[:2], sealed[2][:-1]])
    with pytest.raises(ArchiveCorrupt):
        read(head, [*sealed[:2], b""])


def test_chunks_cannot_be_exchanged_left_out_or_added() -> None:
    head, sealed = written(b"one", b"two", b"three")
    for wrong in ([sealed[1], sealed[0], sealed[2]], [sealed[0], sealed[2]], [*sealed, sealed[2]]):
        with pytest.raises(ArchiveCorrupt):
            read(head, wrong)


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_bit_of_it_can_be_changed(at: int, bit: int) -> None:
    head, sealed = written(b"x" * 300)
    data = bytearray(head + sealed[0])
    at = len(MAGIC) + 4 + at % (len(data) - len(MAGIC) - 4)
    data[at] ^= 1 << bit
    with pytest.raises(CryptoError):
        read(bytes(data[: len(head)]), [bytes(data[len(head) :])])


def test_what_it_says_of_itself_is_bound_to_what_is_in_it() -> None:
    head, sealed = written(b"content")
    younger = head.replace(b"2026-11-25", b"2026-11-26")
    with pytest.raises(ArchiveRefused, match="altered"):
        read(younger, sealed)


@pytest.mark.parametrize("text", [b"", b"{}", b"[", b'{"about": 1}', b"[" * 5000])
def test_what_is_no_backup_is_refused(text: bytes) -> None:
    with pytest.raises(ArchiveCorrupt):
        ArchiveReader(text, bytes(STREAM_HEADER_BYTES))


def test_a_chunk_is_large_enough_to_be_worth_its_tag() -> None:
    head, sealed = written(bytes(CHUNK_BYTES), b"")
    assert read(head, sealed) == [bytes(CHUNK_BYTES), b""]


def test_the_private_half_of_a_key_opens_with_its_passphrase() -> None:
    private, public = new_backup_key(PASSPHRASE, CHEAP)
    assert open_backup_key(private, PASSPHRASE).public.raw == parse_public_key(public).raw
    with pytest.raises(WrongPassphrase):
        open_backup_key(private, Secret(b"another passphrase"))


def test_a_keystore_is_not_a_key_for_backups() -> None:
    with pytest.raises(KeystoreCorrupt, match="not the key of a backup"):
        open_backup_key(lock_keystore({"store": bytes(32)}, PASSPHRASE, CHEAP), PASSPHRASE)


def test_a_public_half_that_was_altered_is_refused() -> None:
    _, public = new_backup_key(PASSPHRASE, CHEAP)
    document = msgspec.json.decode(public)
    with pytest.raises(ArchiveCorrupt, match="altered"):
        parse_public_key(msgspec.json.encode({**document, "key_id": "0" * 32}))
    for wrong in (b"", b"{}", public[:-20], msgspec.json.encode({**document, "public_key": "AAAA"})):
        with pytest.raises(ArchiveCorrupt):
            parse_public_key(wrong)
