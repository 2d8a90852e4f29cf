"""What two processes of one node know of each other: keys, cards, peers' logs, a revocation. Their store is shared."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from exchange.crypto.chain import WrappingChain
from exchange.crypto.rest import StoreKey
from exchange.crypto.signing import SigningKeys
from exchange.node.app import prepare
from exchange.node.config import load_configuration
from exchange.node.epochs import renew_card, turn_epoch
from exchange.node.errors import KeysSuperseded, StoreOlder
from exchange.node.keyring import Keyring
from exchange.node.problems import problem
from exchange.node.replicas import InForce, Replicas
from exchange.node.revocation import prepare_revocation
from exchange.node.rotation import rotate_keys
from exchange.store.errors import StoreUnavailable
from exchange.store.keys import all_sealing_keys
from exchange.store.replicas import all_replicas
from exchange.store.transaction import SharedStore
from tests import databases
from tests.node.agency import Agency
from tests.node.handmade import Borough, Desk, read_reply
from tests.node.pair import ENFIELD, EXAMPLES, Clock, Node, configure, reserved_port, serving, until

ORIGIN = "exchange.enfield.example"
DAY_MS = 86_400_000


@dataclass
class Twins:
    one: Node
    two: Node


@pytest.fixture
async def twins(
    postgresql_server: str, tmp_path: Path, clock: Clock, lines: object, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Twins]:
    """Two processes' worth of one node; each has a keyring of its own, with the same keys."""
    monkeypatch.setattr(databases, "server", postgresql_server)
    signing, store_key, chain = SigningKeys.generate(), StoreKey.random(), WrappingChain.begin().encode()
    configurations = []
    async with AsyncExitStack() as stack:
        ports = [stack.enter_context(reserved_port()) for _ in range(4)]
        first = configure(tmp_path / "one", ENFIELD, ORIGIN, (ports[0], ports[1]))
        (tmp_path / "two").mkdir()
        text = first.path.read_text().replace(f'address = "127.0.0.1:{ports[0]}"', f'address = "127.0.0.1:{ports[2]}"')
        (tmp_path / "two" / "exchange.toml").write_text(text.replace(str(ports[1]), str(ports[3])))
        configurations = [first, load_configuration(tmp_path / "two" / "exchange.toml")]
        nodes = [
            await stack.enter_async_context(
                serving(one, clock, Keyring(one.origin, signing, store_key, WrappingChain.parse(chain)))
            )
            for one in configurations
        ]
        yield Twins(*nodes)


async def post(node: Node, envelope: bytes) -> int:
    """Post to one of the twins: the URL that both have is that of the first."""
    address = node.services.configuration.tables.listen.address
    headers = {"content-type": "application/vnd.exchange.envelope"}
    async with node.http.post(f"http://{address}/v1/envelopes", data=envelope, headers=headers) as answer:
        body = await answer.read()
    if answer.status == 200:
        assert all(result.problem is None for result in read_reply(body).results)
    return answer.status


def note(borough: Borough, node_card: object) -> bytes:
    """An envelope with one message in it."""
    made = borough.message(node_card)  # type: ignore[arg-type]
    return borough.envelope(node_card, [borough.sign_manifest(made)], made.ciphertexts)  # type: ignore[arg-type]


async def test_a_sealing_key_is_made_once_however_many_look_at_the_same_time(twins: Twins, clock: Clock) -> None:
    one, two = twins.one.services, twins.two.services
    assert len(await one.store.read(all_sealing_keys)) == 1
    clock.now_ms += 4 * DAY_MS

    await asyncio.gather(*(turn_epoch(services) for services in (one, two, one, two)))

    rows = await one.store.read(all_sealing_keys)
    assert [row.epoch for row in rows] == [0, 1]
    assert one.keyring.sealing.keys() == two.keyring.sealing.keys() == {bytes(row.key_id) for row in rows}


