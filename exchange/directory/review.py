"""What a keyholder is shown before they sign, and where the directory stands: plain facts, for people and scripts.

* A keyholder sees every borough that would be listed, those that are new first, each with its fingerprint. What the
  directory says was published is believed as far as its keyholders signed for it.
* Who keeps their own copy of the first root has the chain from there checked: a false working directory shows itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tuf.api.metadata import Root, Targets

from exchange.directory.body import Body, Published
from exchange.directory.errors import DirectoryUnreadable
from exchange.directory.keyfile import holder_of, plain
from exchange.directory.metadata import (
    ONLINE,
    PEOPLE,
    Signed,
    check_chain,
    differences,
    parse,
    root_signatures,
    targets_signatures,
)
from exchange.node.directory_client import root_fingerprint
from exchange.schema.areas import area_name

#: How long before its end to say that a part must be renewed.
_SOON: Final = {"root": timedelta(days=60), "targets": timedelta(days=30), "timestamp": timedelta(days=2)}
_CARD_SOON: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Line:
    """One borough in what is staged: `added`, `changed`, `removed` or `unchanged`, and which identity."""

    change: str
    area: str
    origin: str
    fingerprint: str
    was: str | None
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """For a script."""
        facts = {"change": self.change, "area": self.area, "name": area_name(self.area), "origin": self.origin}
        return {**facts, "fingerprint": self.fingerprint, "was": self.was, "notes": list(self.notes)}


def check_published(body: Body, published: Published, first_root: bytes | None) -> None:
    """See that what is said to be published was signed, from a root that the keyholder knows where they gave one.

    Raises:
        DirectoryUnreadable: it was not.
    """
    hint = "Sign nothing. Telephone the other keyholders."
    if first_root is not None:
        known = parse(Root, first_root, "your root").signed
        if not published.roots and body.staged_root() is None:
            raise DirectoryUnreadable("there is no root in this directory", hint=hint)
        here = next((link for link in published.roots if link.signed.version == known.version), None)
        if here is None or here.signed != known:
            raise DirectoryUnreadable("this directory's root is not the one that you keep", hint=hint)
        check_chain(known, published.roots)
    targets, root = published.targets, published.root
    if targets is not None and root is not None and not targets_signatures(targets, root).is_enough:
        raise DirectoryUnreadable("what is published here was not signed by its keyholders", hint=hint)


def review_targets(body: Body, published: Published, targets: Targets) -> list[Line]:
    """Every borough that would be listed or is listed no more, those that change first."""
    before = published.targets.signed if published.targets else None
    diff = differences(before, targets)
    return [
        *(_line(body, "added", targets, area, None) for area in diff.added),
        *(_line(body, "changed", targets, area, before) for area in diff.changed),
        *(_removed(body, before, area) for area in diff.removed if before is not None),
        *(_line(body, "unchanged", targets, area, None) for area in diff.unchanged),
    ]


def _line(body: Body, change: str, targets: Targets, area: str, before: Targets | None) -> Line:
    found = body.verified_card(targets, area)
    was = body.verified_card(before, area).fingerprint if before is not None else None
    notes = [
        plain(f"compared by {note.get('by')} on {str(note.get('at'))[:10]}: {note.get('compared')}")
        for note in body.notes_on(found.fingerprint)
        if note.get("what") == "compared"
    ]
    return Line(change, area, found.card.origin, found.fingerprint, was, tuple(notes[-1:]))


def _removed(body: Body, before: Targets, area: str) -> Line:
    found = body.verified_card(before, area)
    return Line("removed", area, found.card.origin, found.fingerprint, None, ())


def review_root(before: Root | None, root: Root) -> list[str]:
    """What a root says that the one before did not."""
    lines = []
    for role in (*PEOPLE, *ONLINE):
        new, old = root.roles[role], before.roles[role] if before else None
        was = set(old.keyids) if old else set()
        lines += [f"{role}: {holder_of(root.keys[keyid])} is new" for keyid in new.keyids if keyid not in was]
        if before is not None and old is not None:
            gone = [keyid for keyid in old.keyids if keyid not in new.keyids]
            lines += [f"{role}: {holder_of(before.keys[keyid])} is no more" for keyid in gone]
        if old is None or old.threshold != new.threshold or len(old.keyids) != len(new.keyids):
            lines.append(f"{role}: {new.threshold} of {len(new.keyids)} must sign")
    lines.append(f"root {root.version} holds until {root.expires:%Y-%m-%d}")
    return lines


def signatures(body: Body, published: Published) -> dict[str, Signed]:
    """How far the signing of what is staged has come."""
    found = {}
    root, targets = body.staged_root(), body.staged_targets()
    if root is not None:
        found["root"] = root_signatures(root, published.root)
    latest = root.signed if root is not None else published.root
    if targets is not None and latest is not None:
        found["targets"] = targets_signatures(targets, latest)
    return found


def status(body: Body, now: datetime) -> dict[str, Any]:
    """Where the directory stands, and what is to be done."""
    published = body.published()
    root, staged = published.root, body.staged_targets()
    targets = staged.signed if staged else published.targets.signed if published.targets else None
    lines = review_targets(body, published, targets) if targets else []
    there = [line.area for line in lines if line.change != "removed"] if targets else []
    signing = signatures(body, published)
    cards_end = {area: body.verified_card(targets, area).card.expires_at for area in there} if targets else {}
    return {
        "name": body.settings().name,
        "root_fingerprint": root_fingerprint(published.roots[0].to_bytes()) if published.roots else None,
        "published": {role: {"version": part.version, "expires_at": part.expires} for role, part in _parts(published)},
        "keyholders": _keyholders(root) if root else {},
        "staged": {role: _describe(signed) for role, signed in signing.items()},
        "items": [line.describe() for line in lines],
        "advice": [*_advice(published, signing, now), *_about_cards(cards_end, now)],
    }


def _keyholders(root: Root) -> dict[str, Any]:
    return {
        role: {
            "threshold": root.roles[role].threshold,
            "holders": [holder_of(root.keys[keyid]) for keyid in root.roles[role].keyids],
        }
        for role in PEOPLE
    }


def _parts(published: Published) -> Iterator[tuple[str, Any]]:
    if published.root is not None:
        yield "root", published.root
    for role in ("targets", "snapshot", "timestamp"):
        part = getattr(published, role)
        if part is not None:
            yield role, part.signed


def _describe(signed: Signed) -> dict[str, Any]:
    return {
        "enough": signed.is_enough,
        "needs": [
            {"threshold": threshold, "signed": list(have), "missing": list(lack)}
            for threshold, have, lack in signed.needs
        ],
    }


def _advice(published: Published, signing: dict[str, Signed], now: datetime) -> Iterator[dict[str, str]]:
    for role, signed in signing.items():
        for threshold, have, lack in signed.needs:
            if len(have) < threshold:
                text = f"{threshold - len(have)} more must sign the {role}, of: {', '.join(lack)}"
                yield {"code": "sign", "message": text}
    if signing and all(signed.is_enough for signed in signing.values()):
        yield {"code": "publish", "message": "What is staged is signed. Publish it: exchange directory publish OUT"}
    for role, part in _parts(published):
        if role in _SOON and part.expires - now < _SOON[role]:
            ended = "expired" if part.expires <= now else "expires"
            verb = (
                "exchange directory publish OUT --renew" if role == "timestamp" else f"exchange directory renew {role}"
            )
            yield {
                "code": f"renew-{role}",
                "message": f"The {role} {ended} on {part.expires:%Y-%m-%d %H:%M} UTC: {verb}",
            }


def _about_cards(ends: dict[str, datetime], now: datetime) -> Iterator[dict[str, str]]:
    for area, end in ends.items():
        if end - now < _CARD_SOON:
            ended = "expired" if end <= now else "expires"
            text = f"The card of {area_name(area)} {ended} on {end:%Y-%m-%d}: ask for the current one, and add it."
            yield {"code": "card", "message": text}
