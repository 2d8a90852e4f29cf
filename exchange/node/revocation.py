"""Revocations: an identity's last word, signed long before it is needed.

* A revocation holds under the keys that it revokes, and whoever has the file can publish it: it is kept offline.
* With an identity all those to which it was passed on are revoked: who stole the old keys could have made the new
  ones. A peer is revoked where the one in force is among them. One that was verified anew since is not.
* The node forgets the statement as soon as it is signed. Its leaf stays in the log; its nonce stays in the file alone.
"""

import asyncio
import os
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.crypto.errors import CryptoError
from exchange.crypto.names import Origin, parse_origin
from exchange.crypto.note import parse_vkey
from exchange.crypto.proof import verify_statement
from exchange.crypto.signing import fingerprint
from exchange.crypto.statement import parse_statement
from exchange.node.errors import RequestInvalid, Unacceptable
from exchange.node.key_records import RevocationRecord, keep_record
from exchange.node.peering import move
from exchange.node.services import Services
from exchange.node.trust import Standing
from exchange.schema.errors import SchemaError
from exchange.schema.identity import REVOCATION, Revocation, revocation_decoder
from exchange.schema.succession import KeyPair
from exchange.schema.wire import VERSION, decode_wire, encode_wire
from exchange.store.errors import NotFound
from exchange.store.log import blank_statement
from exchange.store.messages import add_alarm
from exchange.store.peers import PeerRow, peer
from exchange.store.transaction import LogEntry, Transaction
from exchange.store.trust import (
    RevocationRow,
    add_revocation,
    heirs,
    revocation_of,
    revoked_identities,
    rotations_of,
    verifications_of,
)

FORMAT: Final = "exchange-revocation/1"
MOST_BYTES: Final = 65_536


class RevocationFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A revocation as a file: the statement in base64 and its tlog-proof."""

    format: Annotated[str, Meta(pattern=r"^exchange-revocation/1\Z")]
    statement: bytes
    proof: str


def is_revocation(data: bytes) -> bool:
    """Whether bytes are a revocation file, be it true or not."""
    try:
        msgspec.json.decode(data, type=RevocationFile)
    except (msgspec.DecodeError, ValueError):
        return False
    return True


def parse_revocation(data: bytes) -> tuple[RevocationFile, Revocation, KeyPair]:
    """Read a revocation file and check it under the keys that it revokes.

    Raises:
        RequestInvalid: it is not a revocation, or its proof does not hold.
    """
    try:
        file = msgspec.json.decode(data, type=RevocationFile)
        # The keys are inside: the body is read to find them, and believed only once the proof has verified.
        body = decode_wire(revocation_decoder, parse_statement(file.statement).body)
        first, second = (parse_vkey(text) for text in body.signing_keys)
        verified = verify_statement(file.statement, file.proof, parse_origin(body.origin), (first, second))
    except (msgspec.DecodeError, ValueError):
        raise RequestInvalid(
            "that is not a revocation file; nothing was revoked",
            hint="Take the file that `exchange init` or `exchange keys rotate` wrote as revocation.json.",
        ) from None
    except (CryptoError, SchemaError) as error:
        raise RequestInvalid(f"that revocation does not hold: {error}") from None
    if verified.statement.type != REVOCATION:
        raise RequestInvalid("that statement is not a revocation")
    return file, body, (first, second)


async def prepare_revocation(services: Services) -> bytes:
    """Sign a revocation of the identity in force; return the file, and keep nothing of it."""
    origin = services.configuration.origin
    body = Revocation(
        version=VERSION,
        origin=origin,
        signing_keys=tuple(key.text() for key in services.keyring.verifiers),
        prepared_at=services.now(),
        nonce=os.urandom(32),
    )

    async def sign(tx: Transaction) -> LogEntry:
        return await tx.sign(REVOCATION, encode_wire(body))

    entry = await services.store.write(sign)
    await services.store.write(lambda tx: blank_statement(tx, entry.position))
    await services.store.scrub()
    record = RevocationRecord(at=body.prepared_at, fingerprint=fingerprint(origin, services.keyring.verifiers))
    await asyncio.to_thread(keep_record, services.configuration.directory, record)
    file = RevocationFile(format=FORMAT, statement=entry.statement, proof=entry.proof)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


async def take_revocation(services: Services, data: bytes) -> PeerRow:
    """Take a peer's revocation, from whoever brings it.

    Raises:
        Unacceptable: it does not hold, or is not of an identity of a registered peer.
    """
    if len(data) > MOST_BYTES:
        raise Unacceptable("a revocation is not so large")
    try:
        file, body, keys = parse_revocation(data)
    except RequestInvalid as error:
        raise Unacceptable(str(error)) from None
    origin, revoked, now_ms = Origin(body.origin), fingerprint(Origin(body.origin), keys), services.now_ms()

    async def operation(tx: Transaction) -> tuple[PeerRow, bool]:
        try:
            row = await peer(tx, origin)
        except NotFound:
            raise Unacceptable(f"{origin} is not registered") from None
        rotations = await rotations_of(tx, origin)
        known = {row.fingerprint, row.candidate, *(entry.fingerprint for entry in await verifications_of(tx, origin))}
        for step in rotations:
            known |= {step.old_fingerprint, step.new_fingerprint}
        if revoked not in known:
            raise Unacceptable(f"{origin} never showed the identity that is revoked")
        if await revocation_of(tx, revoked) is not None:
            return row, False
        line = heirs(rotations, revoked)
        for identity in line:
            await _keep(tx, file, identity, origin, now_ms)
        if row.fingerprint not in line:
            return row, False
        row = await move(tx, origin, Standing.revoke)
        await add_alarm(tx, "revoked", origin, f"{origin} has revoked its keys; nothing of it is accepted", now_ms)
        return row, True

    row, is_new = await services.store.write(operation)
    if is_new:
        services.counters.add("alarms_revoked")
        services.log.error("alarm", code="revoked", peer=origin)
        services.changes.notify()
    return row


async def _keep(tx: Transaction, file: RevocationFile, identity: str, origin: Origin, now_ms: int) -> None:
    await add_revocation(tx, RevocationRow(identity, origin, file.statement, file.proof, now_ms))


async def publish_revocation(services: Services, data: bytes) -> None:
    """Keep the revocation of this node's identity, to be shown in place of its card from now on.

    Raises:
        RequestInvalid: it is not of this node, or does not hold.
    """
    file, body, keys = parse_revocation(data)
    if body.origin != services.configuration.origin:
        raise RequestInvalid(f"that is the revocation of {body.origin}, and this node is another")
    await asyncio.to_thread(services.revoked.keep, data)
    identity = fingerprint(Origin(body.origin), keys)
    now_ms = services.now_ms()
    # For the other replicas, each of which keeps a file of its own.
    await services.store.write(lambda tx: _keep(tx, file, identity, Origin(body.origin), now_ms))
    services.log.error("this node's identity is revoked", origin=body.origin)


async def published_revocation(services: Services) -> None:
    """Take up a revocation of this node's identity that was published at another replica."""
    origin = services.configuration.origin
    if services.revoked.file is not None:
        return

    async def find(tx: Transaction) -> RevocationRow | None:
        identities = await revoked_identities(tx, origin)
        return await revocation_of(tx, min(identities)) if identities else None

    row = await services.store.read(find)
    if row is not None:
        file = RevocationFile(format=FORMAT, statement=row.statement, proof=row.proof)
        data = msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"
        await asyncio.to_thread(services.revoked.keep, data)
        services.log.error("this node's identity is revoked", origin=origin)
