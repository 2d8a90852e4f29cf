"""An agency with a key of its own confirms an order by what it signs, and nobody says it in its name unseen."""

import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.agency.event import OrderEvent, parse_event
from exchange.agency.ordered import read_order, sign_confirmation
from exchange.agency.receiving import Agency as Receiving
from exchange.agency.receiving import Inbox, carry_out
from exchange.agency.senders import KnownSenders
from tests.node.pair import Clock, until
from tests.node.test_orders import order
from tests.node.test_signed_words import COUNTERPART_KEYS, HOUSING_KEYS, Sealed, sealed_pair


@pytest.fixture
async def at(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Sealed]:
    async with sealed_pair(tmp_path, clock) as made:
        yield made


async def told(at: Sealed) -> OrderEvent:
    """The order as the agency gets it."""

    async def came() -> Any:
        found = [event for event in at.receiver.accepted if event["type"] == "exchange.section.recalled.v1"]
        return [event for event in found if event["data"]["section"] == "housing"] or None

    event = parse_event(json.dumps((await until("it came", came))[0]).encode())
    assert isinstance(event, OrderEvent)
    return event


async def order_of(at: Sealed) -> dict[str, Any]:
    return dict((await at.housing(at.hackney))["order"])


async def test_an_agency_with_a_key_has_confirmed_when_it_has_signed(at: Sealed) -> None:
    await order(at.hackney, at.message, "recall", "housing")
    event = await told(at)
    await at.at_sender("recalled")
    assert (await order_of(at))["confirmed_at"] is None, "a 2xx is not enough"
    proven = read_order(event)
    wrong = sign_confirmation(proven, "housing", COUNTERPART_KEYS, datetime.now(UTC))
    path = f"/v1/sections/{at.message}/housing/confirm"
    from exchange.agency.errors import NodeRefused

    for body in (wrong, {}):
        with pytest.raises(NodeRefused):
            await ask(at, path, body)
    body = sign_confirmation(proven, "housing", HOUSING_KEYS, datetime.now(UTC))
    assert (await ask(at, path, body))["confirmed"] is True

    async def confirmed() -> Any:
        found = await order_of(at)
        return found if found["confirmed_at"] else None

    found = await until("it is confirmed", confirmed)
    assert found["confirmed_by"] == "agency-signed"
    assert "signed by its own key" in found["text"]


async def ask(at: Sealed, path: str, body: Any) -> Any:
    import asyncio

    return await asyncio.to_thread(at.asking.ask, "POST", path, body)


async def test_an_agency_may_sign_in_its_answer_to_the_order(at: Sealed) -> None:
    def says(event: Any) -> bytes:
        parsed = parse_event(json.dumps(event).encode())
        if not isinstance(parsed, OrderEvent):
            return b""
        return msgspec.json.encode(sign_confirmation(read_order(parsed), "housing", HOUSING_KEYS, datetime.now(UTC)))

    at.receiver.says, at.receiver.status = says, 200
    await order(at.hackney, at.message, "erase", "housing")

    async def confirmed() -> Any:
        found = await order_of(at)
        return found if found["confirmed_at"] else None

    assert (await until("it is confirmed", confirmed))["confirmed_by"] == "agency-signed"


async def test_the_agencys_program_deletes_what_was_recalled_and_takes_it_no_more(at: Sealed, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    directory.mkdir()
    inbox = Inbox(directory)
    agency = Receiving("housing", at.enfield.origin, HOUSING_KEYS, [], KnownSenders())
    (body,) = [json.dumps(event).encode() for event in at.receiver.accepted if event["id"] == at.event.id][:1]
    assert inbox.keep(agency, at.event.id, body)
    await order(at.hackney, at.message, "recall", "housing")
    event = await told(at)
    answer = carry_out(agency, inbox, event, datetime.now(UTC).timestamp())
    assert answer["acknowledgement"]["statement"]
    assert inbox.ids() == []
    (line,) = inbox.withdrawn(10)
    assert (line.section, line.kind, line.sender) == ("housing", "recall", at.hackney.origin)
    assert not inbox.keep(agency, at.event.id, body), "it does not come back"
    assert carry_out(agency, inbox, event, datetime.now(UTC).timestamp())["acknowledgement"], "the same again"
    from exchange.agency.errors import OtherBorough

    other = msgspec.structs.replace(
        event, data=msgspec.structs.replace(event.data, message_id=event.data.message_id[::-1])
    )
    with pytest.raises(OtherBorough):
        carry_out(agency, inbox, other, datetime.now(UTC).timestamp())
