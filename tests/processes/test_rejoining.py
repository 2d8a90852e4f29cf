"""A node whose store is a copy from before: it asks its peers for what it lost, and continues its log."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until

pytestmark = pytest.mark.slow

CAMDEN = "E09000007"
FORM = example("case-study-j")


def form(here: str, there: str) -> bytes:
    return (
        FORM.replace(HACKNEY.encode(), b"E09000099")
        .replace(ENFIELD.encode(), there.encode())
        .replace(b"E09000099", here.encode())
    )


def alarms(borough: Borough) -> list[str]:
    return [row["kind"] for row in borough.api("GET", "/v1/alarms")["items"]]


def exported(borough: Borough, message_id: str, path: Path) -> dict[str, Any]:
    borough.ask("receipt", "export", message_id, path)
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def rejoined(borough: Borough) -> dict[str, Any]:
    document: dict[str, Any] = until("the node has rejoined", lambda: _joined(borough))
    return document


def _joined(borough: Borough) -> Any:
    from exchange.cli.client import CommandFailed

    try:
        document = borough.api("GET", "/v1/rejoin")
    except CommandFailed:
        return None
    return document["last"] if document["state"] == "joined" else None


def settled(*boroughs: Borough) -> None:
    for borough in boroughs:
        until(f"{borough.origin} has nothing to deliver", borough.is_idle)


def test_a_copy_from_yesterday_rejoins_and_nobody_sees_a_fork(town: Town, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    hackney.add_agencies(town.receiver())
    enfield.add_agencies(town.receiver())
    assert hackney.status(hackney.send(form(HACKNEY, ENFIELD), ENFIELD), "delivered", 60)["reached"]
    settled(hackney, enfield)
    hackney.stop()
    yesterday = town.copy_of(hackney, "yesterday")
    hackney.start()
    sent = hackney.send(form(HACKNEY, ENFIELD), ENFIELD)
    came = enfield.send(form(ENFIELD, HACKNEY), HACKNEY)
    assert hackney.status(sent, "delivered", 60)["reached"]
    assert enfield.status(came, "delivered", 60)["reached"]
    settled(hackney, enfield)
    before = exported(enfield, came, tmp_path / "before.json")
    hackney.kill()

    yesterday.configure("node")
    yesterday.config.write_text(yesterday.config.read_text().replace(f":{yesterday.port}", f":{hackney.port}"))
    yesterday.start(wait=False, arguments=("--rejoin",))

    record = rejoined(yesterday)
    until("it answers", yesterday.answers)
    assert record["size"] > record["size_before"]
    assert record["returned"] > 0
    assert record["forks_at"] == []
    after = yesterday.send(form(HACKNEY, ENFIELD), ENFIELD)
    again = enfield.send(form(ENFIELD, HACKNEY), HACKNEY)
    assert yesterday.status(after, "received", 60)["reached"]
    assert enfield.status(again, "received", 60)["reached"]
    settled(yesterday, enfield)
    assert {row["rung"] for row in yesterday.status(sent)["sections"]} == {"delivered"}
    assert {row["rung"] for row in yesterday.status(came)["sections"]} == {"delivered"}
    assert "fork" not in alarms(enfield)
    assert alarms(yesterday) == []
    assert alarms(enfield) == ["peer-restored"]
    assert exported(yesterday, came, tmp_path / "after.json")["receipts"] == before["receipts"]
    for path in ("before.json", "after.json"):
        assert yesterday.cli("verify", tmp_path / path).code == 0
