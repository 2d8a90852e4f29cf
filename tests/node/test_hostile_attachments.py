"""A registered borough that means harm with its attachments: nothing wrong is stored, and nothing costs much."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.crypto.attachment import (
    AttachmentContext,
    AttachmentSealer,
    ChunkTree,
    chunk_hash,
)
from exchange.crypto.names import LeafHash, MessageId, Origin, SectionName
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext
from exchange.crypto.statement import leaf_hash, parse_statement
from exchange.node.peer_client import ENVELOPE_TYPE
from exchange.schema.attachments import ATTACHMENT, Attachment, Chunk
from exchange.schema.wire import ProvenStatement, decode_wire, encode_wire, manifest_decoder
from tests.node.handmade import Borough, read_reply
from tests.node.pair import ENFIELD, Clock, Node, running, until

FILE = os.urandom(2_500_000)


@dataclass
class Sending:
    """A message of Camden's that Enfield has taken, and a file for its first section."""

    camden: Borough
    node: Node
    said: Attachment
    chunks: list[bytes]
    item: ProvenStatement | None = None

    def pieces(self, *indices: int) -> list[bytes]:
        """Chunks with their proofs."""
        tree = ChunkTree([chunk_hash(chunk) for chunk in self.chunks])
        return [encode_wire(Chunk(index=at, path=tree.path(at), data=self.chunks[at])) for at in indices]

    async def post(self, pieces: Sequence[bytes], *, again: bool = False, **changes: Any) -> str:
        """Send chunks beside the statement, or beside one that says something else; the code of the refusal."""
        if self.item is None or not again:
            self.item = self.camden.sign(ATTACHMENT, encode_wire(msgspec.structs.replace(self.said, **changes)))
        card = await self.node.card()
        data = self.camden.envelope(card, self.camden.latest(self.item), pieces)
        status, body = await self.node.post(io.BytesIO(data))
        if status != 200:
            ((self.camden.shown,),) = self.node.rows("SELECT max(size) FROM peer_heads")
            return str(status)
        problem = read_reply(body).results[0].problem
        return problem.code if problem is not None else ""

    def stored(self) -> list[tuple[int, str]]:
        """How many chunks are stored, and where the attachment stands."""
        return [(int(row[0]), str(row[1])) for row in self.node.rows("SELECT done, state FROM attachments")]


async def sending(camden: Borough, node: Node, data: bytes = FILE) -> Sending:
    await node.know(camden)
    card = await node.card()
    made = camden.message(card)
    item = camden.sign_manifest(made)
    status, body = await node.post(camden.envelope(card, camden.latest(item), made.ciphertexts))
    assert status == 200
    assert read_reply(body).results[0].receipt is not None
    manifest = decode_wire(manifest_decoder, parse_statement(item.statement).body)
    section = SectionName(manifest.sections[0].name)
    bound = SectionContext(MessageId(manifest.message_id), Origin(manifest.sender), Origin(manifest.recipient), section)
    sealer = AttachmentSealer(Secret.random(), AttachmentContext(bound, 1))
    chunks = [*sealer.update(data), *sealer.finish()]
    said = Attachment(
        version=1,
        message_id=manifest.message_id,
        leaf_hash=leaf_hash(item.statement),
        recipient=manifest.recipient,
        section=section,
        number=1,
        size_bytes=sum(map(len, chunks)),
        root=sealer.whole().root,
    )
    return Sending(camden, node, said, chunks)


@pytest.fixture
async def file(camden: Borough, enfield: Node) -> Sending:
    return await sending(camden, enfield)


async def test_chunks_come_in_order_and_a_repeated_one_changes_nothing(file: Sending) -> None:
    assert await file.post(file.pieces(0)) == ""
    assert await file.post(file.pieces(0), again=True) == ""
    assert file.stored() == [(1, "arriving")]
    assert await file.post(file.pieces(2), again=True) == "attachment-gap"
    assert await file.post(file.pieces(2, 1), again=True) == ""
    assert [done for done, _ in file.stored()] == [3]


async def test_a_chunk_that_is_not_of_its_place_is_refused_and_not_stored(file: Sending) -> None:
    tree = ChunkTree([chunk_hash(chunk) for chunk in file.chunks])
    path = tree.path(0)
    flipped = bytes([file.chunks[0][0] ^ 1]) + file.chunks[0][1:]
    wrong = [
        Chunk(index=0, path=path, data=flipped),
        Chunk(index=0, path=path, data=file.chunks[1]),
        Chunk(index=1, path=path, data=file.chunks[1]),
        Chunk(index=0, path=path[:-1], data=file.chunks[0]),
        Chunk(index=0, path=(*path, bytes(32)), data=file.chunks[0]),
        Chunk(index=len(file.chunks), path=path, data=file.chunks[0]),
        Chunk(index=2047, path=path, data=file.chunks[0]),
        Chunk(index=1, path=tree.path(1), data=file.chunks[1] + b"x"),
    ]
    for one in wrong:
        assert await file.post([encode_wire(one)]) == "attachment-wrong", one.index
    assert await file.post([b"no chunk"]) == "wire-invalid"
    assert await file.post([bytes([at]) * 9 for at in range(17)]) == "attachment-wrong"
    assert file.stored() == []


