"""Request bodies of the local API: strict structs, refused with a path."""

import ssl
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from exchange.node.egress import parse_networks
from exchange.node.errors import RequestInvalid

T = TypeVar("T")

#: The name of the token by which a request came; none over the Unix socket.
WHO: Final = web.RequestKey("who", str)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every request body."""


async def body_of(request: web.Request, kind: type[T]) -> T:
    """Read a request's body.

    Raises:
        RequestInvalid: it does not fit; the message names the path and no content.
    """
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except RecursionError:
        raise RequestInvalid("the request does not fit: it is too deep") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise RequestInvalid(f"the request does not fit: {str(error).split(' - at ')[-1]}") from None


def check_file(path: str | None) -> None:
    """Check that a CA file which a request names is on the node's machine, and holds certificates.

    Raises:
        RequestInvalid: it is not, or does not.
    """
    if path is None:
        return
    if not Path(path).is_file():
        raise RequestInvalid("the CA file does not exist on the node's machine")
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise RequestInvalid("the CA file holds no certificates that the node can read") from None


def check_certificate(path: str | None) -> None:
    """Check that a file with a certificate and its key, in PEM, can be used, and that others cannot read it.

    Raises:
        RequestInvalid: it cannot, or they can.
    """
    if path is None:
        return
    try:
        mode = Path(path).stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise RequestInvalid("others than the node's account may read the client certificate's key: chmod 600 it")
        # With a passphrase to ask for, OpenSSL would stop the node and ask at its terminal.
        ssl.create_default_context().load_cert_chain(path, password=lambda: "")
    except FileNotFoundError:
        raise RequestInvalid("the client certificate does not exist on the node's machine") from None
    except (OSError, ssl.SSLError, ValueError):
        raise RequestInvalid("the file holds no certificate with its unencrypted key, in PEM") from None


def check_networks(texts: Iterable[str]) -> None:
    """Check that all are networks, as CIDR texts.

    Raises:
        RequestInvalid: one is not.
    """
    try:
        parse_networks(texts)
    except ValueError:
        raise RequestInvalid("--allow-network takes networks such as 10.1.0.0/16") from None
