"""The self-test of agencies at a running node: the sample, what is found in what came, the page and its programs."""

import asyncio
import base64
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from exchange.node.selftest import hex_dump
from tests.node.agency import Agency
from tests.node.pair import ENFIELD, Clock, Node, log_lines, running

WORD = "quarrelsome"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node whose clock is right: the public library looks at the wall clock."""
    clock = Clock(round(time.time() * 1000))
    clock.run()
    with log_lines():
        async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as made:
            yield made


@pytest.fixture
async def housing(node: Node) -> AsyncIterator[Agency]:
    async with Agency("housing").listening() as agency:
        await agency.register(node)
        yield agency


async def sample_of(node: Node, name: str = "housing") -> Any:
    status, sample = await node.local("GET", f"/v1/agencies/{name}/selftest")
    assert status == 200, sample
    return sample


def pasted(headers: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


async def found(node: Node, headers: dict[str, str], body: bytes, **more: str) -> tuple[bool, list[str]]:
    given = {"headers": pasted(headers), "body": base64.b64encode(body).decode()} | more
    status, diagnosis = await node.local("POST", "/v1/agencies/housing/selftest", given)
    assert status == 200, diagnosis
    return diagnosis["ok"], [one["code"] for one in diagnosis["findings"]]


async def test_the_public_verifier_takes_the_sample_and_the_node_calls_it_right(node: Node, housing: Agency) -> None:
    for name in ("housing", housing.id):
        sample = await sample_of(node, name)
        body = sample["body"].encode()
        assert Webhook(housing.secret).verify(body, sample["headers"])["id"] == sample["id"]
        assert sample["signed"].encode() == f"{sample['id']}.{sample['timestamp']}.".encode() + body
        assert await found(node, sample["headers"], body) == (True, ["right"])
    assert housing.events == [], "the sample was sent"


async def test_a_sample_is_known_by_its_id_although_nothing_of_it_is_kept(node: Node, housing: Agency) -> None:
    before, sample = node.kept(), await sample_of(node)
    value = json.loads(sample["body"])
    again = json.dumps(value, sort_keys=True).encode()
    assert await found(node, sample["headers"], again) == (False, ["body-reserialised"])
    other = sample["headers"] | {"webhook-timestamp": str(sample["timestamp"] + 60)}
    assert await found(node, other, sample["body"].encode()) == (False, ["timestamp-not-that"])
    assert await found(node, sample["headers"], sample["body"].encode()[:-20]) == (False, ["body-cut"])
    huge = sample["headers"] | {"webhook-id": "evt_5e1f7e57" + "f" * 24}
    assert (await found(node, huge, b"{}"))[0] is False
    assert node.kept() == before


async def test_an_agency_with_a_label_is_found_by_its_name(node: Node) -> None:
    body = {"kind": "housing", "label": "south", "url": "https://south.example/hook", "handshake": False}
    status, added = await node.local("POST", "/v1/agencies", body)
    assert status == 201, added
    for name in (added["id"], "housing%2Fsouth"):
        assert (await sample_of(node, name))["agency"] == "housing/south"
        assert (await page_of(node, f"/selftest/{name}"))[0] == 200


async def test_what_the_receiver_says_of_itself_is_compared(node: Node, housing: Agency) -> None:
    sample = await sample_of(node)
    headers, body = sample["headers"], sample["body"].encode()
    behind = str(sample["timestamp"] - 420)
    assert await found(node, headers, body, clock=behind) == (False, ["clock-behind"])
    assert await found(node, headers, body, secret=housing.secret) == (True, ["right", "secret-right"])
    old, rotated = housing.secret, (await node.local("POST", f"/v1/agencies/{housing.id}/secret", {}))[1]
    assert await found(node, headers, body) == (False, ["secret-old"])
    assert "secret-is-old" in (await found(node, headers, body, secret=old))[1]
    assert (await found(node, headers, body, secret=rotated["secret"]))[0] is False
    for clock in ("yesterday", "12345678901234"):
        given = {"headers": pasted(headers), "body": "", "clock": clock}
        assert (await node.local("POST", "/v1/agencies/housing/selftest", given))[0] == 400


async def test_a_sample_of_another_agency_does_not_verify_here(node: Node, housing: Agency) -> None:
    async with Agency("police").listening() as police:
        await police.register(node)
        sample = await sample_of(node, "police")
        ok, codes = await found(node, sample["headers"], sample["body"].encode())
        assert (ok, codes) == (False, ["signed-for-another"])


async def test_nothing_of_what_was_given_is_kept_or_logged(tmp_path: Path) -> None:
    clock = Clock(round(time.time() * 1000))
    with log_lines() as lines:
        async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as node:
            async with Agency("housing").listening() as housing:
                await housing.register(node)
                sample = await sample_of(node)
                value = json.loads(sample["body"]) | {"note": WORD}
                headers = sample["headers"] | {"x-word": WORD}
                given = {
                    "headers": pasted(headers),
                    "body": base64.b64encode(json.dumps(value).encode()).decode(),
                    "secret": WORD,
                    "computed": WORD,
                }
                status, diagnosis = await node.local("POST", "/v1/agencies/housing/selftest", given)
                assert status == 200
                assert WORD not in json.dumps(diagnosis)
                form = aiohttp.FormData({"headers": given["headers"], "secret": WORD}, default_to_multipart=True)
                form.add_field("file", json.dumps(value), filename=f"{WORD}.json")
                async with node.local_http.post("http://local/selftest/housing", data=form) as answer:
                    assert answer.status == 200
                    assert (await answer.text()).count(WORD) == 1, "the headers alone are shown again"
                assert node.count("webhooks_diagnosed") == 2
            files = [path for path in (tmp_path / "enfield").rglob("*") if path.is_file()]
            assert WORD.encode() not in b"".join(path.read_bytes() for path in files)
    assert WORD not in lines.getvalue()


class _Page(HTMLParser):
    """What a reader without styles and scripts gets of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.regions: dict[str, str] = {}
        self.fields: list[dict[str, str | None]] = []
        self.labels: set[str | None] = set()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.headings: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes |= found.keys()
        if tag == "pre":
            self._inside = found.get("aria-label") or "other"
        if tag in ("input", "textarea"):
            self.fields.append(found)
        if tag == "label":
            self.labels.add(found.get("for"))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.regions[self._inside] = self.regions.get(self._inside, "") + data


