"""A node that is set back to an older store asks its peers, and continues its log or does not go on."""

import asyncio
import dataclasses
import io
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pysqlite3 import dbapi2 as sqlite

from exchange.crypto.envelope import open_envelope, seal_reply
from exchange.crypto.errors import LogContradicted
from exchange.crypto.merkle import verify_consistency
from exchange.crypto.note import decode_base64
from exchange.crypto.rest import StoreKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys
from exchange.crypto.statement import parse_statement
from exchange.node.app import open_services
from exchange.node.key_records import RejoinRecord
from exchange.node.keyring import Keyring
from exchange.node.rejoining import Rejoining
from exchange.schema.rejoining import RejoinAnswer, Run, ask_decoder, rejoin_request_decoder
from exchange.schema.wire import VERSION, Consistency, decode_wire, encode_wire
from exchange.store.log import consistency_between, latest_head, log_size
from tests.node.agency import Agency
from tests.node.handmade import Borough, Desk, read_reply
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, configure, form, reserved_port, running, serving, until

pytestmark = [pytest.mark.sqlite, pytest.mark.slow]

CAMDEN = "E09000007"


class Restorable:
    """Hackney: a node that can be backed up while it does not run, and set back."""

    def __init__(self, directory: Path, clock: Clock, ports: tuple[int, int]) -> None:
        self.directory = directory / "hackney"
        self.configuration = configure(self.directory, HACKNEY, "exchange.hackney.example", ports)
        self.clock = clock
        self.keyring = Keyring(self.configuration.origin, SigningKeys.generate(), StoreKey.random())
        self._copy = directory / "backup.db"

    @property
    def store(self) -> Path:
        assert self.configuration.store_file is not None
        return self.configuration.store_file

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Node]:
        async with serving(self.configuration, self.clock, self.keyring) as node:
            yield node

    def back_up(self) -> None:
        shutil.copy(self.store, self._copy)

    def set_back(self) -> None:
        """As after a restore: the store is the old one, and its sealing keys are gone."""
        for path in self.directory.glob("exchange.db*"):
            path.unlink()
        shutil.copy(self._copy, self.store)
        with closing(sqlite.connect(str(self.store))) as connection:
            connection.execute("DELETE FROM sealing_keys")
            connection.commit()
        self.keyring.load_sealing_keys([])
        self.clock.now_ms += 1000

    async def rejoin(self, *, decided: bool = False, deadline_s: float = 30) -> RejoinRecord | None:
        """Ask the peers once or until it is done; None where it cannot go on."""
        async with AsyncExitStack() as stack:
            services = dataclasses.replace(
                await open_services(stack, self.configuration, self.keyring), now_ms=self.clock
            )
            before = await services.store.read(log_size)
            rejoining, stop = Rejoining(services), asyncio.Event()
            if decided:
                rejoining.go_on()
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
                task = group.create_task(rejoining.run(stop, every_s=3600))
                if not decided:
                    group.create_task(self._stop_when_it_waits(rejoining, stop, task))
            record = task.result()
            if record is None:
                assert await services.store.read(log_size) == before, "nothing was adopted"
                self.described = rejoining.describe()
            return record

    async def _stop_when_it_waits(self, rejoining: Rejoining, stop: asyncio.Event, task: "asyncio.Task[Any]") -> None:
        while not task.done() and not rejoining.waits:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
        stop.set()

    async def size(self) -> int:
        async with AsyncExitStack() as stack:
            services = await open_services(stack, self.configuration, self.keyring)
            return await services.store.read(log_size)


@pytest.fixture
def hackney(tmp_path: Path, clock: Clock, lines: io.StringIO) -> Any:
    with reserved_port() as port, reserved_port() as local_port:
        yield Restorable(tmp_path, clock, (port, local_port))


async def idle(node: Node) -> None:
    async def nothing_waits() -> bool:
        lanes = (await node.local("GET", "/v1/health"))[1]["lanes"]
        return not [lane for lane in lanes if lane["lane"].startswith("peer:")]

    await until(f"{node.origin} has nothing to tell its peers", nothing_waits)


