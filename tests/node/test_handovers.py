"""Who is responsible for what, who is told that it is late, and what people record of the whole."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from exchange.node.deadline_watch import DeadlineWatch
from exchange.schema.catalogue import default_catalogue
from tests.node.agency import Agency
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, Pair, running_pair, until

HOLDER = {"name": "Ana Fictitious", "role": "Duty officer", "contact": "020 7946 0000"}
OVERDUE, UNTOLD = "exchange.handover.overdue.v1", "overdue-untold"


@dataclass
class Case:
    """A message that went from Hackney to Enfield, both of which have a housing agency and a coordinator."""

    pair: Pair
    clock: Clock
    message: str
    #: By borough and kind.
    agencies: dict[tuple[str, str], Agency]

    async def later(self, **wait: float) -> None:
        """Let time pass, and both nodes look at what is due."""
        self.clock.now_ms += round(timedelta(**wait).total_seconds() * 1000)
        for node in (self.pair.hackney, self.pair.enfield):
            await DeadlineWatch(node.services).look()
        for (borough, _), agency in self.agencies.items():
            # The node's own watch wakes a lane at once; of this one it hears when it looks again.
            node = self.pair.hackney if borough == "hackney" else self.pair.enfield
            assert (await node.local("POST", f"/v1/agencies/{agency.id}/resume"))[0] == 200

    async def show(self, node: Node | None = None) -> Any:
        return (await (node or self.pair.hackney).local("GET", f"/v1/handovers/{self.message}"))[1]

    async def listed(self, node: Node, *, overdue: bool = True) -> list[Any]:
        status, document = await node.local("GET", f"/v1/handovers?overdue={str(overdue).lower()}")
        assert status == 200, document
        return list(document["items"])

    async def own(self, section: str, kind: str) -> None:
        status, document = await self.pair.enfield.local(
            "POST", f"/v1/sections/{self.message}/{section}/own", {**HOLDER, "agency": kind}
        )
        assert status == 200, document

    async def told(self, borough: str, kind: str, count: int) -> list[Any]:
        """Wait until an agency was told so often that something is late."""
        agency = self.agencies[borough, kind]

        async def came() -> Any:
            found = [event for event in agency.accepted if event["type"] == OVERDUE]
            return found if len(found) >= count else None

        return list(await until(f"{borough}'s {kind} is told", came))


@pytest.fixture
async def case(tmp_path: Path, clock: Clock) -> AsyncIterator[Case]:
    async with AsyncExitStack() as stack:
        clock.run()
        pair = await stack.enter_async_context(running_pair(tmp_path, clock))
        agencies = {}
        for borough, node in (("hackney", pair.hackney), ("enfield", pair.enfield)):
            for kind in ("housing", "coordinator"):
                agency = agencies[borough, kind] = await stack.enter_async_context(Agency(kind).listening())
                await agency.register(node)
        message = await pair.hackney.send(ENFIELD)

        async def delivered() -> bool:
            found = (await pair.hackney.status(message))["sections"]
            return all(item["rung"] == "delivered" for item in found if item["agency"] in ("housing", "coordinator"))

        await until("the two agencies have their sections", delivered)
        yield Case(pair, clock, message, agencies)


def section(document: Any, name: str, kind: str) -> Any:
    return next(item for item in document["sections"] if (item["section"], item["agency"]) == (name, kind))


async def test_the_sender_is_responsible_until_a_named_holder_is(case: Case) -> None:
    for node in (case.pair.hackney, case.pair.enfield):
        found = section(await case.show(node), "housing", "housing")
        assert (found["responsible"], found["borough"], found["holder"]) == ("sender", HACKNEY, None)
        assert (found["missing"], found["overdue"]) == ("nobody has taken it on", False)
    await case.own("housing", "housing")

    async def owned() -> bool:
        return bool(section(await case.show(), "housing", "housing")["responsible"] == "holder")

    await until("the sender sees the holder", owned)
    for node in (case.pair.hackney, case.pair.enfield):
        found = section(await case.show(node), "housing", "housing")
        assert (found["borough"], found["holder"], found["due_at"]) == (ENFIELD, HOLDER["name"], None)


async def test_who_is_late_is_told_at_both_ends_then_the_coordinators_and_each_once(case: Case) -> None:
    await case.later(days=3, minutes=5)
    for borough in ("hackney", "enfield"):
        (event,) = await case.told(borough, "housing", 1)
        assert (event["subject"], event["data"]["agency"]) == (case.message, "housing")
        (late,) = event["data"]["overdue"]
        assert (late["step"], late["agency"]) == ("owned", "housing")
        assert "housing" in late["sections"]
    await case.later(days=0)
    await case.later(days=4)
    for borough in ("hackney", "enfield"):
        events = await case.told(borough, "coordinator", 2)
        assert {late["agency"] for late in events[-1]["data"]["overdue"]} >= {"housing", "coordinator"}
        assert len(await case.told(borough, "housing", 1)) == 1


async def test_who_is_told_gets_a_reference_and_no_content(case: Case, lines: io.StringIO) -> None:
    await case.later(days=4)
    (event,) = await case.told("enfield", "housing", 1)
    assert set(event["data"]) == {"message_id", "from", "to", "urgent", "agency", "overdue"}
    assert "Fictitious" not in json.dumps(event) + lines.getvalue()


async def test_what_was_done_before_it_could_be_told_is_not_told(case: Case) -> None:
    agency = case.agencies["hackney", "housing"]
    agency.status = 500
    await case.later(days=4)
    await until("it is tried", lambda: _true(len(agency.events) > 1))
    for name in {item["section"] for item in (await case.show())["sections"] if item["agency"] == "housing"}:
        await case.own(name, "housing")

    async def nothing_is_due() -> bool:
        return not any(step["agency"] == "housing" for step in (await case.show())["due"])

    await until("all is owned", nothing_is_due)
    agency.status = 204
    before = len(agency.accepted)
    await until("nothing waits for housing", lambda: _empty(case.pair.hackney, "agency:housing"))
    assert len(agency.accepted) == before


async def test_the_list_of_what_is_overdue_ends_when_it_is_done(case: Case) -> None:
    assert await case.listed(case.pair.hackney) == []
    await case.later(days=4)
    (item,) = await case.listed(case.pair.hackney)
    assert (item["id"], item["overdue"], item["held"]) == (case.message, True, 0)
    assert item["next"]["overdue"]
    (item,) = await case.listed(case.pair.enfield)
    assert item["direction"] == "in"


async def test_the_admins_are_told_where_no_agency_is_there_to_be_told(case: Case) -> None:
    await case.later(days=4)
    alarms = [alarm for alarm in await case.pair.hackney.alarms(case.pair.hackney.origin) if alarm["kind"] == UNTOLD]
    assert any("kind police" in alarm["detail"] for alarm in alarms)
    await case.later(hours=1)
    after = [alarm for alarm in await case.pair.hackney.alarms(case.pair.hackney.origin) if alarm["kind"] == UNTOLD]
    assert after == alarms


async def test_a_handover_is_not_complete_while_a_section_has_no_holder(case: Case) -> None:
    path = f"/v1/handovers/{case.message}"
    status, problem = await case.pair.hackney.local("POST", f"{path}/complete")
    assert (status, problem["code"]) == (409, "handover-open")
    status, document = await case.pair.hackney.local("POST", f"{path}/met")
    assert (status, document["complete_at"]) == (200, None)
    first = document["met_at"]
    assert (await case.pair.hackney.local("POST", f"{path}/met"))[1]["met_at"] == first, "the first word stays"
    assert not any(step["step"] == "met" for step in document["due"])


async def test_a_handover_of_which_each_section_has_a_holder_is_completed(case: Case) -> None:
    async with AsyncExitStack() as stack:
        for kind in sorted(default_catalogue().kinds() - {"housing", "coordinator"}):
            agency = await stack.enter_async_context(Agency(kind).listening())
            await agency.register(case.pair.enfield)
        await case.pair.hackney.reached(case.message, "delivered")
        for item in (await case.show())["sections"]:
            await case.own(item["section"], item["agency"])
        await case.pair.hackney.reached(case.message, "owned")
        for node in (case.pair.hackney, case.pair.enfield):
            status, document = await node.local("POST", f"/v1/handovers/{case.message}/complete")
            assert (status, document["due"], document["overdue"]) == (200, [], False), document
            await case.later(days=60)
            assert await case.listed(node) == []
            _, timeline = await node.local("GET", f"/v1/messages/{case.message}/timeline")
            assert timeline["events"][-1]["event"] == "complete"


async def test_a_node_that_was_down_when_it_was_due_tells_then(case: Case) -> None:
    await case.later(days=30)
    (first, *_) = await case.told("hackney", "coordinator", 1)
    assert {"owned", "met"} <= {late["step"] for late in first["data"]["overdue"]}


async def _true(value: bool) -> bool:
    return value


async def _empty(node: Node, lane: str) -> bool:
    return node.rows(f"SELECT count(*) FROM outbox WHERE lane = '{lane}'") == [(0,)]
