"""Two real daemons and an agency's own programs: who holds a section is said, signed, shown and checked."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import DEADLINE_S, ENFIELD, HACKNEY, Borough, example, exchange, introduce, until
from tests.processes.ports import free_port
from tests.processes.test_sealed import Housing, _delivered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FORM = example("case-study-j")
ANA, BEN = "Ana Fictitious", "Ben Fictitious"
QUESTION = "Which flat is it that he moves to?"


def holder(borough: Borough, message: str, section: str = "housing") -> Any:
    rows = borough.status(message)["sections"]
    return next(row for row in rows if (row["section"], row["agency"]) == (section, "housing"))


def test_an_agency_owns_asks_and_hands_on_with_its_own_key_and_a_kill_loses_nothing(town: Town, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    port = free_port()
    enfield.configure("agencies", address=f"127.0.0.1:{port}")
    hackney.start(), enfield.start()
    introduce(hackney, enfield)
    housing = Housing(tmp_path / "housing").make()
    added = enfield.ask(
        *("agency", "add", "housing", "--url", housing.webhook, "--allow-network", "127.0.0.0/8"),
        *("--sealed-key", f"{housing.key}.pub"),
    )
    token = tmp_path / "token"
    token.write_text(enfield.ask("agency", "token", "new", added["id"])["token"])
    node = ("--node", f"http://127.0.0.1:{port}", "--token-file", token)
    with housing.serving(added["secret"], *node):
        enfield.ask("agency", "prove", added["id"])
        until(
            "Hackney has the card",
            lambda: hackney.api("GET", f"/v1/peers/{enfield.origin}")["agency_signers"].get("housing"),
        )
        message = hackney.send(FORM, ENFIELD)
        until("housing has its sections", lambda: _delivered(enfield, message, "housing"))
        refused = exchange(
            *("section", "own", message, "housing", "--agency", "housing", "--name", ANA, "--role", "Officer"),
            *("--contact", "-", "--config", enfield.config, "--json"),
        )
        assert refused.document["code"] == "agency-signs"
        hackney.kill()
        _say_on_the_page(housing, "own", {"name": ANA, "role": "Officer", "contact": "020 7946 0000"})
        enfield.kill()
        hackney.start(), enfield.start()
        until("Hackney sees who holds it", lambda: holder(hackney, message)["holder"] == ANA)
        event = _event_of(housing, enfield, message, tmp_path)
        own = ("agency-own", event, "--key", housing.key, "--name", BEN, "--role", "Duty", "--contact", "-", *node)
        assert housing.run(*own)["rung"] == "owned"
        until("Hackney sees who holds it now", lambda: holder(hackney, message)["holder"] == BEN)
        asked = ("agency-query", event, "--key", housing.key, "--question", QUESTION, *node)
        assert housing.run(*asked)["rung"] == "queried"
        until("the question is here", lambda: hackney.ask("questions", "list")["items"])
    (question,) = hackney.ask("questions", "list")["items"]
    assert (question["question"], question["delivered"]) == (QUESTION, False)
    shown = exchange("status", message, "--sections", "--config", hackney.config)
    assert BEN in shown.stdout
    exported = tmp_path / "receipts.json"
    hackney.ask("receipt", "export", message, exported)
    checked = exchange("verify", exported, "--json").document
    signed = [one for one in checked["receipts"] if one.get("agency_signed")]
    assert [one["rung"] for one in signed].count("owned") == 2
    assert {one["agency_signed"]["name"] for one in signed} == {"housing.enfield.example"}
    for borough in (hackney, enfield):
        stored = b"".join(path.read_bytes() for path in borough.directory.glob("exchange.db*"))
        assert not any(text.encode() in stored + borough.log.read_bytes() for text in (ANA, BEN, QUESTION))


def _opener(housing: Housing) -> urllib.request.OpenerDirector:
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    opener.open(housing.page, timeout=DEADLINE_S).read()
    return opener


def _say_on_the_page(housing: Housing, verb: str, fields: dict[str, str]) -> None:
    """Fill in a form of the page of the housing section; without its hidden word nothing is said."""
    opener, root = _opener(housing), housing.page.partition("/enter")[0]
    listed = opener.open(f"{root}/", timeout=DEADLINE_S).read().decode()
    match = re.search(r"href='(/sections/evt_[0-9a-f]{32})'>housing<", listed)
    assert match is not None
    page = opener.open(root + match[1], timeout=DEADLINE_S).read().decode()
    word = re.search(r"name='word' value='([^']+)'", page)
    assert word is not None
    place = f"{root}{match[1]}/{verb}"
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(place, urllib.parse.urlencode(fields).encode(), timeout=DEADLINE_S)
    assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as incomplete:
        opener.open(place, urllib.parse.urlencode({"word": word[1]}).encode(), timeout=DEADLINE_S)
    assert incomplete.value.code == 422
    said = opener.open(place, urllib.parse.urlencode({**fields, "word": word[1]}).encode(), timeout=DEADLINE_S)
    assert "The sending borough is told" in said.read().decode()


def _event_of(housing: Housing, enfield: Borough, message: str, tmp_path: Path) -> Path:
    """The body of the webhook that brought the housing section, as an agency that keeps its own files has it."""
    from exchange.agency.keys import open_agency_keys
    from exchange.crypto.names import context
    from exchange.crypto.sealing import open_sealed
    from exchange.crypto.secret import Secret

    keys = open_agency_keys(housing.key.read_bytes(), Secret(housing.passphrase.read_text().strip().encode()))
    for path in housing.inbox.glob("evt_*.sealed"):
        data = path.read_bytes()
        key = keys.private(data[:16])
        body = open_sealed(key, context("agency-inbox", path.stem.encode(), key.public.key_id), data[16:])
        if json.loads(body)["subject"] == f"{message}/housing":
            event = tmp_path / "event.json"
            event.write_bytes(body)
            return event
    raise AssertionError(f"the section of {message} is not in the inbox of housing at {enfield.origin}")
