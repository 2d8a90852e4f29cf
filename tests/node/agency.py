"""An agency's end of a webhook: a real server, which checks each request with the public library.

That library's own `verify` looks at the wall clock, so its `sign` is compared instead, and the time with the test's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.node.pair import Node

LOOPBACK = ["127.0.0.0/8"]


class Agency:
    """Takes webhooks on loopback."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.url = ""
        self.secret = ""
        self.id = ""
        #: What to answer, and with which headers.
        self.status = 204
        self.headers: dict[str, str] = {}
        #: What is done with a verified event before it is answered.
        self.before: Callable[[Any], Awaitable[None]] | None = None
        #: What to say to an event, in place of a word that means nothing.
        self.says: Callable[[Any], bytes] = lambda _: b"said"
        #: The events that were verified, whatever was answered.
        self.events: list[dict[str, Any]] = []
        #: The events that were verified and accepted.
        self.accepted: list[dict[str, Any]] = []
        self.unproven: list[str] = []
        #: The headers of what was verified.
        self.seen: list[dict[str, str]] = []
        self._registered = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        await self._registered.wait()
        event_id, signature = request.headers["webhook-id"], request.headers["webhook-signature"]
        at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
        # The public library takes any of several signatures, and knows v1 alone.
        if Webhook(self.secret).sign(event_id, at, body.decode()) not in signature.split():
            self.unproven.append(event_id)
            return web.Response(status=401)
        self.events.append(json.loads(body))
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        if self.before is not None:
            await self.before(json.loads(body))
        if 200 <= self.status < 300:
            self.accepted.append(json.loads(body))
        said = None if self.status == 204 else self.says(json.loads(body))
        return web.Response(status=self.status, headers=self.headers, body=said)

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator["Agency"]:
        """Listen on loopback."""
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/hook", self._answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def register(self, node: Node) -> None:
        """Register at a node."""
        self._registered.clear()
        body = {"kind": self.kind, "url": self.url, "networks": LOOPBACK}
        status, document = await node.local("POST", "/v1/agencies", body)
        assert status == 201, document
        self.secret, self.id = document["secret"], document["id"]
        self._registered.set()
