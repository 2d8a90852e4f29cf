"""Sections to agencies by webhook: one row of the outbox is one message for one agency.

* A section that the agency has accepted is not sent again; one whose 2xx was not recorded is, under the same id.
* A section that cannot be opened is held by itself; the others go on.
* What was not accepted is tried again by the table of `retries`, each delivery by itself; the lane's breaker keeps
  those behind it from failing too, and lets them go when one gets through.
* What no later attempt can change is held, not tried again: a section too large for the agency (413) or that it cannot
  open (422), and all that waits where the agency wants no more (410, as Standard Webhooks has it).
* A replay delivers again, under the same ids, what was accepted before; it tells nobody that it did.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from exchange import crash_points
from exchange.crypto.errors import CryptoError, RestError
from exchange.crypto.names import LeafHash, new_message_id
from exchange.crypto.webhook_key import WebhookKey
from exchange.handover import rates
from exchange.handover.endpoint import Event, State
from exchange.handover.retries import honoured_s, next_try_s
from exchange.handover.routing import may_pass_on
from exchange.handover.rungs import has_reached
from exchange.node.agency_client import AgencyClient, Answer, Handshake
from exchange.node.agency_parcels import AgencyParcel, collect, section_event
from exchange.node.agency_standing import NotHere, find_agency, held_reason
from exchange.node.delivery import Outcome
from exchange.node.dropping import Folders
from exchange.node.endpoints import Endpoints
from exchange.node.errors import RequestInvalid
from exchange.node.lanes import LaneState
from exchange.node.receipts import climb
from exchange.node.rerouting import turn_away
from exchange.node.services import Services
from exchange.node.ways import DROP, PULL
from exchange.node.webhook import event_body, secret_id, test_data
from exchange.schema.agency_keys import ChallengeFile
from exchange.schema.events import CHALLENGE, TEST
from exchange.schema.wire import Rung
from exchange.store.agencies import AgencyRow
from exchange.store.agency_keys import keys_in_force
from exchange.store.attempts import AttemptRow, add_attempts
from exchange.store.endpoints import EndpointRow, endpoint_of
from exchange.store.errors import NotFound
from exchange.store.messages import add_alarm_once_a_day, placements_of
from exchange.store.outbox import (
    OVERDUE,
    QUESTION,
    REPLAY,
    URGENT_RANK,
    WEBHOOK,
    Delivery,
    done_if_claimed,
    is_still_claimed,
    lane_state,
)
from exchange.store.transaction import Transaction

_AT_ONCE: Final = 4
#: What is for one agency alone: it waits for that one where others are given what it does not take.
_STAYS: Final = frozenset({REPLAY, OVERDUE})
#: From so many failures of a delivery on, the record of its attempts is kept short.
_MANY: Final = 20
COUNTED: Final = {
    WEBHOOK: "sections_delivered",
    REPLAY: "sections_replayed",
    QUESTION: "questions_delivered",
    OVERDUE: "overdue_told",
}


@dataclass(frozen=True, slots=True)
class _Target:
    """An agency, how it is reached, and by which secrets events are signed, the newest first."""

    agency: AgencyRow
    endpoint: EndpointRow
    secrets: list[str]


class AgencyDeliveries:
    """Delivers sections to agencies."""

    def __init__(self, services: Services, endpoints: Endpoints) -> None:
        self._services = services
        self._endpoints = endpoints
        self._client = AgencyClient(services)
        self._folders = Folders(services)
        self._chance = random.SystemRandom()
        #: Offers rows to an agency that fetches, which may have a key of its own.
        self.offer: Callable[[AgencyRow, bool, Sequence[Delivery]], Awaitable[Outcome]] = _offer_nothing
        #: What agencies that named a rate have taken.
        self._levels: dict[str, rates.Level] = {}

    async def close(self) -> None:
        """Close the connections to agencies."""
        self._folders.close()
        await self._client.close()

    async def perform(self, name: str, rows: Sequence[Delivery]) -> Outcome:
        """Deliver rows of an agency's lane, one after the other, until one fails."""
        services = self._services
        found = await services.store.read(lambda tx: find_agency(tx, name), brief=True)
        if isinstance(found, NotHere):
            return await self._turned_away(name, rows, found)
        agency, endpoint, keys = found
        own_key = name in keys_in_force(keys)  # by kind, which is the name of the one that has it
        if endpoint.way == PULL:
            return await self.offer(agency, own_key, rows)
        target = _Target(agency, endpoint, self._endpoints.secrets(agency, endpoint))
        outcome = Outcome()
        for number, delivery in enumerate(rows):
            try:
                parcel = await collect(services, delivery, name)
            except (NotFound, RestError) as error:
                outcome.held.append((delivery, str(error)))
                continue
            if parcel.sealed is not None and not own_key:
                outcome.held.append((delivery, f"it is sealed to a key that agency {name} had before"))
                continue
            wait_s = self._wait_for_rate_s(target, len(parcel.sections))
            if wait_s > 0:
                outcome.error = f"agency {name} takes {endpoint.rate_per_minute} requests a minute"
                outcome.asked_s, outcome.limited = wait_s, True
                outcome.again += rows[number:]
                break
            disabled = await self._deliver(target, delivery, parcel, outcome)
            if disabled is not None:
                self._leave(target, rows[number + 1 :], disabled, outcome)
                break
            if outcome.error is not None:
                outcome.again += rows[number + 1 :]
                break
        return outcome

    async def _turned_away(self, name: str, rows: Sequence[Delivery], found: NotHere) -> Outcome:
        """An agency takes nothing: what another may have is routed again, and the rest held."""

        async def is_over(tx: Transaction) -> bool:
            return not isinstance(await find_agency(tx, name), NotHere)

        passing = [row for row in rows if row.kind not in _STAYS and self._passes_on(name, found.state)]
        held = [(row, found.reason) for row in rows if row not in passing]
        return Outcome(
            held=held, is_over=is_over, wake=await turn_away(self._services, name, passing) if passing else set()
        )

    def _passes_on(self, name: str, state: str | None) -> bool:
        """Whether what waits for an agency that is disabled, or not registered any more, is to be routed again."""
        return state is None or (
            state == State.DISABLED and may_pass_on(self._services.configuration.tables.routing, name)
        )

    def _leave(self, target: _Target, rows: Sequence[Delivery], disabled: str, outcome: Outcome) -> None:
        """An agency was disabled just now: what may go to another is taken up again, and the rest held."""
        for row in rows:
            if row.kind not in _STAYS and self._passes_on(target.agency.name, State.DISABLED):
                outcome.again.append(row)
            else:
                outcome.held.append((row, disabled))

    def _wait_for_rate_s(self, target: _Target, requests: int) -> float:
        """How long to wait, so that no more is sent than the agency said in the handshake; what is 0 is taken."""
        if target.endpoint.rate_per_minute is None or not requests:
            return 0.0
        rate, now_ms = rates.Rate(target.endpoint.rate_per_minute, rates.MINUTE_MS), self._services.now_ms()
        level = self._levels.get(target.agency.id, rates.FULL)
        wait_ms = rates.wait_ms(rate, level, requests, now_ms)
        if wait_ms <= 0:
            self._levels[target.agency.id] = rates.take(rate, level, requests, now_ms)
        return wait_ms / 1000

    async def _deliver(self, target: _Target, delivery: Delivery, parcel: AgencyParcel, outcome: Outcome) -> str | None:
        """Deliver the sections of one row, a few at a time; what was accepted is recorded even where one fails.

        Returns why everything for the agency is held from now on, if it is.
        """
        agency, key = target.agency.name, await self._endpoints.key()
        answered: list[tuple[str, Answer]] = []
        unreadable: list[str] = []
        lasting: str | None = None
        gone = failed = False
        for start in range(0, len(parcel.sections), _AT_ONCE):
            events: list[tuple[str, bytes]] = []
            for entry, row in parcel.sections[start : start + _AT_ONCE]:
                try:
                    events.append((entry.name, section_event(self._services, parcel, agency, entry, row)))
                except CryptoError:
                    unreadable.append(entry.name)
            replay = delivery.kind == REPLAY
            answers = await asyncio.gather(
                *(self._post(target, key, parcel.event_id(name, agency), body, replay=replay) for name, body in events)
            )
            answered += [(name, answer) for (name, _), answer in zip(events, answers, strict=True)]
            for answer in answers:
                if answer.status == 410:
                    gone = True
                elif answer.status == 413:
                    lasting = lasting or f"agency {agency} finds it too large"
                elif answer.status == 422:
                    lasting = lasting or f"agency {agency} cannot open it"
                elif not answer.accepted:
                    failed, outcome.error = True, answer.error
                    outcome.asked_s = max(
                        outcome.asked_s, honoured_s(answer.asked_s, urgent=delivery.rank == URGENT_RANK)
                    )
            if gone or failed:
                break
        disabled: str | None = None
        if gone:
            disabled = await self._disable(target, Event.GONE, "it answered 410")
        elif failed:
            next_ms = self._next_try_ms(target, delivery, outcome.asked_s)
            if next_ms is not None:
                outcome.put_off.append((delivery, next_ms))
            else:
                lasting = f"agency {agency} did not accept it in {delivery.failures + 1} attempts"
                disabled = await self._give_up(target, lasting)
        elif lasting is not None:
            await self.tell_refused(agency, f"{lasting}.")
        elif unreadable:
            lasting = f"cannot be opened here: {', '.join(unreadable)}"
        elif parcel.denied:
            lasting = f"agency {agency} may not read {', '.join(parcel.denied)}"
        if disabled is not None:
            outcome.error, lasting = None, disabled
            self._leave(target, [delivery], disabled, outcome)
        elif lasting is not None:
            outcome.held.append((delivery, lasting))
        finished = not failed and lasting is None
        await self._record(target, delivery, parcel, answered, finished=finished)
        if any(answer.accepted for _, answer in answered) and delivery.kind == WEBHOOK:
            outcome.wake.add(f"peer:{parcel.message.peer}")
        return disabled

    def _next_try_ms(self, target: _Target, delivery: Delivery, asked_s: float) -> int | None:
        services, table = self._services, target.endpoint.retry_s
        own = services.configuration.tables.delivery.agency_retry_s
        now_ms = services.now_ms()
        wait_s = next_try_s(
            own if table is None else msgspec.json.decode(table, type=tuple[float, ...]),
            delivery.failures + 1,
            (now_ms - delivery.created_at_ms) / 1000,
            self._chance.random(),
            asked_s=asked_s,
            urgent=delivery.rank == URGENT_RANK,
        )
        return None if wait_s is None else now_ms + round(wait_s * 1000)

    async def _give_up(self, target: _Target, reason: str) -> str | None:
        """One delivery has used up the table: where nothing else was accepted meanwhile, the endpoint is disabled."""
        services, name = self._services, target.agency.name
        lane = await services.store.read(lambda tx: lane_state(tx, f"agency:{name}"))
        if LaneState(lane.failures).is_open:
            return await self._disable(target, Event.EXHAUSTED, "it accepted nothing for as long as the table says")
        await self.tell_refused(name, f"{reason}, and accepted others.")
        return None

    async def tell_refused(self, name: str, reason: str) -> None:
        """Tell the admins that something for an agency is held, once a day for one reason."""
        services, detail = self._services, f"{reason} It is held; `exchange held list` names it."
        origin, now_ms = services.configuration.origin, services.now_ms()
        if await services.store.write(lambda tx: add_alarm_once_a_day(tx, "agency-refuses", origin, detail, now_ms)):
            services.log.error("alarm", code="agency-refuses", agency=name)

    async def _disable(self, target: _Target, event: Event, reason: str) -> str:
        endpoint, _ = await self._endpoints.change(target.agency.id, event, reason)
        return held_reason(target.agency.name, endpoint.state, endpoint.reason)

    async def _record(
        self,
        target: _Target,
        delivery: Delivery,
        parcel: AgencyParcel,
        answered: Sequence[tuple[str, Answer]],
        *,
        finished: bool,
    ) -> None:
        services, message, agency = self._services, parcel.message, target.agency.name
        moves = delivery.kind == WEBHOOK
        accepted = {name for name, answer in answered if answer.accepted}
        attempts = [_attempt(delivery, message.number, agency, name, answer) for name, answer in answered]
        leaf = LeafHash(message.leaf_hash)

        async def operation(tx: Transaction) -> None:
            mine = await (done_if_claimed if finished else is_still_claimed)(tx, delivery)
            if not mine:
                services.counters.add("claims_lost")
            await add_attempts(tx, attempts, prune=delivery.failures >= _MANY)
            if not moves:
                return
            fresh = await still_to_have(tx, message.number, agency, accepted)
            if fresh:
                await climb(services, tx, message.peer, parcel.manifest, leaf, message.number, Rung.DELIVERED, fresh)

        await services.store.write(operation)
        crash_points.reached("webhook.recorded")
        services.counters.add(COUNTED[delivery.kind], len(accepted))
        services.changes.notify()
        await self._hear_names(target, [answer for _, answer in answered])

    async def _hear_names(self, target: _Target, answers: Sequence[Answer]) -> bool:
        """Take what accepting answers say of the secret by which they verified; whether it was one that signs."""
        known = {secret_id(secret) for secret in target.secrets}
        names = {answer.named_secret for answer in answers if answer.accepted and answer.named_secret} & known
        if target.endpoint.old_wrapped_secret is None or not names:
            return bool(names)
        # Where both are named, one machine of the agency's has not switched.
        newest = secret_id(target.secrets[0])
        await self._endpoints.named(target.agency.id, next(iter(names - {newest}), newest))
        return True

    async def challenge(self, agency: AgencyRow, event_id: str, challenge: ChallengeFile) -> tuple[Answer, bytes]:
        """Have an agency prove its key at its endpoint; return also what it said."""
        services = self._services
        target = await self._target(agency)
        data = {"challenge": challenge}
        body = event_body(event_id, CHALLENGE, services.configuration.origin, agency.id, services.now(), data)
        answer, said = await self._client.ask(
            agency, target.endpoint, target.secrets, await self._endpoints.key(), event_id, body
        )
        await self._hear_names(target, [answer])
        return answer, said

    async def test(self, agency: AgencyRow, event_id: str) -> Answer:
        """Send a synthetic section, which looks like a section and says that it is none.

        Raises:
            RequestInvalid: nothing can be sent to an agency that fetches.
        """
        services = self._services
        target = await self._target(agency)
        if target.endpoint.way == PULL:
            raise RequestInvalid(
                f"agency {agency.name} fetches what is for it: nothing can be sent to it",
                hint="`exchange agency show` says when it last asked.",
            )
        area = services.configuration.tables.node.area
        data = test_data(agency.name, area, new_message_id(services.now_ms()))
        body = event_body(event_id, TEST, services.configuration.origin, agency.id, services.now(), data)
        answer = await self._post(target, await self._endpoints.key(), event_id, body)
        await self._hear_names(target, [answer])
        return answer

    async def _target(self, agency: AgencyRow) -> _Target:
        endpoint = await self._services.store.read(lambda tx: endpoint_of(tx, agency.id))
        return _Target(agency, endpoint, self._endpoints.secrets(agency, endpoint))

    async def handshake(self, agency: AgencyRow, endpoint: EndpointRow) -> Handshake:
        """Ask an endpoint whether it wants webhooks of this node."""
        return await self._client.handshake(agency, endpoint)

    async def _post(
        self, target: _Target, key: WebhookKey, event_id: str, body: bytes, *, replay: bool = False
    ) -> Answer:
        """Bring an agency one event: POST it, or put it into its folder."""
        if target.endpoint.way == DROP:
            return await self._folders.drop(target.agency, target.endpoint, event_id, body)
        crash_points.reached("webhook.before-call")
        answer = await self._client.post(
            target.agency, target.endpoint, target.secrets, key, event_id, body, replay=replay
        )
        if answer.accepted:
            crash_points.reached("webhook.accepted")
        return answer


async def _offer_nothing(_: AgencyRow, __: bool, rows: Sequence[Delivery]) -> Outcome:
    return Outcome(again=list(rows), error="nothing offers it")


async def still_to_have(tx: Transaction, number: int, agency: str, accepted: set[str]) -> list[tuple[str, str]]:
    """For which kinds an agency has now got the sections that it accepted.

    Each counts once: another replica may have had the row meanwhile, and a section may be another agency's by now.
    """
    return [
        (row.section, row.agency)
        for row in await placements_of(tx, number)
        if row.section in accepted and row.given_to == agency and not has_reached(row.rung, "delivered")
    ]


def _attempt(delivery: Delivery, message: int, agency: str, section: str, answer: Answer) -> AttemptRow:
    return AttemptRow(
        message,
        delivery.number,
        agency,
        section,
        answer.at_ms,
        answer.duration_ms,
        int(delivery.kind == REPLAY),
        int(answer.accepted),
        answer.status,
        answer.error,
        answer.content_type,
        answer.size_bytes,
        answer.digest,
        answer.code,
    )
