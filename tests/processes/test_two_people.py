"""Where two people must verify a peer: by accounts that may open the socket, and by tokens over HTTP."""

import grp
import json
import os
import stat
import urllib.request
from typing import Any

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough
from tests.processes.ports import free_port


def with_two_people(borough: Borough, local: str) -> Borough:
    text = borough.config.read_text()
    assert "[local]\n" in text
    text = text.replace("[local]\n", f"[local]\n{local}\n")
    borough.config.write_text(f"{text}\n[trust]\ntwo_people = true\n")
    return borough


def test_the_first_verifies_by_an_account_and_the_second_by_a_token(town: Town) -> None:
    port = free_port()
    hackney = with_two_people(town.borough("hackney", HACKNEY), f'address = "127.0.0.1:{port}"').start()
    enfield = town.borough("enfield", ENFIELD)
    first = hackney.trusts(enfield)
    assert first["trust"] == "confirming"
    again = hackney.cli("peer", "verify", enfield.origin, "--fingerprint", first["fingerprint"], "--json")
    assert again.code == 4
    assert again.document["hint"] == "Another person runs it, from an account of their own."

    token = hackney.ask("token", "new", "ben")["token"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/peers/verify/{enfield.origin}",
        json.dumps({"fingerprint": first["fingerprint"]}).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        second: Any = json.load(answer)

    assert second["trust"] == "verified"
    shown = hackney.ask("peer", "show", enfield.origin)["verifications"]
    assert {row["who"] for row in shown} == {first["confirmed_first_by"], "ben"}
    assert len(shown) == 2


def test_the_socket_is_open_to_the_group_that_is_named_and_otherwise_to_the_node_alone(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    socket = hackney.directory / "exchange.sock"
    assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
    hackney.stop()
    group = grp.getgrgid(os.getgid())
    with_two_people(hackney, f'group = "{group.gr_name}"').start()
    assert (stat.S_IMODE(socket.stat().st_mode), socket.stat().st_gid) == (0o660, group.gr_gid)


def test_a_group_that_is_not_there_is_refused_by_its_name(town: Town) -> None:
    hackney = with_two_people(town.borough("hackney", HACKNEY), 'group = "nobody-has-this-group"')
    refused = hackney.cli("run")
    assert refused.code == 1
    assert "local.group: there is no group nobody-has-this-group" in refused.one_line_error()
