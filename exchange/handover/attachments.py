"""How far an attachment has come: the table of its stages at the sender and at the receiver. Pure.

* It is never called ready before the receiving node has said so, signed.
* What was found to be damaged stays so: its sender sends another message.
* Out of quarantine leads a release by two people at the receiving node, and nothing else.
"""

import enum
from typing import Final


class Stage(enum.Enum):
    """Where an attachment stands."""

    # At its sender.
    STAGING = "staging"
    STAGED = "staged"
    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    # At its receiver.
    ARRIVING = "arriving"
    WHOLE = "whole"
    # At both: what the receiver has said.
    STORED = "stored"
    READY = "ready"
    QUARANTINED = "quarantined"
    DAMAGED = "damaged"


class Step(enum.Enum):
    """What happens to an attachment."""

    #: A person's file is sealed here, whole.
    UPLOADED = "uploaded"
    #: Its message was signed.
    SIGNED = "signed"
    #: The other node has signed for the message.
    RECEIVED = "received"
    #: The other node has taken the last chunk; or this node has.
    ALL_TAKEN = "all-taken"
    # What the receiving node finds, and then reports.
    STORED = "stored"
    READY = "ready"
    QUARANTINED = "quarantined"
    DAMAGED = "damaged"


_REPORTED: Final = (Step.STORED, Step.READY, Step.QUARANTINED, Step.DAMAGED)

TABLE: Final[dict[tuple[Stage, Step], Stage]] = {
    (Stage.STAGING, Step.UPLOADED): Stage.STAGED,
    (Stage.STAGED, Step.SIGNED): Stage.WAITING,
    (Stage.WAITING, Step.RECEIVED): Stage.SENDING,
    (Stage.SENDING, Step.ALL_TAKEN): Stage.SENT,
    (Stage.ARRIVING, Step.ALL_TAKEN): Stage.WHOLE,
    # A report may overtake the answer to the last chunk.
    **{(before, step): Stage(step.value) for before in (Stage.SENDING, Stage.SENT, Stage.WHOLE) for step in _REPORTED},
    (Stage.QUARANTINED, Step.READY): Stage.READY,
}


def after(stage: Stage, step: Step) -> Stage | None:
    """The stage after a step; None where the step changes nothing there."""
    return TABLE.get((stage, step))
