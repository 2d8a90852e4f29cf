"""Publish: sign snapshot and timestamp, look at the result as a client would, and only then put it in place.

* Nothing is published that too few keyholders have signed.
* What is to be published is tried from the first root, as a new borough does, and from what was published last, as
  those do who have joined. Where a client would refuse it, nothing is put in place.
* Files are named by their version or hash; the timestamp is written last. A client sees the state of before or of
  after, whatever stops this half-way. To do it again does no harm.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.ngclient import FetcherInterface

from exchange.directory.body import Body, Published, Publishing, write_file
from exchange.directory.errors import DirectoryError
from exchange.directory.metadata import (
    ONLINE,
    area_of,
    new_snapshot,
    new_timestamp,
    parse,
    root_signatures,
    targets_signatures,
)
from exchange.node.directory_client import METADATA, TARGETS, Known, look

_ANYWHERE: Final = "http://directory.invalid"
#: A client that began before still finds what it began with.
_SNAPSHOTS_KEPT: Final = 5


@dataclass(frozen=True, slots=True)
class Release:
    """What is to be published: new files by their path, in the order in which they are written."""

    files: dict[str, bytes]
    root: Root
    targets: Targets
    timestamp: Timestamp
    #: Whether the staged root and targets are part of it.
    took: tuple[bool, bool] = field(default=(False, False))


def prepare(body: Body, online: Sequence[CryptoSigner], now: datetime, *, renew_only: bool = False) -> Release:
    """Sign what the machine signs, on top of what people have signed.

    Raises:
        SignaturesMissing: too few have.
        DirectoryError: the online key is another than the root names, or something has expired.
    """
    published = body.published()
    root, targets, took = _signed(body, published, renew_only=renew_only)
    for part, name in ((root.signed, "root"), (targets.signed, "targets")):
        if part.is_expired(now):
            raise DirectoryError(
                f"the {name} expired on {part.expires:%Y-%m-%d}; nothing was published",
                hint=f"Renew it, and have it signed: exchange directory renew {name}",
            )
    signer = _online_signer(root.signed, online)
    settings = body.settings()
    version = published.snapshot.signed.version + 1 if published.snapshot else 1
    snapshot = Metadata(new_snapshot(targets.signed.version, version, settings.expiry("snapshot", now)))
    snapshot.sign(signer)
    snapshot_data = snapshot.to_bytes()
    number = published.timestamp.signed.version + 1 if published.timestamp else 1
    timestamp = Metadata(new_timestamp(snapshot_data, version, number, settings.expiry("timestamp", now)))
    timestamp.sign(signer)
    files = {}
    for path, info in targets.signed.targets.items():
        files[f"{TARGETS}/{info.hashes['sha256']}.{path}"] = body.card(targets.signed, area_of(path))
    files[f"{METADATA}/{targets.signed.version}.targets.json"] = targets.to_bytes()
    files[f"{METADATA}/{version}.snapshot.json"] = snapshot_data
    for known in published.roots:
        files[f"{METADATA}/{known.signed.version}.root.json"] = known.to_bytes()
    files[f"{METADATA}/{root.signed.version}.root.json"] = root.to_bytes()
    files[f"{METADATA}/timestamp.json"] = timestamp.to_bytes()
    return Release(files, root.signed, targets.signed, timestamp.signed, took)


def _signed(
    body: Body, published: Published, *, renew_only: bool
) -> tuple[Metadata[Root], Metadata[Targets], tuple[bool, bool]]:
    staged_root = None if renew_only else body.staged_root()
    staged_targets = None if renew_only else body.staged_targets()
    if staged_root is not None:
        root_signatures(staged_root, published.root).check()
    root = staged_root or (published.roots[-1] if published.roots else None)
    targets = staged_targets or published.targets
    if root is None or targets is None:
        raise DirectoryError("nothing was published yet", hint="Publish without --renew first.")
    signed = targets_signatures(targets, root.signed)
    if staged_targets is None and not signed.is_enough:
        raise DirectoryError(
            "under the new root, the targets that are published are signed by too few; nothing was published",
            hint="Have them signed anew: exchange directory renew targets, then exchange directory sign",
        )
    signed.check()
    return root, targets, (staged_root is not None, staged_targets is not None)


def _online_signer(root: Root, online: Sequence[CryptoSigner]) -> CryptoSigner:
    for signer in online:
        if all(signer.public_key.keyid in root.roles[role].keyids for role in ONLINE):
            return signer
    raise DirectoryError(
        "the online key is not the one that the root names; nothing was published",
        hint="Name the file of the right one with --online-key, or see docs/directory.md, Replace the online key.",
    )


class _Files(FetcherInterface):
    """Serves a directory's files to a client, without a network."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return iter(((self._path / url.removeprefix(f"{_ANYWHERE}/")).read_bytes(),))
        except FileNotFoundError:
            raise exceptions.DownloadHTTPError("not there", 404) from None


