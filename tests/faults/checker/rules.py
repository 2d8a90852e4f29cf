"""The promises, each a function from a history to what broke it.

* kept: what a person or a node was told is taken, is there; each section reached its agency or is held with a reason.
* once: nothing is delivered again after its acceptance was recorded; each delivery keeps its id and its content.
* readers: an agency gets what the catalogue and the signed manifest allow its kind, and nothing else.
* given: of several agencies of a kind, the one that has a section by the receiver's store gets it, and no other.
* receipts: there is no receipt without what it says: a message, an acceptance, a place in its signer's log.
* logs: every checkpoint of a node that anybody saw is signed and lies on one tree; every proof holds.
* said: what somebody said of a section is signed, with the words sealed beside it; nothing is signed that nobody said.
* returned: what the receiver signed has reached the sender, or waits to.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from exchange.crypto.checkpoint import Checkpoint, CheckpointCache
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import Origin
from exchange.crypto.note import VerifierKey, parse_vkey
from exchange.crypto.proof import parse_proof, verify_statement
from exchange.crypto.statement import leaf_hash, parse_statement
from tests.faults.checker.history import Call, History, Message, Node
from tests.faults.checker.tree import Tree

_IN, _OUT = "in", "out"
_DELIVERED: Final = "exchange.section.delivered.v1"
_WORDS: Final = {"owned", "queried", "redirected"}
#: Receipts tell whole ones.
_A_MILLISECOND: Final = 0.001
Keys = tuple[VerifierKey, VerifierKey]


@dataclass(frozen=True)
class Finding:
    """A promise that was broken."""

    rule: str
    what: str


def check(history: History) -> list[Finding]:
    """Everything that is wrong with a run."""
    return [Finding(name, what) for name, rule in RULES.items() for what in rule(_Reading(history))]


class _Reading:
    """A history with its statements parsed."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.nodes = history.nodes
        self.cache = CheckpointCache(100_000)
        self.keys: dict[str, set[Keys]] = defaultdict(set)
        for node in history.nodes.values():
            for leaf in node.leaves:
                if leaf.type == "card" and leaf.statement:
                    self._learn(leaf.statement)
            for peer in node.peers:
                self._learn(peer.card)
        #: (receiver, message id) -> the calls about it
        self.calls: dict[str, list[Call]] = defaultdict(list)
        for call in history.calls:
            if "message_id" in call.event.get("data", {}) and call.event["type"] == _DELIVERED:
                self.calls[call.event["data"]["message_id"]].append(call)

    def _learn(self, card: bytes) -> None:
        body = _body(card)
        first, second = (parse_vkey(text) for text in body["signing_keys"])
        self.keys[body["origin"]].add((first, second))

    def inbound(self, node: Node) -> Iterator[tuple[Message, dict[str, Any]]]:
        """What a node received."""
        return ((message, _body(message.statement)) for message in node.messages if message.direction == _IN)

    def placements(self, manifest: Mapping[str, Any]) -> set[tuple[str, str]]:
        """Which section is for which agency."""
        return {(entry["name"], kind) for entry in manifest["sections"] for kind in entry["readers"]}

    def accepted(self, message_id: str, section: str, kind: str) -> list[Call]:
        """The calls that gave an agency a section, and that it took."""
        return [
            call
            for call in self.calls[message_id]
            if call.accepted and call.kind == kind and call.event["data"]["section"] == section
        ]

    def checkpoint(self, origin: str, text: str) -> Checkpoint:
        """Verify a checkpoint under one of the keys that the node has had.

        Raises:
            CryptoError: none of them signed it.
        """
        error: CryptoError | None = None
        for keys in self.keys[origin]:
            try:
                return self.cache.parse(text, Origin(origin), keys)
            except CryptoError as failed:
                error = failed
        raise error or CryptoError("nobody knows a key of it")

    def proven(self, origin: str, statement: bytes, proof: str) -> int:
        """Verify a statement under one of the keys that the node has had; its place in the log.

        Raises:
            CryptoError: it does not hold.
        """
        error: CryptoError | None = None
        for keys in self.keys[origin]:
            try:
                return verify_statement(statement, proof, Origin(origin), keys, self.cache).index
            except CryptoError as failed:
                error = failed
        raise error or CryptoError("nobody knows a key of it")