async def test_each_lets_go_of_the_keys_whose_time_is_over(twins: Twins, clock: Clock) -> None:
    one, two = twins.one.services, twins.two.services
    for _ in range(8):
        clock.now_ms += 4 * DAY_MS
        await turn_epoch(one)
    assert one.keyring.chain.epoch > 0

    await turn_epoch(two)

    assert two.keyring.chain.epoch == one.keyring.chain.epoch
    assert two.keyring.chain.encode() == one.keyring.chain.encode()
    assert two.keyring.sealing.keys() == one.keyring.sealing.keys()


async def test_an_envelope_for_a_key_that_another_process_made_opens(
    twins: Twins, camden: Borough, clock: Clock
) -> None:
    await twins.one.know(camden)
    clock.now_ms += 4 * DAY_MS
    await turn_epoch(twins.one.services)
    await renew_card(twins.one.services, None)
    card = await twins.one.card()

    assert await post(twins.two, note(camden, card)) == 200
    assert await post(twins.one, note(camden, card)) == 200


async def test_a_peer_whose_envelopes_go_to_one_and_the_other_is_asked_for_nothing(
    twins: Twins, camden: Borough
) -> None:
    """Nobody listens at its URL, so that whoever had to ask it for a proof would refuse."""
    await twins.one.know(camden)
    card = await twins.one.card()
    for node in (twins.one, twins.two, twins.two, twins.one, twins.two):
        assert await post(node, note(camden, card)) == 200
    assert twins.one.rows("SELECT size FROM peer_heads") == [(len(camden.statements),)]


async def test_two_histories_each_shown_to_another_process_are_a_fork(twins: Twins, camden: Borough) -> None:
    await twins.one.know(camden)
    card = await twins.one.card()
    for node in (twins.one, twins.two):
        assert await post(node, note(camden, card)) == 200
    another = copy.copy(camden)
    another.statements = list(camden.statements)

    assert await post(twins.two, note(camden, card)) == 200
    assert await post(twins.one, note(another, card)) == 403

    for node in (twins.one, twins.two):
        assert await node.trust(camden.origin) == "quarantined"
        assert [alarm["kind"] for alarm in await node.alarms(camden.origin)] == ["fork"]


async def test_two_histories_shown_at_the_same_time_are_a_fork(twins: Twins, camden: Borough) -> None:
    await twins.one.know(camden)
    card = await twins.one.card()
    for node in (twins.one, twins.two):
        assert await post(node, note(camden, card)) == 200
    another = copy.copy(camden)
    another.statements = list(camden.statements)
    another.log("another", b"history")

    statuses = await asyncio.gather(post(twins.two, note(camden, card)), post(twins.one, note(another, card)))

    # Which of the two comes first is open. The other is never taken.
    assert statuses.count(200) <= 1
    assert len(twins.one.rows("SELECT size FROM peer_heads")) == 1


async def test_a_revocation_that_is_published_at_one_is_shown_by_the_other(twins: Twins) -> None:
    prepared = json.loads(await prepare_revocation(twins.one.services))
    status, _ = await twins.one.local("POST", "/v1/keys/revoke", {"revocation": prepared})
    assert status == 200

    async def revoked() -> bool:
        return twins.two.services.revoked.file is not None

    await until("the other has heard", revoked)
    assert json.loads(twins.two.services.revoked.file or b"") == prepared
    assert (twins.two.directory / "revoked.json").exists()


async def test_who_has_the_old_signing_keys_signs_nothing_more(twins: Twins) -> None:
    one, two = twins.one.services, twins.two.services
    follower = Replicas(two, None)  # type: ignore[arg-type]
    twins.two.stop.set()  # else it would stop by itself, with the same error

    async def stopped() -> bool:
        try:
            await twins.two.local("GET", "/v1/health")
        except aiohttp.ClientError:
            return True
        return False

    await until("the other listens no more", stopped)
    await rotate_keys(one, None)
    size = twins.one.rows("SELECT size FROM log_head")

    with pytest.raises(StoreUnavailable, match="KeysSuperseded"):
        await two.store.write(lambda tx: tx.sign("note", b"late"))
    with pytest.raises(KeysSuperseded):
        await follower.look()

    assert twins.one.rows("SELECT size FROM log_head") == size
    await one.store.read(InForce(one).check)
    await one.store.write(lambda tx: tx.sign("note", b"in time"))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["the first is answered first", "the first is answered last"])
