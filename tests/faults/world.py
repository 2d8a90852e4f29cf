"""What a scenario works in: two boroughs and their agencies, what people were told, and the check at the end.

Boroughs that know each other are made once; each scenario gets a copy on the same ports.
"""

import contextlib
import copy
import http.client
import json
import random
import shutil
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from exchange.cli.client import CommandFailed, Node
from tests import databases
from tests.faults.checker.collect import read_catalogue, read_node, rows_of_file
from tests.faults.checker.history import Call, Exported, History
from tests.faults.checker.rules import check
from tests.processes.harness import ENFIELD, HACKNEY, KINDS, Borough, example, introduce, until
from tests.processes.receiver import Receiver, Request

ROOT: Final = Path(__file__).parents[2]
READERS: Final = read_catalogue(ROOT / "config" / "catalogue.toml")
PATIENCE_S: Final = 60.0
FORMS: Final = tuple(example(name) for name in ("case-study-j", "urgent"))


class Broken(AssertionError):
    """A promise was broken."""


#: One kind has two agencies, and a rule between them.
AGENCIES: Final = (*KINDS, "housing/south")
RULE: Final = '\n[[routing.rule]]\nsections = ["housing", "contacts"]\nto = ["housing/south"]\n'


@dataclass
class Ports:
    """The pair that every scenario copies."""

    hackney: Borough
    enfield: Borough
    receiver: Receiver


def make_pair(root: Path) -> Ports:
    """Make Hackney and Enfield, register them with each other, and stop them."""
    templates = root / "templates"
    templates.mkdir()
    hackney, enfield = (
        Borough(root, templates, slug, area) for slug, area in (("hackney", HACKNEY), ("enfield", ENFIELD))
    )
    receiver = Receiver().start()
    try:
        _acquaint(hackney, enfield, receiver)
    finally:
        hackney.kill()
        enfield.kill()
        receiver.stop()
    return Ports(hackney, enfield, receiver)


def _acquaint(hackney: Borough, enfield: Borough, receiver: Receiver) -> None:
    for borough in (hackney, enfield):
        borough.configure("delivery", backoff_cap_s=1, peer_timeout_s=5, agency_timeout_s=5)
        borough.config.write_text(borough.config.read_text() + RULE)
        borough.start(wait=False)
    for borough in (hackney, enfield):
        until(f"{borough.origin} answers", borough.answers)
    introduce(hackney, enfield)
    for name in AGENCIES:
        kind, _, label = name.partition("/")
        wanted = {"kind": kind, "label": label or None, "url": receiver.url(name), "networks": ["127.0.0.0/8"]}
        receiver.know(name, enfield.api("POST", "/v1/agencies", wanted)["secret"])
    for borough in (hackney, enfield):
        until(f"{borough.origin} has told its peer", borough.is_idle)
    for borough in (hackney, enfield):
        borough.stop()


def _copied(borough: Borough, root: Path) -> Borough:
    made = copy.copy(borough)
    ignored = shutil.ignore_patterns("*.sock", "*.lock")
    made.directory = Path(shutil.copytree(borough.directory, root / borough.directory.name, ignore=ignored))
    made.config, made.log = made.directory / "exchange.toml", root / f"{made.directory.name}.log"
    databases.copied_into(made.config)
    made.environment, made.process = dict(borough.environment), None
    return made


@dataclass
class Sender:
    """Sends forms under ids of its own, and remembers what it was told."""

    borough: Borough
    told: list[str] = field(default_factory=list)
    #: Sent, and not answered: nobody knows yet.
    open: dict[str, bytes] = field(default_factory=dict)
    #: What was said to a person instead, by code.
    refusals: Counter[str] = field(default_factory=Counter)

    def send(self, form: bytes, message_id: str = "") -> str:
        """Send a form, once; an error that says to try later leaves it open."""
        message_id = message_id or str(uuid.uuid4())
        self.open[message_id] = form
        try:
            path = f"/v1/messages/to/{ENFIELD}"
            Node(self.borough.config).request("POST", path, raw=form, idempotency_key=message_id)
        except CommandFailed as error:
            if error.exit_code != 75:
                raise
            self.refusals[error.code] += 1
        else:
            del self.open[message_id]
            if message_id not in self.told:
                self.told.append(message_id)
        return message_id

    def again(self) -> None:
        """Send what is open again, as a person does who was told to."""
        for message_id, form in list(self.open.items()):
            self.send(form, message_id)


