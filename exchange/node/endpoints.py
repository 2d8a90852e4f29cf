"""The endpoints of agencies: paused, disabled and enabled by the table; secrets that rotate; alarms when one fails.

* What is due for an endpoint that is not active is held, with a reason that says why; making it active releases it.
* An agency proves that it has switched to a new secret by naming it; a webhook does not say the name.
* The node's key for webhooks is made once, and stands in the store, wrapped: all replicas sign with the same.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from exchange.crypto.names import context
from exchange.crypto.rest import open_at_rest, seal_at_rest
from exchange.crypto.secret import Secret
from exchange.crypto.webhook_key import WebhookKey
from exchange.handover.endpoint import Event, State, transition
from exchange.handover.routing import may_pass_on
from exchange.handover.secret_rotation import Sign, Stage, step
from exchange.node.agency_standing import held_reason
from exchange.node.errors import RequestInvalid
from exchange.node.rounds import go_round
from exchange.node.services import Services, moment
from exchange.node.ways import WEBHOOK
from exchange.node.webhook import new_secret, secret_id
from exchange.store.agencies import AgencyRow, agency, all_agencies, set_secret
from exchange.store.attempts import drop_attempts_before, has_attempts_before
from exchange.store.endpoints import (
    EndpointRow,
    add_webhook_key,
    all_endpoints,
    endpoint_of,
    keep_endpoint,
    wrapped_webhook_key,
)
from exchange.store.errors import AlreadyThere
from exchange.store.messages import add_alarm, has_alarm
from exchange.store.outbox import bring_forward, failing_lanes, hold_lane, release_reasons_like, urgent_waits
from exchange.store.transaction import Transaction

_DAY_MS: Final = 86_400_000
_MINUTE_MS: Final = 60_000
_LOOK_EVERY_S: Final = 30.0
_KEPT_MS: Final = 90 * _DAY_MS
_RELEASED_FOR_MS: Final = 13 * _DAY_MS
#: How long an endpoint may fail before the admins are told; less where something urgent waits.
FAILING_MS: Final = 15 * _MINUTE_MS
FAILING_URGENT_MS: Final = 2 * _MINUTE_MS


def secret_of(services: Services, agency_id: str, wrapped: bytes) -> str:
    """A webhook secret, unwrapped.

    Raises:
        RestError: it is not this agency's, or altered.
    """
    return open_at_rest(services.keyring.store_key, context("agency-secret", agency_id.encode()), wrapped).decode()


def wrap_secret(services: Services, agency_id: str, secret: str) -> bytes:
    """A webhook secret as it is kept."""
    return seal_at_rest(services.keyring.store_key, context("agency-secret", agency_id.encode()), secret.encode())


class Endpoints:
    """Changes endpoints, and looks after them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._key: WebhookKey | None = None
        self._woken = asyncio.Event()
        #: Told of a lane in which something may be due now.
        self.wake: Callable[[str], None] = lambda lane: None
        #: Told of a lane whose destination lives.
        self.heard_from: Callable[[str], None] = lambda lane: None

    async def run(self, stop: asyncio.Event) -> None:
        """Look after endpoints until `stop`."""
        await go_round(self._services, self.look, self._woken, _LOOK_EVERY_S, stop)

    async def key(self) -> WebhookKey:
        """The node's key for webhooks; made where there is none."""
        if self._key is None:
            services = self._services
            where = context("webhook-key", services.configuration.origin.encode())

            async def find_or_make(tx: Transaction) -> bytes:
                wrapped = await wrapped_webhook_key(tx)
                if wrapped is None:
                    seed = WebhookKey.generate().seed.reveal()
                    wrapped = seal_at_rest(services.keyring.store_key, where, seed)
                    await add_webhook_key(tx, wrapped, services.now_ms())
                return wrapped

            found = await services.store.read(wrapped_webhook_key)
            wrapped = found if found is not None else await services.store.write(find_or_make)
            self._key = WebhookKey(Secret(open_at_rest(services.keyring.store_key, where, wrapped)))
        return self._key

    def secrets(self, row: AgencyRow, endpoint: EndpointRow) -> list[str]:
        """The secrets that sign, the newest first; there is none where nothing is posted."""
        if endpoint.way != WEBHOOK:
            return []
        found = [secret_of(self._services, row.id, row.wrapped_secret)]
        if endpoint.old_wrapped_secret is not None:
            found.append(secret_of(self._services, row.id, endpoint.old_wrapped_secret))
        return found

    # The state of an endpoint

    async def change(self, agency_id: str, event: Event, reason: str | None = None) -> tuple[EndpointRow, int]:
        """Take an endpoint through the table; return it, and how much was held or released.

        Raises:
            NotFound: no such agency is registered.
            RequestInvalid: the table has no such line.
        """

        async def operation(tx: Transaction) -> tuple[AgencyRow, EndpointRow, int]:
            row, endpoint = await agency(tx, agency_id), await endpoint_of(tx, agency_id)
            changed, count = await self.apply(tx, row, endpoint, event, reason)
            return row, changed, count

        row, endpoint, count = await self._services.store.write(operation, long=True)
        self._services.log.info("agency changed", agency=row.name, agency_id=row.id, state=endpoint.state)
        self._services.changes.notify()
        if endpoint.state == State.ACTIVE:
            self.heard_from(f"agency:{row.name}")
        self.wake(f"agency:{row.name}")
        return endpoint, count

    async def apply(
        self, tx: Transaction, row: AgencyRow, endpoint: EndpointRow, event: Event, reason: str | None
    ) -> tuple[EndpointRow, int]:
        """The same within a transaction.

        Raises:
            RequestInvalid: the table has no such line.
        """
        now_ms, lane = self._services.now_ms(), f"agency:{row.name}"
        line = transition(State(endpoint.state), event)
        if line is None:
            raise RequestInvalid(
                f"agency {row.name} is {endpoint.state}, and cannot {event} then",
                hint="`exchange agency enable` makes a disabled agency active; `resume` ends a pause.",
            )
        if line.next == endpoint.state and line.next != State.ACTIVE:
            return endpoint, await hold_lane(tx, lane, held_reason(row.name, endpoint.state, endpoint.reason))
        changed = replace(
            endpoint,
            state=line.next.value,
            reason=None if line.next == State.ACTIVE else reason,
            since_ms=now_ms if line.next != endpoint.state else endpoint.since_ms,
        )
        await keep_endpoint(tx, changed)
        passes_on = changed.state == State.DISABLED and may_pass_on(
            self._services.configuration.tables.routing, row.name
        )
        if line.alarm:
            what = "goes to others where the rules name them" if passes_on else "is held"
            detail = f"agency {row.name} was disabled: {reason}. What is for it {what}."
            await add_alarm(tx, "agency-disabled", self._services.configuration.origin, detail, now_ms)
            self._services.log.error("alarm", code="agency-disabled", agency=row.name, reason=reason)
        if line.next == State.ACTIVE:
            count = await bring_forward(tx, lane)
            for state in (State.PAUSED, State.DISABLED):
                pattern = f"agency {row.name} is {state}%"
                count += await release_reasons_like(tx, lane, pattern, now_ms + _RELEASED_FOR_MS)
            return changed, count
        if passes_on:
            return changed, await bring_forward(tx, lane)  # who works on the lane has it routed again
        return changed, await hold_lane(tx, lane, held_reason(row.name, changed.state, changed.reason))

    # Secrets

    async def rotate(self, agency_id: str, overlap_ms: int) -> str:
        """Make a new secret; the old one signs too, until the overlap has passed and the new one is proven.

        With no overlap the old one is destroyed at once.

        Raises:
            NotFound: no such agency is registered.
            RequestInvalid: it gets no webhooks.
            AlreadyThere: a rotation is under way.
        """
        services, secret = self._services, new_secret()

        async def operation(tx: Transaction) -> None:
            row, endpoint = await agency(tx, agency_id), await endpoint_of(tx, agency_id)
            if endpoint.way != WEBHOOK:
                raise RequestInvalid(f"agency {row.name} gets no webhooks, and has no secret")
            await set_secret(tx, agency_id, wrap_secret(services, agency_id, secret))
            if overlap_ms <= 0:
                await keep_endpoint(tx, _without_old(endpoint))
                return
            line = step(Stage(endpoint.stage), Sign.ROTATED)
            if line is None:
                raise AlreadyThere(
                    f"the secret of agency {row.name} is being rotated already",
                    hint="Wait until the agency has switched, or end the old secret now: --at-once.",
                )
            until_ms = services.now_ms() + overlap_ms
            await keep_endpoint(
                tx,
                replace(
                    endpoint,
                    stage=line.next.value,
                    old_wrapped_secret=row.wrapped_secret,
                    overlap_until_ms=until_ms,
                    proven_at_ms=None,
                ),
            )

        await services.store.write(operation)
        services.log.info("secret rotated", agency_id=agency_id)
        return secret

    async def named(self, agency_id: str, name: str) -> EndpointRow:
        """An agency named the secret by which it verified, or its admin did.

        Raises:
            NotFound: no such agency is registered.
            RequestInvalid: it has no such secret.
        """

        async def operation(tx: Transaction) -> EndpointRow:
            row, endpoint = await agency(tx, agency_id), await endpoint_of(tx, agency_id)
            names = [secret_id(secret) for secret in self.secrets(row, endpoint)]
            if name not in names:
                raise RequestInvalid("the agency has no secret of that name; `exchange agency show` names those it has")
            sign = Sign.NEW_NAMED if name == names[0] else Sign.OLD_NAMED
            return await self._take_sign(tx, row, endpoint, sign)

        return await self._services.store.write(operation)

    async def _take_sign(self, tx: Transaction, row: AgencyRow, endpoint: EndpointRow, sign: Sign) -> EndpointRow:
        line = step(Stage(endpoint.stage), sign)
        if line is None:
            return endpoint
        now_ms = self._services.now_ms()
        if line.retire:
            changed = replace(_without_old(endpoint), proven_at_ms=endpoint.proven_at_ms or now_ms)
        else:
            proven_ms = now_ms if line.next == Stage.PROVEN else None
            changed = replace(endpoint, stage=line.next.value, proven_at_ms=proven_ms)
        await keep_endpoint(tx, changed)
        if line.alarm:
            detail = (
                f"agency {row.name} has not shown that it verifies with its new secret. Both secrets go on signing, "
                "so that it is not locked out."
            )
            await add_alarm(tx, "secret-unproven", self._services.configuration.origin, detail, now_ms)
            self._services.log.error("alarm", code="secret-unproven", agency=row.name)
        self._services.log.info("secret rotation", agency=row.name, agency_id=row.id, state=changed.stage)
        return changed

    # From time to time

    async def look(self) -> None:
        """Tell the admins of endpoints that fail, end overlaps that have passed, forget old attempts."""
        services = self._services
        now_ms = services.now_ms()

        async def view(tx: Transaction) -> tuple[list[str], list[str], bool]:
            failing = []
            for lane in await failing_lanes(tx):
                if not lane.lane.startswith("agency:") or not lane.since_ms:
                    continue
                patience_ms = FAILING_URGENT_MS if await urgent_waits(tx, lane.lane) else FAILING_MS
                if now_ms - lane.since_ms >= patience_ms:
                    failing.append(lane.lane)
            passed = [
                endpoint.agency
                for endpoint in (await all_endpoints(tx)).values()
                if endpoint.overlap_until_ms is not None
                and endpoint.overlap_until_ms <= now_ms
                and step(Stage(endpoint.stage), Sign.TIME_UP) is not None
            ]
            return failing, passed, await has_attempts_before(tx, now_ms - _KEPT_MS)

        failing, passed, old = await services.store.read(view)
        if failing:
            await services.store.write(lambda tx: self._tell_of(tx, failing))
        for agency_id in passed:
            await services.store.write(lambda tx, agency_id=agency_id: self._end_overlap(tx, agency_id))  # type: ignore[misc]
        if old:
            await services.store.write(lambda tx: drop_attempts_before(tx, now_ms - _KEPT_MS), long=True)

    async def _tell_of(self, tx: Transaction, lanes: list[str]) -> None:
        now_ms, origin = self._services.now_ms(), self._services.configuration.origin
        here = {f"agency:{row.name}" for row in await all_agencies(tx)}
        for lane in await failing_lanes(tx):
            if lane.lane not in lanes or lane.lane not in here:
                continue
            since = f"{moment(lane.since_ms):%Y-%m-%d %H:%M:%S}"
            detail = f"agency {lane.lane.removeprefix('agency:')} has accepted nothing since {since} UTC."
            if not await has_alarm(tx, "agency-failing", origin, detail):
                await add_alarm(tx, "agency-failing", origin, detail, now_ms)
                self._services.log.error("alarm", code="agency-failing", lane=lane.lane, reason=lane.last_error)

    async def _end_overlap(self, tx: Transaction, agency_id: str) -> None:
        row, endpoint = await agency(tx, agency_id), await endpoint_of(tx, agency_id)
        if endpoint.overlap_until_ms is not None and endpoint.overlap_until_ms <= self._services.now_ms():
            await self._take_sign(tx, row, endpoint, Sign.TIME_UP)


def _without_old(endpoint: EndpointRow) -> EndpointRow:
    return replace(
        endpoint, stage=Stage.SINGLE.value, old_wrapped_secret=None, overlap_until_ms=None, proven_at_ms=None
    )
