"""How an identity is passed on: rotations that lead from the keys in force to others. Pure.

* One proof of a rotation verifies under the old keys and under the new ones: both sets signed its checkpoint.
* Only a rotation of the keys in force is followed; those of earlier keys, and whatever does not hold, say nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from exchange.crypto.checkpoint import CheckpointCache
from exchange.crypto.errors import CryptoError, SignatureError
from exchange.crypto.names import Origin
from exchange.crypto.note import VerifierKey, parse_vkey
from exchange.crypto.proof import VerifiedStatement, verify_statement
from exchange.crypto.signing import fingerprint
from exchange.crypto.statement import parse_statement
from exchange.schema.errors import SchemaError
from exchange.schema.identity import ROTATION, rotation_decoder
from exchange.schema.wire import ProvenStatement, decode_wire

KeyPair = tuple[VerifierKey, VerifierKey]


@dataclass(frozen=True, slots=True)
class Step:
    """One rotation that holds: from which keys, to which, and what shows it."""

    old: KeyPair
    new: KeyPair
    item: ProvenStatement
    verified: VerifiedStatement

    def fingerprints(self) -> tuple[str, str]:
        """The identity that passed itself on, and the one that it passed itself on to."""
        origin = self.verified.checkpoint.origin
        return fingerprint(origin, self.old), fingerprint(origin, self.new)


def step_from(
    keys: KeyPair, origin: Origin, item: ProvenStatement, cache: CheckpointCache | None = None
) -> Step | None:
    """The step that a rotation takes from `keys`, or None where it is not one of theirs, or does not hold."""
    try:
        verified = verify_statement(item.statement, item.proof, origin, keys, cache)
        if verified.statement.type != ROTATION:
            return None
        rotation = decode_wire(rotation_decoder, verified.statement.body)
        if rotation.origin != origin or rotation.old != tuple(key.text() for key in keys):
            return None
        first, second = (parse_vkey(text) for text in rotation.new)
        if any(key.name != origin for key in (first, second)):
            raise SignatureError("the new keys bear another name")
        # Also under the new keys: else somebody else's could be adopted.
        verify_statement(item.statement, item.proof, origin, (first, second), cache)
    except (CryptoError, SchemaError):
        return None
    return Step(keys, (first, second), item, verified)


def steps_from(
    keys: KeyPair, origin: Origin, items: Iterable[ProvenStatement], cache: CheckpointCache | None = None
) -> list[Step]:
    """The steps that `items`, oldest first, take one after the other from `keys`."""
    steps: list[Step] = []
    for item in items:
        step = step_from(keys, origin, item, cache)
        if step is not None:
            steps.append(step)
            keys = step.new
    return steps


def steps_to(keys: KeyPair, origin: Origin, items: Iterable[ProvenStatement]) -> list[Step]:
    """The steps among `items`, oldest first, that lead to `keys`."""
    steps: list[Step] = []
    for item in reversed(list(items)):
        step = _step_of(origin, item)
        if step is not None and step.new == keys:
            steps.insert(0, step)
            keys = step.old
    return steps


def all_keys(keys: KeyPair, origin: Origin, items: Iterable[ProvenStatement]) -> list[KeyPair]:
    """The keys of an identity, `keys` first, then those that rotations show to have come before or after them."""
    steps = [step for item in items for step in [_step_of(origin, item)] if step is not None]
    found = [keys]
    for here in found:
        for step in steps:
            found += [
                there
                for one, there in ((step.old, step.new), (step.new, step.old))
                if one == here and there not in found
            ]
    return found


def _step_of(origin: Origin, item: ProvenStatement) -> Step | None:
    """The step that a rotation takes from the keys that it names itself."""
    try:
        # The keys are inside: the body is read to find them, and believed only once the proof has verified.
        rotation = decode_wire(rotation_decoder, parse_statement(item.statement).body)
        first, second = (parse_vkey(text) for text in rotation.old)
    except (CryptoError, SchemaError):
        return None
    return step_from((first, second), origin, item)


def verify_by_any(item: ProvenStatement, origin: Origin, pairs: Iterable[KeyPair]) -> VerifiedStatement:
    """Check a statement under the first of several pairs of keys of one identity under which it holds.

    Raises:
        CryptoError: it holds under none; the error is that of the first.
    """
    first_error: CryptoError | None = None
    for keys in pairs:
        try:
            return verify_statement(item.statement, item.proof, origin, keys)
        except CryptoError as error:
            first_error = first_error or error
    raise first_error or SignatureError("there is no key to check with")
