"""The directory that this node has joined: fetch it in time, keep what is trusted of it, apply what it lists.

* Nothing is taken from a directory that has expired, went back or is not signed; peers go on, and people are told once.
* The trusted metadata is in the store, written with all that it led to in one transaction. It never goes back, whatever
  stops the node half-way, and whichever of its replicas refreshed last.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from exchange.crypto.signing import fingerprint
from exchange.node.cards import has_expired
from exchange.node.config import is_node_url
from exchange.node.directory_apply import (
    Applying,
    Change,
    Entry,
    area_holders,
    own_entry,
    read_entries,
    whose_area,
)
from exchange.node.errors import DirectoryRefused, NodeError, NotNow, RequestInvalid
from exchange.node.peer_client import PeerClient, Place
from exchange.node.services import Services, milliseconds, moment
from exchange.node.trust import Trust
from exchange.schema.areas import area_name
from exchange.schema.card_file import VerifiedCard
from exchange.schema.errors import SchemaError
from exchange.store.directory import (
    DirectoryRow,
    EntryRow,
    add_directory,
    directory_metadata,
    entries,
    joined,
    keep_directory,
    keep_entries,
    keep_metadata,
    leave_directory,
)
from exchange.store.errors import AlreadyThere, NotFound, StoreError, StoreMoved, StoreUnavailable
from exchange.store.messages import add_alarm
from exchange.store.peers import all_peers, peer
from exchange.store.transaction import Transaction

if TYPE_CHECKING:
    # python-tuf is loaded where a node has joined a directory, and not at each start.
    from exchange.node.directory_client import Listing, Outcome, Problem

_HOUR_MS: Final = 3_600_000
_LOOK_EVERY_S: Final = 30.0
_AT_ONCE: Final = 4
#: How much longer than one peer's answer all files of a directory may take.
_TIMES: Final = 10


@dataclass(frozen=True, slots=True)
class Held:
    """What the node holds of its directory."""

    row: DirectoryRow
    files: dict[str, bytes]
    entries: list[EntryRow]


async def _held(tx: Transaction) -> Held:
    row = await joined(tx)
    if row is None:
        raise NotFound(
            "this node has joined no directory", hint="Join one with: exchange directory join URL --root FILE"
        )
    return Held(row, await directory_metadata(tx), await entries(tx))


def wait_ms(row: DirectoryRow, interval_ms: int) -> int:
    """How long after the last attempt to ask again: sooner where something failed, or the metadata ends soon."""
    left_ms = max(0, row.expires_at_ms - row.checked_at_ms)
    return max(1000, min(interval_ms if row.problem is None else interval_ms // 6, left_ms // 4 or interval_ms // 6))


class Directory:
    """Keeps what the node knows of its directory fresh."""

    def __init__(self, services: Services, client: PeerClient, changed: Callable[[str, str], None]) -> None:
        self._services = services
        self._client = client
        self._changed = changed
        self._chance = random.SystemRandom()
        self._turn = asyncio.Lock()

    async def run(self, stop: asyncio.Event, every_s: float | None = None) -> None:
        """Refresh when it is time, until `stop`; a directory that does not answer then is not waited for."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_again(every_s or min(_LOOK_EVERY_S, self._interval_ms / 10_000)))
            await stop.wait()
            looking.cancel()

    @property
    def _interval_ms(self) -> int:
        return round(self._services.configuration.tables.keys.card_refresh_hours * _HOUR_MS)

    async def _look_again(self, every_s: float) -> None:
        # After a start, replicas and boroughs do not all ask at once.
        share = self._chance.uniform(0.75, 1)
        while True:
            try:
                await self.look(share)
            except NotFound:
                pass
            except StoreError as error:
                self._services.log.error("store unavailable", error=str(error))
            except Exception as error:  # noqa: BLE001 - the root of a task: no directory may stop the node
                self._services.log.error("directory not refreshed", error=type(error).__name__)
            await asyncio.sleep(every_s)

    async def look(self, share: float = 1) -> None:
        """Refresh the directory if it is time."""
        row = await self._services.store.read(joined)
        if row is None:
            return
        # A time that lies ahead is no reason to wait: the clock went back.
        if not 0 <= self._services.now_ms() - row.checked_at_ms < wait_ms(row, self._interval_ms) * share:
            with contextlib.suppress(NotNow, DirectoryRefused):
                await self.refresh()

    async def join(self, row: DirectoryRow, root: bytes) -> dict[str, Any]:
        """Join a directory, if it can be refreshed now; else nothing is kept.

        Raises:
            AlreadyThere: the node has joined one.
            RequestInvalid: the URL or the root cannot be.
            NotNow: the directory cannot be reached.
            DirectoryRefused: it cannot be believed.
        """
        from exchange.node.directory_client import read_root

        if not is_node_url(row.url):
            raise RequestInvalid("the directory's URL must be https://HOST (or http:// on loopback)")
        try:
            read_root(root)
        except ValueError as error:
            raise RequestInvalid(str(error)) from None
        async with self._turn:
            present = await self._services.store.read(joined)
            if present is not None:
                raise AlreadyThere(
                    f"this node has joined {present.url} already", hint="Leave it first: exchange directory leave"
                )
            held = Held(row, {"root": root}, [])
            outcome = await self._ask(held)
            if outcome.listing is None:
                raise _refusal(row.url, outcome.problem)
            await self._take(held, outcome, outcome.listing, is_new=True)
        self._services.log.info("directory joined", address=row.url)
        return await self.describe()

    async def leave(self) -> dict[str, Any]:
        """Forget the directory. Peers stay as they are."""
        async with self._turn:
            held = await self._services.store.read(_held)
            await self._services.store.write(leave_directory)
        listed = {entry.origin: entry.fingerprint for entry in held.entries if entry.note is None}
        rows = await self._services.store.read(all_peers)
        by_it = [row.origin for row in rows if row.verified_how == "directory" and row.origin in listed]
        self._services.log.info("directory left", address=held.row.url)
        return {"url": held.row.url, "left": True, "verified_by_it": by_it}

    async def refresh(self) -> dict[str, Any]:
        """Ask the directory what it says now, and apply that.

        Raises:
            NotFound: the node has joined none.
            NotNow: it cannot be reached; what was trusted stays.
            DirectoryRefused: it cannot be believed, or not be applied; what was trusted stays.
        """
        from exchange.node.directory_client import Outcome, Problem

        async with self._turn:
            held = await self._services.store.read(_held)
            outcome = Outcome(held.files, None, None)
            try:
                outcome = await self._ask(held)
                if outcome.listing is None and outcome.problem is not None and outcome.problem.code != "unreachable":
                    # While the body publishes, one file may be of before and the next of after.
                    outcome = await self._ask(replace(held, files=dict(outcome.files)))
                if outcome.listing is not None:
                    await self._take(held, outcome, outcome.listing)
                problem = outcome.problem
            except (StoreUnavailable, StoreMoved):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it serves: what it says must not stay `fresh`
                self._services.log.error("directory not refreshed", error=type(error).__name__)
                problem = Problem("not-applied", "what it lists could not be applied here; the log names the error")
            if problem is not None:
                raise _refusal(held.row.url, await self._fail(held, outcome, problem))
        return await self.describe()

    async def _ask(self, held: Held) -> "Outcome":
        from exchange.node.directory_client import MOST_FILE_BYTES, Known, refresh

        services, row = self._services, held.row
        place = Place(row.url, row.ca_file, row.networks)

        async def fetch(url: str) -> tuple[int, bytes]:
            answer = await self._client.fetch_file(place, url.removeprefix(row.url.rstrip("/")), MOST_FILE_BYTES)
            return answer.status, answer.body

        known = Known(row.url.rstrip("/"), held.files, {entry.area: entry.data for entry in held.entries})
        timeout_s = _TIMES * services.configuration.tables.delivery.peer_timeout_s
        return await refresh(known, fetch, moment(self._now_ms(row)), timeout_s)

    def _now_ms(self, row: DirectoryRow) -> int:
        """Not before the last refresh: a clock that was set back must not revive what has expired since."""
        return max(self._services.now_ms(), row.refreshed_at_ms)

    async def _take(self, held: Held, outcome: "Outcome", listing: "Listing", *, is_new: bool = False) -> None:
        from exchange.node.directory_client import as_text

        services = self._services
        found = await asyncio.to_thread(read_entries, listing.cards)
        found += [Entry(name, b"", None, "that is no name for a card") for name in listing.ignored[:20]]
        found = await self._made_current(found, held.row)
        identity = fingerprint(services.configuration.origin, services.keyring.verifiers)
        now_ms = self._now_ms(held.row)
        own = own_entry(services, identity, found)
        row = replace(
            held.row,
            checked_at_ms=services.now_ms(),
            refreshed_at_ms=now_ms,
            expires_at_ms=milliseconds(listing.first_expiry()),
            expiries=as_text(listing.expiries),
            problem=None,
            detail=None,
            problem_since_ms=None,
            alarmed=0,
            own=own,
        )

        async def operation(tx: Transaction) -> list[Change] | None:
            if is_new:
                if await joined(tx) is not None:
                    raise AlreadyThere("this node has joined a directory already")
                await add_directory(tx, row)
            elif not await keep_directory(tx, row):
                # Another replica was quicker: what it kept is not to be undone.
                return None
            await keep_metadata(tx, outcome.files)
            changes = await Applying(tx, services, row).apply(held.entries, found)
            await keep_entries(tx, [entry.row() for entry in found])
            if own != "listed" and (is_new or own != held.row.own):
                detail = (
                    f"the directory {row.url} does not list this node"
                    if own == "missing"
                    else f"the directory {row.url} lists another identity in the place of this node"
                )
                await add_alarm(tx, "directory-own-entry", services.configuration.origin, detail, now_ms)
                changes.append(Change(services.configuration.origin, own, "directory-own-entry"))
            return changes

        changes = await services.store.write(operation, long=True)
        if changes is None:
            return
        if held.row.problem:
            services.log.info("directory answers again", address=row.url)
        self._report(changes)

    async def _made_current(self, found: Sequence[Entry], row: DirectoryRow) -> list[Entry]:
        """In place of a card that has expired, the one that its node serves, where that has the identity listed."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(entry: Entry) -> Entry:
            if entry.verified is None or entry.note or not has_expired(entry.verified.card, self._services.now()):
                return entry
            card = entry.verified.card
            place = Place(card.url, row.peer_ca_file, row.peer_networks, card.tls_spki_sha256)
            try:
                if not await self._is_news(entry.verified):
                    return entry
                async with turns:
                    shown = await self._client.fetch_card(place)
            except NodeError:
                return entry
            except Exception as error:  # noqa: BLE001 - one who is listed must not keep the others from being taken
                self._services.log.error("card not fetched", peer=card.origin, error=type(error).__name__)
                return entry
            same = shown.fingerprint == entry.verified.fingerprint and shown.card.area == card.area
            return replace(entry, verified=shown) if same else entry

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(entry)) for entry in found]
        return [task.result() for task in tasks]

    async def _is_news(self, verified: VerifiedCard) -> bool:
        try:
            known = await self._services.store.read(lambda tx: peer(tx, verified.card.origin))
        except NotFound:
            return True
        return known.fingerprint != verified.fingerprint

    async def _fail(self, held: Held, outcome: "Outcome", problem: "Problem") -> "Problem":
        """Keep what was verified all the same, and why nothing else was taken; tell people once."""
        from exchange.node.directory_client import EXPIRED, UNREACHABLE, Problem

        services, row, now_ms = self._services, held.row, self._services.now_ms()
        if problem.code == UNREACHABLE and self._now_ms(row) >= row.expires_at_ms:
            detail = f"nothing newer can be had, and what was had has expired: {problem.detail}"
            problem = Problem(EXPIRED, detail)
        refused = problem.code != UNREACHABLE
        failed = replace(
            row,
            checked_at_ms=now_ms,
            problem=problem.code,
            detail=problem.detail,
            problem_since_ms=row.problem_since_ms or now_ms,
            alarmed=int(refused or bool(row.alarmed)),
        )

        async def operation(tx: Transaction) -> bool:
            if not await keep_directory(tx, failed):
                return False
            await keep_metadata(tx, outcome.files)
            if refused and not row.alarmed:
                detail = f"nothing is taken from {row.url}: {problem.detail}"
                await add_alarm(tx, "directory-refused", row.url, detail, now_ms)
                return True
            return False

        if await services.store.write(operation):
            services.counters.add("alarms_directory-refused")
            services.log.error("alarm", code="directory-refused", address=row.url, reason=problem.detail)
        else:
            services.log.warning("directory not refreshed", address=row.url, code=problem.code, reason=problem.detail)
        return problem

    def _report(self, changes: Iterable[Change]) -> None:
        services = self._services
        for change in changes:
            if change.alarm:
                services.counters.add(f"alarms_{change.alarm}")
                services.log.error("alarm", code=change.alarm, peer=change.origin, state=change.state)
            else:
                services.log.info("peer changed by the directory", peer=change.origin, state=change.state)
            self._changed(change.origin, change.state)
        services.counters.add("directory_refreshes")
        services.changes.notify()

    async def describe(self) -> dict[str, Any]:
        """What the directory says, how fresh that is, and what of it is not taken."""
        services = self._services
        held = await services.store.read(_held)
        row = held.row
        own = services.configuration.origin
        states = {known.origin: known for known in await services.store.read(all_peers)}
        holders = await services.store.read(lambda tx: area_holders(tx, services))
        expiries = json.loads(row.expiries)
        first = min(expiries, key=expiries.__getitem__) if expiries else None
        items = []
        for entry in held.entries:
            known = states.get(entry.origin)
            note = entry.note
            if note is None and known is not None and known.fingerprint != entry.fingerprint:
                note = "another identity than the one in force here"
            elif note is None and entry.origin != own and (known is None or known.state != Trust.VERIFIED):
                note = whose_area(holders, entry.area, entry.origin)
            items.append(
                {
                    "area": entry.area,
                    "name": _name(entry.area),
                    "origin": entry.origin or None,
                    "fingerprint": entry.fingerprint or None,
                    "serial": entry.serial or None,
                    "trust": "self" if entry.origin == own else known and known.state,
                    "note": note,
                }
            )
        state = "fresh" if row.problem is None else "unreachable" if row.problem == "unreachable" else "refused"
        return {
            "url": row.url,
            "policy": services.configuration.tables.trust.directory,
            "state": state,
            "problem": row.problem,
            "detail": row.detail,
            "problem_since": moment(row.problem_since_ms) if row.problem_since_ms else None,
            "checked_at": moment(row.checked_at_ms),
            "refreshed_at": moment(row.refreshed_at_ms),
            "expiries": expiries,
            "next_expiry": {"role": first, "at": expiries[first]} if first else None,
            "own": row.own,
            "joined_at": moment(row.joined_at_ms),
            "joined_by": row.joined_by,
            "networks": json.loads(row.networks),
            "peer_networks": json.loads(row.peer_networks),
            "items": items,
        }


def _name(area: str) -> str:
    try:
        return area_name(area)
    except SchemaError:
        return area


def _refusal(url: str, problem: "Problem | None") -> NodeError:
    if problem is None or problem.code == "unreachable":
        return NotNow(f"{url} cannot be used now: {problem.detail if problem else 'unknown'}")
    return DirectoryRefused(f"nothing was taken from {url}: {problem.detail}", problem.code)
