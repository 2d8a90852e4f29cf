"""What a directory lists, applied to the peers: the table of `directory_rules`, through the table of `trust`.

* All that one refresh leads to is one transaction: metadata, entries and peers change together, or not at all.
* What cannot be read or contradicts itself is noted and leads to nothing; nobody is held to be missing because of it.
* The directory names neither networks nor authorities: those are the admin's, given when the node joined.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from exchange.node.cards import has_expired, parse_card_file, peer_card
from exchange.node.directory_rules import (
    Action,
    Case,
    Policy,
    Says,
    decide,
    ever_by_people,
    holds_area,
    verified_by,
)
from exchange.node.errors import NodeError, PeerUntrusted, RequestInvalid
from exchange.node.peering import BY_DIRECTORY, Confirmation, confirm, move, show_card, succession
from exchange.node.services import Services
from exchange.node.trust import Standing, Trust
from exchange.schema.areas import area_name
from exchange.schema.card_file import VerifiedCard
from exchange.store.directory import DirectoryRow, EntryRow, keep_stop, stop_of, stopped_areas
from exchange.store.errors import NotFound
from exchange.store.messages import add_alarm, has_alarm
from exchange.store.peers import PeerRow, all_peers, keep_peer, peer
from exchange.store.transaction import Transaction
from exchange.store.trust import revoked_identities, verifications_of

#: SHOW, then CONFIRM, then KEEP: nothing leads further.
_MOST_STEPS: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """A card that the directory lists for an area; `note` says why it is not taken, where it is not."""

    area: str
    data: bytes
    verified: VerifiedCard | None
    note: str | None = None

    def row(self) -> EntryRow:
        """As the store keeps it."""
        if self.verified is None:
            return EntryRow(self.area, "", "", 0, self.note, self.data)
        card = self.verified.card
        return EntryRow(self.area, card.origin, self.verified.fingerprint, card.serial, self.note, self.data)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a peer: its state, and the alarm that was raised."""

    origin: str
    state: str
    alarm: str | None = None


def read_entries(cards: Mapping[str, bytes]) -> list[Entry]:
    """The cards that a directory lists, by area; those that are no cards, or for another area, with a note."""
    found, seen = [], dict[str, str]()
    for area, data in sorted(cards.items()):
        try:
            verified = parse_card_file(data)
        except NodeError:
            found.append(Entry(area, data, None, "what is listed is not a card"))
            continue
        origin = verified.card.origin
        if verified.card.area != area:
            note = f"the card is of {verified.card.area}, and listed for {area}"
        elif origin in seen:
            note = f"{origin} is listed for {seen[origin]} too"
        else:
            note = None
            seen[origin] = area
        found.append(Entry(area, data, verified, note))
    return found


def own_entry(services: Services, fingerprint: str, entries: Iterable[Entry]) -> str:
    """What the directory says of this node: `listed`, `missing`, or `differs` where it lists somebody in its place."""
    node = services.configuration.tables.node
    for entry in entries:
        if entry.area == node.area or (entry.verified and entry.verified.card.origin == node.origin):
            same = entry.note is None and entry.verified is not None and entry.verified.fingerprint == fingerprint
            return "listed" if same else "differs"
    return "missing"


async def held_area(tx: Transaction, known: PeerRow, stopped: Mapping[str, str]) -> str | None:
    """The area that a peer keeps from others whom the directory lists for it, if it does; see `stopped_areas`."""
    area = peer_card(known).area
    by_people = ever_by_people((record.how, record.fingerprint) for record in await verifications_of(tx, known.origin))
    holds = holds_area(Trust(known.state), by_people=by_people, is_stopped=known.origin in stopped)
    return area if holds else None


#: By area, who holds it, and what each of them is here: its state, `removed` or `self`.
Holders = dict[str, dict[str, str]]


async def area_holders(tx: Transaction, services: Services) -> Holders:
    """Who keeps which area from others whom the directory lists for it."""
    held, stopped = defaultdict[str, dict[str, str]](dict), await stopped_areas(tx)
    for origin, area in stopped.items():
        held[area][origin] = "removed"
    for known in await all_peers(tx):
        kept = await held_area(tx, known, stopped)
        if kept is not None:
            held[kept][known.origin] = known.state
    held[services.configuration.tables.node.area][services.configuration.origin] = "self"
    return held


def whose_area(holders: Holders, area: str, origin: str) -> str | None:
    """Who else than `origin` holds an area, in words; None where nobody does."""
    others = {other: state for other, state in holders.get(area, {}).items() if other != origin}
    if "self" in others.values():
        return "the area of this node itself"
    if Trust.VERIFIED in others.values():
        return "the area of another verified peer"
    return next((f"the area of {other}, which is {state} here" for other, state in sorted(others.items())), None)


