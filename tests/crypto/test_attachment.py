"""Attachments: what was sealed opens, and nothing that was moved, cut, grown or swapped does."""

import itertools
import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto import attachment
from exchange.crypto.attachment import (
    CHUNK_BYTES,
    HEADER_BYTES,
    MINIMUM_BYTES,
    MOST_BYTES,
    MOST_CHUNKS,
    MOST_SEALED_BYTES,
    AttachmentContext,
    AttachmentOpener,
    AttachmentSealer,
    ChunkTree,
    Whole,
    chunk_hash,
    chunk_sizes,
    sealed_bytes,
    verify_chunk,
)
from exchange.crypto.errors import AttachmentError
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.padding import padme
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext

SECRET = Secret(bytes(range(32)))
SECTION = SectionContext(
    MessageId("0190a0b0-0000-7000-8000-000000000001"),
    Origin("exchange.hackney.example"),
    Origin("exchange.enfield.example"),
    SectionName("injunction"),
)
BOUND = AttachmentContext(SECTION, 1)
THREE = os.urandom(2 * CHUNK_BYTES + 5)


def sealed(data: bytes, bound_to: AttachmentContext = BOUND, step: int = 300_000) -> tuple[list[bytes], Whole]:
    sealer = AttachmentSealer(SECRET, bound_to)
    chunks = [chunk for at in range(0, len(data), step) for chunk in sealer.update(data[at : at + step])]
    chunks += sealer.finish()
    return chunks, sealer.whole()


def opened(chunks: list[bytes], whole: Whole, bound_to: AttachmentContext = BOUND, secret: Secret = SECRET) -> bytes:
    opener = AttachmentOpener(secret, bound_to, whole)
    data = b"".join(opener.open(chunk).reveal() for chunk in chunks)
    opener.finish()
    return data


@pytest.fixture(scope="module")
def three() -> tuple[list[bytes], Whole]:
    return sealed(THREE)


@pytest.mark.parametrize("size", [0, 1, MINIMUM_BYTES, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_what_was_sealed_opens_at_every_edge_of_a_chunk(size: int) -> None:
    data = os.urandom(size)

    chunks, whole = sealed(data)

    assert opened(chunks, whole) == data
    assert [len(chunk) for chunk in chunks] == chunk_sizes(sealed_bytes(size))
    assert whole.root == ChunkTree([chunk_hash(chunk) for chunk in chunks]).root


def test_sizes_say_no_more_than_a_padme_length() -> None:
    lengths = {sealed_bytes(size) for size in range(3_000_000, 3_100_000, 997)}

    assert len(lengths) < 4
    assert sealed_bytes(0) == sealed_bytes(MINIMUM_BYTES)


@given(st.integers(min_value=0, max_value=MOST_BYTES))
def test_every_size_has_its_chunks_and_no_more_than_may_be(size: int) -> None:
    sizes = chunk_sizes(sealed_bytes(size))

    assert sum(sizes) == sealed_bytes(size) <= MOST_SEALED_BYTES
    assert len(sizes) <= MOST_CHUNKS


@given(st.integers(min_value=0, max_value=2 * MOST_SEALED_BYTES))
def test_a_sealed_size_that_no_file_has_is_refused(size: int) -> None:
    try:
        sizes = chunk_sizes(size)
    except AttachmentError:
        return
    padded = size - HEADER_BYTES - 17 * len(sizes)
    assert padme(padded) == padded
    assert sealed_bytes(padded) == size


def test_a_file_of_more_than_two_gib_is_refused_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "MOST_BYTES", CHUNK_BYTES)
    sealer = AttachmentSealer(SECRET, BOUND)
    list(sealer.update(bytes(CHUNK_BYTES)))

    with pytest.raises(AttachmentError, match="2 GiB"):
        list(sealer.update(b"x"))


def flipped(chunk: bytes, at: int = 100) -> bytes:
    return chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]


