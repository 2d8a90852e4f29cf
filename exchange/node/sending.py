"""Send a form: check it, split it, seal it to the receiving node, and store it with its place in the outbox."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from exchange.crypto.names import new_message_id
from exchange.node.cards import peer_card
from exchange.node.compose import compose_message, current_key, current_sealing_key
from exchange.node.errors import PeerUnknown, PeerUntrusted
from exchange.node.services import Services, milliseconds
from exchange.schema.errors import Finding, FormInvalid
from exchange.schema.form import decode_form
from exchange.schema.quality import check_form
from exchange.schema.split import split
from exchange.schema.vocabulary import MoveType
from exchange.schema.wire import MANIFEST as MANIFEST_TYPE
from exchange.store.messages import (
    OUTBOUND,
    MessageRow,
    add_event,
    add_message,
)
from exchange.store.outbox import MANIFEST, enqueue, new_delivery
from exchange.store.peers import PeerRow, all_peers
from exchange.store.transaction import Transaction


def peer_for_area(rows: Iterable[PeerRow], area: str) -> PeerRow:
    """The verified peer that serves an area.

    Raises:
        PeerUnknown: no peer serves it.
        PeerUntrusted: one does, and it is not verified.
    """
    serving = [row for row in rows if peer_card(row).area == area]
    if not serving:
        raise PeerUnknown(f"no peer serves the area {area}")
    verified = [row for row in serving if row.state == "verified"]
    if not verified:
        raise PeerUntrusted(f"the peer {serving[0].origin} is {serving[0].state}; nothing was sent")
    return verified[0]


def findings_of(services: Services, data: bytes) -> list[Finding]:
    """All findings about a form, those of its decoding too."""
    try:
        form = decode_form(data)
    except FormInvalid as error:
        return list(error.findings)
    return check_form(form, services.catalogue, services.now().date())


async def send_form(services: Services, data: bytes, to_area: str) -> dict[str, Any]:
    """Store a form message for the borough that serves `to_area`; returns its id and where each section is to go.

    Raises:
        FormInvalid: nothing was stored.
        PeerUnknown: no peer serves the area.
        PeerUntrusted: it is not verified, or is suspended or quarantined.
        NoCurrentKey: its card is out of date.
    """
    form = decode_form(data)
    errors = [item for item in check_form(form, services.catalogue, services.now().date()) if item.severity == "error"]
    own_area = services.configuration.tables.node.area
    if form.referral.from_area != own_area:
        errors.append(Finding("error", "referral.from_area", f"is not this node's area, {own_area}"))
    if form.referral.to_area != to_area:
        errors.append(Finding("error", "referral.to_area", "is not the area that the form is being sent to"))
    if errors:
        raise FormInvalid(tuple(errors))
    row = peer_for_area(await services.store.read(all_peers), to_area)
    card = peer_card(row)
    now = services.now()
    expires_at = now + timedelta(days=services.configuration.tables.delivery.expires_after_days)
    parts = split(form, services.catalogue)
    composed = compose_message(
        parts,
        message_id=new_message_id(),
        sender=services.configuration.origin,
        from_area=own_area,
        card=card,
        node_key=current_sealing_key(card, now),
        store_key=services.keyring.store_key,
        created_at=now,
        # The parcels are sealed once: a message must not outlive the key that opens them.
        expires_at=min(expires_at, current_key(card, now).opens_until),
        urgent=form.referral.move_type is MoveType.URGENT,
    )
    manifest = composed.manifest

    async def operation(tx: Transaction) -> None:
        now_ms = milliseconds(now)
        entry = await tx.sign(MANIFEST_TYPE, composed.body)
        number = await add_message(
            tx,
            MessageRow(
                number=0,
                origin=manifest.sender,
                message_id=manifest.message_id,
                direction=OUTBOUND,
                peer=row.origin,
                leaf_hash=entry.leaf_hash,
                statement=entry.statement,
                proof=None,
                position=entry.position,
                received_position=None,
                urgent=int(manifest.urgent),
                created_at_ms=now_ms,
                expires_at_ms=milliseconds(manifest.expires_at),
                stored_at_ms=now_ms,
            ),
            composed.keys,
            composed.sections,
        )
        await add_event(tx, number, "signed", now_ms, detail=f"to {row.origin}")
        delivery = new_delivery(
            f"peer:{row.origin}",
            MANIFEST,
            now_ms=now_ms,
            deadline_ms=milliseconds(manifest.expires_at),
            urgent=manifest.urgent,
            position=entry.position,
            message=number,
        )
        await enqueue(tx, [delivery])

    await services.store.write(operation)
    services.counters.add("messages_signed")
    return {
        "id": manifest.message_id,
        "to": to_area,
        "peer": row.origin,
        "urgent": manifest.urgent,
        "sections": [
            {"section": section.name, "agency": kind, "rung": None}
            for section in manifest.sections
            for kind in section.readers
        ],
    }


def describe_findings(findings: Iterable[Finding]) -> dict[str, Any]:
    """Findings for a person or a script."""
    items = [asdict(finding) for finding in findings]
    return {"ok": not any(item["severity"] == "error" for item in items), "findings": items}
