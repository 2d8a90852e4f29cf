"""Write the corpus that every target starts from: `python -m tests.fuzz.seeds`. Real bytes, and some that are deep."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exchange.crypto.backup import About, lock_backup, split_backup
from exchange.crypto.envelope import seal_envelope, seal_reply
from exchange.crypto.keystore import Argon2Parameters, lock_with
from exchange.crypto.names import Origin, SectionName
from exchange.crypto.padding import pad
from exchange.crypto.parcel import seal_parcel
from exchange.crypto.possession import Claim, seal_challenge
from exchange.crypto.rest import StoreKey, seal_at_rest
from exchange.crypto.sealing import SealingPublicKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, _commit, _derive
from exchange.crypto.signing import fingerprint
from exchange.crypto.statement import leaf_hash, parse_statement
from exchange.schema.agency_keys import ChallengeFile, file_bytes, sealing_key
from exchange.schema.attachments import (
    Attachment,
    AttachmentReport,
    AttachmentState,
    Chunk,
    Described,
    with_attachments,
)
from exchange.schema.card_file import CardFile
from exchange.schema.identity import Revocation, Rotation
from exchange.schema.registration import (
    Invitation,
    PairingAnswer,
    PairingOffer,
    PairingReveal,
    Registration,
    RegistrationReply,
    invitation_link,
)
from exchange.schema.rejoining import Ask, RejoinAnswer, RejoinRequest, Run
from exchange.schema.wire import VERSION, Consistency, ReplyPayload, Result, Sightings, encode_wire
from tests.crypto.keys import SEALING, SIGNING
from tests.fuzz.targets import AGENCY_KEYS, CORPUS, FILE_KEY, HERE, MESSAGE, REPLY_SECRET, ROOT, THERE
from tests.node.handmade import Borough, read_card
from tests.node.test_revocation import revocation

NOW_MS = 1_795_449_600_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
LEAST = Argon2Parameters(1, 8192)
BROWSER_FORM = (
    b'--x\r\nContent-Disposition: form-data; name="headers"\r\n\r\nwebhook-id: evt_1\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="body.json"\r\n'
    b"Content-Type: application/json\r\n\r\n{}\r\n--x--\r\n"
)


def deep(opening: str, closing: str, depth: int = 20_000) -> bytes:
    return (opening * depth + closing * depth).encode()


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Target, name and bytes of each seed."""
    camden = Borough(THERE, "E09000012", lambda: NOW_MS)
    camden.signing = SIGNING
    enfield = Borough(HERE, "E09000010", lambda: NOW_MS)
    enfield.sealing = SEALING
    card = camden.card()
    to = read_card(enfield.card())
    made = camden.message(to, content=msgspec.msgpack.encode({"text": "fictitious"}), message_id=MESSAGE)
    manifest = camden.sign_manifest(made)
    receipt = camden.sign_receipt(manifest)
    payload = encode_wire(camden.payload(camden.latest(card, manifest), made.ciphertexts, seen=(camden.checkpoint(),)))
    file = msgspec.json.encode(CardFile(card.statement, card.proof))

    def body(item: object) -> bytes:
        return parse_statement(getattr(item, "statement")).body  # noqa: B009

    for target in ("note", "checkpoint"):
        yield target, "real", camden.checkpoint().encode()
    for key in SIGNING.verifiers(THERE):
        yield "vkey", f"real-{key.algorithm}", key.text().encode()
    yield "proof", "real", manifest.proof.encode()
    yield "statement", "real", receipt.statement
    yield "proven", "real", receipt.statement + b"\0\0\0\0" + receipt.proof.encode()
    sealed = seal_envelope(b"fictitious", HERE, SEALING.public)
    yield "envelope", "real", sealed
    yield "envelope", "cut", sealed[:1200]
    for target in ("envelope-inside", "envelope-payload"):
        yield target, "real", payload
    result = Result(leaf_hash=leaf_hash(manifest.statement), receipt=receipt)
    answer = encode_wire(
        ReplyPayload(version=VERSION, holds=3, consistency=Consistency(first=0, path=()), results=(result,))
    )
    yield "reply", "real", seal_reply(REPLY_SECRET, b"fictitious")
    for target in ("reply-inside", "reply-payload"):
        yield target, "real", answer
    yield "padding", "real", pad(b"fictitious", 256)
    secrets = {SectionName("housing"): Secret(bytes(32)), SectionName("police"): Secret(b"\x01" * 32)}
    yield "parcel", "real", seal_parcel(secrets, SealingPublicKey(SEALING.public.raw), THERE, HERE, MESSAGE)
    yield "parcel-inside", "real", msgspec.msgpack.encode({name: one.reveal() for name, one in secrets.items()})
    key, nonce, salt = _derive(REPLY_SECRET)
    padded = pad(b"fictitious", 256)
    bound_to = SectionContext(MESSAGE, THERE, HERE, SectionName("housing"))
    yield "section", "real", _commit(salt, padded) + AESGCM(key).encrypt(nonce, padded, bound_to.associated_data())
    yield "section-content", "real", msgspec.msgpack.encode({"name": "fictitious", "list": [1, None, {"a": True}]})
    yield "section-content", "deep", b"\x81\xa1a" * 20_000 + b"\xc0"
    public = AGENCY_KEYS.public()
    yield "agency-file", "key", file_bytes(public)
    key_id = sealing_key(public).key_id
    asked = seal_challenge(sealing_key(public), Claim(HERE, "housing", public.signing_keys), REPLY_SECRET)
    challenge = ChallengeFile(
        format="exchange-agency-challenge/1", origin=HERE, kind="housing", key_id=key_id, challenge=asked
    )
    yield "agency-file", "challenge", file_bytes(challenge)
    yield "agency-file", "answer", file_bytes(AGENCY_KEYS.answer(challenge, 0))
    vectors = json.loads((ROOT / "tests" / "vectors" / "sealed-webhooks.json").read_text())
    yield "agency-event", "real", vectors[0]["body"].encode()
    yield "agency-event", "deep", b'{"data": ' + deep("[", "]") + b"}"
    headers = "".join(f"{name}: {value}\n" for name, value in vectors[0]["headers"].items())
    given = f"{headers}\n{vectors[0]['body']}\0{vectors[0]['secret']}"
    yield "given-webhook", "real", given.encode()
    yield "given-webhook", "deep", b"webhook-signature: v1,AAAA\n\n" + deep("[", "]")
    yield "browser-form", "real", b"multipart/form-data; boundary=x\n" + BROWSER_FORM
    yield "link-form", "real", b"name=Ana+Fictitious&role=Housing+officer&contact=020+7946+0000&note=a%0D%0Ab"
    said = json.loads((ROOT / "tests" / "vectors" / "acknowledgements.json").read_text())[0]
    statement = bytes.fromhex(said["statement"])
    yield "acknowledgement", "real", parse_statement(statement).body
    signed = {
        "statement": base64.b64encode(statement).decode(),
        "proof": said["proof"],
        "signing_keys": said["vkeys"],
        "ciphertexts": [base64.b64encode(bytes.fromhex(text)).decode() for text in said["ciphertexts"]],
    }
    yield "signed-word", "real", json.dumps({"acknowledgement": signed}).encode()
    holder = {"name": "fictitious", "role": "officer", "contact": "none"}
    yield "signed-word", "clear", json.dumps(holder).encode()
    yield "words", "real", msgspec.msgpack.encode(holder)
    yield "webhook-key", "secret", vectors[0]["secret"].encode()
    yield "webhook-key", "public", b"whpk_" + base64.b64encode(bytes(32))
    yield "card", "real", body(card)
    yield "manifest", "real", body(manifest)
    yield "receipt", "real", body(receipt)
    said = Attachment(
        version=VERSION,
        message_id=MESSAGE,
        leaf_hash=bytes(32),
        recipient=HERE,
        section="injunction",
        number=1,
        size_bytes=65_577,
        root=bytes(32),
    )
    yield "attachment", "real", encode_wire(said)
    report = AttachmentReport(
        version=VERSION,
        message_id=MESSAGE,
        leaf_hash=bytes(32),
        recipient=HERE,
        section="injunction",
        number=1,
        state=AttachmentState.READY,
        scanned=True,
        at=NOW,
    )
    yield "attachment-report", "real", encode_wire(report)
    yield "attachment-chunk", "real", encode_wire(Chunk(index=1, path=(bytes(32),), data=b"sealed"))
    described = Described(
        number=1,
        title="An order",
        file_name="order.pdf",
        media_type="application/pdf",
        size_bytes=5,
        sha256="0" * 64,
        root="0" * 64,
    )
    content = with_attachments({"text": "fictitious"}, [described])
    yield "attachments-of-section", "real", msgspec.msgpack.encode(content)
    yield "sightings", "real", encode_wire(Sightings(version=VERSION, at=NOW, seen_sha256=bytes(32)))
    vkeys = tuple(key.text() for key in SIGNING.verifiers(THERE))
    yield (
        "revocation",
        "real",
        encode_wire(Revocation(version=VERSION, origin=THERE, signing_keys=vkeys, prepared_at=NOW, nonce=bytes(32))),
    )
    yield "rotation", "real", encode_wire(Rotation(version=VERSION, origin=THERE, old=vkeys, new=vkeys, at=NOW))
    registration = Registration(
        version=VERSION, invitation="0" * 32, secret=bytes(32), card=card, reply_secret=REPLY_SECRET.reveal()
    )
    yield "registration", "real", encode_wire(registration)
    yield "registration-reply", "real", encode_wire(RegistrationReply(version=VERSION, origin=THERE, verified=True))
    offer = PairingOffer(version=VERSION, fingerprint=bytes(32), commitment=bytes(32))
    yield "pairing-offer", "real", encode_wire(offer)
    yield "pairing-answer", "real", encode_wire(PairingAnswer(version=VERSION, nonce=bytes(32)))
    yield "pairing-reveal", "real", encode_wire(PairingReveal(version=VERSION, commitment=bytes(32), nonce=bytes(32)))
    ask = Ask(
        version=VERSION,
        origin=THERE,
        recipient=HERE,
        size=3,
        holds=1,
        since=NOW,
        skip=0,
        at=NOW,
        answer=bytes(32),
    )
    yield "ask", "real", encode_wire(ask)
    request = RejoinRequest(version=VERSION, sender=THERE, ask=card, reply_secret=REPLY_SECRET.reveal())
    yield "rejoin-request", "real", encode_wire(request)
    returned = RejoinAnswer(
        version=VERSION,
        origin=HERE,
        left=0,
        consistency=Consistency(first=0, path=()),
        checkpoint=camden.checkpoint(),
        leaves=(Run(first=1, hashes=bytes(64)),),
        yours=(receipt,),
    )
    yield "rejoin-answer", "real", encode_wire(returned)
    yield "card-file", "real", file
    yield "revocation-file", "real", revocation(SIGNING, THERE)
    given = Invitation(
        format="exchange-invitation/1",
        origin=THERE,
        url="https://exchange.hackney.example",
        fingerprint=fingerprint(Origin(THERE), SIGNING.verifiers(THERE)),
        id="0" * 32,
        secret=bytes(32),
        expires_at=NOW,
    )
    yield "invitation", "json", msgspec.json.encode(given)
    yield "invitation", "link", invitation_link(given).encode()
    receipts = {
        "receipts": [{"statement": base64.b64encode(receipt.statement).decode(), "proof": receipt.proof}],
        "card": json.loads(file),
    }
    yield "receipts-file", "real", json.dumps(receipts).encode()
    yield "receipts-file", "deep", b'{"more": ' + deep("[", "]") + b"}"
    yield (
        "answers",
        "consistency",
        json.dumps({"first": 1, "second": 2, "path": [base64.b64encode(bytes(32)).decode()]}).encode(),
    )
    yield "answers", "problem", b'{"code": "try-later", "status": 503, "holds": 7}'
    yield "answers", "deep", b'{"more": ' + deep("[", "]") + b"}"
    for number, text in enumerate(
        ("192.0.2.7", "[2001:db8::1]:443", "::ffff:192.0.2.7", "fe80::1%eth0", "127.0.0.1:7400")
    ):
        yield "address", f"real-{number}", text.encode()
    yield "agency-cursor", "real", b"0123456789abcdef.7.42"
    yield "agency-cursor", "token", b"Bearer exag_" + b"A" * 43
    yield "at-rest", "real", seal_at_rest(StoreKey(b"\x06" * 32), b"fuzz", b"fictitious")
    yield "configuration", "example", (ROOT / "config" / "exchange.example.toml").read_bytes()
    yield "configuration", "deep", b"a = " + deep("[", "]")
    yield "configuration", "long-number", b"a = " + b"9" * 5000
    yield "catalogue", "real", (ROOT / "exchange" / "schema" / "data" / "catalogue.toml").read_bytes()
    yield "catalogue", "deep", b"a = " + deep("[", "]")
    for path in sorted((ROOT / "config" / "examples").glob("*.json")):
        yield "form", path.stem, path.read_bytes()
    yield "form", "deep", deep("[", "]")
    yield "form", "long-number", b'{"referral": ' + b"9" * 5000 + b"}"
    yield "keystore", "real", lock_with({"store": bytes(32)}, FILE_KEY)
    about = About(origin=THERE, fingerprint="0" * 64, made_at="2026-11-24T09:30:00Z", log_size=7)
    yield "backup", "passphrase", lock_backup(about, {"store": bytes(32)}, Secret(b"fictitious"), LEAST)
    split_file, shares = split_backup(about, {"store": bytes(32)}, 2, 3)
    yield "backup", "shares", split_file
    yield "share", "real", shares[0].words.encode()
    yield "fingerprint", "real", (b"0123 4567-89ab:CDEF" * 4)
    yield "names", "origin", b"exchange.hackney.example"
    yield "names", "message", MESSAGE.encode()
    yield "names", "section", b"injunction.condition-6"
    yield "number", "real", b"01234 56789 " * 6


def main() -> None:
    """Write the corpus; what else is in it stays."""
    for target, name, data in seeds():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
