"""The metadata of a directory, made and compared. Pure: bytes and times are arguments.

* A new version is the one before with a higher number and a new expiry; what is staged bears no signature of before.
* Root and targets are signed by people; snapshot and timestamp by the machine that publishes.

Source: The Update Framework specification, 1.0.31.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from exchange.directory.errors import DirectoryError, DirectoryUnreadable, SignaturesMissing
from exchange.directory.keyfile import holder_of

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)
PEOPLE: Final = ("root", "targets")
ONLINE: Final = ("snapshot", "timestamp")

Days = Annotated[int, Meta(ge=1, le=3650)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the body decided: its name, and how long each part of the metadata holds."""

    format: Annotated[str, Meta(pattern=r"^exchange-directory/1\Z")] = "exchange-directory/1"
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    root_days: Days = 365
    targets_days: Days = 180
    timestamp_days: Days = 7

    def expiry(self, role: str, now: datetime) -> datetime:
        """When a part that is made now expires."""
        days = {"root": self.root_days, "targets": self.targets_days}.get(role, self.timestamp_days)
        # The snapshot is made with each timestamp, and must not end before it.
        return now.astimezone(UTC) + timedelta(days=days + (role == "snapshot"))


@dataclass(frozen=True, slots=True)
class Signed:
    """How far the signing of a part has come: for each set of keyholders that must sign, who has and who has not."""

    role: str
    needs: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...]

    @property
    def is_enough(self) -> bool:
        """Whether as many as must have signed."""
        return all(len(signed) >= threshold for threshold, signed, _ in self.needs)

    def check(self) -> None:
        """Refuse what too few have signed.

        Raises:
            SignaturesMissing: and from whom.
        """
        for threshold, signed, unsigned in self.needs:
            if len(signed) < threshold:
                raise SignaturesMissing(
                    f"{self.role}: {len(signed)} of {threshold} signatures; nothing was published",
                    hint=f"{threshold - len(signed)} more of these must sign: {', '.join(unsigned)}",
                )


