"""The second wall: whom a listener with mutual TLS admits, and whom a client believes; with real sockets."""

import asyncio
import dataclasses
import io
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from exchange.crypto.rest import StoreKey
from exchange.node.config import Configuration, load_configuration
from exchange.node.errors import CertificateUnusable, ConfigurationInvalid, NotNow
from exchange.node.peer_client import PeerClient, Place
from exchange.node.services import Services
from exchange.node.tls import (
    calling_context,
    client_identity,
    listener_certificate,
    own_certificates,
)
from tests.node.certificates import Caller, Certificate, make_certificate, without_certificate
from tests.node.handmade import Borough
from tests.node.pair import (
    ENFIELD,
    HACKNEY,
    Clock,
    Node,
    card_file,
    log_lines,
    opened,
    reserved_port,
    serving,
    until,
)

_CONFIGURATION = """\
[node]
origin = "{origin}"
area = "{area}"
name = "{origin}"
url = "https://127.0.0.1:{port}"
[listen]
address = "127.0.0.1:{port}"
certificate = "tls.crt"
key = "tls.key"
{listen}
[delivery]
backoff_base_s = 0.05
backoff_cap_s = 0.2
peer_timeout_s = 5
"""
MUTUAL = "mutual = true"


@asynccontextmanager
async def node_with_tls(
    directory: Path, area: str, clock: Clock, certificate: Certificate, listen: str = MUTUAL
) -> AsyncIterator[Node]:
    """Run a node that serves TLS itself, by default for verified peers alone."""
    directory.mkdir()  # noqa: ASYNC240
    certificate.write(directory)
    origin = f"exchange.{directory.name}.example"
    with reserved_port() as port:
        path = directory / "exchange.toml"
        path.write_text(_CONFIGURATION.format(origin=origin, area=area, port=port, listen=listen))
        async with serving(load_configuration(path), clock) as node:
            yield node


@pytest.fixture
def certificate() -> Certificate:
    """Enfield's, signed by nobody but itself."""
    return make_certificate()


@pytest.fixture
async def enfield(tmp_path: Path, clock: Clock, lines: io.StringIO, certificate: Certificate) -> AsyncIterator[Node]:
    async with node_with_tls(tmp_path / "enfield", ENFIELD, clock, certificate) as node:
        yield node


@pytest.fixture
async def hackney(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Node]:
    async with node_with_tls(tmp_path / "hackney", HACKNEY, clock, make_certificate("hackney")) as node:
        yield node


async def register(here: Node, there: Node, *, verified: bool = True) -> None:
    """Register a node by its card, as from a file: a node with mutual TLS serves it to nobody who is not registered."""
    _, card = await there.local("GET", "/v1/card")
    body = {"card": card["card"]} | ({"fingerprint": card["fingerprint"]} if verified else {})
    status, document = await here.local("POST", "/v1/peers", body)
    assert status == 201, document


async def introduce(here: Node, there: Node) -> None:
    await register(here, there)
    await register(there, here)


def caller(node: Node, identity: Any, certificate: Certificate) -> Caller:
    """Somebody who calls a node with a certificate, and knows its pin."""
    return Caller(node.url, calling_context([certificate.pin], identity))


async def health(node: Node) -> Any:
    return (await node.local("GET", "/v1/health"))[1]


async def admits(node: Node, count: int) -> None:
    """Wait until a node has counted its verified peers."""

    async def counted() -> bool:
        return (await health(node))["tls"]["admitted"] == count

    await until(f"{count} are admitted", counted)


# Delivery


async def test_two_nodes_with_certificates_that_no_authority_signed_deliver_to_one_another(
    hackney: Node, enfield: Node
) -> None:
    await introduce(hackney, enfield)
    await hackney.reached(await hackney.send(ENFIELD), "received")


async def test_a_node_behind_a_tls_terminating_proxy_and_one_with_mutual_tls_deliver_to_one_another(
    tmp_path: Path, clock: Clock, enfield: Node
) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    shown: list[bytes | None] = []
    with reserved_port() as port:
        async with proxy(authority, port, shown) as url:
            directory = tmp_path / "hackney"
            directory.mkdir()
            text = _CONFIGURATION.format(origin="exchange.hackney.example", area=HACKNEY, port=port, listen="")
            text = text.replace(f"https://127.0.0.1:{port}", url).replace("certificate =", "# ").replace("key =", "# ")
            (directory / "exchange.toml").write_text(text)
            async with serving(load_configuration(directory / "exchange.toml"), clock) as hackney:
                await register(hackney, enfield)
                _, card = await hackney.local("GET", "/v1/card")
                assert card["tls_spki_sha256"] == []
                body = {"card": card["card"], "fingerprint": card["fingerprint"], "ca_file": str(ca_file)}
                assert (await enfield.local("POST", "/v1/peers", body))[0] == 201
                await hackney.reached(await hackney.send(ENFIELD), "received")
                # Enfield's card arrived through the proxy, which asked for a certificate.
                await until("Enfield has called", _is_true(lambda: shown))
    assert set(shown) == {None}, "the proxy has learnt who calls"


