"""What a directory's word leads to: every case has a rule, and no sequence of events breaks what the table promises."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.node.directory_rules import (
    Action,
    By,
    Case,
    Policy,
    Says,
    decide,
    ever_by_people,
    holds_area,
    verified_by,
)
from exchange.node.trust import NotInTable, Standing, Trust

ALL: Final = [
    Case(*parts)
    for parts in itertools.product(Policy, (None, *Trust), By, (False, True), Says, (False, True))  # type: ignore[arg-type]
]
NEVER: Final = (Trust.UNVERIFIED, Trust.CONFIRMING)


def test_every_case_has_a_rule() -> None:
    assert len([decide(case) for case in ALL]) == len(ALL)


def test_under_hint_no_case_leads_to_a_verification() -> None:
    assert [case for case in ALL if case.policy is Policy.HINT and decide(case) is Action.CONFIRM] == []


def test_no_case_lifts_a_stop() -> None:
    stopped = [case for case in ALL if case.is_stopped or case.trust in (Trust.SUSPENDED, Trust.QUARANTINED)]
    assert {decide(case) for case in stopped} == {Action.NOTHING, Action.KEEP}


def test_a_revoked_identity_is_never_taken() -> None:
    assert {decide(case) for case in ALL if case.says is Says.REVOKED} <= {Action.TELL, Action.NOTHING}


def test_what_people_verified_the_directory_neither_stops_nor_replaces() -> None:
    verified = [case for case in ALL if case.trust is Trust.VERIFIED and case.by is not By.DIRECTORY]
    # But a rotation, which the identity in force proves itself.
    assert {decide(case) for case in verified if case.says is not Says.PROVEN} <= {
        Action.NOTHING,
        Action.KEEP,
        Action.TELL,
    }


def test_a_new_identity_of_one_who_was_trusted_is_taken_only_where_the_directory_alone_had_vouched() -> None:
    taken = [
        case
        for case in ALL
        if decide(case) in (Action.CONFIRM, Action.SHOW)
        and case.says in (Says.OTHER, Says.CANDIDATE)
        and case.trust not in (None, *NEVER)
    ]
    assert taken
    assert {case.by for case in taken} == {By.DIRECTORY}
    assert {case.policy for case in taken} == {Policy.SUFFICES}


def test_nobody_is_verified_for_an_area_that_another_holds() -> None:
    assert [case for case in ALL if case.is_area_taken and decide(case) is Action.CONFIRM] == []


@pytest.mark.parametrize(
    ("records", "by"),
    [
        ([], By.NOBODY),
        ([("directory", "a")], By.DIRECTORY),
        ([("number", "a")], By.PEOPLE),
        ([("directory", "a"), ("rotation", "b")], By.DIRECTORY),
        ([("number", "a"), ("rotation", "b")], By.PEOPLE),
        ([("number", "a"), ("directory", "a")], By.PEOPLE),
        ([("directory", "a"), ("fingerprint", "a")], By.PEOPLE),
        ([("number", "a"), ("directory", "b")], By.DIRECTORY),
    ],
)
def test_who_verified_the_identity_in_force(records: list[tuple[str, str]], by: By) -> None:
    assert verified_by(records) is by


@pytest.mark.parametrize(("by_people", "is_stopped"), [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize("trust", Trust)
def test_who_is_verified_or_whom_people_ever_verified_or_stopped_holds_its_area(
    trust: Trust, by_people: bool, is_stopped: bool
) -> None:
    expected = {(False, False): trust is Trust.VERIFIED}.get((by_people, is_stopped), True)
    assert holds_area(trust, by_people=by_people, is_stopped=is_stopped) is expected


@pytest.mark.parametrize(
    ("records", "ever"),
    [
        ([], False),
        ([("directory", "a"), ("rotation", "b")], False),
        ([("number", "a"), ("directory", "b")], True),
        ([("directory", "a"), ("invitation", "a"), ("rotation", "b"), ("directory", "c")], True),
    ],
)
def test_what_people_once_compared_counts_whatever_came_after(records: list[tuple[str, str]], ever: bool) -> None:
    assert ever_by_people(records) is ever


# No sequence of events.


@dataclass
class Peer:
    """One borough as a node holds it, with the records that the rules read; it follows them as the node does."""

    policy: Policy
    two: bool
    standing: Standing | None = None
    stopped: bool = False
    #: The stop holds the area too: it is not the directory's own.
    stop_holds: bool = False
    #: People, or a fork, have once had something to say about who serves the area.
    claimed: bool = False
    records: list[tuple[str, str]] = field(default_factory=list)
    #: Identities that a person has compared, and since the last stop.
    compared: set[str] = field(default_factory=set)
    compared_since_stop: set[str] = field(default_factory=set)

    def listed(self, identity: str | None, is_area_taken: bool = False) -> None:
        for _ in range(4):
            action = decide(replace(self._case(identity), is_area_taken=is_area_taken))
            try:
                if action is Action.SHOW and identity is not None:
                    self.standing = (
                        self.standing.show(identity) if self.standing else Standing(Trust.UNVERIFIED, identity)
                    )
                elif action is Action.CONFIRM and identity is not None:
                    assert self.standing is not None
                    self.standing = self.standing.confirm(identity, "directory", needs_two=self.two)
                    self.records.append(("directory", identity))
                elif action is Action.SUSPEND:
                    claimed = self.claimed
                    self.suspend()
                    self.stop_holds, self.claimed = False, claimed
            except NotInTable:
                return
            if action not in (Action.SHOW, Action.CONFIRM):
                return

    def _case(self, identity: str | None) -> Case:
        held = self.standing
        says = Says.ABSENT
        if identity is not None:
            says = Says.OTHER
            if held is not None and identity in held.revoked:
                says = Says.REVOKED
            elif held is not None and identity == held.fingerprint:
                says = Says.SAME
            elif held is not None and identity == held.candidate:
                says = Says.CANDIDATE
        return Case(self.policy, held.trust if held else None, verified_by(self.records), self.stopped, says)

    @property
    def holds(self) -> bool:
        if self.standing is None:
            return self.stop_holds
        by_people = ever_by_people(self.records)
        return holds_area(self.standing.trust, by_people=by_people, is_stopped=self.stop_holds)

    def person(self, identity: str, who: str) -> None:
        if self.standing is None:
            self.standing = Standing(Trust.UNVERIFIED, identity)
        try:
            self.standing = self.standing.confirm(identity, who, needs_two=self.two)
        except NotInTable:
            return
        self.records.append(("number", identity))
        self.claimed = True
        self.compared.add(identity)
        self.compared_since_stop.add(identity)
        if self.standing.is_heard:
            self.stopped = self.stop_holds = False

    def shown(self, identity: str) -> None:
        """A card from a file or a URL."""
        try:
            self.standing = self.standing.show(identity) if self.standing else Standing(Trust.UNVERIFIED, identity)
        except NotInTable:
            return

    def suspend(self) -> None:
        self._stop(Standing.suspend)

    def fork(self) -> None:
        self._stop(Standing.fork)

    def _stop(self, step: object) -> None:
        if self.standing is None:
            return
        try:
            self.standing = step(self.standing)  # type: ignore[operator]
        except NotInTable:
            return
        if self.standing.trust in (Trust.SUSPENDED, Trust.QUARANTINED):
            self.stopped = self.stop_holds = self.claimed = True
            self.compared_since_stop = set()

    def revoke(self) -> None:
        if self.standing is not None:
            self.standing = self.standing.revoke()

    def remove(self) -> None:
        if self.standing is not None:
            self.stop_holds, self.claimed = self.holds, self.claimed or self.standing.is_heard
            self.standing, self.stopped, self.compared_since_stop = None, True, set()


_IDENTITIES: Final = st.sampled_from(["a", "b", "c"])
EVENTS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("listed"), st.one_of(st.none(), _IDENTITIES)),
        st.tuples(st.just("person"), _IDENTITIES, st.sampled_from(["anna", "ben"])),
        st.tuples(st.just("shown"), _IDENTITIES),
        st.tuples(st.sampled_from(["suspend", "fork", "revoke", "remove"])),
    ),
    max_size=14,
)


def play(policy: Policy, two: bool, events: list[tuple[object, ...]]) -> None:
    peer = Peer(policy, two)
    for name, *arguments in events:
        getattr(peer, str(name))(*arguments)
        check(peer)


def check(peer: Peer) -> None:
    """What must hold after every event."""
    held = peer.standing
    if held is None or not held.is_heard:
        return
    if peer.policy is Policy.HINT:
        assert held.fingerprint in peer.compared, "heard by the word of a directory alone, under hint"
    assert not peer.stopped, "heard though it was stopped, and no person verified it since"


@given(st.booleans(), EVENTS)
def test_no_content_of_a_directory_leads_to_traffic_with_an_identity_under_hint(
    two: bool, events: list[tuple[object, ...]]
) -> None:
    play(Policy.HINT, two, events)


@given(st.booleans(), EVENTS)
def test_a_directory_never_lifts_a_stop(two: bool, events: list[tuple[object, ...]]) -> None:
    play(Policy.SUFFICES, two, events)


@given(st.booleans(), st.lists(st.tuples(st.integers(0, 1), EVENTS), max_size=6))
def test_a_directory_hands_nobody_the_area_of_one_about_whom_people_or_a_fork_ever_had_a_say(
    two: bool, turns: list[tuple[int, list[tuple[object, ...]]]]
) -> None:
    """Two nodes, of which the directory lists one at a time for the area that both claim."""
    both = [Peer(Policy.SUFFICES, two), Peer(Policy.SUFFICES, two)]
    for which, events in turns:
        peer, other = both[which], both[1 - which]
        for name, *arguments in events:
            if name != "listed":
                getattr(peer, str(name))(*arguments)
                continue
            if arguments[0] is not None:
                other.listed(None)
            was_heard = peer.standing is not None and peer.standing.is_heard
            peer.listed(arguments[0], other.holds)  # type: ignore[arg-type]
            if peer.standing is not None and peer.standing.is_heard and not was_heard:
                assert not other.claimed, "verified by the directory for an area that people are to decide on"


@given(EVENTS)
def test_where_two_people_must_verify_a_directory_alone_never_suffices(events: list[tuple[object, ...]]) -> None:
    peer = Peer(Policy.SUFFICES, two=True)
    for name, *arguments in events:
        getattr(peer, str(name))(*arguments)
        if peer.standing is not None and peer.standing.is_heard:
            assert peer.standing.fingerprint in peer.compared
