"""Sealed mode with real processes: an agency's receiver, and what a thief finds in a node's memory and store."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from exchange.agency.keys import AgencyKeys
from exchange.crypto.names import Origin
from exchange.schema.agency_keys import file_bytes, read_challenge
from tests.processes.conftest import Town
from tests.processes.harness import DEADLINE_S, ENFIELD, HACKNEY, KINDS, Borough, example, exchange, introduce, until
from tests.processes.ports import free_port
from tests.processes.receiver import HANG, Receiver
from tests.processes.test_secrecy import needles, search

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FORM = example("case-study-j")
_PAGE = 65_536
PASSPHRASE = "four words that nobody guesses\n"


@dataclass
class Housing:
    """An agency's directory, and its receiver while there is one."""

    directory: Path
    kind: str = "housing"
    port: int = field(default_factory=free_port)
    page: str = ""

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhook"

    @property
    def key(self) -> Path:
        return self.directory / "key.json"

    @property
    def passphrase(self) -> Path:
        return self.directory / "passphrase"

    @property
    def inbox(self) -> Path:
        return self.directory / "inbox"

    def make(self) -> "Housing":
        """Make the agency's keys."""
        self.inbox.mkdir(parents=True)
        self.passphrase.touch(0o600)
        self.passphrase.write_text(PASSPHRASE)
        made = exchange("agency-key", "new", self.key, "--name", f"{self.kind}.enfield.example", *self.locked())
        assert made.code == 0, made
        return self

    def locked(self) -> tuple[object, ...]:
        return ("--passphrase-file", self.passphrase, "--json")

    def run(self, *arguments: object) -> Any:
        done = exchange(*arguments, *self.locked())
        assert done.code == 0, done
        return done.document

    @contextmanager
    def serving(self, secret: str, *options: object) -> Iterator["Housing"]:
        """Run the receiver."""
        (self.directory / "secret").write_text(secret)
        command = [
            *(sys.executable, "-m", "exchange.cli.main", "agency-serve", "--key", self.key),
            *("--borough", "exchange.enfield.example", "--kind", self.kind, "--secret-file", self.directory / "secret"),
            *("--store", self.inbox, "--listen", f"127.0.0.1:{self.port}", *options, *self.locked()),
        ]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            printed = ""
            for line in process.stdout:
                printed += line
                if line == "}\n":
                    break
            document = json.loads(printed)
            assert document["webhook"] == self.webhook
            self.page = document["page"]
            yield self
        finally:
            process.terminate()
            assert process.wait(DEADLINE_S) == 0
            process.stdout.close()


def memory_of(pid: int) -> bytes:
    """What a process has in memory, as root reads it."""
    found = bytearray()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            try:
                memory.seek(start)
                # Most of what a process has asked for it has never touched.
                pages = [memory.read(min(_PAGE, end - at)) for at in range(start, end, _PAGE)]
                found += b"".join(page for page in pages if page.count(0) < len(page))
            except OSError:
                continue
    return bytes(found)


def texts_in(data: bytes, wanted: dict[bytes, str]) -> set[str]:
    return {text for item, text in wanted.items() if item in data}


def secret_texts() -> dict[bytes, str]:
    """What of the form no process has a reason to know but by the form: the words of the program are others."""
    return {item: text for item, text in needles(FORM).items() if len(text) >= 10}


def test_an_agency_proves_its_key_by_its_receiver_and_reads_what_the_node_cannot(town: Town, tmp_path: Path) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    housing = Housing(tmp_path / "housing").make()
    added = enfield.ask(
        *("agency", "add", "housing", "--url", housing.webhook, "--allow-network", "127.0.0.0/8"),
        *("--sealed-key", f"{housing.key}.pub"),
    )
    assert added["challenge"]["kind"] == "housing"
    with housing.serving(added["secret"]):
        proven = enfield.ask("agency", "prove", added["id"])
        assert proven["ok"] is True
        card = enfield.directory / "card.json"
        checked = housing.run("agency-key", "check", housing.key, card, "--kind", "housing")
        assert (checked["ok"], checked["key_id"]) == (True, proven["key_id"])
        until("Hackney has the card", lambda: proven["key_id"] in _announced(hackney, enfield).values())
        message = hackney.send(FORM, ENFIELD)
        until("housing has its sections", lambda: _delivered(enfield, message, "housing"))
        _look_at_the_pages(housing)
    kept = {path.stem for path in housing.inbox.iterdir()}
    assert kept
    assert search(housing.inbox, needles(FORM)) == set()
    # The same receiver, by file: what it kept is opened by the same keys after a change of the key too.
    rotated = housing.run("agency-key", "rotate", housing.key, tmp_path / "new.pub")
    assert rotated["older_key_ids"] == [proven["key_id"]]
    with housing.serving(added["secret"]):
        _look_at_the_pages(housing)
    enfield.ask("agency", "rekey", added["id"], "--sealed-key", tmp_path / "new.pub")
    enfield.ask("agency", "challenge", added["id"], tmp_path / "challenge.json")
    housing.run(
        *("agency-key", "answer", housing.key, tmp_path / "challenge.json", tmp_path / "answer.json"),
        *("--borough", "exchange.enfield.example", "--kind", "housing"),
    )
    proven = enfield.ask("agency", "prove", added["id"], "--answer", tmp_path / "answer.json")
    assert proven["key_id"] == rotated["key_id"]
    refused = exchange(
        *("agency-key", "answer", housing.key, tmp_path / "challenge.json", tmp_path / "other.json"),
        *("--borough", "exchange.camden.example", "--kind", "housing", "--passphrase-file", housing.passphrase),
    )
    assert refused.code == 4
    assert not (tmp_path / "other.json").exists()


