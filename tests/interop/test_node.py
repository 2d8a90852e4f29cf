"""An agency in JavaScript, on public packages alone: it opens what our node sealed, and seals what ours opens."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from exchange.agency.event import SectionEvent, parse_event
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import open_section_event
from exchange.crypto.names import Origin
from exchange.schema.agency_keys import file_bytes, read_challenge
from exchange.schema.wire import ParcelEntry, SectionEntry
from tests.node.agency import LOOPBACK, Agency
from tests.node.conftest import camden, clock, desk, enfield, hackney, lines, pair  # noqa: F401
from tests.node.handmade import Desk, Made, read_reply
from tests.node.pair import ENFIELD, Clock, Node, Pair, until
from tests.node.test_holders import ANA, asked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HERE = Path(__file__).parent / "node"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealed-webhooks.json").read_text())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript agency with the packages that its lock file names."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("this needs Node.js 20 or later and npm: apt-get install nodejs npm")
    directory = tmp_path_factory.mktemp("node")
    for path in (*HERE.glob("*.mjs"), HERE / "package.json", HERE / "package-lock.json"):
        shutil.copy(path, directory)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "agency.mjs"


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:  # noqa: F811
    clock.run()


@pytest.fixture
async def housing() -> AsyncIterator["Kept"]:
    agency = Kept("housing")
    async with agency.listening():
        yield agency


class Kept(Agency):
    """Keeps each request as it came."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.requests: list[tuple[dict[str, str], str]] = []

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, (await request.read()).decode()))
        return await super()._answer(request)


