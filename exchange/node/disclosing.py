"""What is kept of each disclosure: its grounds in clear, which are no personal data, and a person's reason sealed.

* A reason may hold content. While the form is no message yet, it is sealed under a key of its own; then it goes under
  the message's key, so that what erases the content erases it too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from exchange.crypto.names import MessageId, context
from exchange.crypto.rest import MessageKey, StoreKey, open_at_rest, seal_at_rest, unwrap_message_key, wrap_message_key
from exchange.handover.gate import (
    APPROVAL_DUE,
    URGENT_APPROVAL_DUE,
    Decision,
    Effect,
    Facts,
    Ground,
    Override,
)
from exchange.node.compose import message_key
from exchange.schema.legal import Basis, Gateway, Regime
from exchange.store.disclosures import AWAITING, PASSED, DisclosureRow
from exchange.store.messages import KeysRow

_decode = msgspec.msgpack.Decoder(list[tuple[str | None, str | None, str | None, dict[str, list[str]]]]).decode
_NOWHERE: Final = Ground()


def new_disclosure(
    store_key: StoreKey,
    message_id: MessageId,
    facts: Facts,
    decision: Decision,
    override: Override | None,
    now_ms: int,
) -> DisclosureRow:
    """The row of a form that may leave, or awaits a second person."""
    lifted = ", ".join(dict.fromkeys(item.need.value for item in decision.of(Effect.LIFTED)))
    row = DisclosureRow(
        message_id=message_id,
        area=facts.area,
        sent_by=facts.sent_by,
        at_ms=now_ms,
        state=PASSED,
        due_ms=None,
        decided_by=None,
        decided_at_ms=None,
        lifted=lifted or None,
        grounds=encode_grounds(decision.grounds),
        wrapped=None,
        sealed=None,
    )
    if lifted and override is not None:
        row = with_reason(store_key, row, override.reason)
    return awaiting(row, facts, now_ms) if decision.awaits else row


def awaiting(row: DisclosureRow, facts: Facts, now_ms: int) -> DisclosureRow:
    """The row of a form that awaits a second person from now on. Why is not kept: it is content of the form."""
    due = URGENT_APPROVAL_DUE if "urgent" in facts.reasons else APPROVAL_DUE
    return replace(row, state=AWAITING, due_ms=now_ms + round(due.total_seconds() * 1000))


# Grounds


def encode_grounds(grounds: Mapping[tuple[str, str], Ground]) -> bytes:
    """Grounds, as short as they are alike; who reads a part on no ground is left out."""
    alike: dict[int, tuple[Ground, dict[str, list[str]]]] = {}  # the gate makes few, and gives each many times
    for (section, kind), ground in grounds.items():
        alike.setdefault(id(ground), (ground, {}))[1].setdefault(section, []).append(kind)
    told = [(*_texts(ground), pairs) for ground, pairs in alike.values() if ground != _NOWHERE]
    return msgspec.msgpack.encode(told)


def decode_grounds(data: bytes) -> dict[tuple[str, str], Ground]:
    """What `encode_grounds` encoded."""
    return {
        (section, kind): Ground(agreement, Basis(Regime(regime), Gateway(gateway)) if regime and gateway else None)
        for agreement, regime, gateway, pairs in _decode(data)
        for section, kinds in pairs.items()
        for kind in kinds
    }


def _texts(ground: Ground) -> tuple[str | None, str | None, str | None]:
    if ground.basis is None:
        return ground.agreement, None, None
    return ground.agreement, ground.basis.regime.value, ground.basis.gateway.value


def describe_ground(ground: Ground | None) -> dict[str, Any] | None:
    """Under which agreement and on what basis an agency reads a part; None where there is neither."""
    if ground is None or ground == _NOWHERE:
        return None
    return dict(zip(("agreement", "regime", "gateway"), _texts(ground), strict=True))


def describe_grounds(parts: Iterable[tuple[str, Iterable[str]]], grounds: Mapping[tuple[str, str], Ground]) -> Any:
    """Who reads which part on what ground."""
    return [
        {"section": section, "agency": kind, "basis": describe_ground(grounds.get((section, kind)))}
        for section, kinds in parts
        for kind in kinds
    ]


# Reasons


def _key_name(row: DisclosureRow) -> bytes:
    return context("disclosure", row.message_id.encode())


def _reason_name(row: DisclosureRow) -> bytes:
    return context("disclosure-reason", row.message_id.encode())


def with_reason(store_key: StoreKey, row: DisclosureRow, reason: str) -> DisclosureRow:
    """The row with a reason, under a key of its own."""
    key = MessageKey.random()
    wrapped = wrap_message_key(store_key, key, _key_name(row))
    return replace(row, wrapped=wrapped, sealed=seal_at_rest(key, _reason_name(row), reason.encode()))


def with_message(store_key: StoreKey, row: DisclosureRow, sender: str, keys: KeysRow) -> DisclosureRow:
    """The row with its reason, if it has one, under the key of the message that the form has become."""
    if row.sealed is None:
        return row
    key = message_key(store_key, sender, row.message_id, keys)
    reason = reason_of(store_key, row, sender, None) or ""
    return replace(row, wrapped=None, sealed=seal_at_rest(key, _reason_name(row), reason.encode()))


def reason_of(store_key: StoreKey, row: DisclosureRow, sender: str, keys: KeysRow | None) -> str | None:
    """The reason in a row; None where there is none, or it was erased with the message.

    Raises:
        RestError: what is in the row does not belong to it.
    """
    if row.sealed is None:
        return None
    if row.wrapped is not None:
        key = unwrap_message_key(store_key, row.wrapped, _key_name(row))
    elif keys is not None:
        key = message_key(store_key, sender, row.message_id, keys)
    else:
        return None
    return open_at_rest(key, _reason_name(row), row.sealed).decode()