async def acquaint(first: Node, *others: Node) -> None:
    for other in others:
        await first.know(other)
        await other.know(first)
    for node in (first, *others):
        await idle(node)


async def send_to(sender: Node, area: str) -> str:
    data = form(area)
    if area == HACKNEY:
        there, here, aside = HACKNEY.encode(), ENFIELD.encode(), b"E09000099"
        data = form(ENFIELD).replace(here, aside).replace(there, here).replace(aside, there)
    status, document = await sender.local("POST", f"/v1/messages/to/{area}", data=data)
    assert status == 201, document
    return str(document["id"])


async def kinds(node: Node) -> set[str]:
    return {alarm["kind"] for alarm in (await node.local("GET", "/v1/alarms"))[1]["items"]}


def head_at(node: Node, origin: str) -> tuple[int, bytes]:
    ((size, root),) = node.rows("SELECT size, root FROM peer_heads WHERE origin = ?", origin)
    return size, bytes(root)


async def continues(node: Node, seen: tuple[int, bytes]) -> None:
    """The log of a node holds what somebody has seen of it."""
    size, root = seen
    head = await node.services.store.read(latest_head)
    path = await node.services.store.read(lambda tx: consistency_between(tx, size, head.size))
    verify_consistency(size, head.size, path, root, decode_base64(head.text.split("\n")[2]))


async def test_two_peers_give_back_different_parts_and_neither_sees_a_fork(
    hackney: Restorable, enfield: Node, clock: Clock, tmp_path: Path
) -> None:
    async with running(tmp_path / "camden", CAMDEN, "exchange.camden.example", clock) as camden:
        async with hackney.run() as node:
            await acquaint(node, enfield, camden)
        hackney.back_up()
        async with hackney.run() as node:
            first = await send_to(node, ENFIELD)
            await node.reached(first, "received")
            second = await send_to(node, CAMDEN)
            await node.reached(second, "received")
            third = await send_to(enfield, HACKNEY)
            await enfield.reached(third, "received")
            receipts = (await node.local("GET", f"/v1/messages/{third}/receipts"))[1]["receipts"]
            await idle(node)
            size = await node.services.store.read(log_size)
        seen = [head_at(one, node.origin) for one in (enfield, camden)]
        hackney.set_back()

        record = await hackney.rejoin()

        assert record is not None
        assert record.size == size == max(number for number, _ in seen)
        assert {(one.id, one.direction) for one in record.messages} == {(first, "out"), (second, "out"), (third, "in")}
        async with hackney.run() as node:
            for one in seen:
                await continues(node, one)
            assert (await node.local("GET", f"/v1/messages/{third}/receipts"))[1]["receipts"] == receipts
            for area in (ENFIELD, CAMDEN):
                await node.reached(await send_to(node, area), "received")
            await enfield.reached(await send_to(enfield, HACKNEY), "received")
            for one in (enfield, camden):
                assert await one.trust(node.origin) == "verified"
                assert await kinds(one) == {"peer-restored"}
            assert await kinds(node) == {"content-lost"}


async def test_the_same_message_again_gets_the_same_receipt(hackney: Restorable, camden: Borough, desk: Desk) -> None:
    async with hackney.run() as node:
        await node.know(camden)
        await idle(node)
    hackney.back_up()
    async with hackney.run() as node:
        made = camden.message(await node.card())
        manifest = camden.sign_manifest(made)
        status, body = await node.post(camden.envelope(await node.card(), [manifest], made.ciphertexts))
        assert status == 200
        first = read_reply(body).results[0].receipt
        assert first is not None
        size = await node.services.store.read(log_size)
        statements = [row[0] for row in node.rows("SELECT hash FROM log_nodes WHERE level = 0 ORDER BY position")]
        checkpoint = (await node.services.store.read(latest_head)).text
    hackney.set_back()
    answer = Answering(camden, hackney, checkpoint, b"".join(map(bytes, statements)))
    answer.yours, answer.mine = [first], camden.latest(manifest)

    async with answer.listening():
        record = await hackney.rejoin()

    assert record is not None
    assert record.size == size
    async with hackney.run() as node:
        again = camden.latest(manifest)
        status, body = await node.post(camden.envelope(await node.card(), again, made.ciphertexts))
        assert status == 200
        assert read_reply(body).results[0].receipt == first


