"""A listener's certificate while the node runs: what is taken from the files, and what the card and the log say."""

import contextlib
import dataclasses
import datetime
import io
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from exchange.crypto.rest import StoreKey
from exchange.crypto.signing import SigningKeys
from exchange.node.app import open_services, prepare
from exchange.node.cards import own_card, peer_card, stored_card, verify_card
from exchange.node.config import load_configuration
from exchange.node.delivery import Dispatcher
from exchange.node.keyring import Keyring
from exchange.node.listener import Connections
from exchange.node.peering import Confirmation, confirm, move, show_card
from exchange.node.services import Services
from exchange.node.tls import ClientIdentity, client_identity
from exchange.node.trust import Standing
from exchange.node.wall import Wall
from exchange.schema.wire import Card
from exchange.store.peers import all_peers
from exchange.store.transaction import Transaction
from tests.node.certificates import Certificate, make_certificate, renewed
from tests.node.handmade import Borough
from tests.node.pair import ENFIELD, Clock

_HOUR_MS = 3_600_000
_CONFIGURATION = """\
[node]
origin = "exchange.enfield.example"
area = "{area}"
name = "Enfield"
url = "https://127.0.0.1:7400"
[listen]
certificate = "tls.crt"
key = "tls.key"
mutual = {mutual}
"""


@dataclasses.dataclass
class Listener:
    """A node's listener; nothing runs but what a test calls."""

    directory: Path
    services: Services
    wall: Wall
    clock: Clock
    lines: io.StringIO
    first: Certificate

    async def card(self) -> Card:
        return stored_card((await own_card(self.services)).statement)

    @property
    def pin(self) -> bytes:
        """The key with which the listener proves itself now."""
        serving = self.services.certificates.serving
        assert serving is not None
        return serving.pin

    def logged(self, event: str) -> int:
        return self.lines.getvalue().count(f'"event": "{event}"')


async def opened(directory: Path, clock: Clock, lines: io.StringIO, stack: AsyncExitStack, mutual: str) -> Listener:
    first = make_certificate().write(directory)
    path = directory / "exchange.toml"
    path.write_text(_CONFIGURATION.format(area=ENFIELD, mutual=mutual))
    configuration = load_configuration(path)
    keyring = Keyring(configuration.origin, SigningKeys.generate(), StoreKey.random())
    services = dataclasses.replace(await open_services(stack, configuration, keyring), now_ms=clock)
    await prepare(services)
    wall = Wall(services, Connections(), Dispatcher(services, {}))
    await wall.raise_up()
    await wall.look()
    return Listener(directory, services, wall, clock, lines, first)