async def page_of(node: Node, path: str = "/selftest/housing", **form: Any) -> tuple[int, str, Any]:
    data = None
    if form:
        data = aiohttp.FormData(
            {name: value for name, value in form.items() if name != "file"}, default_to_multipart=True
        )
        if "file" in form:
            data.add_field("file", io.BytesIO(form["file"]), filename="body.json")
    method = "POST" if form else "GET"
    async with node.local_http.request(method, f"http://localhost{path}", data=data) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_the_page_runs_no_script_loads_nothing_and_labels_every_field(node: Node, housing: Agency) -> None:
    status, text, headers = await page_of(node)
    assert status == 200
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"
    page = _Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert not {name for name in page.attributes if name.startswith("on")} | (page.attributes & {"style", "src"})
    assert page.headings[:2] == ["h1", "h2"]
    assert {field["id"] for field in page.fields} == page.labels
    assert "<html lang='en-GB'>" in text


async def test_the_page_shows_the_bytes_and_a_command_that_sends_them(node: Node, housing: Agency) -> None:
    _, text, _ = await page_of(node)
    regions = _Page(text).regions
    signed = bytes.fromhex(
        "".join(line[10:58] for line in regions["The bytes that are signed, in hexadecimal"].splitlines())
    )
    assert signed.decode() == regions["other"]
    command = shlex.split(regions["The curl command"])
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, check=False)
    assert b" 204 " in done.stdout, done
    assert housing.events[0]["type"] == "exchange.agency.test.v1"