def _is_true(condition: Callable[[], object]) -> Callable[[], Any]:
    async def check() -> object:
        return condition()

    return check


@asynccontextmanager
async def proxy(authority: trustme.CA, port: int, shown: list[bytes | None]) -> AsyncIterator[str]:
    """Terminate TLS in front of a port; note the client's certificate, which is asked for and not needed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(context)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        except OSError:
            writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


# Whom the listener admits


async def test_a_verified_peer_is_admitted_and_nobody_else(
    hackney: Node, enfield: Node, certificate: Certificate
) -> None:
    own = hackney.services.certificates.client
    await register(enfield, hackney)
    await admits(enfield, 1)
    async with caller(enfield, own, certificate) as peer:
        assert await peer.is_admitted()
    stranger = client_identity(StoreKey.random())
    listens = Certificate(*((hackney.directory / name).read_bytes() for name in ("tls.crt", "tls.key")))
    for name, identity in {
        "a stranger's key": stranger,
        "the certificate with which the peer listens": listens.identity,
        "the peer's name on another key": make_certificate("exchange " + "0" * 32).identity,
    }.items():
        async with caller(enfield, identity, certificate) as other:
            assert not await other.is_admitted(), name
    async with Caller(enfield.url, without_certificate(certificate.pin)) as other:
        assert not await other.is_admitted()
    assert (await health(enfield))["counters"]["connections_refused"] >= 4


async def test_a_peer_that_nobody_verified_is_refused_until_somebody_does(
    hackney: Node, enfield: Node, certificate: Certificate
) -> None:
    await register(enfield, hackney, verified=False)
    async with caller(enfield, hackney.services.certificates.client, certificate) as peer:
        assert not await peer.is_admitted()
        await register(enfield, hackney)
        await until("the peer is admitted", peer.is_admitted)


async def test_a_peer_that_is_suspended_loses_its_open_connection_and_gets_no_other(
    hackney: Node, enfield: Node, certificate: Certificate
) -> None:
    await register(enfield, hackney)
    await admits(enfield, 1)
    own = hackney.services.certificates.client
    context = calling_context([certificate.pin], own)
    host, _, port = enfield.url.removeprefix("https://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(b"GET /v1/health HTTP/1.1\r\nhost: enfield\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"}")
    assert (await enfield.local("POST", "/v1/peers/suspend/exchange.hackney.example"))[0] == 200
    async with asyncio.timeout(30):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.transport.abort()
    async with caller(enfield, own, certificate) as peer:
        assert not await peer.is_admitted()
        await register(enfield, hackney)
        await until("the peer is admitted again", peer.is_admitted)


async def test_what_a_refused_node_sends_waits_and_its_admin_sees_why(hackney: Node, enfield: Node) -> None:
    await register(hackney, enfield)
    message_id = await hackney.send(ENFIELD)

    async def reason() -> str:
        return str((await hackney.status(message_id))["last_error"] or "")

    await until("the reason is known", reason)
    assert "may not be verified there" in await reason()
    await register(enfield, hackney)
    await hackney.reached(message_id, "received")


async def test_a_certificate_that_cannot_be_used_shuts_out_nobody_but_its_peer(
    hackney: Node, enfield: Node, clock: Clock, lines: io.StringIO
) -> None:
    camden = Borough("exchange.camden.example", "E09000007", clock)
    card = camden.card(tls_client_certificates=(b"not a certificate", b"0"))
    body = {"card": card_file(card), "fingerprint": camden.fingerprint}
    assert (await enfield.local("POST", "/v1/peers", body))[0] == 201
    await introduce(hackney, enfield)
    await hackney.reached(await hackney.send(ENFIELD), "received")
    assert '"peer": "exchange.camden.example"' in lines.getvalue()
    assert "certificate not usable" in lines.getvalue()


async def test_a_peer_whose_certificate_is_an_authoritys_can_vouch_for_nobody(
    enfield: Node, certificate: Certificate, clock: Clock
) -> None:
    camden = Borough("exchange.camden.example", "E09000007", clock)
    authority = make_certificate("camden", authority=True)
    body = {
        "card": card_file(camden.card(tls_client_certificates=(authority.der,))),
        "fingerprint": camden.fingerprint,
    }
    assert (await enfield.local("POST", "/v1/peers", body))[0] == 201
    await admits(enfield, 1)
    async with caller(enfield, authority.identity, certificate) as peer:
        assert await peer.is_admitted()
    async with caller(enfield, make_certificate("a friend", issuer=authority).identity, certificate) as friend:
        assert not await friend.is_admitted()


@pytest.mark.parametrize("bad", ["expired", "not for clients"])
async def test_a_peers_certificate_that_has_expired_or_is_not_for_clients_is_refused(
    enfield: Node, certificate: Certificate, clock: Clock, bad: str
) -> None:
    camden = Borough("exchange.camden.example", "E09000007", clock)
    own = make_certificate("camden", days=-1) if bad == "expired" else make_certificate("camden", server_only=True)
    body = {"card": card_file(camden.card(tls_client_certificates=(own.der,))), "fingerprint": camden.fingerprint}
    assert (await enfield.local("POST", "/v1/peers", body))[0] == 201
    await admits(enfield, 1)
    async with caller(enfield, own.identity, certificate) as peer:
        assert not await peer.is_admitted()


async def test_a_certificate_of_any_authority_admits_the_peer_whose_card_holds_it(
    enfield: Node, certificate: Certificate, clock: Clock
) -> None:
    camden = Borough("exchange.camden.example", "E09000007", clock)
    own = make_certificate("camden", issuer=make_certificate("an authority", authority=True))
    body = {"card": card_file(camden.card(tls_client_certificates=(own.der,))), "fingerprint": camden.fingerprint}
    assert (await enfield.local("POST", "/v1/peers", body))[0] == 201
    await admits(enfield, 1)
    async with caller(enfield, own.identity, certificate) as peer:
        assert await peer.is_admitted()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl shows what a server asks for; it is not here")
async def test_a_stranger_is_not_told_who_is_registered(hackney: Node, enfield: Node) -> None:
    await register(enfield, hackney)
    await admits(enfield, 1)
    process = await asyncio.create_subprocess_exec(
        "openssl",
        "s_client",
        "-connect",
        enfield.url.removeprefix("https://"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    told = (await process.communicate())[0].decode()
    assert "No client certificate CA names sent" in told


# First contact


async def test_strangers_get_what_they_need_to_register_from_a_listener_of_their_own(
    tmp_path: Path, clock: Clock, lines: io.StringIO, certificate: Certificate
) -> None:
    with reserved_port() as port:
        listen = f'{MUTUAL}\nopen_address = "127.0.0.1:{port}"\nopen_url = "https://127.0.0.1:{port}"'
        async with node_with_tls(tmp_path / "enfield", ENFIELD, clock, certificate, listen) as enfield:
            nothing = without_certificate(certificate.pin)
            async with Caller(f"https://127.0.0.1:{port}", nothing) as stranger:
                assert await stranger.get("/v1/card") == 200
                for path in ("/v1/envelopes", "/v1/log/checkpoint", "/v1/log/consistency?first=1&second=1"):
                    assert await stranger.get(path) == 404
            async with Caller(enfield.url, nothing) as stranger:
                assert not await stranger.is_admitted()
            assert enfield.services.configuration.registration_url == f"https://127.0.0.1:{port}"


# Whom the client believes


async def fetch(services: Services, place: Place) -> str:
    client = PeerClient(services)
    try:
        return (await client.fetch_card(place)).card.origin
    finally:
        await client.close()


@pytest.fixture
async def calling(tmp_path: Path, clock: Clock) -> AsyncIterator[Services]:
    """A node that does not run, and may call others on this machine."""
    with log_lines():
        async with opened(tmp_path / "calling", clock) as services:
            yield services


async def test_a_server_whose_certificate_an_authority_vouches_for_and_no_pin_names_is_not_believed(
    tmp_path: Path, clock: Clock, calling: Services
) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    issued = authority.issue_cert("127.0.0.1")
    certificate = Certificate(b"".join(part.bytes() for part in issued.cert_chain_pems), issued.private_key_pem.bytes())
    async with node_with_tls(tmp_path / "enfield", ENFIELD, clock, certificate, "mutual = false") as enfield:
        origin = "exchange.enfield.example"
        assert await fetch(calling, Place(enfield.url, str(ca_file))) == origin
        assert await fetch(calling, Place(enfield.url, None, pins=(certificate.pin,))) == origin
        with pytest.raises(NotNow, match="its key is not the one that its card names"):
            await fetch(calling, Place(enfield.url, str(ca_file), pins=(make_certificate().pin,)))
        with pytest.raises(NotNow, match="certificate"):
            await fetch(calling, Place(enfield.url, None))


async def meet(calling: Services, certificate: Certificate, pin: bytes) -> tuple[str, bytes]:
    """Call a server that is somebody's; why that failed, and what the server was sent after it had shown itself."""
    answers = asyncio.Queue[bytes]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with file_of(certificate.key + certificate.chain) as path:
        context.load_cert_chain(path)
    context.verify_mode = ssl.CERT_OPTIONAL

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(await reader.read(65_536))
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        writer.write(outgoing.read())
        try:
            answers.put_nowait(await reader.read(65_536))
        except ConnectionError:
            answers.put_nowait(b"")
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(NotNow) as failed:
            await fetch(calling, Place(url, None, pins=(pin,)))
        return str(failed.value), await answers.get()