async def javascript(program: Path, command: str, given: Any = None) -> tuple[Any, str]:
    """Run a command of the JavaScript agency: its document, or None and why it refused."""
    process = await asyncio.create_subprocess_exec(
        *("node", program, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, wrong = await process.communicate(json.dumps(given or {}).encode())
    return (json.loads(out) if process.returncode == 0 else None), wrong.decode()


async def accepted(node: Node, message: str) -> None:
    async def done() -> bool:
        rows = [row for row in (await node.status(message)).get("sections", ()) if row["agency"] == "housing"]
        return bool(rows) and {row["rung"] for row in rows} == {"delivered"}

    await until("housing has it", done)


async def test_it_proves_its_key_verifies_our_webhooks_and_opens_what_our_node_sealed(
    pair: Pair,  # noqa: F811
    housing: Kept,
    program: Path,
) -> None:
    made, _ = await javascript(program, "new-key")
    body = {"kind": "housing", "url": housing.url, "networks": LOOPBACK, "key": made["public"]}
    status, added = await pair.enfield.local("POST", "/v1/agencies", body)
    assert status == 201, added
    housing.secret, housing.id = added["secret"], added["id"]
    housing._registered.set()
    who = {"seed": made["seed"], "borough": pair.enfield.origin, "kind": "housing"}
    answer, wrong = await javascript(program, "answer", {**who, "challenge": added["challenge"]})
    assert answer is not None, wrong
    refused, wrong = await javascript(program, "answer", {**who, "kind": "police", "challenge": added["challenge"]})
    assert (refused, wrong) == (None, "refused: the challenge is for somebody else\n")
    _, proven = await pair.enfield.local("POST", f"/v1/agencies/{added['id']}/prove", {"answer": answer})
    assert proven["ok"] is True

    async def announced() -> bool:
        found = (await pair.hackney.local("GET", f"/v1/peers/{pair.enfield.origin}"))[1]
        return bool(found["agency_keys"].get("housing") == proven["key_id"])

    await until("Hackney has the card", announced)
    message = await pair.hackney.send(ENFIELD)
    await accepted(pair.enfield, message)
    opened = {}
    for headers, text in housing.requests:
        # The public library looks at the wall clock, and this test's nodes have a clock of their own.
        given = {**who, "secret": housing.secret, "headers": resigned(housing.secret, headers, text), "body": text}
        document, wrong = await javascript(program, "open", given)
        assert document is not None, wrong
        opened[document["section"]] = document
    assert opened["housing"]["content"]["tenure"]
    assert {one["sender"] for one in opened.values()} == {pair.hackney.origin}

    headers, text = housing.requests[0]
    given = {**who, "secret": housing.secret, "headers": resigned(housing.secret, headers, text), "body": text}
    for bend in ({"body": text.replace('"urgent":false', '"urgent":true ')}, {"secret": "whsec_" + "A" * 43 + "="}):
        refused, wrong = await javascript(program, "open", {**given, **bend})
        assert refused is None
        assert "signature" in wrong.lower()
    other = base64.b64encode(os.urandom(32)).decode()
    refused, wrong = await javascript(program, "open", {**given, "seed": other})
    assert (refused, wrong) == (None, "refused: it is not sealed to this key\n")
    event = json.loads(text)
    for part in ("ciphertext", "manifest"):
        raw = bytearray(base64.b64decode(event["data"]["sealed"][part]))
        raw[-1] ^= 1
        sealed = {**event["data"]["sealed"], part: base64.b64encode(raw).decode()}
        bent = json.dumps({**event, "data": {**event["data"], "sealed": sealed}})
        refused, wrong = await javascript(
            program, "open", {**given, "body": bent, "headers": resigned(housing.secret, headers, bent)}
        )
        assert refused is None, part


def resigned(secret: str, headers: dict[str, str], body: str) -> dict[str, str]:
    """The headers of a webhook, signed by the public library as of now."""
    at = datetime.now(UTC)
    signature = Webhook(secret).sign(headers["webhook-id"], at, body)
    return {
        "webhook-id": headers["webhook-id"],
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }


async def test_what_it_seals_passes_our_node_and_is_opened_by_our_library(
    enfield: Node,  # noqa: F811
    desk: Desk,  # noqa: F811
    housing: Kept,
    program: Path,
) -> None:
    keys = AgencyKeys.generate(Origin("housing.enfield.example"))
    body = {
        "kind": "housing",
        "url": housing.url,
        "networks": LOOPBACK,
        "key": json.loads(file_bytes(keys.public())),
    }
    _, added = await enfield.local("POST", "/v1/agencies", body)
    housing.secret, housing.id = added["secret"], added["id"]
    housing._registered.set()
    answer = keys.answer(read_challenge(json.dumps(added["challenge"]).encode()), 0)
    proof = {"answer": json.loads(file_bytes(answer))}
    assert (await enfield.local("POST", f"/v1/agencies/{added['id']}/prove", proof))[1]["ok"] is True

    camden, card = desk.borough, await enfield.card()  # noqa: F811
    await enfield.know(camden)
    manifest = camden.message(card, (("housing", ("housing",)),)).manifest
    content = {"tenure": "secure", "household": ["a person who does not exist", "Ünïcode ✓"], "bedrooms": 3}
    given = {
        "key": base64.b64encode(keys.sealing[0].public.raw).decode(),
        "message_id": manifest.message_id,
        "sender": camden.origin,
        "recipient": card.origin,
        "section": "housing",
        "content": content,
    }
    sealed, wrong = await javascript(program, "seal", given)
    assert sealed is not None, wrong
    parts = {name: base64.b64decode(value) for name, value in sealed.items()}
    entry = SectionEntry(name="housing", readers=("housing",), sha256=parts["sha256"], commitment=parts["commitment"])
    made = Made(
        msgspec.structs.replace(
            manifest,
            sections=(entry,),
            parcels=(ParcelEntry(key_id=parts["key_id"], parcel=parts["parcel"]),),
        ),
        (parts["ciphertext"],),
    )
    _, reply = await enfield.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    assert read_reply(reply).results[0].receipt is not None
    await accepted(enfield, manifest.message_id)
    event = parse_event(housing.requests[-1][1].encode())
    assert isinstance(event, SectionEvent)
    opened = open_section_event(event, keys)
    assert opened.content == content
    assert opened.alone


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
async def test_it_takes_and_refuses_what_the_published_vectors_say(program: Path, case: Any) -> None:
    given = {name: case[name] for name in ("secret", "borough", "kind", "headers", "body")}
    given["seed"] = base64.b64encode(bytes.fromhex(case["seed"])).decode()
    if case["name"] != "signed with another secret":
        given["headers"] = resigned(case["secret"], case["headers"], case["body"])
    document, wrong = await javascript(program, "open", given)
    if case.get("refused"):
        assert document is None
        assert wrong.startswith("refused: ")
    else:
        assert document["content"] == case["content"], wrong


async def test_it_takes_a_section_on_and_the_sender_sees_who_holds_it(
    program: Path,
    tmp_path: Path,
    clock: Clock,  # noqa: F811
) -> None:
    async with asked(tmp_path, clock) as at:
        given = {"url": at.url, "token": at.token, "subject": f"{at.message}/housing", **ANA}
        answer, wrong = await javascript(program, "own", given)
        assert answer is not None, wrong
        assert (answer["id"], answer["rung"]) == (given["subject"], "owned")
        assert (await at.at_sender("owned", holder=ANA["name"]))["word"]["contact"] == ANA["contact"]
        assert (await javascript(program, "own", given))[0] == answer
        refused, wrong = await javascript(program, "own", {**given, "contact": ""})
        assert refused is None
        assert "request-invalid" in wrong
