"""How much a peer may send and have stored. Nothing is lost by a refusal, and what is urgent goes first."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.crypto.statement import parse_statement
from exchange.node.lanes import LaneState
from exchange.node.peer_client import ENVELOPE_TYPE
from exchange.node.problems import problem
from exchange.node.services import moment
from exchange.schema.wire import Placement, ProvenStatement, Rung, decode_wire, manifest_decoder
from tests.node.handmade import Borough, Desk, is_manifest, read_reply
from tests.node.pair import ENFIELD, EXAMPLES, HACKNEY, NOW_MS, Clock, Node, form, running, running_pair, until

MINUTE_MS = 60_000


@asynccontextmanager
async def limited(path: Path, clock: Clock, **limits: object) -> AsyncIterator[Node]:
    """Enfield's node with limits of its own."""
    table = "[limits]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in limits.items())
    async with running(path / "limited", ENFIELD, "exchange.enfield.example", clock, table) as node:
        yield node


async def sends(camden: Borough, node: Node, count: int = 1, *, urgent: bool = False) -> tuple[int, dict[str, Any]]:
    """Send messages in one envelope; the status, and the problem where there is one."""
    card = await node.card()
    made = [camden.message(card) for _ in range(count)]
    items = [camden.sign_manifest(one, urgent=urgent) for one in made]
    shown = camden.shown
    data = camden.envelope(card, camden.latest(*items), [text for one in made for text in one.ciphertexts])
    async with node.http.post(f"{node.url}/v1/envelopes", data=data, headers={"content-type": ENVELOPE_TYPE}) as answer:
        if answer.status == 200:
            return 200, {}
        camden.shown = shown
        return answer.status, {**await answer.json(content_type=None), "after": answer.headers["retry-after"]}


async def post(node: Node, data: bytes) -> int:
    """Send an envelope of any size; the status."""
    headers = {"content-type": ENVELOPE_TYPE}
    async with node.http.post(f"{node.url}/v1/envelopes", data=io.BytesIO(data), headers=headers) as answer:
        await answer.read()
        return answer.status


def placement(item: ProvenStatement) -> Placement:
    """A section and an agency of a message."""
    entry = decode_wire(manifest_decoder, parse_statement(item.statement).body).sections[0]
    return Placement(section=entry.name, agency=entry.readers[0])


