"""AS2 by `pyas2lib`: a form is signed and encrypted, opened and verified, and its signed MDN is verified by the sender.

What it does: RSA signatures with SHA-256, AES-256-CBC under an RSA key, and a receipt (MDN, RFC 4130) that signs the
digest of what came. What it does not: it has no network, no disk and no memory of earlier messages here; one key opens
the whole form, there is no log, and nothing holds against a quantum computer.

It runs by itself in the environment that `make .venv/compare` makes, with the form on standard input, and prints JSON.
It imports nothing of the exchange: the library is under the GPL, and neither is part of what we distribute.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID

_search = re.search
#: oscrypto 1.3.0, on which pyas2lib builds, cannot read a version of OpenSSL such as 3.0.10 (wbond/oscrypto issue 75).
_MENDED: dict[Any, str] = {r"\b(\d\.\d\.\d[a-z]*)\b": r"\b(\d+\.\d+\.\d+[a-z]*)\b"}

with mock.patch("re.search", lambda pattern, text, flags=0: _search(_MENDED.get(pattern, pattern), text, flags)):
    from pyas2lib.as2 import Mdn, Message, Organization, Partner

_DIGEST = "sha256"
_CIPHER = "aes_256_cbc"


class As2Error(Exception):
    """A message or its MDN did not come out as it went in."""


@dataclass(frozen=True)
class Identity:
    """A name, its key with its certificate, and the certificate alone, as PEM."""

    name: str
    key: bytes
    certificate: bytes


@dataclass(frozen=True)
class Seen:
    """What one handover has shown, so that a reader can tell that the work was done."""

    payload_sha256: str
    cipher: str
    digest: str
    mdn: str
    mdn_digest: str


@dataclass(frozen=True)
class Work:
    """What one process did while others did the same."""

    count: int
    wall_s: float
    cpu_s: float
    handovers_ms: list[float]


class Exchange:
    """Two organisations in one process, each of which knows the other as a partner."""

    def __init__(self, sender: Identity, receiver: Identity) -> None:
        self.sender, self.receiver = (_organization(identity) for identity in (sender, receiver))
        self.sender_as_partner, self.receiver_as_partner = (_partner(identity) for identity in (sender, receiver))

    def build(self, form: bytes) -> Message:
        """Sign and encrypt `form`."""
        message = Message(sender=self.sender, receiver=self.receiver_as_partner)
        message.build(form, content_type="application/octet-stream")
        return message

    def receive(self, wire: bytes) -> tuple[Message, Mdn]:
        """Decrypt and verify what came, and make its signed MDN.

        Raises:
            As2Error: it cannot be opened, or its signature does not verify.
        """
        message = Message()
        status, (fault, _), mdn = message.parse(
            wire,
            find_org_cb=lambda name: self.receiver if name == self.receiver.as2_name else None,
            find_partner_cb=lambda name: self.sender_as_partner if name == self.sender.as2_name else None,
        )
        if status != "processed" or not message.encrypted or not message.signed:
            raise As2Error(f"the message was not taken: {status}") from fault
        return message, mdn

    def verify(self, sent: Message, wire: bytes) -> tuple[str, str]:
        """The status that an MDN gives to `sent`, and the digest of its signature.

        Raises:
            As2Error: it is not signed by the receiver, is of another message or of other content, or refuses it.
        """
        mdn = Mdn()
        status, detail = mdn.parse(wire, lambda message_id, _: sent if message_id == sent.message_id else None)
        if status != "processed" or detail or mdn.digest_alg != _DIGEST:
            raise As2Error(f"the MDN was not taken: {status} {detail or ''}")
        return status, mdn.digest_alg

    def hand_over(self, form: bytes) -> Seen:
        """One whole handover; the form must come out unchanged.

        Raises:
            As2Error: it did not, or a signature does not verify.
        """
        sent = self.build(form)
        received, mdn = self.receive(on_the_wire(sent))
        status, digest = self.verify(sent, on_the_wire(mdn))
        if received.content != form:
            raise As2Error("the form did not come out as it went in")
        return Seen(hashlib.sha256(received.content).hexdigest(), sent.enc_alg, received.digest_alg, status, digest)


def on_the_wire(message: Message | Mdn) -> bytes:
    """Headers and body, as HTTP would carry them."""
    return bytes(message.headers_str + b"\r\n" + message.content)


def make_identity(name: str, bits: int) -> Identity:
    """A new RSA key of `bits` with a certificate that it signed itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(name, plain + certificate, certificate)


