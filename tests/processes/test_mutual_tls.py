"""Nodes as processes with mutual TLS: suspended, impersonated, and given a new certificate while messages go on."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.node.certificates import Certificate, make_certificate
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until

FORM = example("case-study-j")


def with_mutual_tls(borough: Borough, certificate: Certificate) -> Borough:
    """Have a node serve verified peers alone."""
    certificate.write(borough.directory)
    borough.configure("listen", certificate="tls.crt", key="tls.key", mutual=True)
    return borough


@pytest.fixture
def hackney(town: Town) -> Borough:
    return with_mutual_tls(town.borough("hackney", HACKNEY, scheme="https"), make_certificate("hackney"))


@pytest.fixture
def enfield(town: Town) -> Borough:
    return with_mutual_tls(town.borough("enfield", ENFIELD, scheme="https"), make_certificate("enfield"))


def test_a_peer_that_is_suspended_while_the_node_runs_is_refused_and_nothing_is_lost(
    hackney: Borough, enfield: Borough
) -> None:
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    enfield.ask("peer", "suspend", hackney.origin)
    until("nobody is admitted", lambda: enfield.api("GET", "/v1/health")["tls"]["admitted"] == 0)
    message_id = hackney.send(FORM, ENFIELD)
    until("the reason is known", lambda: hackney.status(message_id)["last_error"])
    assert "may not be verified there" in hackney.status(message_id)["last_error"]
    assert enfield.api("GET", "/v1/health")["counters"]["connections_refused"]
    assert len(enfield.ask("inbox")["items"]) == 1
    enfield.trusts(hackney)
    assert hackney.status(message_id, "received", 60)["reached"]
    assert "admits the 1 verified peers alone" in enfield.cli("health").stdout


@contextmanager
def impersonated(port: int, context: ssl.SSLContext) -> Iterator[list[bytes]]:
    """Listen in a node's place; what was heard over TLS."""
    heard: list[bytes] = []
    stopped = threading.Event()

    def listen(server: socket.socket) -> None:
        while not stopped.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    heard.append(tls.recv(65_536))
            except OSError:
                heard.append(b"")
            finally:
                connection.close()

    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(0.2)
        thread = threading.Thread(target=listen, args=(server,))
        thread.start()
        try:
            yield heard
        finally:
            stopped.set()
            thread.join()


def test_a_man_in_the_middle_with_a_certificate_of_a_trusted_authority_gets_nothing(
    hackney: Borough, enfield: Borough, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    hackney.environment["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    enfield.stop()
    with impersonated(enfield.port, context) as heard:
        message_id = hackney.send(FORM, ENFIELD)
        until("it was tried", lambda: heard and hackney.status(message_id)["last_error"])
        assert set(heard) == {b""}
    assert "its key is not the one that its card names" in hackney.status(message_id)["last_error"]
    enfield.start()
    assert hackney.status(message_id, "received", 60)["reached"]


@pytest.mark.slow
def test_a_new_key_comes_into_use_without_a_restart_and_no_message_is_lost(hackney: Borough, enfield: Borough) -> None:
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    before = enfield.ask("card", "show")["tls_spki_sha256"]
    second = make_certificate("enfield").write(enfield.directory)
    sent: list[str] = []

    def changed() -> bool:
        sent.append(hackney.send(FORM, ENFIELD))
        return bool(enfield.api("GET", "/v1/health")["tls"]["pins"] == [second.pin.hex()])

    until("the new key is in use, and the old one forgotten", changed)
    sent.append(hackney.send(FORM, ENFIELD))
    for message_id in sent:
        assert hackney.status(message_id, "received", 60)["reached"], message_id
    assert before != [second.pin.hex()]
    assert "certificate announced" in enfield.log.read_text()


def test_a_key_that_was_changed_while_the_node_was_down_is_made_known_by_the_node_itself(
    hackney: Borough, enfield: Borough
) -> None:
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    enfield.stop()
    make_certificate("enfield").write(enfield.directory)
    message_id = hackney.send(FORM, ENFIELD)
    enfield.start()
    assert hackney.status(message_id, "received", 60)["reached"]
