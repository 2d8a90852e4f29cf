"""What a person meets when something is wrong: what happened, what was kept, what to do next; and what goes on."""

import json
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pysqlite3
import pytest

from tests.processes.conftest import Town
from tests.processes.harness import (
    ENFIELD,
    HACKNEY,
    KINDS,
    Borough,
    Result,
    allowed_by,
    example,
    exchange,
    introduce,
    until,
)
from tests.processes.receiver import HANG

FORM = example("case-study-j")
ALLOWED = allowed_by(FORM)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Whom a form may be sent to


@pytest.fixture(scope="module")
def form_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("forms") / "form.json"
    file.write_bytes(FORM)
    return file


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[tuple[Borough, Path, str]]:
    """A running Hackney that knows nobody, and card and fingerprint of an Enfield that does not run."""
    town = Town(tmp_path_factory.mktemp("strangers"), templates)
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    card = town.root / "enfield-card.json"
    fingerprint = enfield.ask("card", "export", card)["fingerprint"]
    yield hackney.start(), card, fingerprint
    town.end()


def refused_with_nothing_stored(hackney: Borough, form: Path, code: int) -> Any:
    """Sending is refused with that exit code, as text and as JSON, and leaves nothing; the JSON error."""
    assert hackney.cli("send", form, "--to", ENFIELD).one_line_error()
    result = hackney.cli("send", form, "--to", ENFIELD, "--json")
    assert result.code == code, result
    assert hackney.ask("outbox") == {"items": []}
    assert result.document["hint"]
    return result.document


def test_only_a_verified_peer_can_be_sent_to(strangers: tuple[Borough, Path, str], form_file: Path) -> None:
    hackney, card, fingerprint = strangers
    origin = "exchange.enfield.example"
    error = refused_with_nothing_stored(hackney, form_file, 3)
    assert (error["code"], ENFIELD in error["message"]) == ("peer-unknown", True)

    wrong = hackney.cli("peer", "add", card, "--fingerprint", "0" * 64, "--json")
    assert (wrong.code, wrong.document["code"]) == (4, "fingerprint-mismatch")
    assert hackney.ask("peer", "list") == {"items": []}

    assert hackney.ask("peer", "add", card)["trust"] == "unverified"
    error = refused_with_nothing_stored(hackney, form_file, 4)
    assert error["code"] == "peer-untrusted"
    assert "unverified" in error["message"]

    wrong = hackney.cli("peer", "verify", origin, "--fingerprint", "0" * 64, "--json")
    assert (wrong.code, wrong.document["code"]) == (4, "fingerprint-mismatch")
    assert hackney.ask("peer", "show", origin)["trust"] == "unverified"
    assert hackney.ask("peer", "verify", origin, "--fingerprint", fingerprint)["trust"] == "verified"

    assert hackney.ask("peer", "suspend", origin)["trust"] == "suspended"
    error = refused_with_nothing_stored(hackney, form_file, 4)
    assert "suspended" in error["message"]

    hackney.ask("peer", "remove", origin)
    assert hackney.ask("peer", "list") == {"items": []}
    refused_with_nothing_stored(hackney, form_file, 3)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("subject.name", lambda form: form["subject"].pop("name")),
        ("subject.name", lambda form: form["subject"].update(name="")),
        ("subject.date_of_birth", lambda form: form["subject"].update(date_of_birth="2003-02-30")),
        ("subject", lambda form: form["subject"].update(shoe_size=44)),
        ("referral.move_type", lambda form: form["referral"].update(move_type="soon")),
        ("referral.erase_on", lambda form: form["referral"].update(erase_on="2020-01-01")),
        ("referral.from_area", lambda form: form["referral"].update(from_area="E09000011")),
        ("referral.to_area", lambda form: form["referral"].update(to_area="E09000011")),
    ],
)
def test_a_bad_form_is_refused_with_the_path_to_the_field_and_nothing_is_stored(
    strangers: tuple[Borough, Path, str], tmp_path: Path, path: str, change: Callable[[Any], Any]
) -> None:
    hackney, *_ = strangers
    form = json.loads(FORM)
    change(form)
    file = tmp_path / "form.json"
    file.write_text(json.dumps(form))
    result = hackney.cli("send", file, "--to", ENFIELD, "--json")
    assert result.code == 5, result
    assert path in {finding["path"] for finding in result.document["findings"]}
    assert f"error: {path}: " in result.stderr
    assert hackney.ask("outbox") == {"items": []}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"referral": ' * 2000, b'{"referral": NaN}', b'{"referral": "\\ud800"}'],
)
def test_what_is_no_form_at_all_is_refused_without_a_traceback(
    strangers: tuple[Borough, Path, str], tmp_path: Path, content: bytes
) -> None:
    hackney, *_ = strangers
    file = tmp_path / "form.json"
    file.write_bytes(content)
    for command in (("send", file, "--to", ENFIELD), ("form", "check", file)):
        result = hackney.cli(*command, "--json")
        assert result.code == 5, result
        assert result.document["findings"]
        assert "Traceback" not in result.stderr
    assert hackney.ask("outbox") == {"items": []}