async def test_a_man_in_the_middle_is_sent_nothing_not_even_who_calls(
    calling: Services, certificate: Certificate
) -> None:
    reason, sent = await meet(calling, certificate, make_certificate().pin)
    assert "its key is not the one that its card names" in reason
    assert sent == b""
    reason, sent = await meet(calling, certificate, certificate.pin)
    assert "may not be verified there" in reason
    assert sent != b""


@contextmanager
def file_of(data: bytes) -> Iterator[str]:
    """The path of a file that holds `data`."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name


# The node's own certificates


def test_a_node_calls_with_the_same_certificate_after_every_start_and_it_names_no_borough() -> None:
    key = StoreKey.random()
    assert client_identity(key).certificate == client_identity(key).certificate
    assert client_identity(key).certificate != client_identity(StoreKey.random()).certificate
    assert b"hackney" not in client_identity(key).certificate


def configured(directory: Path, listen: str) -> Configuration:
    path = directory / "exchange.toml"
    path.write_text(_CONFIGURATION.format(origin="exchange.enfield.example", area=ENFIELD, port=7400, listen=listen))
    return load_configuration(path)


@pytest.mark.parametrize("mutual", [True, False])
def test_only_a_node_with_mutual_tls_names_pins(tmp_path: Path, certificate: Certificate, mutual: bool) -> None:
    certificate.write(tmp_path)
    found = own_certificates(configured(tmp_path, MUTUAL if mutual else ""), StoreKey.random())
    assert found.pins == ((certificate.pin,) if mutual else ())


def test_a_key_that_is_not_the_certificates_is_found_at_the_start(tmp_path: Path, certificate: Certificate) -> None:
    dataclasses.replace(certificate, key=make_certificate().key).write(tmp_path)
    with pytest.raises(ConfigurationInvalid, match="KEY_VALUES_MISMATCH"):
        own_certificates(configured(tmp_path, MUTUAL), StoreKey.random())


@pytest.mark.parametrize("data", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(certificate: Certificate, data: bytes) -> None:
    with pytest.raises(CertificateUnusable):
        listener_certificate(data, certificate.key)


def test_a_certificates_key_is_not_shown(certificate: Certificate) -> None:
    assert "PRIVATE" not in repr(listener_certificate(certificate.chain, certificate.key))


@pytest.mark.parametrize(
    ("listen", "word"),
    [
        ('open_address = "127.0.0.1:7401"\nopen_url = "https://enfield.example"', "open_address"),
        (f'{MUTUAL}\nopen_address = "127.0.0.1:7401"', "belong together"),
        (f'{MUTUAL}\nopen_address = "7401"\nopen_url = "https://enfield.example"', "open_address"),
        (f'{MUTUAL}\nopen_address = "127.0.0.1:7401"\nopen_url = "http://127.0.0.1:7401"', "open_url"),
    ],
)
def test_a_configuration_that_opens_nothing_or_too_much_is_refused(tmp_path: Path, listen: str, word: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=word):
        configured(tmp_path, listen)


def test_mutual_tls_needs_a_certificate(tmp_path: Path) -> None:
    text = _CONFIGURATION.format(origin="exchange.enfield.example", area=ENFIELD, port=7400, listen=MUTUAL)
    (tmp_path / "exchange.toml").write_text(text.replace("certificate =", "# ").replace("key =", "# "))
    with pytest.raises(ConfigurationInvalid, match="mutual: needs"):
        load_configuration(tmp_path / "exchange.toml")
