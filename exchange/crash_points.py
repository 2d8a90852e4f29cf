"""Places at which a test may end the process, to see what a crash there leaves.

In the program this does nothing, and nothing in the program can make it do something: no option, no variable of the
environment and no setting. The harness in `tests/faults`, which is not shipped, starts a node in a process of its own
and there puts another function in the place of `reached` before the node runs.
"""

from typing import Literal, TypeAlias

Point: TypeAlias = Literal[
    # A batch of the store: its checkpoint is signed between the first two.
    "batch.begun",
    "batch.signed",
    "batch.committed",
    # A form that a person sends, and an envelope of a peer: all is stored, and nobody has been told.
    "send.before-answer",
    "envelope.before-answer",
    # An envelope to a peer, and its answer, which is not recorded yet.
    "peer.before-call",
    "peer.answered",
    # A section to an agency.
    "webhook.before-call",
    "webhook.accepted",
    "webhook.recorded",
    # A section that an agency fetches, and what it says of it.
    "pull.before-answer",
    "pull.recorded",
    # A section that is put into an agency's folder.
    "drop.beside",
    "drop.in-place",
    # What an agency says of a section: all is stored, and nobody has been told.
    "word.before-answer",
    # An order to recall or erase: it is stored; what it destroyed is gone from the rows, and from older pages.
    "order.before-answer",
    "destroy.before-scrub",
    "destroy.scrubbed",
    # A file that is to be attached, sealed and not noted as whole.
    "staging.sealed",
    # An attachment that has come, its last chunk stored; and opened, which nobody has been told.
    "attachment.all-taken",
    "attachment.opened",
    # The turn of an epoch of sealing keys.
    "epoch.before-store",
    "epoch.stored",
    "epoch.before-scrub",
    "epoch.scrubbed",
    "epoch.destroyed",
    # The change of the signing keys.
    "rotation.begun",
    "rotation.logged",
    "rotation.finished",
    # The keystore is rewritten.
    "keystore.before-write",
    "keystore.beside",
    "keystore.renamed",
    "keystore.wiped",
    # The node signs a card; it keeps a copy beside its configuration, a file that is replaced as a whole.
    "card.signed",
    "file.beside",
    "file.in-place",
]


def reached(point: Point) -> None:
    """The node has come to a place at which a test may end it."""