def test_what_is_no_envelope_is_answered_with_a_problem_document_that_says_nothing(
    strangers: tuple[Borough, Path, str],
) -> None:
    hackney, *_ = strangers
    request = urllib.request.Request(
        f"http://127.0.0.1:{hackney.port}/v1/envelopes",
        data=b"exchange-envelope/1\n" + bytes(9000),
        headers={"content-type": "application/vnd.exchange.envelope"},
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=30)
    with refusal.value as answer:
        assert answer.code == 403
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert json.loads(answer.read())["code"] == "unacceptable"
    assert hackney.ask("inbox") == {"items": []}


# When the other side is down, or does not trust


def test_a_message_to_a_peer_that_is_down_waits_and_arrives_as_soon_as_the_peer_is_back(
    boroughs: tuple[Borough, Borough],
) -> None:
    hackney, enfield = boroughs
    enfield.kill()
    hackney.restart(backoff_base_s=60, backoff_cap_s=3600)
    message_id = hackney.send(FORM, ENFIELD)

    def far_off() -> Any:
        status = hackney.status(message_id)
        due = status["next_attempt_at"]
        return status if due and moment(due) > datetime.now(UTC) + timedelta(seconds=10) else None

    until("the next attempt is far off", far_off)
    waiting = hackney.ask("status", message_id)
    assert waiting["last_error"] == f"{enfield.origin} cannot be reached: connection refused"
    assert {row["rung"] for row in waiting["sections"]} <= {"", None}
    assert waiting["last_error"] in hackney.cli("status", message_id).stderr
    assert waiting["last_error"] in hackney.cli("explain", message_id).stdout
    assert hackney.ask("held", "list") == {"items": []}

    enfield.start()
    assert hackney.status(message_id, "received", 60)["reached"]
    events = hackney.ask("explain", message_id)["events"]
    received = next(event for event in events if event["event"] == "received")
    assert moment(received["at"]) < moment(waiting["next_attempt_at"]), "it waited out the timer"
    assert message_id in [row["id"] for row in enfield.ask("inbox")["items"]]


def test_a_message_that_waits_is_kept_over_a_restart_of_the_sender(boroughs: tuple[Borough, Borough]) -> None:
    hackney, enfield = boroughs
    enfield.kill()
    message_id = hackney.send(FORM, ENFIELD)
    hackney.restart()
    enfield.start()
    assert hackney.status(message_id, "received", 60)["reached"]