class World:
    """For one scenario."""

    def __init__(self, ports: Ports, root: Path, chance: random.Random) -> None:
        root.mkdir(parents=True)
        self.root = root
        self.chance = chance
        self.hackney, self.enfield = _copied(ports.hackney, root), _copied(ports.enfield, root)
        self.receiver = Receiver(port=ports.receiver.port)
        for kind in AGENCIES:
            self.receiver.know(kind, ports.receiver.secret(kind))
        self.sender = Sender(self.hackney)
        self.boroughs: list[Borough] = [self.hackney, self.enfield]
        self.seen: set[tuple[str, str]] = set()
        self.exported: list[Exported] = []
        #: What somebody said of a section, and was told that it was taken.
        self.said: set[tuple[str, str, str, str]] = set()
        #: What was done, for the table.
        self.counts: Counter[str] = Counter()
        self._undo: list[Callable[[], object]] = []

    def form(self) -> bytes:
        """One of the shipped forms; most are the small one, so that more of them fit into the time."""
        return self.chance.choices(FORMS, (1, 5))[0]

    def start(self, *boroughs: Borough) -> None:
        """Start nodes, at once, and wait until they answer."""
        if self.receiver._server is None:
            self.receiver.start()
        for borough in boroughs or self.boroughs:
            borough.start(wait=False)
        for borough in boroughs or self.boroughs:
            until(f"the node of {borough.origin} answers", borough.answers)

    def afterwards(self, undo: Callable[[], object]) -> None:
        """What to take back at the end, the last first."""
        self._undo.append(undo)

    def end(self) -> None:
        """Kill and close what is left."""
        for borough in self.boroughs:
            borough.kill()
        self.receiver.stop()
        for undo in reversed(self._undo):
            undo()

    # Faults

    def arm(self, borough: Borough, *arguments: object) -> None:
        """Have a node start by the armed entry point."""
        borough.program = (sys.executable, "-m", "tests.faults.armed", *map(str, arguments), "--")
        borough.environment["PYTHONPATH"] = str(ROOT)

    def disarm(self, borough: Borough) -> None:
        """Have it start as it does in production."""
        borough.program = (sys.executable, "-m", "exchange.cli.main")
        borough.environment.pop("PYTHONPATH", None)

    def died(self, borough: Borough, patience_s: float = PATIENCE_S) -> bool:
        """Whether an armed node has ended itself within a time."""
        assert borough.process is not None
        with contextlib.suppress(Exception):
            borough.process.wait(patience_s)
        return borough.process.poll() is not None

    # Evidence

    def observe(self) -> None:
        """Note the checkpoints that the nodes show to anybody."""
        for borough in self.boroughs:
            with contextlib.suppress(OSError, http.client.HTTPException):
                url = f"http://127.0.0.1:{borough.port}/v1/log/checkpoint"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    self.seen.add((borough.origin, answer.read().decode()))

    def own(self, message_id: str) -> None:
        """Say for an agency that somebody has taken its section on; while the node does not answer nobody knows."""
        row = self.enfield.api("GET", f"/v1/messages/{message_id}")["sections"][0]
        path = f"/v1/sections/{message_id}/{row['section']}/own"
        with contextlib.suppress(CommandFailed):
            self.enfield.api("POST", path, {"agency": row["given_to"], "name": "A", "role": "B", "contact": "C"})
            self.said.add((self.enfield.origin, message_id, row["section"], "owned"))

    def export(self, message_id: str) -> None:
        """Export a message's receipts, as somebody does who will want to prove something."""
        with contextlib.suppress(CommandFailed):
            document = self.hackney.api("GET", f"/v1/messages/{message_id}/receipts")
            self.exported += [
                Exported(self.enfield.origin, _bytes(item["statement"]), item["proof"]) for item in document["receipts"]
            ]

    def settle(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until nothing is on its way any more; what is held stays."""
        self.sender.again()
        until("everybody who sent was answered", lambda: self.sender.again() or not self.sender.open, patience_s)
        deadline = time.monotonic() + patience_s
        quiet = 0
        while quiet < 2:
            due: list[Any] = ["a node that does not answer"]
            with contextlib.suppress(CommandFailed):  # one that has no descriptor left closes the connection
                lanes = [row for borough in self.boroughs for row in borough.api("GET", "/v1/health")["lanes"]]
                due = [row for row in lanes if row["state"] != "held"]
            quiet = 0 if due else quiet + 1
            if due and time.monotonic() > deadline:
                raise Broken(f"after {patience_s:g} s there still waits {due}")
            time.sleep(0.05)
        self.observe()

    def history(self, *, settled: bool = True, one_clock: bool = True) -> History:
        """What is known; the nodes must not run."""
        return History(
            nodes={borough.origin: read_node(borough.origin, rows_of(borough)) for borough in self.boroughs},
            calls=tuple(map(_call, self.receiver.requests)),
            told=tuple((self.hackney.origin, message_id) for message_id in self.sender.told),
            seen=tuple(sorted(self.seen)),
            exported=tuple(self.exported),
            said=tuple(sorted(self.said)),
            readers=READERS,
            one_clock=one_clock,
            settled=settled,
        )

    def check(self, *, settled: bool = True, one_clock: bool = True, alarms: Sequence[str] = ()) -> None:
        """Stop the nodes, and have the checker look at everything."""
        if settled:
            self.settle()
        for borough in self.boroughs:
            if borough.process is not None and borough.process.poll() is None:
                found = sorted({row["kind"] for row in borough.api("GET", "/v1/alarms")["items"]})
                if found != sorted(alarms):
                    raise Broken(f"{borough.origin} has the alarms {found}")
                borough.stop()
        history = self.history(settled=settled, one_clock=one_clock)
        findings = check(history)
        self.counts["messages"] += len(self.sender.told)
        self.counts["calls"] += len(history.calls)
        self.counts["checkpoints"] += sum(len(node.checkpoints) for node in history.nodes.values()) + len(self.seen)
        if findings:
            raise Broken("\n".join(f"{finding.rule}: {finding.what}" for finding in findings[:20]))


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def rows_of(borough: Borough) -> Any:
    """Queries on the store of a node that does not run."""
    import tomllib

    url = tomllib.loads(borough.config.read_text())["store"]["url"]
    if url.startswith("sqlite:///"):
        return rows_of_file(borough.directory / url.removeprefix("sqlite:///"))
    return lambda query: databases.rows(url, query)


def _call(request: Request) -> Call:
    proven = request.answer != 401
    event = json.loads(request.body) if proven else {}
    return Call(
        request.at_s, request.kind, request.headers.get("webhook-id", ""), request.body, event, request.answer, proven
    )


class Load:
    """Sends forms from threads of its own until it is told to stop."""

    def __init__(self, world: World, threads: int = 1, pause_s: float = 0.3) -> None:
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._errors: list[CommandFailed] = []
        self.senders = [Sender(world.hackney) for _ in range(threads)]
        self._world = world
        seeds = [world.chance.random() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(sender, seed))
            for sender, seed in zip(self.senders, seeds, strict=True)
        ]

    def _run(self, sender: Sender, seed: float) -> None:
        chance = random.Random(seed)
        try:
            while not self._stop.is_set():
                sender.send(chance.choices(FORMS, (1, 5))[0])
                self._stop.wait(chance.uniform(0, self._pause_s))
        except CommandFailed as error:
            self._errors.append(error)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for sender in self.senders:
            self._world.sender.told += sender.told
            self._world.sender.open |= sender.open
            self._world.sender.refusals += sender.refusals
        if self._errors:
            raise Broken(f"a person who sent a form was told: {self._errors[0].message}")


def kill_at_random(world: World, victims: Iterable[Borough]) -> None:
    """Kill nodes after a time that chance gives, and start them again."""
    for victim in victims:
        time.sleep(world.chance.uniform(0, 0.6))
        victim.kill()
        world.counts["kills"] += 1
        victim.start(wait=False)
    for victim in victims:
        until(f"{victim.origin} answers", victim.answers)
