"""The node's own card: when a new one is signed, and that every peer gets the newest."""

import asyncio
import json
from typing import Any

from aiohttp import web

from exchange.crypto.statement import parse_statement
from exchange.schema.wire import CARD, Card, EnvelopePayload
from tests.node.handmade import Borough, Desk, read_card
from tests.node.pair import Clock, Node, until


class Doorkeeper(Desk):
    """A desk that keeps cards, and lets the answer to the first one wait."""

    def __init__(self, borough: Borough) -> None:
        super().__init__(borough)
        self.cards: list[Card] = []
        self.came = asyncio.Event()
        self.answer_now = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        opened: EnvelopePayload = self.borough.open(await request.read())
        self.cards += [read_card(item) for item in opened.items if parse_statement(item.statement).type == CARD]
        self.came.set()
        await self.answer_now.wait()
        return self.borough.reply(opened, self.results(opened))


async def add_agency(node: Node, kind: str) -> str:
    status, document = await node.local(
        "POST", "/v1/agencies", {"kind": kind, "url": "https://agency.example/hook", "networks": []}
    )
    assert status == 201, document
    return str(document["id"])


async def test_a_card_that_is_renewed_while_an_older_one_is_on_its_way_is_sent_too(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    clock.run()
    desk = Doorkeeper(camden)
    async with camden.listening(desk.answer):
        await enfield.know(camden)
        await desk.came.wait()
        await add_agency(enfield, "housing")
        await add_agency(enfield, "police")
        desk.answer_now.set()

        async def newest() -> bool:
            return desk.cards[-1].serial == 3

        await until("the newest card came", newest)
    assert [agency.kind for agency in desk.cards[-1].agencies] == ["housing", "police"]


async def test_cards_that_nobody_has_fetched_yet_are_sent_as_the_newest_one(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)

    async def tried() -> Any:
        return (await enfield.local("GET", f"/v1/peers/{camden.origin}"))[1]["last_error"]

    await until("a try has failed", tried)
    for kind in ("housing", "police", "dwp"):
        await add_agency(enfield, kind)
    rows = enfield.rows("SELECT position FROM outbox WHERE kind = 'card' ORDER BY number")
    assert rows[-1:] == enfield.rows("SELECT max(position) FROM statements WHERE type = 'card'")
    assert len(rows) <= 2, "one that waits, and at most one that is on its way"


async def test_a_card_names_the_agencies_of_the_moment(enfield: Node) -> None:
    first = await enfield.card()
    assert (first.serial, first.agencies) == (1, ())
    agency = await add_agency(enfield, "housing")
    second = await enfield.card()
    assert (second.serial, [entry.kind for entry in second.agencies]) == (2, ["housing"])
    assert (await enfield.local("DELETE", f"/v1/agencies/{agency}"))[0] == 200
    third = await enfield.card()
    assert (third.serial, third.agencies) == (3, ())


async def test_the_card_beside_the_configuration_is_the_one_that_is_served(enfield: Node) -> None:
    await add_agency(enfield, "housing")
    _, document = await enfield.local("GET", "/v1/card")
    assert json.loads((enfield.directory / "card.json").read_bytes()) == document["card"]
