"""Invitations between nodes: used once, for a time, by one identity; what is lost can be sent again."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from exchange.crypto.envelope import open_reply, seal_envelope
from exchange.crypto.secret import Secret
from exchange.node.comparing import Comparing
from exchange.node.continuity import Continuity
from exchange.node.delivery import Dispatcher
from exchange.node.inbound import Inbound
from exchange.node.invitations import Invitations
from exchange.node.pairings import Pairings
from exchange.node.peer_api import PeerApi
from exchange.node.peer_client import PeerClient
from exchange.node.peers_api import PeersApi
from exchange.node.registration_api import RegistrationApi
from exchange.node.revocation import prepare_revocation, publish_revocation
from exchange.schema.registration import (
    REGISTRATION_TYPE,
    Invitation,
    Registration,
    RegistrationReply,
    parse_invitation,
    registration_reply_decoder,
)
from exchange.schema.wire import VERSION, Card, ProvenStatement, decode_wire, encode_wire
from tests.node.handmade import Borough, seal_to
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, running, until

HOUR_MS = 3_600_000
TWO_PEOPLE = "[trust]\ntwo_people = true\n"


async def invite(node: Node, **more: Any) -> tuple[str, Invitation]:
    """Make an invitation: the link, and what is in it."""
    status, made = await node.local("POST", "/v1/invitations", more)
    assert status == 201, made
    return made["link"], parse_invitation(made["link"])


async def accept(node: Node, link: str, **more: Any) -> tuple[int, Any]:
    return await node.local("POST", "/v1/invitations/accept", {"invitation": link, **more})


async def register(
    node: Node, given: Invitation, card: ProvenStatement, secret: bytes | None = None
) -> RegistrationReply | None:
    """Answer an invitation as a node does, by hand; the reply, or None where it is refused."""
    reply_secret = Secret.random()
    status, body = await post(node, sealed_registration(await node.card(), given, card, reply_secret, secret))
    if status == 200:
        return decode_wire(registration_reply_decoder, open_reply(reply_secret, body))
    assert (status, json.loads(body)["code"]) == (403, "unacceptable")
    assert json.loads(body)["message"] == "unacceptable"
    return None


def sealed_registration(
    to: Card, given: Invitation, card: ProvenStatement, reply_secret: Secret | None = None, secret: bytes | None = None
) -> bytes:
    """What a node sends that answers an invitation."""
    registration = Registration(
        version=VERSION,
        invitation=given.id,
        secret=secret or given.secret,
        card=card,
        reply_secret=(reply_secret or Secret.random()).reveal(),
    )
    return seal_to(to, encode_wire(registration))


async def post(
    node: Node, data: Any, content_type: str = REGISTRATION_TYPE, path: str = "/v1/registrations", **headers: str
) -> tuple[int, bytes]:
    found = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with node.http.post(f"{node.url}{path}", data=data, headers=found) as answer:
        return answer.status, await answer.read()


async def peers(node: Node) -> dict[str, str]:
    """Each registered peer and its trust."""
    return {row["origin"]: row["trust"] for row in (await node.local("GET", "/v1/peers"))[1]["items"]}


async def outstanding(node: Node) -> list[Any]:
    return list((await node.local("GET", "/v1/invitations"))[1]["items"])


@asynccontextmanager
async def person(node: Node, name: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody who asks the node with a token of their own."""
    _, made = await node.local("POST", "/v1/tokens", {"name": name})
    base = f"http://{node.services.configuration.tables.local.address}"
    async with aiohttp.ClientSession(base, headers={"authorization": f"Bearer {made['token']}"}) as session:
        yield session


async def test_both_ends_are_verified_and_both_have_recorded_it(hackney: Node, enfield: Node) -> None:
    link, given = await invite(hackney)
    status, document = await accept(enfield, link)
    assert (status, document["trust"], document["verified_there"]) == (201, "verified", True)
    for here, there in ((hackney, enfield), (enfield, hackney)):
        shown = (await here.local("GET", f"/v1/peers/{there.origin}"))[1]
        (record,) = shown["verifications"]
        assert (shown["trust"], record["how"], record["fingerprint"]) == (
            "verified",
            "invitation",
            (await there.local("GET", "/v1/card"))[1]["fingerprint"],
        )
        assert record["who"]
    (row,) = await outstanding(hackney)
    assert (row["id"], row["used_by"]) == (given.id, enfield.origin)
    await hackney.reached(await hackney.send(ENFIELD), "received")


async def test_it_ends_by_the_clock_of_who_accepts(hackney: Node, enfield: Node, clock: Clock) -> None:
    link, _ = await invite(hackney, expires_in_hours=1)
    clock.now_ms += HOUR_MS
    status, document = await accept(enfield, link)
    assert (status, document["code"]) == (400, "request-invalid")
    assert "expired" in document["message"]
    assert await peers(hackney) == await peers(enfield) == {}


