"""One pairing, as one of its two sides sees it. Pure: no clock, no network, no store.

    initiator (its origin sorts first)            responder
      waiting   -- who it is, commitment -->        waiting
      answered  <-- nonce, to the first alone --    answered
      words     -- nonce committed to -->           words       both show the same four words

* The initiator is bound before it sees the responder's nonce, and the responder gives its nonce to one commitment
  alone: whoever stands between has one guess in 2^44 for each time that both admins start.
* What is lost on its way is sent again, byte for byte, and answered as before.
* What does not fit ends the pairing. Nothing of it is kept, and the next one has other nonces.
"""

import enum
import hmac
from dataclasses import dataclass
from typing import Final

from exchange.crypto.pairing import commitment, commitment_holds, word_numbers
from exchange.node.errors import Unacceptable
from exchange.schema.registration import PairingAnswer, PairingOffer, PairingReveal
from exchange.schema.wire import VERSION

#: For as long as this a side waits for the other, and then for its admin.
WINDOW_MS: Final = 5 * 60_000


class Stage(enum.StrEnum):
    """How far a pairing has come."""

    WAITING = "waiting"
    ANSWERED = "answered"
    WORDS = "words"
    CONFIRMED = "confirmed"
    DIFFERENT = "different"
    FAILED = "failed"


_BEFORE_WORDS: Final = frozenset({Stage.WAITING, Stage.ANSWERED})
_AFTER_WORDS: Final = frozenset({Stage.WORDS, Stage.CONFIRMED, Stage.DIFFERENT})


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a side takes itself, or the other, to be."""

    origin: str
    fingerprint: str


class Pairing:
    """One side of a pairing; `nonce` is 32 random bytes that were never used."""

    def __init__(self, own: Identity, other: Identity, nonce: bytes, now_ms: int) -> None:
        self.own = own
        self.other = other
        self.stage = Stage.WAITING
        self.ends_ms = now_ms + WINDOW_MS
        #: Why it failed.
        self.reason = ""
        #: Four numbers below 2048, once both nonces are known.
        self.numbers: tuple[int, ...] = ()
        self._nonce = nonce
        self._other_nonce = b""
        self._commitment = commitment(own.fingerprint, nonce) if self.is_initiator else b""

    @property
    def is_initiator(self) -> bool:
        """Whether this side begins."""
        return self.own.origin < self.other.origin

    @property
    def is_before_words(self) -> bool:
        """Whether the two sides are still at it."""
        return self.stage in _BEFORE_WORDS

    @property
    def is_under_way(self) -> bool:
        """Whether it has come to no end yet."""
        return self.stage in _BEFORE_WORDS or self.stage is Stage.WORDS

    def look_at_clock(self, now_ms: int) -> None:
        """End it where its time is over."""
        if self.is_under_way and now_ms >= self.ends_ms:
            reasons = {
                Stage.WAITING: "the other side did not start in time, or had an answer from somebody else",
                Stage.ANSWERED: "the other side began, and did not go on",
            }
            self.fail(reasons.get(self.stage, "nobody confirmed the words in time"))

    def fail(self, reason: str) -> None:
        """End it; what has ended stays as it is."""
        if self.is_under_way:
            self.stage, self.reason, self.numbers = Stage.FAILED, reason, ()

    # The initiator

    def offer(self) -> PairingOffer:
        """What the initiator sends until it is answered."""
        return PairingOffer(
            version=VERSION, fingerprint=bytes.fromhex(self.own.fingerprint), commitment=self._commitment
        )

    def take_answer(self, answer: PairingAnswer) -> None:
        """The responder has answered the offer; a second answer counts for nothing."""
        if self.is_initiator and self.stage is Stage.WAITING:
            self.stage, self._other_nonce = Stage.ANSWERED, answer.nonce

    def reveal(self) -> PairingReveal:
        """What the initiator sends once it was answered, until it is heard.

        Raises:
            RuntimeError: nobody has answered: the nonce is still a secret.
        """
        if not self._other_nonce:
            raise RuntimeError("a nonce is shown only to who has answered")
        return PairingReveal(version=VERSION, commitment=self._commitment, nonce=self._nonce)

    def was_heard(self, now_ms: int) -> None:
        """The responder has taken the nonce: it sees the words."""
        if self.is_initiator and self.stage is Stage.ANSWERED:
            self._tell(word_numbers(*self._sides(), self._commitment, self._nonce, self._other_nonce), now_ms)

    # The responder

    def take_offer(self, offer: PairingOffer, now_ms: int) -> PairingAnswer:
        """Answer the first offer of the identity that the admin's URL shows; the same again is answered again.

        Raises:
            Unacceptable: this side offers itself, has ended, or has answered another offer.
        """
        self.look_at_clock(now_ms)
        if self.is_initiator or not self.is_under_way:
            raise Unacceptable("no pairing waits for an offer")
        if not hmac.compare_digest(offer.fingerprint, bytes.fromhex(self.other.fingerprint)):
            # Not who is waited for: it is told nothing, and so has had no guess.
            raise Unacceptable("the offer is of another identity than the URL shows")
        if self.stage is Stage.WAITING:
            self.stage, self._commitment = Stage.ANSWERED, offer.commitment
        elif not hmac.compare_digest(offer.commitment, self._commitment):
            if self.stage is Stage.ANSWERED:
                self.fail("a second offer came: the other side has started again, or somebody interferes")
            raise Unacceptable("an offer was answered already")
        return PairingAnswer(version=VERSION, nonce=self._nonce)

    def take_reveal(self, reveal: PairingReveal, now_ms: int) -> None:
        """Take the nonce that was committed to; the same again changes nothing.

        Raises:
            Unacceptable: it is not that nonce, or none is awaited.
        """
        self.look_at_clock(now_ms)
        if self.is_initiator or not hmac.compare_digest(reveal.commitment, self._commitment):
            raise Unacceptable("no pairing waits for that nonce")
        fits = commitment_holds(self._commitment, self.other.fingerprint, reveal.nonce)
        if self.stage in _AFTER_WORDS and fits:
            return
        if self.stage is not Stage.ANSWERED:
            raise Unacceptable("no pairing waits for that nonce")
        if not fits:
            self.fail("what came is not what the other side had committed to: somebody may stand between you")
            raise Unacceptable("the nonce is not the one that was committed to")
        self._tell(word_numbers(*self._sides(), self._commitment, reveal.nonce, self._nonce), now_ms)

    # The admins

    def end(self, *, same: bool) -> None:
        """The admins have compared the words."""
        if self.stage is Stage.WORDS:
            self.stage = Stage.CONFIRMED if same else Stage.DIFFERENT

    def _sides(self) -> tuple[str, str]:
        first, second = (self.own, self.other) if self.is_initiator else (self.other, self.own)
        return first.fingerprint, second.fingerprint

    def _tell(self, numbers: tuple[int, ...], now_ms: int) -> None:
        self.stage, self.numbers, self.ends_ms = Stage.WORDS, numbers, now_ms + WINDOW_MS