async def test_what_two_processes_deliver_at_the_same_time_counts_once(
    twins: Twins, camden: Borough, clock: Clock, order: tuple[int, int]
) -> None:
    """The first has lost its lease while it waited for the agency's answer; then the agency answers both."""
    await twins.one.know(camden)
    card = await twins.one.card()
    slow = SlowAgency("police")
    clock.run()
    async with slow.listening():
        await slow.register(twins.one)
        made = camden.message(card, [("police", ("police",))])
        envelope = camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts)
        assert await post(twins.one, envelope) == 200
        await until("the agency is called", lambda: slow.was_called(1))
        twins.one.rows("UPDATE outbox SET lease_until_ms = 0 WHERE kind = 'webhook'")
        await until("the agency is called by the other", lambda: slow.was_called(2))
        slow.answers[order[0]].set()
        await until("that is recorded", lambda: is_delivered(twins.one))
        slow.answers[order[1]].set()
        await until("nothing is left", lambda: nothing_left(twins.one))

    assert len({event["id"] for event in slow.accepted}) == 1
    rungs = [row[0] for row in twins.one.rows("SELECT rung FROM receipts ORDER BY rung")]
    assert rungs == ["delivered", "received", "routed"]
    events = [row[0] for row in twins.one.rows("SELECT event FROM timeline ORDER BY number")]
    assert events == ["received", "routed", "delivered"]


class SlowAgency(Agency):
    """Answers when it is told to."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.answers = [asyncio.Event(), asyncio.Event()]
        self.calls = 0

    async def was_called(self, times: int) -> bool:
        return self.calls >= times

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.calls += 1
        await self.answers[min(self.calls, 2) - 1].wait()
        return await super()._answer(request)


async def is_delivered(node: Node) -> bool:
    return bool(node.rows("SELECT 1 FROM receipts WHERE rung = 'delivered'"))


async def nothing_left(node: Node) -> bool:
    return node.rows("SELECT count(*) FROM outbox WHERE kind = 'webhook'") == [(0,)]


async def test_a_server_that_went_back_is_not_started_on(twins: Twins) -> None:
    services = twins.one.services
    cast("SharedStore", services.store).went_back(10_000)
    with pytest.raises(StoreOlder):
        await prepare(services)


async def test_who_is_there_can_be_read(twins: Twins) -> None:
    rows = await twins.one.services.store.read(all_replicas)
    assert [row.id for row in rows] == [node.services.store.replica for node in (twins.one, twins.two)]
    _, health = await twins.two.local("GET", "/v1/health")
    assert [row["answers"] for row in health["replicas"]] == [False, True]


async def test_what_is_urgent_passes_a_peer_at_a_limit_whichever_process_was_told_of_it(
    twins: Twins, desk: Desk, camden: Borough
) -> None:
    await twins.one.know(camden)
    desk.bend = lambda desk, opened: problem(429, "peer-limit", "enough", retry_after_s=3600)

    async def send(node: Node, name: str) -> str:
        document = json.loads((EXAMPLES / f"{name}.json").read_bytes())
        document["referral"] |= {"from_area": ENFIELD, "to_area": camden.area}
        status, sent = await node.local("POST", f"/v1/messages/to/{camden.area}", data=json.dumps(document).encode())
        assert (status, sent["urgent"]) == (201, name == "urgent")
        return str(sent["id"])

    usual = await send(twins.one, "case-study-j")

    async def is_at_a_limit() -> bool:
        return twins.two.rows("SELECT urgent_only FROM lanes") == [(1,)]

    await until("the lane is at a limit", is_at_a_limit)
    desk.bend = None
    for node in (twins.two, twins.one):
        await node.reached(await send(node, "urgent"), "received")
    assert usual not in desk.received