async def test_it_ends_by_the_clock_of_who_invited(hackney: Node, camden: Borough, clock: Clock) -> None:
    _, given = await invite(hackney, expires_in_hours=1)
    card = camden.card()
    clock.now_ms += HOUR_MS
    assert await register(hackney, given, card) is None
    assert await outstanding(hackney) == []
    clock.now_ms -= 1
    assert await register(hackney, given, card) is not None


async def test_a_node_whose_clock_is_behind_is_refused_by_the_other(
    tmp_path: Path, clock: Clock, lines: io.StringIO
) -> None:
    ahead = Clock(clock.now_ms)
    async with (
        running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", ahead) as hackney,
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield,
    ):
        link, _ = await invite(hackney, expires_in_hours=1)
        ahead.now_ms += HOUR_MS
        status, document = await accept(enfield, link)
        assert (status, document["code"]) == (403, "unacceptable")
        assert await peers(hackney) == await peers(enfield) == {}


async def test_the_same_identity_is_answered_again_until_it_expires_and_nothing_changes(
    hackney: Node, camden: Borough, clock: Clock
) -> None:
    _, given = await invite(hackney)
    card = camden.card()
    assert (await register(hackney, given, card)) is not None
    clock.now_ms += HOUR_MS
    before = hackney.kept()
    assert (await register(hackney, given, camden.card())) is not None, "its card was renewed meanwhile"
    assert hackney.kept() == before
    clock.now_ms += 48 * HOUR_MS
    assert (await register(hackney, given, card)) is None


async def test_another_identity_cannot_use_it_again(hackney: Node, camden: Borough, clock: Clock) -> None:
    _, given = await invite(hackney)
    assert await register(hackney, given, camden.card()) is not None
    other, look_alike = (
        Borough("exchange.barnet.example", "E09000003", clock),
        Borough(camden.origin, camden.area, clock),
    )
    assert await register(hackney, given, other.card()) is None
    assert await register(hackney, given, look_alike.card()) is None
    assert await peers(hackney) == {camden.origin: "verified"}


@pytest.mark.parametrize("decision", ["suspend", "remove"])
async def test_what_the_admin_decided_since_stands(hackney: Node, camden: Borough, decision: str) -> None:
    _, given = await invite(hackney)
    card = camden.card()
    await register(hackney, given, card)
    if decision == "suspend":
        await hackney.local("POST", f"/v1/peers/suspend/{camden.origin}")
    else:
        await until("nothing waits for it", lambda: _removed(hackney, camden.origin))
    before = await peers(hackney)
    assert await register(hackney, given, card) is None
    assert await peers(hackney) == before


async def _removed(node: Node, origin: str) -> bool:
    return (await node.local("DELETE", f"/v1/peers/{origin}"))[0] == 200


async def test_of_two_who_use_it_at_the_same_time_one_is_registered(
    hackney: Node, camden: Borough, clock: Clock
) -> None:
    for _ in range(5):
        _, given = await invite(hackney)
        both = [Borough(f"exchange.{name}.example", "E09000003", clock) for name in ("barnet", "brent")]
        replies = await asyncio.gather(*(register(hackney, given, one.card()) for one in both))
        assert [reply is None for reply in replies] in ([True, False], [False, True])
        (won,) = [one.origin for one, reply in zip(both, replies, strict=True) if reply is not None]
        assert await peers(hackney) == {won: "verified"}
        await until("it is forgotten", lambda origin=won: _forgotten(hackney, origin))  # type: ignore[misc]


async def _forgotten(node: Node, origin: str) -> bool:
    """Suspend a peer, so that nothing is tried, and remove it once nothing waits."""
    await node.local("POST", f"/v1/peers/suspend/{origin}")
    return await _removed(node, origin)


async def test_the_same_one_twice_at_the_same_time_is_registered_once(hackney: Node, camden: Borough) -> None:
    _, given = await invite(hackney)
    card = camden.card()
    replies = await asyncio.gather(*(register(hackney, given, card) for _ in range(8)))
    assert all(reply is not None and reply.verified for reply in replies)
    shown = (await hackney.local("GET", f"/v1/peers/{camden.origin}"))[1]
    assert len(shown["verifications"]) == 1


