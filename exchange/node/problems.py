"""Errors as HTTP responses: RFC 9457 problem documents with a stable `code`, and a hint for people."""

import math
from typing import Any, Final

import msgspec
from aiohttp import web

from exchange.crypto.errors import CryptoError, KeystoreError, WrongPassphrase
from exchange.errors import ExchangeError
from exchange.node import errors
from exchange.schema.errors import FormInvalid, SchemaError
from exchange.store.errors import AlreadyThere, Conflict, NotFound, StoreUnavailable, ValueRefused

_STATUSES: Final[tuple[tuple[type[ExchangeError], int], ...]] = (
    (FormInvalid, 422),
    (errors.GateClosed, 422),
    (errors.SecondPersonNeeded, 403),
    (NotFound, 404),
    (errors.PeerUnknown, 404),
    (AlreadyThere, 409),
    (Conflict, 409),
    (errors.PeerUntrusted, 403),
    (errors.FingerprintMismatch, 403),
    (errors.IdentityRevoked, 403),
    (errors.HandshakeRefused, 403),
    (errors.Unacceptable, 403),
    (errors.DirectoryRefused, 403),
    (errors.ForkDetected, 403),
    (errors.NotSaidThere, 409),
    (errors.WordsTooMany, 409),
    (errors.HandoverOpen, 409),
    (errors.NotSentYet, 409),
    (errors.OrdersTooMany, 409),
    (errors.AgencySigns, 403),
    (errors.RequestInvalid, 400),
    (errors.TokenNeeded, 401),
    (ValueRefused, 400),
    (errors.AttachmentRefused, 422),
    (errors.AttachmentNotReady, 409),
    (errors.NotNow, 503),
    (errors.NoCurrentKey, 503),
    (StoreUnavailable, 503),
    (WrongPassphrase, 403),
    (KeystoreError, 500),
    (SchemaError, 422),
    (CryptoError, 400),
)


def status_of(error: ExchangeError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, errors.AtLimit):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def problem(
    status: int, code: str, message: str, hint: str = "", retry_after_s: float = 2, **more: object
) -> web.Response:
    """A problem document; where the request may be made again, it says after how long."""
    body = {"title": message, "status": status, "code": code, "message": message, "hint": hint, **more}
    headers = {"retry-after": str(max(1, math.ceil(retry_after_s)))} if status in (429, 503) else {}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json", headers=headers
    )


def problem_of(error: ExchangeError) -> web.Response:
    """The problem document of an error."""
    more: dict[str, Any] = {}
    if isinstance(error, FormInvalid):
        more["findings"] = [
            {"severity": item.severity, "path": item.path, "message": item.message} for item in error.findings
        ]
    if isinstance(error, errors.GateClosed):
        more["findings"] = [
            {"severity": "error", "path": item.path, "message": item.message, "hint": item.hint}
            for item in error.missing
        ]
    if isinstance(error, errors.AtLimit):
        return problem(status_of(error), error.code, str(error), error.hint, error.retry_after_s)
    if isinstance(error, errors.TokenNeeded):
        refusal = problem(401, error.code, str(error), error.hint)
        refusal.headers["www-authenticate"] = "Bearer"
        return refusal
    return problem(status_of(error), error.code, str(error), error.hint, **more)


def json_response(value: object, status: int = 200) -> web.Response:
    """A JSON response."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