def test_a_sender_that_is_not_trusted_is_refused_and_heard_once_it_is_verified(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    hackney.start()
    enfield.start()
    hackney.trusts(enfield)
    card = town.root / "hackney-card.json"
    fingerprint = hackney.ask("card", "export", card)["fingerprint"]
    assert enfield.ask("peer", "add", card)["trust"] == "unverified"
    message_id = hackney.send(FORM, ENFIELD)
    waiting = until("the refusal is known", lambda: hackney.status(message_id)["last_error"])
    assert "may not be verified there" in waiting
    assert enfield.ask("inbox") == {"items": []}
    enfield.ask("peer", "verify", hackney.origin, "--fingerprint", fingerprint)
    assert hackney.status(message_id, "received", 60)["reached"]
    assert [row["id"] for row in enfield.ask("inbox")["items"]] == [message_id]


# When an agency is down, slow or not there


def rungs(status: Any, kind: str) -> set[str | None]:
    return {row["rung"] for row in status["sections"] if row["agency"] == kind}


def test_agencies_that_fail_or_are_missing_hold_nobody_else_up(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    enfield.configure("delivery", backoff_cap_s=0.5, agency_timeout_s=2)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    receiver, away = town.receiver(), town.receiver()
    troubled = {"dwp", "housing", "health", "victim-support", "probation"}
    well = set(KINDS) - troubled
    enfield.add_agencies(receiver, [kind for kind in KINDS if kind not in ("probation", "victim-support")])
    enfield.add_agency("victim-support", away)
    away.stop()
    receiver.answers |= {"dwp": 500, "housing": 404, "health": HANG}
    message_id = hackney.send(FORM, ENFIELD)

    # The rest goes on.
    until(
        "the others have theirs",
        lambda: {rung for kind in well for rung in rungs(hackney.status(message_id), kind)} == {"delivered"},
    )
    for kind in well:
        assert {request.section for request in receiver.accepted(kind, message_id)} == ALLOWED[kind]
    for kind in troubled:
        assert "delivered" not in rungs(hackney.status(message_id), kind)
        assert receiver.accepted(kind, message_id) == []

    # The one that nobody registered is held, with a reason and a way to release it.
    items = enfield.ask("held", "list")["items"]
    assert [(item["agency"], item["id"]) for item in items] == [("probation", message_id)]
    assert items[0]["reason"] == "no agency of kind probation is registered"
    at_enfield = enfield.ask("status", message_id)
    assert {row["held"] for row in at_enfield["sections"] if row["agency"] == "probation"} == {items[0]["reason"]}
    assert {row["held"] for row in at_enfield["sections"] if row["agency"] != "probation"} == {None}
    assert any(
        "no agency of kind probation is registered" in event["text"]
        for event in enfield.ask("explain", message_id)["events"]
    )
    enfield.ask("held", "release", items[0]["number"])
    until("it is held again", lambda: enfield.ask("held", "list")["items"])

    # Those that fail are tried again, and each says why.
    def reasons() -> dict[str, str]:
        return {row["kind"]: row["last_error"] for row in enfield.ask("agency", "list")["items"] if row["last_error"]}

    until("all four have failed", lambda: reasons().keys() == troubled - {"probation"})
    assert "500" in reasons()["dwp"]
    assert "404" in reasons()["housing"]
    assert reasons()["victim-support"] == "agency victim-support cannot be reached: connection refused"
    assert reasons()["health"] == "agency health cannot be reached: no answer in time"
    assert enfield.ask("status", message_id)["last_error"]

    # Once they are well, or there, all of it arrives, a repetition under the same id.
    receiver.answers.clear()
    away.start()
    added = enfield.add_agency("probation", receiver)
    assert added["released"] == 1
    assert hackney.status(message_id, "delivered", 60)["reached"]
    for kind in troubled:
        at = away if kind == "victim-support" else receiver
        assert {request.section for request in at.accepted(kind, message_id)} == ALLOWED[kind]
        tried: dict[str, set[str]] = {request.section: set() for request in at.requests if request.kind == kind}
        for request in at.requests:
            if request.kind == kind:
                tried[request.section].add(request.headers["webhook-id"])
        assert {len(ids) for ids in tried.values()} == {1}
    assert enfield.ask("held", "list") == {"items": []}
    assert receiver.unproven == away.unproven == []


def test_an_agency_can_be_tried_with_an_event_that_holds_no_personal_data(
    town: Town, strangers: tuple[Borough, Path, str]
) -> None:
    hackney, *_ = strangers
    receiver = town.receiver()
    agency_id = hackney.add_agency("dwp", receiver)["id"]
    assert hackney.ask("agency", "test", agency_id)["ok"] is True
    assert [request.event["type"] for request in receiver.requests] == ["exchange.agency.test.v1"]
    assert receiver.unproven == []
    receiver.stop()
    failed = hackney.cli("agency", "test", agency_id, "--json")
    assert (failed.code, failed.document["ok"]) == (1, False)
    assert failed.stderr.startswith("Error: ")


def test_an_agencys_address_inside_the_network_is_refused_unless_it_was_allowed(
    town: Town, strangers: tuple[Borough, Path, str]
) -> None:
    hackney, *_ = strangers
    receiver = town.receiver()
    url = receiver.url("housing")
    plain = hackney.cli("agency", "add", "housing", "--url", url, "--json")
    assert plain.code == 2, plain
    added = hackney.ask("agency", "add", "housing", "--url", url, "--allow-network", "10.0.0.0/8")
    assert hackney.cli("agency", "test", added["id"]).code == 1
    assert receiver.requests == []
    hackney.ask("agency", "remove", added["id"])
    added = hackney.ask("agency", "add", "housing", "--url", url, "--allow-network", "127.0.0.1/32")
    receiver.know("housing", added["secret"])
    assert hackney.cli("agency", "test", added["id"]).code == 0


# What keeps a node from starting


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Borough:
    """A node that is never started where it is."""
    return Borough(tmp_path_factory.mktemp("made"), templates, "hackney", HACKNEY)


@pytest.fixture
def copy(made: Borough, tmp_path: Path) -> Path:
    """A node's directory that a test may spoil."""
    return Path(shutil.copytree(made.directory, tmp_path / "node"))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def newer(directory: Path) -> None:
    database = pysqlite3.connect(directory / "exchange.db")
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()


def edit(old: str, new: str) -> Callable[[Path], None]:
    return lambda directory: replace(directory / "exchange.toml", old, new)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda d: (d / "passphrase").write_text("wrong\n"), ["passphrase"], id="wrong passphrase"),
        pytest.param(lambda d: (d / "passphrase").write_text("\n"), ["passphrase", "empty"], id="empty passphrase"),
        pytest.param(lambda d: (d / "passphrase").unlink(), ["passphrase", "No such file"], id="no passphrase"),
        pytest.param(edit('passphrase_file = "passphrase"', ""), ["passphrase_file", "locked"], id="locked keystore"),
        pytest.param(lambda d: (d / "keystore.json").write_text("{}"), ["keystore"], id="damaged keystore"),
        pytest.param(lambda d: (d / "keystore.json").unlink(), ["keystore", "No such file"], id="no keystore"),
        pytest.param(lambda d: (d / "exchange.db").unlink(), ["no store at"], id="no store", marks=pytest.mark.sqlite),
        pytest.param(
            edit("exchange.hackney.example", "exchange.barnet.example"),
            ["exchange.hackney.example", "exchange.barnet.example"],
            id="another origin",
        ),
        pytest.param(edit(HACKNEY, ENFIELD), [HACKNEY, ENFIELD], id="another area"),
        pytest.param(newer, ["9999", "newer"], id="database newer than the program", marks=pytest.mark.sqlite),
        pytest.param(
            lambda d: (d / "exchange.db").write_bytes(b"x" * 8192),
            ["store"],
            id="not a database",
            marks=pytest.mark.sqlite,
        ),
        pytest.param(edit("[listen]", "[listen]\nadress = 1"), ["adress", "did you mean 'address'"], id="unknown key"),
        pytest.param(edit("[listen]", "[listen"), ["exchange.toml", "line"], id="not TOML"),
        pytest.param(edit("127.0.0.1:", "0.0.0.0:"), ["loopback"], id="plain HTTP for the world"),
        pytest.param(edit(HACKNEY, "Hackney"), ["area"], id="no area code"),
        pytest.param(edit("[listen]", '[listen]\ncertificate = "tls.crt"'), ["key"], id="certificate without key"),
        pytest.param(
            edit("[listen]", '[listen]\ncertificate = "tls.crt"\nkey = "tls.key"'),
            ["tls.crt", "No such file"],
            id="no certificate",
        ),
        pytest.param(
            lambda d: (d / "exchange.toml").unlink(), ["exchange.toml", "there is no configuration"], id="no file"
        ),
    ],
)
def test_a_node_that_cannot_start_says_in_one_line_what_to_do(
    copy: Path, spoil: Callable[[Path], Any], words: list[str]
) -> None:
    spoil(copy)
    error = exchange("run", "--config", copy / "exchange.toml").one_line_error()
    for word in words:
        assert word in error


