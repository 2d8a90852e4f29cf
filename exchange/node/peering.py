"""Register, verify and stop peers: the table of `trust` applied to the store.

* Every verification is recorded: who, how, when, over which fingerprint. The records outlive the peer.
* What was queued for a peer that is not verified waits in `held`; verifying the peer releases it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from exchange.crypto.checkpoint import CheckpointCache
from exchange.crypto.names import Origin
from exchange.node.attachment_lanes import attachment_lane
from exchange.node.cards import has_expired, release_if_current, stored_card
from exchange.node.errors import FingerprintMismatch, PeerUntrusted, RequestInvalid
from exchange.node.services import Services
from exchange.node.trust import NotInTable, Standing, Trust
from exchange.schema.card_file import VerifiedCard, card_keys
from exchange.schema.succession import Step, steps_from, steps_to
from exchange.store.directory import drop_stop, keep_stop
from exchange.store.errors import NotFound
from exchange.store.keys import last_card
from exchange.store.messages import add_alarm
from exchange.store.outbox import enqueue_card, release_lane
from exchange.store.peers import (
    PeerRow,
    add_peer,
    forget_peer_heads,
    keep_peer,
    keep_peer_head,
    peer,
)
from exchange.store.transaction import Transaction
from exchange.store.trust import (
    RotationRow,
    VerificationRow,
    add_rotation,
    add_verification,
    revoked_identities,
)

_DAY_MS: Final = 86_400_000
RELEASED_FOR_MS: Final = 13 * _DAY_MS
#: How a peer was verified where no person here compared anything: a directory lists that identity.
BY_DIRECTORY: Final = "directory"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Somebody, or a proof, says that an identity is the peer's."""

    fingerprint: str
    how: str
    who: str


async def standing_of(tx: Transaction, row: PeerRow) -> Standing:
    """What the table sees of a registered peer."""
    revoked = await revoked_identities(tx, row.origin)
    return Standing(Trust(row.state), row.fingerprint, row.candidate, row.first_by, revoked)


def with_standing(row: PeerRow, standing: Standing) -> PeerRow:
    """The peer's row after the table has moved it; an adopted candidate brings its card."""
    changed = replace(row, state=standing.trust.value, first_by=standing.first)
    if standing.fingerprint != row.fingerprint and standing.fingerprint == row.candidate:
        changed = replace(
            changed,
            fingerprint=standing.fingerprint,
            card=row.candidate_card or b"",
            proof=row.candidate_proof or "",
            serial=stored_card(row.candidate_card or b"").serial,
        )
    if standing.candidate is None:
        changed = replace(changed, candidate=None, candidate_card=None, candidate_proof=None)
    return changed


async def check_shown(tx: Transaction, services: Services, verified: VerifiedCard) -> None:
    """Refuse a card by which no peer can be registered.

    Raises:
        RequestInvalid: it is this node's own card, has expired, or its identity was revoked.
    """
    card = verified.card
    if card.origin == services.configuration.origin:
        raise RequestInvalid("that is this node's own card")
    if has_expired(card, services.now()):
        raise RequestInvalid(f"that card of {card.origin} has expired; ask for the current one")
    if verified.fingerprint in await revoked_identities(tx, card.origin):
        raise RequestInvalid(f"that identity of {card.origin} was revoked; ask for the card of its new one")


