"""Names of the events that a node posts to an agency, and the id of a section's: the same at every attempt. Pure.

Source: docs/protocol.md, "Webhooks".
"""

import hashlib
from typing import Final

from exchange.crypto.names import context

SECTION_DELIVERED: Final = "exchange.section.delivered.v1"
SECTION_QUERIED: Final = "exchange.section.queried.v1"
HANDOVER_OVERDUE: Final = "exchange.handover.overdue.v1"
TEST: Final = "exchange.agency.test.v1"
CHALLENGE: Final = "exchange.agency.challenge.v1"


def section_event_id(leaf_hash: bytes, section: str, agency: str) -> str:
    """The id of a section's delivery to an agency: the same at every attempt, another for every message and agency."""
    return "evt_" + hashlib.sha256(context("event", leaf_hash, section.encode(), agency.encode())).hexdigest()[:32]


def question_event_id(leaf_hash: bytes, section: str, agency: str) -> str:
    """The id of a question to an agency: by the receipt that brought it, and the same at every attempt."""
    return "evt_" + hashlib.sha256(context("question", leaf_hash, section.encode(), agency.encode())).hexdigest()[:32]


def overdue_event_id(leaf_hash: bytes, delivery: int, agency: str) -> str:
    """The id of a word to an agency that something is late: by its delivery, and the same at every attempt."""
    return "evt_" + hashlib.sha256(context("overdue", leaf_hash, b"%d" % delivery, agency.encode())).hexdigest()[:32]
