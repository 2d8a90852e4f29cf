"""The local API for the self-test of agencies: a signed sample, and what is wrong with what a receiver got."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from exchange.node.problems import json_response
from exchange.node.requests import Request, body_of
from exchange.node.selftest import SelfTest, describe_sample
from exchange.schema.selftest.bodies import MOST_BYTES

SecretText = Annotated[str, Meta(max_length=500)]


class GivenWebhook(Request, frozen=True):
    """What a receiver got, and what it says of itself: its secret, the signature that it computed, its clock.

    Headers are lines of `name: value`. Nothing of it is kept.
    """

    headers: Annotated[str, Meta(max_length=32_768)]
    body: Annotated[bytes, Meta(max_length=MOST_BYTES)]
    secret: SecretText | None = None
    computed: SecretText | None = None
    clock: Annotated[str, Meta(max_length=60)] | None = None


class SelfTestApi:
    """The handlers."""

    def __init__(self, selftest: SelfTest) -> None:
        self._selftest = selftest

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/v1/agencies/{id}/selftest", self._sample),
            web.post("/v1/agencies/{id}/selftest", self._diagnose),
        ]

    async def _sample(self, request: web.Request) -> web.Response:
        return json_response(describe_sample(await self._selftest.sample(request.match_info["id"])))

    async def _diagnose(self, request: web.Request) -> web.Response:
        given = await body_of(request, GivenWebhook)
        return json_response(
            await self._selftest.diagnose(
                request.match_info["id"], given.headers, given.body, given.secret, given.computed, given.clock
            )
        )
