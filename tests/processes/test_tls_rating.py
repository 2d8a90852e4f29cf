"""What a public scanner of TLS servers says of the listener: sslyze, by Mozilla's "modern" profile, its strictest."""

import asyncio
from pathlib import Path

import pytest

from exchange.node.tls import listener_certificate, mutual_context
from tests.node.certificates import Certificate, make_certificate
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD

pytestmark = pytest.mark.slow

#: In an environment of its own (`make .venv/scan`): it wants an older `cryptography` than the program.
SSLYZE = Path(__file__).parents[2] / ".venv" / "scanner" / "bin" / "sslyze"


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    authority = make_certificate("Fictitious Borough CA", authority=True)
    (tmp_path / "ca.pem").write_bytes(authority.chain)
    return make_certificate("enfield", issuer=authority, days=45, address="127.0.0.1")


async def rating(port: int, ca_file: Path, *options: object) -> str:
    """The end of a scan's report."""
    scan = await asyncio.create_subprocess_exec(
        SSLYZE,
        *("--mozilla_config", "modern", "--certinfo_ca_file", ca_file),
        *map(str, options),
        f"127.0.0.1:{port}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await asyncio.wait_for(scan.communicate(), 120)
    return output.decode().partition("Checking results")[2]


async def test_the_listener_of_a_node_has_the_best_rating(town: Town, certificate: Certificate, tmp_path: Path) -> None:
    enfield = town.borough("enfield", ENFIELD, scheme="https")
    certificate.write(enfield.directory)
    enfield.configure("listen", certificate="tls.crt", key="tls.key")
    enfield.start()
    assert "OK - Compliant" in await rating(enfield.port, tmp_path / "ca.pem")


async def test_the_listener_for_verified_peers_alone_has_the_best_rating_from_one_and_none_from_a_stranger(
    certificate: Certificate, tmp_path: Path
) -> None:
    # The scanner's older OpenSSL cannot show a certificate with an Ed25519 key, as nodes have it.
    peer = make_certificate("peer")
    pem = tmp_path / "peer.pem"
    pem.write_bytes(peer.key + peer.chain)
    serving = listener_certificate(certificate.chain, certificate.key)
    context = mutual_context(serving, [peer.der], lambda pin: pin == peer.pin)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        assert "OK - Compliant" in await rating(port, tmp_path / "ca.pem", "--cert", pem, "--key", pem)
        assert await rating(port, tmp_path / "ca.pem") == ""
