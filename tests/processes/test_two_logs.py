"""Two logs under one name: a thief with copied keys, a node that was set back, and a liar who shows each peer its own.

The first two are found at the next message, the third when peers compare what they have seen.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from exchange.cli.client import TRUST_REFUSED, CommandFailed
from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.names import Origin
from exchange.crypto.note import parse_vkey
from exchange.node.config import load_configuration
from tests import databases
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until

FORM = example("case-study-j")


def turned(form: bytes) -> bytes:
    """The form in the other direction."""
    here, there, aside = HACKNEY.encode(), ENFIELD.encode(), b"E09000099"
    return form.replace(here, aside).replace(there, here).replace(aside, there)


def trust(borough: Borough, of: Borough) -> str:
    return str(borough.api("GET", f"/v1/peers/{of.origin}")["trust"])


def quarantined(borough: Borough, of: Borough) -> None:
    until(f"{borough.origin} sees the fork", lambda: trust(borough, of) == "quarantined")


def verify_again(borough: Borough, other: Borough) -> None:
    """What the admin does once the telephone has explained it."""
    fingerprint = other.ask("card", "show")["fingerprint"]
    borough.ask("peer", "verify", other.origin, "--fingerprint", fingerprint)


def inbox(borough: Borough) -> list[str]:
    return [row["id"] for row in borough.api("GET", "/v1/inbox")["items"]]


def arrives(sender: Borough, receiver: Borough, message_id: str) -> None:
    """Wait until a message is received, released by hand where it is held."""
    for row in sender.api("GET", "/v1/held")["items"]:
        sender.ask("held", "release", row["number"])
    assert sender.status(message_id, "received", 60)["reached"]
    assert message_id in inbox(receiver)


def claims(document: dict[str, Any]) -> list[tuple[int, str]]:
    (fork,) = document["forks"]
    return [(fork[key]["size"], fork[key]["root"]) for key in ("held", "shown")]


@pytest.fixture
def introduced(town: Town) -> tuple[Borough, Borough]:
    """Hackney and Enfield, running; Enfield has heard of Hackney once."""
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    return hackney, enfield


def test_a_thief_is_found_at_the_first_message_and_nothing_sent_in_good_faith_is_lost(
    introduced: tuple[Borough, Borough], town: Town, tmp_path: Path
) -> None:
    hackney, enfield = introduced
    hackney.stop()
    thief = town.copy_of(hackney, "thief")
    hackney.start()
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    before = inbox(enfield)

    thief.start()
    false = thief.send(FORM, ENFIELD)

    quarantined(enfield, hackney)
    assert inbox(enfield) == before, "what shows the fork is not routed"
    true = hackney.send(FORM, ENFIELD)
    until("Hackney hears that it is refused", lambda: _last_error(hackney, enfield))
    with pytest.raises(CommandFailed) as refused:
        enfield.send(turned(FORM), HACKNEY)
    assert refused.value.exit_code == TRUST_REFUSED
    assert inbox(enfield) == before

    told = enfield.cli("peer", "explain", hackney.origin)
    assert told.code == 0
    for words in ("quarantined", "keys were stolen", "Telephone its admin", f"exchange peer verify {hackney.origin}"):
        assert words in told.stdout
    thief.kill()
    verify_again(enfield, hackney)
    arrives(hackney, enfield, true)
    assert false not in inbox(enfield)


def _last_error(borough: Borough, peer: Borough) -> bool:
    return bool(borough.api("GET", f"/v1/peers/{peer.origin}")["last_error"])


def test_a_node_that_was_set_back_is_found_at_its_next_message_and_goes_on_once_verified(
    introduced: tuple[Borough, Borough], town: Town, tmp_path: Path
) -> None:
    hackney, enfield = introduced
    hackney.stop()
    yesterday = town.copy_of(hackney, "yesterday")
    hackney.start()
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
    hackney.stop()
    before = inbox(enfield)

    yesterday.start()
    lost_its_memory = yesterday.send(FORM, ENFIELD)

    quarantined(enfield, hackney)
    assert inbox(enfield) == before
    document = enfield.ask("peer", "explain", hackney.origin, "--evidence", tmp_path / "evidence.json")
    (held, shown) = claims(document)
    assert held != shown
    kept = json.loads((tmp_path / "evidence.json").read_text())
    first, second = kept["signing_keys"]
    for key in ("held", "shown"):
        claim = kept["forks"][0][key]
        keys = parse_vkey(first), parse_vkey(second)
        checkpoint = parse_checkpoint(claim["checkpoint"], Origin(hackney.origin), keys)
        assert (checkpoint.size, checkpoint.root.hex()) == (claim["size"], claim["root"])
    again = enfield.cli("peer", "explain", hackney.origin, "--evidence", tmp_path / "evidence.json")
    assert "nothing was written" in again.one_line_error()

    verify_again(enfield, yesterday)
    arrives(yesterday, enfield, lost_its_memory)
    assert trust(enfield, hackney) == "verified"


@pytest.mark.slow
def test_a_liar_who_shows_two_peers_two_histories_is_found_when_they_compare(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    camden = town.borough("camden", "E09000007")
    for borough in (camden, hackney, enfield):
        borough.configure("trust", compare_logs_hours=0.0005)
        borough.start()
    for borough in (hackney, enfield):
        introduce(borough, camden)
    store = load_configuration(camden.config).store_url
    until("Camden has told its peers something", lambda: databases.rows(store, "SELECT at_ms FROM sightings"))
    camden.stop()
    # It is careful: neither of its nodes tells both peers anything from now on.
    camden.config.write_text(
        camden.config.read_text().replace("compare_logs_hours = 0.0005", "compare_logs_hours = 168")
    )
    liar = town.copy_of(camden, "liar")
    camden.start()
    liar.start()
    camden_form = FORM.replace(HACKNEY.encode(), b"E09000007")
    # Two nodes of one name, each to one peer, each going on from what that peer has seen.
    to_hackney = camden.send(camden_form.replace(ENFIELD.encode(), HACKNEY.encode()), HACKNEY)
    to_enfield = liar.send(camden_form, ENFIELD)
    assert camden.status(to_hackney, "received", 60)["reached"]
    assert liar.status(to_enfield, "received", 60)["reached"]
    assert trust(hackney, camden) == trust(enfield, camden) == "verified"

    hackney.trusts(enfield)
    enfield.trusts(hackney)

    for borough, other in ((hackney, enfield), (enfield, hackney)):
        quarantined(borough, camden)
        told = borough.cli("peer", "explain", camden.origin).stdout
        assert f"{other.origin} has seen the other" in told
        (fork,) = borough.ask("peer", "explain", camden.origin)["forks"]
        assert fork["held"]["root"] != fork["shown"]["root"]
    # What arrived before stays where it is; what people have to decide is whom to believe from now on.
    assert (inbox(hackney), inbox(enfield)) == ([to_hackney], [to_enfield])
    assert trust(hackney, enfield) == trust(enfield, hackney) == "verified"


def test_of_a_peer_in_good_standing_there_is_little_to_explain(introduced: tuple[Borough, Borough]) -> None:
    hackney, enfield = introduced
    told = enfield.cli("peer", "explain", hackney.origin)
    assert told.stdout.startswith(f"{hackney.origin} is verified: fingerprint, at 20")
    assert len(told.stdout.splitlines()) == 1
    enfield.ask("peer", "suspend", hackney.origin)
    told = enfield.cli("peer", "explain", hackney.origin)
    assert f"exchange peer verify {hackney.origin}" in told.stdout
    evidence = enfield.cli("peer", "explain", hackney.origin, "--evidence", "nothing.json")
    assert "no fork" in evidence.one_line_error()
    assert enfield.cli("peer", "explain", "exchange.nobody.example").code == 3
