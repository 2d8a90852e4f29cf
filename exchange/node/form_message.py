"""Make a message of a form: seal it to a peer, sign its manifest, and store it with its place in the outbox."""

from dataclasses import dataclass, field
from datetime import timedelta

from exchange.crypto.names import MessageId
from exchange.node.acknowledged import pinned_signers
from exchange.node.cards import peer_card
from exchange.node.compose import compose_message, current_key, current_sealing_key
from exchange.node.disclosing import with_message
from exchange.node.services import Services, milliseconds
from exchange.node.staging import Attached, attach, sign_attached
from exchange.schema.split import FormPart
from exchange.schema.wire import MANIFEST as MANIFEST_TYPE
from exchange.store.acknowledgements import add_signers
from exchange.store.disclosures import APPROVED, DisclosureRow, add_disclosure, put_disclosure
from exchange.store.messages import OUTBOUND, MessageRow, add_event, add_message
from exchange.store.outbox import MANIFEST, enqueue, new_delivery, remove_delivery
from exchange.store.peers import PeerRow
from exchange.store.transaction import Operation, Transaction
from exchange.store.waiting import WaitingForm


@dataclass(frozen=True, slots=True, repr=False)
class SplitForm:
    """A form in its parts, with the id that its message has or will have."""

    message_id: MessageId
    parts: tuple[FormPart, ...]
    urgent: bool
    attached: Attached = field(default_factory=dict)


def sign_form(
    services: Services, form: SplitForm, row: PeerRow, disclosure: DisclosureRow, kept: WaitingForm | None = None
) -> Operation[None]:
    """Seal a form that has passed the gate; what is returned signs and stores it, in place of what was kept of it.

    Raises:
        NoCurrentKey: the peer's card has no key to seal to.
    """
    card = peer_card(row)
    now = services.now()
    expires_at = now + timedelta(days=services.configuration.tables.delivery.expires_after_days)
    composed = compose_message(
        attach(form.parts, form.attached, row.origin),
        message_id=form.message_id,
        sender=services.configuration.origin,
        from_area=services.configuration.tables.node.area,
        card=card,
        node_key=current_sealing_key(card, now),
        store_key=services.keyring.store_key,
        created_at=now,
        # The parcels are sealed once: a message must not outlive the key that opens them.
        expires_at=min(expires_at, current_key(card, now).opens_until),
        urgent=form.urgent,
        given={name: section.secret for name, section in form.attached.items()},
    )
    manifest = composed.manifest
    # What these have not signed will not count as theirs, whatever later cards of the borough name.
    signers = pinned_signers(card, manifest)
    disclosed = with_message(services.keyring.store_key, disclosure, manifest.sender, composed.keys)

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
        await add_signers(tx, number, signers)
        await sign_attached(services, tx, form.attached, number, entry.leaf_hash, row.origin)
        if kept is None:
            await add_disclosure(tx, disclosed)
        else:
            await put_disclosure(tx, disclosed)
            await remove_delivery(tx, kept.delivery)
        await _add_events(tx, number, disclosed, row.origin, kept)
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

    return operation


async def _add_events(
    tx: Transaction, number: int, disclosed: DisclosureRow, peer: str, kept: WaitingForm | None
) -> None:
    """What happened to the form before it became a message."""
    if disclosed.state == APPROVED:
        await add_event(tx, number, "awaited", disclosed.at_ms, detail=disclosed.sent_by)
        await add_event(tx, number, "approved", disclosed.decided_at_ms or disclosed.at_ms, detail=disclosed.decided_by)
    elif kept is not None:
        await add_event(tx, number, "waited", kept.created_at_ms, detail=peer)
    if disclosed.lifted is not None:
        detail = f"{disclosed.sent_by} sent it in an emergency without {disclosed.lifted}"
        await add_event(tx, number, "overridden", disclosed.at_ms, detail=detail)
