"""One side of a pairing: no order of messages gives a second guess, and what is lost is sent again."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exchange.crypto.pairing import commitment
from exchange.node.errors import Unacceptable
from exchange.node.pairing import WINDOW_MS, Identity, Pairing, Stage
from exchange.schema.registration import PairingAnswer, PairingOffer, PairingReveal
from exchange.schema.wire import VERSION

NOW_MS = 1_795_449_600_000
ENFIELD, HACKNEY, MIDDLE = (
    Identity(f"exchange.{name}.example", hashlib.sha256(name.encode()).hexdigest())
    for name in ("enfield", "hackney", "enfield-in-the-middle")
)
NONCES = st.binary(min_size=32, max_size=32)


def sides(one: bytes = b"\x01" * 32, other: bytes = b"\x02" * 32) -> tuple[Pairing, Pairing]:
    """The initiator and the responder."""
    return Pairing(ENFIELD, HACKNEY, one, NOW_MS), Pairing(HACKNEY, ENFIELD, other, NOW_MS)


def run(initiator: Pairing, responder: Pairing) -> None:
    initiator.take_answer(responder.take_offer(initiator.offer(), NOW_MS))
    responder.take_reveal(initiator.reveal(), NOW_MS)
    initiator.was_heard(NOW_MS)


@given(NONCES, NONCES)
def test_two_honest_sides_see_the_same_words(one: bytes, other: bytes) -> None:
    initiator, responder = sides(one, other)
    assert initiator.is_initiator
    assert not responder.is_initiator
    run(initiator, responder)
    assert initiator.stage is responder.stage is Stage.WORDS
    assert initiator.numbers == responder.numbers
    assert len(initiator.numbers) == 4


def test_whatever_is_lost_is_sent_again_and_answered_as_before() -> None:
    initiator, responder = sides()
    first = responder.take_offer(initiator.offer(), NOW_MS)
    assert responder.take_offer(initiator.offer(), NOW_MS) == first
    initiator.take_answer(first)
    for _ in range(3):
        responder.take_reveal(initiator.reveal(), NOW_MS)
        assert responder.take_offer(initiator.offer(), NOW_MS) == first
    words = responder.numbers
    responder.end(same=True)
    responder.take_reveal(initiator.reveal(), NOW_MS)
    initiator.was_heard(NOW_MS)
    assert initiator.numbers == words


def test_a_second_answer_changes_nothing() -> None:
    initiator, responder = sides()
    run(initiator, responder)
    words = initiator.numbers
    initiator.take_answer(PairingAnswer(version=VERSION, nonce=b"\x07" * 32))
    initiator.was_heard(NOW_MS)
    assert initiator.numbers == words == responder.numbers


def test_an_initiator_shows_its_nonce_to_nobody_who_has_not_answered() -> None:
    initiator, _ = sides()
    with pytest.raises(RuntimeError):
        initiator.reveal()


def test_an_initiator_takes_no_offer_and_no_nonce_not_even_its_own() -> None:
    initiator, responder = sides()
    with pytest.raises(Unacceptable):
        initiator.take_offer(initiator.offer(), NOW_MS)
    initiator.take_answer(responder.take_offer(initiator.offer(), NOW_MS))
    with pytest.raises(Unacceptable):
        initiator.take_reveal(initiator.reveal(), NOW_MS)
    assert initiator.stage is Stage.ANSWERED


def test_who_is_not_waited_for_is_told_nothing_and_closes_nothing() -> None:
    initiator, responder = sides()
    stranger = Pairing(MIDDLE, HACKNEY, b"\x09" * 32, NOW_MS)
    with pytest.raises(Unacceptable, match="another identity"):
        responder.take_offer(stranger.offer(), NOW_MS)
    run(initiator, responder)
    assert initiator.numbers == responder.numbers


def test_a_side_that_was_shown_another_identity_sees_other_words() -> None:
    truth = sides()
    run(*truth)
    deceived = Pairing(ENFIELD, Identity(HACKNEY.origin, MIDDLE.fingerprint), b"\x01" * 32, NOW_MS)
    deceived.take_answer(PairingAnswer(version=VERSION, nonce=b"\x02" * 32))
    deceived.was_heard(NOW_MS)
    assert deceived.numbers != truth[1].numbers


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_it_ends_with_its_time_wherever_it_stands(steps: int) -> None:
    initiator, responder = sides()
    if steps:
        initiator.take_answer(responder.take_offer(initiator.offer(), NOW_MS))
    if steps > 1:
        responder.take_reveal(initiator.reveal(), NOW_MS)
        initiator.was_heard(NOW_MS)
    for side in (initiator, responder):
        side.look_at_clock(NOW_MS + WINDOW_MS - 1)
        assert side.is_under_way
        side.look_at_clock(NOW_MS + WINDOW_MS)
        assert side.stage is Stage.FAILED
        assert side.reason
        assert side.numbers == ()
    with pytest.raises(Unacceptable):
        responder.take_offer(initiator.offer(), NOW_MS + WINDOW_MS)


def test_what_has_ended_stays_as_it_is() -> None:
    initiator, responder = sides()
    run(initiator, responder)
    initiator.end(same=True)
    responder.end(same=False)
    for side, stage in ((initiator, Stage.CONFIRMED), (responder, Stage.DIFFERENT)):
        side.fail("stopped")
        side.look_at_clock(NOW_MS + 2 * WINDOW_MS)
        side.end(same=stage is not Stage.CONFIRMED)
        assert side.stage is stage


MINE = [bytes([number]) * 32 for number in range(4)]
COMMITMENTS = st.sampled_from([commitment(ENFIELD.fingerprint, nonce) for nonce in MINE] + [bytes(32)])


class Attack(RuleBasedStateMachine):
    """Anything at all is sent to a responder, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.responder = Pairing(HACKNEY, ENFIELD, b"\x42" * 32, NOW_MS)
        self.now_ms = NOW_MS
        self.answered: set[bytes] = set()
        self.opened: set[bytes] = set()
        self.had_ended = False

    @rule(fingerprint=st.sampled_from([ENFIELD, MIDDLE, HACKNEY]), made=COMMITMENTS)
    def offer(self, fingerprint: Identity, made: bytes) -> None:
        sent = PairingOffer(version=VERSION, fingerprint=bytes.fromhex(fingerprint.fingerprint), commitment=made)
        try:
            self.responder.take_offer(sent, self.now_ms)
        except Unacceptable:
            return
        assert fingerprint == ENFIELD
        self.answered.add(made)

    @rule(made=COMMITMENTS, nonce=st.sampled_from([*MINE, b"\x42" * 32]))
    def reveal(self, made: bytes, nonce: bytes) -> None:
        try:
            self.responder.take_reveal(PairingReveal(version=VERSION, commitment=made, nonce=nonce), self.now_ms)
        except Unacceptable:
            return
        assert made == commitment(ENFIELD.fingerprint, nonce)
        self.opened.add(nonce)

    @rule(ms=st.sampled_from([1, WINDOW_MS - 1, WINDOW_MS]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.responder.look_at_clock(self.now_ms)

    @precondition(lambda self: self.responder.stage is Stage.WORDS)
    @rule(same=st.booleans())
    def end(self, same: bool) -> None:
        assert self.opened
        self.responder.end(same=same)

    @invariant()
    def there_was_one_guess_at_most(self) -> None:
        assert len(self.answered) <= 1
        assert len(self.opened) <= 1
        if self.responder.numbers:
            assert self.opened

    @invariant()
    def what_has_ended_does_not_begin_again(self) -> None:
        assert not (self.had_ended and self.responder.is_under_way)
        self.had_ended = not self.responder.is_under_way


TestAttack = Attack.TestCase
TestAttack.settings = settings(max_examples=60, deadline=None)
