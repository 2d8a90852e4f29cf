"""No sequence of imports, confirmations, rotations, forks and revocations makes an unverified identity heard."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exchange.node.trust import TABLE, Event, NotInTable, Standing, Trust

FINGERPRINTS = st.sampled_from(["aa", "bb", "cc"])
PEOPLE = st.sampled_from(["Asha", "Bela"])


def test_no_two_rows_of_the_table_answer_the_same_question() -> None:
    for one, other in itertools.combinations(TABLE, 2):
        assert one.event is not other.event or not one.states & other.states


@pytest.mark.parametrize("trust", list(Trust))
def test_every_state_can_be_revoked(trust: Trust) -> None:
    assert Standing(trust, "aa").revoke().trust is Trust.REVOKED


@pytest.mark.parametrize("trust", [Trust.VERIFIED, Trust.SUSPENDED])
def test_another_identity_blocks_and_only_a_verification_of_one_of_the_two_leads_out(trust: Trust) -> None:
    blocked = Standing(trust, "aa").show("bb")

    assert (blocked.trust, blocked.fingerprint, blocked.candidate) == (Trust.BLOCKED, "aa", "bb")
    assert blocked.show("aa") == blocked
    with pytest.raises(NotInTable):
        blocked.rotate("cc")
    with pytest.raises(NotInTable):
        blocked.confirm("cc", "Asha", needs_two=False)
    for right in ("aa", "bb"):
        after = blocked.confirm(right, "Asha", needs_two=False)
        assert (after.trust, after.fingerprint, after.candidate) == (Trust.VERIFIED, right, None)


def test_a_revoked_identity_is_not_confirmed_while_another_is_shown() -> None:
    revoked = Standing(Trust.VERIFIED, "aa").revoke().show("bb")

    with pytest.raises(NotInTable):
        revoked.confirm("aa", "Asha", needs_two=False)
    assert revoked.confirm("bb", "Asha", needs_two=False).is_heard


def test_an_identity_that_nobody_has_shown_cannot_be_confirmed() -> None:
    with pytest.raises(NotInTable):
        Standing(Trust.UNVERIFIED, "aa").confirm("bb", "Asha", needs_two=False)


def test_a_revoked_identity_is_never_confirmed_shown_or_rotated_to() -> None:
    revoked = Standing(Trust.VERIFIED, "aa").revoke()

    for attempt in (
        lambda: revoked.confirm("aa", "Asha", needs_two=False),
        lambda: revoked.show("aa"),
        lambda: revoked.show("bb").confirm("bb", "Asha", needs_two=False).rotate("aa"),
    ):
        with pytest.raises(NotInTable):
            attempt()


def test_where_two_must_confirm_one_person_is_not_enough() -> None:
    first = Standing(Trust.UNVERIFIED, "aa").confirm("aa", "Asha", needs_two=True)

    assert not first.is_heard
    with pytest.raises(NotInTable):
        first.confirm("aa", "Asha", needs_two=True)
    assert first.confirm("aa", "Bela", needs_two=True).is_heard


def test_a_fork_takes_trust_away_until_the_peer_is_verified_again() -> None:
    forked = Standing(Trust.VERIFIED, "aa").fork()

    assert forked.trust is Trust.QUARANTINED
    assert forked.confirm("aa", "Asha", needs_two=False).is_heard


def test_after_a_fork_the_first_of_two_people_must_compare_anew() -> None:
    forked = Standing(Trust.UNVERIFIED, "aa").confirm("aa", "Asha", needs_two=True).fork()

    assert forked.trust is Trust.UNVERIFIED
    again = forked.confirm("aa", "Asha", needs_two=True)
    assert not again.is_heard
    with pytest.raises(NotInTable):
        again.confirm("aa", "Asha", needs_two=True)


@pytest.mark.parametrize("trust", [Trust.BLOCKED, Trust.QUARANTINED, Trust.REVOKED])
def test_a_stopped_peer_cannot_rotate_its_way_out(trust: Trust) -> None:
    with pytest.raises(NotInTable):
        Standing(trust, "aa").rotate("bb")


class Peer(RuleBasedStateMachine):
    """Beside the standing: which identities people have confirmed since they were last doubted."""

    def __init__(self) -> None:
        super().__init__()
        self.standing = Standing(Trust.UNVERIFIED, "aa")
        self.confirmed: set[str] = set()
        self.compared: set[tuple[str, str]] = set()
        self.dead: set[str] = set()

    def _try(self, after: Callable[[], Standing]) -> bool:
        try:
            self.standing = after()
        except NotInTable:
            return False
        return True

    @rule(fingerprint=FINGERPRINTS)
    def shown(self, fingerprint: str) -> None:
        """A card is imported or fetched."""
        before = self.standing
        if self._try(lambda: self.standing.show(fingerprint)) and before.fingerprint != self.standing.fingerprint:
            assert before.trust in (Trust.UNVERIFIED, Trust.CONFIRMING), "a candidate is not in force by being shown"
            self.compared.clear()

    @rule(fingerprint=FINGERPRINTS, who=PEOPLE, needs_two=st.booleans())
    def confirmed_by(self, fingerprint: str, who: str, needs_two: bool) -> None:
        """An admin says that the fingerprint is right."""
        shown = {self.standing.fingerprint, self.standing.candidate}
        if not self._try(lambda: self.standing.confirm(fingerprint, who, needs_two=needs_two)):
            return
        assert fingerprint in shown - self.dead
        self.compared.add((fingerprint, who))
        if self.standing.is_heard:
            self.confirmed = {fingerprint}
            assert not needs_two or {(fingerprint, "Asha"), (fingerprint, "Bela")} <= self.compared
            self.compared.clear()

    @rule(fingerprint=FINGERPRINTS)
    def rotated(self, fingerprint: str) -> None:
        """The identity in force passes itself on."""
        before = self.standing
        if not self._try(lambda: self.standing.rotate(fingerprint)):
            return
        assert before.trust not in (Trust.BLOCKED, Trust.QUARANTINED, Trust.REVOKED)
        self.compared |= {(fingerprint, who) for one, who in self.compared if one == before.fingerprint}
        if before.fingerprint in self.confirmed:
            self.confirmed.add(fingerprint)

    @rule()
    def suspended(self) -> None:
        """An admin suspends the peer."""
        if self._try(self.standing.suspend):
            self.confirmed.clear()
            self.compared.clear()

    @rule()
    def forked(self) -> None:
        """A fork is seen."""
        if self._try(self.standing.fork):
            self.confirmed.clear()

    @rule()
    def revoked(self) -> None:
        """The identity is revoked."""
        self.dead.add(self.standing.fingerprint)
        assert self._try(self.standing.revoke)
        self.confirmed.clear()
        self.compared.clear()

    @precondition(lambda self: self.standing.candidate is not None)
    @rule()
    def candidate_revoked(self) -> None:
        """The revocation of an identity that was shown and not proven."""
        candidate = self.standing.candidate
        assert candidate is not None
        self.dead.add(candidate)
        self.standing = replace(self.standing, revoked=self.standing.revoked | {candidate})

    @invariant()
    def only_a_confirmed_identity_is_heard(self) -> None:
        """What the whole table is for."""
        if self.standing.is_heard:
            assert self.standing.fingerprint in self.confirmed
            assert self.standing.fingerprint not in self.dead
            assert self.standing.candidate is None

    @invariant()
    def no_candidate_is_in_force(self) -> None:
        """Nor is there one where nobody was ever trusted, or the identity in force might do for it."""
        assert self.standing.candidate != self.standing.fingerprint
        if self.standing.candidate is not None:
            assert self.standing.trust in (Trust.BLOCKED, Trust.QUARANTINED, Trust.REVOKED)

    @invariant()
    def every_event_has_a_row_or_is_refused(self) -> None:
        """Revoking is never refused."""
        assert any(row.event is Event.REVOKED and self.standing.trust in row.states for row in TABLE)


TestPeer = Peer.TestCase
TestPeer.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