def _organization(identity: Identity) -> Organization:
    return Organization(
        as2_name=identity.name, sign_key=identity.key, decrypt_key=identity.key, domain=f"{identity.name}.example"
    )


def _partner(identity: Identity) -> Partner:
    return Partner(
        as2_name=identity.name,
        verify_cert=identity.certificate,
        encrypt_cert=identity.certificate,
        sign=True,
        digest_alg=_DIGEST,
        encrypt=True,
        enc_alg=_CIPHER,
        mdn_mode="SYNC",
        mdn_digest_alg=_DIGEST,
    )


def measure(form: bytes, bits: int, seconds: float) -> dict[str, object]:
    """Hand `form` over for `seconds` in as many processes as there are cores, two at most, a core for each."""
    sender, receiver = make_identity("hackney", bits), make_identity("enfield", bits)
    seen = Exchange(sender, receiver).hand_over(form)
    cores = sorted(os.sched_getaffinity(0))[:2]
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(len(cores))
    pipes = [context.Pipe(duplex=False) for _ in cores]
    workers = [
        context.Process(target=_work, args=(core, sender, receiver, form, seconds, together, pipe))
        for core, (_, pipe) in zip(cores, pipes, strict=True)
    ]
    for worker in workers:
        worker.start()
    for _, ours in pipes:
        ours.close()
    works = [pipe.recv() for pipe, _ in pipes]
    for worker in workers:
        worker.join()
    return {
        "bits": bits,
        "seen": asdict(seen),
        "works": [asdict(work) for work in works],
        "primitives_ms": _primitives_ms(form, bits, seconds),
    }


def _work(
    core: int, sender: Identity, receiver: Identity, form: bytes, seconds: float, together: Barrier, pipe: Connection
) -> None:
    os.sched_setaffinity(0, {core})
    exchange = Exchange(sender, receiver)
    exchange.hand_over(form)
    together.wait(60)
    handovers_ms: list[float] = []
    cpu_s, started_s = time.process_time(), time.perf_counter()
    ended_s = started_s
    while ended_s - started_s < seconds:
        exchange.hand_over(form)
        now_s = time.perf_counter()
        handovers_ms.append((now_s - ended_s) * 1000)
        ended_s = now_s
    pipe.send(Work(len(handovers_ms), ended_s - started_s, time.process_time() - cpu_s, handovers_ms))


def _primitives_ms(form: bytes, bits: int, seconds: float) -> float:
    """CPU of a handover's cryptography alone, in OpenSSL: what no implementation of AS2 can do without.

    The message and its MDN are each signed and verified, the message's key sealed and opened, its body encrypted and
    decrypted; each side hashes the form, and once more for the signature.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    public, secret, note = key.public_key(), os.urandom(32), bytes(200)
    body = form + bytes(-len(form) % 16)

    def handover() -> None:
        for _ in range(4):
            hashlib.sha256(form).digest()
        for _ in range(2):
            signature = key.sign(note, padding.PKCS1v15(), hashes.SHA256())
            public.verify(signature, note, padding.PKCS1v15(), hashes.SHA256())
        key.decrypt(public.encrypt(secret, padding.PKCS1v15()), padding.PKCS1v15())
        cipher = Cipher(algorithms.AES256(secret), modes.CBC(bytes(16)))
        cipher.decryptor().update(cipher.encryptor().update(body))

    handover()
    count, started_s = 0, time.process_time()
    while (took_s := time.process_time() - started_s) < seconds / 3:
        handover()
        count += 1
    return took_s / count * 1000


def main() -> None:
    """Measure the form on standard input, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.as2", description=__doc__)
    parser.add_argument("--bits", type=int, default=2048, help="size of the RSA keys")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to measure")
    options = parser.parse_args()
    json.dump(measure(sys.stdin.buffer.read(), options.bits, options.seconds), sys.stdout)


if __name__ == "__main__":
    main()
