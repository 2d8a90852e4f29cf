"""Sections for agencies that fetch: offered, given out as often as they are asked for, and delivered when acknowledged.

* Only the agency's word for a section makes it `delivered`. A program that stopped between fetching and saying so gets
  it again: at once where it asks without a cursor, and after `AGAIN_AFTER_MS` whatever its cursor is.
* What is acknowledged is given out no more: that it was is committed before the answer.
* Urgent first, each in the order in which it was offered. A cursor names how far the reader has come in both, so that
  nothing urgent that comes later is behind it. Numbers are never given twice (`store/offers.py`).
* Who waits is woken by what changes in the store, by whichever replica.
* Whatever speaks against delivering to an agency that gets webhooks speaks against giving out, too: its lane decides.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from exchange import crash_points
from exchange.crypto.errors import CryptoError, RestError
from exchange.crypto.names import LeafHash
from exchange.handover.endpoint import State
from exchange.handover.rungs import has_reached
from exchange.node.agency_delivery import COUNTED, AgencyDeliveries, still_to_have
from exchange.node.agency_parcels import AgencyParcel, collect, section_event
from exchange.node.agency_tokens import Asking
from exchange.node.delivery import Outcome
from exchange.node.errors import RequestInvalid, TokenNeeded
from exchange.node.receipts import climb
from exchange.node.rerouting import manifest_of
from exchange.node.services import Services
from exchange.node.ways import PULL
from exchange.schema.wire import Rung
from exchange.store.agencies import AgencyRow, agency_named
from exchange.store.attempts import AttemptRow, add_attempts
from exchange.store.endpoints import endpoint_of
from exchange.store.errors import NotFound
from exchange.store.messages import add_event, message_by_number, placements_of
from exchange.store.offers import (
    FeedRow,
    OfferRow,
    add_feed,
    feed_of,
    hold_offered,
    note_asked,
    note_fetched,
    offer,
    offers_after,
    offers_of_event,
    overdue_offers,
    renumber,
    settle,
    unanswered_offers,
    withdraw,
)
from exchange.store.outbox import (
    REPLAY,
    URGENT_RANK,
    WEBHOOK,
    Delivery,
    delivery_by_number,
    done_if_claimed,
    remove_delivery,
)
from exchange.store.transaction import Transaction

#: What was fetched and not acknowledged comes again after this time, whatever cursor it is asked with.
AGAIN_AFTER_MS: Final = 10 * 60_000
#: Of an answer.
MOST_ITEMS: Final = 50
_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_AGAIN: Final = 500
_ASKED_EVERY_MS: Final = 5 * 60_000
_CURSOR: Final = re.compile(r"([0-9a-f]{16})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come in a feed: in what is urgent, and in the rest."""

    word: str
    urgent: int
    usual: int

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """A cursor as it was given out.

        Raises:
            RequestInvalid: it was not.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise RequestInvalid("after is a cursor that this node has given")
        return cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.word}.{self.urgent}.{self.usual}"

    def of(self, feed: FeedRow) -> "Cursor":
        """The same in this feed: where it is of another, or ahead of it, the store was restored; begin anew."""
        if self.word != feed.word or max(self.urgent, self.usual) > feed.head:
            return Cursor(feed.word, 0, 0)
        return self

    def past(self, row: OfferRow) -> "Cursor":
        """Past an offer."""
        if row.rank == URGENT_RANK:
            return Cursor(self.word, row.number, self.usual)
        return Cursor(self.word, self.urgent, row.number)


@dataclass(slots=True)
class Page:
    """What is given out at once."""

    state: str
    after: Cursor
    events: list[bytes] = field(default_factory=list)
    #: What of it was offered and not given out before.
    fresh: list[OfferRow] = field(default_factory=list)
    #: What the agency has by another way, so that it need not be offered.
    settled: list[OfferRow] = field(default_factory=list)
    #: Deliveries that cannot be given out: their lane decides anew.
    withdrawn: set[int] = field(default_factory=set)
    unreadable: list[OfferRow] = field(default_factory=list)

    @property
    def has_gone(self) -> bool:
        """Whether something was found that is offered no more."""
        return bool(self.settled or self.withdrawn or self.unreadable)


class Pulling:
    """Offers sections to agencies that fetch, gives them out, and takes what they say."""

    def __init__(self, services: Services, deliveries: AgencyDeliveries, wake: Callable[[str], None]) -> None:
        self._services = services
        self._deliveries = deliveries
        self._wake = wake
        self._stopping = False

    def stop(self) -> None:
        """Let everybody go who waits."""
        self._stopping = True
        self._services.changes.notify()

    # Offering: what the lane of an agency does in place of a webhook

    async def offer(self, agency: AgencyRow, own_key: bool, rows: Sequence[Delivery]) -> Outcome:
        """Offer rows of an agency's lane."""
        outcome, ready = Outcome(), list[tuple[Delivery, AgencyParcel]]()
        for delivery in rows:
            try:
                parcel = await collect(self._services, delivery, agency.name)
            except (NotFound, RestError) as error:
                outcome.held.append((delivery, str(error)))
                continue
            if parcel.sealed is not None and not own_key:
                outcome.held.append((delivery, f"it is sealed to a key that agency {agency.name} had before"))
                continue
            if parcel.denied and not parcel.sections:
                outcome.held.append((delivery, f"agency {agency.name} may not read {', '.join(parcel.denied)}"))
                continue
            ready.append((delivery, parcel))
        now_ms = self._services.now_ms()

        async def operation(tx: Transaction) -> list[Delivery]:
            present = await agency_named(tx, agency.name)
            if present is None or present.id != agency.id:
                return [delivery for delivery, _ in ready]
            for delivery, parcel in ready:
                made = [(entry.name, parcel.event_id(entry.name, agency.name)) for entry, _ in parcel.sections]
                if made:
                    await offer(tx, delivery, agency.id, made, now_ms)
                else:
                    await done_if_claimed(tx, delivery)
            return []

        outcome.again += await self._services.store.write(operation)
        self._services.changes.notify()
        return outcome

    # Giving out

    async def fetch(self, asking: Asking, cursor: Cursor | None, most: int, wait_s: float) -> Page:
        """What an agency is to have past a cursor; where there is nothing, wait for it.

        Raises:
            RequestInvalid: the agency does not fetch.
            TokenNeeded: its token was revoked, or expired, meanwhile.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            change = self._services.changes.next()
            page = await self.page(asking, cursor, most)
            left_s = until_s - loop.time()
            if page.events:
                crash_points.reached("pull.before-answer")
                return page
            if left_s <= 0 or self._stopping:
                return page
            if page.has_gone:
                continue  # behind what is there no more may be something
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await change.wait()

    async def page(self, asking: Asking, cursor: Cursor | None, most: int) -> Page:
        """What there is for an agency past a cursor; that it was given out is noted.

        Raises:
            RequestInvalid: the agency does not fetch.
            TokenNeeded: its token is good no more.
        """
        feed, state, rows = await self._services.store.read(lambda tx: self._look(tx, asking, cursor, most))
        if feed is None:
            await self._services.store.write(lambda tx: _ensure_feed(tx, asking.agency.id))
            return await self.page(asking, cursor, most)
        page = Page(state, Cursor(feed.word, 0, 0) if cursor is None else cursor.of(feed))
        await self._fill(page, asking.agency.name, rows)
        await self._note(page, asking, feed)
        return page

    async def _look(
        self, tx: Transaction, asking: Asking, cursor: Cursor | None, most: int
    ) -> tuple[FeedRow | None, str, list[OfferRow]]:
        agency_id = asking.agency.id
        if not await asking.is_in_force(tx, self._services.now_ms()):
            raise TokenNeeded("a valid token is needed")
        endpoint, feed = await endpoint_of(tx, agency_id), await feed_of(tx, agency_id)
        if endpoint.way != PULL:
            raise RequestInvalid("this agency gets its sections by another way")
        if feed is None or endpoint.state != State.ACTIVE:
            return feed, endpoint.state, []
        at = Cursor(feed.word, 0, 0) if cursor is None else cursor.of(feed)
        return feed, endpoint.state, await offers_after(tx, agency_id, at.urgent, at.usual, most)

    async def _fill(self, page: Page, name: str, rows: Iterable[OfferRow]) -> None:
        parcels: dict[int, AgencyParcel | None] = {}
        size_bytes = 0
        for row in rows:
            if row.delivery not in parcels:
                parcels[row.delivery] = await self._parcel(row.delivery, name)
            parcel = parcels[row.delivery]
            if parcel is None:
                page.withdrawn.add(row.delivery)
                continue
            found = next((pair for pair in parcel.sections if pair[0].name == row.section), None)
            if found is None:
                page.settled.append(row)
                continue
            size_bytes += len(found[1].ciphertext)
            if size_bytes > _MOST_BYTES and page.events:
                return
            try:
                page.events.append(section_event(self._services, parcel, name, *found))
            except CryptoError:
                page.unreadable.append(row)
                continue
            page.after = page.after.past(row)
            if row.fetched_at_ms is None:
                page.fresh.append(row)

    async def _parcel(self, number: int, name: str) -> AgencyParcel | None:
        delivery = await self._services.store.read(lambda tx: delivery_by_number(tx, number))
        try:
            return None if delivery is None else await collect(self._services, delivery, name)
        except (NotFound, RestError):
            return None

    async def _note(self, page: Page, asking: Asking, feed: FeedRow) -> None:
        services, now_ms = self._services, self._services.now_ms()
        asked = feed.asked_at_ms is None or not 0 <= now_ms - feed.asked_at_ms < _ASKED_EVERY_MS
        if not (asked or page.fresh or page.has_gone):
            return

        async def operation(tx: Transaction) -> None:
            if asked:
                await note_asked(tx, asking.agency.id, now_ms)
            await note_fetched(tx, page.fresh, now_ms)
            for row in page.settled:
                delivery = await delivery_by_number(tx, row.delivery)
                if await settle(tx, row) and delivery is not None:
                    await self._finish(tx, delivery, asking.agency.name)
            await withdraw(tx, page.withdrawn)
            for number in {row.delivery for row in page.unreadable}:
                names = sorted(row.section for row in page.unreadable if row.delivery == number)
                await self._hold(tx, number, f"cannot be opened here: {', '.join(names)}", now_ms)

        await services.store.write(operation)
        services.counters.add("sections_fetched", len(page.fresh))
        if page.has_gone:
            self._wake(f"agency:{asking.agency.name}")

    async def _hold(self, tx: Transaction, number: int, reason: str, now_ms: int) -> bool:
        delivery = await delivery_by_number(tx, number)
        if delivery is None or not await hold_offered(tx, number, reason):
            return False
        if delivery.message is not None:
            await add_event(tx, delivery.message, "held", now_ms, agency=delivery.agency, detail=reason)
        return True

    # What agencies say

    async def delivered(self, asking: Asking, event_id: str) -> None:
        """An agency has a section: it is delivered, signed for, and given out no more.

        Raises:
            NotFound: nothing waits for it under that id: it was said before, or is not the agency's.
        """
        services, agency = self._services, asking.agency

        async def operation(tx: Transaction) -> tuple[set[str], list[str]]:
            rows = await offers_of_event(tx, agency.id, event_id)
            if not rows:
                raise _unknown()
            lanes, kinds = set[str](), list[str]()
            for row in rows:
                delivery = await delivery_by_number(tx, row.delivery)
                if delivery is not None and delivery.message is not None:
                    lanes |= await self._record(tx, delivery, row, agency.name)
                    kinds.append(delivery.kind)
            return lanes, kinds

        lanes, kinds = await services.store.write(operation)
        crash_points.reached("pull.recorded")
        for kind in kinds:
            services.counters.add(COUNTED[kind])
        services.changes.notify()
        for lane in lanes:
            self._wake(lane)

    async def _record(self, tx: Transaction, delivery: Delivery, row: OfferRow, name: str) -> set[str]:
        """Record that an agency has a section; the lanes in which there is something to do now."""
        now_ms, lanes = self._services.now_ms(), set[str]()
        message = await message_by_number(tx, delivery.message or 0)
        if delivery.kind == WEBHOOK:
            pairs = await still_to_have(tx, message.number, name, {row.section})
            if pairs:
                leaf, manifest = LeafHash(message.leaf_hash), manifest_of(message)
                await climb(self._services, tx, message.peer, manifest, leaf, message.number, Rung.DELIVERED, pairs)
                lanes.add(f"peer:{message.peer}")
        spent_ms = max(0, now_ms - (row.fetched_at_ms or row.offered_at_ms))
        replay = int(delivery.kind == REPLAY)
        what = (message.number, delivery.number, name, row.section, now_ms, spent_ms, replay, 1)
        await add_attempts(tx, [AttemptRow(*what, None, None, None, None, None, None)], prune=False)
        if await settle(tx, row):
            lanes |= await self._finish(tx, delivery, name)
        return lanes

    async def _finish(self, tx: Transaction, delivery: Delivery, name: str) -> set[str]:
        """End a delivery of which nothing is offered any more; what could not be offered of it, its lane holds."""
        left = [row for row in await placements_of(tx, delivery.message or 0) if row.given_to == name]
        if delivery.kind == WEBHOOK and any(not has_reached(row.rung, "delivered") for row in left):
            await withdraw(tx, [delivery.number])
            return {delivery.lane}
        await remove_delivery(tx, delivery.number)
        return set()

    async def refused(self, asking: Asking, event_id: str) -> None:
        """An agency cannot open what it got: it is held, and the admins hear of it, as after a webhook's 422.

        Raises:
            NotFound: nothing waits for it under that id.
        """
        name, now_ms = asking.agency.name, self._services.now_ms()
        reason = f"agency {name} cannot open it"

        async def operation(tx: Transaction) -> bool:
            rows = await offers_of_event(tx, asking.agency.id, event_id)
            if not rows:
                raise _unknown()
            return any([await self._hold(tx, row.delivery, reason, now_ms) for row in rows])

        if await self._services.store.write(operation):
            await self._deliveries.tell_refused(name, f"{reason}.")
        self._services.changes.notify()

    # From time to time

    async def look(self) -> None:
        """Leave to their lanes what is overdue, and offer anew what was fetched and not acknowledged."""
        now_ms = self._services.now_ms()

        async def view(tx: Transaction) -> tuple[dict[int, str], list[OfferRow]]:
            return await overdue_offers(tx, now_ms), await unanswered_offers(tx, now_ms - AGAIN_AFTER_MS, _MOST_AGAIN)

        overdue, unanswered = await self._services.store.read(view)
        if not overdue and not unanswered:
            return

        async def operation(tx: Transaction) -> None:
            await withdraw(tx, overdue)
            # What was acknowledged since the view is there no more.
            await renumber(tx, await unanswered_offers(tx, now_ms - AGAIN_AFTER_MS, _MOST_AGAIN))

        await self._services.store.write(operation, long=True)
        self._services.counters.add("sections_offered_again", len(unanswered))
        self._services.changes.notify()
        for lane in set(overdue.values()):
            self._wake(lane)


def _unknown() -> NotFound:
    return NotFound(
        "nothing waits for this agency under that id",
        hint="It was acknowledged before, or is not for this agency. There is nothing more to do about it.",
    )


async def _ensure_feed(tx: Transaction, agency_id: str) -> None:
    if await feed_of(tx, agency_id) is None:
        await add_feed(tx, agency_id)
