"""The local API for routing: the rules in force, what others would do, and routing again what waits."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from aiohttp import web
from msgspec import Meta

from exchange.handover.routing import Choice, Rules
from exchange.handover.routing_review import doubts, mistakes
from exchange.handover.routing_trial import Arrived, Change, Trial
from exchange.node.agency_standing import held_because, is_available
from exchange.node.delivery import Dispatcher
from exchange.node.errors import RequestInvalid
from exchange.node.peering import RELEASED_FOR_MS
from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.rerouting import recall, route_again
from exchange.node.services import Services, milliseconds
from exchange.schema.agency_names import AgencyName, kind_of
from exchange.schema.errors import Finding
from exchange.store.agencies import Standing, standing_agencies
from exchange.store.errors import NotFound
from exchange.store.messages import arrived_since
from exchange.store.transaction import Transaction

_WEEK: Final = timedelta(days=7)
#: How many messages are tried, the latest.
MOST_TRIED: Final = 5000
#: How many single changes are told; the counts are of all.
MOST_CHANGES: Final = 200


class TryRules(Request, frozen=True):
    """Try rules, or those in force, on what arrived since a time; of the last week where none is given."""

    rules: Rules | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None


class RouteAgain(Request, frozen=True):
    """Route again what waits for an agency, and what is held for its kind; a kind alone may stand here too."""

    agency: AgencyName


class RoutingApi:
    """The handlers."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/v1/routing", self._show),
            web.post("/v1/routing/trial", self._try),
            web.post("/v1/routing/again", self._again),
        ]

    async def _show(self, _: web.Request) -> web.Response:
        services = self._services
        rules, agencies = services.configuration.tables.routing, await services.store.read(standing_agencies)
        return json_response(
            {
                "single_point_of_contact": rules.single_point_of_contact or None,
                "rules": rules.rule,
                "fallback": rules.fallback,
                "agencies": [
                    {
                        "name": agency.name,
                        "kind": kind_of(agency.name),
                        "available": is_available(agency),
                        "waits": held_because(agency),
                    }
                    for agency in agencies
                ],
                "findings": list(doubts(rules, services.catalogue, [agency.name for agency in agencies])),
            }
        )

    async def _try(self, request: web.Request) -> web.Response:
        services = self._services
        wanted = await body_of(request, TryRules) if await request.read() else TryRules()
        in_force = services.configuration.tables.routing
        rules = in_force if wanted.rules is None else wanted.rules
        refuse_mistakes(mistakes(rules, services.catalogue))
        since = wanted.since or services.now() - _WEEK

        async def view(tx: Transaction) -> tuple[list[Standing], list[int]]:
            return await standing_agencies(tx), await arrived_since(tx, milliseconds(since), MOST_TRIED + 1)

        agencies, numbers = await services.store.read(view)
        here = {agency.name: is_available(agency) for agency in agencies}
        trial = Trial()
        for number in numbers[:MOST_TRIED]:
            manifest, facts = await recall(services, number)
            sections = tuple(
                (entry.name, tuple(kind for kind in entry.readers if kind in services.catalogue.allowed(entry.name)))
                for entry in manifest.sections
            )
            trial.add(Arrived(manifest.message_id, facts, sections), rules, in_force, here)
        services.counters.add("routing_trials")
        return json_response(
            {
                "since": since,
                "messages": trial.messages,
                "sections": trial.sections,
                "left_off": len(numbers) > MOST_TRIED,
                "unread": trial.unread,
                **_counts(trial),
                "changes": _changed(trial),
                "items": [_describe(change) for change in trial.changes[:MOST_CHANGES]],
                "findings": list(doubts(rules, services.catalogue, here)),
            }
        )

    async def _again(self, request: web.Request) -> web.Response:
        services, name = self._services, (await body_of(request, RouteAgain)).agency
        deadline_ms = services.now_ms() + RELEASED_FOR_MS

        async def operation(tx: Transaction) -> tuple[int, set[str]]:
            known = {agency.name for agency in await standing_agencies(tx)} | services.catalogue.kinds()
            if name not in known:
                raise NotFound(f"no agency {name} is registered", hint="`exchange agency list` lists those that are.")
            return await route_again(tx, name, deadline_ms)

        count, lanes = await services.store.write(operation, long=True)
        services.log.info("routed again", agency=name)
        for lane in lanes:
            self._dispatcher.wake(lane)
        return json_response({"agency": name, "deliveries": count})


def refuse_mistakes(found: Iterator[Finding]) -> None:
    """Refuse rules that cannot mean anything.

    Raises:
        RequestInvalid: they are such.
    """
    first = next(found, None)
    if first is not None:
        raise RequestInvalid(f"routing.{first.path}: {first.message}", hint="Nothing was changed. Correct the rules.")


def _counts(trial: Trial) -> dict[str, Any]:
    both = sorted(trial.then.keys() | trial.now.keys(), key=lambda choice: (choice.agency or "", choice.held or ""))
    return {
        "agencies": [
            {"agency": choice.agency, "sections": trial.then[choice], "now": trial.now[choice]}
            for choice in both
            if choice.agency is not None
        ],
        "held": [
            {"reason": choice.held, "sections": trial.then[choice], "now": trial.now[choice]}
            for choice in both
            if choice.agency is None
        ],
    }


def _changed(trial: Trial) -> list[dict[str, Any]]:
    counted = Counter((_where(change.now), _where(change.then)) for change in trial.changes)
    return [{"now": now, "then": then, "sections": count} for (now, then), count in counted.most_common()]


def _where(choice: Choice) -> str:
    return choice.agency if choice.agency is not None else f"held: {choice.held}"


def _describe(change: Change) -> dict[str, Any]:
    return {
        "id": change.message_id,
        "section": change.section,
        "kind": change.kind,
        "now": _where(change.now),
        "then": _where(change.then),
        "rule": change.then.rule,
    }