def check_as_client(tree: Path, before: Path | None, now: datetime) -> int:
    """Look at a tree of files as a new client does, and as one that has seen what was published before.

    Return how many cards it lists.

    Raises:
        DirectoryError: a client would refuse it.
    """
    first = (tree / METADATA / "1.root.json").read_bytes()
    starts = [({"root": first}, "a borough that joins")]
    if before is not None and (before / METADATA / "timestamp.json").exists():
        seen = look(Known(_ANYWHERE, {"root": first}), _Files(before), now).files
        starts.append((dict(seen), "a borough that has joined"))
    count = 0
    for files, who in starts:
        outcome = look(Known(_ANYWHERE, files), _Files(tree), now)
        if outcome.listing is None:
            reason = outcome.problem.detail if outcome.problem else "unknown"
            raise DirectoryError(f"{who} would refuse what is to be published: {reason}; nothing was published")
        count = len(outcome.listing.cards)
    return count


def publish(body: Body, release: Release, out: Path, now: datetime) -> int:
    """Try a release as a client, put it in place in the working directory, then in `out`; how many cards it lists.

    Raises:
        DirectoryError: a client would refuse it, or `out` has what this working directory does not know of.
        OSError: a file could not be written; clients see the state of before.
    """
    _refuse_newer(out, release)
    with tempfile.TemporaryDirectory(prefix="exchange-directory-") as name:
        tree = Path(name) / "tree"
        for path, data in release.files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
        count = check_as_client(tree, body.repository, now)
    root, targets = release.took
    number = release.root.version if root else None
    body.begin_publishing(Publishing(timestamp=release.timestamp.version, root=number, targets=targets))
    _write(body.repository, release)
    # From here on it is published here: what was staged is done with.
    body.unstage(root=root, targets=targets)
    body.end_publishing()
    _write(out, release)
    check_as_client(out, None, now)
    return count


def _refuse_newer(out: Path, release: Release) -> None:
    path = out / METADATA / "timestamp.json"
    if not path.exists():
        if out.exists() and not out.is_dir():
            raise DirectoryError(f"{out} is not a directory")
        return
    there = parse(Timestamp, path.read_bytes(), str(path)).signed
    if there.version >= release.timestamp.version:
        raise DirectoryError(
            f"{out} was published from another copy of this working directory, later than this one",
            hint="Take that copy. To go on with this one, boroughs would have to refuse it.",
        )


def _write(place: Path, release: Release) -> None:
    for path, data in release.files.items():
        target = place / path
        if path.endswith("timestamp.json") or not target.exists() or target.read_bytes() != data:
            write_file(target, data)
    _prune(place)


def _prune(place: Path) -> None:
    """Remove snapshots that no client asks for any more."""
    metadata = place / METADATA
    snapshots = sorted(metadata.glob("*.snapshot.json"), key=lambda path: int(path.name.partition(".")[0]))
    for path in snapshots[:-_SNAPSHOTS_KEPT]:
        path.unlink()
