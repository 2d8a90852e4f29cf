"""A region's directory, by the command line alone: a body with three keyholders, and boroughs that never telephone."""

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, Result, example, exchange, until

pytestmark = pytest.mark.slow

CAMDEN = "E09000007"
FORM = example("case-study-j")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Where the body publishes, and the URL at which a plain web server serves that."""
    out = tmp_path / "www"
    out.mkdir()
    handler = functools.partial(_Quiet, directory=str(out))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield out, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Body:
    """The body, at its command line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passphrase = path / "passphrase"
        path.mkdir()
        self.passphrase.write_text("four fictitious words here\n")
        self.passphrase.chmod(0o600)

    def run(self, *arguments: object) -> Result:
        return exchange("directory", *arguments, environment={"EXCHANGE_DIRECTORY": str(self.path / "work")})

    def ask(self, *arguments: object) -> Any:
        result = self.run(*arguments, "--json")
        assert result.code == 0, result
        return result.document

    def key(self, name: str) -> Path:
        file = self.path / f"{name}.key"
        self.ask("keys", "new", file, "--holder", name, "--passphrase-file", self.passphrase)
        return file

    def sign(self, *names: str) -> None:
        for name in names:
            self.ask("sign", self.path / f"{name}.key", "--yes", "--passphrase-file", self.passphrase)

    def publish(self, out: Path) -> Any:
        return self.ask("publish", out, "--online-passphrase-file", self.passphrase)


@pytest.fixture
def body(tmp_path: Path) -> Body:
    made = Body(tmp_path / "body")
    options: list[object] = []
    for role in ("root", "targets"):
        for name in ("anna", "ben", "cora"):
            options += [f"--{role}-key", f"{made.key(f'{name}-{role}')}.pub"]
        options += [f"--{role}-threshold", 2]
    made.ask("init", made.path / "work", "--name", "Region", *options, "--passphrase-file", made.passphrase)
    return made


def card_of(borough: Borough) -> Path:
    return borough.directory / "card.json"


@pytest.mark.timeout(400)
def test_three_boroughs_join_a_directory_and_send_a_form_without_any_telephone_call(
    town: Town, body: Body, published: tuple[Path, str]
) -> None:
    out, url = published
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    camden = town.borough("camden", CAMDEN)
    for borough in (hackney, enfield, camden):
        borough.configure("trust", directory="suffices")
        borough.start()
        body.ask("add", card_of(borough), "--compared", "in a test")

    # One keyholder is not enough, whoever publishes is told who is missing, and nothing is served.
    body.sign("anna-root", "anna-targets")
    refused = body.run("publish", out, "--online-passphrase-file", body.passphrase)
    assert "root: 1 of 2 signatures" in refused.one_line_error()
    assert "ben-root" in refused.stderr
    assert list(out.iterdir()) == []
    body.sign("cora-root", "ben-targets")
    assert body.publish(out)["boroughs"] == 3
    told = body.ask("status")
    assert told["advice"] == []
    root = out / "metadata" / "1.root.json"

    wrong = hackney.cli("directory", "join", url, "--root", root, "--root-fingerprint", "0" * 64)
    assert wrong.code == 4
    for borough in (hackney, enfield, camden):
        joined = borough.ask("directory", "join", url, "--root", root, "--root-fingerprint", told["root_fingerprint"])
        assert {item["trust"] for item in joined["items"]} == {"self", "verified"}
        assert joined["own"] == "listed"

    receiver = town.receiver()
    enfield.add_agencies(receiver)
    message = hackney.send(FORM, ENFIELD)
    until("the form was delivered", lambda: hackney.status(message, "delivered", 5)["reached"])
    shown = enfield.ask("peer", "show", hackney.origin)
    assert (shown["trust"], shown["verified_how"], shown["listed_by"]) == ("verified", "directory", url)

    # A borough that leaves the directory is stopped at the others, and they are told.
    body.ask("remove", CAMDEN, "--because", "in a test")
    body.sign("ben-targets", "cora-targets")
    body.publish(out)
    hackney.ask("directory", "refresh")
    assert hackney.ask("peer", "show", camden.origin)["trust"] == "suspended"
    assert [alarm["kind"] for alarm in hackney.ask("alarms")["items"]] == ["directory-removed"]
    camden.ask("directory", "refresh")
    assert camden.ask("directory", "show")["own"] == "missing"

    # What was seen is not forgotten by a node that is killed: the state of before is refused.
    old = (out / "metadata" / "timestamp.json").read_bytes()
    body.publish(out)
    hackney.ask("directory", "refresh")
    hackney.kill()
    (out / "metadata" / "timestamp.json").write_bytes(old)
    hackney.start()
    rolled_back = hackney.cli("directory", "refresh", "--json")
    assert (rolled_back.code, rolled_back.document["code"]) == (4, "directory-refused")
    assert hackney.ask("directory", "show")["problem"] == "rolled-back"
    assert hackney.ask("peer", "show", enfield.origin)["trust"] == "verified"
    left = hackney.ask("directory", "leave")
    assert left["verified_by_it"] == [enfield.origin]


