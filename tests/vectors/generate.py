"""Make, or check, the test vectors beside this file; docs/protocol.md says what they are of.

    python tests/vectors/generate.py            # write what is not there or no longer verifies
    python tests/vectors/generate.py --renew    # write all anew
    python tests/vectors/generate.py --check    # write nothing; fail where a file does not hold

* Bytes are hexadecimal; a case with `"refused": true` must be refused, and its `name` says what is wrong with it.
* All keys come from fixed seeds, so a file without randomness is the same at every run and must be committed as made.
* HPKE, ML-DSA, section secrets and nonces are random: what was made once is kept, and is only verified or opened.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from mnemonic import Mnemonic
from nacl.bindings import crypto_secretstream_xchacha20poly1305_init_pull

from exchange.agency.event import SectionEvent, parse_event
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import open_section_event
from exchange.agency.webhook import parse_webhook_key, verify_webhook
from exchange.crypto import (
    alone,
    archive,
    attachment,
    backup,
    envelope,
    keystore,
    merkle,
    padding,
    pairing,
    parcel,
    proof,
    rest,
    sealing,
    section,
    signing,
    statement,
)
from exchange.crypto.errors import CommitmentError
from exchange.crypto.merkle import Frontier
from exchange.crypto.names import (
    LeafHash,
    MessageId,
    Origin,
    SectionName,
    context,
    parse_message_id,
    parse_origin,
    parse_section_name,
)
from exchange.crypto.note import format_note, parse_note, parse_vkey
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.shares import parse_share
from exchange.errors import ExchangeError
from exchange.node.webhook import event_body, signed_headers
from exchange.schema import acknowledgement, wire, words
from exchange.schema.card_file import CardFile
from exchange.schema.events import SECTION_DELIVERED, section_event_id

HERE: Final = Path(__file__).parent
Case = dict[str, Any]
unhex = bytes.fromhex

SENDER, RECIPIENT = Origin("exchange.hackney.example"), Origin("exchange.enfield.example")
MESSAGE = MessageId("0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10")
OTHER_MESSAGE = MessageId("0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a11")
NOW_S: Final = 1_795_468_800
SIGNING_SEEDS = (b"\x01" * 32, b"\x02" * 32)
SEALING_SEED, OTHER_SEALING_SEED = b"\x05" * 32, b"\x06" * 32


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] if at >= 0 else _flip(data, len(data) + at)


def _refused(name: str, valid: Case, **changes: Any) -> Case:
    return {**valid, "name": name, "refused": True, **changes}


# names.json: contexts, origins, message ids, section names

_PARSERS: Final[dict[str, Callable[[str], str]]] = {
    "origin": parse_origin,
    "message-id": parse_message_id,
    "section-name": parse_section_name,
}


def _make_names() -> Iterator[Case]:
    contexts: list[tuple[str, list[bytes]]] = [
        ("section", []),
        ("parcel", [b"a", b""]),
        ("parcel", [b"", b"a"]),
        ("x", [bytes(range(256)) * 2]),
    ]
    for label, fields in contexts:
        made = context(label, *fields).hex()
        yield {
            "name": "context",
            "kind": "context",
            "label": label,
            "fields": [f.hex() for f in fields],
            "context": made,
        }
    texts: dict[str, list[str]] = {
        "origin": ["exchange.hackney.gov.uk", "localhost:7401", "example.org/borough/hackney"],
        "message-id": [MESSAGE],
        "section-name": ["housing", "injunction.3", "0"],
    }
    bad = {
        "origin": {"scheme": "https://a", "capital": "A.example", "empty label": "a..b", "empty": "", "plus": "a+b"},
        "message-id": {"capitals": MESSAGE.upper(), "no hyphens": MESSAGE.replace("-", ""), "newline": MESSAGE + "\n"},
        "section-name": {"empty": "", "starts with a dot": ".a", "81 characters": "a" * 81, "underscore": "a_b"},
    }
    for kind, accepted in texts.items():
        yield from ({"name": "accepted", "kind": kind, "text": text} for text in accepted)
        yield from ({"name": name, "kind": kind, "text": text, "refused": True} for name, text in bad[kind].items())


def _verify_name(case: Case) -> None:
    if case["kind"] == "context":
        assert context(case["label"], *map(unhex, case["fields"])).hex() == case["context"]
    else:
        assert _PARSERS[case["kind"]](case["text"]) == case["text"]


# statements.json


def _make_statements() -> Iterator[Case]:
    for kind, body in [("receipt", b"body"), ("card", b""), ("a" * 64, bytes(100)), ("x.1-y", b" 4 body ")]:
        encoded = statement.encode_statement(kind, body)
        yield {
            "name": f"{len(kind)} and {len(body)}",
            "type": kind,
            "body": body.hex(),
            "statement": encoded.hex(),
            "leaf_hash": statement.leaf_hash(encoded).hex(),
        }
    for name, data in {
        "another version": b"exchange/2 7 receipt 4 body",
        "leading zero in the type's length": b"exchange/1 07 receipt 4 body",
        "leading zero in the body's length": b"exchange/1 7 receipt 04 body",
        "sign": b"exchange/1 7 receipt +4 body",
        "body too short": b"exchange/1 7 receipt 5 body",
        "byte left over": b"exchange/1 7 receipt 4 body\n",
        "type too short": b"exchange/1 8 receipt 4 body",
        "empty type": b"exchange/1 0  4 body",
        "capital in the type": b"exchange/1 7 Receipt 4 body",
        "type of 65": b"exchange/1 65 " + b"a" * 65 + b" 0 ",
    }.items():
        yield {"name": name, "statement": data.hex(), "refused": True}


def _verify_statement(case: Case) -> None:
    encoded = unhex(case["statement"])
    assert statement.parse_statement(encoded) == statement.Statement(case["type"], unhex(case["body"]))
    assert statement.encode_statement(case["type"], unhex(case["body"])) == encoded
    assert statement.leaf_hash(encoded).hex() == case["leaf_hash"]


# tree.json: the leaves are those that Certificate Transparency's implementations test with

_INPUTS: Final = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]


def _make_tree() -> Iterator[Case]:
    leaves = [statement.leaf_hash(unhex(data)) for data in _INPUTS]
    nodes = dict(Frontier(0, ()).append(leaves)[1])
    roots = [Frontier(0, ()).append(leaves[:size])[0].root().hex() for size in range(len(leaves) + 1)]
    for size, root in enumerate(roots):
        yield {
            "name": f"root of {size}",
            "kind": "root",
            "leaves": [leaf.hex() for leaf in leaves[:size]],
            "root": root,
        }
    for size in range(1, len(leaves) + 1):
        for index in range(size):
            path = [value.hex() for value in merkle.inclusion_path(index, size, nodes)]
            case = {"kind": "inclusion", "leaf": leaves[index].hex(), "index": index, "size": size, "path": path}
            yield {"name": f"leaf {index} of {size}", **case, "root": roots[size]}
        for first in range(1, size + 1):
            path = [value.hex() for value in merkle.consistency_path(first, size, nodes)]
            case = {"kind": "consistency", "first": first, "second": size, "path": path}
            yield {"name": f"{first} to {size}", **case, "first_root": roots[first], "second_root": roots[size]}
    path = [value.hex() for value in merkle.inclusion_path(2, 7, nodes)]
    valid: Case = {"kind": "inclusion", "leaf": leaves[2].hex(), "index": 2, "size": 7, "path": path, "root": roots[7]}
    yield _refused("inclusion at another index", valid, index=3)
    yield _refused("inclusion outside the tree", valid, index=7)
    yield _refused("inclusion of another leaf", valid, leaf=leaves[3].hex())
    yield _refused("inclusion path too short", valid, path=path[:-1])
    yield _refused("inclusion path too long", valid, path=[*path, path[0]])
    yield _refused("inclusion path turned round", valid, path=path[::-1])
    path = [value.hex() for value in merkle.consistency_path(3, 7, nodes)]
    valid = {"kind": "consistency", "first": 3, "second": 7, "path": path}
    valid |= {"first_root": roots[3], "second_root": roots[7]}
    yield _refused("consistency from another root", valid, first_root=roots[2])
    yield _refused("consistency to another root", valid, second_root=roots[6])
    yield _refused(
        "consistency of a log that shrank", valid, first=7, second=3, first_root=roots[7], second_root=roots[3]
    )
    yield _refused("consistency path empty", valid, path=[])
    yield _refused("consistency path too long", valid, path=[*path, path[0]])
    # Joined, the shifted hashes give the first root still; the tree of four leaves no longer has the third leaf.
    left = merkle.node_hash(leaves[0], leaves[1])
    shifted = [left[31:] + leaves[2], leaves[3], left[:31]]
    forged = merkle.node_hash(shifted[2], merkle.node_hash(shifted[0], shifted[1])).hex()
    hashes = [value.hex() for value in shifted]
    yield _refused("consistency hashes of other lengths", valid, second=4, path=hashes, second_root=forged)


def _verify_tree(case: Case) -> None:
    if case["kind"] == "root":
        leaves = [LeafHash(unhex(leaf)) for leaf in case["leaves"]]
        assert Frontier(0, ()).append(leaves)[0].root().hex() == case["root"]
        return
    path = [unhex(value) for value in case["path"]]
    if case["kind"] == "inclusion":
        leaf = LeafHash(unhex(case["leaf"]))
        merkle.verify_inclusion(leaf, case["index"], case["size"], path, unhex(case["root"]))
    else:
        roots = unhex(case["first_root"]), unhex(case["second_root"])
        merkle.verify_consistency(case["first"], case["second"], path, *roots)


# padding.json


def _make_padding() -> Iterator[Case]:
    for minimum in (1, 256, 8192):
        for length in (0, 1, 7, 8, 255, 256, 1000, 8191, 8192, 100_000):
            padded_length = len(padding.pad(bytes(length), minimum))
            yield {
                "name": f"{length}",
                "kind": "length",
                "length": length,
                "minimum": minimum,
                "padded_length": padded_length,
            }
    yield {"name": "filled", "kind": "padded", "data": "6162", "minimum": 16, "padded": padding.pad(b"ab", 16).hex()}
    yield {
        "name": "zeros kept",
        "kind": "padded",
        "data": "6100",
        "minimum": 16,
        "padded": padding.pad(b"a\x00", 16).hex(),
    }
    for name, padded in {
        "empty": b"",
        "no marker": bytes(16),
        "no padding": b"x" * 16,
        "below the minimum": b"ab\x80" + bytes(5),
        "not a PADME length": b"x" * 20 + b"\x80" + bytes(2),
        "longer than need be": b"ab\x80" + bytes(15),
        "not filled with zeros": b"ab\x80" + bytes(12) + b"\x01",
    }.items():
        yield {"name": name, "kind": "padded", "minimum": 16, "padded": padded.hex(), "refused": True}


def _verify_padding(case: Case) -> None:
    if case["kind"] == "length":
        assert len(padding.pad(bytes(case["length"]), case["minimum"])) == case["padded_length"]
    else:
        data = padding.unpad(unhex(case["padded"]), case["minimum"])
        assert data.hex() == case["data"]
        assert padding.pad(data, case["minimum"]).hex() == case["padded"]


# keys.json


def _make_keys() -> Iterator[Case]:
    keys = signing.SigningKeys(*map(Secret, SIGNING_SEEDS)).verifiers(SENDER)
    yield {
        "name": "signing keys",
        "kind": "signing",
        "origin": SENDER,
        "ed25519_seed": SIGNING_SEEDS[0].hex(),
        "mldsa44_seed": SIGNING_SEEDS[1].hex(),
        "vkeys": [key.text() for key in keys],
        "fingerprint": signing.fingerprint(SENDER, keys),
    }
    for seed in (SEALING_SEED, OTHER_SEALING_SEED):
        public = SealingPrivateKey(Secret(seed)).public
        case = {"name": "sealing key", "kind": "sealing", "seed": seed.hex()}
        yield {**case, "public_key": public.raw.hex(), "key_id": public.key_id.hex()}
    vkey = keys[0].text()
    name, key_id, public_text = vkey.split("+", 2)
    for wrong, text in {
        "key id of another key": f"{name}+00000000+{public_text}",
        "key id in capitals": f"{name}+{key_id.upper()}+{public_text}",
        "another name": f"x{vkey}",
        "no name": f"+{key_id}+{public_text}",
        "base64 cut short": vkey[:-1],
        "newline": f"{vkey}\n",
    }.items():
        yield {"name": wrong, "kind": "vkey", "vkey": text, "refused": True}


def _verify_keys(case: Case) -> None:
    if case["kind"] == "vkey":
        parse_vkey(case["vkey"])
    elif case["kind"] == "sealing":
        public = SealingPrivateKey(Secret(unhex(case["seed"]))).public
        assert (public.raw.hex(), public.key_id.hex()) == (case["public_key"], case["key_id"])
    else:
        origin = Origin(case["origin"])
        pair = signing.SigningKeys(Secret(unhex(case["ed25519_seed"])), Secret(unhex(case["mldsa44_seed"])))
        keys = pair.verifiers(origin)
        assert [parse_vkey(text) for text in case["vkeys"]] == list(keys)
        assert signing.fingerprint(origin, keys) == case["fingerprint"]


# proofs.json


def _make_proofs() -> Iterator[Case]:
    pair = signing.SigningKeys(*map(Secret, SIGNING_SEEDS))
    vkeys = [key.text() for key in pair.verifiers(SENDER)]
    encoded = [statement.encode_statement("receipt", b"body %d" % number) for number in range(5)]
    frontier, new = Frontier(0, ()).append(map(statement.leaf_hash, encoded))
    checkpoint = pair.sign_checkpoint(SENDER, frontier.size, frontier.root(), NOW_S)
    cases: list[Case] = []
    for index, data in enumerate(encoded):
        text = proof.format_proof(index, merkle.inclusion_path(index, frontier.size, dict(new)), checkpoint)
        case: Case = {"name": f"statement {index}", "origin": SENDER, "vkeys": vkeys, "index": index, "size": 5}
        cases.append({**case, "statement": data.hex(), "proof": text})
    yield from cases
    valid = cases[2]
    text = valid["proof"]
    signed, (ed25519, mldsa44) = parse_note(checkpoint)
    others = [key.text() for key in signing.SigningKeys(Secret(b"\x03" * 32), Secret(b"\x04" * 32)).verifiers(SENDER)]
    yield _refused("another statement", valid, statement=cases[1]["statement"])
    yield _refused("another index", valid, proof=text.replace("index 2", "index 3"))
    yield _refused("another size", valid, proof=text.replace(f"{SENDER}\n5\n", f"{SENDER}\n6\n"))
    yield _refused("another origin", valid, origin=RECIPIENT)
    yield _refused("another Ed25519 key", valid, vkeys=[others[0], vkeys[1]])
    yield _refused("another ML-DSA-44 key", valid, vkeys=[vkeys[0], others[1]])
    yield _refused("extra data", valid, proof=text.replace("\nindex", "\nextra AAAA\nindex"))
    for name, lines in {
        "Ed25519 stripped": [mldsa44],
        "ML-DSA-44 stripped": [ed25519],
        "Ed25519 doubled": [ed25519, ed25519, mldsa44],
        "ML-DSA-44 doubled": [ed25519, mldsa44, mldsa44],
    }.items():
        yield _refused(name, valid, proof=text.replace(checkpoint, format_note(signed, lines)))
    extended = format_note(signed + "extension\n", [ed25519, mldsa44])
    yield _refused("extension line", valid, proof=text.replace(checkpoint, extended))


def _verify_proof(case: Case) -> None:
    first, second = map(parse_vkey, case["vkeys"])
    verified = proof.verify_statement(unhex(case["statement"]), case["proof"], Origin(case["origin"]), (first, second))
    assert (verified.index, verified.checkpoint.size) == (case["index"], case["size"])


# sections.json


def _make_sections() -> Iterator[Case]:
    bound = section.SectionContext(MESSAGE, SENDER, RECIPIENT, SectionName("housing"))
    cases: list[Case] = []
    for plaintext in (b"", b"content", bytes(range(256)) * 4):
        sealed = section.seal_section(plaintext, bound)
        cases.append(
            {
                "name": f"{len(plaintext)} bytes",
                "message_id": MESSAGE,
                "sender": SENDER,
                "recipient": RECIPIENT,
                "section": "housing",
                "secret": sealed.secret.reveal().hex(),
                "plaintext": plaintext.hex(),
                "ciphertext": sealed.ciphertext.hex(),
                "sha256": sealed.sha256.hex(),
                "commitment": sealed.commitment.hex(),
            }
        )
    yield from cases
    valid = cases[1]
    yield _refused("another message", valid, message_id=OTHER_MESSAGE)
    yield _refused("origins turned round", valid, sender=RECIPIENT, recipient=SENDER)
    yield _refused("another section", valid, section="police")
    yield _refused("another secret", valid, secret=cases[0]["secret"])
    yield _refused("another commitment", valid, commitment=cases[0]["commitment"])
    yield _refused("last bit of the tag", valid, ciphertext=_flip(unhex(valid["ciphertext"]), -1).hex())
    yield _refused("cut short", valid, ciphertext=valid["ciphertext"][:-2])


def _verify_section(case: Case) -> None:
    bound = section.SectionContext(
        MessageId(case["message_id"]), Origin(case["sender"]), Origin(case["recipient"]), SectionName(case["section"])
    )
    ciphertext, secret = unhex(case["ciphertext"]), Secret(unhex(case["secret"]))
    opened = section.open_section(ciphertext, secret, bound, unhex(case["commitment"]))
    assert opened.reveal().hex() == case["plaintext"]


# attachments.json: the file of n bytes is 0, 1, ... 250, 0, 1, ...; chunks are given by their hashes


def _file(size_bytes: int) -> bytes:
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


def _attachment_context(case: Case) -> attachment.AttachmentContext:
    message_id, section_name = MessageId(case["message_id"]), SectionName(case["section"])
    bound = section.SectionContext(message_id, Origin(case["sender"]), Origin(case["recipient"]), section_name)
    return attachment.AttachmentContext(bound, case["number"])


def _seal_attachment(case: Case) -> tuple[list[bytes], attachment.Whole]:
    """What sealing gives under the header of a case: the one thing in it that is random."""
    secret, header = Secret(unhex(case["secret"])), unhex(case["header"])
    bound = _attachment_context(case)
    sealer = attachment.AttachmentSealer(secret, bound)
    crypto_secretstream_xchacha20poly1305_init_pull(sealer._state, header, bound.key(secret))
    sealer._before = header
    chunks = [*sealer.update(_file(case["size_bytes"])), *sealer.finish()]
    return chunks, sealer.whole()


def _make_attachments() -> Iterator[Case]:
    cases: list[Case] = []
    for number, size_bytes in enumerate((0, 1, 65_537, 1_048_576, 1_048_577), start=1):
        case: Case = {
            "name": f"{size_bytes} bytes",
            "message_id": MESSAGE,
            "sender": SENDER,
            "recipient": RECIPIENT,
            "section": "injunction",
            "number": number,
            "secret": (bytes([number]) * 32).hex(),
            "header": (bytes([number + 16]) * 24).hex(),
            "size_bytes": size_bytes,
        }
        chunks, whole = _seal_attachment(case)
        case |= {
            "key": _attachment_context(case).key(Secret(unhex(case["secret"]))).hex(),
            "sha256": whole.sha256.hex(),
            "sealed_bytes": sum(map(len, chunks)),
            "chunks": [attachment.chunk_hash(chunk).hex() for chunk in chunks],
            "begins_with": chunks[0][:64].hex(),
            "root": whole.root.hex(),
        }
        cases.append(case)
    yield from cases
    valid = cases[-1]
    yield _refused("another message", valid, message_id=OTHER_MESSAGE)
    yield _refused("origins turned round", valid, sender=RECIPIENT, recipient=SENDER)
    yield _refused("another section", valid, section="police")
    yield _refused("another number", valid, number=valid["number"] - 1)
    yield _refused("another secret", valid, secret=cases[0]["secret"])
    yield _refused("a bit of the header", valid, header=_flip(unhex(valid["header"]), 0).hex())
    yield _refused("a byte less", valid, size_bytes=valid["size_bytes"] - 1)
    yield _refused("chunks in another order", valid, chunks=valid["chunks"][::-1])
    yield _refused("the root of another file", valid, root=cases[0]["root"])


def _verify_attachment(case: Case) -> None:
    chunks, _ = _seal_attachment(case)
    secret, bound = Secret(unhex(case["secret"])), _attachment_context(case)
    sizes = attachment.chunk_sizes(case["sealed_bytes"])
    tree, root = attachment.ChunkTree([LeafHash(unhex(leaf)) for leaf in case["chunks"]]), unhex(case["root"])
    for index, chunk in enumerate(chunks):
        attachment.verify_chunk(chunk, index, sizes, tree.path(index), root)
    whole = attachment.Whole(case["size_bytes"], unhex(case["sha256"]), root)
    opener = attachment.AttachmentOpener(secret, bound, whole)
    assert b"".join(opener.open(chunk).reveal() for chunk in chunks) == _file(case["size_bytes"])
    opener.finish()
    assert bound.key(secret).hex() == case["key"]
    assert chunks[0][:64].hex() == case["begins_with"]


# parcels.json


def _make_parcels() -> Iterator[Case]:
    key = SealingPrivateKey(Secret(SEALING_SEED)).public
    secrets = {SectionName("housing"): Secret(b"\x11" * 32), SectionName("police"): Secret(b"\x22" * 32)}

    def sealed(plaintext: bytes) -> str:
        info = context("parcel", SENDER.encode(), RECIPIENT.encode(), key.key_id, MESSAGE.encode())
        return sealing.seal(key, info, plaintext).hex()

    valid: Case = {
        "name": "two sections",
        "seed": SEALING_SEED.hex(),
        "sender": SENDER,
        "recipient": RECIPIENT,
        "message_id": MESSAGE,
        "parcel": parcel.seal_parcel(secrets, key, SENDER, RECIPIENT, MESSAGE).hex(),
        "secrets": {name: secret.reveal().hex() for name, secret in secrets.items()},
    }
    yield valid
    yield _refused("another key", valid, seed=OTHER_SEALING_SEED.hex())
    yield _refused("another message", valid, message_id=OTHER_MESSAGE)
    yield _refused("origins turned round", valid, sender=RECIPIENT, recipient=SENDER)
    yield _refused("first bit of the encapsulation", valid, parcel=_flip(unhex(valid["parcel"]), 0).hex())
    yield _refused("last bit of the tag", valid, parcel=_flip(unhex(valid["parcel"]), -1).hex())
    a, b = b"\xa1a\xc4\x20" + b"\x11" * 32, b"\xa1b\xc4\x20" + b"\x22" * 32
    yield _refused("names not sorted", valid, parcel=sealed(b"\x82" + b + a))
    yield _refused("a name twice", valid, parcel=sealed(b"\x82" + a + a))
    yield _refused("longer MessagePack than need be", valid, parcel=sealed(b"\xde\x00\x01" + a))
    yield _refused("byte left over", valid, parcel=sealed(b"\x81" + a + b"\x00"))
    yield _refused("secret of 31 bytes", valid, parcel=sealed(b"\x81\xa1a\xc4\x1f" + bytes(31)))
    yield _refused("not a section name", valid, parcel=sealed(b"\x81\xa1A" + a[2:]))


def _verify_parcel(case: Case) -> None:
    key = SealingPrivateKey(Secret(unhex(case["seed"])))
    origins = Origin(case["sender"]), Origin(case["recipient"])
    opened = parcel.open_parcel(unhex(case["parcel"]), key, *origins, MessageId(case["message_id"]))
    assert {name: secret.reveal().hex() for name, secret in opened.items()} == case["secrets"]


# envelopes.json


def _make_envelopes() -> Iterator[Case]:
    key = SealingPrivateKey(Secret(SEALING_SEED)).public
    data = envelope.seal_envelope(b"payload", RECIPIENT, key)
    valid: Case = {"name": "envelope", "kind": "envelope", "seed": SEALING_SEED.hex(), "recipient": RECIPIENT}
    valid |= {"payload": b"payload".hex(), "envelope": data.hex()}
    yield valid
    other = SealingPrivateKey(Secret(OTHER_SEALING_SEED)).public
    unpadded = sealing.seal(key, context("envelope", RECIPIENT.encode(), key.key_id), b"payload\x80")
    yield _refused("another recipient", valid, recipient=SENDER)
    yield _refused("another key", valid, seed=OTHER_SEALING_SEED.hex())
    yield _refused("another version", valid, envelope=data.replace(b"/1\n", b"/2\n", 1).hex())
    yield _refused("key id of another key", valid, envelope=data.replace(key.key_id, other.key_id, 1).hex())
    yield _refused("last bit of the tag", valid, envelope=_flip(data, -1).hex())
    yield _refused("cut short", valid, envelope=data[:-1].hex())
    yield _refused("byte left over", valid, envelope=(data + b"\x00").hex())
    yield _refused("not padded to 8192 bytes", valid, envelope=(data[:36] + unpadded).hex())
    secret = Secret(b"\x33" * 32)
    reply = envelope.seal_reply(secret, b"payload")
    valid = {"name": "reply", "kind": "reply", "secret": secret.reveal().hex()}
    valid |= {"payload": b"payload".hex(), "reply": reply.hex()}
    yield valid
    yield _refused("reply under another secret", valid, secret="34" * 32)
    yield _refused("reply with another salt", valid, reply=_flip(reply, 0).hex())
    yield _refused("reply cut short", valid, reply=reply[:-1].hex())


def _verify_envelope(case: Case) -> None:
    if case["kind"] == "reply":
        payload = envelope.open_reply(Secret(unhex(case["secret"])), unhex(case["reply"]))
    else:
        key = SealingPrivateKey(Secret(unhex(case["seed"])))
        payload = envelope.open_envelope(unhex(case["envelope"]), Origin(case["recipient"]), key)
    assert payload.hex() == case["payload"]


# rest.json: at rest, wrapped keys, keystore


def _make_rest() -> Iterator[Case]:
    key, place = rest.MessageKey(b"\x44" * 32), context("message", MESSAGE.encode())
    sealed = rest.seal_at_rest(key, place, b"data")
    valid: Case = {"name": "sealed", "kind": "sealed", "key": key.reveal().hex(), "associated_data": place.hex()}
    valid |= {"data": b"data".hex(), "sealed": sealed.hex()}
    yield valid
    yield _refused("another place", valid, associated_data=context("message", OTHER_MESSAGE.encode()).hex())
    yield _refused("another key", valid, key="45" * 32)
    yield _refused("last bit of the tag", valid, sealed=_flip(sealed, -1).hex())
    store_key = rest.StoreKey(b"\x55" * 32)
    wrapped = rest.wrap_message_key(store_key, key, MESSAGE.encode())
    valid = {
        "name": "wrapped key",
        "kind": "wrapped",
        "store_key": store_key.reveal().hex(),
        "message": MESSAGE.encode().hex(),
    }
    valid |= {"key": key.reveal().hex(), "wrapped": wrapped.hex()}
    yield valid
    yield _refused("key of another message", valid, message=OTHER_MESSAGE.encode().hex())
    cost = keystore.Argon2Parameters(opslimit=1, memlimit_bytes=8192)
    file = json.loads(keystore.lock_keystore({"store": b"\x55" * 32}, Secret(b"passphrase"), cost))
    valid = {"name": "keystore", "kind": "keystore", "passphrase": b"passphrase".hex(), "file": file}
    valid |= {"entries": {"store": "55" * 32}}
    yield valid
    yield _refused("another passphrase", valid, passphrase=b"Passphrase".hex())
    yield _refused("another cost", valid, file={**file, "opslimit": 2})
    yield _refused("cost out of bounds", valid, file={**file, "memlimit_bytes": 2**40})
    yield _refused("another format", valid, file={**file, "format": "exchange-keystore/2"})
    yield _refused("unknown member", valid, file={**file, "more": 1})


def _verify_rest(case: Case) -> None:
    if case["kind"] == "sealed":
        key = rest.MessageKey(unhex(case["key"]))
        assert rest.open_at_rest(key, unhex(case["associated_data"]), unhex(case["sealed"])).hex() == case["data"]
    elif case["kind"] == "wrapped":
        store_key = rest.StoreKey(unhex(case["store_key"]))
        opened = rest.unwrap_message_key(store_key, unhex(case["wrapped"]), unhex(case["message"]))
        assert opened.reveal().hex() == case["key"]
    else:
        entries = keystore.unlock_keystore(json.dumps(case["file"]).encode(), Secret(unhex(case["passphrase"])))
        assert {name: value.hex() for name, value in entries.items()} == case["entries"]


def _make_backups() -> Iterator[Case]:
    about = backup.About(origin=SENDER, fingerprint="0123456789abcdef" * 4, made_at="2026-11-24T09:30:00Z", log_size=41)
    entries = {"store": b"\x55" * 32, "sealing-epoch": (7).to_bytes(8, "big")}
    cost = keystore.Argon2Parameters(opslimit=1, memlimit_bytes=8192)
    file = json.loads(backup.lock_backup(about, entries, Secret(b"passphrase"), cost))
    held = {"entries": {name: value.hex() for name, value in entries.items()}}
    valid = {"name": "under a passphrase", "passphrase": b"passphrase".hex(), "file": file} | held
    yield valid
    yield _refused("another passphrase", valid, passphrase=b"Passphrase".hex())
    yield _refused("another cost", valid, file={**file, "lock": {**file["lock"], "opslimit": 2}})
    yield _refused("cost out of bounds", valid, file={**file, "lock": {**file["lock"], "memlimit_bytes": 2**40}})
    yield _refused("another size of the log", valid, file={**file, "about": {**file["about"], "log_size": 0}})
    yield _refused("unknown member", valid, file={**file, "more": 1})
    data, shares = backup.split_backup(about, entries, 2, 3)
    words = [share.words for share in shares]
    valid = {"name": "under shares", "shares": words[1:], "file": json.loads(data)} | held
    yield valid
    yield {**valid, "name": "under more shares than are needed", "shares": words}
    yield _refused("too few shares", valid, shares=words[:1])
    yield _refused("one share twice", valid, shares=[words[0], words[0]])
    yield _refused("two words exchanged", valid, shares=[words[0], " ".join(reversed(words[1].split()))])


def _verify_backup(case: Case) -> None:
    found = backup.parse_backup(json.dumps(case["file"]).encode())
    if "shares" in case:
        entries = backup.join_backup(found, [parse_share(words) for words in case["shares"]])
    else:
        entries = backup.open_backup(found, Secret(unhex(case["passphrase"])))
    assert {name: value.hex() for name, value in entries.items()} == case["entries"]


# archives.json: backups of whole nodes, by their stream; the records in it are the node's own


def _make_archives() -> Iterator[Case]:
    about = archive.Archived(
        origin=SENDER,
        fingerprint="0123456789abcdef" * 4,
        made_at="2026-11-25T02:00:00Z",
        log_size=41,
        revision="0005",
    )
    plaintext = b"\x00\x00\x00\x01\x80"
    writer = archive.ArchiveWriter(about, [SealingPrivateKey(Secret(SEALING_SEED)).public])
    head, chunk = writer.head, writer.seal(plaintext, last=True)
    valid = {
        "name": "one recipient, one chunk",
        "seed": SEALING_SEED.hex(),
        "file": (head + chunk).hex(),
        "plaintext": plaintext.hex(),
    }
    yield valid
    yield _refused("another key", valid, seed=OTHER_SEALING_SEED.hex())
    yield _refused("another time", valid, file=(head.replace(b"02:00", b"03:00") + chunk).hex())
    yield _refused("cut off", valid, file=head.hex())
    yield _refused("one byte less", valid, file=(head + chunk[:-1]).hex())
    yield _refused("one bit changed", valid, file=(head + _flip(chunk, 3)).hex())
    writer = archive.ArchiveWriter(about, [SealingPrivateKey(Secret(SEALING_SEED)).public])
    open_end = writer.head + writer.seal(plaintext, last=False)
    yield _refused("without the tag FINAL", valid, file=open_end.hex())


def _verify_archive(case: Case) -> None:
    data = unhex(case["file"])
    start = len(archive.MAGIC) + 4
    assert data.startswith(archive.MAGIC)
    end = start + int.from_bytes(data[start - 4 : start], "big")
    chunks = end + archive.STREAM_HEADER_BYTES
    reader = archive.ArchiveReader(data[start:end], data[end:chunks])
    reader.unlock(SealingPrivateKey(Secret(unhex(case["seed"]))))
    assert reader.open(data[chunks:], last=True).hex() == case["plaintext"]


# questions.json: what a node signs that rejoins its peers


def _make_questions() -> Iterator[Case]:
    keys = signing.SigningKeys(*map(Secret, SIGNING_SEEDS))
    vkeys = [key.text() for key in keys.verifiers(SENDER)]
    data = statement.encode_statement("rejoin", b"body")
    text = alone.sign_alone(keys, data, NOW_S)
    valid: Case = {"name": "a question", "vkeys": vkeys, "statement": data.hex(), "proof": text}
    yield valid
    yield _refused("another statement", valid, statement=_flip(data, -1).hex())
    checkpoint = keys.sign_checkpoint(SENDER, 1, statement.leaf_hash(data), NOW_S)
    yield _refused("signed in the node's own log", valid, proof=proof.format_proof(0, (), checkpoint))
    others = signing.SigningKeys(Secret(b"\x03" * 32), Secret(b"\x04" * 32))
    yield _refused("other keys", valid, vkeys=[key.text() for key in others.verifiers(SENDER)])


def _verify_question(case: Case) -> None:
    first, second = (parse_vkey(text) for text in case["vkeys"])
    alone.verify_alone(unhex(case["statement"]), case["proof"], (first, second))


@dataclass(frozen=True, slots=True)
class Kind:
    """One file: how its cases are made and how each is verified."""

    make: Callable[[], Iterator[Case]]
    verify: Callable[[Case], None]
    random: bool = False


# pairing.json: the commitment, and the words that both admins see

_ENGLISH: Final = tuple(Mnemonic("english").wordlist)


def _make_pairing() -> Iterator[Case]:
    pair = signing.SigningKeys(*map(Secret, SIGNING_SEEDS))
    identities = [signing.fingerprint(origin, pair.verifiers(origin)) for origin in (RECIPIENT, SENDER)]
    for name, ours, theirs in [
        ("Enfield begins", b"\x11" * 32, b"\x22" * 32),
        ("the same nonce at both ends", bytes(32), bytes(32)),
        ("counted bytes", bytes(range(32)), bytes(range(32, 64))),
    ]:
        committed = pairing.commitment(identities[0], ours)
        numbers = pairing.word_numbers(*identities, committed, ours, theirs)
        case = {
            "name": name,
            "initiator": identities[0],
            "responder": identities[1],
            "initiator_nonce": ours.hex(),
            "responder_nonce": theirs.hex(),
            "commitment": committed.hex(),
            "numbers": list(numbers),
            "words": [_ENGLISH[number] for number in numbers],
        }
        yield case
        yield _refused("commitment of another nonce", case, initiator_nonce=_flip(ours, 31).hex())
        yield _refused("commitment of another identity", case, initiator=identities[1])
        yield _refused("nonce of 31 bytes", case, initiator_nonce=ours[1:].hex())


def _verify_pairing(case: Case) -> None:
    committed, ours, theirs = (unhex(case[key]) for key in ("commitment", "initiator_nonce", "responder_nonce"))
    if not pairing.commitment_holds(committed, case["initiator"], ours):
        raise CommitmentError("the nonce is not the one that was committed to")
    numbers = pairing.word_numbers(case["initiator"], case["responder"], committed, ours, theirs)
    assert list(numbers) == case["numbers"]
    assert [_ENGLISH[number] for number in numbers] == case["words"]


# sealed-webhooks.json: what an agency with a key of its own gets, and opens without its node


def _sealed_card() -> wire.Card:
    at = datetime.fromtimestamp(NOW_S, UTC)
    pair = signing.SigningKeys(*map(Secret, SIGNING_SEEDS))
    node_key = wire.CardSealingKey(
        key=SealingPrivateKey(Secret(OTHER_SEALING_SEED)).public.raw, not_before=at, not_after=at, opens_until=at
    )
    return wire.Card(
        version=1,
        origin=SENDER,
        area="E09000012",
        name="A borough made by hand",
        url="http://127.0.0.1:9",
        serial=1,
        issued_at=at,
        expires_at=at + timedelta(days=90),
        signing_keys=tuple(key.text() for key in pair.verifiers(SENDER)),
        sealing_keys=(node_key,),
        agencies=(),
    )


def _prove_both(statements: list[bytes]) -> list[str]:
    """The proofs of the only two statements of a log."""
    pair = signing.SigningKeys(*map(Secret, SIGNING_SEEDS))
    leaves = [statement.leaf_hash(one) for one in statements]
    root = Frontier(0, ()).append(leaves)[0].root()
    note = pair.sign_checkpoint(SENDER, 2, root, NOW_S)
    return [proof.format_proof(at, (leaves[1 - at],), note) for at in (0, 1)]


def _make_sealed_webhooks() -> Iterator[Case]:
    at = datetime.fromtimestamp(NOW_S, UTC)
    key, name = SealingPrivateKey(Secret(SEALING_SEED)).public, SectionName("housing")
    content = {"tenure": "secure", "household": ["a person who does not exist"], "bedrooms": 3}
    bound_to = section.SectionContext(MESSAGE, SENDER, RECIPIENT, name)
    secret = "whsec_" + base64.b64encode(b"\x08" * 32).decode()

    def webhook(
        committed: Any = content,
        message_id: MessageId = MESSAGE,
        readers: tuple[str, ...] = ("housing",),
        signed_with: str = secret,
        **bent: bytes,
    ) -> Case:
        made = section.seal_section(msgspec.msgpack.encode(content), bound_to)
        other = section.seal_section(msgspec.msgpack.encode(committed), bound_to)
        entry = wire.SectionEntry(
            name=name,
            readers=readers,
            sha256=made.sha256,
            commitment=(made if committed is content else other).commitment,
        )
        sealed = parcel.seal_parcel({name: made.secret}, key, SENDER, RECIPIENT, message_id)
        manifest = wire.Manifest(
            version=1,
            message_id=MESSAGE,
            sender=SENDER,
            recipient=RECIPIENT,
            from_area="E09000012",
            to_area="E09000010",
            created_at=at,
            expires_at=at + timedelta(days=13),
            urgent=False,
            card_serial=7,
            sections=(entry,),
            parcels=(wire.ParcelEntry(key_id=key.key_id, parcel=sealed),),
        )
        bodies = ((wire.CARD, _sealed_card()), (wire.MANIFEST, manifest))
        statements = [statement.encode_statement(kind, wire.encode_wire(body)) for kind, body in bodies]
        proofs = _prove_both(statements)
        parts = {
            "manifest": statements[1],
            "proof": proofs[1].encode(),
            "card": msgspec.json.encode(CardFile(statements[0], proofs[0])),
            "parcel": sealed,
            "key_id": key.key_id,
            "ciphertext": made.ciphertext,
            **bent,
        }
        event_id = section_event_id(statement.leaf_hash(statements[1]), name, "housing")
        data = {"message_id": MESSAGE, "section": name, "from": "E09000012", "to": "E09000010", "urgent": False}
        body = event_body(event_id, SECTION_DELIVERED, RECIPIENT, f"{MESSAGE}/{name}", at, {**data, "sealed": parts})
        return {"headers": signed_headers([signed_with], None, event_id, NOW_S, body), "body": body.decode()}

    valid: Case = {
        "name": "a section for one agency",
        "seed": SEALING_SEED.hex(),
        "secret": secret,
        "borough": RECIPIENT,
        "kind": "housing",
        **webhook(),
        "content": content,
    }
    yield valid
    yield {**valid, "name": "a section for several", **webhook(readers=("housing", "police"))}
    other = "whsec_" + base64.b64encode(b"\x09" * 32).decode()
    yield _refused("signed with another secret", valid, **webhook(signed_with=other))
    yield _refused("another key", valid, seed=OTHER_SEALING_SEED.hex())
    yield _refused("for another agency", valid, kind="police")
    yield _refused("another ciphertext", valid, **webhook(ciphertext=bytes(300)))
    yield _refused("another parcel", valid, **webhook(parcel=bytes(1300)))
    yield _refused("a parcel of another message", valid, **webhook(message_id=OTHER_MESSAGE))
    yield _refused("a commitment to another text", valid, **webhook(committed={"tenure": "none"}))
    yield _refused("a manifest that is cut", valid, **webhook(manifest=b"exchange/1 8 manifest 4 body"))


def _verify_sealed_webhook(case: Case) -> None:
    body = case["body"].encode()
    event_id = verify_webhook(case["headers"], body, [parse_webhook_key(case["secret"])], NOW_S)
    event = parse_event(body, event_id)
    assert isinstance(event, SectionEvent)
    assert event.node == case["borough"]
    signers = signing.SigningKeys(*map(Secret, SIGNING_SEEDS))
    keys = AgencyKeys(Origin("housing.enfield.example"), signers, (SealingPrivateKey(Secret(unhex(case["seed"]))),))
    assert open_section_event(event, keys, kind=case["kind"]).content == case["content"]


# acknowledgements.json: what an agency signs with its own keys, and what its words open to


def _make_acknowledgements() -> Iterator[Case]:
    agency = AgencyKeys(
        Origin("housing.enfield.example"),
        signing.SigningKeys(*map(Secret, SIGNING_SEEDS)),
        (SealingPrivateKey(Secret(SEALING_SEED)),),
    )
    bond = words.Bond(MESSAGE, RECIPIENT, SENDER)
    node, counterpart = (SealingPrivateKey(Secret(seed)).public for seed in (SEALING_SEED, OTHER_SEALING_SEED))

    def made(rung: wire.Rung, said: words.Said, bent: wire.Rung | None = None) -> Case:
        sealed, ciphertexts = words.seal_words(said, rung, bond, node, counterpart)
        body = wire.Acknowledgement(
            version=1,
            message_id=MESSAGE,
            leaf_hash=bytes(range(32)),
            section="housing",
            agency="housing",
            rung=bent or rung,
            origin=RECIPIENT,
            recipient=SENDER,
            at=datetime.fromtimestamp(NOW_S, UTC),
            words=sealed,
        )
        signed = acknowledgement.sign_acknowledgement(body, agency.signing, agency.vkeys(), NOW_S)
        return {
            "statement": signed.statement.hex(),
            "proof": signed.proof,
            "vkeys": list(signed.signing_keys),
            "ciphertexts": [data.hex() for data in ciphertexts],
        }

    holder = words.Holder(name="Ana Fictitious", role="Housing officer", contact="020 7946 0000")
    owned = words.Said(holder=holder, note="Keys are at the desk.")
    valid: Case = {
        "name": "owned, as the sender's node reads it",
        "signer": (acknowledgement.signer_of(agency.vkeys()) or b"").hex(),
        "seed": SEALING_SEED.hex(),
        **made(wire.Rung.OWNED, owned),
        "said": {"holder": msgspec.to_builtins(holder)},
    }
    yield valid
    yield {
        **valid,
        "name": "owned, as the counterpart reads it",
        "seed": OTHER_SEALING_SEED.hex(),
        "said": msgspec.to_builtins(owned),
    }
    asked = words.Said(question="Which flat is it?")
    yield {
        **valid,
        "name": "queried, of which the sender's node reads nothing",
        **made(wire.Rung.QUERIED, asked),
        "said": {},
    }
    yield _refused("another statement", valid, statement=_flip(unhex(valid["statement"]), -1).hex())
    others = signing.SigningKeys(Secret(b"\x03" * 32), Secret(b"\x04" * 32))
    vkeys = [key.text() for key in others.verifiers(Origin("housing.enfield.example"))]
    yield _refused("other keys", valid, vkeys=vkeys)
    yield _refused("another ciphertext", valid, ciphertexts=[_flip(unhex(valid["ciphertexts"][0]), 0).hex()])
    yield _refused("owned, with a question in it", valid, **made(wire.Rung.QUERIED, asked, bent=wire.Rung.OWNED))


def _verify_acknowledgement(case: Case) -> None:
    first, second = case["vkeys"]
    signed = wire.AgencyStatement(statement=unhex(case["statement"]), proof=case["proof"], signing_keys=(first, second))
    proven = acknowledgement.prove_acknowledgement(signed)
    assert proven.signer.hex() == case["signer"]
    said = proven.said
    given = {hashlib.sha256(unhex(data)).digest(): unhex(data) for data in case["ciphertexts"]}
    ciphertexts = words.ciphertexts_of(said.words, said.rung, given)
    key = SealingPrivateKey(Secret(unhex(case["seed"])))
    bond = words.Bond(MessageId(said.message_id), Origin(said.origin), Origin(said.recipient))
    opened = words.open_words(said.words, ciphertexts, {key.public.key_id: key}, bond)
    assert msgspec.to_builtins(opened) == case["said"]


KINDS: Final[dict[str, Kind]] = {
    "names": Kind(_make_names, _verify_name),
    "statements": Kind(_make_statements, _verify_statement),
    "tree": Kind(_make_tree, _verify_tree),
    "padding": Kind(_make_padding, _verify_padding),
    "keys": Kind(_make_keys, _verify_keys),
    "proofs": Kind(_make_proofs, _verify_proof, random=True),
    "sections": Kind(_make_sections, _verify_section, random=True),
    "attachments": Kind(_make_attachments, _verify_attachment),
    "parcels": Kind(_make_parcels, _verify_parcel, random=True),
    "envelopes": Kind(_make_envelopes, _verify_envelope, random=True),
    "rest": Kind(_make_rest, _verify_rest, random=True),
    "pairing": Kind(_make_pairing, _verify_pairing),
    "backups": Kind(_make_backups, _verify_backup, random=True),
    "archives": Kind(_make_archives, _verify_archive, random=True),
    "questions": Kind(_make_questions, _verify_question, random=True),
    "sealed-webhooks": Kind(_make_sealed_webhooks, _verify_sealed_webhook, random=True),
    "acknowledgements": Kind(_make_acknowledgements, _verify_acknowledgement, random=True),
}


def path_of(name: str) -> Path:
    """Where a kind's vectors are."""
    return HERE / f"{name}.json"


