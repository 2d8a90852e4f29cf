"""Agreements stay when they have ended, and what the gate said of a form is found until long after it went."""

import dataclasses
from typing import Any

import pytest

from exchange.store.agreements import (
    AgreementRow,
    add_agreement,
    agreement_by_id,
    agreements_with,
    all_agreements,
    end_agreement,
)
from exchange.store.disclosures import (
    APPROVED,
    AWAITING,
    PASSED,
    DisclosureRow,
    add_disclosure,
    awaiting_approval,
    disclosure_of,
    keep_disclosure,
    overridden,
    put_disclosure,
)
from exchange.store.errors import AlreadyThere, NotFound
from exchange.store.outbox import FORM, enqueue_one, new_delivery
from exchange.store.transaction import Store, Transaction
from exchange.store.waiting import WaitingForm, add_waiting_form, drop_waiting_form
from tests.store.conftest import NOW_MS, call

ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


def agreement_row(agreement_id: str = "agreement-1", **changes: Any) -> AgreementRow:
    row = AgreementRow(
        id=agreement_id,
        area="E09000010",
        kinds="[]",
        bases='{"": ["uk-gdpr", "common-law"]}',
        title="A protocol",
        reference="IG-1",
        starts_on="2026-11-01",
        ends_on="2027-10-31",
        review_on=None,
        sha256=None,
        added_by="ada",
        added_at_ms=NOW_MS,
    )
    return dataclasses.replace(row, **changes)


def disclosure_row(message_id: str = ONE, **changes: Any) -> DisclosureRow:
    row = DisclosureRow(
        message_id=message_id,
        area="E09000010",
        sent_by="ada",
        at_ms=NOW_MS,
        state=PASSED,
        due_ms=None,
        decided_by=None,
        decided_at_ms=None,
        lifted=None,
        grounds=b"\x90",
        wrapped=None,
        sealed=None,
    )
    return dataclasses.replace(row, **changes)


async def waits(tx: Transaction, message_id: str) -> None:
    """Keep a form, as one does that awaits somebody."""
    row = new_delivery("peer:a", FORM, now_ms=NOW_MS, deadline_ms=NOW_MS, held="it awaits somebody")
    number = await enqueue_one(tx, row)
    await add_waiting_form(
        tx, WaitingForm(number, message_id, "a", 0, NOW_MS, b"sections", b"wrapped", b"sealed", "held", None)
    )


async def test_an_agreement_is_ended_once_and_stays(store: Store) -> None:
    await store.write(call(add_agreement, agreement_row()))
    await store.write(call(add_agreement, agreement_row("agreement-2", area="E09000012")))
    ended = await store.write(call(end_agreement, "agreement-1", "ben", "over", NOW_MS + 1))
    assert (ended.ended_by, ended.ended_at_ms, ended.ended_reason) == ("ben", NOW_MS + 1, "over")
    with pytest.raises(AlreadyThere, match="ended by ben"):
        await store.write(call(end_agreement, "agreement-1", "cem", "again", NOW_MS + 2))
    with pytest.raises(NotFound):
        await store.write(call(end_agreement, "agreement-9", "cem", "none", NOW_MS))
    assert await store.read(call(agreement_by_id, "agreement-1")) == ended
    assert await store.read(call(agreements_with, "E09000010")) == [ended]
    assert [row.id for row in await store.read(all_agreements)] == ["agreement-1", "agreement-2"]


async def test_what_awaits_somebody_is_what_has_a_form_that_waits(store: Store) -> None:
    for message_id in (ONE, TWO):
        await store.write(call(add_disclosure, disclosure_row(message_id, state=AWAITING, due_ms=1)))
        await store.write(call(waits, message_id))
    found = await store.read(awaiting_approval)
    assert [row.message_id for row in found] == [ONE, TWO]
    await store.write(call(keep_disclosure, dataclasses.replace(found[0], state=APPROVED, decided_by="ben")))
    await store.write(call(drop_waiting_form, TWO))
    assert await store.read(awaiting_approval) == []
    kept = await store.read(call(disclosure_of, ONE))
    assert kept is not None
    assert (kept.state, kept.decided_by, kept.due_ms) == (APPROVED, "ben", 1)


async def test_overrides_are_listed_newest_first(store: Store) -> None:
    await store.write(call(add_disclosure, disclosure_row(ONE, lifted="agreement")))
    await store.write(call(put_disclosure, disclosure_row(TWO, lifted="approval", at_ms=NOW_MS + 1)))
    await store.write(call(add_disclosure, disclosure_row("00000000-0000-4000-8000-000000000003")))
    assert [row.message_id for row in await store.read(call(overridden, 9))] == [TWO, ONE]
    assert len(await store.read(call(overridden, 1))) == 1
    await store.write(call(put_disclosure, disclosure_row(TWO)))
    assert [row.message_id for row in await store.read(call(overridden, 9))] == [ONE]