def test_a_port_in_use_is_named(made: Borough, copy: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", made.port))
        taken.listen()
        error = exchange("run", "--config", copy / "exchange.toml").one_line_error()
    assert str(made.port) in error
    assert "in use" in error


def test_a_second_node_on_the_same_directory_is_refused_and_the_first_goes_on(
    strangers: tuple[Borough, Path, str],
) -> None:
    first, *_ = strangers
    error = exchange("run", "--config", first.config).one_line_error()
    assert "another process" in error.lower()
    assert first.ask("health")["status"] == "ok"


def test_a_directory_that_has_a_node_is_not_made_anew(made: Borough) -> None:
    before = {path: path.read_bytes() for path in made.directory.iterdir() if path.is_file()}
    again = exchange("init", made.directory, "--area", ENFIELD, "--name", "Other", "--url", "https://other.example")
    assert "nothing was changed" in again.one_line_error()
    assert {path: path.read_bytes() for path in made.directory.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    "lost", ["exchange.toml", "keystore.json", pytest.param("exchange.db", marks=pytest.mark.sqlite)]
)
def test_what_is_left_of_a_node_is_never_overwritten(copy: Path, lost: str) -> None:
    """A new passphrase in place of the old one would take the keys of a keystore that is left with it."""
    (copy / lost).unlink()
    before = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    again = exchange("init", copy, "--area", HACKNEY, "--name", "Hackney", "--url", "https://exchange.hackney.example")
    assert "nothing was changed" in again.one_line_error()
    assert {path: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--area", "Hackney", "node.area"),
        ("--name", "", "node.name"),
        ("--listen", "everywhere", "listen.address"),
        ("--url", "http://exchange.hackney.example", "node.url"),
        ("--url", "exchange.hackney.example", "--origin"),
        ("--origin", "https://exchange.hackney.example", "--origin"),
    ],
)
def test_a_node_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path, option: str, value: str, said: str) -> None:
    options = {"--area": HACKNEY, "--name": "Hackney", "--url": "https://exchange.hackney.example", option: value}
    made = exchange("init", tmp_path / "node", *[word for pair in options.items() for word in pair])
    error = made.one_line_error()
    assert said in error
    assert "nothing was made" in error
    assert not (tmp_path / "node").exists()


