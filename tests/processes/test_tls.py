"""Nodes that serve TLS 1.3 themselves: a peer delivers under a CA that it trusts, and under no other."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
import trustme

from exchange.cli.main import cli
from exchange.node.config import FileTables
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, exchange, introduce, until

FORM = example("case-study-j")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="Fictitious Borough CA")


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file


def with_certificate(borough: Borough, authority: trustme.CA, *names: str) -> Borough:
    """Give a node a certificate of its own."""
    certificate = authority.issue_cert(*(names or ("127.0.0.1",)))
    certificate.private_key_pem.write_to_path(borough.directory / "tls.key")
    chain = b"".join(item.bytes() for item in certificate.cert_chain_pems)
    (borough.directory / "tls.crt").write_bytes(chain)
    borough.configure("listen", certificate="tls.crt", key="tls.key")
    return borough


@pytest.fixture
def hackney(town: Town, authority: trustme.CA) -> Borough:
    return with_certificate(town.borough("hackney", HACKNEY, scheme="https"), authority)


@pytest.fixture
def enfield(town: Town, authority: trustme.CA) -> Borough:
    return with_certificate(town.borough("enfield", ENFIELD, scheme="https"), authority)


def test_two_nodes_deliver_over_tls_under_a_ca_that_is_named_for_the_peer(
    town: Town, hackney: Borough, enfield: Borough, ca_file: Path
) -> None:
    hackney.start()
    enfield.start()
    introduce(hackney, enfield, "--ca-file", ca_file)
    receiver = town.receiver()
    enfield.add_agencies(receiver)
    message_id = hackney.send(FORM, ENFIELD)
    assert hackney.status(message_id, "delivered", 60)["reached"]
    assert receiver.accepted(message_id=message_id)
    assert enfield.ask("card", "show")["url"] == f"https://127.0.0.1:{enfield.port}"


def test_a_peers_certificate_is_verified_by_the_systems_roots_where_no_ca_is_named(
    hackney: Borough, enfield: Borough, ca_file: Path
) -> None:
    # OpenSSL reads the system's roots from this file where it is set.
    hackney.environment["SSL_CERT_FILE"] = enfield.environment["SSL_CERT_FILE"] = str(ca_file)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]


def refused_for_its_certificate(hackney: Borough, enfield: Borough) -> None:
    """A message waits, nothing has arrived, and the sender is told that the certificate is the reason."""
    message_id = hackney.send(FORM, ENFIELD)
    until("the reason is known", lambda: hackney.status(message_id)["last_error"])
    status = hackney.ask("status", message_id)
    assert "certificate" in status["last_error"]
    assert status["next_attempt_at"]
    assert "certificate" in hackney.cli("status", message_id).stderr
    assert "certificate" in hackney.cli("explain", message_id).stdout
    assert enfield.ask("inbox") == {"items": []}


def test_a_peers_certificate_of_an_unknown_ca_is_refused_and_the_reason_is_shown(
    hackney: Borough, enfield: Borough
) -> None:
    hackney.start()
    enfield.start()
    hackney.trusts(enfield)
    refused_for_its_certificate(hackney, enfield)


def test_a_peers_certificate_for_another_name_is_refused(
    town: Town, hackney: Borough, authority: trustme.CA, ca_file: Path
) -> None:
    other = with_certificate(town.borough("enfield", ENFIELD, scheme="https"), authority, "exchange.other.example")
    hackney.start()
    other.start()
    hackney.trusts(other, "--ca-file", ca_file)
    refused_for_its_certificate(hackney, other)


def test_a_ca_that_is_named_for_a_peer_replaces_the_systems_roots(
    hackney: Borough, enfield: Borough, ca_file: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    hackney.environment["SSL_CERT_FILE"] = str(ca_file)
    hackney.start()
    enfield.start()
    hackney.trusts(enfield, "--ca-file", stranger)
    refused_for_its_certificate(hackney, enfield)


def _handshake(port: int, version: ssl.TLSVersion, ca_file: Path) -> str | None:
    tls = ssl.create_default_context(cafile=str(ca_file))
    tls.minimum_version = tls.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        tls.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped,
    ):
        return wrapped.version()


def test_the_listener_speaks_tls_1_3_and_no_older_version(enfield: Borough, ca_file: Path) -> None:
    enfield.start()
    assert _handshake(enfield.port, ssl.TLSVersion.TLSv1_3, ca_file) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(enfield.port, ssl.TLSVersion.TLSv1_2, ca_file)


def _options(command: click.Command, place: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        yield from ((" ".join(place), option) for option in parameter.opts + parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from _options(found, (*place, name))


def test_no_option_and_no_key_of_the_configuration_skips_verification() -> None:
    options = list(_options(cli))
    assert ("peer add", "--ca-file") in options
    keys = [
        (table.name, field.name)
        for table in msgspec.structs.fields(FileTables)
        for field in msgspec.structs.fields(table.type)
    ]
    assert ("listen", "certificate") in keys
    for place, name in options + keys:
        for word in ("insecure", "skip", "no-verify", "no_verify", "verify", "trust-all", "allow-self", "check-host"):
            assert word not in name, f"{place} {name}"


def test_a_key_that_would_skip_verification_is_an_error(enfield: Borough) -> None:
    enfield.configure("delivery", verify_tls=False)
    assert "verify_tls" in exchange("run", "--config", enfield.config).one_line_error()
