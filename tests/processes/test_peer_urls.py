"""What a real node makes of what a peer's URL serves: yesterday's card, an expired one, another node, a revocation."""

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.cli.client import CommandFailed
from exchange.node.cards import NO_CURRENT_KEY
from exchange.schema.card_file import CardFile
from tests.node.handmade import Borough as HandMade
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, exchange, introduce, until
from tests.processes.ports import free_port
from tests.processes.test_two_logs import turned

pytestmark = pytest.mark.slow

CAMDEN = "E09000007"
FORM = example("case-study-j")
REFRESH_S = 1.5
DAY_S = 86_400


@contextmanager
def web_server(port: int, content: bytes) -> Iterator[list[str]]:
    """Any web server that answers with a file where a card is asked for; which paths were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = self.path == "/v1/card"
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(content if found else b"{}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def boroughs(town: Town) -> tuple[Borough, Borough]:
    """Hackney and Enfield, running; Enfield asks for cards every moment."""
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    enfield.configure("keys", card_refresh_hours=REFRESH_S / 3600)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    return hackney, enfield


def known(borough: Borough, origin: str) -> Any:
    return borough.api("GET", f"/v1/peers/{origin}")


def refused(borough: Borough, code: str) -> bool:
    """Whether a card was refused, with that code in the log."""
    lines = [json.loads(line) for line in borough.log.read_text().splitlines() if line.startswith("{")]
    return any(line["event"] == "card refused" and line["code"] == code for line in lines)


def test_yesterdays_card_at_a_peers_url_is_refused_and_changes_nothing(town: Town) -> None:
    hackney, enfield = boroughs(town)
    old = json.dumps(hackney.ask("card", "show")["card"]).encode()
    hackney.add_agency("housing", town.receiver())
    until("Enfield has the newer card", lambda: known(enfield, hackney.origin)["agencies"] == ["housing"])
    before = known(enfield, hackney.origin)
    hackney.stop()

    with web_server(hackney.port, old):
        until("the old card is refused", lambda: refused(enfield, "card-rolled-back"))

    after = known(enfield, hackney.origin)
    assert (after["trust"], after["serial"]) == ("verified", before["serial"])
    hackney.start()
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]


def test_an_expired_card_is_refused_from_a_file_and_from_the_peers_url(town: Town, tmp_path: Path) -> None:
    enfield = town.borough("enfield", ENFIELD)
    enfield.configure("keys", card_refresh_hours=REFRESH_S / 3600)
    enfield.start()
    camden = HandMade("exchange.camden.example", CAMDEN, lambda: time.time_ns() // 1_000_000)
    port = free_port()
    camden.url = f"http://127.0.0.1:{port}"
    file = tmp_path / "camden.card"

    def written(**changes: Any) -> bytes:
        card = camden.card(**changes)
        data = msgspec.json.encode(CardFile(card.statement, card.proof))
        file.write_bytes(data)
        return data

    long_ago = datetime.now(UTC) - timedelta(days=91)
    expired = {"issued_at": long_ago, "expires_at": long_ago + timedelta(days=90), "name": "Long ago"}
    written(**expired)
    told = enfield.cli("peer", "import", file)
    assert told.code == 2
    assert "has expired" in told.one_line_error()
    assert enfield.ask("peer", "list") == {"items": []}
    written()
    enfield.ask("peer", "import", file, "--fingerprint", camden.fingerprint)

    with web_server(port, written(**expired)):
        until("the expired card is refused", lambda: refused(enfield, "card-expired"))

    assert known(enfield, camden.origin)["name"] != "Long ago"


@pytest.mark.sqlite
def test_a_form_for_a_peer_that_is_away_for_longer_than_its_keys_live_is_held_and_goes_when_it_is_back(
    town: Town,
) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    enfield.configure("keys", sealing_lifetime_days=6 / DAY_S, sealing_grace_days=30 / DAY_S)
    with closing(sqlite3.connect(enfield.directory / "exchange.db")) as database:
        # The one that `init` made lives for a week.
        database.execute("DELETE FROM sealing_keys")
        database.commit()
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    enfield.stop()
    ends = [datetime.fromisoformat(key["not_after"]) for key in known(hackney, enfield.origin)["sealing_keys"]]
    until("the keys of Enfield have ended", lambda: datetime.now(UTC) > max(ends))

    message = hackney.send(FORM, ENFIELD)

    assert hackney.status(message)["held"] == NO_CURRENT_KEY
    assert [row["reason"] for row in hackney.ask("held", "list")["items"] if row["id"] == message] == [NO_CURRENT_KEY]
    enfield.start()
    assert hackney.status(message, "received", 60)["reached"], "it goes by itself"
    assert hackney.status(message)["held"] is None


def test_another_identity_at_a_peers_url_blocks_it_and_says_why_until_people_have_spoken(town: Town) -> None:
    hackney, enfield = boroughs(town)
    genuine = known(enfield, hackney.origin)["fingerprint"]
    hackney.stop()
    # A node of the same name, made anew: no rotation leads to its keys.
    made = exchange(
        *("init", town.root / "another", "--area", HACKNEY, "--name", "Borough of Hackney"),
        *(
            "--origin",
            hackney.origin,
            "--listen",
            f"127.0.0.1:{hackney.port}",
            "--url",
            f"http://127.0.0.1:{hackney.port}",
        ),
    )
    assert made.code == 0, made
    another = hackney.copied("unused")
    another.directory = town.root / "another"
    another.config, another.port = another.directory / "exchange.toml", hackney.port
    with running(another):
        until("the peer is blocked", lambda: known(enfield, hackney.origin)["trust"] == "blocked")
        shown = another.ask("card", "show")["fingerprint"]

        peer = known(enfield, hackney.origin)
        assert (peer["fingerprint"], peer["candidate"]) == (genuine, shown)
        (alarm,) = enfield.ask("alarms")["items"]
        assert (alarm["kind"], alarm["origin"]) == ("identity-changed", hackney.origin)
        told = enfield.cli("peer", "explain", hackney.origin).stdout
        for words in ("is blocked", "no proof", "Telephone its admin", f"exchange peer verify {hackney.origin}"):
            assert words in told
        with pytest.raises(CommandFailed) as refused_to_send:
            enfield.send(turned(FORM), HACKNEY)
        assert refused_to_send.value.code == "peer-untrusted"
    # It was not the borough. Its own node is there again, and the admin has heard its fingerprint.
    hackney.start()
    enfield.ask("peer", "verify", hackney.origin, "--fingerprint", genuine)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    assert known(enfield, hackney.origin)["trust"] == "verified"


@contextmanager
def running(borough: Borough) -> Iterator[None]:
    borough.start()
    try:
        yield
    finally:
        borough.stop()


def test_a_revocation_at_the_url_of_a_node_that_is_gone_is_known_within_one_refresh(town: Town) -> None:
    hackney, enfield = boroughs(town)
    revocation = (hackney.directory / "revocation.json").read_bytes()
    hackney.kill()
    shutil.rmtree(hackney.directory)

    with web_server(hackney.port, revocation) as asked:
        until("Enfield knows", lambda: known(enfield, hackney.origin)["trust"] == "revoked")
        times = len(asked)

    # The first answer was enough.
    assert [path for path in asked[:times] if path == "/v1/card"] == ["/v1/card"]
    assert [alarm["kind"] for alarm in enfield.ask("alarms")["items"]] == ["revoked"]
    assert "exchange peer import" in enfield.cli("peer", "explain", hackney.origin).stdout


def test_after_the_loss_of_its_machine_a_node_under_its_backup_changes_its_keys_and_peers_follow(town: Town) -> None:
    hackney, enfield = boroughs(town)
    words = town.root / "words"
    words.write_text("plainly fictitious words\n")
    words.chmod(0o600)
    hackney.ask("keys", "backup", town.root / "keys.backup", "--backup-passphrase-file", words)
    hackney.stop()
    # The store was on another disk; keystore and passphrase may be in somebody's hands.
    for name in ("keystore.json", "passphrase"):
        (hackney.directory / name).unlink()
    fresh = town.root / "fresh"
    fresh.write_text("other plainly fictitious words\n")
    fresh.chmod(0o600)
    restored = exchange(
        *("keys", "restore", town.root / "keys.backup", "--backup-passphrase-file", words),
        *("--new-passphrase-file", fresh, hackney.directory, "--json"),
    )
    assert restored.code == 0, restored
    shutil.copy(fresh, hackney.directory / "passphrase")
    hackney.start()

    rotated = hackney.ask("keys", "rotate", "--yes", "--revocation", town.root / "next.json")

    until("Enfield follows", lambda: known(enfield, hackney.origin)["fingerprint"] == rotated["fingerprint"])
    peer = enfield.ask("peer", "show", hackney.origin)
    assert peer["trust"] == "verified"
    assert [record["how"] for record in peer["verifications"]] == ["fingerprint", "rotation"]
    assert enfield.ask("alarms") == {"items": []}
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