async def show_card(tx: Transaction, services: Services, verified: VerifiedCard, ca_file: str | None = None) -> PeerRow:
    """Take a card whose origin is not proven by anything but itself: from a file, or from a URL.

    A new peer stays unverified; a newer card of the identity in force is kept; another identity blocks a peer that
    was trusted.

    Raises:
        RequestInvalid: it is this node's own card, has expired, is older than the one in force, names another area,
            or its identity was revoked.
    """
    card, now_ms = verified.card, services.now_ms()
    await check_shown(tx, services, verified)
    try:
        row = await peer(tx, card.origin)
    except NotFound:
        row = PeerRow(
            origin=card.origin,
            state=Trust.UNVERIFIED.value,
            fingerprint=verified.fingerprint,
            serial=card.serial,
            card=verified.statement,
            proof=verified.proof,
            ca_file=ca_file,
            added_at_ms=now_ms,
            area=card.area,
        )
        await add_peer(tx, row)
        await _keep_head(tx, verified, now_ms)
        for step in steps_to(verified.keys, Origin(card.origin), verified.rotations):
            # So that the revocation of its earlier keys is known for its own.
            await add_rotation(tx, _rotation_row(step, now_ms))
        return row
    area = stored_card(row.card).area
    if card.area != area:
        raise RequestInvalid(f"that card of {card.origin} is for the area {card.area}, and the peer serves {area}")
    before = await standing_of(tx, row)
    if verified.fingerprint != row.fingerprint:
        adopted = await _adopt(tx, services, row, before, verified)
        if adopted is not None:
            return adopted
    after = before.show(verified.fingerprint)
    row = replace(row, ca_file=ca_file or row.ca_file)
    if after is before:
        if card.serial < row.serial:
            raise RequestInvalid(f"that card of {card.origin} is older than the one in force; ask for the current one")
        if card.serial > row.serial:
            row = replace(row, serial=card.serial, card=verified.statement, proof=verified.proof)
    elif after.candidate is None:
        row = replace(
            row,
            state=after.trust.value,
            fingerprint=verified.fingerprint,
            serial=card.serial,
            card=verified.statement,
            proof=verified.proof,
            first_by=None,
        )
        await forget_peer_heads(tx, row.origin)
        await _keep_head(tx, verified, now_ms)
    else:
        row = replace(
            row,
            state=after.trust.value,
            candidate=verified.fingerprint,
            candidate_card=verified.statement,
            candidate_proof=verified.proof,
            first_by=None,
        )
        if before.trust is not after.trust:
            detail = f"{row.origin} shows another identity and no proof that it is the same borough; it is blocked"
            await add_alarm(tx, "identity-changed", row.origin, detail, now_ms)
    await keep_peer(tx, row)
    await release_if_current(tx, services, row)
    return row


def succession(row: PeerRow, verified: VerifiedCard, cache: CheckpointCache) -> list[Step]:
    """The rotations by which the identity in force of a peer has passed itself on to that of a card; often none."""
    steps = steps_from(card_keys(stored_card(row.card)), Origin(row.origin), verified.rotations, cache)
    reached = [number for number, step in enumerate(steps, start=1) if step.new == verified.keys]
    return steps[: reached[0]] if reached else []


async def _adopt(
    tx: Transaction, services: Services, row: PeerRow, standing: Standing, verified: VerifiedCard
) -> PeerRow | None:
    """Follow a peer to new keys where it proves that it is the same; None where it does not, or may not."""
    steps, card, now_ms = succession(row, verified, services.checkpoints), verified.card, services.now_ms()
    try:
        for step in steps:
            standing = standing.rotate(step.fingerprints()[1])
    except NotInTable:
        return None
    if not steps:
        return None
    if card.serial <= row.serial:
        raise RequestInvalid(f"that card of {card.origin} is older than the one in force; ask for the current one")
    for step in steps:
        rotation = _rotation_row(step, now_ms)
        await add_rotation(tx, rotation, followed=True)
        if standing.trust in (Trust.VERIFIED, Trust.SUSPENDED):
            # Of an identity that nobody has verified, another has nothing to inherit.
            new = rotation.new_fingerprint
            await add_verification(tx, VerificationRow(row.origin, new, "rotation", row.origin, now_ms))
    changed = replace(
        with_standing(row, standing),
        fingerprint=verified.fingerprint,
        serial=card.serial,
        card=verified.statement,
        proof=verified.proof,
    )
    await keep_peer(tx, changed)
    if standing.is_heard:
        # Heard from, the peer tries again what it could not prove before.
        await greet(tx, services, row.origin)
    services.log.info("peer rotated its keys", peer=row.origin, serial=card.serial)
    return changed


