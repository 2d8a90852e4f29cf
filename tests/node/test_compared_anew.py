"""Identities that pass on, are compared anew or come to an end while a peer is not in good standing.

Each of these was found by `test_identities`, or by reading for what it looks for.
"""

import base64
import dataclasses
import json
from typing import Any

import msgspec
import pytest
from aiohttp import web

from exchange.node.app import prepare
from exchange.node.cards import verify_card
from exchange.node.peering import Confirmation, confirm, move, show_card
from exchange.node.services import Services
from exchange.node.trust import Standing
from exchange.schema.card_file import CardFile
from exchange.schema.wire import Consistency, ProvenStatement
from exchange.store.peers import PeerRow, peer, peer_head
from tests.node.handmade import Borough, Desk
from tests.node.pair import ENFIELD, Clock, Node, form
from tests.node.test_card_refresh import refresh_of
from tests.node.test_revocation import bring, revocation

ELSEWHERE = "E09000005"


async def shown(node: Node, card: ProvenStatement, *rotations: ProvenStatement, **more: Any) -> tuple[int, Any]:
    """Import a card file."""
    file = json.loads(msgspec.json.encode(CardFile(card.statement, card.proof, rotations)))
    return await node.local("POST", "/v1/peers", {"card": file} | more)


async def compared(node: Node, borough: Borough) -> tuple[int, Any]:
    """Verify a borough by its fingerprint."""
    return await node.local("POST", f"/v1/peers/verify/{borough.origin}", {"fingerprint": borough.fingerprint})


async def standing(node: Node, borough: Borough) -> tuple[str, str]:
    found = (await node.local("GET", f"/v1/peers/{borough.origin}"))[1]
    return found["trust"], found["fingerprint"]


async def says(node: Node, borough: Borough) -> int:
    """Send a message; the HTTP status."""
    card = await node.card()
    made = borough.message(card)
    status, _ = await node.post(borough.envelope(card, [borough.sign_manifest(made)], made.ciphertexts))
    return status


def another(camden: Borough) -> Borough:
    """Somebody else who claims to be the same borough."""
    return Borough(camden.origin, camden.area, camden._now_ms)


# Areas.


@pytest.mark.parametrize("fetched", [True, False], ids=["fetched", "from a file"])
async def test_a_peer_does_not_take_another_area_by_changing_its_keys(
    enfield: Node, desk: Desk, clock: Clock, fetched: bool
) -> None:
    camden = desk.borough
    await enfield.know(camden)
    before = await standing(enfield, camden)
    heir, rotation = camden.rotated()
    heir.url = camden.url
    card = heir.card(area=ELSEWHERE)
    if fetched:
        camden.served = msgspec.json.encode(CardFile(card.statement, card.proof, (rotation,)))
        await refresh_of(enfield).refresh(camden.origin)
    else:
        status, document = await shown(enfield, card, rotation)
        assert (status, document["code"]) == (400, "request-invalid")
        assert ELSEWHERE in document["message"]
    assert await standing(enfield, camden) == before
    status, document = await enfield.local("POST", f"/v1/messages/to/{ELSEWHERE}", data=form(ELSEWHERE, ENFIELD))
    assert (status, document["code"]) == (404, "peer-unknown")


# A way out of a block.


async def test_the_identity_in_force_is_heard_again_once_somebody_has_compared_it(enfield: Node, desk: Desk) -> None:
    camden = desk.borough
    await enfield.know(camden)
    assert await says(enfield, camden) == 200
    assert (await shown(enfield, another(camden).card()))[1]["trust"] == "blocked"
    assert await says(enfield, camden) == 403

    # It cannot be removed and registered again where a message waits for it; and showing it again proves nothing.
    assert (await shown(enfield, camden.card()))[1]["trust"] == "blocked"
    status, document = await compared(enfield, camden)

    assert (status, document["trust"], document["candidate"]) == (200, "verified", None)
    assert await says(enfield, camden) == 200
    # The log that was followed before the block is followed still.
    del camden.statements[1:]
    assert await says(enfield, camden) == 403
    assert (await standing(enfield, camden))[0] == "quarantined"


# Two people.


@pytest.mark.parametrize("event", ["forked", "new identity"])
async def test_what_two_people_have_compared_anew_begins_anew(services: Services, camden: Borough, event: str) -> None:
    """As for one person: else the first message after it would be taken for a fork."""
    tables = services.configuration.tables
    trust = msgspec.structs.replace(tables.trust, two_people=True)
    configuration = dataclasses.replace(services.configuration, tables=msgspec.structs.replace(tables, trust=trust))
    services = dataclasses.replace(services, configuration=configuration)
    card, other = camden.card(), another(camden)
    await prepare(services)
    await _registered(services, card)
    await _confirmed(services, camden)
    assert await services.store.read(lambda tx: peer_head(tx, camden.origin)) is not None
    if event == "forked":
        await services.store.write(lambda tx: move(tx, camden.origin, Standing.fork))
        await _confirmed(services, camden)
    else:
        await _registered(services, other.card())
        await _confirmed(services, other)

    row = await services.store.read(lambda tx: peer(tx, camden.origin))
    assert row.state == "verified"
    assert row.fingerprint == (camden if event == "forked" else other).fingerprint
    assert await services.store.read(lambda tx: peer_head(tx, camden.origin)) is None
    assert row.serial == (0 if event == "forked" else other.serial), "a node that was set back signs lower serials"


async def _registered(services: Services, card: ProvenStatement) -> None:

    verified = verify_card(card.statement, card.proof)
    await services.store.write(lambda tx: show_card(tx, services, verified))


