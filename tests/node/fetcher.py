"""An agency that fetches: it asks the node's listener with its token."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.node.handmade import Borough, read_reply
from tests.node.pair import ENFIELD, Clock, Node, reserved_port, running

PARTS = (("housing", ("housing",)), ("police", ("police",)), ("subject", ("housing", "police", "dwp")))


@dataclass
class Fetcher:
    """An agency of a kind, as a node knows it."""

    node: Node
    url: str
    id: str
    token: str
    kind: str = "housing"

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Ask; the status and the document."""
        headers = {"authorization": f"Bearer {self.token}"}
        async with self.node.http.request(method, f"{self.url}{path}", headers=headers, **more) as answer:
            return answer.status, json.loads(await answer.read())

    async def fetch(self, after: str = "", wait: int = 0, limit: int = 50) -> dict[str, Any]:
        """What there is past a cursor."""
        query = f"wait={wait}&limit={limit}" + (f"&after={after}" if after else "")
        status, document = await self.ask(
            "GET", f"/v1/agency/sections?{query}", timeout=aiohttp.ClientTimeout(total=wait + 20)
        )
        assert status == 200, document
        return dict(document)

    async def says(self, event_id: str, verb: str = "delivered") -> int:
        """Say of a section that it is delivered, or cannot be opened; the status."""
        return (await self.ask("POST", f"/v1/agency/sections/{event_id}/{verb}"))[0]

    async def takes(self, after: str = "", wait: int = 20) -> list[str]:
        """Fetch and acknowledge; what it was."""
        items = (await self.fetch(after, wait))["items"]
        assert {await self.says(item["id"]) for item in items} <= {200}
        return names(items)


def names(items: list[dict[str, Any]]) -> list[str]:
    """The sections of events, in their order."""
    return [item["data"]["section"] for item in items]


async def add(node: Node, kind: str = "housing", **more: Any) -> Fetcher:
    """Register an agency that fetches."""
    status, added = await node.local("POST", "/v1/agencies", {"kind": kind, "pull": True, **more})
    assert status == 201, added
    return Fetcher(node, added["asks_at"], added["id"], added["token"], kind)


@asynccontextmanager
async def listening(path: Path, clock: Clock, more: str = "") -> AsyncIterator[Node]:
    """Enfield's node, with the listener for agencies."""
    with reserved_port() as port:
        table = f'[agencies]\naddress = "127.0.0.1:{port}"\nurl = "http://127.0.0.1:{port}"\n'
        async with running(path / "enfield", ENFIELD, "exchange.enfield.example", clock, table + more) as node:
            yield node


async def send(node: Node, camden: Borough, *, urgent: bool = False, parts: Any = PARTS, **options: Any) -> str:
    """Send a message with a section for each agency and one for all; return its id."""
    card = await node.card()
    made = camden.message(card, parts, **options)
    items = camden.latest(camden.sign_manifest(made, urgent=urgent))
    status, body = await node.post(camden.envelope(card, items, made.ciphertexts))
    assert status == 200
    assert read_reply(body).results[0].receipt is not None
    return str(made.manifest.message_id)
