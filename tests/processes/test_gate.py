"""The gate by the command line, between real nodes: agreements, a second person, an emergency; restored and moved."""

import hashlib
import json
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import databases
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until
from tests.processes.ports import free_port
from tests.processes.test_backups import Admin, rejoined, restored
from tests.processes.test_store import use

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TODAY = datetime.now(UTC).date()
BASES = (
    *("--basis", "law-enforcement/crime-and-disorder-s115"),
    *("--basis", "health=uk-gdpr/health-and-care-s251b"),
    *("--basis", "childrens-social-care=uk-gdpr/children-act-2004-s10"),
)
REASON = "Zephyrine Quillfeather was followed home"


def agree(borough: Borough, *more: object, days: int = 300) -> Any:
    until_day = TODAY + timedelta(days=days)
    return borough.ask(
        *("agreement", "add", "--with", ENFIELD, "--title", "North London gangs protocol", "--reference", "IG-1"),
        *("--from", TODAY - timedelta(days=1), "--until", until_day, *BASES, *more),
    )


def form_in(directory: Path, name: str) -> Path:
    path = directory / f"{name}.json"
    path.write_bytes(example(name))
    return path


def by_token(borough: Borough, token: str, method: str, path: str, body: Any) -> Any:
    address = borough.setting("local", "address")
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_on_a_node_that_nobody_configured_a_form_leaves_and_its_sender_is_told(town: Town, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    form = form_in(tmp_path, "case-study-j")

    sent = hackney.cli("send", form, "--to", ENFIELD, "--wait", "received")

    assert sent.code == 0, sent
    assert "Warning: agreement: no sharing agreement with E09000010 is on file." in sent.stderr
    assert 'Set agreements = "required"' in hackney.cli("health").stderr
    made = agree(hackney)
    quiet = hackney.cli("send", form, "--to", ENFIELD, "--wait", "received")
    assert (quiet.code, "Warning" in quiet.stderr) == (0, False)
    document = json.loads(hackney.cli("send", form, "--to", ENFIELD, "--json").stdout)
    assert document["warnings"] == []
    shown = hackney.cli("status", document["id"], "--sections").stdout
    assert f"uk-gdpr health-and-care-s251b {made['id']}" in shown


def test_agreements_by_the_command_line(town: Town, tmp_path: Path) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    protocol = tmp_path / "protocol.pdf"
    protocol.write_bytes(b"a document")
    made = agree(hackney, "--file", protocol, "--agencies", "police, health, childrens-social-care", days=20)
    assert made["sha256"] == hashlib.sha256(b"a document").hexdigest()
    assert (made["state"], made["kinds"]) == ("ending", ["childrens-social-care", "health", "police"])
    assert "health: uk-gdpr/health-and-care-s251b" in hackney.cli("agreement", "show", made["id"]).stdout
    assert made["id"] in hackney.cli("agreement", "list").stdout
    alarm = until("the admins are told", lambda: hackney.ask("alarms")["items"])[0]
    assert alarm["kind"] == "agreement-ends"
    ended = hackney.ask("agreement", "expire", made["id"], "--reason", "renewed as another")
    assert (ended["state"], ended["ended_reason"]) == ("expired", "renewed as another")
    again = hackney.cli("agreement", "expire", made["id"], "--reason", "again")
    assert again.code == 1
    for words, code in ((("--basis", "goodwill"), 2), (("--basis", "weather=uk-gdpr/common-law"), 2)):
        refused = hackney.cli(
            *("agreement", "add", "--with", ENFIELD, "--title", "t", "--reference", "r"),
            *("--from", TODAY, "--until", TODAY, *words),
        )
        assert refused.code == code, refused
        assert "Traceback" not in refused.one_line_error()
    assert hackney.cli("agreement", "show", "agreement-none").code == 3


def test_where_all_is_required_a_form_needs_an_agreement_and_a_second_person(town: Town, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD).start()
    hackney.configure("gate", agreements="required", second_approver=["urgent", "under-18", "associates"])
    hackney.configure("local", address=f"127.0.0.1:{free_port()}")
    hackney.start()
    introduce(hackney, enfield)
    form, urgent = form_in(tmp_path, "case-study-j"), form_in(tmp_path, "urgent")

    refused = hackney.cli("send", form, "--to", ENFIELD, "--json")
    assert (refused.code, refused.document["code"]) == (5, "gate-closed")
    assert "exchange agreement add --with E09000010" in hackney.cli("send", form, "--to", ENFIELD).stderr
    preview = hackney.cli("send", form, "--to", ENFIELD, "--dry-run", "--json")
    assert (preview.code, preview.document["ok"]) == (5, False)
    assert hackney.cli("send", form, "--to", ENFIELD, "--override", "why").code == 5, "it is no emergency"
    agree(hackney)
    checked = hackney.cli("form", "check", form, "--ask-node")
    assert checked.code == 0, checked
    assert "A second person would have to approve the form." in checked.stderr

    sent = hackney.ask("send", form, "--to", ENFIELD)
    assert sent["awaits_approval"]
    assert sent["id"] in hackney.cli("approvals", "list").stdout
    assert "health-and-care-s251b" in hackney.cli("approvals", "show", sent["id"]).stdout
    own = hackney.cli("approve", sent["id"])
    assert own.code == 4, own
    assert "Another person runs" in own.one_line_error()
    token = hackney.ask("token", "new", "ben")["token"]
    digest = hashlib.sha256(form.read_bytes()).hexdigest()
    by_token(hackney, token, "POST", f"/v1/approvals/{sent['id']}/approve", {"sha256": digest})
    assert hackney.status(sent["id"], "received", 60)["reached"]
    assert "ben approved it." in hackney.cli("explain", sent["id"]).stdout

    other = hackney.ask("send", urgent, "--to", ENFIELD)
    taken_back = hackney.ask("approvals", "refuse", other["id"], "--reason", REASON)
    assert taken_back["state"] == "refused"
    assert REASON in hackney.cli("explain", other["id"]).stdout
    tonight = hackney.cli("send", urgent, "--to", ENFIELD, "--override", REASON, "--wait", "received")
    assert tonight.code == 0, tonight
    assert REASON in hackney.cli("overrides", "list").stdout
    shown = hackney.cli("status", other["id"])
    assert "Sent by" in shown.stderr
    assert "refused by" in shown.stderr
    assert {row["kind"] for row in hackney.ask("alarms")["items"]} == {"gate-overridden"}
    assert len(enfield.ask("inbox")["items"]) == 2
    hackney.stop()
    files = [path for path in hackney.directory.rglob("*") if path.is_file()] + [hackney.log]
    assert [path.name for path in files if REASON.encode() in path.read_bytes()] == []


def _told(borough: Borough) -> dict[str, Any]:
    """What a node keeps of its gate."""
    return {verb: borough.ask(verb, "list")["items"] for verb in ("agreement", "overrides", "approvals")}


def _with_everything(hackney: Borough, tmp_path: Path) -> dict[str, Any]:
    """An agreement, a form that passed by an override, and one that awaits a second person."""
    agree(hackney)
    urgent = form_in(tmp_path, "urgent")
    overridden = hackney.ask("send", urgent, "--to", ENFIELD, "--override", REASON)
    assert hackney.status(overridden["id"], "received", 60)["reached"]
    hackney.ask("send", urgent, "--to", ENFIELD)
    told = _told(hackney)
    assert [len(items) for items in told.values()] == [1, 1, 1]
    assert told["overrides"][0]["reason"] == REASON
    return told


def _approve_all(hackney: Borough, told: dict[str, Any]) -> None:
    token = hackney.ask("token", "new", "ben")["token"]
    for row in told["approvals"]:
        by_token(hackney, token, "POST", f"/v1/approvals/{row['id']}/approve", {})
        assert hackney.status(row["id"], "received", 60)["reached"]


def _guarded(town: Town) -> Borough:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD).start()
    hackney.configure("gate", agreements="required", second_approver=["urgent"])
    hackney.configure("local", address=f"127.0.0.1:{free_port()}")
    hackney.start()
    introduce(hackney, enfield)
    return hackney


def test_a_node_that_was_restored_has_its_agreements_approvals_and_overrides(town: Town, tmp_path: Path) -> None:
    admin, hackney = Admin(tmp_path / "admin"), _guarded(town)
    told = _with_everything(hackney, tmp_path)
    backup = tmp_path / "hackney.backup"
    hackney.ask("backup", "create", backup, "--to", admin.public)

    back = admin.restore(backup, tmp_path / "restored")

    assert back.code == 0, back
    restored(hackney, Path(back.document["config"])).start()
    rejoined(hackney)
    assert _told(hackney) == told
    _approve_all(hackney, told)


@pytest.mark.sqlite
def test_a_store_that_moves_takes_its_agreements_approvals_and_overrides_along(
    town: Town, tmp_path: Path, postgresql_server: str
) -> None:
    hackney = _guarded(town)
    told = _with_everything(hackney, tmp_path)
    url = databases.make(postgresql_server)
    hackney.stop()
    assert hackney.cli("store", "migrate", "--to", url).code == 0
    use(hackney, url)
    hackney.start()
    assert _told(hackney) == told
    _approve_all(hackney, told)
