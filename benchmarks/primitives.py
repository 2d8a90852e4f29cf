"""What one handover costs in primitives alone: the same calls on the same sizes, with nothing between them.

Each line is a call and how many times a handover needs it, at both nodes together; what a batch shares is divided by
the batch. The sum is the floor that the exchange is measured against. Two processes measure at the same time, since
the two nodes run at the same time too and share the machine's caches.
"""

import asyncio
import hashlib
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt
from nacl.signing import SigningKey
from pysqlite3 import dbapi2 as sqlite

from benchmarks.forms import eight_sections
from exchange.crypto.sealing import SealingPrivateKey, open_sealed, seal
from exchange.schema.form import Form
from exchange.schema.wire import VERSION, Manifest, ParcelEntry, SectionEntry

_SECTIONS = 8
_SECTION_BYTES = 512
_PARCEL_BYTES = 400
_HANDOVER_BYTES = 8192
_ANSWER_BYTES = 2048
_REQUESTS = 500
#: Rows that the two nodes insert: 9 at the sender, and 18 at the receiver, of which 10 are for its ten agencies.
_ROWS = 27


@dataclass(frozen=True)
class Primitive:
    """One call: microseconds of CPU each, and how many times a handover needs it."""

    name: str
    each_us: float
    times: float

    @property
    def total_us(self) -> float:
        """Microseconds of CPU for each handover."""
        return self.each_us * self.times


