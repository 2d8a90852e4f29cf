"""A borough in several processes, senders that do not give up, and a look at what came of it all.

The look is an independent one: it reads the tables, and computes the log with `hashlib` alone.
"""

import base64
import contextlib
import hashlib
import json
import threading
import time
import tomllib
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

import asyncpg

from exchange.cli.client import CommandFailed, Node
from exchange.crypto.statement import parse_statement
from exchange.schema.wire import Rung, decode_wire, receipt_decoder
from tests import databases
from tests.processes.balancer import Balancer
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, Borough, allowed_by, example, exchange, until
from tests.processes.receiver import Receiver

FORM: Final = example("case-study-j")
PLACES: Final = {(section, kind) for kind, sections in allowed_by(FORM).items() for section in sections}
_PAUSE_S: Final = 0.5
_NOT_NOW: Final = {"node-not-running", "answer-lost", "store-unavailable", "store-in-doubt", "try-later"}


@dataclass
class Crowd:
    """The processes of one node, behind a balancer."""

    processes: list[Borough]
    balancer: Balancer

    @classmethod
    def of(cls, town: Town, first: Borough, count: int) -> "Crowd":
        """Make a node into `count` processes, none of which runs yet."""
        balancer = Balancer()
        others = [town.replica_of(first, f"{first.directory.name}-{number}") for number in range(2, count + 1)]
        processes = [first, *others]
        for process in processes:
            # The copies name the port of the first as the node's own.
            own, process.port = process.port, first.port
            process.is_reached_at(balancer.port)
            process.port = own
            process.configure("delivery", backoff_cap_s=2)
        balancer.start(*(process.port for process in processes))
        return cls(processes, balancer)

    def start(self) -> "Crowd":
        for process in self.processes:
            process.start(wait=False)
        for process in self.processes:
            until(f"{process.directory.name} answers", process.answers)
        return self

    @property
    def any(self) -> Borough:
        """One that runs."""
        return next(one for one in self.processes if one.process is not None and one.process.poll() is None)

    @property
    def store(self) -> str:
        """The URL of the database."""
        return str(tomllib.loads(self.processes[0].config.read_text())["store"]["url"])