@dataclass(frozen=True, slots=True)
class Differences:
    """What staged targets change, by area."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]


def target_path(area: str) -> str:
    """Under which name the card of an area is listed."""
    return f"{area}.json"


def area_of(path: str) -> str:
    """The area of a listed card."""
    return path.removesuffix(".json")


def new_root(keys: Mapping[str, Sequence[Key]], thresholds: Mapping[str, int], expires: datetime) -> Root:
    """The first root.

    Raises:
        DirectoryError: the keys or thresholds cannot be.
    """
    root = Root(expires=expires)
    for role, held in keys.items():
        for key in held:
            root.add_key(key, role)
        root.roles[role].threshold = thresholds.get(role, 1)
    check_root(root)
    return root


def next_root(root: Root, expires: datetime) -> Root:
    """The root after this one, for changes to be made to."""
    following = deepcopy(root)
    following.version += 1
    following.expires = expires
    return following


def check_root(root: Root) -> None:
    """Refuse a root under which nobody could sign, or one person could sign alone for two.

    Raises:
        DirectoryError: and why.
    """
    for name, role in root.roles.items():
        count = len(role.keyids)
        if not 1 <= role.threshold <= count:
            raise DirectoryError(
                f"{name}: {role.threshold} of {count} keys cannot be",
                hint="Add keys, or lower the threshold, in the same change.",
            )
    if len({key.keyval["public"] for key in root.keys.values()}) < len(root.keys):
        raise DirectoryError(
            "one key stands in the root under two names", hint="Sign nothing, and find out who did so."
        )
    people = [keyid for name in PEOPLE for keyid in root.roles[name].keyids]
    online = {keyid for name in ONLINE for keyid in root.roles[name].keyids}
    if len(set(people)) < len(people) or online & set(people):
        raise DirectoryError(
            "one key cannot be a root key, a targets key or the online key at once",
            hint="Make another with: exchange directory keys new FILE --holder NAME",
        )


def next_targets(targets: Targets | None, expires: datetime) -> Targets:
    """The targets after these, or the first ones."""
    if targets is None:
        return Targets(expires=expires)
    following = deepcopy(targets)
    following.version += 1
    following.expires = expires
    return following


def list_card(targets: Targets, area: str, data: bytes) -> None:
    """List a card for an area, in place of the one that is listed."""
    path = target_path(area)
    targets.targets[path] = TargetFile.from_data(path, data, ["sha256"])


def is_listed(targets: Targets, area: str, data: bytes) -> bool:
    """Whether exactly that card is listed for an area."""
    info = targets.targets.get(target_path(area))
    if info is None:
        return False
    try:
        info.verify_length_and_hashes(data)
    except RepositoryError:
        return False
    return True


def differences(before: Targets | None, after: Targets) -> Differences:
    """What changes from some targets to others."""
    old, new = (before.targets if before else {}), after.targets
    return Differences(
        added=tuple(sorted(area_of(path) for path in new.keys() - old.keys())),
        changed=tuple(sorted(area_of(path) for path in new.keys() & old.keys() if new[path] != old[path])),
        removed=tuple(sorted(area_of(path) for path in old.keys() - new.keys())),
        unchanged=tuple(sorted(area_of(path) for path in new.keys() & old.keys() if new[path] == old[path])),
    )


def root_signatures(staged: Metadata[Root], before: Root | None) -> Signed:
    """Who has signed a root: it takes those of the root before, and its own."""
    result = staged.signed.get_root_verification_result(before, staged.signed_bytes, staged.signatures)
    results = (result.first, result.second) if before is not None else (result.second,)
    return Signed("root", tuple((item.threshold, _names(item.signed), _names(item.unsigned)) for item in results))


def targets_signatures(staged: Metadata[Targets], root: Root) -> Signed:
    """Who has signed targets."""
    result = root.get_verification_result("targets", staged.signed_bytes, staged.signatures)
    return Signed("targets", ((result.threshold, _names(result.signed), _names(result.unsigned)),))


def _names(keys: Mapping[str, Key]) -> tuple[str, ...]:
    return tuple(sorted(holder_of(key) for key in keys.values()))


def may_sign(keyid: str, staged_root: Root | None, before: Root | None) -> tuple[str, ...]:
    """Which of the two parts that people sign a key belongs to: of the root, that before and that which is staged."""
    roots = [root for root in (before, staged_root) if root is not None]
    latest = staged_root or before
    roles = []
    if staged_root is not None and any(keyid in root.roles["root"].keyids for root in roots):
        roles.append("root")
    if latest is not None and keyid in latest.roles["targets"].keyids:
        roles.append("targets")
    return tuple(roles)


def copy_signatures(into: Metadata[T], other: Metadata[T], keys: Iterable[Key]) -> list[str]:
    """Take over the signatures that another copy of the same part has; return whose.

    Raises:
        DirectoryError: it is not the same.
    """
    if into.signed_bytes != other.signed_bytes:
        raise DirectoryError(
            f"the other copy's staged {into.signed.type} is not the same as this one's",
            hint="Both must be of one version. Sign a fresh copy of this working directory.",
        )
    taken = []
    for key in keys:
        signature = other.signatures.get(key.keyid)
        if signature is not None and key.keyid not in into.signatures:
            with suppress(UnverifiedSignatureError):
                key.verify_signature(signature, into.signed_bytes)
                into.signatures[key.keyid] = signature
                taken.append(holder_of(key))
    return taken


def new_snapshot(targets_version: int, version: int, expires: datetime) -> Snapshot:
    """The snapshot of some targets."""
    return Snapshot(version=version, expires=expires, meta={"targets.json": MetaFile(targets_version)})


def new_timestamp(snapshot: bytes, snapshot_version: int, version: int, expires: datetime) -> Timestamp:
    """The timestamp of a snapshot, with its length and hash."""
    meta = MetaFile.from_data(snapshot_version, snapshot, ["sha256"])
    return Timestamp(version=version, expires=expires, snapshot_meta=meta)


def parse(kind: type[T], data: bytes, what: str) -> Metadata[T]:
    """Read a metadata file.

    Raises:
        DirectoryUnreadable: it is not one of that kind.
    """
    try:
        found: Metadata[T] = Metadata.from_bytes(data)
    except (RepositoryError, ValueError, KeyError, TypeError):
        raise DirectoryUnreadable(f"{what} cannot be read") from None
    if not isinstance(found.signed, kind):
        raise DirectoryUnreadable(f"{what} is of another kind than its name says")
    return found


def check_chain(first: Root, chain: Sequence[Metadata[Root]]) -> Root:
    """Follow roots from one that is known: each is signed under the one before, and under itself.

    Raises:
        DirectoryUnreadable: the chain breaks.
    """
    known = first
    for link in chain:
        if link.signed.version <= known.version:
            continue
        if link.signed.version != known.version + 1 or not root_signatures(link, known).is_enough:
            raise DirectoryUnreadable(
                f"root {link.signed.version} does not follow from the root that you know",
                hint="Sign nothing. Telephone the other keyholders.",
            )
        known = link.signed
    return known
