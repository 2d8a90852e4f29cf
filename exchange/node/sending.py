"""Send a form: check it, split it, seal it to the receiving node, and store it with its place in the outbox."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import msgspec

from exchange.crypto.names import MessageId, context, new_message_id, parse_message_id
from exchange.crypto.rest import MessageKey, open_at_rest, seal_at_rest, unwrap_message_key, wrap_message_key
from exchange.node.acknowledged import pinned_signers
from exchange.node.cards import NO_CURRENT_KEY, peer_card
from exchange.node.compose import compose_message, current_key, current_sealing_key
from exchange.node.errors import IdentityRevoked, NoCurrentKey, PeerUnknown, PeerUntrusted
from exchange.node.repeats import is_known, sent_before
from exchange.node.services import Services, milliseconds
from exchange.node.staging import Attached, attach, sign_attached, staged_for
from exchange.schema.errors import Finding, FormInvalid
from exchange.schema.form import decode_form
from exchange.schema.quality import check_form
from exchange.schema.split import FormPart, split
from exchange.schema.vocabulary import MoveType
from exchange.schema.wire import MANIFEST as MANIFEST_TYPE
from exchange.store.acknowledgements import add_signers
from exchange.store.messages import (
    OUTBOUND,
    MessageRow,
    add_event,
    add_message,
)
from exchange.store.outbox import FORM, MANIFEST, Delivery, enqueue, enqueue_one, new_delivery, remove_delivery
from exchange.store.peers import PeerRow, peers_of_area
from exchange.store.transaction import Operation, Transaction
from exchange.store.waiting import WaitingForm, add_waiting_form, form_of_delivery

DAY_MS: Final = 86_400_000


def peer_for_area(rows: Iterable[PeerRow], area: str) -> PeerRow:
    """The verified peer that serves an area.

    Raises:
        PeerUnknown: no peer serves it.
        PeerUntrusted: one does, and it is not verified; or several are.
    """
    serving = [row for row in rows if peer_card(row).area == area]
    if not serving:
        raise PeerUnknown(f"no peer serves the area {area}")
    verified = [row for row in serving if row.state == "verified"]
    if not verified:
        raise PeerUntrusted(f"the peer {serving[0].origin} is {serving[0].state}; nothing was sent")
    if len(verified) > 1:
        # A card says itself for which area it is: a second one must not be able to take another's forms.
        names = " and ".join(row.origin for row in verified)
        raise PeerUntrusted(f"{names} both say that they serve {area}; nothing was sent: suspend the wrong one")
    return verified[0]


def findings_of(services: Services, data: bytes) -> list[Finding]:
    """All findings about a form, those of its decoding too."""
    try:
        form = decode_form(data)
    except FormInvalid as error:
        return list(error.findings)
    return check_form(form, services.catalogue, services.now().date())


async def send_form(
    services: Services,
    data: bytes,
    to_area: str,
    has_current_key: Callable[[str], Awaitable[bool]],
    message_id: MessageId | None = None,
) -> dict[str, Any]:
    """Store a form message for the borough that serves `to_area`; returns its id and where each section is to go.

    Where the peer has no key to seal to and cannot be asked for one, the form itself waits, sealed at rest, and
    becomes a message under the same id when a card with a key arrives.
    The same form under a `message_id` of the caller's again changes nothing, and is answered as before.

    Raises:
        IdentityRevoked: this node's identity is revoked.
        FormInvalid: nothing was stored.
        Conflict: another form was sent under that `message_id`.
        PeerUnknown: no peer serves the area.
        PeerUntrusted: it is not verified, or is suspended or quarantined.
        QueueFull: as much waits for the peer as may.
        StoreFull: the disk is nearly full.
    """
    if services.revoked.file is not None:
        raise IdentityRevoked("this node's identity is revoked; nothing was sent")
    form = decode_form(data)
    attached = await staged_for(services, message_id) if message_id is not None else {}
    split_form = SplitForm(
        message_id or new_message_id(services.now_ms()),
        split(form, services.catalogue),
        form.referral.move_type is MoveType.URGENT,
        attached,
    )
    if message_id is not None:
        # Before all checks: what was right when it was sent first may not be so any more, and was sent.
        before = await sent_before(services, message_id, data, split_form.parts)
        if before is not None:
            return _describe_sent(split_form, to_area, **before, repeated=True)
    errors = [item for item in check_form(form, services.catalogue, services.now().date()) if item.severity == "error"]
    own_area = services.configuration.tables.node.area
    if form.referral.from_area != own_area:
        errors.append(Finding("error", "referral.from_area", f"is not this node's area, {own_area}"))
    if form.referral.to_area != to_area:
        errors.append(Finding("error", "referral.to_area", "is not the area that the form is being sent to"))
    if errors:
        raise FormInvalid(tuple(errors))
    row = peer_for_area(await services.store.read(peers_of_area(to_area)), to_area)
    services.admission.check_sending(f"peer:{row.origin}")
    held: str | None = None
    try:
        operation = sign_form(services, split_form, row)
    except NoCurrentKey:
        if await has_current_key(row.origin):
            row = peer_for_area(await services.store.read(peers_of_area(to_area)), to_area)
            operation = sign_form(services, split_form, row)
        else:
            held = NO_CURRENT_KEY
            operation = keep_form(services, split_form, data, row)

    async def once(tx: Transaction) -> bool:
        if await is_known(tx, services.configuration.origin, split_form.message_id):
            return False
        await operation(tx)
        return True

    if not await services.store.write(once):
        # The same request twice at the same time: the other one was first.
        before = await sent_before(services, split_form.message_id, data, split_form.parts)
        return _describe_sent(split_form, to_area, **(before or {"peer": row.origin, "held": held}), repeated=True)
    services.counters.add("messages_signed" if held is None else "forms_waiting")
    return _describe_sent(split_form, to_area, row.origin, held, repeated=False)


def _describe_sent(form: "SplitForm", to_area: str, peer: str, held: str | None, *, repeated: bool) -> dict[str, Any]:
    return {
        "id": form.message_id,
        "to": to_area,
        "peer": peer,
        "urgent": form.urgent,
        "sections": [
            {"section": part.name, "agency": kind, "rung": None} for part in form.parts for kind in part.readers
        ],
        "held": held,
        "repeated": repeated,
    }


@dataclass(frozen=True, slots=True, repr=False)
class SplitForm:
    """A form in its parts, with the id that its message has or will have."""

    message_id: MessageId
    parts: tuple[FormPart, ...]
    urgent: bool
    attached: Attached = field(default_factory=dict)


def keep_form(services: Services, form: SplitForm, data: bytes, row: PeerRow) -> Operation[None]:
    """Keep a form until there is a key to seal it to."""
    attach(form.parts, form.attached, row.origin)  # what does not fit is refused while somebody can mend it
    store_key, now_ms = services.keyring.store_key, services.now_ms()
    key, name = MessageKey.random(), context("waiting-form", form.message_id.encode())
    sections = [(part.name, part.readers) for part in form.parts]
    deadline_ms = now_ms + round(services.configuration.tables.delivery.expires_after_days * DAY_MS)
    delivery = new_delivery(
        f"peer:{row.origin}", FORM, now_ms=now_ms, deadline_ms=deadline_ms, urgent=form.urgent, held=NO_CURRENT_KEY
    )
    kept = WaitingForm(
        delivery=0,
        message_id=form.message_id,
        peer=row.origin,
        urgent=int(form.urgent),
        created_at_ms=now_ms,
        sections=msgspec.msgpack.encode(sections),
        wrapped=wrap_message_key(store_key, key, name),
        sealed=seal_at_rest(key, name, data),
        state="held",
        reason=NO_CURRENT_KEY,
    )

    async def operation(tx: Transaction) -> None:
        await add_waiting_form(tx, replace(kept, delivery=await enqueue_one(tx, delivery)))

    return operation


async def sign_waiting(services: Services, row: PeerRow, deliveries: Sequence[Delivery]) -> None:
    """Make messages of forms that waited, now that there is a key to seal them to.

    Raises:
        NoCurrentKey: there is none after all.
    """
    for delivery in deliveries:
        number = delivery.number
        kept = await services.store.read(lambda tx, number=number: form_of_delivery(tx, number))  # type: ignore[misc]
        if kept is None:
            continue
        name = context("waiting-form", kept.message_id.encode())
        key = unwrap_message_key(services.keyring.store_key, kept.wrapped, name)
        form = decode_form(open_at_rest(key, name, kept.sealed))
        message_id = parse_message_id(kept.message_id)
        attached = await staged_for(services, message_id)
        split_form = SplitForm(message_id, split(form, services.catalogue), bool(kept.urgent), attached)
        if await services.store.write(_while_it_waits(number, sign_form(services, split_form, row, kept))):
            services.counters.add("messages_signed")
    services.changes.notify()


def _while_it_waits(number: int, operation: Operation[None]) -> Operation[bool]:
    """Sign a form only while it is still there: another replica may have signed it meanwhile."""

    async def checked(tx: Transaction) -> bool:
        if await form_of_delivery(tx, number) is None:
            return False
        await operation(tx)
        return True

    return checked


def sign_form(services: Services, form: SplitForm, row: PeerRow, kept: WaitingForm | None = None) -> Operation[None]:
    """Seal a form to a peer; what is returned signs and stores it, in place of what was kept of it.

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
        if kept is not None:
            await add_event(tx, number, "waited", kept.created_at_ms, detail=row.origin)
            await remove_delivery(tx, kept.delivery)
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


def describe_findings(findings: Iterable[Finding]) -> dict[str, Any]:
    """Findings for a person or a script."""
    items = [asdict(finding) for finding in findings]
    return {"ok": not any(item["severity"] == "error" for item in items), "findings": items}
