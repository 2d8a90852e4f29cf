"""A peer that is stopped while something of it is under way: what it sent is not stored any more."""

import base64
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from exchange.schema.wire import Consistency, ProvenStatement
from tests.node.handmade import Borough, Desk, is_manifest
from tests.node.pair import Node, form, until

STOPS = {"suspended": ("POST", "/v1/peers/suspend/"), "removed": ("DELETE", "/v1/peers/")}

Make = Callable[[Node, Borough], Awaitable[tuple[ProvenStatement, tuple[bytes, ...]]]]


async def a_message(enfield: Node, camden: Borough) -> tuple[ProvenStatement, tuple[bytes, ...]]:
    made = camden.message(await enfield.card())
    return camden.sign_manifest(made), made.ciphertexts


async def a_card(enfield: Node, camden: Borough) -> tuple[ProvenStatement, tuple[bytes, ...]]:
    return camden.card(), ()


#: What stopping a peer writes itself.
CHANGED_BY_A_STOP = frozenset({"peers", "peer_heads", "stops"})


async def posted_while(node: Node, camden: Borough, stop: tuple[str, str], make: Make) -> int:
    """Post an item whose consistency the node has to ask for, and stop the peer before it is told; the status."""

    async def prove(request: web.Request) -> web.StreamResponse:
        status, _ = await node.local(stop[0], stop[1] + camden.origin)
        assert status == 200
        first, second = int(request.query["first"]), int(request.query["second"])
        path = [base64.b64encode(part).decode() for part in camden.consistency(first, second).path]
        return web.json_response({"first": first, "second": second, "path": path})

    async def nothing(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with camden.listening(nothing, consistency=prove):
        await node.know(camden)
        camden.log("padding", b"\x80")
        item, ciphertexts = await make(node, camden)
        unproven = Consistency(first=0, path=())
        envelope = camden.envelope(await node.card(), [item], ciphertexts, consistency=unproven)
        kept = node.kept()
        status, _ = await node.post(envelope)
        still = {name: count for name, count in node.kept().items() if name not in CHANGED_BY_A_STOP}
        assert still == {name: count for name, count in kept.items() if name not in CHANGED_BY_A_STOP}
        return status


@pytest.mark.parametrize("make", [a_message, a_card])
@pytest.mark.parametrize("stop", STOPS)
async def test_what_a_peer_sent_before_it_was_stopped_is_not_stored_after_it(
    enfield: Node, camden: Borough, stop: str, make: Make
) -> None:
    assert await posted_while(enfield, camden, STOPS[stop], make) == 403


async def test_a_receipt_that_comes_back_when_its_peer_is_stopped_is_not_taken(enfield: Node, camden: Borough) -> None:
    desk = Desk(camden)

    async def answer(request: web.Request) -> web.StreamResponse:
        if any(is_manifest(item) for item in camden.open(await request.read()).items):
            status, _ = await enfield.local("POST", f"/v1/peers/suspend/{camden.origin}")
            assert status == 200
        return await desk.answer(request)

    async with camden.listening(answer):
        await enfield.know(camden)
        status, sent = await enfield.local(
            "POST", f"/v1/messages/to/{camden.area}", data=form(camden.area, from_area="E09000010")
        )
        assert status == 201, sent

        async def held() -> bool:
            return (await enfield.status(sent["id"]))["held"] == "the peer is suspended"

        await until("the message is held", held)
        assert desk.received == [sent["id"]]
        assert enfield.rows("SELECT count(*) FROM receipts") == [(0,)]
        await enfield.know(camden)
        await enfield.local("POST", f"/v1/peers/verify/{camden.origin}", {"fingerprint": camden.fingerprint})
        assert (await enfield.status(sent["id"]))["held"] is None
