"""No sequence of imports, rotations, restores and revocations leads to traffic with an unverified identity.

A real node, on its store and its sockets, and every identity that ever claimed to be Camden, each listening on a port
of its own. What is modelled is what people did, and what was proven; the rest is looked up at the node.
"""

import base64
import functools
import itertools
import json
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exchange.crypto.envelope import envelope_key_id
from exchange.crypto.number import compare_number
from exchange.crypto.signing import SigningKeys
from exchange.node.config import load_configuration
from exchange.node.keyring import Keyring
from exchange.schema.card_file import CardFile
from exchange.schema.wire import ProvenStatement
from tests.node.handmade import Borough, Desk, read_reply
from tests.node.pair import ENFIELD, Clock, Node, configure, form, log_lines, reserved_port, serving, until
from tests.node.stage import Stage
from tests.node.test_revocation import revocation

ORIGIN, CAMDEN, ELSEWHERE = "exchange.camden.example", "E09000007", "E09000005"
HOUR_MS = 3_600_000
PEOPLE = ("Asha", "Bela")
#: What may be done to the rotations in a card file before it is shown.
PROOFS = ("as it is", "none", "first missing", "last missing", "other order", "foreign")

which = st.integers(-3, 5)
people, proofs = st.sampled_from(PEOPLE), st.sampled_from(PROOFS)

number_of = functools.lru_cache(maxsize=None)(compare_number)


@dataclass(frozen=True)
class Link:
    """A rotation: between which identities, and whether both of them signed it."""

    old: str
    new: str
    holds: bool
    item: ProvenStatement


@dataclass(frozen=True)
class Shown:
    """A card file, and what is in it."""

    identity: "Identity"
    card: ProvenStatement
    links: tuple[Link, ...] = ()

    def file(self) -> bytes:
        items = tuple(link.item for link in self.links)
        return msgspec.json.encode(CardFile(self.card.statement, self.card.proof, items))

    def path_from(self, fingerprint: str) -> list[str] | None:
        """The identities over which the file's proofs lead from one to that of its card."""
        path = [fingerprint]
        for link in self.links:
            if link.holds and link.old == path[-1]:
                path.append(link.new)
                if link.new == self.identity.fingerprint:
                    return path
        return None