async def test_a_peer_that_has_sent_enough_for_an_hour_is_told_when_to_come_again(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    async with limited(tmp_path, clock, peer_messages_per_hour=8) as enfield:
        await enfield.know(camden)
        assert (await sends(camden, enfield, 6))[0] == 200
        kept = enfield.kept()
        status, refusal = await sends(camden, enfield)
        assert (status, refusal["code"], int(refusal["after"])) == (429, "peer-limit", 450)
        assert enfield.kept() == kept
        assert enfield.count("envelopes_peer_limit") == 1
        (peer,) = (await enfield.local("GET", "/v1/health"))[1]["limits"]["peers"]
        assert (peer["origin"], peer["limit"], peer["refused"]) == (camden.origin, "peer-limit", 1)
        clock.now_ms += 450_000
        assert (await sends(camden, enfield))[0] == 200
        clock.now_ms += 61 * MINUTE_MS
        assert (await enfield.local("GET", "/v1/health"))[1]["limits"]["peers"] == []


async def test_what_is_urgent_has_a_share_of_its_own(tmp_path: Path, clock: Clock, camden: Borough) -> None:
    async with limited(tmp_path, clock, peer_messages_per_hour=8) as enfield:
        await enfield.know(camden)
        assert (await sends(camden, enfield, 6))[0] == 200
        assert (await sends(camden, enfield))[0] == 429
        assert (await sends(camden, enfield, 2, urgent=True))[0] == 200
        assert (await sends(camden, enfield, urgent=True))[0] == 429


async def test_more_at_once_than_may_come_in_an_hour_is_taken_whole_and_paid_off_afterwards(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    async with limited(tmp_path, clock, peer_messages_per_hour=4) as enfield:
        await enfield.know(camden)
        assert (await sends(camden, enfield, 12))[0] == 200
        status, refusal = await sends(camden, enfield)
        assert (status, int(refusal["after"])) == (429, 10 * 900)


async def test_one_peer_at_its_limit_holds_up_no_other(tmp_path: Path, clock: Clock, camden: Borough) -> None:
    barnet = Borough("exchange.barnet.example", "E09000003", clock)
    async with limited(tmp_path, clock, peer_messages_per_hour=1) as enfield:
        await enfield.know(camden)
        await enfield.know(barnet)
        assert (await sends(camden, enfield))[0] == 200
        assert (await sends(camden, enfield))[0] == 429
        assert (await sends(barnet, enfield))[0] == 200


async def test_bytes_are_counted_too(tmp_path: Path, clock: Clock, camden: Borough) -> None:
    large = msgspec.msgpack.encode({"text": "x" * 1_000_000})
    async with limited(tmp_path, clock, peer_mib_per_hour=32) as enfield:
        await enfield.know(camden)
        card = await enfield.card()
        statuses = []
        for _ in range(6):
            made = [camden.message(card, content=large) for _ in range(4)]
            items = camden.latest(*[camden.sign_manifest(one) for one in made])
            shown = camden.shown
            data = camden.envelope(card, items, [text for one in made for text in one.ciphertexts])
            statuses.append(await post(enfield, data))
            camden.shown = camden.shown if statuses[-1] == 200 else shown
        assert statuses == [200, 200, 200, 429, 429, 429], "of 32 MiB a quarter is for what is urgent"


async def test_what_others_send_in_a_peers_name_uses_up_nothing_of_what_it_may_send(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    async with limited(tmp_path, clock, peer_messages_per_hour=4, peer_mib_per_hour=32) as enfield:
        await enfield.know(camden)
        card = await enfield.card()
        made = camden.message(card)
        recorded = camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)
        public = camden.envelope(card, [camden.card()], [bytes(8 * 1024 * 1024)])
        for data in (recorded, public) * 8:
            assert await post(enfield, data) == 200
        assert (await sends(camden, enfield, 2))[0] == 200


async def test_what_could_not_be_stored_is_not_counted(tmp_path: Path, clock: Clock, camden: Borough) -> None:
    async with limited(tmp_path, clock, peer_messages_per_hour=4) as enfield:
        await enfield.know(camden)
        card = await enfield.card()
        made = camden.message(card)
        first = camden.sign_manifest(made)
        assert await post(enfield, camden.envelope(card, [first], made.ciphertexts)) == 200
        for _ in range(8):
            other = camden.sign_manifest(made, urgent=True)
            assert await post(enfield, camden.envelope(card, [other], made.ciphertexts)) == 200  # refused as a conflict
        assert (await sends(camden, enfield, 2))[0] == 200


async def test_receipts_and_cards_are_taken_where_messages_are_not(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    async with limited(tmp_path, clock, peer_messages_per_hour=1) as enfield:
        await enfield.know(camden)
        assert (await sends(camden, enfield))[0] == 200
        assert (await sends(camden, enfield))[0] == 429
        card = await enfield.card()
        status, body = await enfield.post(camden.envelope(card, [camden.card()]))
        assert status == 200
        assert read_reply(body).results[0].problem is None


async def test_a_peer_may_not_fill_the_store_and_the_admins_are_told_once(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    async with limited(tmp_path, clock, peer_store_messages=2) as enfield:
        await enfield.know(camden)
        assert (await sends(camden, enfield, 2))[0] == 200
        await enfield.services.admission.look(enfield.services)
        for _ in range(3):
            status, refusal = await sends(camden, enfield)
            assert (status, refusal["code"]) == (429, "peer-quota")
        assert enfield.kept()["messages"] == 2
        assert [alarm["kind"] for alarm in await enfield.alarms(camden.origin)] == ["peer-quota"]
        (stored,) = (await enfield.local("GET", "/v1/health"))[1]["limits"]["stored"]
        assert (stored["origin"], stored["messages"]) == (camden.origin, 2)
        sizes = (
            enfield.rows("SELECT sum(length(statement)) FROM messages"),
            enfield.rows("SELECT sum(length(sections)) FROM contents"),
        )
        assert stored["bytes"] == sizes[0][0][0] + sizes[1][0][0]


@pytest.mark.parametrize(
    ("limit", "code"), [("peer_store_messages", "peer-quota"), ("peer_messages_per_hour", "peer-limit")]
)
async def test_a_message_that_is_here_already_gets_its_receipt_whatever_is_full(
    tmp_path: Path, clock: Clock, camden: Borough, limit: str, code: str
) -> None:
    async with limited(tmp_path, clock, **{limit: 1}) as enfield:
        await enfield.know(camden)
        card = await enfield.card()
        made = camden.message(card)
        data = camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)
        _, first = await enfield.post(data)
        await enfield.services.admission.look(enfield.services)
        assert (await sends(camden, enfield))[1]["code"] == code
        status, again = await enfield.post(data)
        assert status == 200
        assert read_reply(again).results == read_reply(first).results


@pytest.mark.sqlite  # the disk of a database server is its own to watch
async def test_a_node_whose_disk_is_nearly_full_takes_and_sends_nothing_new_and_still_takes_receipts(
    hackney: Node, desk: Desk, camden: Borough
) -> None:
    await hackney.know(camden)
    sent = await hackney.send(camden.area)
    await hackney.reached(sent, "received")
    admission = hackney.services.admission
    roomy = admission.table
    admission.table = msgspec.structs.replace(roomy, least_free_mib=10**9)
    await admission.look(hackney.services)
    status, refusal = await sends(camden, hackney)
    assert (status, refusal["code"]) == (503, "store-full")
    assert int(refusal["after"]) > 2
    status, document = await hackney.local("POST", f"/v1/messages/to/{camden.area}", data=form(camden.area))
    assert (status, document["code"]) == (503, "store-full")
    assert document["hint"]
    (manifest,) = (item for item in desk.opened[0].items if is_manifest(item))
    receipt = camden.sign_receipt(manifest, Rung.DELIVERED, placements=(placement(manifest),))
    status, body = await hackney.post(camden.envelope(await hackney.card(), [receipt]))
    assert status == 200
    assert read_reply(body).results[0].problem is None
    assert [alarm["kind"] for alarm in await hackney.alarms(hackney.origin)] == ["store-full"]
    assert (await hackney.local("GET", "/v1/health"))[1]["limits"]["disk_full"]
    admission.table = roomy
    await admission.look(hackney.services)
    assert (await sends(camden, hackney))[0] == 200


async def test_no_more_than_so_much_waits_for_a_peer_that_is_down(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    table = "[limits]\nqueue_messages = 2\n"
    async with running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock, table) as hackney:
        await hackney.know(camden)  # which does not listen; the node's card waits for it too
        await hackney.send(camden.area)
        await hackney.services.admission.look(hackney.services)
        kept = hackney.kept()
        status, document = await hackney.local("POST", f"/v1/messages/to/{camden.area}", data=form(camden.area))
        assert (status, document["code"]) == (503, "queue-full")
        assert document["hint"]
        assert hackney.kept() == kept
        assert (await hackney.local("GET", "/v1/health"))[1]["limits"]["queues"] == [camden.origin]


@pytest.mark.slow
async def test_a_peer_can_not_have_more_receipts_of_a_message_kept_than_it_has_steps(
    hackney: Node, desk: Desk, camden: Borough
) -> None:
    await hackney.know(camden)
    sent = await hackney.send(camden.area)
    await hackney.reached(sent, "received")
    (manifest,) = (item for item in desk.opened[0].items if is_manifest(item))
    codes: list[str | None] = []
    for batch in range(20):
        receipts = [
            camden.sign_receipt(manifest, Rung.DELIVERED, placements=(placement(manifest),), at=moment(NOW_MS + number))
            for number in range(50 * batch, 50 * (batch + 1))
        ]
        _, body = await hackney.post(camden.envelope(await hackney.card(), camden.latest(*receipts)))
        codes += [result.problem.code if result.problem else None for result in read_reply(body).results]
        if "receipts-too-many" in codes:
            break
    assert codes[0] is None
    assert codes[-1] == "receipts-too-many"
    assert hackney.kept()["receipts"] <= codes.index("receipts-too-many") + 1


async def test_conflicts_are_told_of_so_often_a_day_and_no_more(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = await enfield.card()
    for number in range(25):
        made = camden.message(card)
        items = [camden.sign_manifest(made), camden.sign_manifest(made, urgent=True)]
        _, body = await enfield.post(camden.envelope(card, camden.latest(*items), made.ciphertexts))
        assert read_reply(body).results[1].problem is not None, number
    assert len(await enfield.alarms(camden.origin)) == 20


# The sender


async def test_what_a_peer_takes_no_more_of_waits_and_is_sent_when_it_takes_it_and_urgent_goes_first(
    tmp_path: Path, clock: Clock
) -> None:
    async with running_pair(tmp_path, clock, "[limits]\npeer_messages_per_hour = 2\n") as pair:
        hackney = pair.hackney
        usual = [await hackney.send(ENFIELD) for _ in range(3)]
        clock.run()
        await hackney.reached(usual[0], "received")

        async def is_told() -> bool:
            return "peer-limit" in str((await hackney.status(usual[2]))["last_error"])

        await until("the sender is told", is_told)
        document = json.loads((EXAMPLES / "urgent.json").read_bytes())
        document["referral"] |= {"from_area": HACKNEY, "to_area": ENFIELD}
        status, sent = await hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=json.dumps(document).encode())
        assert (status, sent["urgent"]) == (201, True)
        await hackney.reached(sent["id"], "received")
        assert not (await hackney.local("GET", f"/v1/messages/{usual[2]}?wait=received"))[1]["reached"]
        for message_id in usual[1:]:
            clock.now_ms += 60 * MINUTE_MS
            await hackney.reached(message_id, "received")
        assert (await hackney.local("GET", "/v1/held"))[1]["items"] == []


async def test_a_limit_of_a_peer_is_waited_for_as_it_says_and_is_no_failure_that_grows(
    hackney: Node, desk: Desk, camden: Borough, clock: Clock
) -> None:
    clock.run()
    await hackney.know(camden)
    desk.bend = lambda desk, opened: problem(429, "peer-limit", "enough", retry_after_s=3600)
    sent = await hackney.send(camden.area)

    async def tried() -> bool:
        return len(desk.opened) > 4

    await until("it was tried some times", tried)
    lane = (await hackney.local("GET", "/v1/health"))[1]["lanes"][0]
    assert lane["failures"] == 1
    assert lane["last_error"] == f"{camden.origin} answered 429: peer-limit"
    desk.bend = None
    await hackney.reached(sent, "received")


@pytest.mark.parametrize("code", ["<script>", "no-such-limit", "x" * 80])
async def test_a_peer_does_not_choose_what_is_said_of_it(
    hackney: Node, desk: Desk, camden: Borough, clock: Clock, code: str
) -> None:
    clock.run()
    await hackney.know(camden)
    desk.bend = lambda desk, opened: problem(429, code, "enough", retry_after_s=1)
    sent = await hackney.send(camden.area)

    async def is_told() -> Any:
        return (await hackney.status(sent))["last_error"]

    assert await until("the sender is told", is_told) == f"{camden.origin} answered 429"


def test_a_lane_at_a_limit_is_tried_when_asked_and_lets_urgent_pass_until_that_is_refused_too() -> None:
    state = LaneState().limited("peer-limit", 1000, 30, urgent_only=True)
    assert (state.wait_ms(1000, 60_000), state.limit(), state.urgent_only, state.failures) == (30_000, 1, True, 1)
    again = state.limited("peer-limit", 2000, 30, urgent_only=False)
    assert (again.wait_ms(2000, 60_000), again.urgent_only, again.failures) == (30_000, False, 1)
    assert not state.heard().urgent_only
