"""Routing at a node: named agencies, rules, what happens when one is disabled or gone, and trying rules out."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.node.errors import RequestInvalid
from exchange.node.routing import give
from exchange.store.errors import NotFound
from exchange.store.messages import message_by_id
from exchange.store.transaction import Transaction
from tests import databases
from tests.node.agency import LOOPBACK, Agency
from tests.node.handmade import Borough, Desk, read_reply
from tests.node.pair import ENFIELD, Clock, Node, running, running_pair, until
from tests.node.test_agencies import delivered, send
from tests.node.test_agencies import sections as sections_of
from tests.node.test_sealed import HOUSING_KEYS, announced, key_of, sealed_agency

RULES = """
[[routing.rule]]
sections = ["subject"]
areas = ["E09000007"]
to = ["housing/south", "housing/north"]
"""
REFERRAL = {"move_type": "urgent", "age_band": "under-18"}


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


class Named(Agency):
    """An agency with a name."""

    @property
    def name(self) -> str:
        return self.kind

    async def register(self, node: Node) -> None:
        self._registered.clear()
        kind, _, label = self.name.partition("/")
        body: dict[str, Any] = {"kind": kind, "url": self.url, "networks": LOOPBACK}
        status, document = await node.local("POST", "/v1/agencies", body | ({"label": label} if label else {}))
        assert (status, document["kind"], document["name"]) == (201, kind, self.name), document
        self.secret, self.id = document["secret"], document["id"]
        self._registered.set()


@pytest.fixture
async def named() -> AsyncIterator[dict[str, Named]]:
    """Agencies that listen; none is registered yet."""
    names = ("housing", "housing/south", "housing/north", "police", "coordinator")
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(Named(name).listening()) for name in names}  # type: ignore[misc]


@asynccontextmanager
async def with_rules(tmp_path: Path, clock: Clock, rules: str) -> AsyncIterator[Node]:
    async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock, rules) as node:
        yield node


async def register(node: Node, named: dict[str, Named], *names: str) -> None:
    for name in names:
        await named[name].register(node)


def got(named: dict[str, Named]) -> dict[str, list[str]]:
    return {name: sections_of(agency.accepted) for name, agency in named.items() if agency.accepted}


async def given_to(node: Node, message_id: str) -> dict[tuple[str, str], str | None]:
    found = (await node.status(message_id))["sections"]
    return {(row["section"], row["agency"]): row["given_to"] for row in found}


async def send_form(node: Node, camden: Borough, referral: Any = REFERRAL) -> str:
    """Send a message with the form's referral and a section for housing."""
    card = await node.card()
    content = msgspec.msgpack.encode(referral)
    made = camden.message(card, (("referral", ("housing", "police")), ("housing", ("housing",))), content=content)
    _, body = await node.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    assert read_reply(body).results[0].receipt is not None
    return made.manifest.message_id


