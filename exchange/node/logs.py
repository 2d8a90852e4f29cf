"""Logs: JSON lines on standard error. Only keys of an allow-list pass, so that no content of a form can."""

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

ALLOWED: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "origin",
        "peer",
        "message_id",
        "lane",
        "agency",
        "agency_id",
        "section_count",
        "item_count",
        "code",
        "status",
        "attempt",
        "retry_in_s",
        "address",
        "size_bytes",
        "key_id",
        "serial",
        "reason",
        "error",
        "area",
        "state",
        "left_out",
    }
)
#: What others can make a node say, as often as they like.
OTHERS_MAKE: Final = frozenset(
    {
        "alarm",
        "at a limit",
        "card refused",
        "envelope refused",
        "item refused",
        "logs not compared",
        "not now",
        "request failed",
    }
)
MOST_A_MINUTE: Final = 60


def only_allowed(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Drop every key that is not on the list."""
    return {key: value for key, value in event.items() if key in ALLOWED}


class FewOfEach:
    """Drops the lines that others can make, beyond so many of a kind and a peer in a minute, and says how many."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._minute = 0
        self._written: dict[tuple[str, str], int] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        name = str(event.get("event"))
        if name not in OTHERS_MAKE:
            return event
        minute = int(self._monotonic_s() // 60)
        if minute != self._minute:
            self._minute = minute
            self._written.clear()
        kind = (name, str(event.get("peer", "")))
        if self._written.get(kind, 0) >= MOST_A_MINUTE:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            raise structlog.DropEvent
        self._written[kind] = self._written.get(kind, 0) + 1
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            event["left_out"] = left_out
        return event


def configure_logs(level: str = "info") -> None:
    """Set up structlog for the process."""
    structlog.configure(
        processors=[
            FewOfEach(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            only_allowed,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # aiohttp's own loggers may quote requests; their warnings are ours to give.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
