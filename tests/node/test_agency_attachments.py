"""Attachments for agencies: those that the node opens for them, and those that they open themselves."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exchange.agency.attachment import open_sealed_attachment
from exchange.agency.errors import NotOpened
from exchange.crypto.secret import Secret
from tests.node.agency import Agency
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, Pair, reserved_port, running
from tests.node.test_attachments import FILE, attached, comes_to, fetch, sent_with
from tests.node.test_sealed import HOUSING_KEYS, announced, housing_has, opened, sealed_agency


@pytest.fixture
async def boroughs(tmp_path: Path, clock: Clock, lines: Any) -> AsyncIterator[Pair]:
    """Hackney, and Enfield with a listener for agencies."""
    clock.run()
    with reserved_port() as port:
        table = f'[agencies]\naddress = "127.0.0.1:{port}"\nurl = "http://127.0.0.1:{port}"\n'
        async with (
            running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney,
            running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock, table) as enfield,
        ):
            await hackney.know(enfield)
            await enfield.know(hackney)
            yield Pair(hackney, enfield)


async def token(node: Node, agency: Agency) -> dict[str, Any]:
    """A new token of an agency."""
    status, made = await node.local("POST", f"/v1/agencies/{agency.id}/tokens", {})
    assert status == 201, made
    return dict(made)


def place(node: Node, message_id: str) -> str:
    """Where an agency fetches the attachment of a message."""
    base = node.services.configuration.tables.agencies.url
    return f"{base}/v1/agency/attachments/{message_id}/housing/1"


async def ask(node: Node, token: str, url: str) -> tuple[int, bytes]:
    """Fetch as an agency does."""
    async with node.http.get(url, headers={"authorization": f"Bearer {token}"}) as answer:
        return answer.status, await answer.read()


async def test_an_agency_fetches_what_the_node_opens_for_it_and_another_does_not(boroughs: Pair) -> None:
    node = boroughs.enfield
    async with Agency("housing").listening() as housing, Agency("police").listening() as police:
        await housing.register(node)
        await police.register(node)
        message_id = await sent_with(boroughs.hackney, section="housing")
        await comes_to(node, message_id, "ready")
        await housing_has(node, message_id)
    mine, theirs = (await token(node, housing))["token"], (await token(node, police))["token"]
    (event,) = (event for event in housing.accepted if event["data"].get("section") == "housing")

    (listed,) = event["data"]["content"]["attachments"]

    assert (listed["title"], listed["file_name"]) == ("The order of the court", "order.pdf")
    assert listed["url"] == place(node, message_id)
    assert await ask(node, mine, listed["url"]) == (200, FILE)
    assert (await ask(node, theirs, listed["url"]))[0] == 404
    assert (await ask(node, "exag_" + "A" * 43, listed["url"]))[0] == 401
    assert (await ask(node, mine, listed["url"] + "00"))[0] == 400
    assert (await ask(node, mine, listed["url"][:-1] + "2"))[0] == 404


async def test_an_agency_opens_itself_what_is_sealed_to_it(boroughs: Pair) -> None:
    async with Agency("housing").listening() as housing:
        await sealed_agency(boroughs.enfield, housing)
        await announced(boroughs, HOUSING_KEYS)
        message_id = await sent_with(boroughs.hackney, section="housing")
        await comes_to(boroughs.enfield, message_id, "stored")
        await comes_to(boroughs.hackney, message_id, "stored")
        await housing_has(boroughs.enfield, message_id)
        section = opened(housing, HOUSING_KEYS)["housing"]
    mine = (await token(boroughs.enfield, housing))["token"]

    status, sealed = await ask(boroughs.enfield, mine, place(boroughs.enfield, message_id))

    assert status == 200
    assert FILE[:100] not in sealed
    written = io.BytesIO()
    described = open_sealed_attachment(section, 1, io.BytesIO(sealed), written.write)
    assert written.getvalue() == FILE
    assert described.file_name == "order.pdf"
    assert (await fetch(boroughs.enfield, message_id, "housing"))[0] == 409
    wrong = [
        (section, 1, sealed[:-1]),
        (section, 1, sealed + b"x"),
        (section, 2, sealed),
        (replace(section, secret=Secret.random()), 1, sealed),
    ]
    for of, number, data in wrong:
        with pytest.raises(NotOpened, match="attach"):
            open_sealed_attachment(of, number, io.BytesIO(data), io.BytesIO().write)


async def test_a_token_that_is_ended_ends_what_is_on_its_way(boroughs: Pair) -> None:
    node = boroughs.enfield
    async with Agency("housing").listening() as housing:
        await housing.register(node)
        message_id = await sent_with(boroughs.hackney, bytes(40 * 1024 * 1024), section="housing")
        await comes_to(node, message_id, "ready")
        await housing_has(node, message_id)
    made = await token(node, housing)
    headers = {"authorization": f"Bearer {made['token']}"}

    async with node.http.get(place(node, message_id), headers=headers) as answer:
        assert answer.status == 200
        await answer.content.read(1024)
        status, _ = await node.local("DELETE", f"/v1/agencies/{housing.id}/tokens/{made['id']}")
        assert status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    assert [one["state"] for one in await attached(node, message_id)] == ["ready"]