async def test_a_wrong_secret_or_name_is_refused_counted_and_logged(
    hackney: Node, camden: Borough, lines: io.StringIO
) -> None:
    _, given = await invite(hackney)
    card = camden.card()
    for bit in (0, 100, 255):
        secret = bytearray(given.secret)
        secret[bit // 8] ^= 1 << bit % 8
        assert await register(hackney, given, card, bytes(secret)) is None
    other = Invitation(
        format=given.format,
        origin=given.origin,
        url=given.url,
        fingerprint=given.fingerprint,
        id="0" * 32,
        secret=given.secret,
        expires_at=given.expires_at,
    )
    assert await register(hackney, other, card) is None
    assert hackney.count("registrations_refused") == 4
    assert lines.getvalue().count("registration refused") == 4
    assert given.secret.hex() not in lines.getvalue()
    assert await peers(hackney) == {}
    assert await register(hackney, given, card) is not None


async def test_a_withdrawn_one_is_no_more(hackney: Node, camden: Borough) -> None:
    _, given = await invite(hackney)
    assert (await hackney.local("DELETE", f"/v1/invitations/{given.id}"))[0] == 200
    assert (await hackney.local("DELETE", f"/v1/invitations/{given.id}"))[0] == 404
    assert await register(hackney, given, camden.card()) is None


async def test_it_never_replaces_the_identity_of_a_registered_peer(
    hackney: Node, enfield: Node, camden: Borough, clock: Clock
) -> None:
    look_alike = Borough(camden.origin, camden.area, clock)
    for verified in (False, True):
        await hackney.know(camden, verified=verified)
        _, given = await invite(hackney)
        assert await register(hackney, given, look_alike.card()) is None
        shown = (await hackney.local("GET", f"/v1/peers/{camden.origin}"))[1]
        assert (shown["fingerprint"], shown["candidate"]) == (camden.fingerprint, None)
    # Nor at the end that accepts.
    false = Borough(hackney.origin, HACKNEY, clock)
    await enfield.know(false)
    link, _ = await invite(hackney)
    status, document = await accept(enfield, link)
    assert (status, document["code"]) == (403, "fingerprint-mismatch")
    assert (await outstanding(hackney))[-1]["used_by"] is None, "nothing was sent"


async def test_a_peer_that_is_registered_and_unverified_is_verified_by_it(hackney: Node, enfield: Node) -> None:
    await hackney.know(enfield, verified=False)
    await enfield.know(hackney, verified=False)
    link, _ = await invite(hackney)
    assert (await accept(enfield, link))[1]["trust"] == "verified"
    assert await peers(hackney) == {enfield.origin: "verified"}


async def test_it_lifts_no_suspension_at_either_end(hackney: Node, enfield: Node) -> None:
    await hackney.know(enfield)
    await enfield.know(hackney)
    link, _ = await invite(hackney)
    await hackney.local("POST", f"/v1/peers/suspend/{enfield.origin}")
    assert (await accept(enfield, link))[1]["code"] == "unacceptable"
    assert await peers(hackney) == {enfield.origin: "suspended"}
    await enfield.local("POST", f"/v1/peers/suspend/{hackney.origin}")
    status, document = await accept(enfield, link)
    assert (status, document["code"]) == (403, "peer-untrusted")
    assert await peers(enfield) == {hackney.origin: "suspended"}


async def test_where_two_must_confirm_a_second_person_does_so_at_each_end(
    tmp_path: Path, clock: Clock, lines: io.StringIO
) -> None:
    async with (
        running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock, TWO_PEOPLE) as hackney,
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock, TWO_PEOPLE) as enfield,
    ):
        link, _ = await invite(hackney)
        status, document = await accept(enfield, link)
        assert (status, document["trust"], document["verified_there"]) == (201, "confirming", False)
        assert await peers(hackney) == {enfield.origin: "confirming"}
        status, document = await accept(enfield, link)
        assert (status, document["code"]) == (403, "peer-untrusted"), "the same person again"
        assert await peers(enfield) == {hackney.origin: "confirming"}
        async with person(enfield, "Asha") as asha:
            answer = await asha.post("/v1/invitations/accept", json={"invitation": link})
            document = await answer.json()
            assert (document["trust"], document["verified_there"]) == ("verified", False)
        assert await peers(hackney) == {enfield.origin: "confirming"}, "the other end's people decide for themselves"
        fingerprint = (await enfield.local("GET", "/v1/card"))[1]["fingerprint"]
        async with person(hackney, "Bela") as bela:
            answer = await bela.post(f"/v1/peers/verify/{enfield.origin}", json={"fingerprint": fingerprint})
            assert (await answer.json())["trust"] == "verified"
        status, document = await accept(enfield, link)
        assert (status, document["trust"], document["verified_there"]) == (201, "verified", True)


async def test_what_the_admins_allow_is_kept_for_the_peer(hackney: Node, enfield: Node) -> None:
    link, _ = await invite(hackney, networks=["10.1.0.0/16"])
    await accept(enfield, link, networks=["10.2.0.0/16"])
    for here, there, network in ((hackney, enfield, "10.1.0.0/16"), (enfield, hackney, "10.2.0.0/16")):
        assert (await here.local("GET", f"/v1/peers/{there.origin}"))[1]["networks"] == [network]