def test_a_command_to_a_node_that_does_not_run_says_how_to_start_it(made: Borough) -> None:
    result: Result = made.cli("inbox", "--json")
    assert result.code == 75
    assert result.document["code"] == "node-not-running"
    assert f"exchange run --config {made.config}" in result.stderr


@pytest.mark.parametrize("content", [b"", b"not JSON", b"\xff\xfe", b"[" * 300_000, b"{}"])
def test_what_is_no_card_file_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hackney.card"
    file.write_bytes(content)
    refused = exchange("peer", "add", file, "--config", tmp_path / "exchange.toml")
    assert refused.code == 5
    assert "is not a card" in refused.one_line_error()
    assert "A card comes from: exchange card export FILE" in refused.stderr


def test_a_file_that_is_not_there_is_said_with_where_it_was_looked_for(strangers: tuple[Borough, Path, str]) -> None:
    missing = strangers[0].cli("peer", "accept", "invitation.json", "--json")
    assert (missing.code, missing.document["message"]) == (1, "invitation.json: No such file or directory")
    assert "from where the command is run" in missing.document["hint"]


def test_what_is_no_revocation_is_said_with_which_file_is_one(
    strangers: tuple[Borough, Path, str], form_file: Path
) -> None:
    refused = strangers[0].cli("keys", "revoke", form_file, "--json")
    assert refused.document["message"] == "that is not a revocation file; nothing was revoked"
    assert "revocation.json" in refused.document["hint"]


def test_a_command_without_a_configuration_says_how_to_name_one(tmp_path: Path) -> None:
    refused = exchange("inbox", "--json", directory=tmp_path)
    assert refused.code == 1
    assert refused.document["message"] == "there is no configuration exchange.toml here"
    assert "--config FILE, or set EXCHANGE_CONFIG" in refused.document["hint"]


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        (("peer", "show", "exchange.nowhere.example"), "exchange peer list"),
        (("agency", "remove", "agency-0"), "exchange agency list"),
        (("held", "release", "77"), "exchange held list"),
        (("status", "00000000-0000-4000-8000-000000000000"), "exchange outbox"),
    ],
)
def test_what_is_not_there_is_said_with_where_to_look(
    strangers: tuple[Borough, Path, str], command: tuple[str, ...], verb: str
) -> None:
    hackney, *_ = strangers
    missing = hackney.cli(*command, "--json")
    assert missing.code == 3, missing
    assert verb in missing.document["hint"]
