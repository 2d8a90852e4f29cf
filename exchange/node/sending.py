"""Send a form: check it, split it, seal it to the receiving node, and store it with its place in the outbox.

Nothing is sealed that the gate does not let pass on that day: neither when it is sent nor when it has waited.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from exchange.crypto.names import MessageId, new_message_id
from exchange.handover.gate import Decision, Effect, Override
from exchange.node.cards import NO_CURRENT_KEY, peer_card
from exchange.node.disclosing import describe_grounds, new_disclosure
from exchange.node.errors import IdentityRevoked, NoCurrentKey, PeerUnknown, PeerUntrusted
from exchange.node.form_message import SplitForm, sign_form
from exchange.node.gate import AWAITS_APPROVAL, decide_now, describe_preview, describe_warnings, refuse_if_closed
from exchange.node.repeats import is_known, sent_before
from exchange.node.services import Services
from exchange.node.staging import staged_for
from exchange.node.waiting_forms import keep_form
from exchange.schema.errors import Finding, FormInvalid
from exchange.schema.form import Form, decode_form
from exchange.schema.quality import check_form
from exchange.schema.split import split
from exchange.schema.vocabulary import MoveType
from exchange.store.agreements import agreements_with
from exchange.store.disclosures import DisclosureRow
from exchange.store.messages import add_alarm
from exchange.store.peers import PeerRow, peers_of_area
from exchange.store.transaction import Transaction


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


@dataclass(frozen=True, slots=True, repr=False)
class Sender:
    """Who sends a form, and why it may pass the gate in an emergency, if they say so."""

    name: str
    override: str | None = None

    def overrides(self) -> Override | None:
        """The override that they ask for."""
        return None if self.override is None else Override(self.name, self.override)


async def send_form(
    services: Services,
    data: bytes,
    to_area: str,
    has_current_key: Callable[[str], Awaitable[bool]],
    sender: Sender,
    message_id: MessageId | None = None,
) -> dict[str, Any]:
    """Store a form message for the borough that serves `to_area`; returns its id and where each section is to go.

    Where the peer has no key to seal to and cannot be asked for one, or a second person must approve, the form itself
    waits, sealed at rest, and becomes a message under the same id when there is what it waits for.
    The same form under a `message_id` of the caller's again changes nothing, and is answered as before.

    Raises:
        IdentityRevoked: this node's identity is revoked.
        FormInvalid: nothing was stored.
        GateClosed: something is missing without which nothing leaves; nothing was stored.
        Conflict: another form was sent under that `message_id`.
        PeerUnknown: no peer serves the area.
        PeerUntrusted: it is not verified, or is suspended or quarantined.
        QueueFull: as much waits for the peer as may.
        StoreFull: the disk is nearly full.
    """
    if services.revoked.file is not None:
        raise IdentityRevoked("this node's identity is revoked; nothing was sent")
    form = decode_form(data)
    split_form = SplitForm(
        message_id or new_message_id(services.now_ms()),
        split(form, services.catalogue),
        form.referral.move_type is MoveType.URGENT,
        await staged_for(services, message_id) if message_id is not None else {},
    )
    agreements = await services.store.read(lambda tx: agreements_with(tx, to_area))
    override = sender.overrides()
    facts, decision = decide_now(services, form, split_form.parts, agreements, sender.name, override=override)
    if message_id is not None:
        # Before all checks: what was right when it was sent first may not be so any more, and was sent.
        before = await sent_before(services, message_id, data, split_form.parts)
        if before is not None:
            return _describe_sent(split_form, to_area, decision, **before, repeated=True)
    errors = [*facts.errors, *_misdirected(services, form, to_area)]
    if errors:
        raise FormInvalid(tuple(errors))
    row = peer_for_area(await services.store.read(peers_of_area(to_area), brief=True), to_area)
    if decision.of(Effect.REFUSE):
        services.counters.add("gate_refusals")
    refuse_if_closed(decision)
    services.admission.check_sending(f"peer:{row.origin}")
    store_key = services.keyring.store_key
    disclosure = new_disclosure(store_key, split_form.message_id, facts, decision, override, services.now_ms())
    held: str | None = AWAITS_APPROVAL if decision.awaits else None
    try:
        operation = (
            sign_form(services, split_form, row, disclosure)
            if held is None
            else keep_form(services, split_form, data, row, disclosure, held)
        )
    except NoCurrentKey:
        if await has_current_key(row.origin):
            row = peer_for_area(await services.store.read(peers_of_area(to_area), brief=True), to_area)
            operation = sign_form(services, split_form, row, disclosure)
        else:
            held = NO_CURRENT_KEY
            operation = keep_form(services, split_form, data, row, disclosure, held)

    async def once(tx: Transaction) -> bool:
        if await is_known(tx, services.configuration.origin, split_form.message_id):
            return False
        await operation(tx)
        if disclosure.lifted is not None:
            await _tell_of_override(tx, services, disclosure)
        return True

    if not await services.store.write(once):
        # The same request twice at the same time: the other one was first.
        before = await sent_before(services, split_form.message_id, data, split_form.parts)
        before = before or {"peer": row.origin, "held": held}
        return _describe_sent(split_form, to_area, decision, **before, repeated=True)
    _count_sent(services, held, decision)
    return _describe_sent(split_form, to_area, decision, row.origin, held, repeated=False)


def _misdirected(services: Services, form: Form, to_area: str) -> list[Finding]:
    """Errors of a form that is for others than those between whom it is to go."""
    errors, own_area = [], services.configuration.tables.node.area
    if form.referral.from_area != own_area:
        errors.append(Finding("error", "referral.from_area", f"is not this node's area, {own_area}"))
    if form.referral.to_area != to_area:
        errors.append(Finding("error", "referral.to_area", "is not the area that the form is being sent to"))
    return errors


async def preview_form(services: Services, data: bytes, to_area: str, sender: Sender) -> dict[str, Any]:
    """What the gate would say of a form if it were sent now, and who would read what on what ground. Nothing is stored.

    Raises:
        FormInvalid: it cannot be read.
    """
    form = decode_form(data)
    parts = split(form, services.catalogue)
    agreements = await services.store.read(lambda tx: agreements_with(tx, to_area))
    _, decision = decide_now(services, form, parts, agreements, sender.name, override=sender.overrides())
    findings = [*_misdirected(services, form, to_area), *check_form(form, services.catalogue, services.now().date())]
    pairs = [(part.name, part.readers) for part in parts]
    return describe_preview(decision, findings, describe_grounds(pairs, decision.grounds))


async def _tell_of_override(tx: Transaction, services: Services, disclosure: DisclosureRow) -> None:
    """Never silently: the admins are told of each form that passed by an override."""
    detail = (
        f"{disclosure.sent_by} sent {disclosure.message_id} to {disclosure.area} without {disclosure.lifted}. "
        "`exchange overrides list` says why."
    )
    await add_alarm(tx, "gate-overridden", services.configuration.origin, detail, disclosure.at_ms)
    services.log.error("alarm", code="gate-overridden", message_id=disclosure.message_id, area=disclosure.area)


def _count_sent(services: Services, held: str | None, decision: Decision) -> None:
    counters = services.counters
    counters.add("messages_signed" if held is None else "forms_waiting")
    if decision.awaits:
        counters.add("approvals_awaited")
    if decision.of(Effect.LIFTED):
        counters.add("gate_overrides")
    elif decision.of(Effect.WARN):
        counters.add("gate_warnings")


def _describe_sent(
    form: "SplitForm", to_area: str, decision: Decision, peer: str, held: str | None, *, repeated: bool
) -> dict[str, Any]:
    return {
        "id": form.message_id,
        "to": to_area,
        "peer": peer,
        "urgent": form.urgent,
        "sections": [
            {"section": part.name, "agency": kind, "rung": None} for part in form.parts for kind in part.readers
        ],
        "held": held,
        "awaits_approval": held == AWAITS_APPROVAL,
        "overrode": list(dict.fromkeys(item.need.value for item in decision.of(Effect.LIFTED))),
        "warnings": describe_warnings(decision),
        "repeated": repeated,
    }


def describe_findings(findings: Iterable[Finding]) -> dict[str, Any]:
    """Findings for a person or a script."""
    items = [asdict(finding) for finding in findings]
    return {"ok": not any(item["severity"] == "error" for item in items), "findings": items}