async def _confirmed(services: Services, borough: Borough) -> None:
    """By both of two people."""
    for who in ("Asha", "Bela"):
        confirmation = Confirmation(borough.fingerprint, "fingerprint", who)
        await services.store.write(lambda tx, told=confirmation: confirm(tx, services, borough.origin, told))


# Revocations.


async def test_the_revocation_of_keys_that_were_left_behind_does_not_touch_an_identity_that_was_compared_since(
    enfield: Node, camden: Borough
) -> None:
    await enfield.know(camden)
    heir, rotation = camden.rotated()
    assert (await shown(enfield, heir.card(), rotation))[1]["trust"] == "verified"
    # The machine is lost, and everything on it.
    new = another(camden)
    assert (await shown(enfield, new.card()))[1]["trust"] == "blocked"
    assert (await compared(enfield, new))[1]["trust"] == "verified"

    status, _ = await bring(enfield, revocation(camden.signing, camden.origin))

    assert status == 200
    assert await standing(enfield, camden) == ("verified", new.fingerprint)
    assert await enfield.alarms(camden.origin) != []
    # Whoever has the old keys, or those that they passed on to, cannot so much as block the peer.
    for old in (camden, heir):
        status, document = await shown(enfield, old.card())
        assert (status, document["code"]) == (400, "request-invalid")
    assert await standing(enfield, camden) == ("verified", new.fingerprint)


async def test_with_an_identity_all_those_are_revoked_that_it_was_passed_on_to(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    second, first_rotation = camden.rotated()
    third, second_rotation = second.rotated()
    assert (await shown(enfield, third.card(), first_rotation, second_rotation))[1]["trust"] == "verified"

    assert (await bring(enfield, revocation(camden.signing, camden.origin)))[0] == 200

    assert (await standing(enfield, camden))[0] == "revoked"
    for borough in (camden, second, third):
        assert (await shown(enfield, borough.card()))[0] == 400, "it comes back"


async def test_a_peer_that_was_registered_after_a_rotation_is_revoked_by_its_earlier_keys(
    enfield: Node, camden: Borough
) -> None:
    heir, rotation = camden.rotated()
    status, document = await shown(enfield, heir.card(), rotation, fingerprint=heir.fingerprint)
    assert (status, document["trust"]) == (201, "verified")

    assert (await bring(enfield, revocation(another(camden).signing, camden.origin)))[0] == 403
    assert (await bring(enfield, revocation(camden.signing, camden.origin)))[0] == 200

    assert (await standing(enfield, camden))[0] == "revoked"


# Records.


async def test_an_identity_that_nobody_has_verified_passes_no_verification_on(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden, verified=False)
    heir, rotation = camden.rotated()

    status, document = await shown(enfield, heir.card(), rotation)

    assert (status, document["trust"], document["fingerprint"]) == (201, "unverified", heir.fingerprint)
    assert (await enfield.local("GET", f"/v1/peers/{camden.origin}"))[1]["verifications"] == []


# While something is under way.


@pytest.mark.parametrize("what", ["a message", "a card"])
async def test_what_an_identity_sent_is_not_taken_once_another_was_verified_in_its_place(
    enfield: Node, camden: Borough, what: str
) -> None:
    """Whoever holds revoked keys must not gain by answering slowly."""
    new = another(camden)

    async def prove(request: web.Request) -> web.StreamResponse:
        assert (await bring(enfield, revocation(camden.signing, camden.origin)))[0] == 200
        status, document = await shown(enfield, new.card(), fingerprint=new.fingerprint)
        assert (status, document["trust"]) == (201, "verified")
        first, second = int(request.query["first"]), int(request.query["second"])
        path = [base64.b64encode(part).decode() for part in camden.consistency(first, second).path]
        return web.json_response({"first": first, "second": second, "path": path})

    async def nothing(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with camden.listening(nothing, consistency=prove):
        await enfield.know(camden)
        camden.log("padding", b"\x80")
        made = camden.message(await enfield.card())
        item = camden.sign_manifest(made) if what == "a message" else camden.card(serial=2**40)
        ciphertexts = made.ciphertexts if what == "a message" else ()
        unproven = Consistency(first=0, path=())
        status, body = await enfield.post(
            camden.envelope(await enfield.card(), [item], ciphertexts, consistency=unproven)
        )
    assert status == 403, body
    assert await standing(enfield, camden) == ("verified", new.fingerprint)
    assert enfield.rows("SELECT count(*) FROM messages") == [(0,)]
    row: PeerRow = await enfield.services.store.read(lambda tx: peer(tx, camden.origin))
    assert (row.card, row.serial) == (new.prove(0).statement, 1)


async def test_what_was_sent_just_before_a_rotation_is_taken(enfield: Node, camden: Borough) -> None:
    heir, rotation = camden.rotated()

    async def prove(request: web.Request) -> web.StreamResponse:
        assert (await shown(enfield, heir.card(), rotation))[1]["fingerprint"] == heir.fingerprint
        first, second = int(request.query["first"]), int(request.query["second"])
        path = [base64.b64encode(part).decode() for part in camden.consistency(first, second).path]
        return web.json_response({"first": first, "second": second, "path": path})

    async def nothing(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with camden.listening(nothing, consistency=prove):
        heir.url = camden.url
        await enfield.know(camden)
        heir.serial = camden.serial
        made = camden.message(await enfield.card())
        item = camden.sign_manifest(made)
        unproven = Consistency(first=0, path=())
        envelope = camden.envelope(await enfield.card(), [item], made.ciphertexts, consistency=unproven)
        assert (await enfield.post(envelope))[0] == 200
    assert await standing(enfield, camden) == ("verified", heir.fingerprint)
