"""Fetching: kept before it is acknowledged, once, and refused where it does not open."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exchange.agency.errors import FetchRefused, NotNow
from exchange.agency.fetching import Node
from exchange.agency.pulling import Files, Puller, Sealed
from exchange.agency.receiving import Inbox
from exchange.schema.events import HANDOVER_OVERDUE
from tests.agency.test_receiving import AGENCY, LATE, VALID
from tests.crypto.keys import ENFIELD

BODY = json.loads(VALID["body"])
WORD = "ab" * 8


@dataclass
class Answers:
    """A node's end: what it gives out, what it was told, and what goes wrong."""

    items: list[Any] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    #: Answers to the next requests, in place of the right ones.
    instead: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def node() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answers.asked.append(self.path)
            assert self.headers["authorization"] == "Bearer exag_x"
            status, headers, body = answers.instead.pop(0) if answers.instead else (200, {}, self.right())
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def right(self) -> bytes:
            if self.command == "POST":
                *_, event_id, verb = self.path.split("/")
                answers.said.append((event_id, verb))
                answers.items = [item for item in answers.items if item["id"] != event_id]
                return b"{}"
            if self.path == "/v1/agency":
                return json.dumps({"kind": "housing", "origin": ENFIELD, "more": 1}).encode()
            return json.dumps({"state": "active", "after": f"{WORD}.0.1", "items": answers.items}).encode()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}"
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def asking(node: Answers) -> Node:
    return Node(node.url, "exag_x")


def test_what_is_sealed_is_opened_checked_kept_and_then_acknowledged(node: Answers, tmp_path: Path) -> None:
    node.items = [BODY]
    puller = Puller(asking(node), Files(tmp_path, ENFIELD, AGENCY))
    puller.until_empty()
    assert node.said == [(BODY["id"], "delivered")]
    (file,) = tmp_path.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == (f"{BODY['id']}.json", 0o600)
    data = json.loads(file.read_bytes())["data"]
    assert "sealed" not in data
    assert data["content"]
    assert (data["sender"], data["known"]) == ("exchange.hackney.example", False)
    assert (puller.kept, puller.refused) == (1, 0)


def test_without_a_key_what_is_sealed_is_kept_as_it_came(node: Answers, tmp_path: Path) -> None:
    node.items = [BODY]
    Puller(asking(node), Files(tmp_path, ENFIELD)).until_empty()
    assert json.loads((tmp_path / f"{BODY['id']}.json").read_bytes()) == BODY


def test_an_inbox_is_sealed_on_the_disk_and_shows_what_was_fetched(node: Answers, tmp_path: Path) -> None:
    node.items = [BODY]
    inbox = Inbox(tmp_path)
    Puller(asking(node), Sealed(AGENCY, inbox)).until_empty()
    assert inbox.ids() == [BODY["id"]]
    kept = inbox.read(AGENCY, BODY["id"])
    assert kept.content
    for path in tmp_path.iterdir():
        assert json.dumps(kept.content)[2:20].encode() not in path.read_bytes()


def test_what_does_not_open_is_refused_and_the_next_is_taken(node: Answers, tmp_path: Path) -> None:
    bad = json.loads(json.dumps(BODY))
    bad["id"] = "evt_" + "1" * 32
    bad["data"]["sealed"]["ciphertext"] = "AAAA"
    node.items = [bad, BODY]
    puller = Puller(asking(node), Files(tmp_path, ENFIELD, AGENCY))
    puller.until_empty()
    assert node.said == [(bad["id"], "refused"), (BODY["id"], "delivered")]
    assert [path.name for path in tmp_path.iterdir()] == [f"{BODY['id']}.json"]


@pytest.mark.parametrize("change", [{"source": "https://exchange.other.example"}, {"type": "exchange.agency.test.v1"}])
def test_what_is_no_section_of_this_borough_is_refused(node: Answers, tmp_path: Path, change: dict[str, str]) -> None:
    node.items = [BODY | change]
    Puller(asking(node), Files(tmp_path, ENFIELD)).until_empty()
    assert node.said == [(BODY["id"], "refused")]
    assert list(tmp_path.iterdir()) == []


