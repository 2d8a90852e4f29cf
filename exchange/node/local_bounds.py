"""What one program that runs wild can take of the local API: requests under way at once, and time for a body."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import web

from exchange.node.problems import problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Callable[..., Any])

#: A body comes from this machine, or through a proxy on it.
BODY_TIMEOUT_S: Final = 30.0


def streamed(handler: H) -> H:
    """Mark a handler that reads its body by itself, part by part, and bounds it."""
    handler.reads_by_itself = True  # type: ignore[attr-defined]
    return handler


def bounded(most: int, body_timeout_s: float = BODY_TIMEOUT_S) -> Any:
    """A middleware: so many requests under way at most, each with its body here before it is handled."""
    under_way = 0

    @web.middleware
    async def bound(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal under_way
        if under_way >= most:
            return problem(503, "too-busy", f"{most} requests are under way", "Ask fewer at once, and again later.")
        under_way += 1
        try:
            if request.can_read_body and not getattr(request.match_info.handler, "reads_by_itself", False):
                try:
                    async with asyncio.timeout(body_timeout_s):
                        await request.read()  # which keeps it for the handler
                except TimeoutError:
                    return problem(408, "too-slow", "the request took too long")
            return await handler(request)
        finally:
            under_way -= 1

    return bound