@dataclass
class Senders:
    """Threads that send one form after the other, each until a process has taken it."""

    crowd: Crowd
    ids: list[str] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    repeats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def sending(self, count: int = 2) -> Iterator[None]:
        threads = [threading.Thread(target=self._send, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(120)
        assert self.failed == []

    def _send(self, number: int) -> None:
        try:
            while not self._stop.is_set():
                message_id = str(uuid.uuid4())
                self._until_taken(message_id, number)
                self.ids.append(message_id)
                # Every form is many webhooks: not more of them than two cores can deliver meanwhile.
                self._stop.wait(_PAUSE_S)
        except BaseException as error:
            self.failed.append(error)
            raise

    def _until_taken(self, message_id: str, number: int) -> None:
        for attempt in range(2000):
            process = self.crowd.processes[(number + attempt) % len(self.crowd.processes)]
            try:
                path = f"/v1/messages/to/{ENFIELD}"
                Node(process.config).request("POST", path, raw=FORM, idempotency_key=message_id)
            except CommandFailed as error:
                if error.code not in _NOT_NOW:
                    raise
                self.repeats += 1
                time.sleep(0.05)
            else:
                return
        raise AssertionError("nobody takes a form")


@dataclass
class Watcher:
    """Looks at the outbox again and again: whether two processes ever work on a lane at the same time."""

    stores: Sequence[str]
    looks: int = 0
    shared: list[tuple[Any, ...]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    _QUERY: ClassVar[str] = """
        SELECT lane, count(DISTINCT split_part(claimed_by, '-', 1)) FROM outbox
        WHERE lease_until_ms > extract(epoch FROM clock_timestamp()) * 1000
        GROUP BY lane HAVING count(DISTINCT split_part(claimed_by, '-', 1)) > 1
    """

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(60)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for store in self.stores:
                with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    self.shared += databases.rows(store, self._QUERY)
                    self.looks += 1


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962, section 2.1, as it stands there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()


def check_log(store: str, origin: str) -> int:
    """Check every statement, leaf and checkpoint of a store; return how many checkpoints there are."""
    statements = databases.rows(store, "SELECT position, leaf_hash, statement FROM statements ORDER BY position")
    assert [row[0] for row in statements] == list(range(len(statements)))
    for position, leaf, statement in statements:
        blank = bytes(statement) == b""
        assert blank or hashlib.sha256(b"\0" + bytes(statement)).digest() == bytes(leaf), position
    leaves = [bytes(row[1]) for row in statements]
    checkpoints = databases.rows(store, "SELECT size, text FROM checkpoints ORDER BY size")
    for size, text in checkpoints:
        head = text.split("\n")
        assert head[:3] == [origin, str(size), base64.b64encode(root_of(leaves[:size])).decode()]
    assert checkpoints[-1][0] == len(leaves)
    assert databases.rows(store, "SELECT size FROM log_head") == [(len(leaves),)]
    return len(checkpoints)


def _receipts(borough: Borough, message_id: str) -> Any:
    return borough.api("GET", f"/v1/messages/{message_id}/receipts")


def check_all(hackney: Crowd, enfield: Crowd, receiver: Receiver, ids: Sequence[str]) -> None:
    """Check that every message that was taken has come to every agency, once, under receipts that hold."""
    here, there = hackney.any, enfield.any
    for message_id in ids:
        for borough in (here, there):
            assert borough.status(message_id, "delivered", 60)["reached"], f"{message_id} at {borough.origin}"
    for crowd in (hackney, enfield):
        until("nothing is left to deliver", crowd.any.is_idle)
    for crowd, origin in ((hackney, here.origin), (enfield, there.origin)):
        kept = databases.rows(crowd.store, "SELECT message_id FROM messages ORDER BY number")
        assert sorted(row[0] for row in kept) == sorted(ids), origin
        check_log(crowd.store, origin)
        assert crowd.any.ask("alarms") == {"items": []}
        assert crowd.any.ask("held", "list") == {"items": []}
        assert [row["trust"] for row in crowd.any.ask("peer", "list")["items"]] == ["verified"]
    _check_receipts(here, there, ids)
    _check_requests(there, receiver, ids)


def _check_receipts(here: Borough, there: Borough, ids: Sequence[str]) -> None:
    everything = []
    for message_id in ids:
        documents = [_receipts(borough, message_id) for borough in (here, there)]
        ends = [sorted(entry["statement"] for entry in document["receipts"]) for document in documents]
        assert ends[0] == ends[1], message_id
        everything += documents[0]["receipts"]
        counted: Counter[tuple[str, ...]] = Counter()
        for statement in ends[0]:
            receipt = decode_wire(receipt_decoder, parse_statement(base64.b64decode(statement)).body)
            if receipt.rung is Rung.RECEIVED:
                counted["received",] += 1
            counted.update((receipt.rung.value, place.section, place.agency) for place in receipt.placements)
        expected = {("received",), *((rung, *place) for rung in ("routed", "delivered") for place in PLACES)}
        assert counted == dict.fromkeys(expected, 1), message_id
    file = here.directory.parent / "receipts.json"
    file.write_text(json.dumps({"receipts": everything, "card": _receipts(here, ids[-1])["card"]}))
    checked = exchange("verify", file, "--json")
    assert checked.code == 0, checked
    assert len(checked.document["receipts"]) == len(everything)


def _check_requests(there: Borough, receiver: Receiver, ids: Sequence[str]) -> None:
    """Each section came to its agency, as one and the same event, and never again once that was recorded."""
    assert receiver.unproven == []
    recorded: dict[tuple[str, str, str], float] = {}
    for message_id in ids:
        for event in there.api("GET", f"/v1/messages/{message_id}/timeline")["events"]:
            if event["event"] == "delivered":
                for section in event["sections"]:
                    at = datetime.fromisoformat(event["at"]).timestamp()
                    assert (message_id, section, event["agency"]) not in recorded
                    recorded[message_id, section, event["agency"]] = at
    assert set(recorded) == {(message_id, *place) for message_id in ids for place in PLACES}
    heard: dict[tuple[str, str, str], set[tuple[str, bytes]]] = {}
    for request in receiver.accepted():
        place = request.event["data"]["message_id"], request.section, request.kind
        heard.setdefault(place, set()).add((request.headers["webhook-id"], request.body))
        assert request.at_s < recorded[place] + 1, f"{place} came again after it had been recorded"
    assert set(heard) == set(recorded)
    assert all(len(events) == 1 for events in heard.values())