@pytest.mark.timeout(300)
def test_keyholders_sign_on_machines_of_their_own_and_leave(
    town: Town, body: Body, published: tuple[Path, str]
) -> None:
    out, _ = published
    hackney = town.borough("hackney", HACKNEY)
    body.ask("add", card_of(hackney), "--compared", "in a test")
    body.sign("anna-root", "ben-root", "anna-targets", "ben-targets")
    body.publish(out)

    # Ben leaves, and Dora takes his place; the listing is signed anew, on copies.
    for role in ("root", "targets"):
        dora = body.key(f"dora-{role}")
        body.ask("keys", "replace", f"ben-{role}", f"{dora}.pub", "--role", role)
    body.ask("renew", "targets")
    for name in ("anna-root", "cora-root", "anna-targets", "dora-targets"):
        copy = Path(shutil.copytree(body.path / "work", body.path / f"copy-{name}", ignore=_no_online_key))
        signed = body.run(
            *("sign", body.path / f"{name}.key", "--yes", "--passphrase-file", body.passphrase),
            *("--root", out / "metadata" / "1.root.json", "--work", copy, "--json"),
        )
        assert signed.code == 0, signed
        assert "Root 2:\n  root: dora-root" in signed.stderr if name.endswith("root") else "Hackney" in signed.stderr
        assert len(body.ask("collect", copy)["taken"]) == 1
    published_now = body.publish(out)
    assert published_now["versions"] == {"root": 2, "targets": 2, "timestamp": 2}
    assert not any("ben" in holder for role in body.ask("status")["keyholders"].values() for holder in role["holders"])

    # His keys sign nothing any more.
    body.ask("renew", "targets")
    refused = body.run("sign", body.path / "ben-targets.key", "--yes", "--passphrase-file", body.passphrase)
    assert "nothing is staged that the key of ben-targets signs" in refused.one_line_error()

    # The machine that publishes was broken into: it gets another key.
    body.ask("discard", "--yes")
    new = body.path / "online-2.json"
    body.ask("keys", "online", new, "--passphrase-file", body.passphrase)
    body.sign("anna-root", "dora-root")
    old = body.run("publish", out, "--online-passphrase-file", body.passphrase)
    assert "the online key is not the one" in old.one_line_error()
    body.ask("publish", out, "--online-key", new, "--online-passphrase-file", body.passphrase)


def _no_online_key(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("online-key")}


def test_the_body_is_told_what_is_wrong_in_one_line(body: Body, tmp_path: Path) -> None:
    nothing = tmp_path / "card.json"
    nothing.write_text(json.dumps({"statement": "AA==", "proof": "x"}))
    assert "that card cannot be accepted" in body.run("add", nothing, "--compared", "x").one_line_error()
    assert "E09000007 is not listed" in body.run("remove", CAMDEN, "--because", "x").one_line_error()
    assert "it signs nothing" in body.run("sign", body.path / "anna-root.key.pub", "--yes").one_line_error()
    elsewhere = body.run("status", "--work", tmp_path)
    assert "is not the working directory" in elsewhere.one_line_error()
    wrong = tmp_path / "wrong"
    wrong.write_text("another fictitious passphrase\n")
    wrong.chmod(0o600)
    refused = body.run("sign", body.path / "anna-root.key", "--yes", "--passphrase-file", wrong)
    assert refused.code == 1
    assert "\nError: the passphrase does not open" in refused.stderr
    again = body.run("keys", "new", body.path / "anna-root.key", "--holder", "x", "--passphrase-file", body.passphrase)
    assert "is there already" in again.one_line_error()
    private = body.run("keys", "add", body.path / "anna-root.key", "--role", "targets")
    assert private.code == 2
    assert f"anna-root.key is the private half; give {body.path / 'anna-root.key.pub'}" in private.one_line_error()
