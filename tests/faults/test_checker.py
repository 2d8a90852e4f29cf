"""The checker finds each kind of broken promise in histories that are made by hand, and finds nothing in a good one."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from exchange.crypto.merkle import inclusion_needs, inclusion_path
from exchange.crypto.names import Origin
from exchange.crypto.proof import format_proof
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys, sign_checkpoint
from exchange.crypto.statement import encode_statement, leaf_hash
from tests.faults.checker.collect import read_catalogue
from tests.faults.checker.history import (
    Call,
    Exported,
    Given,
    HeldReceipt,
    History,
    Leaf,
    Message,
    Node,
    PeerView,
    Waiting,
)
from tests.faults.checker.rules import Finding, check
from tests.faults.checker.tree import Tree

CATALOGUE: Final = Path(__file__).parents[2] / "config" / "catalogue.toml"
HACKNEY, ENFIELD = "exchange.hackney.example", "exchange.enfield.example"
AT: Final = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
MESSAGE: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
READERS: Final = {"subject": ("housing", "police"), "subject.pnc": ("police",)}


@dataclass
class Log:
    """A log that is made by hand; each `append` is a batch."""

    origin: str
    seed: int
    statements: list[tuple[str, bytes]] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)

    @property
    def keys(self) -> SigningKeys:
        return SigningKeys(Secret(bytes([self.seed]) * 32), Secret(bytes([self.seed + 1]) * 32))

    @property
    def leaves(self) -> list[bytes]:
        return [leaf_hash(statement) for _, statement in self.statements]

    def append(self, *bodies: tuple[str, dict[str, Any]]) -> list[int]:
        for kind, body in bodies:
            self.statements.append((kind, encode_statement(kind, msgspec.msgpack.encode(body))))
        self.checkpoints.append(self.sign(self.leaves))
        return list(range(len(self.statements) - len(bodies), len(self.statements)))

    def sign(self, leaves: Sequence[bytes]) -> str:
        root = Tree(leaves).root(len(leaves))
        return sign_checkpoint((self.keys,), Origin(self.origin), len(leaves), root, 1_772_443_800)

    def card(self) -> tuple[str, dict[str, Any]]:
        keys = [key.text() for key in self.keys.verifiers(Origin(self.origin))]
        return "card", {"origin": self.origin, "signing_keys": keys}

    def proof(self, position: int) -> str:
        size = len(self.statements)
        nodes = {(level, place): value for level, place, value in Tree(self.leaves).complete()}
        path = inclusion_path(position, size, {node: nodes[node] for node in inclusion_needs(position, size)})
        return format_proof(position, path, self.checkpoints[-1])

    def statement(self, position: int) -> bytes:
        return self.statements[position][1]

    def node(self, **more: Any) -> Node:
        return Node(
            origin=self.origin,
            leaves=tuple(
                Leaf(place, leaf_hash(statement), kind, statement)
                for place, (kind, statement) in enumerate(self.statements)
            ),
            head_size=len(self.statements),
            tree_nodes={(level, place): value for level, place, value in Tree(self.leaves).complete()},
            checkpoints=tuple(self.checkpoints),
            **more,
        )

    def seen_by(self, *texts: str) -> PeerView:
        return PeerView(self.origin, self.statement(0), self.proof(0), texts or (self.checkpoints[-1],))


def manifest() -> dict[str, Any]:
    return {
        "message_id": MESSAGE,
        "sender": HACKNEY,
        "recipient": ENFIELD,
        "from_area": "E09000012",
        "to_area": "E09000010",
        "sections": [{"name": name, "readers": kinds} for name, kinds in READERS.items()],
    }


def receipt(rung: str, leaf: bytes, seconds: float, placements: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    return {
        "message_id": MESSAGE,
        "leaf_hash": leaf,
        "rung": rung,
        "origin": ENFIELD,
        "recipient": HACKNEY,
        "at": AT + timedelta(seconds=seconds),
        "placements": [{"section": section, "agency": kind} for section, kind in placements],
    }


def call(section: str, kind: str, seconds: float, answer: int = 204, **more: Any) -> Call:
    data = {"message_id": MESSAGE, "section": section, "from": "E09000012", "to": "E09000010", "content": {}} | more
    event = {"source": f"https://{ENFIELD}", "type": "exchange.section.delivered.v1", "data": data}
    event_id = f"evt_{section}_{kind}"
    return Call(AT.timestamp() + seconds, kind, event_id, json.dumps(event).encode(), event, answer, True)


@dataclass
class Run:
    """A handover as it should be: one message, three deliveries, of which that to housing waits for a person."""

    hackney: Log = field(default_factory=lambda: Log(HACKNEY, 1))
    enfield: Log = field(default_factory=lambda: Log(ENFIELD, 11))
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.hackney.append(self.hackney.card())
        self.enfield.append(self.enfield.card())
        (sent,) = self.hackney.append(("manifest", manifest()))
        leaf = self.hackney.leaves[sent]
        police = [(name, "police") for name in READERS]
        (received,) = self.enfield.append(("receipt", receipt("received", leaf, 1)))
        (delivered,) = self.enfield.append(("receipt", receipt("delivered", leaf, 3, police)))
        statement = self.hackney.statement(sent)
        kept = [
            HeldReceipt(MESSAGE, rung, self.enfield.leaves[place], self.enfield.statement(place), None, place)
            for rung, place in (("received", received), ("delivered", delivered))
        ]
        hackney = self.hackney.node(
            messages=(Message(HACKNEY, MESSAGE, "out", ENFIELD, leaf, statement, None, sent, None),),
            receipts=tuple(replace(item, proof=self.enfield.proof(item.position or 0), position=None) for item in kept),
            peers=(self.enfield.seen_by(),),
        )
        proof = self.hackney.proof(sent)
        enfield = self.enfield.node(
            messages=(Message(HACKNEY, MESSAGE, "in", HACKNEY, leaf, statement, proof, None, received),),
            receipts=tuple(kept),
            waiting=(Waiting(MESSAGE, "route:housing", "route", "held", "housing", None, "no agency of kind"),),
            peers=(self.hackney.seen_by(),),
            given=tuple(Given(MESSAGE, name, "police", "police") for name in READERS),
        )
        self.history = History(
            nodes={HACKNEY: hackney, ENFIELD: enfield},
            calls=tuple(call(name, "police", 2 + number / 10) for number, name in enumerate(READERS)),
            told=((HACKNEY, MESSAGE),),
            seen=((HACKNEY, self.hackney.checkpoints[0]),),
            exported=(Exported(ENFIELD, self.enfield.statement(delivered), self.enfield.proof(delivered)),),
            readers=read_catalogue(CATALOGUE),
        )

    def change(self, origin: str, **changes: Any) -> None:
        """Have another table at a node."""
        nodes = dict(self.history.nodes)
        nodes[origin] = replace(nodes[origin], **changes)
        self.history = replace(self.history, nodes=nodes)

    def add_calls(self, *calls: Call) -> None:
        self.history = replace(self.history, calls=self.history.calls + calls)

    def rebuilt(self, origin: str, log: Log) -> None:
        """Have another log at a node, with the same tables."""
        node = log.node()
        self.change(
            origin,
            leaves=node.leaves,
            head_size=node.head_size,
            tree_nodes=node.tree_nodes,
            checkpoints=node.checkpoints,
        )


def test_a_history_as_it_should_be_has_no_findings() -> None:
    assert check(Run().history) == []


Break = Callable[[Run], None]
BROKEN: Final[dict[str, tuple[str, str, Break]]] = {}


def breaks(rule: str, words: str) -> Callable[[Break], Break]:
    """Which rule a change breaks, and what the finding must say."""

    def register(change: Break) -> Break:
        BROKEN[change.__name__] = (rule, words, change)
        return change

    return register


@breaks("kept", f"{HACKNEY} said that it took message {MESSAGE}, and does not have it")
def a_form_that_was_taken_is_not_there(run: Run) -> None:
    run.change(HACKNEY, messages=(), receipts=())


@breaks("kept", f"{ENFIELD} signed that it received message {MESSAGE}, and does not have it")
def a_message_that_was_acknowledged_is_not_there(run: Run) -> None:
    run.change(ENFIELD, messages=(), receipts=(), waiting=())


@breaks("kept", f"{HACKNEY} has no receipt for message {MESSAGE}, and does not try to send it")
def a_message_is_forgotten_in_the_outbox(run: Run) -> None:
    run.change(HACKNEY, receipts=())


@breaks("kept", f"section subject of message {MESSAGE} never reached housing, and {ENFIELD} does not try")
def a_section_is_forgotten(run: Run) -> None:
    run.change(ENFIELD, waiting=())


@breaks("kept", f"section subject of message {MESSAGE} is held for housing without a reason")
def a_section_is_held_for_no_reason(run: Run) -> None:
    run.change(ENFIELD, waiting=(replace(run.history.nodes[ENFIELD].waiting[0], reason=None),))


@breaks("kept", f"section subject of message {MESSAGE} has still not reached housing")
def a_section_is_still_on_its_way_at_the_end(run: Run) -> None:
    run.change(ENFIELD, waiting=(replace(run.history.nodes[ENFIELD].waiting[0], state="due", reason=None),))


@breaks("given", f"police/gangs took section subject of message {MESSAGE}, which police has")
def another_agency_of_the_kind_has_it_too(run: Run) -> None:
    run.add_calls(replace(call("subject", "police", 1.9), agency="police/gangs", event_id="evt_gangs"))


@breaks("given", f"police took section subject of message {MESSAGE}, which police/gangs has")
def the_store_says_that_another_has_it(run: Run) -> None:
    given = run.history.nodes[ENFIELD].given
    run.change(ENFIELD, given=tuple(replace(row, agency="police/gangs") for row in given))


@breaks("kept", f"section subject of message {MESSAGE} never reached housing, and {ENFIELD} does not try")
def a_section_waits_for_another_agency_than_has_it(run: Run) -> None:
    run.change(
        ENFIELD, given=(*run.history.nodes[ENFIELD].given, Given(MESSAGE, "subject", "housing", "housing/south"))
    )


@breaks("once", "was delivered to police again after its acceptance was recorded")
def a_section_comes_again_after_it_was_recorded(run: Run) -> None:
    run.add_calls(call("subject", "police", 4))


@breaks("once", "came under two ids")
def a_section_comes_under_another_id(run: Run) -> None:
    run.add_calls(replace(call("subject", "police", 1.9), event_id="evt_another"))


@breaks("once", "event evt_subject_police came with two contents")
def a_section_comes_with_another_content(run: Run) -> None:
    run.add_calls(replace(call("subject", "police", 1.9), body=b"{}"))


@breaks("once", f"{ENFIELD} recorded 2 times that police took section subject of message {MESSAGE}")
def an_acceptance_is_recorded_twice(run: Run) -> None:
    leaf = run.history.nodes[HACKNEY].messages[0].leaf_hash
    run.enfield.append(("receipt", receipt("delivered", leaf, 3, [("subject", "police")])))
    run.rebuilt(ENFIELD, run.enfield)


@breaks("readers", "which the manifest does not give it")
def a_section_goes_to_an_agency_that_the_manifest_does_not_name(run: Run) -> None:
    run.add_calls(call("subject.pnc", "housing", 2))


@breaks("readers", "which the catalogue denies it")
def a_section_goes_to_an_agency_that_the_catalogue_denies_it(run: Run) -> None:
    run.history = replace(run.history, readers={"subject": frozenset({"housing"})})


@breaks("readers", "which no node has stored")
def an_agency_gets_a_message_that_is_not_stored(run: Run) -> None:
    run.add_calls(call("subject", "police", 2, message_id=MESSAGE.replace("0f", "1f")))


@breaks("readers", "got a call that does not verify")
def an_agency_gets_a_call_that_does_not_verify(run: Run) -> None:
    run.add_calls(replace(call("subject", "police", 2, 401), proven=False))


@breaks("readers", "was told other boroughs")
def an_agency_of_another_borough_gets_a_section(run: Run) -> None:
    others = run.history.calls[1:]
    wrong = call("subject", "police", 2, to="E09000001")
    run.history = replace(run.history, calls=(wrong, *others))


@breaks("receipts", f"signed received for message {MESSAGE}, which it does not have")
def a_receipt_is_for_another_content(run: Run) -> None:
    run.enfield.append(("receipt", receipt("received", bytes(32), 5)))
    run.rebuilt(ENFIELD, run.enfield)


@breaks("receipts", "housing has never taken section subject")
def an_acceptance_is_signed_that_never_was(run: Run) -> None:
    leaf = run.history.nodes[HACKNEY].messages[0].leaf_hash
    run.enfield.append(("receipt", receipt("delivered", leaf, 5, [("subject", "housing")])))
    run.rebuilt(ENFIELD, run.enfield)


@breaks("receipts", f"signed received 2 times for {MESSAGE}")
def two_receipts_are_signed_for_one_message(run: Run) -> None:
    leaf = run.history.nodes[HACKNEY].messages[0].leaf_hash
    run.enfield.append(("receipt", receipt("received", leaf, 5)))
    run.rebuilt(ENFIELD, run.enfield)


@breaks("receipts", f"{HACKNEY} keeps a receipt of {ENFIELD} that is not in its log")
def a_receipt_is_not_in_the_log_of_its_signer(run: Run) -> None:
    run.rebuilt(ENFIELD, _cut(run.enfield, 2))


@breaks("receipts", f"{HACKNEY} keeps a receipt of {ENFIELD} whose proof does not hold")
def a_receipt_has_the_proof_of_another(run: Run) -> None:
    first, second = run.history.nodes[HACKNEY].receipts
    run.change(HACKNEY, receipts=(replace(first, proof=second.proof), second))


@breaks("receipts", f"{HACKNEY} keeps a receipt for message {MESSAGE}, which it did not send so")
def a_receipt_is_kept_for_what_was_not_sent(run: Run) -> None:
    message = run.history.nodes[HACKNEY].messages[0]
    run.change(HACKNEY, messages=(replace(message, leaf_hash=bytes(32)),))


@breaks("logs", f"{HACKNEY} has seen 3 statements of {ENFIELD}, whose log has 2")
def a_log_went_back(run: Run) -> None:
    run.rebuilt(ENFIELD, _cut(run.enfield, 2))


@breaks("logs", f"the log of {ENFIELD} does not continue the one of 3 statements")
def a_log_is_rewritten(run: Run) -> None:
    log = _cut(run.enfield, 2)
    log.append(("card", {"origin": ENFIELD, "signing_keys": log.card()[1]["signing_keys"], "serial": 9}))
    run.rebuilt(ENFIELD, log)


@breaks("logs", f"{HACKNEY} signed two logs of 2 statements")
def two_logs_of_one_size_are_signed(run: Run) -> None:
    other = run.hackney.sign([run.hackney.leaves[0], bytes(32)])
    run.history = replace(run.history, seen=((HACKNEY, other),))


@breaks("logs", f"{ENFIELD} has a checkpoint of {HACKNEY} that does not hold")
def a_checkpoint_is_signed_by_nobody(run: Run) -> None:
    forged = Log(HACKNEY, 21, statements=list(run.hackney.statements))
    view = replace(run.history.nodes[ENFIELD].peers[0], checkpoints=(forged.sign(forged.leaves),))
    run.change(ENFIELD, peers=(view,))


@breaks("logs", f"statement 1 of {HACKNEY} does not have its leaf hash")
def a_statement_is_changed(run: Run) -> None:
    first, second = run.history.nodes[HACKNEY].leaves
    run.change(HACKNEY, leaves=(first, replace(second, statement=first.statement)))


@breaks("logs", f"the log of {ENFIELD} has a gap")
def a_statement_is_missing(run: Run) -> None:
    first, _, third = run.history.nodes[ENFIELD].leaves
    run.change(ENFIELD, leaves=(first, third))


@breaks("logs", f"the tree that {ENFIELD} keeps is not that of its log")
def a_node_of_the_tree_is_damaged(run: Run) -> None:
    nodes = dict(run.history.nodes[ENFIELD].tree_nodes)
    nodes[1, 0] = bytes(32)
    run.change(ENFIELD, tree_nodes=nodes)


@breaks("logs", f"{ENFIELD} thinks that its log has 9 statements, and it has 3")
def the_head_does_not_fit(run: Run) -> None:
    run.change(ENFIELD, head_size=9)


@breaks("returned", f"delivered of {ENFIELD} for message {MESSAGE} never reached the sender, and is not on its way")
def a_receipt_never_comes_back(run: Run) -> None:
    received, _ = run.history.nodes[HACKNEY].receipts
    run.change(HACKNEY, receipts=(received,))


@breaks("returned", f"received of {ENFIELD} for message {MESSAGE} never reached the sender, who does not ask again")
def the_first_receipt_never_comes_back(run: Run) -> None:
    run.change(HACKNEY, receipts=())


def _cut(log: Log, size: int) -> Log:
    return Log(log.origin, log.seed, log.statements[:size], log.checkpoints[:size])


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_and_named(name: str) -> None:
    rule, words, change = BROKEN[name]
    run = Run()
    change(run)
    found = check(run.history)
    assert any(finding.rule == rule and words in finding.what for finding in found), found


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN.values()} == {
        "kept",
        "once",
        "readers",
        "given",
        "receipts",
        "logs",
        "returned",
    }


def test_what_is_on_its_way_is_no_finding_before_the_run_has_settled() -> None:
    run = Run()
    a_section_is_still_on_its_way_at_the_end(run)
    assert check(replace(run.history, settled=False)) == []


def test_times_of_two_clocks_are_not_compared() -> None:
    run = Run()
    a_section_comes_again_after_it_was_recorded(run)
    assert check(replace(run.history, one_clock=False)) == []
    assert [finding.rule for finding in check(run.history)] == ["once"]
    assert isinstance(check(run.history)[0], Finding)


def test_the_checker_shares_nothing_with_the_node_but_its_cryptography() -> None:
    script = (
        "import sys, tests.faults.checker.rules, tests.faults.checker.collect\n"
        "print(*sorted(name for name in sys.modules if name.startswith('exchange')))"
    )
    root = CATALOGUE.parents[1]
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(name in ("exchange", "exchange.errors") or name.startswith("exchange.crypto") for name in loaded), loaded