async def confirm(tx: Transaction, services: Services, origin: str, confirmation: Confirmation) -> PeerRow:
    """Record that an identity was compared with the peer's admin; verify the peer where that is enough.

    Raises:
        NotFound: nobody registered the peer.
        FingerprintMismatch: it has not shown that identity.
        PeerUntrusted: the identity was revoked, or a second person must confirm.
    """
    row, now_ms = await peer(tx, origin), services.now_ms()
    if confirmation.fingerprint not in (row.fingerprint, row.candidate):
        raise FingerprintMismatch(f"that is not the identity of {origin}; it stays {row.state}")
    before = await standing_of(tx, row)
    needs_two = services.configuration.tables.trust.two_people
    try:
        after = before.confirm(confirmation.fingerprint, confirmation.who, needs_two=needs_two)
    except NotInTable as error:
        by_one = before.trust is Trust.CONFIRMING and confirmation.who == before.first
        hint = "Another person runs it, from an account of their own." if by_one else None
        raise PeerUntrusted(f"{origin} stays {row.state}: {error}", hint=hint) from None
    await add_verification(
        tx, VerificationRow(origin, confirmation.fingerprint, confirmation.how, confirmation.who, now_ms)
    )
    changed = with_standing(row, after)
    if after.fingerprint != row.fingerprint:
        # Another log than that of the identity before.
        await forget_peer_heads(tx, origin)
    elif before.trust is Trust.QUARANTINED:
        # Compared anew: what its log was before is no measure of what it is now.
        await forget_peer_heads(tx, origin)
        # A node that was restored signs lower serials than it did: what it shows next counts.
        changed = replace(changed, serial=0)
    if after.is_heard:
        if confirmation.how != BY_DIRECTORY:
            await drop_stop(tx, origin)
        changed = replace(changed, verified_at_ms=now_ms, verified_how=confirmation.how)
        await greet(tx, services, origin)
        for lane in (f"peer:{origin}", attachment_lane(origin)):
            await release_lane(tx, lane, now_ms + RELEASED_FOR_MS)
    await keep_peer(tx, changed)
    return changed


async def greet(tx: Transaction, services: Services, origin: str) -> None:
    """Queue the node's card for a peer, so that both know that they hear each other."""
    _, position = await last_card(tx)
    now_ms = services.now_ms()
    await enqueue_card(tx, f"peer:{origin}", position, now_ms, now_ms + 30 * _DAY_MS)


async def move(tx: Transaction, origin: str, step: Callable[[Standing], Standing]) -> PeerRow:
    """Move a peer by the table: `Standing.suspend`, `Standing.fork`, `Standing.revoke`.

    A stop is remembered until people verify the peer again, whatever becomes of the peer meanwhile.

    Raises:
        NotFound: nobody registered the peer.
        RequestInvalid: the table has no such step for it.
    """
    row = await peer(tx, origin)
    try:
        changed = with_standing(row, step(await standing_of(tx, row)))
    except NotInTable as error:
        raise RequestInvalid(f"{origin}: {error}") from None
    await keep_peer(tx, changed)
    if changed.state in (Trust.SUSPENDED, Trust.QUARANTINED):
        await keep_stop(tx, origin, changed.state, stored_card(changed.card).area)
    return changed


def _rotation_row(step: Step, now_ms: int) -> RotationRow:
    old, new = step.fingerprints()
    origin, item = step.verified.checkpoint.origin, step.item
    return RotationRow(old, origin, new, item.statement, item.proof, None, now_ms)


async def _keep_head(tx: Transaction, verified: VerifiedCard, now_ms: int) -> None:
    checkpoint = verified.checkpoint
    await keep_peer_head(tx, Origin(verified.card.origin), checkpoint.size, checkpoint.root, checkpoint.text, now_ms)
