"""A borough moves its store to PostgreSQL and back by the command line; its peer notices nothing."""

import re
import subprocess
import sys
import time

import pytest

from tests import databases
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, exchange, introduce

pytestmark = [pytest.mark.slow, pytest.mark.sqlite, pytest.mark.timeout(300)]

FORM = example("case-study-j")


def delivered(hackney: Borough, enfield: Borough) -> str:
    message_id = hackney.send(FORM, ENFIELD)
    assert hackney.status(message_id, "received", 60)["id"] == message_id
    assert enfield.api("GET", f"/v1/messages/{message_id}")["id"] == message_id
    return message_id


def use(borough: Borough, url: str) -> None:
    """Do what the command told the admin to do."""
    text = borough.config.read_text()
    borough.config.write_text(re.sub(r'url = "(sqlite|postgresql)://[^"]*"', f'url = "{url}"', text))


def test_a_borough_moves_its_store_there_and_back(town: Town, postgresql_server: str) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    ids = [delivered(hackney, enfield)]
    url = databases.make(postgresql_server)

    refused = hackney.cli("store", "migrate", "--to", url)
    assert "another process has the store" in refused.one_line_error()
    hackney.stop()
    for number in range(6):
        _kill_a_move(hackney, url, 0.3 + 0.15 * number)
    moved = hackney.cli("store", "migrate", "--to", url)
    assert moved.code == 0, moved
    assert f'url = "{url}"' in moved.stdout
    assert "was moved to postgresql" in hackney.cli("run").one_line_error()
    use(hackney, url)
    assert hackney.ask("store", "check")["ok"]

    hackney.start()
    ids.append(delivered(hackney, enfield))
    refused = hackney.cli("store", "migrate", "--to", "sqlite:///again.db")
    assert "another process has the store" in refused.one_line_error()
    hackney.stop()

    back = hackney.ask("store", "migrate", "--to", "sqlite:///again.db")
    assert back["log"]["size"] > 0
    use(hackney, "sqlite:///again.db")
    hackney.start()
    ids.append(delivered(hackney, enfield))
    checked = hackney.ask("store", "check")
    assert checked["ok"]
    assert checked["origin"] == hackney.origin
    for borough, verb in ((hackney, "outbox"), (enfield, "inbox")):
        assert sorted(row["id"] for row in borough.ask(verb)["items"]) == sorted(ids)
        assert borough.ask("alarms") == {"items": []}


def _kill_a_move(borough: Borough, url: str, after_s: float) -> None:
    """Kill a move at some moment; a node starts on nothing, or on all of it."""
    arguments = ["store", "migrate", "--to", url, "--config", str(borough.config)]
    process = subprocess.Popen(
        [sys.executable, "-m", "exchange.cli.main", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(after_s)  # when to kill is what is being tried here
    process.kill()
    process.wait()
    there = databases.rows(url, "SELECT to_regclass('log_head') IS NOT NULL")
    if there == [(True,)]:
        whole = databases.rows(url, "SELECT (SELECT size FROM log_head), (SELECT count(*) FROM statements)")
        assert whole[0][0] == whole[0][1] > 0
    else:
        text = borough.config.read_text()
        use(borough, url)
        assert "there is no store" in borough.cli("run").one_line_error()
        borough.config.write_text(text)


def test_a_store_that_was_tampered_with_is_found_out(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY)
    assert hackney.ask("store", "check")["ok"]
    path = hackney.directory / "exchange.db"
    data = path.read_bytes()
    (position,) = databases.rows(f"sqlite:///{path}", "SELECT max(position) FROM statements WHERE type = 'card'")
    (statement,) = databases.rows(f"sqlite:///{path}", "SELECT statement FROM statements WHERE position = ?", *position)
    assert data.count(statement[0][:60]) == 1
    path.write_bytes(data.replace(b"Borough of Hackney", b"Borough of Hackneu"))

    assert "not the one that was signed" in hackney.cli("store", "check").one_line_error()
    path.write_bytes(data)
    assert hackney.ask("store", "check")["ok"]


def test_a_url_that_cannot_be_is_named(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY)
    for url, what in (("mysql://x/y", "must be sqlite"), ("postgresql://a:secret@h/d", "must not hold a password")):
        told = exchange("store", "migrate", "--to", url, "--config", hackney.config).one_line_error()
        assert what in told
        assert "secret" not in told