async def test_more_than_was_announced_is_not_taken(file: Sending) -> None:
    assert await file.post(file.pieces(0, 1, 2)) == ""
    before = file.node.rows("SELECT count(*), sum(length(data)) FROM attachment_chunks")
    more = Chunk(index=3, path=(), data=file.chunks[0])
    assert await file.post([encode_wire(more)], again=True) == "attachment-wrong"
    assert file.node.rows("SELECT count(*), sum(length(data)) FROM attachment_chunks") == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipient": "exchange.barnet.example"}, "recipient-wrong"),
        ({"message_id": "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a99"}, "attachment-unknown"),
        ({"leaf_hash": bytes(32)}, "attachment-unknown"),
        ({"section": "no-such-section"}, "attachment-section"),
        ({"size_bytes": 1}, "attachment-wrong"),
        ({"size_bytes": 2_500_001}, "attachment-wrong"),
        ({"size_bytes": 2**40}, "wire-invalid"),
        ({"root": bytes(32)}, "attachment-wrong"),
        ({"number": 0}, "wire-invalid"),
        ({"number": 100}, "wire-invalid"),
        ({"section": "../../etc"}, "wire-invalid"),
    ],
)
async def test_a_statement_that_says_what_cannot_be_is_refused(
    file: Sending, changes: dict[str, Any], code: str
) -> None:
    assert await file.post(file.pieces(0), **changes) == code
    assert file.stored() == []


async def test_another_attachment_of_a_number_that_is_taken_is_refused(file: Sending, camden: Borough) -> None:
    assert await file.post(file.pieces(0)) == ""
    other = replace(file, chunks=list(reversed(file.chunks)), item=None)
    root = ChunkTree([LeafHash(chunk_hash(chunk)) for chunk in file.chunks[:2]]).root

    assert await other.post([], root=root) == "attachment-doubled"
    assert file.stored() == [(1, "arriving")]


async def test_an_attachment_comes_alone(file: Sending) -> None:
    card = await file.node.card()
    items = [file.camden.sign(ATTACHMENT, encode_wire(file.said)), file.camden.card()]
    data = file.camden.envelope(card, file.camden.latest(*items), file.pieces(0))

    assert (await file.node.post(io.BytesIO(data)))[0] == 403
    assert file.stored() == []


async def test_what_does_not_open_is_damaged_and_says_so_signed(file: Sending) -> None:
    """The section knows of no attachment: what was sent beside it is given to nobody."""
    assert await file.post(file.pieces(0, 1, 2)) == ""

    async def is_damaged() -> bool:
        return file.stored() == [(3, "damaged")]

    await until("the attachment is damaged", is_damaged)
    path = f"/v1/messages/{file.said.message_id}/attachments/{file.said.section}/1"
    status, document = await file.node.local("GET", path)
    assert (status, document["code"]) == (409, "attachment-not-ready")
    assert file.node.rows("SELECT count(*) FROM statements WHERE type = 'attachment-report'") == [(1,)]


async def test_a_peer_has_so_much_room_and_so_much_in_an_hour(tmp_path: Path, clock: Clock, camden: Borough) -> None:
    limits = "[limits]\npeer_attachment_gib = 0.002\n"
    async with running(tmp_path / "limited", ENFIELD, "exchange.enfield.example", clock, limits) as node:
        file = await sending(camden, node)
        assert await file.post(file.pieces(0)) == "429"
        assert file.stored() == []
        admission = node.services.admission
        admission.table = msgspec.structs.replace(admission.table, peer_attachment_gib=1)
        assert await file.post(file.pieces(0)) == ""
        admission.count_chunks(camden.origin, 20_480 * 1024 * 1024, clock())
        assert await file.post(file.pieces(1), again=True) == "429"
        clock.now_ms += 3_600_000
        assert await file.post(file.pieces(1), again=True) == ""
        # Messages are not held up by it.
        admission.count_chunks(camden.origin, 20_480 * 1024 * 1024, clock())
        made = camden.message(await node.card())
        data = camden.envelope(await node.card(), camden.latest(camden.sign_manifest(made)), made.ciphertexts)
        assert (await node.post(data, ENVELOPE_TYPE))[0] == 200