def _body(statement: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(parse_statement(statement).body, type=dict[str, Any])


def _kept(reading: _Reading) -> Iterator[str]:
    for origin, message_id in reading.history.told:
        node = reading.nodes[origin]
        known = {message.message_id for message in node.messages} | set(node.waiting_forms)
        if message_id not in known:
            yield f"{origin} said that it took message {message_id}, and does not have it"
    for node in reading.nodes.values():
        yield from _kept_of_sender(reading, node)
        yield from _kept_of_receiver(reading, node)


def _kept_of_sender(reading: _Reading, node: Node) -> Iterator[str]:
    received = {receipt.message_id for receipt in node.receipts if receipt.rung == "received"}
    waiting = {row.message_id for row in node.waiting if row.kind == "manifest" and (row.state != "held" or row.reason)}
    for message in node.messages:
        if message.direction != _OUT:
            continue
        peer = reading.nodes.get(message.peer)
        if message.message_id in received:
            there = peer is None or any(
                other.direction == _IN
                and (other.origin, other.message_id) == (node.origin, message.message_id)
                and other.leaf_hash == message.leaf_hash
                for other in peer.messages
            )
            if not there:
                yield f"{message.peer} signed that it received message {message.message_id}, and does not have it"
        elif message.message_id not in waiting:
            yield f"{node.origin} has no receipt for message {message.message_id}, and does not try to send it"
        elif reading.history.settled and not any(
            row.message_id == message.message_id and row.state == "held" for row in node.waiting
        ):
            yield f"{node.origin} has still not brought message {message.message_id} to {message.peer}"


def _kept_of_receiver(reading: _Reading, node: Node) -> Iterator[str]:
    for message, manifest in reading.inbound(node):
        waits = {row.lane: row for row in node.waiting if row.message_id == message.message_id and row.agency}
        given = {(row.section, row.kind): row.agency for row in node.given if row.message_id == message.message_id}
        for section, kind in sorted(reading.placements(manifest)):
            if reading.accepted(message.message_id, section, kind):
                continue
            agency = given.get((section, kind))
            row = waits.get(f"route:{kind}" if agency is None else f"agency:{agency}")
            place = f"section {section} of message {message.message_id}"
            if row is None:
                yield f"{place} never reached {kind}, and {node.origin} does not try"
            elif row.state == "held" and not row.reason:
                yield f"{place} is held for {kind} without a reason"
            elif row.state != "held" and reading.history.settled:
                yield f"{place} has still not reached {kind}"


def _once(reading: _Reading) -> Iterator[str]:
    content: dict[str, tuple[Any, ...]] = {}
    for message_id, calls in reading.calls.items():
        events: dict[tuple[str, str], str] = {}
        for call in calls:
            data = call.event["data"]
            place = (data["section"], call.agency)
            what = f"section {place[0]} of message {message_id} to {call.agency}"
            if events.setdefault(place, call.event_id) != call.event_id:
                yield f"{what} came under two ids, {events[place]} and {call.event_id}"
            if content.setdefault(call.event_id, (message_id, place, call.body)) != (message_id, place, call.body):
                yield f"event {call.event_id} came with two contents"
    for node in reading.nodes.values():
        told: Counter[tuple[str, str, str]] = Counter()
        recorded: dict[tuple[str, str, str], datetime] = {}
        for leaf in node.leaves:
            if leaf.type != "receipt" or not leaf.statement:
                continue
            receipt = _body(leaf.statement)
            if receipt["rung"] != "delivered":
                continue
            for entry in receipt["placements"]:
                key = (receipt["message_id"], entry["section"], entry["agency"])
                told[key] += 1
                recorded.setdefault(key, receipt["at"].astimezone(UTC))
        for (message_id, section, kind), count in told.items():
            if count > 1:
                yield f"{node.origin} recorded {count} times that {kind} took section {section} of message {message_id}"
        if not reading.history.one_clock:
            continue
        for (message_id, section, kind), at in recorded.items():
            late = [
                call
                for call in reading.calls[message_id]
                if call.kind == kind
                and call.event["data"]["section"] == section
                and call.at_s >= at.timestamp() + _A_MILLISECOND
            ]
            if late:
                yield (
                    f"section {section} of message {message_id} was delivered to {kind} again"
                    " after its acceptance was recorded"
                )


def _readers(reading: _Reading) -> Iterator[str]:
    manifests: dict[str, tuple[dict[str, Any], str]] = {}
    for node in reading.nodes.values():
        for message, manifest in reading.inbound(node):
            manifests[message.message_id] = (manifest, node.origin)
    for call in reading.history.calls:
        if not call.proven:
            # An agency refuses what a node signed by a clock that is wrong.
            if reading.history.one_clock:
                yield f"{call.agency} got a call that does not verify, {call.event_id}"
            continue
        data = call.event["data"]
        if "message_id" not in data or call.event["type"] != _DELIVERED:
            continue  # a test event, or a question
        what = f"section {data['section']} of message {data['message_id']}"
        if data["message_id"] not in manifests:
            yield f"{call.agency} got {what}, which no node has stored"
            continue
        manifest, receiver = manifests[data["message_id"]]
        if (data["section"], call.kind) not in reading.placements(manifest):
            yield f"{call.agency} got {what}, which the manifest does not give it"
        allowed = reading.history.readers
        if allowed is not None and call.kind not in _allowed(allowed, data["section"]):
            yield f"{call.agency} got {what}, which the catalogue denies it"
        if (data["from"], data["to"]) != (manifest["from_area"], manifest["to_area"]):
            yield f"{call.agency} was told other boroughs than {what} is from and for"
        if call.event["source"] != f"https://{receiver}":
            yield f"{call.agency} got {what} from {call.event['source']} instead of {receiver}"


def _given(reading: _Reading) -> Iterator[str]:
    for node in reading.nodes.values():
        given = {(row.message_id, row.section, row.kind): row.agency for row in node.given}
        for message, manifest in reading.inbound(node):
            for section, kind in sorted(reading.placements(manifest)):
                agency = given.get((message.message_id, section, kind))
                what = f"section {section} of message {message.message_id}"
                for call in reading.accepted(message.message_id, section, kind):
                    if call.agency != agency:
                        yield f"{call.agency} took {what}, which {agency} has"


def _allowed(readers: Mapping[str, frozenset[str]], section: str) -> frozenset[str]:
    found = readers.get(section)
    if found is None:
        found = next(
            (kinds for name, kinds in readers.items() if name.endswith("-") and section.startswith(name)), None
        )
    return found or frozenset()


def _receipts(reading: _Reading) -> Iterator[str]:
    for node in reading.nodes.values():
        messages = {(message.origin, message.message_id): message for message in node.messages}
        counts: Counter[str] = Counter()
        for leaf in node.leaves:
            if leaf.type != "receipt" or not leaf.statement:
                continue
            receipt = _body(leaf.statement)
            what = f"{node.origin} signed {receipt['rung']} for message {receipt['message_id']}"
            message = messages.get((receipt["recipient"], receipt["message_id"]))
            if message is None or message.leaf_hash != receipt["leaf_hash"]:
                yield f"{what}, which it does not have"
                continue
            if receipt["rung"] == "received":
                counts[receipt["message_id"]] += 1
            if receipt["rung"] == "delivered":
                for entry in receipt["placements"]:
                    if not reading.accepted(receipt["message_id"], entry["section"], entry["agency"]):
                        yield f"{what}: {entry['agency']} has never taken section {entry['section']}"
        for message, _ in reading.inbound(node):
            if counts[message.message_id] != 1:
                yield f"{node.origin} signed received {counts[message.message_id]} times for {message.message_id}"
        by_position = {leaf.position: leaf for leaf in node.leaves}
        for receipt in node.receipts:
            if receipt.position is not None:
                leaf = by_position.get(receipt.position)
                if leaf is None or leaf.leaf_hash != receipt.leaf_hash:
                    yield f"{node.origin} keeps a receipt for {receipt.message_id} that is not in its log"
        yield from _receipts_of_peers(reading, node)
    for exported in reading.history.exported:
        yield from _in_log(reading, exported.origin, exported.statement, exported.proof, "somebody exported")


def _receipts_of_peers(reading: _Reading, node: Node) -> Iterator[str]:
    sent = {message.message_id: message for message in node.messages if message.direction == _OUT}
    for receipt in node.receipts:
        if receipt.proof is None:
            continue
        message = sent.get(receipt.message_id)
        body = _body(receipt.statement)
        if message is None or body["leaf_hash"] != message.leaf_hash:
            yield f"{node.origin} keeps a receipt for message {receipt.message_id}, which it did not send so"
        yield from _in_log(reading, body["origin"], receipt.statement, receipt.proof, f"{node.origin} keeps")


def _in_log(reading: _Reading, origin: str, statement: bytes, proof: str, who: str) -> Iterator[str]:
    what = f"{who} a receipt of {origin}"
    try:
        index = reading.proven(origin, statement, proof)
    except CryptoError as error:
        yield f"{what} whose proof does not hold: {error}"
        return
    signer = reading.nodes.get(origin)
    if signer is not None:
        leaf = signer.leaves[index] if index < len(signer.leaves) else None
        if leaf is None or leaf.leaf_hash != leaf_hash(statement):
            yield f"{what} that is not in its log at {index}"


def _said(reading: _Reading) -> Iterator[str]:
    said = set(reading.history.said)
    signed: set[tuple[str, str, str, str]] = set()
    for node in reading.nodes.values():
        for leaf in node.leaves:
            if leaf.type != "receipt" or not leaf.statement:
                continue
            receipt = _body(leaf.statement)
            if receipt["rung"] not in _WORDS:
                continue
            sections = {entry["section"] for entry in receipt["placements"]}
            what = f"{node.origin} signed {receipt['rung']} for message {receipt['message_id']}"
            if len(sections) != 1:
                yield f"{what}, and of {len(sections)} sections at once"
            if ("words" in receipt) == ("acknowledgement" in receipt):
                yield f"{what}, without what was said or with it twice"
            signed |= {(node.origin, receipt["message_id"], section, receipt["rung"]) for section in sections}
    for origin, message_id, section, rung in sorted(said - signed):
        yield f"{origin} took it that section {section} of message {message_id} is {rung}, and has not signed it"


def _logs(reading: _Reading) -> Iterator[str]:
    seen: dict[str, dict[str, str]] = defaultdict(dict)  # origin -> text -> by whom
    for node in reading.nodes.values():
        for text in node.checkpoints:
            seen[node.origin].setdefault(text, node.origin)
        for peer in node.peers:
            for text in (*peer.checkpoints, parse_proof(peer.card_proof).checkpoint):
                seen[peer.origin].setdefault(text, node.origin)
        for message in node.messages:
            if message.proof is not None:
                seen[message.peer].setdefault(parse_proof(message.proof).checkpoint, node.origin)
        for receipt in node.receipts:
            if receipt.proof is not None:
                origin = _body(receipt.statement)["origin"]
                seen[origin].setdefault(parse_proof(receipt.proof).checkpoint, node.origin)
    for origin, text in reading.history.seen:
        seen[origin].setdefault(text, "somebody outside")
    for exported in reading.history.exported:
        seen[exported.origin].setdefault(parse_proof(exported.proof).checkpoint, "an export")
    for node in reading.nodes.values():
        yield from _log_is_whole(node)
    for origin, texts in seen.items():
        yield from _on_one_tree(reading, origin, texts)
    for node in reading.nodes.values():
        for message in node.messages:
            if message.proof is not None:
                try:
                    reading.proven(message.origin, message.statement, message.proof)
                except CryptoError as error:
                    yield f"{node.origin} keeps message {message.message_id}, whose proof does not hold: {error}"


def _log_is_whole(node: Node) -> Iterator[str]:
    if [leaf.position for leaf in node.leaves] != list(range(len(node.leaves))):
        yield f"the log of {node.origin} has a gap"
    if node.head_size != len(node.leaves):
        yield f"{node.origin} thinks that its log has {node.head_size} statements, and it has {len(node.leaves)}"
    for leaf in node.leaves:
        if leaf.statement and leaf_hash(leaf.statement) != leaf.leaf_hash:
            yield f"statement {leaf.position} of {node.origin} does not have its leaf hash"
    found = {(level, place): value for level, place, value in Tree([leaf.leaf_hash for leaf in node.leaves]).complete()}
    if dict(node.tree_nodes) != found:
        wrong = sorted(set(node.tree_nodes.items()) ^ set(found.items()))
        yield f"the tree that {node.origin} keeps is not that of its log, from node {wrong[0][0]} on"


def _on_one_tree(reading: _Reading, origin: str, texts: Mapping[str, str]) -> Iterator[str]:
    node = reading.nodes.get(origin)
    tree = Tree([leaf.leaf_hash for leaf in node.leaves]) if node is not None else None
    roots: dict[int, bytes] = {}
    for text, by in texts.items():
        try:
            checkpoint = reading.checkpoint(origin, text)
        except CryptoError as error:
            yield f"{by} has a checkpoint of {origin} that does not hold: {error}"
            continue
        size, root = checkpoint.size, checkpoint.root
        if roots.setdefault(size, root) != root:
            yield f"{origin} signed two logs of {size} statements"
        elif node is not None and size > len(node.leaves):
            yield f"{by} has seen {size} statements of {origin}, whose log has {len(node.leaves)}"
        elif tree is not None and tree.root(size) != root:
            yield f"the log of {origin} does not continue the one of {size} statements that {by} has seen"


def _returned(reading: _Reading) -> Iterator[str]:
    for node in reading.nodes.values():
        on_the_way = {row.position for row in node.waiting if row.kind in ("statement", "word")}
        for leaf in node.leaves:
            if leaf.type != "receipt" or not leaf.statement:
                continue
            receipt = _body(leaf.statement)
            sender = reading.nodes.get(receipt["recipient"])
            if sender is None:
                continue
            what = f"{receipt['rung']} of {node.origin} for message {receipt['message_id']}"
            if any(held.leaf_hash == leaf.leaf_hash for held in sender.receipts):
                continue
            if receipt["rung"] == "received":
                # It comes back with each repetition of the message, for as long as that is not answered.
                if not any(
                    row.kind == "manifest" and row.message_id == receipt["message_id"] for row in sender.waiting
                ):
                    yield f"{what} never reached the sender, who does not ask again"
            elif leaf.position not in on_the_way:
                yield f"{what} never reached the sender, and is not on its way"
            elif reading.history.settled and not any(
                row.position == leaf.position and row.state == "held" for row in node.waiting
            ):
                yield f"{what} has still not reached the sender"


RULES: Final[Mapping[str, Callable[[_Reading], Iterator[str]]]] = {
    "kept": _kept,
    "once": _once,
    "readers": _readers,
    "given": _given,
    "receipts": _receipts,
    "said": _said,
    "logs": _logs,
    "returned": _returned,
}