class Answering:
    """Camden, made by hand, answers what it likes."""

    def __init__(self, camden: Borough, hackney: Restorable, checkpoint: str | None, hashes: bytes = b"") -> None:
        self._camden = camden
        self._hackney = hackney
        self.checkpoint = checkpoint
        self.leaves = (Run(first=0, hashes=hashes),) if hashes else ()
        self.yours: list[Any] = []
        self.mine: list[Any] = []
        self.asked = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_post("/v1/rejoin", self._answer)
        application.router.add_get("/v1/card", self._nothing)
        application.router.add_get("/v1/log/consistency", self._nothing)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        # Where Camden is stands in the card that the restored node has; here it is told so by the store.
        with closing(sqlite.connect(str(self._hackney.store))) as connection:
            card = self._camden.card(url=url)
            connection.execute(
                "UPDATE peers SET card = ?, proof = ?, serial = ? WHERE origin = ?",
                (card.statement, card.proof, self._camden.serial, self._camden.origin),
            )
            connection.commit()
        self.mine = self._camden.latest(*self.mine)
        try:
            yield
        finally:
            await runner.cleanup()

    async def _nothing(self, _: web.Request) -> web.Response:
        return web.Response(status=503)

    async def _answer(self, request: web.Request) -> web.Response:
        opened = open_envelope(await request.read(), self._camden.origin, self._camden.sealing)
        asked = decode_wire(rejoin_request_decoder, opened)
        ask = decode_wire(ask_decoder, parse_statement(asked.ask.statement).body)
        self.asked += 1
        answer = RejoinAnswer(
            version=VERSION,
            origin=self._camden.origin,
            left=0,
            consistency=self._camden.consistency(ask.holds) if self.mine else Consistency(first=0, path=()),
            checkpoint=self.checkpoint,
            leaves=self.leaves,
            yours=tuple(self.yours),
            mine=tuple(self.mine),
        )
        return web.Response(body=seal_reply(Secret(asked.reply_secret), encode_wire(answer)))


async def lost_some(hackney: Restorable, camden: Borough, desk: Desk) -> tuple[str, bytes]:
    """Hackney has signed for Camden after its backup, and is set back; the checkpoint and hashes that Camden saw."""
    async with hackney.run() as node:
        await node.know(camden)
        await idle(node)
    hackney.back_up()
    async with hackney.run() as node:
        await node.reached(await send_to(node, camden.area), "received")
        await idle(node)
        checkpoint = (await node.services.store.read(latest_head)).text
        rows = node.rows("SELECT hash FROM log_nodes WHERE level = 0 ORDER BY position")
    hackney.set_back()
    return checkpoint, b"".join(bytes(row[0]) for row in rows)


async def test_false_hashes_of_a_hostile_peer_lead_nowhere(hackney: Restorable, camden: Borough, desk: Desk) -> None:
    checkpoint, hashes = await lost_some(hackney, camden, desk)
    for wrong in (bytes(len(hashes)), hashes[:-1] + b"x", hashes[:-32], b""):
        async with Answering(camden, hackney, checkpoint, wrong).listening():
            assert await hackney.rejoin() is None
        assert hackney.described["forks_at"] == [camden.origin]
        hackney.clock.now_ms += 10
    async with Answering(camden, hackney, checkpoint, hashes).listening():
        assert await hackney.rejoin() is not None


async def test_a_checkpoint_that_the_keys_of_this_node_have_not_signed_is_no_answer(
    hackney: Restorable, camden: Borough, desk: Desk
) -> None:
    checkpoint, hashes = await lost_some(hackney, camden, desk)
    forged = SigningKeys.generate().sign_checkpoint(hackney.configuration.origin, 100, bytes(32), 1)
    for false in (forged, checkpoint.replace("\n", "\n1", 1), "nothing"):
        async with Answering(camden, hackney, false, hashes).listening():
            assert await hackney.rejoin() is None
        assert [one.answered for one in hackney.described["peers"]] == [False]
        hackney.clock.now_ms += 10


