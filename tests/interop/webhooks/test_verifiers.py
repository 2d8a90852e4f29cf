"""Webhooks of a running node, through HAProxy, verified by the public libraries for Python and Node.js."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from exchange.agency.webhook import parse_webhook_key
from exchange.crypto.webhook_key import verify_v1a
from tests.node.agency import LOOPBACK
from tests.node.certificates import make_certificate
from tests.node.handmade import Borough, Desk
from tests.node.pair import ENFIELD, Clock, Node, log_lines, reserved_port, running, until
from tests.node.test_agencies import delivered, send

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent

_HAPROXY = """\
global
    log stderr format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend agency
    bind 127.0.0.1:{port} ssl crt {pem} alpn h2,http/1.1
    http-request set-header x-forwarded-proto https
    default_backend receiver
backend receiver
    server one 127.0.0.1:{behind}
"""


def needed(program: str, package: str) -> str:
    """The path of a program without which this cannot be shown."""
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"{program} is not installed: apt-get install -y --no-install-recommends {package}")
    return found


@dataclass
class Receiver:
    """What came to the agency, byte for byte."""

    port: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=204)


@pytest.fixture(scope="session")
def node_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the locked packages."""
    needed("node", "nodejs")
    npm = needed("npm", "npm")
    directory = tmp_path_factory.mktemp("verifiers")
    for name in ("package.json", "package-lock.json", "verify.mjs"):
        shutil.copy(HERE / name, directory)
    subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=directory, check=True, capture_output=True
    )
    return directory


def verify_in_node_js(directory: Path, webhooks: list[tuple[str, dict[str, str], bytes]]) -> list[dict[str, Any]]:
    """What the library for Node.js says of each webhook."""
    lines = [
        json.dumps({"secret": secret, "headers": headers, "body": base64.b64encode(body).decode()})
        for secret, headers, body in webhooks
    ]
    done = subprocess.run(
        [needed("node", "nodejs"), "verify.mjs"],
        cwd=directory,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/hook", made.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
def proxy(receiver: Receiver, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """HAProxy, which does TLS for the receiver: its URL and the CA to trust."""
    program = needed("haproxy", "haproxy")
    authority = make_certificate("An authority of nobody's", authority=True)
    server = make_certificate("127.0.0.1", issuer=authority, address="127.0.0.1")
    (tmp_path / "server.pem").write_bytes(server.chain + server.key)
    (tmp_path / "ca.pem").write_bytes(authority.chain)
    with reserved_port() as port:
        text = _HAPROXY.format(port=port, pem=tmp_path / "server.pem", behind=receiver.port)
        (tmp_path / "haproxy.cfg").write_text(text)
        with (tmp_path / "haproxy.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-db", "-f", tmp_path / "haproxy.cfg"], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield f"https://127.0.0.1:{port}/hook", str(tmp_path / "ca.pem")
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
async def enfield(tmp_path: Path) -> AsyncIterator[Node]:
    """A node whose clock is right: the public libraries look at the wall clock."""
    clock = Clock(round(time.time() * 1000))
    clock.run()
    with log_lines():
        async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as node:
            yield node


async def test_the_public_verifiers_take_what_comes_through_a_proxy_and_nothing_that_was_changed(
    enfield: Node, receiver: Receiver, proxy: tuple[str, str], node_js: Path
) -> None:
    url, ca_file = proxy
    camden = Borough("exchange.camden.example", "E09000007", enfield.clock)
    async with camden.listening(Desk(camden).answer):
        await enfield.know(camden)
        body = {"kind": "housing", "url": url, "networks": LOOPBACK, "ca_file": ca_file}
        status, agency = await enfield.local("POST", "/v1/agencies", body)
        assert status == 201, agency

        async def proxied() -> bool:
            return bool((await enfield.local("POST", f"/v1/agencies/{agency['id']}/test"))[1]["ok"])

        await until("the proxy is up", proxied)
        await delivered(enfield, await send(enfield, camden), "housing")
        old, rotated = agency["secret"], await enfield.local("POST", f"/v1/agencies/{agency['id']}/secret", {})
        assert rotated[0] == 200
        await delivered(enfield, await send(enfield, camden), "housing")

    webhooks = list(zip(receiver.headers, receiver.bodies, strict=True))
    assert len(webhooks) >= 5
    for headers, data in webhooks:
        # The old secret signed all of them, beside the new one and the node's key.
        assert Webhook(old).verify(data, headers)["id"] == headers["webhook-id"]
        signature = headers["webhook-signature"].split(" ")[-1]
        message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + data
        verify_v1a(
            parse_webhook_key(agency["public_key"]).key.reveal(),
            message,
            base64.b64decode(signature.removeprefix("v1a,")),
        )
        assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        event = json.loads(data.decode("utf-8"))
        assert {"specversion", "id", "type", "source", "time"} <= event.keys()

    said = await asyncio.to_thread(verify_in_node_js, node_js, [(old, headers, data) for headers, data in webhooks])
    assert said == [{"ok": True, "id": headers["webhook-id"]} for headers, _ in webhooks]

    headers, data = webhooks[-1]
    assert len(headers["webhook-signature"].split(" ")) == 3
    other = base64.b64encode(bytes(32)).decode()
    refused = [
        (old, headers, data + b" "),
        (f"whsec_{other}", headers, data),
        (old, headers | {"webhook-id": "evt_0"}, data),
        (old, headers | {"webhook-timestamp": "1"}, data),
        (old, headers | {"webhook-signature": headers["webhook-signature"].split(" ")[-1]}, data),
        (rotated[1]["secret"], *webhooks[0]),
    ]
    said = await asyncio.to_thread(verify_in_node_js, node_js, refused)
    assert [answer["ok"] for answer in said] == [False] * len(refused)
    assert verify_in_node_js(node_js, [(rotated[1]["secret"], headers, data)]) == [
        {"ok": True, "id": headers["webhook-id"]}
    ]
