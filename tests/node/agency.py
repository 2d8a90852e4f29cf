"""An agency's end of a webhook: a real server, which checks each request with the public library."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

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
        #: The events that were verified, whatever was answered.
        self.events: list[dict[str, Any]] = []
        #: The events that were verified and accepted.
        self.accepted: list[dict[str, Any]] = []
        self.unproven: list[str] = []

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            Webhook(self.secret).verify(body, dict(request.headers))
        except WebhookVerificationError as error:
            self.unproven.append(str(error))
            return web.Response(status=401)
        self.events.append(json.loads(body))
        if 200 <= self.status < 300:
            self.accepted.append(json.loads(body))
        return web.Response(status=self.status, headers=self.headers, text=None if self.status == 204 else "said")

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
        body = {"kind": self.kind, "url": self.url, "networks": LOOPBACK}
        status, document = await node.local("POST", "/v1/agencies", body)
        assert status == 201, document
        self.secret, self.id = document["secret"], document["id"]