async def test_statements_that_this_node_has_not_signed_are_passed_over(
    hackney: Restorable, camden: Borough, desk: Desk
) -> None:
    checkpoint, hashes = await lost_some(hackney, camden, desk)
    answer = Answering(camden, hackney, checkpoint, hashes)
    answer.yours = [camden.prove(0)]
    async with answer.listening():
        record = await hackney.rejoin()
    assert record is not None
    assert record.returned == 0
    assert record.messages == ()


async def test_two_logs_in_the_nodes_name_stop_it(hackney: Restorable, camden: Borough, desk: Desk) -> None:
    _, hashes = await lost_some(hackney, camden, desk)
    size = await hackney.size()
    # Somebody has signed another statement at the place of the last that is here.
    other = hackney.keyring.sign_checkpoint(size, bytes(32), 1)
    async with Answering(camden, hackney, other, hashes).listening():
        with pytest.raises(ExceptionGroup) as stopped:
            await hackney.rejoin()
    assert stopped.group_contains(LogContradicted)
    assert await hackney.size() == size


async def test_a_node_waits_for_a_peer_that_is_away_until_an_admin_decides(
    hackney: Restorable, camden: Borough, desk: Desk
) -> None:
    await lost_some(hackney, camden, desk)
    size = await hackney.size()
    assert await hackney.rejoin() is None
    ((one,)) = hackney.described["peers"]
    assert (one.origin, one.answered) == (camden.origin, False)
    assert one.reason

    record = await hackney.rejoin(decided=True)

    assert record is not None
    assert (record.size, record.size_before) == (size, size)
    assert [one.answered for one in record.peers] == [False]


async def test_a_node_without_peers_goes_on_at_once(hackney: Restorable) -> None:
    async with hackney.run():
        pass
    hackney.back_up()
    hackney.set_back()
    assert await hackney.rejoin() is not None


async def test_a_backup_from_before_a_change_of_keys_is_of_no_use(
    hackney: Restorable, enfield: Node, clock: Clock
) -> None:
    async with hackney.run() as node:
        await acquaint(node, enfield)
    hackney.back_up()
    old = hackney.keyring.signing
    async with hackney.run() as node:
        assert (await node.local("POST", "/v1/keys/rotate", {}))[0] == 200
        await idle(node)
    hackney.set_back()
    store_key = hackney.keyring.store_key
    hackney.keyring = Keyring(hackney.configuration.origin, old, store_key)
    assert await hackney.rejoin() is None
    assert [one.reason for one in hackney.described["peers"]] == ["answered unacceptable"]


async def test_who_holds_a_section_comes_back_without_the_name(
    hackney: Restorable, clock: Clock, tmp_path: Path
) -> None:
    clock.run()
    async with (
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield,
        Agency("housing").listening() as housing,
    ):
        await housing.register(enfield)
        async with hackney.run() as node:
            await node.know(enfield)
            await enfield.know(node)
            await idle(node)
        hackney.back_up()
        async with hackney.run() as node:
            message = await node.send(ENFIELD)

            async def stands() -> tuple[str, str | None]:
                rows = (await node.status(message))["sections"]
                row = next(row for row in rows if (row["section"], row["agency"]) == ("housing", "housing"))
                return row["rung"], row["holder"]

            async def is_delivered() -> bool:
                return (await stands())[0] == "delivered"

            await until("housing has it", is_delivered)
            said = {"agency": "housing", "name": "Ana Fictitious", "role": "Officer", "contact": "none"}
            assert (await enfield.local("POST", f"/v1/sections/{message}/housing/own", said))[0] == 200

            async def is_owned() -> bool:
                return await stands() == ("owned", "Ana Fictitious")

            await until("it is owned", is_owned)
            await idle(node)
        hackney.set_back()
        assert await hackney.rejoin() is not None
        async with hackney.run() as node:
            assert await stands() == ("owned", None)
