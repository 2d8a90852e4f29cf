"""A node that joins a directory, for the tests of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from exchange.crypto.rest import StoreKey
from exchange.crypto.signing import SigningKeys
from exchange.node.config import load_configuration
from exchange.node.keyring import Keyring
from tests.directory.office import Office, Web
from tests.node.pair import ENFIELD, Clock, Node, configure, reserved_port, serving


@asynccontextmanager
async def trusting(
    path: Path, clock: Clock, area: str = ENFIELD, slug: str = "enfield", **trust: object
) -> AsyncIterator[Node]:
    """A node with other settings under `[trust]`."""
    with reserved_port() as port, reserved_port() as local_port:
        configuration = configure(path / slug, area, f"exchange.{slug}.example", (port, local_port))
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in trust.items())
        configuration.path.write_text(f"{configuration.path.read_text()}[trust]\n{lines}")
        changed = load_configuration(configuration.path)
        async with serving(changed, clock, Keyring(changed.origin, SigningKeys.generate(), StoreKey.random())) as node:
            yield node


async def join(node: Node, web: Web, office: Office, root: bytes | None = None) -> tuple[int, Any]:
    """Join; the status and the document."""
    body = {"url": web.url, "root": json.loads(root or office.root())}
    return await node.local("POST", "/v1/directory", body)


async def joined(node: Node, web: Web, office: Office) -> Any:
    """Join, which must succeed."""
    status, document = await join(node, web, office)
    assert status == 201, document
    return document


async def refreshed(node: Node) -> Any:
    """Refresh, which must succeed."""
    status, document = await node.local("POST", "/v1/directory/refresh")
    assert status == 200, document
    return document


async def refused(node: Node) -> Any:
    """Refresh, which must fail; the problem."""
    status, document = await node.local("POST", "/v1/directory/refresh")
    assert status in (403, 503), document
    return document


async def shown(node: Node) -> Any:
    """What the node says of the directory."""
    return (await node.local("GET", "/v1/directory"))[1]


async def alarms(node: Node, kind: str) -> list[dict[str, str]]:
    """The alarms of a kind, newest first."""
    found = (await node.local("GET", "/v1/alarms"))[1]["items"]
    return [alarm for alarm in found if alarm["kind"] == kind]