async def test_what_is_entered_on_the_page_is_answered(node: Node, housing: Agency) -> None:
    sample = await sample_of(node)
    headers, body = pasted(sample["headers"]).replace("\n", "\r\n"), sample["body"]
    for form in (
        {"body": body},
        {"body": base64.b64encode(body.encode()).decode(), "written": "base64"},
        {"body": body.encode().hex(" "), "written": "hex"},
        {"file": body.encode()},
    ):
        status, text, _ = await page_of(node, headers=headers, **form)
        assert status == 200
        assert "<title>Right: Check how housing verifies webhooks" in text
    _, text, _ = await page_of(node, headers=headers, file=body.encode() + b"\r\n", computed="<b>&")
    assert "There are line ends or spaces around the body" in text
    assert "value='&lt;b&gt;&amp;'" in text
    assert "<b>" not in text


async def test_what_cannot_be_read_is_told_on_the_page(node: Node, housing: Agency) -> None:
    for form, words in (
        ({"headers": "", "body": "{}"}, "The headers cannot be read"),
        ({"headers": "webhook-id: 1", "body": "{", "written": "hex"}, "The body cannot be read as hex"),
        ({"headers": "webhook-id: 1", "body": "{", "clock": "soon"}, "The receiver's time cannot be read"),
        ({"headers": "webhook-id: 1", "file": bytes(1024 * 1024 + 1)}, "The body is larger"),
        ({"headers": "a: " + "b" * 40_000}, "A field is too long"),
    ):
        status, text, _ = await page_of(node, **form)
        assert status == 400
        assert words.replace("'", "&#x27;") in text
        assert "<title>Error: " in text
    assert (await page_of(node, "/selftest/nobody"))[0] == 404
    assert (await page_of(node, "/selftest/nobody", headers="a: b"))[0] == 404
    async with node.local_http.post("http://local/selftest/housing", data=b"x") as answer:
        assert answer.status == 400


async def test_the_pages_lead_to_each_agency(node: Node) -> None:
    assert "No agency is registered" in (await page_of(node, "/selftest"))[1]
    async with Agency("housing").listening() as housing:
        await housing.register(node)
        assert f"<a href='/selftest/{housing.id}'>housing</a>" in (await page_of(node, "/selftest"))[1]


@pytest.mark.parametrize(
    ("label", "command"), [("Python, verify.py", sys.executable), ("JavaScript, verify.mjs", "node")], ids=["py", "js"]
)
async def test_the_programs_on_the_page_verify_the_sample_and_nothing_else(
    label: str, command: str, node: Node, housing: Agency, tmp_path: Path
) -> None:
    if shutil.which(command) is None:
        pytest.fail(f"{command} is not installed: apt-get install -y --no-install-recommends nodejs")
    text = _Page((await page_of(node))[1]).regions[label]
    file = tmp_path / label.partition(", ")[2]

    def run(program: str, secret: str) -> tuple[int, str]:
        file.write_text(program, encoding="utf-8")
        environment = {"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret}
        done = subprocess.run([command, file], env=environment, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout

    code, said = await asyncio.to_thread(run, text, housing.secret)
    assert (code, said.startswith("right: evt_5e1f7e57")) == (0, True)
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    assert (await asyncio.to_thread(run, text, other))[0] != 0
    assert "This is a test" in text
    changed = text.replace("This is a test", "This is no test")
    assert (await asyncio.to_thread(run, changed, housing.secret))[0] != 0
    stamp = re.search(r'"webhook-timestamp": "([0-9]+)"', text)
    assert stamp is not None
    assert (await asyncio.to_thread(run, text.replace(stamp[1], str(int(stamp[1]) - 301)), housing.secret))[0] != 0


def test_a_hex_dump_shows_every_byte() -> None:
    assert hex_dump(b"id.1.{\xc3\xab}") == "00000000  69 64 2e 31 2e 7b c3 ab  7d                       id.1.{..}"
    assert hex_dump(b"") == ""
