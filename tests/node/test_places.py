"""Where a peer says it is: a hostile one names an internal service, or does without TLS, and is not followed there."""

import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
import pytest
from aiohttp import web

from exchange.node.errors import NotNow
from exchange.node.peer_client import PeerClient
from exchange.node.services import Services
from exchange.schema.wire import Card
from exchange.store.peers import PeerRow
from tests.node.handmade import Borough, read_card
from tests.node.pair import Node, card_file, until

PUBLIC = "https://exchange.hackney.example"
TRIAL = "http://127.0.0.1:7400"


@dataclass
class Service:
    """Something inside the network that nobody outside may reach."""

    port: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture
async def inside() -> AsyncIterator[Service]:
    service = Service()

    async def answer(request: web.Request) -> web.Response:
        service.seen.append(f"{request.method} {request.path}")
        return web.Response()

    application = web.Application()
    application.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.port = runner.addresses[0][1]
    yield service
    await runner.cleanup()


async def post(services: Services, camden: Borough, own_url: str, url: str, networks: tuple[str, ...] = ()) -> None:
    """Send an envelope to Camden from a node at `own_url`, when Camden's card says that it is at `url`."""
    tables = services.configuration.tables
    node = msgspec.structs.replace(tables.node, url=own_url)
    configuration = dataclasses.replace(services.configuration, tables=msgspec.structs.replace(tables, node=node))
    client = PeerClient(dataclasses.replace(services, configuration=configuration))
    proven = camden.card(url=url)
    card: Card = read_card(proven)
    row = PeerRow(
        camden.origin,
        "verified",
        camden.fingerprint,
        1,
        proven.statement,
        proven.proof,
        None,
        0,
        networks=json.dumps(networks),
    )
    try:
        await client.post_envelope(row, card, b"sealed")
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("own_url", "networks"), [(TRIAL, ()), (PUBLIC, ("127.0.0.0/8",)), (PUBLIC, ("127.0.0.1/32",))]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_node_on_trial_and_one_whose_admin_allowed_it_reach_a_peer_on_loopback(
    services: Services, camden: Borough, inside: Service, own_url: str, networks: tuple[str, ...], host: str
) -> None:
    await post(services, camden, own_url, f"http://{host}:{inside.port}", networks)
    assert inside.seen == ["POST /v1/envelopes"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8",), ("::1/128",)])
async def test_a_peer_cannot_send_the_node_to_its_own_machine(
    services: Services, camden: Borough, inside: Service, scheme: str, host: str, networks: tuple[str, ...]
) -> None:
    with pytest.raises(NotNow, match="not allowed for this destination"):
        await post(services, camden, PUBLIC, f"{scheme}://{host}:{inside.port}", networks)
    assert inside.seen == []


@pytest.mark.parametrize("own_url", [TRIAL, PUBLIC])
@pytest.mark.parametrize(
    "host", ["10.1.2.3", "192.168.1.1", "169.254.169.254", "[fd00::1]", "[::ffff:10.1.2.3]", "0.0.0.0"]
)
async def test_a_peer_cannot_send_the_node_to_an_address_inside(
    services: Services, camden: Borough, own_url: str, host: str
) -> None:
    with pytest.raises(NotNow, match="not allowed for this destination"):
        await post(services, camden, own_url, f"https://{host}")


@pytest.mark.parametrize("own_url", [TRIAL, PUBLIC])
@pytest.mark.parametrize("networks", [(), ("0.0.0.0/0", "::/0")])
@pytest.mark.parametrize(
    "url",
    [
        "http://exchange.camden.example",
        "http://10.1.2.3",
        "http://127.0.0.1.exchange.camden.example",
        "https://user@exchange.camden.example",
        "https://exchange.camden.example/admin?delete=",
        "https://exchange.camden.example/admin#",
        "https://",
        "ftp://exchange.camden.example",
        "//exchange.camden.example",
        "exchange.camden.example",
        "https://exchange.camden.example:99999",
    ],
)
async def test_a_url_that_no_node_has_is_not_followed(
    services: Services, camden: Borough, own_url: str, networks: tuple[str, ...], url: str
) -> None:
    with pytest.raises(NotNow, match="its URL is not https"):
        await post(services, camden, own_url, url, networks)


async def test_a_message_waits_when_its_peer_moves_to_a_place_that_is_not_followed(
    enfield: Node, camden: Borough, inside: Service
) -> None:
    await enfield.know(camden)
    moved = camden.card(url=f"http://127.0.0.1:{inside.port}/admin?path=")
    status, _ = await enfield.post(camden.envelope(await enfield.card(), [moved]))
    assert status == 200
    assert read_card(moved).url == (await enfield.local("GET", f"/v1/peers/{camden.origin}"))[1]["url"]

    async def told() -> bool:
        error = (await enfield.local("GET", f"/v1/peers/{camden.origin}"))[1]["last_error"]
        return "its URL is not https://HOST" in (error or "")

    await until("the node says why it does not reach the peer", told)
    assert inside.seen == []


async def test_the_networks_of_a_peer_are_kept_until_others_are_named(enfield: Node, camden: Borough) -> None:
    body = {"card": card_file(camden.card())}
    for networks, kept in (
        (["10.1.0.0/16", "fd00::/8"],) * 2,
        ([], ["10.1.0.0/16", "fd00::/8"]),
        (["10.2.0.0/16"],) * 2,
    ):
        status, document = await enfield.local("POST", "/v1/peers", body | {"networks": networks})
        assert (status, document["networks"]) == (201, kept)
    assert (await enfield.local("GET", f"/v1/peers/{camden.origin}"))[1]["networks"] == ["10.2.0.0/16"]


async def test_what_is_no_network_is_refused_and_nothing_is_kept(enfield: Node, camden: Borough) -> None:
    body = {"card": card_file(camden.card()), "networks": ["10.1.2.3/8"]}
    status, document = await enfield.local("POST", "/v1/peers", body)
    assert (status, document["code"]) == (400, "request-invalid")
    assert (await enfield.local("GET", "/v1/peers"))[1]["items"] == []
