"""Logs: JSON lines on standard error. Only keys of an allow-list pass, so that no content of a form can."""

import logging
import sys
from collections.abc import MutableMapping
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
    }
)


def only_allowed(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Drop every key that is not on the list."""
    return {key: value for key, value in event.items() if key in ALLOWED}


def configure_logs(level: str = "info") -> None:
    """Set up structlog for the process."""
    structlog.configure(
        processors=[
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