def test_what_is_late_is_kept_and_acknowledged(node: Answers, tmp_path: Path) -> None:
    node.items = [BODY | {"type": HANDOVER_OVERDUE, "data": LATE}]
    told: list[str] = []
    Puller(asking(node), Files(tmp_path, ENFIELD), told.append).until_empty()
    assert node.said == [(BODY["id"], "delivered")]
    assert told == [f"{BODY['id']}: something is late of {LATE['message_id']}"]
    assert [path.name for path in tmp_path.iterdir()] == [f"{BODY['id']}.json"]


def test_what_is_there_already_is_acknowledged_and_not_written_again(node: Answers, tmp_path: Path) -> None:
    (tmp_path / f"{BODY['id']}.json").write_bytes(b"as it was")
    node.items = [BODY]
    puller = Puller(asking(node), Files(tmp_path, ENFIELD, AGENCY))
    puller.until_empty()
    assert (puller.kept, node.said) == (0, [(BODY["id"], "delivered")])
    assert (tmp_path / f"{BODY['id']}.json").read_bytes() == b"as it was"


def test_what_cannot_be_kept_is_not_acknowledged(node: Answers, tmp_path: Path) -> None:
    node.items = [BODY]
    with pytest.raises(OSError):  # noqa: PT011 - whatever the disk says
        Puller(asking(node), Files(tmp_path / "missing", ENFIELD)).until_empty()
    assert node.said == []


def test_an_acknowledgement_that_is_lost_is_made_again_and_what_was_said_before_is_said(
    node: Answers, tmp_path: Path
) -> None:
    node.items = [BODY]
    puller = Puller(asking(node), Files(tmp_path, ENFIELD))
    page = json.dumps({"state": "active", "after": f"{WORD}.0.1", "items": [BODY]}).encode()
    node.instead = [(200, {}, page), (503, {"retry-after": "7"}, b"{}")]
    with pytest.raises(NotNow) as caught:
        puller.once()
    assert caught.value.asked_s == 7
    node.instead = [(200, {}, page), (404, {}, b"{}")]
    puller.once()
    assert node.asked[-2] == "/v1/agency/sections?wait=0", "it begins anew"


def test_the_next_request_goes_on_behind_the_last(node: Answers, tmp_path: Path) -> None:
    puller = Puller(asking(node), Files(tmp_path, ENFIELD))
    puller.once()
    puller.once(5)
    assert node.asked == ["/v1/agency/sections?wait=0", f"/v1/agency/sections?wait=5&after={WORD}.0.1"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, {}, b"{}"), FetchRefused),
        ((301, {"location": "http://127.0.0.1:1/"}, b""), FetchRefused),
        ((200, {}, b"<html>"), FetchRefused),
        ((200, {}, b"[" * 100_000), FetchRefused),
        ((200, {}, b'{"state": "active"}'), FetchRefused),
        ((429, {"retry-after": "9" * 30}, b""), NotNow),
        ((500, {}, b""), NotNow),
    ],
)
def test_what_answers_otherwise_is_told_from_what_answers_later(
    node: Answers, answer: Any, error: type[Exception]
) -> None:
    node.instead = [answer]
    with pytest.raises(error):
        asking(node).fetch("", 0)


def test_nobody_there_is_asked_again_later() -> None:
    with pytest.raises(NotNow):
        Node("http://127.0.0.1:1", "x").who()


@pytest.mark.parametrize(
    "url", ["http://agencies.example", "ftp://x", "https://", "https://u:p@x", "https://x/?a", "https://[", "x"]
)
def test_a_token_is_sent_nowhere_else(url: str) -> None:
    with pytest.raises(FetchRefused):
        Node(url, "exag_x")


def test_a_token_is_not_shown(node: Answers) -> None:
    assert "exag_x" not in repr(asking(node))
