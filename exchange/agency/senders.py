"""Which boroughs an agency knows by itself: cards whose fingerprints somebody at the agency has compared.

* Who sent a section is proven by the sender's card. Whose card that is, the borough's node says, unless the agency
  has a card of its own to hold it against.
* A sender that has changed its keys is known still where its rotations lead from the known keys to the new ones.
"""

from collections.abc import Iterable
from pathlib import Path

from exchange.agency.errors import SenderChanged
from exchange.crypto.names import Origin
from exchange.schema.card_file import VerifiedCard, read_card_file
from exchange.schema.succession import all_keys


class KnownSenders:
    """The cards that an agency knows."""

    def __init__(self, cards: Iterable[VerifiedCard] = ()) -> None:
        self._cards: dict[str, list[VerifiedCard]] = {}
        for card in cards:
            self._cards.setdefault(card.card.origin, []).append(card)

    @classmethod
    def in_directory(cls, directory: Path) -> "KnownSenders":
        """The cards in the files `*.json` of a directory.

        Raises:
            CardInvalid: one of them is no card.
            OSError: it cannot be read.
        """
        return cls(read_card_file(path.read_bytes()) for path in sorted(directory.glob("*.json")))

    def knows(self, card: VerifiedCard) -> bool:
        """Whether a sender is one that the agency knows; False for an origin of which it knows nothing.

        Raises:
            SenderChanged: it knows that origin by other keys, and no rotation leads from these to the card's.
        """
        mine = self._cards.get(card.card.origin)
        if mine is None:
            return False
        rotations = (*card.rotations, *(item for known in mine for item in known.rotations))
        line = all_keys(card.keys, Origin(card.card.origin), rotations)
        if not any(known.keys in line for known in mine):
            raise SenderChanged(f"{card.card.origin} shows another identity than the one that is known here")
        return True
