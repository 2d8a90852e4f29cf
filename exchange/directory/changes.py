"""What the body changes: boroughs that are listed, and who holds keys. All of it is staged, and takes signatures.

* One borough for an area, one area for a borough; another identity in the place of one only where that was said.
* Whatever changes what is staged drops the signatures that it bore: nobody has signed for more than they were shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from exchange.crypto.names import Origin
from exchange.directory.body import Body, Published, write_file
from exchange.directory.errors import DirectoryError
from exchange.directory.keyfile import HOLDER, holder_of
from exchange.directory.metadata import (
    ONLINE,
    Settings,
    check_root,
    is_listed,
    list_card,
    new_root,
    next_root,
    next_targets,
    target_path,
)
from exchange.node.cards import has_expired, parse_card_file
from exchange.schema.areas import area_names
from exchange.schema.card_file import VerifiedCard, card_keys
from exchange.schema.succession import steps_from


@dataclass(frozen=True, slots=True)
class Found:
    """A card that is to be listed, and what is listed in its place now."""

    verified: VerifiedCard
    data: bytes
    present: VerifiedCard | None
    #: The identity that is listed has passed itself on to this one, with proof.
    is_proven: bool

    @property
    def is_same_identity(self) -> bool:
        """Whether nothing needs to be compared: the identity is listed already, or proven by the one that is."""
        return self.is_proven or (self.present is not None and self.present.fingerprint == self.verified.fingerprint)


def make(
    path: Path, settings: Settings, keys: dict[str, Sequence[Key]], thresholds: dict[str, int], now: datetime
) -> Body:
    """Make a working directory with a first root and empty targets, both staged.

    Raises:
        DirectoryError: there is one already, or the keys or thresholds cannot be.
    """
    if (path / "directory.json").exists():
        raise DirectoryError(f"{path} is the working directory of a directory already; nothing was changed")
    root = new_root(keys, thresholds, settings.expiry("root", now))
    body = Body(path)
    body.stage(Metadata(root))
    body.stage(Metadata(next_targets(None, settings.expiry("targets", now))))
    # Last: what stops before it leaves no directory behind, and can be done again.
    write_file(path / "directory.json", msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
    body.note(now, "made")
    return body


def targets_to_change(body: Body, published: Published, now: datetime) -> Metadata[Targets]:
    """The targets that are staged, without signatures; or the next ones."""
    staged = body.staged_targets()
    expires = body.settings().expiry("targets", now)
    if staged is None:
        before = published.targets.signed if published.targets else None
        return Metadata(next_targets(before, expires))
    staged.signed.expires = expires
    staged.signatures.clear()
    return staged


def look_at(body: Body, data: bytes, now: datetime) -> Found:
    """Check a card that is to be listed.

    Raises:
        RequestInvalid: it is not a card.
        DirectoryError: it has expired, its area is unknown, or its node is listed for another area.
    """
    verified = parse_card_file(data)
    card = verified.card
    if has_expired(card, now):
        raise DirectoryError(f"the card of {card.origin} has expired", hint="Ask the borough for its current one.")
    if card.area not in area_names():
        raise DirectoryError(
            f"{card.area} is not in the list of areas",
            hint="Check the code with the borough, then update the exchange.",
        )
    targets = targets_to_change(body, body.published(), now).signed
    present = None
    for path in targets.targets:
        area = path.removesuffix(".json")
        listed = body.verified_card(targets, area)
        if area == card.area:
            present = listed
        elif listed.card.origin == card.origin:
            raise DirectoryError(
                f"{card.origin} is listed for {area} already",
                hint=f"If it has moved, remove that first: exchange directory remove {area}",
            )
    return Found(verified, data, present, _is_proven(present, verified))


def _is_proven(present: VerifiedCard | None, verified: VerifiedCard) -> bool:
    if present is None or present.card.origin != verified.card.origin:
        return False
    steps = steps_from(card_keys(present.card), Origin(present.card.origin), verified.rotations)
    return any(step.new == verified.keys for step in steps)


def add(body: Body, found: Found, compared: str, now: datetime, *, replace: bool) -> bool:
    """Stage a card; False where exactly that one is listed already.

    Raises:
        DirectoryError: another identity is listed, and it was not said to replace it; or the card is an older one.
    """
    card = found.verified.card
    if found.present is not None and not found.is_same_identity and not replace:
        raise DirectoryError(
            f"{found.present.card.origin} is listed for {card.area} with another identity",
            hint="Find out from the borough, by telephone, why. To list the new one in its place: --replace",
        )
    if found.present is not None and found.is_same_identity and card.serial < found.present.card.serial:
        raise DirectoryError(
            f"the card of {card.origin} is older than the one that is listed", hint="Ask for the current one."
        )
    staged = targets_to_change(body, body.published(), now)
    if is_listed(staged.signed, card.area, found.data):
        return False
    list_card(staged.signed, card.area, found.data)
    facts = {"area": card.area, "origin": card.origin, "fingerprint": found.verified.fingerprint}
    body.note(now, "compared", **facts, compared=compared)
    body.stage_card(card.area, found.data)
    body.stage(staged)
    return True


def remove(body: Body, area: str, because: str, now: datetime) -> None:
    """Stage that an area is listed no more.

    Raises:
        DirectoryError: it is not listed.
    """
    staged = targets_to_change(body, body.published(), now)
    if target_path(area) not in staged.signed.targets:
        raise DirectoryError(f"{area} is not listed", hint="See what is: exchange directory status")
    del staged.signed.targets[target_path(area)]
    body.note(now, "removed", area=area, because=because)
    body.stage(staged)


def renew(body: Body, role: str, now: datetime) -> None:
    """Stage the same again, with a new expiry."""
    if role == "targets":
        body.stage(targets_to_change(body, body.published(), now))
    else:
        change_root(body, now, "renewed", lambda _: None)


def change_root(body: Body, now: datetime, what: str, change: Callable[[Root], None], **more: object) -> Root:
    """Stage a change to the root, on top of what is staged.

    Raises:
        DirectoryError: the root would be such as nobody could sign, or one person alone.
    """
    staged, published = body.staged_root(), body.published()
    expires = body.settings().expiry("root", now)
    if staged is not None:
        root = staged.signed
        root.expires = expires
    elif published.root is not None:
        root = next_root(published.root, expires)
    else:
        raise DirectoryError("there is no root to change", hint="Make the directory anew.")
    change(root)
    check_root(root)
    body.note(now, what, **more)
    body.stage(Metadata(root))
    _drop_stale_signatures(body, root)
    return root


def _drop_stale_signatures(body: Body, root: Root) -> None:
    """Signatures of those who hold no targets key any more count for nothing: do not show them."""
    targets = body.staged_targets()
    if targets is not None:
        kept = {keyid: sig for keyid, sig in targets.signatures.items() if keyid in root.roles["targets"].keyids}
        if kept.keys() != targets.signatures.keys():
            targets.signatures = kept
            body.stage(targets)


def add_key(root: Root, role: str, key: Key) -> None:
    """A keyholder more."""
    if key.keyid in root.roles[role].keyids:
        raise DirectoryError(f"{holder_of(key)} holds a {role} key already; nothing was changed")
    root.add_key(key, role)


def remove_key(root: Root, role: str, name: str) -> str:
    """A keyholder less, named by the holder's name or the beginning of the key's id; return whose key it was.

    Raises:
        DirectoryError: nobody is called so, or several are.
    """
    held = [root.keys[keyid] for keyid in root.roles[role].keyids]
    found = [key for key in held if key.unrecognized_fields.get(HOLDER) == name or key.keyid.startswith(name)]
    if len(found) != 1:
        raise DirectoryError(
            f"{'nobody' if not found else 'more than one'} called {name!r} holds a {role} key",
            hint=f"Name one of these: {', '.join(map(holder_of, held))}",
        )
    root.revoke_key(found[0].keyid, role)
    return holder_of(found[0])


def replace_online_key(root: Root, key: Key) -> None:
    """Another key for the machine that publishes, in place of all before."""
    for role in ONLINE:
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(key, role)
