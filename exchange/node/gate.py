"""The gate around a running node: what `handover.gate` needs is read here, and what it says is told here."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Final

from exchange.handover.agreement import Agreement, Standing
from exchange.handover.form_facts import facts_of
from exchange.handover.gate import Decision, Effect, Facts, Missing, Need, Override, Policy, decide
from exchange.node.config import GateTable
from exchange.node.errors import GateClosed
from exchange.node.rounds import go_round
from exchange.node.services import Services, moment
from exchange.schema.errors import Finding
from exchange.schema.form import Form
from exchange.schema.legal import Basis, Gateway, Regime
from exchange.schema.quality import check_form
from exchange.schema.split import FormPart
from exchange.store.agreements import AgreementRow, all_agreements
from exchange.store.disclosures import DisclosureRow, awaiting_approval
from exchange.store.messages import add_alarm, has_alarm
from exchange.store.transaction import Transaction

#: Why a form is held that a second person has not approved.
AWAITS_APPROVAL: Final = "it awaits a second person's approval"
_LOOK_EVERY_S: Final = 30.0


def policy_of(table: GateTable) -> Policy:
    """What the configuration wants of the gate."""
    return Policy(table.agreements == "required", frozenset(table.second_approver))


def agreement_of(row: AgreementRow) -> Agreement:
    """What of an agreement is decided by."""
    return Agreement(
        id=row.id,
        area=row.area,
        kinds=frozenset(json.loads(row.kinds)),
        bases={
            kind: Basis(Regime(regime), Gateway(gateway)) for kind, (regime, gateway) in json.loads(row.bases).items()
        },
        starts_on=date.fromisoformat(row.starts_on),
        ends_on=date.fromisoformat(row.ends_on),
        ended=row.ended_at_ms is not None,
    )


def decide_now(
    services: Services,
    form: Form,
    parts: Sequence[FormPart],
    rows: Iterable[AgreementRow],
    sent_by: str,
    *,
    approvals: Iterable[str] = (),
    override: Override | None = None,
) -> tuple[Facts, Decision]:
    """What the gate says of a form today, and by what."""
    today = services.now().date()
    errors = [item for item in check_form(form, services.catalogue, today) if item.severity == "error"]
    facts = facts_of(form, parts, services.catalogue, errors, sent_by)
    policy = policy_of(services.configuration.tables.gate)
    return facts, decide(facts, map(agreement_of, rows), policy, today, approvals, override)


def refuse_if_closed(decision: Decision) -> None:
    """Let a form pass, or wait for its second person.

    Raises:
        GateClosed: something else is missing.
    """
    refused = decision.of(Effect.REFUSE)
    if refused:
        raise GateClosed(refused)


def describe_missing(item: Missing) -> dict[str, str]:
    """Something that is missing, for a person or a script."""
    return {"severity": item.effect.value, "path": item.path, "message": item.message, "hint": item.hint}


def describe_warnings(decision: Decision) -> list[dict[str, str]]:
    """What a form passed in spite of, because agreements are advised and not required."""
    return [
        {"path": item.path, "message": item.message, "hint": item.hint}
        for item in (*decision.of(Effect.WARN), *decision.of(Effect.LIFTED))
    ]


def describe_preview(decision: Decision, findings: Iterable[Finding], sections: object) -> dict[str, Any]:
    """What the gate would say of a form, with what its quality checks found."""
    found = [
        *({"severity": one.severity, "path": one.path, "message": one.message, "hint": ""} for one in findings),
        *(describe_missing(item) for item in decision.missing if item.need is not Need.FORM),
    ]
    return {
        "ok": not any(item["severity"] == "error" for item in found),
        "awaits_approval": decision.awaits,
        "findings": found,
        "sections": sections,
    }


def is_overdue(row: DisclosureRow, now_ms: int) -> bool:
    """Whether a form has waited too long for its second person."""
    return row.due_ms is not None and row.due_ms <= now_ms


async def describe_gate(tx: Transaction, services: Services) -> dict[str, Any]:
    """How the gate stands, for `health`."""
    table, today = services.configuration.tables.gate, services.now().date()
    standings = [agreement_of(row).standing(today) for row in await all_agreements(tx)]
    waiting = await awaiting_approval(tx)
    now_ms = services.now_ms()
    return {
        "agreements": table.agreements,
        "second_approver": list(table.second_approver),
        "in_force": sum(standing in (Standing.ACTIVE, Standing.ENDING) for standing in standings),
        "ending": standings.count(Standing.ENDING),
        "expired": standings.count(Standing.EXPIRED),
        "awaiting_approval": len(waiting),
        "approvals_overdue": sum(is_overdue(row, now_ms) for row in waiting),
    }


class Gatekeeper:
    """Tells the admins, once each, of agreements near their end and of approvals that do not come."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._woken = asyncio.Event()

    def soon(self) -> None:
        """Look again now."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""
        await go_round(self._services, self.look, self._woken, _LOOK_EVERY_S, stop)

    async def look(self) -> None:
        """Tell what there is to be told now."""
        if await self._services.store.read(self._unheard):
            await self._services.store.write(self._tell)

    async def _unheard(self, tx: Transaction) -> list[tuple[str, str]]:
        services, origin = self._services, self._services.configuration.origin
        now_ms, today = services.now_ms(), services.now().date()
        found = []
        for row in await all_agreements(tx):
            agreement = agreement_of(row)
            if not agreement.ended and agreement.standing(today) in (Standing.ENDING, Standing.EXPIRED):
                detail = f"{row.id} with {row.area} ends on {row.ends_on}."
                found.append(("agreement-ends", detail))
        for waiting in await awaiting_approval(tx):
            if is_overdue(waiting, now_ms):
                since = f"{moment(waiting.at_ms):%Y-%m-%d %H:%M:%S}"
                detail = f"{waiting.message_id} to {waiting.area} has awaited a second person since {since} UTC."
                found.append(("approval-overdue", detail))
        return [(kind, detail) for kind, detail in found if not await has_alarm(tx, kind, origin, detail)]

    async def _tell(self, tx: Transaction) -> None:
        origin, now_ms = self._services.configuration.origin, self._services.now_ms()
        for kind, detail in await self._unheard(tx):
            if kind == "agreement-ends":
                await add_alarm(tx, "agreement-ends", origin, detail, now_ms)
            else:
                await add_alarm(tx, "approval-overdue", origin, detail, now_ms)
            self._services.counters.add(f"alarms_{kind}")
            self._services.log.error("alarm", code=kind, reason=detail)