async def test_agencies_of_a_kind_have_names_and_a_rule_says_who_gets_what(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    async with with_rules(tmp_path, clock, RULES) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing", "housing/south", "police")
        sent = await send(enfield, desk.borough)
        await delivered(enfield, sent, "housing", "police")
        assert got(named) == {"housing": ["housing"], "housing/south": ["subject"], "police": ["police", "subject"]}
        assert await given_to(enfield, sent) == {
            ("housing", "housing"): "housing",
            ("police", "police"): "police",
            ("subject", "housing"): "housing/south",
            ("subject", "police"): "police",
            ("subject", "dwp"): None,
        }
        attempts = (await enfield.local("GET", f"/v1/messages/{sent}/attempts"))[1]["items"]
        assert {(item["agency"], item["section"]) for item in attempts} >= {("housing/south", "subject")}
        # Boroughs know kinds alone.
        assert [agency.kind for agency in (await enfield.card()).agencies] == ["housing", "police"]


async def test_a_name_is_had_once(enfield: Node, named: dict[str, Named]) -> None:
    await register(enfield, named, "housing", "housing/south")
    body = {"kind": "housing", "label": "south", "url": named["housing"].url, "networks": LOOPBACK}
    assert (await enfield.local("POST", "/v1/agencies", body))[0] == 409
    assert (await enfield.local("POST", "/v1/agencies", {**body, "label": "South"}))[0] == 400


async def test_the_move_and_the_age_band_are_read_where_the_node_may_and_kept_nowhere(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    rules = '[[routing.rule]]\nmoves = ["urgent"]\nage_bands = ["under-18"]\nto = ["housing/south"]\n'
    async with with_rules(tmp_path, clock, rules) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing", "housing/south", "police")
        urgent = await send_form(enfield, desk.borough)
        planned = await send_form(enfield, desk.borough, {**REFERRAL, "move_type": "planned"})
        strange = await send_form(enfield, desk.borough, {"move_type": ["urgent"], "age_band": 17})
        expected = {urgent: "housing/south", planned: "housing", strange: "housing"}
        for message_id, name in expected.items():
            await delivered(enfield, message_id, "housing")
            assert (await given_to(enfield, message_id))["housing", "housing"] == name
        kept = str([enfield.rows(f"SELECT * FROM {table}") for table in ("messages", "placements", "timeline")])
        assert "under-18" not in kept


@pytest.mark.parametrize("names", [("housing/north",), ("housing/north", "housing")])
async def test_what_waits_for_an_agency_that_is_disabled_goes_to_the_next_that_the_rule_names(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named], names: tuple[str, ...]
) -> None:
    async with with_rules(tmp_path, clock, RULES) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing/south", *names)
        named["housing/south"].status = 500
        waiting = [await send(enfield, desk.borough) for _ in range(3)]

        async def tried() -> bool:
            return len(named["housing/south"].events) > 2

        await until("it was tried", tried)
        named["housing/south"].status = 410
        after = await send(enfield, desk.borough)
        for message_id in (*waiting, after):

            async def there(message_id: str = message_id) -> bool:
                events = named["housing/north"].accepted
                return any(event["data"]["message_id"] == message_id for event in events)

            await until(f"{message_id} is at the other", there)
            assert (await given_to(enfield, message_id))["subject", "housing"] == "housing/north"
        assert named["housing/south"].accepted == []
        status, _ = await enfield.local("POST", f"/v1/agencies/{named['housing/south'].id}/enable")
        assert status == 200
        named["housing/south"].status = 204
        again = await send(enfield, desk.borough)

        async def back() -> bool:
            return [event["data"]["message_id"] for event in named["housing/south"].accepted] == [again]

        await until("it has its turn again", back)


async def test_where_nobody_else_may_have_it_it_waits_for_the_agency_that_is_disabled(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    async with with_rules(tmp_path, clock, RULES) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing/south")
        named["housing/south"].status = 410
        first, second = [await send(enfield, desk.borough) for _ in range(2)]
        reason = "agency housing/south is disabled: it answered 410"
        for message_id in (first, second):

            async def waits(message_id: str = message_id) -> bool:
                found = (await enfield.status(message_id))["sections"]
                return reason in {row["held"] for row in found if row["agency"] == "housing"}

            await until("it is held for the one that is to have it", waits)
        named["housing/south"].status = 204
        await enfield.local("POST", f"/v1/agencies/{named['housing/south'].id}/enable")
        for message_id in (first, second):
            await delivered(enfield, message_id, "housing")


async def test_what_waits_for_an_agency_that_is_removed_is_routed_again(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    async with with_rules(tmp_path, clock, RULES) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing/south", "housing/north")
        await enfield.local("POST", f"/v1/agencies/{named['housing/south'].id}/pause")
        sent = await send(enfield, desk.borough)

        async def at(name: str) -> bool:
            return (await given_to(enfield, sent))["subject", "housing"] == name

        assert await at("housing/south")
        # Who paused it means it to go on: nothing goes elsewhere.
        reasons = {(row["section"], row["agency"]): row["held"] for row in (await enfield.status(sent))["sections"]}
        assert reasons["subject", "housing"] == "agency housing/south is paused"
        assert reasons["housing", "housing"] == "no rule says which agency of kind housing"
        assert (await enfield.local("DELETE", f"/v1/agencies/{named['housing/south'].id}"))[0] == 200
        await until("the other has it", lambda: at("housing/north"))
        # The only one that is left has the rest of it too.
        await delivered(enfield, sent, "housing")
        assert got(named) == {"housing/north": ["housing", "subject"]}


async def test_the_point_of_contact_has_what_it_may_read_once_for_everybody(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    async with with_rules(tmp_path, clock, '[routing]\nsingle_point_of_contact = "coordinator"\n') as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "coordinator", "housing", "police")
        card = await enfield.card()
        parts = (("subject", ("housing", "police", "coordinator")), ("police", ("police",)))
        made = desk.borough.message(card, parts)
        envelope = desk.borough.envelope(card, [desk.borough.sign_manifest(made)], made.ciphertexts)
        await enfield.post(envelope)
        sent = made.manifest.message_id
        await delivered(enfield, sent, "housing", "police", "coordinator")
        assert got(named) == {"coordinator": ["subject"], "police": ["police"]}


async def test_rules_are_tried_on_what_arrived_and_nothing_moves(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    async with with_rules(tmp_path, clock, RULES) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing", "housing/south", "police")
        sent = await send_form(enfield, desk.borough)
        await delivered(enfield, sent, "housing", "police")
        before = enfield.rows("SELECT section, agency, given_to, rung FROM placements ORDER BY section, agency")
        new = {"rule": [{"moves": ["urgent"], "to": ["housing/south"]}, {"moves": ["planned"], "to": ["police/x"]}]}
        status, found = await enfield.local("POST", "/v1/routing/trial", {"rules": new})
        assert status == 200
        assert (found["messages"], found["sections"], found["unread"], found["left_off"]) == (1, 3, 0, False)
        assert found["agencies"] == [
            {"agency": "housing", "sections": 0, "now": 2},
            {"agency": "housing/south", "sections": 2, "now": 0},
            {"agency": "police", "sections": 1, "now": 1},
        ]
        assert found["changes"] == [{"now": "housing", "then": "housing/south", "sections": 2}]
        assert {(item["id"], item["section"], item["rule"]) for item in found["items"]} == {
            (sent, "housing", 1),
            (sent, "referral", 1),
        }
        assert {finding["message"] for finding in found["findings"]} >= {"no agency police/x is registered"}
        later = (enfield.services.now() + timedelta(seconds=5)).isoformat()
        assert (await enfield.local("POST", "/v1/routing/trial", {"since": later}))[1]["messages"] == 0
        status, wrong = await enfield.local("POST", "/v1/routing/trial", {"rules": {"rule": [{"to": ["hosing"]}]}})
        assert (status, wrong["message"]) == (
            400,
            "routing.rule[0].to: there is no agency kind 'hosing'; did you mean 'housing'?",
        )
        after = enfield.rows("SELECT section, agency, given_to, rung FROM placements ORDER BY section, agency")
        assert after == before


async def test_what_waits_is_routed_again_when_somebody_says_so_and_goes_nowhere_twice(
    tmp_path: Path, clock: Clock, desk: Desk, named: dict[str, Named]
) -> None:
    async with with_rules(tmp_path, clock, RULES) as enfield:
        await enfield.know(desk.borough)
        await register(enfield, named, "housing", "housing/south")
        named["housing/south"].status = 410
        sent = await send(enfield, desk.borough)

        async def waits() -> bool:
            items = (await enfield.local("GET", "/v1/held"))[1]["items"]
            return "housing/south" in {item["agency"] for item in items}

        await until("it is held for the one that is disabled", waits)
        await register(enfield, named, "housing/north")
        assert await waits()
        status, document = await enfield.local("POST", "/v1/routing/again", {"agency": "housing/south"})
        assert (status, document) == (200, {"agency": "housing/south", "deliveries": 1})
        await delivered(enfield, sent, "housing")
        assert got(named) == {"housing": ["housing"], "housing/north": ["subject"]}
        _, document = await enfield.local("POST", "/v1/routing/again", {"agency": "housing/south"})
        assert document["deliveries"] == 0
        assert (await enfield.local("POST", "/v1/routing/again", {"agency": "housing/west"}))[0] == 404
        routed = "SELECT count(*) FROM receipts WHERE rung = 'routed'"
        assert enfield.rows(routed) == [(1,)]


async def given(node: Node, message_id: str, section: str, kind: str, name: str) -> str:
    async def operation(tx: Transaction) -> str:
        return await give(node.services, tx, await message_by_id(tx, message_id), section, kind, name)

    return await node.services.store.write(operation)


async def test_a_section_is_given_to_another_agency_and_begins_anew_there(
    enfield: Node, desk: Desk, named: dict[str, Named]
) -> None:
    await enfield.know(desk.borough)
    await register(enfield, named, "housing", "housing/south", "police")
    sent = await send(enfield, desk.borough)
    await delivered(enfield, sent, "housing", "police")
    assert await given(enfield, sent, "subject", "housing", "housing/south") == "agency:housing/south"
    found = {(row["section"], row["agency"]): row for row in (await enfield.status(sent))["sections"]}
    assert (found["subject", "housing"]["rung"], found["subject", "housing"]["given_to"]) == ("routed", "housing/south")
    await given(enfield, sent, "housing", "housing", "housing/south")
    # What wakes the lane is the caller's; here it is a test event.
    await enfield.local("POST", f"/v1/agencies/{named['housing/south'].id}/test")
    await delivered(enfield, sent, "housing")
    (first,) = [event for event in named["housing"].accepted if event["subject"] == f"{sent}/subject"]
    mine = [event for event in named["housing/south"].accepted if event["type"] == first["type"]]
    assert sections_of(mine) == ["housing", "subject"]
    assert first["id"] not in {event["id"] for event in mine}


@pytest.mark.parametrize(
    ("section", "kind", "name", "error", "text"),
    [
        ("subject", "housing", "housing", RequestInvalid, "has section subject already"),
        ("police", "police", "housing/south", RequestInvalid, "agencies of kind housing may not read section police"),
        ("subject", "housing", "housing/west", NotFound, "no agency housing/west is registered"),
        ("police", "housing", "housing/south", NotFound, "has no section police here for agencies of kind housing"),
        ("gossip", "housing", "housing/south", NotFound, "has no section gossip"),
    ],
)
async def test_a_section_is_given_to_nobody_who_may_not_read_it(
    enfield: Node,
    desk: Desk,
    named: dict[str, Named],
    section: str,
    kind: str,
    name: str,
    error: type[Exception],
    text: str,
) -> None:
    await enfield.know(desk.borough)
    await register(enfield, named, "housing", "housing/south", "police")
    sent = await send(enfield, desk.borough)
    await delivered(enfield, sent, "housing", "police")
    before = enfield.rows("SELECT section, agency, given_to, rung FROM placements ORDER BY section, agency")
    with pytest.raises(error, match=text):
        await given(enfield, sent, section, kind, name)
    assert enfield.rows("SELECT section, agency, given_to, rung FROM placements ORDER BY section, agency") == before


async def test_what_is_sealed_goes_to_the_agency_that_has_the_key_whatever_a_rule_says(
    tmp_path: Path, clock: Clock, named: dict[str, Named]
) -> None:
    async with running_pair(tmp_path, clock, '[[routing.rule]]\nto = ["housing/south"]\n') as pair:
        await register(pair.enfield, named, "housing/south")
        await sealed_agency(pair.enfield, named["housing"])
        await announced(pair, HOUSING_KEYS)
        sent = await pair.hackney.send(ENFIELD)
        await pair.hackney.reached(sent, "received")
        await delivered(pair.enfield, sent, "housing")
        assert named["housing/south"].accepted == []
        assert all("sealed" in event["data"] for event in named["housing"].accepted)
        # Another could not open it. Of what others read too, and have no key for, the node has the secret.
        with pytest.raises(RequestInvalid, match="housing/south has no key that opens it"):
            await given(pair.enfield, sent, "housing", "housing", "housing/south")
        await given(pair.enfield, sent, "subject", "housing", "housing/south")
        await pair.enfield.local("POST", f"/v1/agencies/{named['housing/south'].id}/test")

        async def opened() -> bool:
            events = named["housing/south"].accepted
            return [event["data"]["section"] for event in events if "content" in event["data"]].count("subject") == 1

        await until("the other has it, opened by the node", opened)


async def test_only_the_agency_that_is_named_by_its_kind_can_have_a_key(enfield: Node, named: dict[str, Named]) -> None:
    south = named["housing/south"]
    body = {"kind": "housing", "label": "south", "url": south.url, "networks": LOOPBACK}
    status, document = await enfield.local("POST", "/v1/agencies", {**body, "key": key_of(HOUSING_KEYS)})
    assert (status, document["message"]) == (
        400,
        "a key of its own is for agency housing alone: the card announces one for each kind",
    )
    await south.register(enfield)
    assert (await enfield.local("POST", f"/v1/agencies/{south.id}/key", {"key": key_of(HOUSING_KEYS)}))[0] == 400


async def test_what_the_catalogue_denies_an_agency_meanwhile_is_held_and_the_rest_delivered(
    enfield: Node, desk: Desk, named: dict[str, Named]
) -> None:
    await enfield.know(desk.borough)
    await register(enfield, named, "housing", "police")
    await enfield.local("POST", f"/v1/agencies/{named['housing'].id}/pause")
    sent = await send(enfield, desk.borough)
    # As by another catalogue, or by who can write to the store: the police's section stands as housing's.
    change = "UPDATE placements SET given_to = 'housing', rung = 'routed' WHERE section = 'police'"
    await delivered(enfield, sent, "police")
    databases.execute(enfield.services.configuration.store_url, change)
    await enfield.local("POST", f"/v1/agencies/{named['housing'].id}/resume")

    async def waits() -> bool:
        items = (await enfield.local("GET", "/v1/held"))[1]["items"]
        return "agency housing may not read police" in {item["reason"] for item in items}

    await until("it is held", waits)
    assert sections_of(named["housing"].accepted) == ["housing", "subject"]