class Applying:
    """One refresh, applied in one transaction."""

    def __init__(self, tx: Transaction, services: Services, row: DirectoryRow) -> None:
        self._tx = tx
        self._services = services
        self._row = row
        self._policy = Policy(services.configuration.tables.trust.directory)
        self._holders: Holders = {}

    async def apply(self, before: Iterable[EntryRow], entries: Sequence[Entry]) -> list[Change]:
        """Do what the table says about every peer, and every node that is listed; those who are gone first."""
        listed = {entry.verified.card.origin: entry.verified for entry in entries if entry.verified and not entry.note}
        doubtful = {entry.area for entry in entries if entry.note}
        were_listed = {entry.origin for entry in before if entry.note is None}
        changes = []
        for known in await all_peers(self._tx):
            area = peer_card(known).area
            if known.origin not in listed and area not in doubtful:
                changes += await self._gone(known, was_listed=known.origin in were_listed)
        self._holders = await area_holders(self._tx, self._services)
        listed.pop(self._services.configuration.origin, None)
        for verified in listed.values():
            changes += await self._follow(verified)
        return changes

    async def _gone(self, known: PeerRow, *, was_listed: bool) -> list[Change]:
        case, who = await self._case(known.origin, known, None)
        action = decide(case)
        name = f"the directory {self._row.url} does not list {known.origin} any more"
        if action is Action.SUSPEND and who == self._row.url:
            return await self._suspend(known, f"{name}; it is suspended")
        if action is Action.TELL and was_listed:
            detail, now_ms = f"{name}; people verified it, so it goes on", self._services.now_ms()
            await add_alarm(self._tx, "directory-removed", known.origin, detail, now_ms)
            return [Change(known.origin, known.state, "directory-removed")]
        return []

    async def _follow(self, verified: VerifiedCard) -> list[Change]:
        origin, changes = verified.card.origin, list[Change]()
        for _ in range(_MOST_STEPS):
            try:
                known: PeerRow | None = await peer(self._tx, origin)
            except NotFound:
                known = None
            case, _who = await self._case(origin, known, verified)
            action = decide(case)
            try:
                changes += await self._perform(known, verified, action)
            except (RequestInvalid, PeerUntrusted):
                # Such as a card that has expired, or is older than the one in force.
                break
            if action not in (Action.SHOW, Action.CONFIRM):
                break
        return changes

    async def _perform(self, known: PeerRow | None, verified: VerifiedCard, action: Action) -> list[Change]:
        tx, services, row, card = self._tx, self._services, self._row, verified.card
        if action is Action.SHOW:
            shown = await show_card(tx, services, verified, row.peer_ca_file if known is None else None)
            if known is None:
                await keep_peer(tx, replace(shown, networks=row.peer_networks))
            blocked = known is not None and shown.state == Trust.BLOCKED != known.state
            return [Change(card.origin, shown.state, "identity-changed" if blocked else None)]
        if action is Action.CONFIRM:
            after = await confirm(tx, services, card.origin, Confirmation(verified.fingerprint, BY_DIRECTORY, row.url))
            if after.state == Trust.VERIFIED:
                self._holders.setdefault(card.area, {})[card.origin] = after.state
            return [Change(card.origin, after.state)]
        if known is None:
            return []
        if action is Action.KEEP and card.serial > known.serial and not has_expired(card, services.now()):
            await show_card(tx, services, verified)
            return [Change(card.origin, known.state)]
        if action is Action.SUSPEND:
            detail = f"the directory {row.url} lists another identity of {card.origin}; it is suspended"
            return await self._suspend(known, detail)
        if action is Action.TELL:
            return await self._tell(known, verified)
        return []

    async def _suspend(self, known: PeerRow, detail: str) -> list[Change]:
        tx, now_ms = self._tx, self._services.now_ms()
        after = await move(tx, known.origin, Standing.suspend)
        # It had the area from the directory alone, which may give it to another.
        await keep_stop(tx, known.origin, "not listed", None)
        await add_alarm(tx, "directory-removed", known.origin, detail, now_ms)
        return [Change(known.origin, after.state, "directory-removed")]

    async def _tell(self, known: PeerRow, verified: VerifiedCard) -> list[Change]:
        """Once for each identity: what is listed stays listed."""
        tx, card, shown = self._tx, verified.card, f"{verified.fingerprint[:16]}..."
        if verified.fingerprint in await revoked_identities(tx, card.origin):
            what = f"lists the identity {shown} of {card.origin}, which was revoked"
        elif known.fingerprint == verified.fingerprint:
            whose = whose_area(self._holders, card.area, card.origin)
            what = f"lists {card.origin} for {area_name(card.area)}, {whose}"
        else:
            what = f"lists the identity {shown} of {card.origin}, which is not the one that was verified here"
        detail = f"the directory {self._row.url} {what}; nothing was changed"
        if await has_alarm(tx, "directory-differs", card.origin, detail):
            return []
        await add_alarm(tx, "directory-differs", card.origin, detail, self._services.now_ms())
        return [Change(card.origin, known.state, "directory-differs")]

    async def _case(self, origin: str, known: PeerRow | None, verified: VerifiedCard | None) -> tuple[Case, str]:
        """The case of a node, and who verified it last."""
        records = await verifications_of(self._tx, origin)
        whos = [record.who for record in records if record.how != "rotation"]
        case = Case(
            policy=self._policy,
            trust=Trust(known.state) if known is not None else None,
            by=verified_by((record.how, record.fingerprint) for record in records),
            is_stopped=await stop_of(self._tx, origin) is not None,
            says=await self._says(known, verified),
            is_area_taken=verified is not None and whose_area(self._holders, verified.card.area, origin) is not None,
        )
        return case, whos[-1] if whos else ""

    async def _says(self, known: PeerRow | None, verified: VerifiedCard | None) -> Says:
        if verified is None:
            return Says.ABSENT
        if verified.fingerprint in await revoked_identities(self._tx, verified.card.origin):
            return Says.REVOKED
        if known is None:
            return Says.OTHER
        if verified.fingerprint == known.fingerprint:
            return Says.SAME
        if succession(known, verified, self._services.checkpoints):
            return Says.PROVEN
        return Says.CANDIDATE if verified.fingerprint == known.candidate else Says.OTHER