def problem_with(name: str) -> str | None:
    """What is wrong with a committed file, if anything."""
    kind, path = KINDS[name], path_of(name)
    if not path.exists():
        return f"{path.name} is not there"
    cases: list[Case] = json.loads(path.read_text())
    for case in cases:
        refused, error = case.get("refused", False), ""
        try:
            kind.verify(case)
        except (ExchangeError, AssertionError, LookupError) as found:
            # A case that must be refused must be refused by the code, not by a mistake in the case.
            if not (refused and isinstance(found, ExchangeError)):
                error = f"does not hold: {found!r}"
        else:
            error = "was accepted" if refused else ""
        if error:
            return f'{path.name}: "{case.get("name")}" {error}'
    made = [(case["name"], case.get("refused", False)) for case in kind.make()]
    if made != [(case["name"], case.get("refused", False)) for case in cases]:
        return f"{path.name} does not have the cases that are made now"
    if not kind.random and json.loads(json.dumps(list(kind.make()))) != cases:
        return f"{path.name} is not what is made now"
    return None


def main(arguments: list[str]) -> int:
    """Run the command line; 1 where a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="write nothing, fail where a file does not hold")
    choice.add_argument("--renew", action="store_true", help="write all files anew")
    options = parser.parse_args(arguments)
    failed = 0
    for name, kind in KINDS.items():
        problem = "renewed" if options.renew else problem_with(name)
        if problem:
            failed += 1
            sys.stderr.write(f"{problem}\n")
            if not options.check:
                path_of(name).write_text(json.dumps(list(kind.make()), indent=1) + "\n")
    return 1 if options.check and failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