@pytest.fixture
def clock() -> Clock:
    """It begins at the day on which the certificates are made."""
    return Clock(time.time_ns() // 1_000_000)


@pytest.fixture
async def listener(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Listener]:
    async with AsyncExitStack() as stack:
        yield await opened(tmp_path, clock, lines, stack, "true")


@pytest.fixture
async def open_listener(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Listener]:
    async with AsyncExitStack() as stack:
        yield await opened(tmp_path, clock, lines, stack, "false")


async def test_a_new_certificate_for_the_same_key_is_taken_at_once_and_the_card_stays(listener: Listener) -> None:
    before = await listener.card()
    renewed(listener.first).write(listener.directory)
    await listener.wall.look()
    assert listener.logged("certificate renewed") == 1
    assert listener.pin == listener.first.pin
    assert await listener.card() == before


async def test_where_peers_pin_nothing_a_new_key_is_taken_at_once_and_the_card_stays(open_listener: Listener) -> None:
    before = await open_listener.card()
    second = make_certificate().write(open_listener.directory)
    await open_listener.wall.look()
    assert open_listener.pin == second.pin
    assert await open_listener.card() == before
    assert before.tls_spki_sha256 == ()


async def verified_peer(listener: Listener) -> Borough:
    camden = Borough("exchange.camden.example", "E09000007", listener.clock)
    shown = camden.card()
    verified = verify_card(shown.statement, shown.proof)

    async def operation(tx: Transaction) -> None:
        await show_card(tx, listener.services, verified)
        said = Confirmation(camden.fingerprint, "fingerprint", "a test")
        await confirm(tx, listener.services, camden.origin, said)

    await listener.services.store.write(operation)
    return camden


async def test_a_new_key_is_announced_in_a_card_and_used_once_the_peers_have_that_card_or_had_the_time(
    listener: Listener,
) -> None:
    await verified_peer(listener)
    second = make_certificate().write(listener.directory)
    await listener.wall.look()
    assert (await listener.card()).tls_spki_sha256 == tuple(sorted([listener.first.pin, second.pin]))
    assert listener.pin == listener.first.pin, "the peer does not know the new key yet"
    await listener.wall.look()
    assert listener.pin == listener.first.pin
    listener.clock.now_ms += 2 * _HOUR_MS
    await listener.wall.look()
    assert listener.pin == second.pin
    assert (await listener.card()).tls_spki_sha256 == (second.pin,)
    assert listener.logged("certificate announced") == listener.logged("certificate renewed") == 1


async def test_a_new_key_is_used_at_once_where_there_is_nobody_to_tell(listener: Listener) -> None:
    second = make_certificate().write(listener.directory)
    await listener.wall.look()
    assert listener.pin == second.pin


async def test_files_that_do_not_fit_together_change_nothing_until_they_do(listener: Listener) -> None:
    second = make_certificate()
    (listener.directory / "tls.crt").write_bytes(second.chain)
    for _ in range(3):
        await listener.wall.look()
    assert listener.pin == listener.first.pin
    assert listener.logged("certificate not taken") == 1, "once is enough"
    (listener.directory / "tls.key").write_bytes(second.key)
    await listener.wall.look()
    assert listener.pin == second.pin


async def test_files_that_are_gone_change_nothing(listener: Listener) -> None:
    (listener.directory / "tls.key").unlink()
    await listener.wall.look()
    assert listener.pin == listener.first.pin
    assert listener.logged("certificate not taken") == 1


async def test_a_certificate_that_has_expired_is_not_taken(listener: Listener) -> None:
    make_certificate(days=-1).write(listener.directory)
    await listener.wall.look()
    assert listener.pin == listener.first.pin
    assert listener.logged("certificate not taken") == 1


async def test_an_announced_key_that_is_taken_back_is_forgotten(listener: Listener) -> None:
    await verified_peer(listener)
    make_certificate().write(listener.directory)
    await listener.wall.look()
    listener.first.write(listener.directory)
    await listener.wall.look()
    listener.clock.now_ms += 3 * _HOUR_MS
    await listener.wall.look()
    assert listener.pin == listener.first.pin
    assert (await listener.card()).tls_spki_sha256 == (listener.first.pin,)


async def test_a_certificate_near_its_end_is_told_once_a_day_and_a_good_one_never(listener: Listener) -> None:
    assert listener.logged("certificate is near its end") == 0
    make_certificate(days=2).write(listener.directory)
    for _ in range(3):
        await listener.wall.look()
    assert listener.logged("certificate is near its end") == 1
    listener.clock.now_ms += 24 * _HOUR_MS
    await listener.wall.look()
    assert listener.logged("certificate is near its end") == 2


@pytest.mark.parametrize("same_name", [False, True])
async def test_a_peer_cannot_put_a_certificate_of_its_own_making_in_the_place_of_another_peers(
    listener: Listener, same_name: bool
) -> None:
    caller = client_identity(StoreKey.random())
    camden = Borough("exchange.camden.example", "E09000007", listener.clock)
    sutton = Borough("exchange.sutton.example", "E09000029", listener.clock)
    await admit(listener, camden, caller.certificate)
    assert shakes_hands(listener, caller)
    # Sutton does not have Camden's key, and puts it into a certificate all the same.
    await admit(listener, sutton, made_for_the_key_of(caller.certificate, same_name=same_name))
    assert shakes_hands(listener, caller)
    await listener.services.store.write(lambda tx: move(tx, camden.origin, Standing.suspend))
    await listener.wall.count_peers()
    assert not shakes_hands(listener, caller), "Sutton's certificate does not admit Camden either"


async def admit(listener: Listener, borough: Borough, certificate: bytes) -> None:
    """Verify a borough that calls with a certificate."""
    proven = borough.card(tls_client_certificates=(certificate,))
    shown = verify_card(proven.statement, proven.proof)

    async def operation(tx: Transaction) -> None:
        await show_card(tx, listener.services, shown)
        await confirm(tx, listener.services, borough.origin, Confirmation(borough.fingerprint, "number", "a test"))

    await listener.services.store.write(operation)
    await listener.wall.count_peers()


def made_for_the_key_of(certificate: bytes, *, same_name: bool) -> bytes:
    """A certificate with the public key of another, such as anybody can make who has seen that."""
    real = x509.load_der_x509_certificate(certificate)
    name = real.subject if same_name else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(real.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
        .public_bytes(Encoding.DER)
    )


def shakes_hands(listener: Listener, caller: ClientIdentity) -> bool:
    """Whether the listener lets a caller in, without a network between them."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    caller.load(client)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    assert listener.wall.door is not None
    calling = client.wrap_bio(back, there)
    called = listener.wall.door.wrap_bio(there, back, server_side=True)
    for side in (calling, called, calling):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    try:
        called.do_handshake()
    except ssl.SSLError:
        return False
    return True


async def test_only_the_certificates_of_verified_peers_admit(listener: Listener) -> None:
    camden = await verified_peer(listener)
    own = make_certificate("camden")
    await listener.wall.count_peers()
    assert not listener.wall.admits(own.pin)
    proven = camden.card(tls_client_certificates=(own.der,))
    shown = verify_card(proven.statement, proven.proof)

    async def operation(tx: Transaction) -> None:
        await show_card(tx, listener.services, shown)

    await listener.services.store.write(operation)
    await listener.wall.count_peers()
    assert listener.wall.admits(own.pin)
    (row,) = await listener.services.store.read(all_peers)
    assert peer_card(row).tls_client_certificates == (own.der,)