@dataclass(eq=False)
class Identity:
    """An identity that claims to be Camden: who holds its keys, how it answers, and the cards that it has signed."""

    borough: Borough
    links: tuple[Link, ...] = ()
    cards: list[ProvenStatement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = Desk(self.borough)

    @property
    def fingerprint(self) -> str:
        return self.borough.fingerprint

    def card(self, **changes: Any) -> ProvenStatement:
        self.cards.append(self.borough.card(name=f"Card {len(self.cards)} of {self.fingerprint[:8]}", **changes))
        return self.cards[-1]


@dataclass(frozen=True)
class Seen:
    """What the node holds of Camden."""

    trust: str = "unregistered"
    fingerprint: str = ""
    candidate: str | None = None
    area: str = CAMDEN
    first: str | None = None
    records: tuple[tuple[str, str], ...] = ()


def is_registered(machine: "Identities") -> bool:
    """Whether there is a peer to do something with."""
    return machine.seen.trust != "unregistered"


class Identities(RuleBasedStateMachine):
    """Beside the node: whom people have compared, what was proven, and what was revoked."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._stack.enter_context(log_lines())
        self.clock = Clock()
        self.clock.run()
        self.stage = Stage()
        self._stack.callback(self.stage.close)
        ports = (self._stack.enter_context(reserved_port()), self._stack.enter_context(reserved_port()))
        self.configuration = configure(directory / "enfield", ENFIELD, "exchange.enfield.example", ports)
        self.toml = self.configuration.path.read_text() + "[keys]\ncard_refresh_hours = 0.0003\n"
        self.keyring: Keyring | None = None
        self.two_people = False
        self._start()
        self.tokens = {who: self._local("POST", "/v1/tokens", {"name": who})[1]["token"] for who in PEOPLE}
        #: Who arrived at whose desk, by the key that the envelope was sealed to.
        self.arrived: list[bytes] = []
        self.identities: list[Identity] = []
        self.foreign = Borough("exchange.brent.example", ELSEWHERE, self.clock)
        self.served: deque[Shown | None] = deque([None], maxlen=2)
        self.imported: Shown | None = None
        #: The identity that is to be heard now, and those that were a moment ago.
        self.believed: str | None = None
        self.lately: deque[str | None] = deque([None], maxlen=3)
        self.compared: set[str] = set()
        self.records: set[tuple[str, str]] = set()
        self.dead: set[str] = set()
        self.followed: dict[str, str] = {}
        self.needs_fresh = False
        self.seen = Seen()
        for _ in range(2):
            self._add(Identity(Borough(ORIGIN, CAMDEN, self.clock)))

    def teardown(self) -> None:
        self._stack.close()

    # Tools

    def _start(self) -> None:
        self.configuration.path.write_text(self.toml + f"[trust]\ntwo_people = {json.dumps(self.two_people)}\n")
        configuration = load_configuration(self.configuration.path)
        self.node: Node = self.stage.enter(serving(configuration, self.clock, self.keyring))
        self.keyring = self.node.services.keyring

    def _local(self, method: str, path: str, body: Any = None, data: bytes | None = None) -> tuple[int, Any]:
        return self.stage.run(self.node.local(method, path, body, data))

    def _by(self, who: str, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Ask as a person with a token of their own."""

        async def ask() -> tuple[int, Any]:
            url = f"http://{self.configuration.tables.local.address}{path}"
            headers = {"authorization": f"Bearer {self.tokens[who]}"}
            async with self.node.http.request(method, url, json=body, headers=headers) as answer:
                return answer.status, await answer.json()

        return self.stage.run(ask())

    def _add(self, identity: Identity) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.arrived.append(bytes(envelope_key_id(await request.read())))
            return await identity.desk.answer(request)

        async def prove(request: web.Request) -> web.StreamResponse:
            """From the log that goes on here: that of an heir, where the keys were passed on to one."""
            first, second = int(request.query["first"]), int(request.query["second"])
            now = self.served[-1]
            borough = identity.borough
            if second > len(borough.statements) and now is not None:
                borough = now.identity.borough
            if second > len(borough.statements):
                return web.json_response({"code": "not-found"}, status=404, content_type="application/problem+json")
            path = [base64.b64encode(part).decode() for part in borough.consistency(first, second).path]
            return web.json_response({"first": first, "second": second, "path": path})

        self.stage.enter(identity.borough.listening(answer, consistency=prove))
        self.identities.append(identity)
        identity.card()

    def _pick(self, at: int) -> Identity:
        """One of the identities; of the negative numbers each is the one that is believed, where there is one."""
        return (self._by_fingerprint(self.believed) if at < 0 else None) or self.identities[at % len(self.identities)]

    def _by_fingerprint(self, fingerprint: str | None) -> Identity | None:
        return next((one for one in self.identities if one.fingerprint == fingerprint), None)

    def _foreign_link(self) -> Link:
        following, item = self.foreign.rotated()
        return Link(self.foreign.fingerprint, following.fingerprint, False, item)

    def _shown(self, identity: Identity, age: int, proof: str) -> Shown:
        """A card of an identity, the newest or an older one, with its rotations as they are or bent."""
        card = identity.card() if age == 0 else identity.cards[-min(age, len(identity.cards))]
        links: Sequence[Link] = identity.links
        match proof:
            case "none":
                links = ()
            case "first missing":
                links = links[1:]
            case "last missing":
                links = links[:-1]
            case "other order":
                links = links[::-1]
            case "foreign":
                links = (*links[:-1], self._foreign_link())
        return Shown(identity, card, tuple(links))

    async def _has_nothing_on_its_way(self) -> bool:
        return self.node.rows(
            "SELECT count(*) FROM outbox WHERE lane = ? AND lease_until_ms > 0", f"peer:{ORIGIN}"
        ) == [(0,)]

    def _head(self) -> tuple[int, bytes] | None:
        rows = self.node.rows("SELECT size, root FROM peer_heads WHERE origin = ? ORDER BY size DESC", ORIGIN)
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else None

    def _contradicts(self, identity: Identity | None) -> bool:
        """Whether an identity's log does not continue what the node holds of Camden's."""
        head = self._head()
        if head is None or identity is None:
            return False
        if head[0] > len(identity.borough.statements):
            return True
        return identity.borough._tree(head[0])[0].root() != head[1]

    def _is_settled(self) -> bool:
        """Whether nothing that the URL serves can move the peer meanwhile."""
        return all(shown is None for shown in self.served)

    def _look(self) -> Seen:
        status, found = self._local("GET", f"/v1/peers/{ORIGIN}")
        if status == 404:
            return Seen()
        return Seen(
            found["trust"],
            found["fingerprint"],
            found["candidate"],
            found["area"],
            found["confirmed_first_by"],
            tuple((record["fingerprint"], record["how"]) for record in found["verifications"]),
        )

    def _serve(self, shown: Shown | None) -> None:
        self.served.append(shown)
        for identity in self.identities:
            identity.borough.served = shown.file() if shown else None

    def _heard(self, fingerprint: str) -> None:
        """People have verified an identity."""
        self.believed = fingerprint
        self.lately.append(fingerprint)

    @initialize(registered=st.sampled_from(["verified", "verified", "verified", "unverified", "not"]))
    def somebody_registers_camden(self, registered: str) -> None:
        """Most stories begin with a verified peer."""
        identity = self.identities[0]
        if registered == "not":
            return
        body: dict[str, Any] = {"card": json.loads(Shown(identity, identity.card()).file())}
        if registered == "verified":
            body["fingerprint"] = identity.fingerprint
            self.compared.add(identity.fingerprint)
            self.records.add((identity.fingerprint, "fingerprint"))
            self._heard(identity.fingerprint)
        assert self._local("POST", "/v1/peers", body)[0] == 201

    @precondition(lambda self: self.believed is None and self._is_settled())
    @rule(at=which)
    def all_is_done_as_it_should_be(self, at: int) -> None:
        """The admins get the newest card of an identity and compare its fingerprint, if need be both of two people."""
        identity = self._pick(at)
        if identity.fingerprint in self.dead:
            return
        identity.borough.serial = max(identity.borough.serial, self._serial())
        self.a_card_file_is_imported(self.identities.index(identity), 0, "as it is", CAMDEN)
        self.nothing_passes_but_with_a_verified_identity()
        for who in PEOPLE:
            if self._look().trust != "verified":
                self.somebody_compares_an_identity(self.identities.index(identity), who, False)
        assert self.believed == identity.fingerprint

    # Cards come

    @rule(
        at=which,
        age=st.sampled_from([0, 0, 0, 1, 2, 9]),
        proof=proofs,
        area=st.sampled_from([CAMDEN] * 4 + [ELSEWHERE]),
    )
    def a_card_file_is_imported(self, at: int, age: int, proof: str, area: str) -> None:
        """An admin imports a file."""
        identity, before, settled = self._pick(at), self._look(), self._is_settled()
        shown = self._shown(identity, age, proof)
        if area != CAMDEN and is_registered(self):
            shown = Shown(identity, identity.card(area=area), shown.links)
        self.imported = shown
        status, document = self._local("POST", "/v1/peers", {"card": json.loads(shown.file())})
        if status != 201:
            assert status == 400, document
            assert not settled or self._look() == before
            return
        assert identity.fingerprint not in self.dead
        if settled and before.trust in {"verified", "suspended", "blocked"}:
            leads = shown.path_from(before.fingerprint) is not None and before.trust != "blocked"
            if identity.fingerprint != before.fingerprint and not leads:
                assert (document["trust"], document["candidate"]) == ("blocked", identity.fingerprint)
                assert document["fingerprint"] == before.fingerprint

    @precondition(is_registered)
    @rule(at=which, age=st.sampled_from([0, 0, 1, 9]), proof=proofs)
    def the_url_serves_a_card(self, at: int, age: int, proof: str) -> None:
        """Whoever answers at Camden's URL shows a card; the node asks for it in its time."""
        before, shown = self._look(), self._shown(self._pick(at), age, proof)
        in_force = self._by_fingerprint(before.fingerprint)
        forked = self._contradicts(in_force) or self._contradicts(shown.identity)
        quiet = self._is_settled()
        self._serve(shown)
        if before.trust != "verified" or in_force is None:
            return
        self._fetched(in_force)
        after = self._look()
        if forked or not quiet:
            return
        if shown.identity.fingerprint in (before.fingerprint, *self.dead):
            assert (after.trust, after.fingerprint) == (before.trust, before.fingerprint)
        elif shown.path_from(before.fingerprint) is None:
            assert (after.trust, after.candidate) == ("blocked", shown.identity.fingerprint)
            assert any(alarm["kind"] == "identity-changed" for alarm in self.stage.run(self.node.alarms(ORIGIN)))

    def _fetched(self, in_force: Identity) -> None:
        """Wait until the node has asked for the card and done what it does about it."""
        asked = in_force.borough.card_was_asked_for

        async def done() -> bool:
            self.clock.now_ms += 10_000
            # Asked again, it is done with the answer before.
            found = (await self.node.local("GET", f"/v1/peers/{ORIGIN}"))[1]
            moved = found["trust"] != "verified" or found["fingerprint"] != in_force.fingerprint
            return moved or in_force.borough.card_was_asked_for >= asked + 2

        self.stage.run(until("the node has fetched the card", done))

    @precondition(is_registered)
    @rule()
    def the_url_serves_nothing(self) -> None:
        """Nobody gets a card from the URL any more."""
        self._serve(None)
        self.served.append(None)
        before = self._look()
        in_force = self._by_fingerprint(before.fingerprint)
        if before.trust == "verified" and in_force is not None:
            self._fetched(in_force)

    @rule(at=which)
    def a_newer_card_comes_in_an_envelope(self, at: int) -> None:
        """An identity sends its own card."""
        identity = self._pick(at)
        card = identity.card()
        self._says(identity, card, ())

    @rule(at=which, other=which)
    def the_card_of_another_comes_in_an_envelope(self, at: int, other: int) -> None:
        """An identity passes on the card of another as its own statement."""
        identity, another = self._pick(at), self._pick(other)
        if identity is another:
            return
        before = self._look()
        statement = another.card().statement
        identity.borough.statements.append(statement)
        self._says(identity, identity.borough.prove(len(identity.borough.statements) - 1), ())
        if self._is_settled():
            assert self._look().fingerprint == before.fingerprint

    # People compare

    @precondition(is_registered)
    @rule(at=which, who=people, by_number=st.booleans())
    def somebody_compares_an_identity(self, at: int, who: str, by_number: bool) -> None:
        """An admin telephones, hears the fingerprint or number of one of the identities, and enters that."""
        identity, before, settled = self._pick(at), self._look(), self._is_settled()
        fingerprint = identity.fingerprint
        own = self.node.services.keyring.verifiers
        body = {"fingerprint": fingerprint}
        if by_number:
            body = {"number": " ".join(number_of(_fingerprint(self.node, own), fingerprint))}
        status, document = self._by(who, "POST", f"/v1/peers/verify/{ORIGIN}", body)
        if before.trust == "unregistered":
            assert status == 404
            return
        comparable = {before.candidate or before.fingerprint} | (set() if by_number else {before.fingerprint})
        allowed = fingerprint in comparable and fingerprint not in self.dead
        if self.two_people:
            allowed &= before.trust != "verified" and not (before.trust == "confirming" and before.first == who)
        if status != 200:
            assert not settled or not allowed, f"{before} {document}"
            assert not settled or self._look() == before
            return
        assert allowed or not settled, before
        if before.trust != "confirming":
            self.needs_fresh = fingerprint != before.fingerprint or before.trust == "quarantined"
        self.compared.add(fingerprint)
        self.records.add((fingerprint, "number" if by_number else "fingerprint"))
        assert document["fingerprint"] == fingerprint
        assert document["candidate"] is None
        complete = not self.two_people or before.trust == "confirming"
        assert document["trust"] == ("verified" if complete else "confirming")
        if complete:
            self._heard(fingerprint)
            if self.needs_fresh:
                assert not self._contradicts(identity), "what its log was before is no measure of what it is now"

    # Identities change

    @precondition(lambda self: len(self.identities) < 6)
    @rule(at=which, true=st.booleans())
    def an_identity_rotates(self, at: int, true: bool) -> None:
        """Whoever holds the keys of an identity passes it on: with the new keys' signature, or with that of others."""
        identity = self._pick(at)
        following, item = identity.borough.rotated(() if true else (SigningKeys.generate(),))
        link = Link(identity.fingerprint, following.fingerprint, true, item)
        self._add(Identity(following, (*identity.links, link)))
        if not self._is_settled():
            self._serve(self.served[-1])

    @precondition(lambda self: self.believed is not None and len(self.identities) < 6 and self._is_settled())
    @rule()
    def the_peer_rotates_and_speaks_before_it_was_asked(self) -> None:
        """What comes under keys that the node does not know makes it ask for the card, and follow."""
        identity = self._by_fingerprint(self.believed)
        assert identity is not None
        if self._contradicts(identity):
            return
        following, item = identity.borough.rotated()
        following.serial = max(following.serial, self._serial())
        link = Link(identity.fingerprint, following.fingerprint, True, item)
        self._add(Identity(following, (*identity.links, link)))
        heir = self.identities[-1]
        self._serve(Shown(heir, heir.card(), heir.links))
        self._says(heir)

        async def follows() -> bool:
            self.clock.now_ms += 10_000
            found = (await self.node.local("GET", f"/v1/peers/{ORIGIN}"))[1]
            assert found["trust"] == "verified"
            return bool(found["fingerprint"] == heir.fingerprint)

        self.stage.run(until("the node follows", follows))

    def _serial(self) -> int:
        return int(self._local("GET", f"/v1/peers/{ORIGIN}")[1].get("serial", 0))

    @precondition(is_registered)
    @rule(at=which, through_the_url=st.booleans())
    def an_identity_is_revoked(self, at: int, through_the_url: bool) -> None:
        """Somebody brings the revocation of an identity, be it in force, a candidate, passed on or unknown."""
        identity, before, settled = self._pick(at), self._look(), self._is_settled()
        fingerprint = identity.fingerprint
        data = revocation(identity.borough.signing, ORIGIN)
        if through_the_url:
            in_force = self._by_fingerprint(before.fingerprint)
            if not settled or before.trust != "verified" or in_force is None:
                return
            for one in self.identities:
                one.borough.served = data
            self._fetched(in_force)
            self._serve(None)
            self._fetched(in_force) if self._look().trust == "verified" else None
        else:
            status, _ = self.stage.run(_bring(self.node, data))
            assert status in (200, 403)
        after = self._look()
        if before.trust == "unregistered":
            assert after == before
            return
        if before.fingerprint in self._heirs_of(fingerprint):
            self.dead |= set(self._heirs_of(fingerprint))
            assert not settled or after.trust == "revoked"
            self.believed = None
        elif fingerprint in {
            before.candidate,
            *self.followed,
            *self.followed.values(),
            *(one for one, _ in before.records),
        }:
            self.dead |= set(self._heirs_of(fingerprint))
            if settled:
                assert (after.trust, after.fingerprint) == (before.trust, before.fingerprint)
        elif settled:
            assert (after.trust, after.fingerprint) == (before.trust, before.fingerprint)

    def _heirs_of(self, fingerprint: str) -> list[str]:
        """An identity and those to which the node has seen it passed on."""
        line = [fingerprint]
        while line[-1] in self.followed and self.followed[line[-1]] not in line:
            line.append(self.followed[line[-1]])
        return line

    @rule(at=which, keep=st.integers(1, 6))
    def a_borough_is_restored_from_an_old_copy(self, at: int, keep: int) -> None:
        """Its log and its serials are those of some time ago."""
        borough = self._pick(at).borough
        if keep < len(borough.statements):
            del borough.statements[keep:]
            borough.serial = min(borough.serial, 1)

    # The admin and the machine

    @precondition(is_registered)
    @rule()
    def an_admin_suspends(self) -> None:
        """Until it is verified again."""
        settled, before = self._is_settled(), self._look()
        status, _ = self._local("POST", f"/v1/peers/suspend/{ORIGIN}")
        if status == 200:
            self.believed = None
        elif settled:
            assert before.trust not in {"verified", "suspended", "confirming"}

    @precondition(is_registered)
    @rule()
    def an_admin_removes_the_peer(self) -> None:
        """What was verified of its log is forgotten with it; revocations and records are not."""
        status, _ = self._local("DELETE", f"/v1/peers/{ORIGIN}")
        if status == 200:
            self.believed = None

    @rule(two_people=st.booleans())
    def the_node_restarts(self, two_people: bool) -> None:
        """Perhaps with another configuration."""
        self.stage.leave(self.node)
        self.two_people = two_people
        self._start()

    @rule(hours=st.sampled_from([1, 7, 20]))
    def the_clock_moves(self, hours: int) -> None:
        """Time passes."""
        self.clock.now_ms += hours * HOUR_MS

    # Traffic

    @rule(at=which)
    def an_identity_sends_a_form(self, at: int) -> None:
        """Heard is who is believed, and nobody else."""
        self._says(self._pick(at))

    def _says(self, identity: Identity, item: ProvenStatement | None = None, ciphertexts: Iterable[bytes] = ()) -> None:
        before, believed, settled = self._look(), self.believed, self._is_settled()
        forked = self._contradicts(identity)
        card = self.stage.run(self.node.card())
        borough = identity.borough
        if item is None:
            made = borough.message(card)
            item, ciphertexts = borough.sign_manifest(made), made.ciphertexts
            forked = forked or self._contradicts(identity)
        status, body = self.stage.run(self.node.post(borough.envelope(card, [item], list(ciphertexts))))
        accepted = status == 200
        if accepted:
            assert identity.fingerprint in (believed, self._look().fingerprint)
            assert identity.fingerprint not in self.dead
            assert ciphertexts == () or read_reply(body).results[0].receipt is not None
        if settled and before.trust == "verified" and before.fingerprint == identity.fingerprint:
            assert accepted is not forked, json.loads(body)
            if forked:
                assert self._look().trust == "quarantined"

    @rule()
    def somebody_claims_to_be_the_peer(self) -> None:
        """Keys of another origin sign in Camden's name."""
        card = self.stage.run(self.node.card())
        made = self.foreign.message(card)
        item = self.foreign.sign_manifest(made)
        for sender in (ORIGIN, self.foreign.origin):
            status, _ = self.stage.run(
                self.node.post(self.foreign.envelope(card, [item], made.ciphertexts, sender=sender))
            )
            assert status == 403

    @rule()
    def the_node_is_asked_to_send_a_form(self) -> None:
        """It arrives where the believed identity listens, or it is not taken."""
        before, settled = self._look(), self._is_settled()
        in_force = self._by_fingerprint(self.believed)
        forked = self._contradicts(in_force)
        status, document = self._local("POST", f"/v1/messages/to/{CAMDEN}", data=form(CAMDEN, from_area=ENFIELD))
        if status != 201:
            assert status in (403, 404), document
            assert not settled or before.trust != "verified"
        elif settled and in_force is not None and not forked:
            self.stage.run(self.node.reached(document["id"], "received"))
            assert document["id"] in in_force.desk.received

    # What always holds

    @invariant()
    def nothing_passes_but_with_a_verified_identity(self) -> None:
        """Compare what the node holds with what people and proofs have shown."""
        before, now = self.seen, self._look()
        offered = [shown for shown in (*self.served, self.imported) if shown is not None]
        if before.trust == "unregistered" and self.imported is not None:
            heir = now.fingerprint
            for link in reversed(self.imported.links):
                if link.holds and link.new == heir:
                    heir = link.old
                    self.followed.setdefault(link.old, link.new)
        self.imported = None
        start = self.believed or before.fingerprint
        if now.fingerprint not in ("", start):
            path = next(
                (path for shown in offered if (path := shown.path_from(start)) and path[-1] == now.fingerprint), None
            )
            if path is not None and now.trust in {"verified", "suspended", "confirming", "unverified"}:
                self.followed |= dict(itertools.pairwise(path))
                if self.believed is not None or before.trust in {"verified", "suspended"}:
                    self.records |= {(one, "rotation") for one in path[1:]}
                if before.trust in {"verified", "suspended", "confirming"}:
                    self.compared.add(now.fingerprint)
                if self.believed is not None and now.trust == "verified":
                    self._heard(now.fingerprint)
            assert now.trust == "unverified" or now.fingerprint in self.compared, "adopted without comparison or proof"
        if now.trust == "verified":
            assert now.fingerprint == self.believed, "heard, and nobody has verified it since it was stopped"
            assert now.fingerprint not in self.dead
            assert now.candidate is None
            assert any(fingerprint == now.fingerprint for fingerprint, _ in now.records)
        else:
            self.believed = None
        assert set(now.records) <= self.records, "a verification that nobody made"
        if "unregistered" not in (before.trust, now.trust):
            assert now.area == before.area, "a borough does not change its area"
        if self.believed != self.lately[-1]:
            # What was on its way to the identity before may arrive, and nothing after it.
            self.stage.run(until("nothing is on its way", self._has_nothing_on_its_way))
        self.lately.append(self.believed)
        keys = {bytes(one.borough.sealing.public.key_id): one.fingerprint for one in self.identities}
        for key in self.arrived:
            assert keys[key] in self.lately, "sealed to a key of an identity that is not verified"
        self.arrived.clear()
        self.seen = now


async def _bring(node: Node, data: bytes) -> tuple[int, Any]:
    async with node.http.post(f"{node.url}/v1/revocations", data=data) as answer:
        return answer.status, await answer.json()


def _fingerprint(node: Node, own: Any) -> str:
    from exchange.crypto.signing import fingerprint

    return fingerprint(node.services.configuration.origin, own)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Identities,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            # Each step talks to a node: to shrink what was found takes longer than to read it.
            phases=[Phase.generate],
        ),
    )


def test_no_short_sequence_leads_to_traffic_with_an_unverified_identity() -> None:
    run(examples=12, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_sequence_leads_to_traffic_with_an_unverified_identity() -> None:
    run(examples=150, steps=40)
