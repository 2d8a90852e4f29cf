"""Forms that wait: for a key of the peer to seal them to, or for a second person to approve them.

* They are sealed at rest, and not signed: what has not passed the gate is no message.
* When one has what it waited for, the gate is asked again as of that day, since an agreement may have ended meanwhile.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from exchange.crypto.names import context, parse_message_id
from exchange.crypto.rest import MessageKey, open_at_rest, seal_at_rest, unwrap_message_key, wrap_message_key
from exchange.handover.gate import Decision, Effect, Facts, Override
from exchange.node.delivery import Outcome
from exchange.node.disclosing import awaiting, new_disclosure, reason_of
from exchange.node.form_message import SplitForm, sign_form
from exchange.node.gate import AWAITS_APPROVAL, decide_now
from exchange.node.services import Services
from exchange.node.staging import attach, staged_for
from exchange.schema.form import decode_form
from exchange.schema.split import split
from exchange.store.agreements import AgreementRow, all_agreements
from exchange.store.disclosures import (
    APPROVED,
    AWAITING,
    PASSED,
    DisclosureRow,
    add_disclosure,
    disclosure_of,
    put_disclosure,
)
from exchange.store.outbox import FORM, Delivery, enqueue_one, new_delivery
from exchange.store.peers import PeerRow
from exchange.store.transaction import Operation, Transaction
from exchange.store.waiting import WaitingForm, add_waiting_form, form_of_delivery

_DAY_MS: Final = 86_400_000
#: Who sent a form that has waited since before there was a gate.
_BEFORE_THE_GATE: Final = "unknown"


def keep_form(
    services: Services, form: SplitForm, data: bytes, row: PeerRow, disclosure: DisclosureRow, held: str
) -> Operation[None]:
    """Keep a form until there is what it is `held` for: a key to seal it to, or a second person's approval."""
    attach(form.parts, form.attached, row.origin)  # what does not fit is refused while somebody can mend it
    store_key, now_ms = services.keyring.store_key, services.now_ms()
    key, name = MessageKey.random(), context("waiting-form", form.message_id.encode())
    sections = [(part.name, part.readers) for part in form.parts]
    deadline_ms = now_ms + round(services.configuration.tables.delivery.expires_after_days * _DAY_MS)
    delivery = new_delivery(
        f"peer:{row.origin}", FORM, now_ms=now_ms, deadline_ms=deadline_ms, urgent=form.urgent, held=held
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
        reason=held,
    )

    async def operation(tx: Transaction) -> None:
        await add_disclosure(tx, disclosure)
        await add_waiting_form(tx, replace(kept, delivery=await enqueue_one(tx, delivery)))

    return operation


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """A form that waits, open, and what the gate says of it today."""

    kept: WaitingForm
    form: SplitForm
    data: bytes
    decision: Decision
    facts: Facts
    #: As it would be kept if the form went today.
    disclosure: DisclosureRow


async def open_waiting(
    services: Services, find: Operation[WaitingForm | None], approver: str | None = None
) -> Opened | None:
    """A form that waits, as the gate sees it today, if `approver` approved it too; None where it is gone."""

    async def view(tx: Transaction) -> tuple[WaitingForm, DisclosureRow | None, list[AgreementRow]] | None:
        kept = await find(tx)
        if kept is None:
            return None
        return kept, await disclosure_of(tx, kept.message_id), await all_agreements(tx)

    found = await services.store.read(view)
    if found is None:
        return None
    kept, row, agreements = found
    name = context("waiting-form", kept.message_id.encode())
    key = unwrap_message_key(services.keyring.store_key, kept.wrapped, name)
    data = open_at_rest(key, name, kept.sealed)
    form, store_key = decode_form(data), services.keyring.store_key
    message_id = parse_message_id(kept.message_id)
    attached = await staged_for(services, message_id)
    split_form = SplitForm(message_id, split(form, services.catalogue), bool(kept.urgent), attached)
    override, approvals, sent_by = None, {approver} if approver else set(), _BEFORE_THE_GATE
    if row is not None:
        sent_by = row.sent_by
        if row.state == APPROVED and row.decided_by:
            approvals.add(row.decided_by)
        if row.lifted is not None:
            override = Override(sent_by, reason_of(store_key, row, services.configuration.origin, None) or "")
    facts, decision = decide_now(
        services, form, split_form.parts, agreements, sent_by, approvals=approvals, override=override
    )
    fresh = new_disclosure(store_key, split_form.message_id, facts, decision, override, kept.created_at_ms)
    if row is not None:
        fresh = replace(row, grounds=fresh.grounds, lifted=row.lifted and (fresh.lifted or row.lifted))
    return Opened(kept, split_form, data, decision, facts, fresh)


async def sign_waiting(services: Services, row: PeerRow, deliveries: Sequence[Delivery]) -> Outcome:
    """Make messages of forms that waited and pass the gate today, now that there is a key to seal them to.

    Raises:
        NoCurrentKey: there is none after all.
    """
    outcome, awaited = Outcome(), set[str]()
    for delivery in deliveries:
        number = delivery.number
        opened = await open_waiting(services, lambda tx, number=number: form_of_delivery(tx, number))  # type: ignore[misc]
        if opened is None:
            continue
        if not opened.decision.passes:
            outcome.held.append((delivery, why_held(opened.decision)))
            if opened.decision.awaits:
                awaited.add(opened.kept.message_id)
                await services.store.write(_await_approval(services, opened))
            continue
        disclosure = opened.disclosure
        if disclosure.state == AWAITING:  # the policy wants nobody any more
            disclosure = replace(disclosure, state=PASSED)
        signing = sign_form(services, opened.form, row, disclosure, opened.kept)
        if await services.store.write(_while_it_waits(number, signing)):
            services.counters.add("messages_signed")
    services.changes.notify()
    outcome.is_over = lambda tx: approved_meanwhile(tx, awaited)
    return outcome


def why_held(decision: Decision) -> str:
    """Why a form that the gate does not let pass is held."""
    if decision.awaits:
        return AWAITS_APPROVAL
    first = decision.of(Effect.REFUSE)[0]
    return f"the gate is closed: {first.path}: {first.message}"


def _await_approval(services: Services, opened: Opened) -> Operation[None]:
    """A second person is wanted now who was not when the form was sent."""

    async def operation(tx: Transaction) -> None:
        row = await disclosure_of(tx, opened.kept.message_id)
        if row is None or row.state == PASSED:
            await put_disclosure(tx, awaiting(row or opened.disclosure, opened.facts, services.now_ms()))

    return operation


async def approved_meanwhile(tx: Transaction, message_ids: Iterable[str]) -> bool:
    """Whether a second person has approved one of the forms since the gate was asked."""
    rows = [await disclosure_of(tx, message_id) for message_id in message_ids]
    return any(row is not None and row.state == APPROVED for row in rows)


def _while_it_waits(number: int, operation: Operation[None]) -> Operation[bool]:
    """Sign a form only while it is there: another replica may have signed it meanwhile, or a person refused it."""

    async def checked(tx: Transaction) -> bool:
        if await form_of_delivery(tx, number) is None:
            return False
        await operation(tx)
        return True

    return checked
