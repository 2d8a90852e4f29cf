"""Agencies that ask for a client certificate, and those behind a proxy; what goes through one is read by nobody."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.node.agency import LOOPBACK, Agency
from tests.node.certificates import Certificate, make_certificate
from tests.node.handmade import Desk
from tests.node.pair import Clock, Node
from tests.node.test_agencies import delivered, send


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


def pem(path: Path, *parts: bytes) -> str:
    """A file as an admin would make it: for the node's account alone."""
    path.write_bytes(b"".join(parts))
    path.chmod(0o600)
    return str(path)


@asynccontextmanager
async def listening_with_tls(agency: Agency, server: Certificate, clients: Certificate, directory: Path) -> Any:
    """An agency that asks every client for a certificate of an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pem(directory / "server.pem", server.chain, server.key))
    context.load_verify_locations(cadata=clients.chain.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/hook", agency._answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    agency.url = f"https://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield agency
    finally:
        await runner.cleanup()


class Proxy:
    """An HTTP proxy that opens tunnels, and keeps what went through them."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.carried = bytearray()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0].split(" ")
        self.asked.append(f"{method} {target}")
        host, _, port = target.rpartition(":")
        there, onward = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def carry(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await one.read(65_536):
                    self.carried += data
                    other.write(data)
                    await other.drain()
            other.close()

        await asyncio.gather(carry(reader, onward), carry(there, writer))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        """Listen on loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()


@pytest.fixture
def authority() -> Certificate:
    return make_certificate("An authority of nobody's", authority=True)


@pytest.fixture
async def strict(enfield: Node, desk: Desk, authority: Certificate, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """An agency that asks for a certificate; what a node needs to register it."""
    await enfield.know(desk.borough)
    server = make_certificate("127.0.0.1", issuer=authority, address="127.0.0.1")
    agency = Agency("housing")
    async with listening_with_tls(agency, server, authority, tmp_path):
        client = make_certificate("exchange.enfield.example", issuer=authority)
        yield {
            "agency": agency,
            "ca_file": pem(tmp_path / "ca.pem", authority.chain),
            "certificate": pem(tmp_path / "client.pem", client.chain, client.key),
        }


async def register(node: Node, strict: dict[str, Any], **more: Any) -> dict[str, Any]:
    agency = strict["agency"]
    body = {"kind": "housing", "url": agency.url, "ca_file": strict["ca_file"], **more}
    status, document = await node.local("POST", "/v1/agencies", body)
    assert status == 201, document
    agency.secret, agency.id = document["secret"], document["id"]
    agency._registered.set()
    return dict(document)


async def test_an_agency_is_shown_the_nodes_certificate(enfield: Node, desk: Desk, strict: dict[str, Any]) -> None:
    await register(enfield, strict, networks=LOOPBACK, certificate=strict["certificate"])
    await delivered(enfield, await send(enfield, desk.borough), "housing")
    assert strict["agency"].unproven == []


async def test_without_a_certificate_an_agency_that_wants_one_takes_nothing(
    enfield: Node, desk: Desk, strict: dict[str, Any]
) -> None:
    await register(enfield, strict, networks=LOOPBACK)
    _, document = await enfield.local("POST", f"/v1/agencies/{strict['agency'].id}/test")
    assert document["ok"] is False
    assert strict["agency"].events == []
    body = {"certificate": strict["certificate"]}
    assert (await enfield.local("POST", f"/v1/agencies/{strict['agency'].id}/settings", body))[0] == 200
    assert (await enfield.local("POST", f"/v1/agencies/{strict['agency'].id}/test"))[1]["ok"] is True


async def test_a_certificate_that_others_may_read_is_refused(enfield: Node, strict: dict[str, Any]) -> None:
    os.chmod(strict["certificate"], 0o640)
    body = {"kind": "housing", "url": strict["agency"].url, "certificate": strict["certificate"]}
    status, document = await enfield.local("POST", "/v1/agencies", body)
    assert (status, "chmod 600" in document["message"]) == (400, True)


async def test_a_certificate_without_its_key_is_refused(
    enfield: Node, strict: dict[str, Any], authority: Certificate, tmp_path: Path
) -> None:
    body = {
        "kind": "housing",
        "url": strict["agency"].url,
        "certificate": pem(tmp_path / "half.pem", authority.chain),
    }
    assert (await enfield.local("POST", "/v1/agencies", body))[0] == 400


async def test_a_proxy_carries_what_it_cannot_read(enfield: Node, desk: Desk, strict: dict[str, Any]) -> None:
    agency = strict["agency"]
    url = agency.url.replace("127.0.0.1", "localhost")  # the proxy looks it up, and the certificate is for the address
    async with Proxy().listening() as proxy:
        agency.url = url
        await register(enfield, strict, certificate=strict["certificate"], proxy=proxy.url, handshake=False)
        _, document = await enfield.local("POST", f"/v1/agencies/{agency.id}/test")
        assert "certificate is not trusted" in document["error"]
        await enfield.local("DELETE", f"/v1/agencies/{agency.id}")

        agency.url = url.replace("localhost", "127.0.0.1")
        await register(
            enfield,
            strict,
            networks=LOOPBACK,
            certificate=strict["certificate"],
            proxy=proxy.url,
        )
        await delivered(enfield, await send(enfield, desk.borough), "housing")
        assert proxy.asked[-1] == "CONNECT " + agency.url.removeprefix("https://").removesuffix("/hook")
        assert b"Fictitious" not in proxy.carried
        assert b"webhook-signature" not in proxy.carried.lower()
    assert agency.unproven == []


async def test_behind_a_proxy_an_address_inside_is_refused_unless_it_was_named(
    enfield: Node, strict: dict[str, Any]
) -> None:
    async with Proxy().listening() as proxy:
        await register(enfield, strict, proxy=proxy.url)
        _, document = await enfield.local("POST", f"/v1/agencies/{strict['agency'].id}/test")
        assert "not allowed for this destination" in document["error"]
        assert proxy.asked == []


async def test_nothing_without_tls_goes_through_a_proxy(enfield: Node) -> None:
    body = {
        "kind": "housing",
        "url": "http://127.0.0.1:9/hook",
        "networks": LOOPBACK,
        "proxy": "http://127.0.0.1:3128",
    }
    status, document = await enfield.local("POST", "/v1/agencies", body)
    assert (status, "would read" in document["message"]) == (400, True)


@pytest.mark.parametrize(
    "proxy", ["http://proxy.example:3128", "https://10.0.0.1:3128", "http://10.0.0.1", "http://u:p@10.0.0.1:1", "x"]
)
async def test_a_proxy_is_named_by_its_address(enfield: Node, proxy: str) -> None:
    body = {"kind": "housing", "url": "https://housing.example/hook", "proxy": proxy}
    assert (await enfield.local("POST", "/v1/agencies", body))[0] == 400
