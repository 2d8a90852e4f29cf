"""Ask the borough's node on its listener for agencies, with a token. Standard library alone; TLS 1.3, or loopback."""

import http.client
import ipaddress
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from exchange.agency.errors import NodeRefused, NodeUnreachable

_MOST_BYTES: Final = 1024 * 1024


class Node:
    """The agency's own borough's node; `ca_file` where its certificate is of an authority of its own."""

    def __init__(self, url: str, token: str, ca_file: Path | None = None, timeout_s: float = 30) -> None:
        """Take where it is.

        Raises:
            NodeUnreachable: the URL is not one to which a token may be sent.
            OSError: the CA file cannot be read.
        """
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path, self._token, self._timeout_s = parts.path.rstrip("/"), token, timeout_s
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        elif parts.scheme != "http" or not _is_loopback(self._host):
            raise NodeUnreachable("the node's URL is https://, or http:// on loopback: a token goes nowhere else")

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask; return the document.

        Raises:
            NodeUnreachable: it did not answer.
            NodeRefused: it refused, with a code of its own.
        """
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        data = None if body is None else msgspec.json.encode(body)
        try:
            connection.request(method, self._path + path, data, headers)
            answer = connection.getresponse()
            document = msgspec.json.decode(answer.read(_MOST_BYTES), type=dict[str, Any])
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise NodeUnreachable(f"the borough's node did not answer: {type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status >= 300:
            hint = str(document.get("hint", ""))
            raise NodeRefused(str(document.get("message", answer.status)), str(document.get("code", "")), hint)
        return document


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