async def test_a_node_that_is_revoked_neither_invites_nor_accepts_nor_honours(
    hackney: Node, enfield: Node, camden: Borough
) -> None:
    link, given = await invite(hackney)
    mine = (await invite(enfield))[0]
    await publish_revocation(hackney.services, await prepare_revocation(hackney.services))
    assert await _refused_by_revoked(hackney, given, camden)
    assert (await accept(hackney, mine))[0] == 400
    assert (await hackney.local("POST", "/v1/invitations", {}))[0] == 400
    assert (await accept(enfield, link))[0] == 403


async def _refused_by_revoked(node: Node, given: Invitation, camden: Borough) -> bool:
    key = next(iter(node.services.keyring.sealing.values())).public
    registration = Registration(
        version=VERSION, invitation=given.id, secret=given.secret, card=camden.card(), reply_secret=bytes(32)
    )
    data = seal_envelope(encode_wire(registration), node.services.configuration.origin, key)
    return (await post(node, data))[0] == 403


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/invitations", {"expires_in_hours": 0}, "$.expires_in_hours"),
        ("/v1/invitations", {"expires_in_hours": 721}, "$.expires_in_hours"),
        ("/v1/invitations", {"networks": ["everywhere"]}, "--allow-network"),
        ("/v1/invitations", {"ca_file": "/nowhere"}, "CA file"),
        ("/v1/invitations", {"more": 1}, "more"),
        ("/v1/invitations/accept", {}, "invitation"),
        ("/v1/invitations/accept", {"invitation": "x" * 5000}, "$.invitation"),
    ],
)
async def test_a_request_that_does_not_fit_is_refused_with_its_field(
    hackney: Node, path: str, body: Any, word: str
) -> None:
    status, document = await hackney.local("POST", path, body)
    assert (status, document["code"]) == (400, "request-invalid")
    assert word in document["message"]
    assert await outstanding(hackney) == []


# Bodies


async def test_what_is_no_registration_is_refused_before_it_costs(hackney: Node, camden: Borough) -> None:
    card = await hackney.card()
    before = hackney.kept()
    for path, content_type, most in (
        ("/v1/registrations", REGISTRATION_TYPE, 262_144),
        ("/v1/pairings", "application/vnd.exchange.pairing", 1024),
        ("/v1/pairings/reveal", "application/vnd.exchange.pairing", 1024),
    ):
        long = bytes(most + 1)
        assert (await post(hackney, b"", path=path, content_type="text/plain"))[0] == 415
        assert (await post(hackney, b"x", content_type, path, content_encoding="gzip"))[0] == 415
        assert (await post(hackney, long, content_type, path))[0] == 413
        assert (await post(hackney, _chunks(long), content_type, path))[0] == 413, "its length was not told"
        for data in (b"", b"\xc1", bytes(most), seal_to(card, b"")[:most], seal_to(card, b"\x80")[:most]):
            assert (await post(hackney, data, content_type, path))[0] == 403
        async with hackney.http.get(f"{hackney.url}{path}") as answer:
            assert answer.status == 405
    assert hackney.kept() == before


@pytest.fixture
async def impatient(hackney: Node) -> AsyncIterator[str]:
    """What strangers reach of the node, at a place of its own, with little patience."""
    services = hackney.services
    client = PeerClient(services)
    continuity = Continuity(services.store, services.now_ms)
    inbound = Inbound(services, continuity, client.fetch_consistency)
    comparing = Comparing(services, continuity, inbound, client)
    peers_api = PeersApi(services, Dispatcher(services, {}), continuity, comparing)
    invitations, pairings = Invitations(services, client), Pairings(services, client)
    registration = RegistrationApi(services, invitations, pairings, peers_api, patience_s=0.2)
    api = PeerApi(services, inbound, lambda origin, lanes: None, more=registration.public_routes())
    runner = web.AppRunner(api.application(for_strangers=True), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
    await client.close()


@pytest.mark.parametrize("path", ["registrations", "pairings", "pairings/reveal"])
async def test_a_body_that_does_not_come_to_its_end_is_given_up(impatient: str, path: str) -> None:
    kind = REGISTRATION_TYPE if path == "registrations" else "application/vnd.exchange.pairing"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(impatient.rpartition(":")[2]))
    writer.write(f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 99\r\n\r\nx".encode())
    status = (await reader.readline()).decode()
    writer.close()
    assert " 408 " in status


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


@pytest.mark.sqlite
async def test_the_secret_is_nowhere_in_the_store_or_the_log(hackney: Node, enfield: Node, lines: io.StringIO) -> None:
    link, given = await invite(hackney)
    await accept(enfield, link)
    for node in (hackney, enfield):
        for path in node.directory.iterdir():
            if path.is_file():
                assert given.secret not in path.read_bytes(), path
    assert link not in lines.getvalue()
    assert given.id not in lines.getvalue()