def _announced(borough: Borough, other: Borough) -> Any:
    """The agencies' keys in the card that a borough has of another."""
    return borough.api("GET", f"/v1/peers/{other.origin}")["agency_keys"]


def _delivered(borough: Borough, message: str, *kinds: str) -> bool:
    found = borough.api("GET", "/v1/inbox")["items"]
    if message not in {item["id"] for item in found}:
        return False
    rows = [row for row in borough.status(message)["sections"] if row["agency"] in kinds]
    return {row["rung"] for row in rows} == {"delivered"}


def _requested(receiver: Receiver) -> set[tuple[str, str]]:
    return {(one.kind, one.event["data"]["message_id"]) for one in tuple(receiver.requests)}


def _look_at_the_pages(housing: Housing) -> None:
    """Nobody without the printed address sees anything; with it, there is the list, and the content of a section."""
    root = housing.page.partition("/enter")[0]
    for path in ("/", "/enter?word=guess", "/sections/evt_" + "0" * 32):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(root + path, timeout=DEADLINE_S)
        assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{root}/webhook", data=b"{}"), timeout=DEADLINE_S)
    assert refused.value.code == 401
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(housing.page, timeout=DEADLINE_S) as answer:
        listed, headers = answer.read().decode(), answer.headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "You alone: sealed to your key" in listed
    assert "You, and the borough's node, which opened it" not in listed
    (link,) = re.findall(r"<a href='(/sections/evt_[0-9a-f]{32})'>housing</a>", listed)
    with browser.open(root + link, timeout=DEADLINE_S) as answer:
        assert "tenure" in answer.read().decode()


def test_neither_memory_nor_store_of_a_receiving_node_holds_what_was_sealed_to_agencies(
    town: Town,
) -> None:
    """With every agency sealed, nothing of the form is in the node; with one that is not, its sections are."""
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    receiver = town.receiver()
    for kind in KINDS:
        keys = AgencyKeys.generate(Origin(f"{kind}.enfield.example"))
        wanted = {"kind": kind, "url": receiver.url(kind), "networks": ["127.0.0.0/8"]}
        added = enfield.api("POST", "/v1/agencies", {**wanted, "key": json.loads(file_bytes(keys.public()))})
        receiver.know(kind, added["secret"])
        answer = keys.answer(read_challenge(json.dumps(added["challenge"]).encode()), 0)
        proof = {"answer": json.loads(file_bytes(answer))}
        assert enfield.api("POST", f"/v1/agencies/{added['id']}/prove", proof)["ok"] is True
    until(
        "Hackney has the card",
        lambda: len(hackney.api("GET", f"/v1/peers/{enfield.origin}")["agency_keys"]) == len(KINDS),
    )
    # While an agency does not answer, the node has in memory what it is sending.
    receiver.answers["housing"] = HANG
    message = hackney.send(FORM, ENFIELD)
    others = [kind for kind in KINDS if kind != "housing"]
    until("the others have their sections", lambda: _delivered(enfield, message, *others))
    until("the node is sending to housing", lambda: ("housing", message) in _requested(receiver))
    assert all("sealed" in one.event["data"] for one in receiver.accepted(message_id=message))
    texts = secret_texts()
    assert enfield.process is not None
    memory = memory_of(enfield.process.pid)
    assert enfield.origin.encode() in memory
    assert texts_in(memory, texts) == set()
    assert search(enfield.directory, needles(FORM)) == set()

    # The same search finds what a node opens: the agency gives up its key.
    (row,) = [row for row in enfield.ask("agency", "list")["items"] if row["kind"] == "housing"]
    receiver.answers.clear()
    receiver.stop()
    receiver.start()
    until("housing has its sections", lambda: _delivered(enfield, message, "housing"))
    enfield.ask("agency", "remove", row["id"])
    enfield.add_agency("housing", receiver)
    until(
        "Hackney has the card",
        lambda: "housing" not in hackney.api("GET", f"/v1/peers/{enfield.origin}")["agency_keys"],
    )
    receiver.answers["housing"] = HANG
    second = hackney.send(FORM, ENFIELD)
    until("the node is sending to housing", lambda: ("housing", second) in _requested(receiver))
    found = texts_in(memory_of(enfield.process.pid), texts)
    assert found
    assert search(enfield.directory, needles(FORM)) == set()