Spoil = Callable[[list[bytes]], list[bytes]]
SPOILT: dict[str, Spoil] = {
    "cut off": lambda chunks: chunks[:-1],
    "nothing": lambda _: [],
    "in another order": lambda chunks: [chunks[0], *chunks[2:0:-1], *chunks[3:]],
    "one twice": lambda chunks: [chunks[0], chunks[1], chunks[1], *chunks[2:]],
    "one more": lambda chunks: [*chunks, chunks[-1]],
    "one missing": lambda chunks: [chunks[0], *chunks[2:]],
    "a bit flipped": lambda chunks: [chunks[0], flipped(chunks[1]), *chunks[2:]],
    "the header flipped": lambda chunks: [flipped(chunks[0], 3), *chunks[1:]],
    "a chunk of another file": lambda chunks: [chunks[0], sealed(os.urandom(len(THREE)))[0][1], *chunks[2:]],
    "a byte moved to the neighbour": lambda chunks: [chunks[0] + chunks[1][:1], chunks[1][1:], *chunks[2:]],
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_was_spoilt_does_not_open(how: str, three: tuple[list[bytes], Whole]) -> None:
    chunks, whole = three
    spoilt = SPOILT[how](list(chunks))
    assert spoilt != chunks

    with pytest.raises(AttachmentError):
        opened(spoilt, whole)


@pytest.mark.parametrize(
    "other",
    [
        AttachmentContext(SECTION, 2),
        AttachmentContext(SECTION._replace(name=SectionName("risk")), 1),
        AttachmentContext(SECTION._replace(sender=Origin("exchange.camden.example")), 1),
        AttachmentContext(SECTION._replace(recipient=Origin("exchange.camden.example")), 1),
        AttachmentContext(SECTION._replace(message_id=MessageId("0190a0b0-0000-7000-8000-000000000002")), 1),
    ],
)
def test_an_attachment_opens_in_its_own_place_alone(other: AttachmentContext, three: tuple[list[bytes], Whole]) -> None:
    chunks, whole = three

    with pytest.raises(AttachmentError):
        opened(chunks, whole, other)
    with pytest.raises(AttachmentError):
        opened(chunks, whole, secret=Secret(bytes(32)))


def test_an_end_before_the_end_is_refused() -> None:
    """The sender says so itself, with a tag that holds: a reader that believed the tag would take half for all."""
    first, _ = sealed(bytes(MINIMUM_BYTES))
    _, whole = sealed(THREE)

    with pytest.raises(AttachmentError):
        opened(first, whole)


def test_a_file_that_goes_on_after_its_end_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attachment, "_LAST", attachment._MESSAGE)
    chunks, whole = sealed(THREE)
    monkeypatch.undo()

    with pytest.raises(AttachmentError, match="another place"):
        opened(chunks, whole)


@pytest.mark.parametrize(
    "said",
    [
        lambda whole: whole._replace(size_bytes=whole.size_bytes - 1),
        lambda whole: whole._replace(size_bytes=whole.size_bytes + 1),
        lambda whole: whole._replace(size_bytes=-1),
        lambda whole: whole._replace(size_bytes=MOST_BYTES + 1),
        lambda whole: whole._replace(sha256=bytes(32)),
        lambda whole: whole._replace(root=bytes(32)),
    ],
)
def test_a_section_that_speaks_of_another_file_is_not_believed(
    said: Callable[[Whole], Whole], three: tuple[list[bytes], Whole]
) -> None:
    chunks, whole = three

    with pytest.raises(AttachmentError):
        opened(chunks, said(whole))


def test_each_chunk_is_known_by_its_place_in_the_tree(three: tuple[list[bytes], Whole]) -> None:
    chunks, whole = three
    sizes, tree = chunk_sizes(sealed_bytes(len(THREE))), ChunkTree([chunk_hash(chunk) for chunk in chunks])

    for index, chunk in enumerate(chunks):
        assert verify_chunk(chunk, index, sizes, tree.path(index), whole.root) == chunk_hash(chunk)
    for wrong, right in itertools.permutations(range(len(chunks)), 2):
        with pytest.raises(AttachmentError):
            verify_chunk(chunks[wrong], right, sizes, tree.path(right), whole.root)
    for index in (-1, len(chunks)):
        with pytest.raises(AttachmentError):
            verify_chunk(chunks[0], index, sizes, tree.path(0), whole.root)
    with pytest.raises(AttachmentError):
        verify_chunk(flipped(chunks[0]), 0, sizes, tree.path(0), whole.root)


@settings(max_examples=30)
@given(st.binary(max_size=2000), st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=5))
def test_in_whatever_pieces_a_file_comes_it_is_the_same_file(data: bytes, steps: list[int]) -> None:
    sealer, at, chunks = AttachmentSealer(SECRET, BOUND), 0, []
    for step in itertools.cycle(steps):
        chunks += sealer.update(data[at : at + step])
        at += step
        if at >= len(data):
            break
    chunks += sealer.finish()

    assert opened(chunks, sealer.whole()) == data