def measure(batch: float) -> list[Primitive]:
    """Measure each primitive where `batch` handovers share an envelope, a checkpoint and a commit."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        first, second = pool.map(_measure, (batch, batch))
    return [
        Primitive(one.name, (one.each_us + other.each_us) / 2, one.times)
        for one, other in zip(first, second, strict=True)
    ]


def _measure(batch: float) -> list[Primitive]:
    shared = 1 / batch
    private = SealingPrivateKey.generate()
    public = private.public
    envelope_bytes = round(_HANDOVER_BYTES * batch)
    parcel, envelope = (seal(public, b"info", bytes(size)) for size in (_PARCEL_BYTES, envelope_bytes))
    section, key, nonce = bytes(_SECTION_BYTES), os.urandom(32), os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, section, b"")
    ed25519, mldsa = SigningKey.generate(), MLDSA44PrivateKey.generate()
    note = bytes(150)
    ed25519_signed, mldsa_signed = ed25519.sign(note).signature, mldsa.sign(note)
    ed25519_key, mldsa_key = ed25519.verify_key, mldsa.public_key()
    form = eight_sections()
    form_decoder, manifest_decoder = msgspec.json.Decoder(Form), msgspec.msgpack.Decoder(Manifest)
    content = msgspec.json.decode(form)
    packed = msgspec.msgpack.encode(content)
    manifest = _manifest()
    packed_manifest = msgspec.msgpack.encode(manifest)
    calls: list[tuple[str, Callable[[], object], float]] = [
        ("X-Wing seal of the parcel", lambda: seal(public, b"info", bytes(_PARCEL_BYTES)), 1),
        ("X-Wing open of the parcel", lambda: open_sealed(private, b"info", parcel), 1),
        ("X-Wing seal of the envelope", lambda: seal(public, b"info", bytes(envelope_bytes)), shared),
        ("X-Wing open of the envelope", lambda: open_sealed(private, b"info", envelope), shared),
        ("HKDF-SHA256 of a section", lambda: HKDF(hashes.SHA256(), 76, b"", b"info").derive(key), 2 * _SECTIONS),
        ("AES-256-GCM seal of a section", lambda: AESGCM(key).encrypt(nonce, section, b""), _SECTIONS),
        ("AES-256-GCM open of a section", lambda: AESGCM(key).decrypt(nonce, sealed, b""), _SECTIONS),
        ("SHA-256 of a section, its commitment", lambda: hashlib.sha256(section).digest(), 4 * _SECTIONS),
        ("SHA-256 of a node of the logs", lambda: hashlib.sha256(bytes(65)).digest(), 30),
        (
            "XChaCha20-Poly1305 at rest",
            lambda: crypto_aead_xchacha20poly1305_ietf_encrypt(key, b"", os.urandom(24), key),
            4,
        ),
        ("random 32 bytes", lambda: os.urandom(32), _SECTIONS + 3),
        ("Ed25519 signature", lambda: ed25519.sign(note), 2 * shared),
        ("Ed25519 verification", lambda: ed25519_key.verify(note, ed25519_signed), 2 * shared),
        ("ML-DSA-44 signature", lambda: mldsa.sign(note), 2 * shared),
        ("ML-DSA-44 verification", lambda: mldsa_key.verify(mldsa_signed, note), 2 * shared),
        ("strict JSON decoding of the form", lambda: form_decoder.decode(form), 1),
        ("MessagePack encoding of the form", lambda: msgspec.msgpack.encode(content), 2),
        ("MessagePack decoding of the form", lambda: msgspec.msgpack.decode(packed), 1),
        ("MessagePack encoding of the manifest", lambda: msgspec.msgpack.encode(manifest), 2),
        ("strict MessagePack decoding of the manifest", lambda: manifest_decoder.decode(packed_manifest), 1),
    ]
    measured = [Primitive(name, _each_us(call), times) for name, call, times in calls]
    return [*measured, *_rows(round(batch)), Primitive("HTTP request to the node, empty handler", _request_us(form), 1)]


def _manifest() -> Manifest:
    now = datetime.now(UTC)
    names = [f"{kind}.part" for kind in ("subject", "risk", "housing", "police", "dwp", "health", "victim", "support")]
    readers = ("police", "probation", "housing")
    return Manifest(
        version=VERSION,
        message_id="00000000-0000-4000-8000-000000000000",
        sender="exchange.hackney.example",
        recipient="exchange.enfield.example",
        from_area="E09000012",
        to_area="E09000010",
        created_at=now,
        expires_at=now + timedelta(days=7),
        urgent=False,
        card_serial=1,
        sections=tuple(
            SectionEntry(name=name, readers=readers, sha256=bytes(32), commitment=bytes(32))
            for name in names[:_SECTIONS]
        ),
        parcels=(ParcelEntry(key_id=bytes(16), parcel=bytes(_PARCEL_BYTES)),),
    )


def _each_us(call: Callable[[], object], least_s: float = 0.1) -> float:
    call()
    count, started_s = 0, time.process_time()
    while (took_s := time.process_time() - started_s) < least_s:
        call()
        count += 1
    return took_s / count * 1e6


def _rows(batch: int) -> list[Primitive]:
    """Rows of SQLite, inserted on both nodes together, in durable commits that `batch` handovers share."""
    with tempfile.TemporaryDirectory(prefix="exchange-bench-") as directory:
        connection = sqlite.connect(str(Path(directory) / "rows.db"), isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, content BLOB)")
        content = bytes(_SECTION_BYTES)

        def commit() -> None:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(batch * _ROWS):
                connection.execute("INSERT INTO rows (content) VALUES (?)", (content,))
            connection.execute("COMMIT")

        each_us = _each_us(commit) / (batch * _ROWS)
        connection.close()
    return [Primitive("SQLite insert, with its share of a commit", each_us, _ROWS)]


def _request_us(body: bytes) -> float:
    """CPU of the server for a request on a Unix socket, whose handler only reads the body and answers."""
    stamps_s: list[float] = []
    answer = bytes(_ANSWER_BYTES)

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        stamps_s.append(time.thread_time())
        return web.Response(body=answer, content_type="application/json")

    async def serve(path: str) -> None:
        app = web.Application()
        app.router.add_post("/v1/messages/to/{area}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        await asyncio.to_thread(_ask, path, body)
        await runner.cleanup()

    with tempfile.TemporaryDirectory(prefix="exchange-bench-") as directory:
        asyncio.run(serve(str(Path(directory) / "node.sock")))
    return (stamps_s[-1] - stamps_s[0]) / (len(stamps_s) - 1) * 1e6


def _ask(path: str, body: bytes) -> None:
    head = f"POST /v1/messages/to/E09000010 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        for _ in range(_REQUESTS):
            connection.sendall(head.encode() + body)
            answered = b""
            while not answered.endswith(bytes(_ANSWER_BYTES)):
                answered += connection.recv(65536)
